"""What one run of the explorer hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..orchestrator.events import Row
from .options import RunOptions


class Violation(NamedTuple):
    """An invariant that did not hold, said in one sentence; ``at_s`` is on the world's clock."""

    invariant: str
    sentence: str
    subject: str = ""
    at_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """One run.

    Attributes
    ----------
    scenario:
        Its name.
    options:
        Resolved: a run of the same scenario, seed and options takes the same steps.
    trace_hash:
        Of every event of all incarnations, the options and the outcome.
    crashes, recoveries:
        Incarnations that were killed, and recoveries that ran to their end.
    steps_by_incarnation:
        How many steps of the event loop each incarnation took, the job's first.
    virtual_s:
        The time on the world's clock at the end.
    fired:
        How often each fault site fired.
    outcomes:
        How each incarnation ended, in order.
    rows:
        All events, if they were asked for.
    """

    scenario: str
    seed: int
    options: RunOptions
    violations: tuple[Violation, ...]
    trace_hash: str
    crashes: int
    recoveries: int
    steps_by_incarnation: tuple[int, ...]
    virtual_s: float
    fired: dict[str, int] = field(default_factory=dict)
    outcomes: tuple[str, ...] = ()
    rows: tuple[Row, ...] | None = None

    @property
    def failed(self) -> bool:
        """Whether any invariant was broken."""
        return bool(self.violations)

    @property
    def steps(self) -> int:
        """Steps of all incarnations together."""
        return sum(self.steps_by_incarnation)
