"""Block fidelity: where every guest write is, at every moment.

The model says through the hooks of :class:`.dataplane.DataPlane` what happens to guests, disks and
units; the plane lets the guests' writes come up to that instant and then carries it out on the
blocks. It draws nothing but the writes, schedules nothing and changes no time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..drivers.contracts import SnapshotMethod
from ..drivers.records import ArrayId, DatastoreId, Disk, PowerState, UnitId, Vm
from .block_chain import DiskChains, Layout, Mark, Placer
from .block_guest import BlockGuest, Moment, Stop
from .block_images import BlockFile, CopyImages, Nowhere, RedirectImages, UnitImages
from .block_script import WriteScript
from .block_workload import BlockSettings, SteadyRules, workload_of
from .draws import Draws
from .env import SimEnv
from .fabric import StorageMap
from .guests import Guests

_Parts = tuple[tuple[UnitId, UnitImages, float], ...]

_AFTERWARDS_S = 60.0
"""How long writes are followed after the last event: twice as long as memory keeps them."""


class CutRecord(NamedTuple):
    """What an array cut at one instant, and the descriptors of the VMs that lay there."""

    number: int
    unit_ids: tuple[UnitId, ...]
    layouts: Mapping[int, tuple[Layout, Moment]]


class BlockPlane:
    """All guests and units of a world; implements :class:`.dataplane.DataPlane`.

    Parameters
    ----------
    env:
        The world's clock.
    vms:
        Every VM; a guest is named by its place.
    guests, rules:
        Their scales and caches, and their profiles as steady writers.
    storage, methods:
        What lies under the datastores, and how each unit's array keeps old data.
    delta_store:
        Per guest the datastore of deltas that do not lie beside their disks.
    draws:
        Where the writes come from.
    merge_rate_bytes_per_s:
        How fast a merge gets on, for what a cut in the middle of it shows.
    settings:
        The numbers of block fidelity.
    """

    def __init__(
        self,
        env: SimEnv,
        vms: Sequence[Vm],
        guests: Guests,
        rules: SteadyRules,
        storage: StorageMap,
        methods: Mapping[UnitId, SnapshotMethod],
        delta_store: Mapping[int, DatastoreId],
        draws: Draws,
        merge_rate_bytes_per_s: float,
        settings: BlockSettings,
    ) -> None:
        self._env = env
        self._storage = storage
        self._merge_rate = merge_rate_bytes_per_s
        self._files = 0
        self._nowhere: _Parts = (("", Nowhere(), 1.0),)
        self._images: dict[UnitId, UnitImages] = {
            unit_id: CopyImages() if method is SnapshotMethod.COPY_ON_WRITE else RedirectImages()
            for unit_id, method in methods.items()
        }
        self._on: dict[UnitId, dict[int, None]] = {}
        self._fenced: dict[UnitId, list[int]] = {}
        self._cuts: dict[tuple[ArrayId, int], CutRecord] = {}
        self._numbers: dict[tuple[ArrayId, str], int] = {}
        self._units_of: list[dict[UnitId, None]] = []
        self._losses: list[str] = []
        self.vms = tuple(vms)
        self.block_bytes: list[int] = []
        self.chains: list[DiskChains] = []
        self.guests: list[BlockGuest] = []
        for guest, vm in enumerate(vms):
            self._add(guest, vm, guests, rules, delta_store.get(guest), draws, settings)

    def _add(
        self,
        guest: int,
        vm: Vm,
        guests: Guests,
        rules: SteadyRules,
        delta_store: DatastoreId | None,
        draws: Draws,
        settings: BlockSettings,
    ) -> None:
        _, profile = rules.of(vm.name)
        workload = workload_of(vm, profile, guests.scale[guest], guests.grain_bytes, settings)
        script = WriteScript(workload, draws, vm.id)
        self.block_bytes.append(workload.block_bytes)
        chains = DiskChains(
            script.first_block,
            [disk.in_vm_snapshot for disk in vm.disks],
            self._placer(guest, vm, delta_store),
            [f"found-{n}" for n in range(1, vm.snapshot_count + 1)],
        )
        self.chains.append(chains)
        running = vm.power_state is PowerState.ON and not vm.is_template
        cache_s = guests.rule[guest].dirty_age
        self.guests.append(
            BlockGuest(
                script, cache_s, self._env.now, chains.write, chains.unit_of, running=running
            )
        )
        self._units_of.append({})
        self._settle(guest)

    # -- where files lie ------------------------------------------------------------------------

    def _placer(self, guest: int, vm: Vm, delta_store: DatastoreId | None) -> Placer:
        def place(disk: int, is_delta: bool) -> BlockFile:
            record = vm.disks[disk]
            if is_delta:
                store = delta_store or record.datastore_id
                record = replace(record, raw_device=None, datastore_id=store)
            self._files += 1
            return BlockFile(self._files, self.block_bytes[guest], self._parts(record))

        return place

    def _parts(self, disk: Disk) -> _Parts:
        under = self._storage.units_under(disk)
        parts = tuple((unit_id, self._images[unit_id], share) for unit_id, share in under)
        return parts or self._nowhere

    def _settle(self, guest: int) -> None:
        """Note on which units a guest's files lie now."""
        before, after = self._units_of[guest], self.chains[guest].unit_ids()
        if before == after:
            return
        for unit_id in before:
            if unit_id not in after:
                del self._on[unit_id][guest]
        for unit_id in after:
            if unit_id not in before:
                self._on.setdefault(unit_id, {})[guest] = None
                if unit_id in self._fenced:
                    self._fenced[unit_id].append(guest)
                    self.guests[guest].fence(unit_id, self._env.now)
        self._units_of[guest] = after

    def advance(self, unit_ids: Collection[UnitId]) -> dict[int, None]:
        """Bring everything on these units up to now; returns the guests that lie there."""
        now_s = self._env.now
        there = {guest: None for unit_id in unit_ids for guest in self._on.get(unit_id, ())}
        for guest in there:
            self.guests[guest].advance(now_s)
            merging = self.chains[guest].merging
            if merging is not None:
                size = merging.blocks * self.block_bytes[guest]
                moved = (now_s - merging.since_s) * self._merge_rate
                self.chains[guest].copy_until(now_s, moved / size if size else 0.0)
        return there

    @property
    def now_s(self) -> float:
        """The world's time."""
        return self._env.now

    def images_of(self, unit_id: UnitId) -> UnitImages:
        """The blocks of a unit."""
        return self._images[unit_id]

    def cut_of(self, array_id: ArrayId, snapshot_id: str) -> CutRecord | None:
        """What a group snapshot shows; None when it is gone."""
        number = self._numbers.get((array_id, snapshot_id))
        return None if number is None else self._cuts.get((array_id, number))

    def lost_writes(self) -> list[str]:
        """Guests that did not or do not read what they wrote, one sentence each.

        Every write that had reached the disks counts, the acknowledged ones among them. It was
        looked for at the end of every merge and move, and is a while after the last thing that
        happened to each guest: later writes go where the first ones since then have gone, and
        cover up what was lost. What deltas hold that were left behind is not lost.
        """
        known, now_s = list(self._losses), self._env.now
        for guest, one in enumerate(self.guests):
            self._look_for_losses(guest, "the run", min(now_s, one.seen_s + _AFTERWARDS_S))
        said, self._losses = self._losses, known
        return said

    def _look_for_losses(self, guest: int, after: str, at_s: float) -> None:
        one = self.guests[guest]
        one.advance(at_s)
        gone = one.missing(self.chains[guest].live(), at_s)
        if gone:
            acknowledged = len(one.script.acknowledged(gone))
            self._losses.append(
                f"VM {self.vms[guest].id} has lost {len(gone)} writes, {acknowledged} of them "
                f"acknowledged, after {after} at {at_s:.6g} s; the first is write {gone[0]}"
            )

    # -- hooks: the guest -----------------------------------------------------------------------

    def frozen(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].halt(Stop.FROZEN, self._env.now)

    def flushed(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`; what a freeze flushes is not held by a fence."""
        self.guests[guest].flush(self._env.now)

    def thawed(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].go(Stop.FROZEN, self._env.now)

    def stunned(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].halt(Stop.STUNNED, self._env.now)

    def unstunned(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].go(Stop.STUNNED, self._env.now)

    def powered(self, guest: int, *, on: bool, memory: bool, clean: bool) -> None:
        """See :class:`.dataplane.DataPlane`."""
        one, now_s = self.guests[guest], self._env.now
        if on:
            one.go(Stop.OFF, now_s)
            return
        one.halt(Stop.OFF, now_s)
        if clean and not memory:
            one.flush(now_s)
        elif not memory:
            one.lose_memory(now_s)

    # -- hooks: its chain -----------------------------------------------------------------------

    def delta_begins(self, guest: int, tag: str, *, quiesced: bool, application: bool) -> None:
        """See :class:`.dataplane.DataPlane`."""
        one, now_s = self.guests[guest], self._env.now
        one.advance(now_s)
        mark = Mark(tag, False, one.moment(now_s), quiesced, application)
        self.chains[guest].begin_delta(mark)
        self._settle(guest)

    def snapshot_lost(self, guest: int, place: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.chains[guest].lose_mark(place)

    def merge_begins(self, guest: int, place: int, *, mirrored: bool) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].advance(self._env.now)
        self.chains[guest].begin_merge(place, self._env.now, mirrored=mirrored)

    def merge_passed(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].advance(self._env.now)
        self.chains[guest].next_pass(self._env.now)

    def merge_ends(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].advance(self._env.now)
        self.chains[guest].copy_rest()
        self.chains[guest].end_merge()
        self._settle(guest)
        self._look_for_losses(guest, "a merge", self._env.now)

    def merge_broken(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].advance(self._env.now)
        self.chains[guest].break_merge()

    # -- hooks: its placement -------------------------------------------------------------------

    def relocation_begins(self, guest: int, vm: Vm, delta_store: DatastoreId | None) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].advance(self._env.now)
        self.chains[guest].begin_move(self._placer(guest, vm, delta_store))

    def relocated(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].advance(self._env.now)
        self.chains[guest].end_move()
        self._settle(guest)
        self._look_for_losses(guest, "a move", self._env.now)

    def relocation_broken(self, guest: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        self.guests[guest].advance(self._env.now)
        self.chains[guest].break_move()

    # -- hooks: the arrays ----------------------------------------------------------------------

    def fence_begins(self, unit_ids: Collection[UnitId]) -> None:
        """See :class:`.dataplane.DataPlane`."""
        now_s = self._env.now
        for unit_id in unit_ids:
            self._fenced[unit_id] = list(self._on.get(unit_id, ()))
            for guest in self._fenced[unit_id]:
                self.guests[guest].fence(unit_id, now_s)

    def fence_ends(self, unit_ids: Collection[UnitId]) -> None:
        """See :class:`.dataplane.DataPlane`."""
        now_s = self._env.now
        waiting = [(unit_id, self._fenced.pop(unit_id)) for unit_id in unit_ids]
        for unit_id, guests in waiting:
            for guest in guests:
                self.guests[guest].unfence(unit_id, now_s)

    def cut(
        self, array_id: ArrayId, number: int, snapshot_id: str, unit_ids: Collection[UnitId]
    ) -> None:
        """See :class:`.dataplane.DataPlane`."""
        now_s = self._env.now
        layouts = {
            guest: (self.chains[guest].layout, self.guests[guest].moment(now_s))
            for guest in self.advance(unit_ids)
        }
        self._numbers[array_id, snapshot_id] = number
        self._cuts[array_id, number] = CutRecord(number, tuple(unit_ids), layouts)
        for unit_id in unit_ids:
            self._images[unit_id].cut(number, now_s)

    def snapshot_deleted(self, array_id: ArrayId, number: int) -> None:
        """See :class:`.dataplane.DataPlane`."""
        for unit_id in self._cuts.pop((array_id, number)).unit_ids:
            self._images[unit_id].drop(number)
