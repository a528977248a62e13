"""The conformance kit as tests of a vendor's own repository: one test per requirement.

``test_conformance = conformance(AcmeTarget)`` in a test module is all there is to write. The suite
runs once, on the target that is brought up for it, with the requirements whose tests were selected;
a requirement that this target cannot show, or that the driver declares away, is skipped with the
reason. docs/certify.md has an example.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from .certify.array_target import ArrayTarget
from .certify.config import VendorConfig, load_vendor
from .certify.hypervisor_target import HypervisorTarget
from .certify.issue import REQUIREMENTS, Order, run_suite
from .certify.outcome import Outcome, Verdict
from .topology.yamlfile import validate

_SKIPPED = {Verdict.NOT_TESTED, Verdict.ABSENT}


def conformance(
    target: type[ArrayTarget] | type[HypervisorTarget],
    config: Path | Mapping[str, Any] | None = None,
    *,
    effort: str = "quick",
    seed: int = 1,
) -> Callable[..., None]:
    """A test function, parametrised over all requirements of the kind of driver.

    Parameters
    ----------
    target:
        The vendor's class.
    config:
        The vendor's configuration, or what would stand in it.
    effort:
        ``quick``, ``standard`` or ``thorough``, whatever the configuration says.
    seed:
        Drives the checks' random choices.

    Raises
    ------
    InputError
        The configuration cannot be used.
    """
    kind = "array" if issubclass(target, ArrayTarget) else "hypervisor"
    requirements = REQUIREMENTS[kind]
    chosen = _config(config)

    @cache
    def outcomes(wanted: frozenset[str]) -> Mapping[str, Outcome]:
        order = Order(kind, target.__name__, target, chosen, seed, effort, tuple(sorted(wanted)))
        return {outcome.requirement_id: outcome for outcome in run_suite(order).outcomes}

    @pytest.mark.parametrize("requirement_id", [one.id for one in requirements])
    def test_conformance(request: pytest.FixtureRequest, requirement_id: str) -> None:
        wanted = {
            item.callspec.params["requirement_id"]
            for item in request.session.items
            if isinstance(item, pytest.Function) and item.function is request.function
        }
        outcome = outcomes(frozenset(wanted))[requirement_id]
        if outcome.verdict in _SKIPPED:
            pytest.skip(f"{outcome.verdict}: {outcome.reason}")
        if outcome.verdict is not Verdict.PASS:
            sentence = next(one.sentence for one in requirements if one.id == requirement_id)
            pytest.fail(_told(sentence, outcome), pytrace=False)

    return test_conformance


def _config(config: Path | Mapping[str, Any] | None) -> VendorConfig:
    if isinstance(config, Path):
        return load_vendor(config)
    return validate(VendorConfig, dict(config or {}), "conformance")


def _told(sentence: str, outcome: Outcome) -> str:
    """A failure, for somebody who has only this."""
    lines = [f"{outcome.requirement_id} {outcome.verdict}: {sentence}", f"  {outcome.reason}"]
    if outcome.evidence:
        lines.append(f"  seen: {json.dumps(outcome.evidence, default=str)}")
    lines += [
        f"  {call['start_s']:10.4f} s  {call['call']}({call['with']}) -> {call['result']}"
        for call in outcome.events
    ]
    return "\n".join([*lines, f"  seed {outcome.seed}"])
