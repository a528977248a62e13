"""Removing a VM snapshot, and consolidating deltas that have lost theirs: both are merges."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..drivers.contracts import MergeResult, Window
from ..drivers.errors import DidNotHappenError, HappenedError
from .draws import lognormal
from .fabric import Fabric
from .faults import Site
from .merge import Merge, Transfer
from .operation import Operation
from .profiles import MergeAlgorithm
from .slots import Slots
from .vmstate import Snapshot, VmState


class MergeOperation(Operation[MergeResult]):
    """Merges deltas one after the other. Uniforms: 1 stun, 2 preparing and moving.

    The newest delta of a running VM is merged with the profile's algorithm, since the guest goes on
    writing. A delta below it, or one of a VM that is off, stands still and takes one pass.
    """

    late = Site.LATE_REMOVE
    lost_answer = Site.LOST_ANSWER_REMOVE

    __slots__ = (
        "_algorithm",
        "_delta",
        "_may_fail",
        "_merge",
        "_merged",
        "_passes",
        "_rate",
        "_stun_window",
        "_stunned_s",
        "_targets",
    )

    def __init__(
        self,
        fabric: Fabric,
        state: VmState,
        name: str,
        host: Slots | None,
        vcenter: Slots,
        draw: Sequence[float],
        future: asyncio.Future[MergeResult],
        targets: list[Snapshot],
        algorithm: MergeAlgorithm,
        *,
        may_fail: bool,
    ) -> None:
        super().__init__(fabric, state, name, host, vcenter, draw, future)
        self._targets = targets
        self._algorithm = algorithm
        self._may_fail = may_fail
        self._merge: Merge | None = None
        self._delta = self._merged = self._stunned_s = 0.0
        self._rate = fabric.profile.merge_rate
        self._passes = 0
        self._stun_window: Window | None = None

    def _work(self) -> None:
        sites = self.fabric.sites
        if sites is not None:
            if sites.strikes(Site.REMOVAL_REFUSED, self.vm_id):
                reason = "a file of its chain is locked"
                self._answer(DidNotHappenError(self.name, self.vm_id, reason))
                return
            if self._may_fail and sites.strikes(Site.CONSOLIDATION_NEEDED, self.vm_id):
                self._lose_snapshot()
                reason = "the snapshot is gone, its delta could not be merged"
                self._answer(HappenedError(self.name, self.vm_id, reason, "consolidate the VM"))
                return
        self._next()

    def _broken(self, dropped: list[str]) -> None:
        under_way = bool(dropped) and "_work" not in dropped
        if self.fabric.plane is not None:
            self.fabric.plane.merge_broken(self.state.guest)
        if under_way and self._may_fail and self._happened():
            self._lose_snapshot()

    def _lose_snapshot(self) -> None:
        """The snapshot is gone, its delta is not."""
        state, target = self.state, self._targets[0]
        target.loose = True
        if self.fabric.plane is not None:
            self.fabric.plane.snapshot_lost(state.guest, state.chain.index(target))

    def _next(self) -> None:
        fabric, state = self.fabric, self.state
        profile, chain, guest = fabric.profile, state.chain, state.guest
        snapshot = self._targets[0]
        if snapshot is chain[-1]:
            delta = fabric.guests.delta_bytes(guest, snapshot.since_s, fabric.env.now)
            algorithm = self._algorithm if state.running else MergeAlgorithm.MIRROR
        else:
            until_s = chain[chain.index(snapshot) + 1].since_s
            delta = fabric.guests.delta_bytes(guest, snapshot.since_s, until_s)
            algorithm = MergeAlgorithm.MIRROR
        delta += profile.delta_base * state.held_disks
        self._delta += delta
        if fabric.plane is not None:
            mirrored = algorithm is MergeAlgorithm.MIRROR
            fabric.plane.merge_begins(guest, chain.index(snapshot), mirrored=mirrored)
        load, slower = profile.under_load, lognormal(self.draw[2], 1.0, profile.merge_sigma)
        if load is not None:
            slower *= self._slowed(load, "merge")
        self._rate = profile.merge_rate / slower
        start_s = profile.merge_start * slower
        if start_s:
            fabric.env.after(start_s, self._move, algorithm, delta)
        else:
            self._move(algorithm, delta)

    def _move(self, algorithm: MergeAlgorithm, delta: float) -> None:
        fabric, profile = self.fabric, self.fabric.profile
        Merge(
            fabric.env,
            fabric.routes(fabric.guests.shares[self.state.guest]),
            self._rate,
            algorithm,
            delta,
            self._grown,
            profile.merge_passes,
            profile.merge_stun_below,
            self._stop,
        )

    def _grown(self, since_s: float, now_s: float) -> float:
        """What a pass that is over now has left to the next one."""
        if self.fabric.plane is not None:
            self.fabric.plane.merge_passed(self.state.guest)
        return self.fabric.guests.delta_bytes(self.state.guest, since_s, now_s)

    def _stop(self, merge: Merge) -> None:
        self._merge = merge
        if not self.state.running:
            self._done()
            return
        fabric = self.fabric
        self._stunned_s = now_s = fabric.env.now
        self._stun(now_s)
        if merge.rest_bytes:
            routes = fabric.routes(fabric.guests.shares[self.state.guest])
            Transfer(fabric.env, routes, merge.rest_bytes, self._rate, self._switch)
        else:
            self._switch()

    def _switch(self) -> None:
        profile = self.fabric.profile
        stun_s = lognormal(self.draw[1], profile.stun_remove, profile.stun_remove_sigma)
        if self.state.held_disks > 1:
            stun_s += profile.stun_remove_per_disk * (self.state.held_disks - 1)
        if profile.under_load is not None:
            stun_s *= self._slowed(profile.under_load, "stun_remove")
        self.fabric.env.after(stun_s, self._done)

    def _done(self) -> None:
        fabric, state, merge = self.fabric, self.state, self._merge
        assert merge is not None, "a merge is done after it has made its passes"  # noqa: S101
        # The merge knows this operation: a cycle left behind would have to be searched for.
        self._merge = None
        now_s = fabric.env.now
        if fabric.plane is not None:
            fabric.plane.merge_ends(state.guest)
        if state.stunned:
            self._unstun(now_s)
            self._stun_window = Window(self._stunned_s, now_s)
        moved = merge.merged_bytes + merge.rest_bytes
        self._merged += moved
        self._passes += merge.passes + (merge.rest_bytes > 0)
        fabric.guests.merged(state.guest, moved, now_s)
        snapshot = self._targets.pop(0)
        state.chain.remove(snapshot)
        fabric.history.append((state.guest, snapshot.since_s, now_s, state.vm))
        fabric.add(now_s, "world.vm.merged", "", self.vm_id, snapshot.ref.tag)
        if self._targets:
            self._next()
        else:
            delta, merged = round(self._delta), round(self._merged)
            self._answer(MergeResult(delta, merged, self._passes, self._stun_window))
