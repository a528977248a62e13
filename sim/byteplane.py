"""The data of a modelled array: bytes of units, snapshots and clones, and a port for a host.

Writes come through the port, as they come to a real array: they take a little time, wait while
their unit is fenced, and are acknowledged when they are kept. What they overwrite takes the
snapshot space of the array.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import count

from ..drivers.records import ArrayId, StorageUnit, UnitId
from .array_profiles import ArrayProfile
from .byte_images import IMAGES, UnitImage
from .draws import Draws, lognormal
from .env import SimEnv
from .load import QuietUnits

PORT_SIGMA = 0.4


class Overwritten(QuietUnits):
    """Which extents were written between the cuts; implements the pool's ``OverwriteModel``.

    What hosts will write is not known: growth is seen when the pool looks, not ahead. A span that
    the pool asks about begins and ends at cuts that there still are, or ends now.
    """

    def __init__(self, env: SimEnv) -> None:
        self._env = env
        self._since: dict[UnitId, list[tuple[float, set[int]]]] = {}

    def cut(self, unit_id: UnitId) -> None:
        """Count anew from now on."""
        self._since.setdefault(unit_id, []).append((self._env.now, set()))

    def forget(self, unit_id: UnitId, cut_s: float) -> None:
        """This cut counts no more: what came after it counts to the one before it."""
        spans = self._since[unit_id]
        at = next(at for at, span in enumerate(spans) if span[0] == cut_s)
        _, extents = spans.pop(at)
        if at:
            spans[at - 1][1].update(extents)

    def wrote(self, unit_id: UnitId, extents: Iterable[int]) -> None:
        """A host wrote to these extents."""
        spans = self._since.get(unit_id)
        if spans:
            spans[-1][1].update(extents)

    def overwritten_bytes(
        self, unit_id: UnitId, since_s: float, now_s: float, granularity_bytes: int
    ) -> float:
        """See ``OverwriteModel``."""
        spans = self._since.get(unit_id, [])
        end = bisect_right(spans, now_s, key=lambda span: span[0])
        if now_s < self._env.now and end and spans[end - 1][0] == now_s:
            end -= 1
        wanted = [extents for start_s, extents in spans[:end] if start_s >= since_s]
        return float(len(set().union(*wanted)) * granularity_bytes)


class BytePlane:
    """The data of one modelled array; implements ``ArrayPlane``.

    Parameters
    ----------
    env:
        The world's clock.
    units:
        The units of the array; zeros to begin with.
    profile:
        Its method and its extent.
    draws:
        Where the jitter of the port comes from.
    latency_s:
        Median time of a host's read or write in seconds, when nothing holds it.

    Attributes
    ----------
    overwritten:
        What the array has to be told of its hosts' writes.
    """

    def __init__(
        self,
        env: SimEnv,
        units: Iterable[StorageUnit],
        profile: ArrayProfile,
        draws: Draws,
        latency_s: float,
    ) -> None:
        self.overwritten = Overwritten(env)
        self._env = env
        self._draws = draws
        self._latency_s = latency_s
        self._extent = profile.snapshot_extent
        self._kind = IMAGES[profile.method]
        places = count(1)
        self._new_place = lambda: next(places)
        self._sizes = {unit.id: unit.capacity_bytes for unit in units}
        self._images: dict[UnitId, UnitImage] = {
            unit_id: self._kind(self._extent, self._new_place) for unit_id in self._sizes
        }
        self._cuts: dict[int, tuple[str, float, tuple[UnitId, ...]]] = {}
        self._clones: dict[UnitId, tuple[int, UnitId]] = {}
        self._fences: Counter[UnitId] = Counter()
        self._stopped = False
        self._gates: list[asyncio.Future[None]] = []
        self._served = 0

    # -- a host's port ---------------------------------------------------------------------------

    async def write(self, unit_id: UnitId, offset_bytes: int, data: bytes) -> None:
        """Write as a host does; returns when it is kept.

        Raises
        ------
        OSError
            There is no such unit, or the range is not within it.
        """
        half_s = self._half_s()
        await asyncio.sleep(half_s)
        await self._let_through(unit_id)
        image = self._image(unit_id, offset_bytes, len(data))
        self.overwritten.wrote(unit_id, image.write(offset_bytes, data))
        await asyncio.sleep(half_s)

    async def read(self, unit_id: UnitId, offset_bytes: int, length_bytes: int) -> bytes:
        """Read as a host does; a fence does not hold reads.

        Raises
        ------
        OSError
            There is no such unit, or the range is not within it.
        """
        half_s = self._half_s()
        await asyncio.sleep(half_s)
        while self._stopped:
            await self._gate()
        data = self._image(unit_id, offset_bytes, length_bytes).read(offset_bytes, length_bytes)
        await asyncio.sleep(half_s)
        return data

    def stop(self) -> None:
        """Nothing is served until :meth:`go`: neither reads nor writes."""
        self._stopped = True

    def go(self) -> None:
        """Serve again, what waits first."""
        self._stopped = False
        self._open_gates()

    def release(self) -> None:
        """No fence holds any more: whoever fenced has died."""
        self._fences.clear()
        self._open_gates()

    def _image(self, unit_id: UnitId, offset_bytes: int, length_bytes: int) -> UnitImage:
        size = self._sizes.get(unit_id)
        if size is None:
            raise OSError(f"there is no unit {unit_id}")
        if offset_bytes < 0 or length_bytes < 0 or offset_bytes + length_bytes > size:
            raise OSError(f"{length_bytes} bytes at {offset_bytes} are not within {unit_id}")
        return self._images[unit_id]

    def _half_s(self) -> float:
        self._served += 1
        noise = self._draws.three("port", self._served)[0]
        return lognormal(noise, self._latency_s, PORT_SIGMA) / 2

    async def _let_through(self, unit_id: UnitId) -> None:
        while self._stopped or self._fences[unit_id]:
            await self._gate()

    async def _gate(self) -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        await gate

    def _open_gates(self) -> None:
        gates, self._gates = self._gates, []
        for gate in gates:
            if not gate.done():
                gate.set_result(None)

    # -- what the array does ---------------------------------------------------------------------

    def fence_begins(self, unit_ids: Collection[UnitId]) -> None:
        """Writes to these units are held."""
        self._fences.update(unit_ids)

    def fence_ends(self, unit_ids: Collection[UnitId]) -> None:
        """They are let go."""
        self._fences.subtract(unit_ids)
        self._fences = +self._fences  # one that was released with all others is over already
        self._open_gates()

    def cut(
        self,
        array_id: ArrayId,  # noqa: ARG002
        number: int,
        snapshot_id: str,
        unit_ids: Collection[UnitId],
    ) -> None:
        """Keep these units as they are now."""
        self._cuts[number] = (snapshot_id, self._env.now, tuple(unit_ids))
        for unit_id in unit_ids:
            self.overwritten.cut(unit_id)
            self._images[unit_id].cut(number)

    def snapshot_deleted(self, array_id: ArrayId, number: int) -> None:  # noqa: ARG002
        """Give up what a group snapshot kept."""
        _, cut_s, unit_ids = self._cuts.pop(number)
        for unit_id in unit_ids:
            self.overwritten.forget(unit_id, cut_s)
            self._images[unit_id].drop(number)

    # -- what can be seen of it ------------------------------------------------------------------

    def size_bytes(self, unit_id: UnitId) -> int:
        """The size of a unit or clone."""
        return self._sizes[unit_id]

    def held(self, number: int, unit_id: UnitId, offset_bytes: int, length_bytes: int) -> bytes:
        """What a snapshot holds of a unit that is in it."""
        return self._images[unit_id].read(offset_bytes, length_bytes, number)

    def place(self, unit_id: UnitId, offset_bytes: int, number: int | None) -> str:
        """Where a byte of a unit, or of a snapshot of it, lies."""
        return self._images[unit_id].place(offset_bytes, number)

    def members(self) -> frozenset[str]:
        """Every unit's part of every snapshot, and every clone, by a name of its own."""
        names = [f"{name}/{unit}" for name, _, units in self._cuts.values() for unit in units]
        return frozenset([*names, *self._clones])

    # -- clones ----------------------------------------------------------------------------------

    def clone(self, number: int, unit_id: UnitId, clone_id: UnitId) -> None:
        """Make a writable copy of a unit as a snapshot holds it."""
        self._images[clone_id] = self._images[unit_id].clone(number)
        self._sizes[clone_id] = self._sizes[unit_id]
        self._clones[clone_id] = (number, unit_id)

    def discard(self, clone_id: UnitId) -> None:
        """Delete a copy. Raises KeyError when there is none."""
        del self._clones[clone_id]
        del self._images[clone_id]
        del self._sizes[clone_id]

    def clones_need(self, number: int) -> bool:
        """Whether a clone reads through this snapshot."""
        if not self._kind.needs_parent:
            return False
        return any(parent == number for parent, _ in self._clones.values())
