"""Is an image worth what was claimed? Array snapshots are read back and judged.

A VM is put together from the group snapshots as a restore would do it: the files that its
descriptors named at the cut, below the newest snapshot of ours that was open then; without one,
all files. Every block shows the stamp of a write, and stamps count through all disks of the VM:

* **crash**: the stamps seen are closed under "was durable before": with a write, the image shows
  every durable one that is older. That is what a power cut leaves.
* **filesystem**: the image shows exactly what the guest had written when it froze, its memory
  included, and nothing later; or the same of a guest that was shut down.
* **application**: the same, with the applications' writers frozen too.
* **torn**: less than crash; nothing is left of the order in which things were written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Final, Literal, NamedTuple

from ..drivers.contracts import ConsistencyLevel, GroupSnapshotRef
from ..drivers.records import Vm
from .block_chain import Layout, Mark
from .block_guest import BlockGuest, Moment
from .block_images import BlockFile, Content
from .block_plane import BlockPlane, CutRecord

Found = ConsistencyLevel | Literal["torn"]
TORN: Final[Literal["torn"]] = "torn"


class Verdict(NamedTuple):
    """What an image is worth.

    Attributes
    ----------
    ok:
        It is at least what was claimed.
    found:
        The strongest level that holds for the judged disks together, or ``torn``.
    problem:
        Why it is not ``ok``, or why it is torn; empty otherwise.
    """

    ok: bool
    found: Found
    problem: str = ""


class _Image(NamedTuple):
    content: Content
    mark: Mark | None
    moment: Moment
    problem: str


def verify(
    plane: BlockPlane,
    guest: int,
    cuts: Sequence[GroupSnapshotRef],
    level: ConsistencyLevel,
    disk_levels: Collection[tuple[int, ConsistencyLevel]] = (),
) -> Verdict:
    """Judge the image of a VM in these group snapshots.

    Parameters
    ----------
    plane, guest:
        Where the blocks are, and which VM.
    cuts:
        The group snapshots that hold the VM's units together.
    level:
        What the image as a whole is claimed to be; ``unknown`` claims nothing.
    disk_levels:
        What is claimed of each disk, by key; disks that are not named are not judged. Without any,
        the disks that VM snapshots hold are judged, or all of a VM that has none of these.
    """
    vm = plane.vms[guest]
    claims = dict(disk_levels) or _all_held(vm, level)
    records = []
    for ref in cuts:
        record = plane.cut_of(ref.array_id, ref.snapshot_id)
        if record is None:
            return Verdict(False, TORN, f"group snapshot {ref.snapshot_id} is gone")
        records.append(record)
    whole = _judge(plane, guest, records, list(claims), level)
    if not whole.ok:
        return whole
    # Held disks show the freeze and live ones the cut: each kind has a claim of its own.
    for held in (True, False):
        keys = [disk.key for disk in vm.disks if disk.key in claims and disk.in_vm_snapshot is held]
        claimed = {claims[key] for key in keys}
        if not keys or (len(keys) == len(claims) and claimed == {level}):
            continue
        part = _judge(plane, guest, records, keys, min(claimed, key=lambda claim: claim.rank))
        if not part.ok:
            return part._replace(problem=f"disks {_names(keys)}: {part.problem}")
    return whole


def _all_held(vm: Vm, level: ConsistencyLevel) -> dict[int, ConsistencyLevel]:
    held = [disk.key for disk in vm.disks if disk.in_vm_snapshot]
    return dict.fromkeys(held or [disk.key for disk in vm.disks], level)


def _judge(
    plane: BlockPlane,
    guest: int,
    records: Sequence[CutRecord],
    keys: Sequence[int],
    claimed: ConsistencyLevel,
) -> Verdict:
    disks = [place for place, disk in enumerate(plane.vms[guest].disks) if disk.key in keys]
    image = _read(plane, guest, records, disks)
    found: Found = TORN
    problem = image.problem
    if not problem:
        found, problem = _level_of(plane, guest, disks, image)
    if claimed is ConsistencyLevel.UNKNOWN:
        return Verdict(True, found, problem)
    if found == TORN or problem:
        return Verdict(False, found, problem)
    if ConsistencyLevel(found).rank > claimed.rank:
        return Verdict(False, found, f"claimed {claimed}, found {found}: {_why(image)}")
    return Verdict(True, found)


def _why(image: _Image) -> str:
    if image.mark is None:
        return "no VM snapshot of ours was open at the cut"
    if not image.mark.quiesced:
        return "the guest was not quiesced"
    return "it does not show exactly what the guest had written when it froze"


def _read(
    plane: BlockPlane, guest: int, records: Sequence[CutRecord], disks: Sequence[int]
) -> _Image:
    """Put the image together; a ``problem`` says that a part of it is in no snapshot."""
    nothing = Moment(0, 0, 0)
    content: Content = {}
    there = [record for record in records if guest in record.layouts]
    if not there:
        return _Image(content, None, nothing, "none of its files is in the group snapshots")
    marks = [_newest_of_ours(record.layouts[guest][0]) for record in there]
    if any(mark != marks[0] for mark in marks):
        # One of the cuts came before the snapshot, or after its removal had begun to show.
        marks = [None]
    covered = {unit_id for record in there for unit_id in record.unit_ids}
    for record in there:
        layout, _ = record.layouts[guest]
        depth = _depth(layout)
        for disk in disks:
            for file in layout.files[disk][:depth]:
                missing = [unit_id for unit_id in file.unit_ids if unit_id not in covered]
                if missing:
                    key = plane.vms[guest].disks[disk].key
                    where = f"unit {missing[0]}" if missing[0] else "a disk without a unit"
                    problem = f"disk {key} lies on {where}, which no group snapshot holds"
                    return _Image(content, None, nothing, problem)
    deepest = max(len(chain) for record in there for chain in record.layouts[guest][0].files)
    for depth in range(deepest):
        for record in there:
            layout, _ = record.layouts[guest]
            if depth < _depth(layout):
                for disk in disks:
                    for file in layout.files[disk][depth : depth + 1]:
                        content.update(_part(plane, record, file))
    moment = marks[0].moment if marks[0] is not None else _earliest(there, guest)
    if not any(plane.chains[guest].held[disk] for disk in disks):
        moment = _earliest(there, guest)
        marks = [None]
    return _Image(content, marks[0], moment, "")


def _newest_of_ours(layout: Layout) -> Mark | None:
    return next((m for m in reversed(layout.marks) if not m.foreign and not m.gone), None)


def _depth(layout: Layout) -> int:
    """How many files of a chain belong to the image."""
    mark = _newest_of_ours(layout)
    return len(layout.marks) + 1 if mark is None else layout.marks.index(mark) + 1


def _part(plane: BlockPlane, record: CutRecord, file: BlockFile) -> Content:
    found: Content = {}
    for unit_id in file.unit_ids:
        if unit_id in record.unit_ids:
            found.update(plane.images_of(unit_id).read(record.number, file.number))
    return found


def _earliest(records: Sequence[CutRecord], guest: int) -> Moment:
    return min(record.layouts[guest][1] for record in records)


def _level_of(
    plane: BlockPlane, guest: int, disks: Sequence[int], image: _Image
) -> tuple[Found, str]:
    one, content = plane.guests[guest], image.content
    on = set(disks)
    chains = plane.chains[guest]
    everything = len(on) == len(chains.held)

    def judged(expected: Content) -> Content:
        if everything:
            return expected
        return {b: stamp for b, stamp in expected.items() if chains.disk_of(b) in on}

    mark = image.mark
    if mark is not None and mark.quiesced:
        whole = judged(one.expected(mark.moment.durable, mark.moment.issued))
        if content == whole:  # which is closed as well
            application = ConsistencyLevel.APPLICATION
            return application if mark.application else ConsistencyLevel.FILESYSTEM, ""
    newest = max(content.values(), default=-1)
    for block, stamp in judged(_durable_before(one, newest)).items():
        if content.get(block, -1) < stamp:
            return TORN, f"it shows write {newest} and not write {stamp}, which was durable before"
    due = judged(_durable(one, image.moment.durable))
    missing = [stamp for block, stamp in due.items() if content.get(block, -1) < stamp]
    if missing:
        problem = f"it is too old: durable write {min(missing)} is not in it"
        return ConsistencyLevel.CRASH, problem
    return ConsistencyLevel.CRASH, ""


def _durable_before(one: BlockGuest, stamp: int) -> Content:
    """The newest durable write of each block that is older than a write or is it."""
    return _durable(one, bisect_right(one.script.durable.stamps, stamp))


def _durable(one: BlockGuest, count: int) -> Content:
    durable = one.script.durable
    return dict(zip(durable.blocks[:count], durable.stamps, strict=False))


def _names(keys: Sequence[int]) -> str:
    return ", ".join(map(str, keys))
