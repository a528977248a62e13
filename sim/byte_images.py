"""The bytes of a modelled unit and of its snapshots, kept by redirect-on-write or copy-on-write.

Both give the same answers; they differ in where an extent lies. Redirect-on-write puts new data in
a new place and leaves the old where the snapshots know it. Copy-on-write has one home for every
extent, and copies the old data away before it is overwritten there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..drivers.contracts import SnapshotMethod


class Cell(NamedTuple):
    """An extent's data, and the number of the place that holds it."""

    place: int
    data: bytes


NewPlace = Callable[[], int]
"""Gives a place of the array that holds nothing."""


class UnitImage:
    """A unit (or a clone) of zeros to begin with; the subclasses say how old data is kept.

    Parameters
    ----------
    extent_bytes:
        Granularity at which data is kept.
    new_place:
        Where the next extent goes.
    """

    def __init__(self, extent_bytes: int, new_place: NewPlace) -> None:
        self.extent_bytes = extent_bytes
        self._new_place = new_place
        self._zeros = bytes(extent_bytes)

    def read(self, offset_bytes: int, length_bytes: int, snapshot: int | None = None) -> bytes:
        """Bytes as they are now, or as a snapshot (by its number) holds them."""
        parts = self.parts(offset_bytes, length_bytes)
        return b"".join(self.extent(at, snapshot)[start:end] for at, start, end in parts)

    def write(self, offset_bytes: int, data: bytes) -> set[int]:
        """Overwrite bytes; the extents that were touched."""
        done, touched = 0, set()
        for at, start, end in self.parts(offset_bytes, len(data)):
            new = data[done : done + end - start]
            if len(new) < self.extent_bytes:
                old = self.extent(at, None)
                new = old[:start] + new + old[end:]
            self.put(at, bytes(new))
            done += end - start
            touched.add(at)
        return touched

    def parts(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, int]]:
        """The extents under a range: number, and first and last byte (exclusive) within each."""
        size, end_bytes = self.extent_bytes, offset_bytes + length_bytes
        while offset_bytes < end_bytes:
            at, start = divmod(offset_bytes, size)
            end = min(size, start + end_bytes - offset_bytes)
            yield at, start, end
            offset_bytes += end - start

    def extent(self, at: int, snapshot: int | None) -> bytes:
        """One whole extent."""
        raise NotImplementedError

    def put(self, at: int, data: bytes) -> None:
        """Overwrite one whole extent."""
        raise NotImplementedError

    def cut(self, number: int) -> None:
        """Keep what is there now as this snapshot, which has a higher number than all before."""
        raise NotImplementedError

    def drop(self, number: int) -> None:
        """Give a snapshot up."""
        raise NotImplementedError

    def place(self, offset_bytes: int, snapshot: int | None) -> str:
        """Where a byte lies; ``hole`` where nothing was ever written."""
        raise NotImplementedError

    def clone(self, number: int) -> UnitImage:
        """A writable copy of a snapshot."""
        raise NotImplementedError


