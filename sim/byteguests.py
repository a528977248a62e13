"""Guests whose disks hold real bytes: what a caller writes, through deltas, merges and moves.

Where block fidelity (:mod:`.block_plane`) follows writes that the model makes up, here a caller
writes and reads blocks as the guest does. His writes wait while the guest is frozen or stunned, go
to the newest delta of a disk, and follow its chain through every merge and move.

The files are those of :mod:`.block_chain`; the stamp of a block is its bytes, read as a number.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence

from ..drivers.contracts import Window
from ..drivers.records import ArrayId, DatastoreId, PowerState, UnitId, Vm
from ..errors import StillframeError
from .block_chain import DiskChains, Mark, Placer
from .block_guest import Moment
from .block_images import BlockFile, Nowhere
from .bridge import resolve
from .draws import Draws
from .env import SimEnv
from .guest_rules import GuestRule, GuestRules, ParametricGuest
from .guests import Guests, Shares

BLOCK_BYTES = 4096
MOST_BLOCKS = 1 << 20
"""Blocks of one disk: the numbers of the next disk's blocks begin after so many."""

_NOWHEN = Moment(0, 0, 0)
_QUIET = GuestRule(
    profile=ParametricGuest(rate=1.0, working_set=BLOCK_BYTES), scale_median=0, scale_sigma=0
)


class _Guest:
    """One guest: its files, what holds its writes, and what it has written."""

    __slots__ = ("blocks", "chains", "held_by", "hung", "on", "spans", "times_s", "waiting")

    def __init__(self, chains: DiskChains, *, on: bool) -> None:
        self.chains = chains
        self.on = on
        self.held_by: dict[str, None] = {}
        self.hung = False
        self.waiting: list[asyncio.Future[None]] = []
        self.spans: list[Window] = []
        self.times_s: list[float] = []
        self.blocks: list[int] = []


