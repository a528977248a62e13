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
from ..drivers.errors import (
    DidNotHappenError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from ..drivers.records import PowerState
from .draws import lognormal
from .fabric import Fabric
from .faults import Site
from .operation import Operation
from .slots import SerialLock, Slots
from .vmstate import Snapshot, VmState

_CREATE = "create_snapshot"


class CreateOperation(Operation[VmSnapshot]):
    """One create. Uniforms: 1 freeze call, 2 stun, 3 thaw call if that varies."""

    late = Site.LATE_CREATE
    lost_answer = Site.LOST_ANSWER_CREATE

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
        "thaw_s",
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
        self.frozen_s = self.limit_s = self.stun_s = self.stunned_s = self.thaw_s = 0.0
        self.limit_is_guests = False

    def _work(self) -> None:
        profile = self.fabric.profile
        if profile.create_start:
            start_s = lognormal(self.draw[0], profile.create_start, profile.task_latency_sigma)
            self.fabric.env.after(start_s, self._prepared)
        else:
            self._prepared()

    def _prepared(self) -> None:
        if self.quiesce:
            self._freeze()
        else:
            self._create_deltas()

    def _freeze(self) -> None:
        fabric, state, draw = self.fabric, self.state, self.draw
        profile, env = fabric.profile, fabric.env
        now_s = env.now
        state.frozen = True
        if fabric.plane is not None:
            fabric.plane.frozen(state.guest)
        self.frozen_s = now_s
        timeout_s = self.request.quiesce_timeout_s
        if timeout_s > profile.tools_timeout:
            timeout_s = profile.tools_timeout
        self.limit_s = now_s + timeout_s
        fabric.add(now_s, "world.vm.frozen", "", self.vm_id)
        median_s = profile.windows_freeze if state.is_windows else profile.linux_freeze
        call_s = lognormal(draw[1], median_s, profile.freeze_sigma)
        if profile.under_load is not None:
            call_s *= self._slowed(profile.under_load, "freeze")
        sites = fabric.sites
        if sites is not None:
            if sites.strikes(Site.QUIESCE_HANGS, self.vm_id):
                env.after(timeout_s, self._expire)
                return
            if sites.strikes(Site.QUIESCE_FAILS, self.vm_id):
                env.after(min(call_s, timeout_s), self._refused)
                return
        freeze_s = call_s + fabric.guests.dirty_bytes(state.guest, now_s) / profile.flush_rate
        if freeze_s < timeout_s:
            env.after(freeze_s, self._flushed)
        else:
            env.after(timeout_s, self._expire)

    def _flushed(self) -> None:
        if self.fabric.plane is not None:
            self.fabric.plane.flushed(self.state.guest)
        if self.state.is_windows:
            profile = self.fabric.profile
            vss_s = min(self.fabric.env.now + profile.vss_hold, self.frozen_s + profile.vss_freeze)
            if vss_s < self.limit_s:
                self.limit_s = vss_s
                self.limit_is_guests = True
        sites = self.fabric.sites
        if sites is not None and sites.strikes(Site.THAW_LOST, self.vm_id):
            self._forget_the_guest()
        else:
            self._create_deltas()

    def _create_deltas(self) -> None:
        fabric, state, sites = self.fabric, self.state, self.fabric.sites
        if sites is not None and sites.strikes(Site.DELTA_DATASTORE_FULL, self.vm_id):
            self._no_space()
            return
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
            if profile.under_load is not None:
                stun_s *= self._slowed(profile.under_load, "stun_create")
            self.stun_s = stun_s
        if self.quiesce:
            self.thaw_s = thaw_s = self._thaw_call()
            if ready_s + self.stun_s + thaw_s > self.limit_s:
                env.after(max(0.0, self.limit_s - now_s), self._expire)
                return
        for lock, end_s in turns:
            lock.take(end_s)
        env.after(ready_s - now_s, self._stop if state.running else self._exists)

    def _thaw_call(self) -> float:
        """How long the thaw will take: known before the deltas are made, since it must be in time.

        What else is under way on the host is taken as it is now, not as it will be then.
        """
        profile = self.fabric.profile
        thaw_s = profile.thaw_call
        if profile.thaw_sigma:
            thaw_s = lognormal(self.draw[3], thaw_s, profile.thaw_sigma)
        if profile.under_load is not None:
            thaw_s *= self._slowed(profile.under_load, "thaw")
        return thaw_s

    def _stop(self) -> None:
        env = self.fabric.env
        self.stunned_s = now_s = env.now
        self._stun(now_s)
        env.after(self.stun_s, self._exists)

    def _exists(self) -> None:
        fabric, state = self.fabric, self.state
        if state.stunned:
            self._unstun(fabric.env.now)
        self._add_to_chain()
        if self.quiesce:
            fabric.env.after(self.thaw_s, self._thawed)
        else:
            self._created(None)

    def _add_to_chain(self) -> None:
        fabric, now_s, tag = self.fabric, self.fabric.env.now, self.request.tag
        ref = VmSnapshotRef(self.vm_id, self.snapshot_id, tag)
        chain = self.state.chain
        number = chain[-1].number + 1 if chain else 1
        self.snapshot = Snapshot(ref, now_s, number, foreign=False)
        chain.append(self.snapshot)
        if fabric.plane is not None:
            level = self._level()
            fabric.plane.delta_begins(
                self.state.guest,
                tag,
                quiesced=level.rank <= ConsistencyLevel.FILESYSTEM.rank,
                application=level is ConsistencyLevel.APPLICATION,
            )
        fabric.add(now_s, "world.vm.snapshot", "", self.vm_id, tag)

    def _broken(self, dropped: list[str]) -> None:
        half_made = "_stop" in dropped or "_exists" in dropped
        if half_made and self._happened():
            self._add_to_chain()

    def _thawed(self) -> None:
        self._created(Window(self.frozen_s, self._thaw()))

    def _thaw(self) -> float:
        now_s = self.fabric.env.now
        self.state.frozen = False
        if self.fabric.plane is not None:
            self.fabric.plane.thawed(self.state.guest)
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

    def _forget_the_guest(self) -> None:
        """The host fails with the guest frozen; only the guest's own limit thaws it.

        It happens: a snapshot fails after the freeze, and the thaw is never sent
        (vmware/open-vm-tools#27).
        """
        if not self.future.done():
            reason = "the host failed while the guest was frozen"
            self.future.set_exception(UnknownOutcomeError(_CREATE, self.vm_id, reason))
        env = self.fabric.env
        env.after(max(0.0, self.limit_s - env.now), self._expire)

    def _no_space(self) -> None:
        if self.quiesce:
            self._thaw()
        reason = "there is no space for its delta on the datastore"
        advice = "free space on the datastore"
        self._answer(DidNotHappenError(_CREATE, self.vm_id, reason, advice))

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