class RedirectOnWriteImage(UnitImage):
    """Every write goes to a new place; a snapshot is a copy of the map from extents to places."""

    needs_parent = False
    """A clone has a map of its own: its snapshot may be deleted."""

    def __init__(
        self, extent_bytes: int, new_place: NewPlace, live: dict[int, Cell] | None = None
    ) -> None:
        super().__init__(extent_bytes, new_place)
        self._live = live if live is not None else {}
        self._snapshots: dict[int, dict[int, Cell]] = {}

    def extent(self, at: int, snapshot: int | None) -> bytes:
        """One whole extent."""
        cell = self._map(snapshot).get(at)
        return self._zeros if cell is None else cell.data

    def put(self, at: int, data: bytes) -> None:
        """Overwrite one whole extent."""
        self._live[at] = Cell(self._new_place(), data)

    def cut(self, number: int) -> None:
        """Keep the map as it is now."""
        self._snapshots[number] = dict(self._live)

    def drop(self, number: int) -> None:
        """Give a snapshot up; places that no map names any more are free."""
        del self._snapshots[number]

    def place(self, offset_bytes: int, snapshot: int | None) -> str:
        """Where a byte lies."""
        cell = self._map(snapshot).get(offset_bytes // self.extent_bytes)
        return "hole" if cell is None else f"place-{cell.place}"

    def clone(self, number: int) -> UnitImage:
        """A unit that begins with a snapshot's map."""
        return RedirectOnWriteImage(
            self.extent_bytes, self._new_place, dict(self._snapshots[number])
        )

    def _map(self, snapshot: int | None) -> dict[int, Cell]:
        return self._live if snapshot is None else self._snapshots[snapshot]


class CopyOnWriteImage(UnitImage):
    """Extents lie at home; the newest snapshot takes a copy before the first overwrite."""

    needs_parent = True
    """A clone reads through its snapshot, which has to stay."""

    def __init__(self, extent_bytes: int, new_place: NewPlace) -> None:
        super().__init__(extent_bytes, new_place)
        self._live: dict[int, bytes] = {}
        self._homes: dict[int, int] = {}
        self._kept: dict[int, dict[int, Cell]] = {}
        """Copies by snapshot, oldest first: what was overwritten until the next one was cut."""

    def extent(self, at: int, snapshot: int | None) -> bytes:
        """One whole extent."""
        cell = self._copy(at, snapshot)
        return cell.data if cell is not None else self._live.get(at, self._zeros)

    def put(self, at: int, data: bytes) -> None:
        """Overwrite one whole extent, after a copy if a snapshot needs it."""
        newest = next(reversed(self._kept.values()), None)
        if newest is not None and at not in newest:
            newest[at] = Cell(self._new_place(), self._live.get(at, self._zeros))
        self._live[at] = data
        if at not in self._homes:
            self._homes[at] = self._new_place()

    def cut(self, number: int) -> None:
        """Copy from now on for this snapshot."""
        self._kept[number] = {}

    def drop(self, number: int) -> None:
        """Give a snapshot up; what an older one needs of its copies becomes that one's."""
        older = [other for other in self._kept if other < number]
        copies = self._kept.pop(number)
        if older:
            heir = self._kept[older[-1]]
            for at, cell in copies.items():
                heir.setdefault(at, cell)

    def place(self, offset_bytes: int, snapshot: int | None) -> str:
        """Where a byte lies."""
        at = offset_bytes // self.extent_bytes
        cell = self._copy(at, snapshot)
        if cell is not None:
            return f"place-{cell.place}"
        return f"place-{self._homes[at]}" if at in self._homes else "hole"

    def clone(self, number: int) -> UnitImage:
        """A unit that reads through a snapshot what was not written to itself."""
        return _Overlay(self, number, self._new_place)

    def _copy(self, at: int, snapshot: int | None) -> Cell | None:
        if snapshot is None:
            return None
        copies = (kept for number, kept in self._kept.items() if number >= snapshot)
        return next((kept[at] for kept in copies if at in kept), None)


class _Overlay(UnitImage):
    """A clone over a copy-on-write snapshot."""

    def __init__(self, parent: CopyOnWriteImage, number: int, new_place: NewPlace) -> None:
        super().__init__(parent.extent_bytes, new_place)
        self._parent = parent
        self._number = number
        self._own: dict[int, bytes] = {}

    def extent(self, at: int, snapshot: int | None) -> bytes:  # noqa: ARG002  # it has none
        """One whole extent."""
        own = self._own.get(at)
        return self._parent.extent(at, self._number) if own is None else own

    def put(self, at: int, data: bytes) -> None:
        """Overwrite one whole extent."""
        self._own[at] = data


IMAGES: dict[SnapshotMethod, type[RedirectOnWriteImage | CopyOnWriteImage]] = {
    SnapshotMethod.REDIRECT_ON_WRITE: RedirectOnWriteImage,
    SnapshotMethod.COPY_ON_WRITE: CopyOnWriteImage,
}
