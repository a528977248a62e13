"""Taking a VM snapshot: freeze, metadata lock, stun, delta, thaw.

The order is vSphere's: the guest is frozen first (its file systems block writes, then flush what
is dirty), the host creates the delta files under the datastore's metadata lock and stops the vCPUs
for the switch, and the guest is thawed as soon as the snapshot exists. When the guest is no longer
frozen at the thaw, the host rolls the whole snapshot back (FilesystemQuiesceFault).

Three limits end a freeze: the caller's quiesce timeout and the tools' own (900 s), both counted
from the freeze; in Windows also the 10 s for which VSS holds writes, counted from the end of the
flush, and the 60 s for which its writers stay frozen. The model knows when it begins to create the
deltas whether the thaw will be in time. If not, the guest is thawed at the limit, the snapshot is
rolled back, and the metadata lock is not taken: whoever gives up in a queue holds up nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..drivers.contracts import (
    ConsistencyLevel,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotRequest,
    Window,
)
from ..drivers.errors import QuiesceFailedError, QuiesceTimeoutError
from ..drivers.records import PowerState
from .draws import lognormal
from .fabric import Fabric
from .operation import Operation
from .slots import SerialLock, Slots
from .vmstate import Snapshot, VmState

_CREATE = "create_snapshot"


class CreateOperation(Operation[VmSnapshot]):
    """One create. Uniforms: 1 freeze call, 2 stun, 3 refused freeze, 4 hanging freeze."""

    __slots__ = (
        "frozen_s",
        "limit_is_guests",
        "limit_s",
        "quiesce",
        "request",
        "snapshot",
        "snapshot_id",
        "stun_s",
        "stunned_s",
    )

    def __init__(
        self,
        fabric: Fabric,
        state: VmState,
        host: Slots | None,
        vcenter: Slots,
        draw: Sequence[float],
        future: asyncio.Future[VmSnapshot],
        request: VmSnapshotRequest,
        snapshot_id: str,
        *,
        quiesce: bool,
    ) -> None:
        super().__init__(fabric, state, _CREATE, host, vcenter, draw, future)
        self.request = request
        self.snapshot_id = snapshot_id
        self.quiesce = quiesce
        self.snapshot: Snapshot | None = None
        self.frozen_s = self.limit_s = self.stun_s = self.stunned_s = 0.0
        self.limit_is_guests = False

    def _work(self) -> None:
        if self.quiesce:
            self._freeze()
        else:
            self._create_deltas()

    def _freeze(self) -> None:
        fabric, state, draw = self.fabric, self.state, self.draw
        profile, env = fabric.profile, fabric.env
        now_s = env.now
        state.frozen = True
        self.frozen_s = now_s
        timeout_s = self.request.quiesce_timeout_s
        if timeout_s > profile.tools_timeout:
            timeout_s = profile.tools_timeout
        self.limit_s = now_s + timeout_s
        fabric.add(now_s, "world.vm.frozen", "", self.vm_id)
        median_s = profile.windows_freeze if state.is_windows else profile.linux_freeze
        call_s = lognormal(draw[1], median_s, profile.freeze_sigma)
        if fabric.faulty:
            faults = fabric.faults
            if self._strikes(4, faults.quiesce_hang_probability, "quiesce-hang"):
                env.after(timeout_s, self._expire)
                return
            if self._strikes(3, faults.quiesce_fail_probability, "quiesce-fail"):
                env.after(min(call_s, timeout_s), self._refused)
                return
        freeze_s = call_s + fabric.guests.dirty_bytes(state.guest, now_s) / profile.flush_rate
        if freeze_s < timeout_s:
            env.after(freeze_s, self._flushed)
        else:
            env.after(timeout_s, self._expire)

    def _flushed(self) -> None:
        if self.state.is_windows:
            profile = self.fabric.profile
            vss_s = min(self.fabric.env.now + profile.vss_hold, self.frozen_s + profile.vss_freeze)
            if vss_s < self.limit_s:
                self.limit_s = vss_s
                self.limit_is_guests = True
        self._create_deltas()

    def _create_deltas(self) -> None:
        fabric, state = self.fabric, self.state
        profile, env, locks = fabric.profile, fabric.env, fabric.storage.locks
        now_s = ready_s = env.now
        turns: list[tuple[SerialLock, float]] = []
        # One datastore after the other, as the host creates the files disk by disk.
        for store_id, count in state.deltas_by_store(fabric.delta_store.get(state.guest)):
            lock = locks.get(store_id)
            if lock is None:
                ready_s += count * profile.delta_create
            else:
                ready_s = lock.end_of(ready_s, count * profile.metadata_lock)
                turns.append((lock, ready_s))
        if state.running:
            stun_s = lognormal(self.draw[2], profile.stun_create, profile.stun_create_sigma)
            if state.held_disks > 1:
                stun_s += profile.stun_create_per_disk * (state.held_disks - 1)
            self.stun_s = stun_s
        if self.quiesce and ready_s + self.stun_s + profile.thaw_call > self.limit_s:
            env.after(max(0.0, self.limit_s - now_s), self._expire)
            return
        for lock, end_s in turns:
            lock.take(end_s)
        env.after(ready_s - now_s, self._stop if state.running else self._exists)

    def _stop(self) -> None:
        env = self.fabric.env
        self.stunned_s = now_s = env.now
        self._stun(now_s)
        env.after(self.stun_s, self._exists)

    def _exists(self) -> None:
        fabric, state = self.fabric, self.state
        now_s = fabric.env.now
        tag = self.request.tag
        if state.stunned:
            self._unstun(now_s)
        ref = VmSnapshotRef(self.vm_id, self.snapshot_id, tag)
        self.snapshot = Snapshot(ref, now_s, foreign=False)
        state.chain.append(self.snapshot)
        fabric.add(now_s, "world.vm.snapshot", "", self.vm_id, tag)
        if self.quiesce:
            fabric.env.after(fabric.profile.thaw_call, self._thawed)
        else:
            self._created(None)

    def _thawed(self) -> None:
        self._created(Window(self.frozen_s, self._thaw()))

    def _thaw(self) -> float:
        now_s = self.fabric.env.now
        self.state.frozen = False
        self.fabric.add(now_s, "world.vm.thawed", "", self.vm_id)
        return now_s

    def _created(self, quiesce: Window | None) -> None:
        fabric, state, snapshot = self.fabric, self.state, self.snapshot
        assert snapshot is not None, "the snapshot exists before it is reported"  # noqa: S101
        location = state.location(fabric.storage.datastores, fabric.delta_store.get(state.guest))
        stun = Window(self.stunned_s, snapshot.since_s) if state.running else None
        self._answer(
            VmSnapshot(snapshot.ref, self._level(), location, snapshot.since_s, quiesce, stun)
        )

    def _level(self) -> ConsistencyLevel:
        state = self.state
        if self.quiesce:
            # VSS brings the applications' writers along; freezing a file system does not.
            return ConsistencyLevel.APPLICATION if state.is_windows else ConsistencyLevel.FILESYSTEM
        if state.vm.power_state is PowerState.OFF and state.clean:
            # The guest unmounted its file systems when it shut down: nothing is in flight.
            return ConsistencyLevel.FILESYSTEM
        return ConsistencyLevel.CRASH

    def _refused(self) -> None:
        self._thaw()
        reason = "the guest refused to freeze its file systems"
        self._answer(QuiesceFailedError(_CREATE, self.vm_id, reason))

    def _expire(self) -> None:
        """The freeze has lasted as long as it may; nothing of the snapshot is left."""
        held_s = self._thaw() - self.frozen_s
        vm_id = self.vm_id
        if self.limit_is_guests:
            reason = f"the guest let go of its writes after {held_s:.3g} s, before the snapshot"
            self._answer(QuiesceFailedError(_CREATE, vm_id, reason))
        else:
            reason = f"the guest was thawed after {held_s:.3g} s, before the snapshot existed"
            self._answer(QuiesceTimeoutError(_CREATE, vm_id, reason))
