"""I6: guests lose nothing."""

from __future__ import annotations

from ..evidence import Evidence
from ..report import Violation

ID = "I6 writes"
SENTENCE = "No acknowledged guest write is lost by snapshot, merge or recovery."


def check(evidence: Evidence) -> list[Violation]:
    """Ask the data plane; in flow fidelity there are no single writes to ask about."""
    if evidence.world.plane is None:
        return []
    return [Violation(ID, sentence) for sentence in evidence.world.lost_writes()]
