"""Topics of the array kit on the modelled arrays: verdicts, and canaries against their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from support_certify import certified

from stillframe.certify.array_requirements import ARRAY_REQUIREMENTS
from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.canary import Canary
from stillframe.certify.outcome import Outcome, Verdict
from stillframe.certify.targets.modelled_array import CopyOnWriteArray, RedirectOnWriteArray

KINDS: list[type[ArrayTarget]] = [RedirectOnWriteArray, CopyOnWriteArray]
NAMES = ["row", "cow"]


def outcomes(
    kind: type[ArrayTarget],
    *begin: str,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Outcome]:
    """What comes of the requirements whose identifiers begin so, by identifier."""
    wanted = [one for one in ARRAY_REQUIREMENTS if one.id.startswith(begin)]
    result = certified(kind, wanted, settings, **options)
    return {one.requirement_id: one for one in result.outcomes}


def reasons(found: Mapping[str, Outcome], *verdicts: Verdict) -> dict[str, str]:
    """Why requirements have another verdict than these."""
    return {name: one.reason for name, one in found.items() if one.verdict not in verdicts}


def expect_caught(kind: type[ArrayTarget], canary: Canary[ArrayTarget]) -> Outcome:
    """The canary fails its requirement, for what it does and not for an accident."""
    made = canary.make(kind)
    found = outcomes(made, canary.breaks, settings=dict(canary.settings))
    broken = found[canary.breaks]
    assert broken.verdict is Verdict.FAIL, broken
    assert "is no DriverError" not in broken.reason
    assert "did not end within" not in broken.reason
    return broken
