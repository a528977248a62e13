"""What is always true, one file for each: an identifier, a sentence, a check of the evidence."""

from __future__ import annotations

from types import ModuleType

from ..evidence import Evidence
from ..report import Violation
from . import (
    i1_frozen,
    i2_orphans,
    i3_foreign,
    i4_targeted,
    i5_honest,
    i6_writes,
    i7_limits,
    i8_catalogue,
    i9_terminates,
)

INVARIANTS: tuple[ModuleType, ...] = (
    i1_frozen,
    i2_orphans,
    i3_foreign,
    i4_targeted,
    i5_honest,
    i6_writes,
    i7_limits,
    i8_catalogue,
    i9_terminates,
)


def check_all(evidence: Evidence) -> list[Violation]:
    """Every violation of every invariant, in their order."""
    found: list[Violation] = []
    for invariant in INVARIANTS:
        found += invariant.check(evidence)
    return found


def sentences() -> dict[str, str]:
    """The sentence of each invariant by its identifier."""
    return {invariant.ID: invariant.SENTENCE for invariant in INVARIANTS}