class GuestBytes:
    """Every guest's disks; implements :class:`.dataplane.DataPlane`.

    Parameters
    ----------
    env:
        The world's clock.
    vms:
        Every VM; a guest is named by its place.
    delta_store:
        Per guest the datastore of deltas that do not lie beside their disks.
    latency_s:
        From a write or read to its answer when nothing holds it.
    """

    def __init__(
        self,
        env: SimEnv,
        vms: Sequence[Vm],
        delta_store: Mapping[int, DatastoreId],
        latency_s: float,
    ) -> None:
        self._env = env
        self._latency_s = latency_s
        self._files = 0
        self._guests = [self._made(vm, delta_store.get(n)) for n, vm in enumerate(vms)]

    def _made(self, vm: Vm, delta_store: DatastoreId | None) -> _Guest:
        firsts = [place * MOST_BLOCKS for place in range(len(vm.disks))]
        held = [disk.in_vm_snapshot for disk in vm.disks]
        found = [f"found-{number}" for number in range(1, vm.snapshot_count + 1)]
        chains = DiskChains(firsts, held, self._placer(vm, delta_store), found)
        return _Guest(chains, on=vm.power_state is PowerState.ON)

    def _placer(self, vm: Vm, delta_store: DatastoreId | None) -> Placer:
        def place(disk: int, is_delta: bool) -> BlockFile:
            store = vm.disks[disk].datastore_id
            where = (delta_store if is_delta else None) or store or "raw device"
            self._files += 1
            return BlockFile(self._files, BLOCK_BYTES, [(where, Nowhere(), 1.0)])

        return place

    # -- what the guest does --------------------------------------------------------------------

    async def write(self, guest: int, disk: int, block: int, data: bytes) -> None:
        """The guest writes a block; returns when the disk has it.

        Raises
        ------
        StillframeError
            It is off, or its power is cut before that.
        """
        if len(data) != BLOCK_BYTES:
            raise StillframeError(f"a block has {BLOCK_BYTES} bytes, not {len(data)}")
        one = self._guests[guest]
        await self._pass()
        while one.held_by:
            await self._let_go(one)
        _check_on(one)
        self.arrive(guest, disk, block, data)

    def arrive(self, guest: int, disk: int, block: int, data: bytes) -> None:
        """A write reaches the newest file of a disk at once, whatever the guest does."""
        one, where = self._guests[guest], disk * MOST_BLOCKS + block
        one.chains.write([where], [int.from_bytes(data, "big")])
        if one.chains.held[disk]:
            one.times_s.append(self._env.now)
            one.blocks.append(where)

    async def read(self, guest: int, disk: int, block: int) -> bytes:
        """What the guest reads; a block that was never written is zeros.

        Raises
        ------
        StillframeError
            It is off.
        """
        one = self._guests[guest]
        await self._pass()
        while "stunned" in one.held_by:
            await self._let_go(one)
        _check_on(one)
        where = disk * MOST_BLOCKS + block
        return one.chains.live().get(where, 0).to_bytes(BLOCK_BYTES, "big")

    async def _pass(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._env.after(self._latency_s, resolve, future, None)
        await future

    @staticmethod
    async def _let_go(one: _Guest) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        one.waiting.append(future)
        await future

    # -- what can be seen of it -----------------------------------------------------------------

    def frozen_spans(self, guest: int, since_s: float) -> list[Window]:
        """When its file systems stood frozen since then; a span that has not ended is infinite."""
        return [span for span in self._guests[guest].spans if span.end_s >= since_s]

    def hang(self, guest: int, *, hung: bool) -> None:
        """Its agent acts on no freeze any more, or does so again."""
        self._guests[guest].hung = hung

    def chains_of(self, guest: int) -> DiskChains:
        """The files of its disks."""
        return self._guests[guest].chains

    def is_frozen(self, guest: int) -> bool:
        """Whether its file systems hold writes."""
        return "frozen" in self._guests[guest].held_by

    def digest(self, guest: int, disk: int, depth: int) -> str:
        """A digest of what one file of a disk's chain holds; 0 is the base."""
        content = self._guests[guest].chains.layout.files[disk][depth].live()
        found = hashlib.sha256()
        for block, stamp in sorted(content.items()):
            found.update(block.to_bytes(8, "big"))
            found.update(stamp.to_bytes(BLOCK_BYTES, "big"))
        return found.hexdigest()

    def written_bytes(self, guest: int, since_s: float, until_s: float) -> float:
        """Distinct bytes written in the span to the disks that VM snapshots hold."""
        one = self._guests[guest]
        first, after = bisect_right(one.times_s, since_s), bisect_right(one.times_s, until_s)
        return float(len(set(one.blocks[first:after])) * BLOCK_BYTES)

    # -- hooks: the guest -----------------------------------------------------------------------

    def frozen(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        one = self._guests[guest]
        if not one.hung and "frozen" not in one.held_by:
            self._hold(one, "frozen")
            one.spans.append(Window(self._env.now, math.inf))

    def flushed(self, guest: int) -> None:
        """Nothing is dirty: what the guest writes goes through to the disk."""

    def thawed(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        one = self._guests[guest]
        if "frozen" in one.held_by:
            one.spans[-1] = one.spans[-1]._replace(end_s=self._env.now)
            self._release(one, "frozen")

    def stunned(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._hold(self._guests[guest], "stunned")

    def unstunned(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._release(self._guests[guest], "stunned")

    def powered(self, guest: int, *, on: bool, memory: bool, clean: bool) -> None:
        """See :class:`.dataplane.DataPlane`; whoever waits for a guest that is off is told so."""
        del memory, clean  # nothing is in memory that is not on the disks
        one = self._guests[guest]
        one.on = on
        self._wake(one)

    @staticmethod
    def _hold(one: _Guest, why: str) -> None:
        one.held_by[why] = None

    def _release(self, one: _Guest, why: str) -> None:
        one.held_by.pop(why, None)
        self._wake(one)

    @staticmethod
    def _wake(one: _Guest) -> None:
        # All of them look again, in the order in which they came.
        waiting, one.waiting = one.waiting, []
        for future in waiting:
            resolve(future, None)

    # -- hooks: its chain -----------------------------------------------------------------------

    def delta_begins(self, guest: int, tag: str, *, quiesced: bool, application: bool) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._guests[guest].chains.begin_delta(Mark(tag, False, _NOWHEN, quiesced, application))

    def snapshot_lost(self, guest: int, place: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._guests[guest].chains.lose_mark(place)

    def merge_begins(self, guest: int, place: int, *, mirrored: bool) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._guests[guest].chains.begin_merge(place, self._env.now, mirrored=mirrored)

    def merge_passed(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._guests[guest].chains.next_pass(self._env.now)

    def merge_ends(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        chains = self._guests[guest].chains
        chains.copy_rest()
        chains.end_merge()

    def merge_broken(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._guests[guest].chains.break_merge()

    # -- hooks: its placement -------------------------------------------------------------------

    def relocation_begins(self, guest: int, vm: Vm, delta_store: DatastoreId | None) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._guests[guest].chains.begin_move(self._placer(vm, delta_store))

    def relocated(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._guests[guest].chains.end_move()

    def relocation_broken(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self._guests[guest].chains.break_move()

    # -- hooks: the arrays, of which there are none -----------------------------------------------

    def fence_begins(self, unit_ids: Collection[UnitId]) -> None:
        """See :class:`.dataplane.DataPlane`."""

    def fence_ends(self, unit_ids: Collection[UnitId]) -> None:
        """See :class:`.dataplane.DataPlane`."""

    def cut(
        self, array_id: ArrayId, number: int, snapshot_id: str, unit_ids: Collection[UnitId]
    ) -> None:
        """See :class:`.dataplane.DataPlane`."""

    def snapshot_deleted(self, array_id: ArrayId, number: int) -> None:
        """See :class:`.dataplane.DataPlane`."""


def _check_on(one: _Guest) -> None:
    if not one.on:
        raise StillframeError("the guest is off")


class ByteGuests(Guests):
    """What the hypervisor asks of guests, answered from the bytes that they wrote.

    Parameters
    ----------
    data:
        Where the bytes are.
    vms, shares, draws, grain_bytes:
        See :class:`.guests.Guests`.
    """

    __slots__ = ("_data",)

    def __init__(
        self,
        data: GuestBytes,
        vms: Sequence[Vm],
        shares: Sequence[Shares],
        draws: Draws,
        grain_bytes: int,
    ) -> None:
        super().__init__(vms, GuestRules([_QUIET]), shares, draws, grain_bytes)
        self._data = data

    def delta_bytes(self, guest: int, since_s: float, now_s: float) -> float:
        """See :meth:`.Guests.delta_bytes`."""
        return self._data.written_bytes(guest, since_s, now_s)

    def dirty_bytes(self, guest: int, now_s: float) -> float:
        """See :meth:`.Guests.dirty_bytes`: nothing, since writes go through to the disk."""
        del guest, now_s
        return 0.0
