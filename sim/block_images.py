"""What a storage unit holds, block by block, now and in each of its snapshots.

A unit holds files, a file holds blocks, a block holds the stamp of the write that it shows. Both
ways of keeping old data are carried out, not summed up:

* **redirect-on-write**: a cut closes the layer of blocks written so far and opens an empty one on
  top. A snapshot is read through the layers up to its own; deleting it merges its layer into the
  next newer one.
* **copy-on-write**: writes go to the one live place. The first one to a block after a cut saves
  what was there to that cut's store. A snapshot is read by undoing the newer stores from the live
  place back; deleting it hands what it saved to the next older one, which still needs it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence

Content = dict[int, int]
"""Block number to the stamp of the write seen there; a block never written is not in it."""
Files = dict[int, Content]

_ROOT = math.sqrt(2.0)

NOTHING = -1
"""The stamp that stands for a block which had not been written."""


class _Cut:
    """A snapshot, and the blocks that belong to the interval next to it."""

    __slots__ = ("at_s", "files", "number")

    def __init__(self, number: int, at_s: float, files: Files) -> None:
        self.number = number
        self.at_s = at_s
        self.files = files


class UnitImages(ABC):
    """The blocks of one unit and of its snapshots."""

    __slots__ = ("_block_bytes", "_cuts", "_deleted")

    def __init__(self) -> None:
        self._cuts: list[_Cut] = []
        self._block_bytes: dict[int, int] = {}
        # Files that are gone; their blocks lie where they were as long as a snapshot shows them.
        self._deleted: list[int] = []

    def create(self, file: int, block_bytes: int) -> None:
        """A file begins, with nothing in it."""
        self._block_bytes[file] = block_bytes

    def delete(self, file: int) -> None:
        """A file is gone for the hypervisor; an array knows nothing of that."""
        self._deleted.append(file)
        self._sweep()

    @abstractmethod
    def write(self, file: int, blocks: Sequence[int], stamps: Iterable[int]) -> None:
        """Writes reach the unit, in this order."""

    @abstractmethod
    def cut(self, number: int, now_s: float) -> None:
        """Snapshot the unit as it is."""

    def drop(self, number: int) -> None:
        """Delete a snapshot."""
        at = next(i for i, cut in enumerate(self._cuts) if cut.number == number)
        self._join(at)
        self._sweep()

    @abstractmethod
    def live(self, file: int) -> Content:
        """What a reader of the unit finds in a file now."""

    @abstractmethod
    def read(self, number: int, file: int) -> Content:
        """What a reader of a snapshot finds in a file."""

    def overwritten_bytes(self, since_s: float, until_s: float, granularity_bytes: int) -> float:
        """Distinct extents written between two cuts, or since one, in bytes.

        ``since_s`` is the moment of a cut: what was written is kept from cut to cut.
        """
        seen: dict[int, set[int]] = {}
        for start_s, files in self._intervals():
            if since_s <= start_s < until_s:
                for file, content in files.items():
                    seen.setdefault(file, set()).update(content)
        total = 0
        for file, blocks in seen.items():
            size = self._block_bytes[file]
            if size < granularity_bytes:
                extents = {block * size // granularity_bytes for block in blocks}
                total += len(extents) * granularity_bytes
            else:
                total += len(blocks) * size
        return float(total)

    @abstractmethod
    def _join(self, at: int) -> None: ...

    @abstractmethod
    def _intervals(self) -> Iterable[tuple[float, Files]]:
        """Start of each interval since the oldest cut, and the blocks written in it."""

    @abstractmethod
    def _forget(self, file: int) -> None: ...

    def _sweep(self) -> None:
        if not self._cuts:
            for file in self._deleted:
                self._forget(file)
                del self._block_bytes[file]
            self._deleted.clear()


class RedirectImages(UnitImages):
    """Redirect-on-write: each snapshot closes a layer."""

    __slots__ = ("_top",)

    def __init__(self) -> None:
        super().__init__()
        self._top: Files = {}

    def write(self, file: int, blocks: Sequence[int], stamps: Iterable[int]) -> None:
        """See :meth:`UnitImages.write`."""
        content = self._top.get(file)
        if content is None:
            content = self._top[file] = {}
        content.update(zip(blocks, stamps, strict=True))

    def cut(self, number: int, now_s: float) -> None:
        """See :meth:`UnitImages.cut`."""
        self._cuts.append(_Cut(number, now_s, self._top))
        self._top = {}

    def live(self, file: int) -> Content:
        """See :meth:`UnitImages.live`."""
        found = self._through(file, len(self._cuts))
        found.update(self._top.get(file, {}))
        return found

    def read(self, number: int, file: int) -> Content:
        """See :meth:`UnitImages.read`."""
        at = next(i for i, cut in enumerate(self._cuts) if cut.number == number)
        return self._through(file, at + 1)

    def _through(self, file: int, layers: int) -> Content:
        found: Content = {}
        for cut in self._cuts[:layers]:
            found.update(cut.files.get(file, {}))
        return found

    def _join(self, at: int) -> None:
        older = self._cuts.pop(at).files
        newest = at == len(self._cuts)
        newer = self._top if newest else self._cuts[at].files
        for file, content in newer.items():
            older.setdefault(file, {}).update(content)
        if newest:
            self._top = older
        else:
            self._cuts[at].files = older

    def _intervals(self) -> Iterable[tuple[float, Files]]:
        layers = [cut.files for cut in self._cuts[1:]] + [self._top]
        return zip([cut.at_s for cut in self._cuts], layers, strict=True) if self._cuts else ()

    def _forget(self, file: int) -> None:
        self._top.pop(file, None)


class CopyImages(UnitImages):
    """Copy-on-write: each snapshot has a store for what was there before."""

    __slots__ = ("_live",)

    def __init__(self) -> None:
        super().__init__()
        self._live: Files = {}

    def write(self, file: int, blocks: Sequence[int], stamps: Iterable[int]) -> None:
        """See :meth:`UnitImages.write`."""
        live = self._live.get(file)
        if live is None:
            live = self._live[file] = {}
        if self._cuts:
            saved = self._cuts[-1].files.setdefault(file, {})
            for block in blocks:
                if block not in saved:
                    saved[block] = live.get(block, NOTHING)
        live.update(zip(blocks, stamps, strict=True))

    def cut(self, number: int, now_s: float) -> None:
        """See :meth:`UnitImages.cut`."""
        self._cuts.append(_Cut(number, now_s, {}))

    def live(self, file: int) -> Content:
        """See :meth:`UnitImages.live`."""
        return dict(self._live.get(file, {}))

    def read(self, number: int, file: int) -> Content:
        """See :meth:`UnitImages.read`."""
        found = self.live(file)
        for cut in reversed(self._cuts):
            found.update(cut.files.get(file, {}))
            if cut.number == number:
                break
        return {block: stamp for block, stamp in found.items() if stamp != NOTHING}

    def _join(self, at: int) -> None:
        saved = self._cuts.pop(at).files
        if at == 0:
            return
        older = self._cuts[at - 1].files
        for file, content in saved.items():
            # What the older one saved itself was there earlier.
            older[file] = {**content, **older.get(file, {})}

    def _intervals(self) -> Iterable[tuple[float, Files]]:
        return ((cut.at_s, cut.files) for cut in self._cuts)

    def _forget(self, file: int) -> None:
        self._live.pop(file, None)


class Nowhere(RedirectImages):
    """Disks on no unit of the estate: they hold data like any other, and nothing snapshots them."""

    __slots__ = ()

    def cut(self, number: int, now_s: float) -> None:
        """There is no array to do that."""
        raise AssertionError(f"cut {number} at {now_s} s of what is on no array")


class BlockFile:
    """A file of a virtual disk, with its blocks spread over the units under its datastore.

    Parameters
    ----------
    number:
        Its name on the units.
    block_bytes:
        What one block stands for.
    parts:
        Unit identifiers (empty for a disk on no unit), images and shares of the blocks. Which unit
        holds a block depends on its number alone, so that files of equal parts are spread alike.
    """

    __slots__ = ("_ends", "images", "number", "unit_ids")

    def __init__(
        self, number: int, block_bytes: int, parts: Sequence[tuple[str, UnitImages, float]]
    ) -> None:
        self.number = number
        self.unit_ids = tuple(unit_id for unit_id, _, _ in parts)
        self.images = tuple(images for _, images, _ in parts)
        self._ends: list[float] = []
        end = 0.0
        for _, images, share in parts:
            images.create(number, block_bytes)
            self._ends.append(end := end + share)
        self._ends[-1] = math.inf

    def write(self, blocks: Sequence[int], stamps: Sequence[int]) -> None:
        """Writes reach the file, in this order."""
        if len(self.images) == 1:
            self.images[0].write(self.number, blocks, stamps)
            return
        split: list[tuple[list[int], list[int]]] = [([], []) for _ in self.images]
        ends = self._ends
        for block, stamp in zip(blocks, stamps, strict=True):
            part, its_stamps = split[bisect_right(ends, block * _ROOT % 1.0)]
            part.append(block)
            its_stamps.append(stamp)
        for images, (part, its_stamps) in zip(self.images, split, strict=True):
            if part:
                images.write(self.number, part, its_stamps)

    def place_of(self, block: int) -> int:
        """Which of the units holds a block: multiples of the root of 2 fill shares evenly."""
        return bisect_right(self._ends, block * _ROOT % 1.0)

    def live(self) -> Content:
        """What a reader of the file finds now."""
        if len(self.images) == 1:
            return self.images[0].live(self.number)
        found: Content = {}
        for images in self.images:
            found.update(images.live(self.number))
        return found

    def delete(self) -> None:
        """The file is gone."""
        for images in self.images:
            images.delete(self.number)
