"""I5: the level that is claimed holds in the array's snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ...drivers.contracts import ConsistencyLevel
from ...drivers.records import Disk, PowerState, Vm
from ...orchestrator.journal import StoredEntry
from ..calls import REMOVE
from ..evidence import PREFIX, Cut, Evidence, Lying
from ..report import Violation

_CRASH = ConsistencyLevel.CRASH.rank

ID = "I5 honest"
SENTENCE = (
    "The level reported for a VM holds in the array's snapshot: base disks as of the freeze, "
    "writes seen across units prefix-closed."
)


class _Opening(NamedTuple):
    """A VM snapshot of ours, as it came into the world and went."""

    tag: str
    created_s: float
    frozen: bool
    power: str
    ended_s: float


def check(evidence: Evidence) -> list[Violation]:
    """Judge every entry by what the world did, and by the data where there is any."""
    found = []
    for entry in evidence.entries:
        cuts = [evidence.cut_of[ref] for ref in entry.cuts if ref in evidence.cut_of]
        if not cuts or len(cuts) < len(entry.cuts):
            continue  # what is not there any more is for I8
        problem = _by_events(evidence, entry, cuts) or _by_data(evidence, entry)
        if problem:
            found.append(Violation(ID, f"{entry.vm_id}: {problem}", entry.vm_id, cuts[0].at_s))
    return found


def _by_data(evidence: Evidence, entry: StoredEntry) -> str:
    if evidence.world.plane is None:
        return ""
    verdict = evidence.world.verify(
        entry.vm_id, entry.cuts, entry.level, _disk_levels(evidence, entry)
    )
    return "" if verdict.ok else f"claimed {entry.level}, found {verdict.found}: {verdict.problem}"


def _disk_levels(
    evidence: Evidence, entry: StoredEntry
) -> tuple[tuple[int, ConsistencyLevel], ...]:
    """What the job said of single disks, if it lived to say anything."""
    for story in evidence.jobs:
        if story.job_id == entry.job_id and story.result is not None:
            for outcome in story.result.vms:
                if outcome.vm_id == entry.vm_id:
                    return outcome.disk_levels
    return ()


def _by_events(evidence: Evidence, entry: StoredEntry, cuts: Sequence[Cut]) -> str:
    first_s = min(cut.at_s for cut in cuts)
    last_s = max(cut.at_s for cut in cuts)
    vms = [cut.lying(entry.vm_id).vm for cut in cuts]
    if any(_places(vm) != _places(vms[0]) for vm in vms):
        return "it moved between the cuts of its units"
    held = [disk for disk in vms[0].disks if disk.in_vm_snapshot]
    live = _live(evidence, vms[0])
    if not held and live:
        if entry.level is ConsistencyLevel.UNKNOWN or _at_once(evidence, live, vms[0], cuts):
            return ""
        return f"no snapshot holds its disks still, and its {len(cuts)} cuts are not one"
    open_ones = [
        one
        for one in _openings(evidence, entry)
        if one.created_s <= first_s and last_s <= one.ended_s
    ]
    if not open_ones:
        return "no VM snapshot of its job was open during all the cuts of its units"
    reached = min((_level(evidence, one, vms[0]) for one in open_ones), key=lambda one: one.rank)
    if live:
        reached = ConsistencyLevel.UNKNOWN
        torn = _torn_disk(evidence, entry, vms[0], cuts)
        if torn:
            return torn
    if entry.level.rank < reached.rank:
        return f"{entry.level} is claimed, and {reached} was reached"
    return ""


def _torn_disk(evidence: Evidence, entry: StoredEntry, vm: Vm, cuts: Sequence[Cut]) -> str:
    """Disks that go on changing are worth something together if one cut took all their units."""
    claimed = {key for key, level in _disk_levels(evidence, entry) if level.rank <= _CRASH}
    loose = [disk for disk in vm.disks if disk.key in claimed and not disk.in_vm_snapshot]
    if not loose or _at_once(evidence, loose, vm, cuts):
        return ""
    return f"disks {[disk.key for disk in loose]} claim a level, and were cut one by one"


def _at_once(evidence: Evidence, disks: Sequence[Disk], vm: Vm, cuts: Sequence[Cut]) -> bool:
    """Whether one cut took all units of these disks."""
    bare = replace(vm, home_datastore_id=None, disks=tuple(disks))
    units = set(evidence.units_under(Lying(bare, None)))
    return any(units <= set(cut.unit_ids) for cut in cuts)


def _places(vm: Vm) -> tuple[object, ...]:
    return (vm.home_datastore_id, *((disk.key, disk.datastore_id) for disk in vm.disks))


def _live(evidence: Evidence, vm: Vm) -> list[Disk]:
    """The disks of the job's image that no VM snapshot holds still."""
    return [
        disk
        for disk in vm.disks
        if not disk.in_vm_snapshot
        and (
            evidence.spec.physical_raw_disks
            if disk.raw_is_physical
            else evidence.spec.independent_disks
        )
    ]


def _openings(evidence: Evidence, entry: StoredEntry) -> list[_Opening]:
    """Snapshots of the entry's job on its VM, each until something began to end it."""
    prefix = f"{PREFIX}{entry.job_id}-"
    removals: dict[str, float] = {}
    for call in evidence.calls_of(REMOVE):
        if call.subject == entry.vm_id:
            removals.setdefault(call.asked.tag, call.begun_s)
    openings = []
    frozen = False
    vms = evidence.estate.inventory.vms
    power: str = next(vm.power_state for vm in vms if vm.id == entry.vm_id)
    for at_s, kind, _, _, detail in evidence.by_subject.get(entry.vm_id, ()):
        if kind == "world.vm.frozen":
            frozen = True
        elif kind == "world.vm.thawed":
            frozen = False
        elif kind == "world.vm.power":
            power = detail
        elif kind == "world.vm.snapshot-removed":
            removals[detail] = min(at_s, removals.get(detail, at_s))
        elif kind == "world.vm.snapshot" and detail.startswith(prefix):
            openings.append(_Opening(detail, at_s, frozen, power, float("inf")))
    return [one._replace(ended_s=removals.get(one.tag, one.ended_s)) for one in openings]


def _level(evidence: Evidence, opening: _Opening, vm: Vm) -> ConsistencyLevel:
    """What a snapshot that came into being like this is worth."""
    if opening.frozen:
        windows = evidence.states[vm.id].is_windows
        return ConsistencyLevel.APPLICATION if windows else ConsistencyLevel.FILESYSTEM
    whole = opening.power == PowerState.OFF  # "cut" when it was switched off hard
    return ConsistencyLevel.FILESYSTEM if whole else ConsistencyLevel.CRASH
