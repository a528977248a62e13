"""What came of each requirement, and of a whole suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What is known of a requirement afterwards."""

    PASS = "pass"  # noqa: S105  # not a password
    FAIL = "fail"
    ABSENT = "absent as declared"
    NOT_TESTED = "not tested"
    BLOCKED = "blocked"
    """It could not be tried, because something failed that should not have."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Durations of one kind of operation: ``labels`` say under which circumstances."""

    name: str
    labels: dict[str, Any]
    values_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one requirement.

    Attributes
    ----------
    reason:
        Why it is not a pass, in one sentence; empty for a pass.
    evidence:
        What was seen, ready for JSON: the torn sequence, the statistical power, counts.
    events:
        The last calls on the driver, with time since the check began and what came of each.
    samples:
        What was measured.
    seed:
        Repeats the check's random choices.
    duration_s:
        On the clock of the loop that it ran on.
    written_bytes, compared_bytes:
        Data that the check wrote to units or disks, and that it held against what should be there.
    """

    requirement_id: str
    verdict: Verdict
    reason: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    events: tuple[dict[str, Any], ...] = ()
    samples: tuple[Sample, ...] = ()
    seed: str = ""
    duration_s: float = 0.0
    written_bytes: int = 0
    compared_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """All outcomes, in the order of the requirements, and what they are about.

    Attributes
    ----------
    kind:
        ``array`` or ``hypervisor``.
    target:
        The target's name; ``target_class`` is where its code is.
    driver:
        Where the driver's class is; ``driver_package`` names the distribution and its version.
    capabilities:
        What the driver declares.
    hooks:
        What the target can do beside the driver, in alphabetical order.
    limits:
        What the vendor states, by name, in seconds.
    environment:
        What the target says of the system behind it.
    """

    kind: str
    target: str
    target_class: str
    driver: str
    driver_package: str
    capabilities: dict[str, Any]
    hooks: tuple[str, ...]
    limits: dict[str, float]
    environment: dict[str, str]
    seed: int
    effort: str
    outcomes: tuple[Outcome, ...]
    duration_s: float = 0.0

    def of(self, verdict: Verdict) -> list[Outcome]:
        """The outcomes with this verdict."""
        return [one for one in self.outcomes if one.verdict is verdict]

    @property
    def conformant(self) -> bool:
        """Nothing failed, nothing was blocked, and something was tried."""
        bad = {Verdict.FAIL, Verdict.BLOCKED}
        verdicts: Sequence[Verdict] = [one.verdict for one in self.outcomes]
        return Verdict.PASS in verdicts and not bad.intersection(verdicts)
