"""I4: the right units are cut, and all of them."""

from __future__ import annotations

from ...drivers.records import UnitId
from ..evidence import Cut, Evidence, Lying
from ..report import Violation

ID = "I4 targeted"
SENTENCE = (
    "Only units holding selected VMs are snapshotted; every unit of a VM reported protected is."
)


def check(evidence: Evidence) -> list[Violation]:
    """Hold every cut against where the world's VMs lay, and every entry against its cuts."""
    found = []
    for cut in evidence.cuts:
        found += _needless(evidence, cut)
    for entry in evidence.entries:
        cuts = [evidence.cut_of[ref] for ref in entry.cuts if ref in evidence.cut_of]
        if len(cuts) < len(entry.cuts):
            continue  # what is not there any more is for I8
        covered = {unit for cut in cuts for unit in cut.unit_ids}
        for cut in cuts:
            lying = cut.lying(entry.vm_id)
            missing = [unit for unit in evidence.units_under(lying) if unit not in covered]
            if missing:
                sentence = (
                    f"{entry.vm_id} is in the catalogue, and {missing[0]}, where it lay at "
                    "the cut, is in none of its snapshots"
                )
                found.append(Violation(ID, sentence, entry.vm_id, cut.at_s))
                break
    return found


def _needless(evidence: Evidence, cut: Cut) -> list[Violation]:
    """Units that held no selected VM, neither at the cut nor since its snapshot was opened."""
    needed: set[UnitId] = set()
    for lying in cut.vms:
        if lying.vm.id in evidence.selected:
            needed.update(evidence.units_under(lying))
            needed.update(evidence.units_of_pointers(lying))
    extra = [unit for unit in cut.unit_ids if unit not in needed]
    if extra:
        for lying in _since_opened(evidence, cut):
            needed.update(evidence.units_under(lying))
            needed.update(evidence.units_of_pointers(lying))
        extra = [unit for unit in extra if unit not in needed]
    return [
        Violation(ID, f"{unit} was cut and held no selected VM", unit, cut.at_s) for unit in extra
    ]


def _since_opened(evidence: Evidence, cut: Cut) -> list[Lying]:
    """Selected VMs as they lay between the first of their last two openings and the cut."""
    opened: dict[str, list[float]] = {}
    for row in evidence.of("world.vm.snapshot"):
        if row[0] <= cut.at_s:
            opened.setdefault(row[3], []).append(row[0])
    lay = []
    for vm_id, times in opened.items():
        if vm_id not in evidence.selected:
            continue
        since_s = times[-2:][0]
        moves = [
            move for move in evidence.moves if move.lying.vm.id == vm_id and move.at_s <= cut.at_s
        ]
        for n, move in enumerate(moves):
            until_s = moves[n + 1].at_s if n + 1 < len(moves) else cut.at_s
            if until_s >= since_s:
                lay.append(move.lying)
    return lay
