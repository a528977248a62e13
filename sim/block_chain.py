"""The files of a VM's disks: bases with their chains of deltas, merges and moves.

Every disk that VM snapshots hold still is a chain of files, oldest first. The guest writes to the
newest and reads, block by block, the newest that has it. A merge copies the blocks of a delta into
the file below it: *mirrored*, the guest's writes go to both meanwhile, else what it wrote during a
pass is what the next one copies. A move copies the files while the guest's writes go to both sides.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import compress, pairwise
from typing import NamedTuple, Protocol

from ..drivers.records import UnitId
from .block_guest import Moment
from .block_images import BlockFile, Content

Placer = Callable[[int, bool], BlockFile]
"""Makes an empty file for a disk (by its place), either a delta or a base, where it belongs."""


class Mark(NamedTuple):
    """A snapshot in the chain: the files below it are what it holds.

    Attributes
    ----------
    tag:
        The snapshot's name.
    foreign:
        It was there before the run.
    moment:
        How far the guest's writes had come.
    quiesced, application:
        Whether the file systems were whole then, and the applications too.
    gone:
        The snapshot is lost, and its deltas are not.
    """

    tag: str
    foreign: bool
    moment: Moment
    quiesced: bool
    application: bool
    gone: bool = False


class Layout(NamedTuple):
    """The files of a VM at one instant, as its descriptors name them: per disk, oldest first."""

    files: tuple[tuple[BlockFile, ...], ...]
    marks: tuple[Mark, ...]


class _Takes(Protocol):
    def write(self, blocks: Sequence[int], stamps: Sequence[int]) -> None: ...


class _Written:
    """The blocks that were written since a pass began."""

    __slots__ = ("blocks",)

    def __init__(self) -> None:
        self.blocks: dict[int, None] = {}

    def write(self, blocks: Sequence[int], _: Sequence[int]) -> None:
        self.blocks.update(dict.fromkeys(blocks))


class _DiskMerge:
    """The merge of one delta into the file below it."""

    __slots__ = ("_copied", "_source", "_target", "_todo", "meanwhile")

    def __init__(self, source: BlockFile, target: BlockFile) -> None:
        self._source = source
        self._target = target
        self._todo = list(source.live())
        self._copied = 0
        self.meanwhile = _Written()

    @property
    def blocks(self) -> int:
        """How many the pass copies."""
        return len(self._todo)

    def copy(self, share: float) -> None:
        """Bring the pass to this share of its blocks; what is copied is what is there now."""
        until = min(len(self._todo), int(share * len(self._todo)))
        blocks = self._todo[self._copied : until]
        if blocks:
            content = self._source.live()
            self._target.write(blocks, [content[block] for block in blocks])
            self._copied = until

    def next_pass(self) -> None:
        """The pass is complete; the next one copies what was written meanwhile."""
        self.copy(1.0)
        self._todo, self._copied = list(self.meanwhile.blocks), 0
        self.meanwhile.blocks.clear()


class Merging:
    """A merge that is under way."""

    __slots__ = ("disks", "place", "since_s")

    def __init__(self, place: int, disks: dict[int, _DiskMerge], now_s: float) -> None:
        self.place = place
        self.disks = disks
        self.since_s = now_s

    @property
    def blocks(self) -> int:
        """How many blocks the present pass copies."""
        return sum(disk.blocks for disk in self.disks.values())


class DiskChains:
    """All disks of one VM.

    Parameters
    ----------
    first_block:
        Per disk its first block.
    held:
        Per disk whether VM snapshots hold it still.
    place:
        Makes files where they belong as the VM lies now.
    found:
        Tags of the snapshots that were there before.
    """

    __slots__ = (
        "_files",
        "_first_block",
        "_layout",
        "_marks",
        "_moving",
        "_place",
        "_spans",
        "_targets",
        "held",
        "merging",
    )

    def __init__(
        self,
        first_block: Sequence[int],
        held: Sequence[bool],
        place: Placer,
        found: Sequence[str],
    ) -> None:
        self.held = tuple(held)
        self.merging: Merging | None = None
        self._first_block = list(first_block)
        self._spans = [*pairwise([*first_block, math.inf])]
        self._place = place
        self._moving: tuple[Placer, list[list[BlockFile]]] | None = None
        nowhere = Moment(0, 0, 0)
        self._marks = [Mark(tag, True, nowhere, False, False) for tag in found]
        self._files = [
            [place(disk, bool(depth)) for depth in range(1 + (len(found) if is_held else 0))]
            for disk, is_held in enumerate(held)
        ]
        self._layout: Layout | None = None
        self._targets: list[tuple[_Takes, ...]] = []
        self._aim()

    @property
    def layout(self) -> Layout:
        """The files now; the same object until something changes."""
        if self._layout is None:
            self._layout = Layout(tuple(map(tuple, self._files)), tuple(self._marks))
        return self._layout

    @property
    def is_moving(self) -> bool:
        """Whether its files are being copied elsewhere."""
        return self._moving is not None

    def unit_ids(self) -> dict[UnitId, None]:
        """The units that hold any of the files."""
        files = [file for chain in self._files for file in chain]
        return {unit_id: None for file in files for unit_id in file.unit_ids}

    def unit_of(self, block: int) -> UnitId:
        """The unit that takes a write to a block."""
        file = self._files[self.disk_of(block)][-1]
        return file.unit_ids[file.place_of(block) if len(file.unit_ids) > 1 else 0]

    def disk_of(self, block: int) -> int:
        """The place of the disk that a block belongs to."""
        return bisect_right(self._first_block, block) - 1

    def is_held(self, block: int) -> bool:
        """Whether the disk of a block is held still by VM snapshots."""
        return self.held[self.disk_of(block)]

    def write(self, blocks: Sequence[int], stamps: Sequence[int]) -> None:
        """Writes of the guest arrive, in this order."""
        if len(self._targets) == 1:
            for target in self._targets[0]:
                target.write(blocks, stamps)
            return
        for targets, (first, after) in zip(self._targets, self._spans, strict=True):
            chosen = [first <= block < after for block in blocks]
            part = [*compress(blocks, chosen)]
            if part:
                its_stamps = [*compress(stamps, chosen)]
                for target in targets:
                    target.write(part, its_stamps)

    def live(self) -> Content:
        """What the guest reads on all its disks."""
        found: Content = {}
        for chain in self._files:
            for file in chain:
                found.update(file.live())
        return found

    # -- snapshots and merges -------------------------------------------------------------------

    def begin_delta(self, mark: Mark) -> None:
        """A snapshot: every disk that can be held gets a delta."""
        self._marks.append(mark)
        for disk, chain in enumerate(self._files):
            if self.held[disk]:
                chain.append(self._place(disk, True))
        self._aim()

    def lose_mark(self, place: int) -> None:
        """The snapshot is gone, its deltas are not."""
        self._marks[place] = self._marks[place]._replace(gone=True)
        self._layout = None

    def begin_merge(self, place: int, now_s: float, *, mirrored: bool) -> None:
        """Merge the deltas of the snapshot at this place into what lies below them."""
        disks = {
            disk: _DiskMerge(chain[place + 1], chain[place])
            for disk, chain in enumerate(self._files)
            if self.held[disk]
        }
        self.merging = Merging(place, disks, now_s)
        if place == len(self._marks) - 1:
            for disk, merge in disks.items():
                also = self._files[disk][place] if mirrored else merge.meanwhile
                self._targets[disk] = (*self._targets[disk], also)

    def copy_until(self, now_s: float, share: float) -> None:
        """Bring the pass that is under way to this share of its blocks."""
        if self.merging is not None and share > 0.0 and now_s > self.merging.since_s:
            for merge in self.merging.disks.values():
                merge.copy(share)

    def next_pass(self, now_s: float) -> None:
        """A pass is complete."""
        if self.merging is not None:
            self.merging.since_s = now_s
            for merge in self.merging.disks.values():
                merge.next_pass()

    def copy_rest(self) -> None:
        """The pass that is under way and whatever was written meanwhile: the VM stands still."""
        if self.merging is not None:
            for merge in self.merging.disks.values():
                merge.next_pass()
                merge.copy(1.0)

    def end_merge(self) -> None:
        """The files below take the place of the deltas, which are deleted."""
        merging, self.merging = self.merging, None
        if merging is not None:
            del self._marks[merging.place]
            for disk in merging.disks:
                self._files[disk].pop(merging.place + 1).delete()
            self._aim()

    def break_merge(self) -> None:
        """The merge ends as it stands."""
        self.merging = None
        self._aim()

    # -- moves ----------------------------------------------------------------------------------

    def begin_move(self, place: Placer) -> None:
        """Copy the files to where ``place`` puts them, and mirror the guest's writes."""
        moving: list[list[BlockFile]] = []
        for disk, chain in enumerate(self._files):
            copies = []
            for depth, file in enumerate(chain):
                copy = place(disk, depth > 0)
                if copy.unit_ids == file.unit_ids:
                    copy.delete()
                    copy = file
                else:
                    content = file.live()
                    if content:
                        copy.write(list(content), list(content.values()))
                copies.append(copy)
            moving.append(copies)
            if copies[-1] is not chain[-1]:
                self._targets[disk] = (*self._targets[disk], copies[-1])
        self._moving = (place, moving)

    def end_move(self) -> None:
        """The copies are the disks."""
        if self._moving is not None:
            self._place, copies = self._moving
            self._discard(self._files, keep=copies)
            self._files = copies
            self._moving = None
            self._aim()

    def break_move(self) -> None:
        """The copies are discarded."""
        if self._moving is not None:
            self._discard(self._moving[1], keep=self._files)
            self._moving = None
            self._aim()

    @staticmethod
    def _discard(chains: list[list[BlockFile]], keep: list[list[BlockFile]]) -> None:
        for chain, kept in zip(chains, keep, strict=True):
            for file, other in zip(chain, kept, strict=True):
                if file is not other:
                    file.delete()

    def _aim(self) -> None:
        """The guest's writes go to the newest files, and nowhere else."""
        self._targets = [(chain[-1],) for chain in self._files]
        self._layout = None
