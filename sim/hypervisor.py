"""The modelled hypervisor: one vCenter with its hosts, behind the contract of a live one.

What a caller is refused at once, as vSphere refuses it: a VM that another task or a migration
works on (TaskInProgress: ``BusyError``), a template or a full chain of snapshots (NotSupported,
TooManySnapshotLevels: ``NeverWillError``), an unknown VM or snapshot (``NotFoundError``).

A running VM whose guest tools are missing cannot be quiesced. The vSphere API then drops the
request to quiesce and reports success; a caller who believes the flag he sent would call a
crash-consistent image application-consistent. The profile decides which of the two is modelled:
``refuse`` (``QuiesceFailedError``, what a driver that looks first does) or ``ignore`` (level
``crash``). A VM that does not run has nothing to quiesce and is never refused for that.

Snapshots that were there before carry their own names and stay unless a caller removes them by
name: the model does as it is told, so that a caller who removes what is not his is found out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import cast

from ..drivers.contracts import (
    HypervisorCapabilities,
    MergeResult,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotRequest,
    VmSnapshotState,
)
from ..drivers.errors import (
    BusyError,
    DidNotHappenError,
    NeverWillError,
    NotFoundError,
    QuiesceFailedError,
)
from ..drivers.records import HostId, Inventory, VCenter, VmId
from .bridge import resolve
from .creating import CreateOperation
from .fabric import Fabric
from .faults import Site
from .profiles import MergeAlgorithm, WithoutTools, algorithm_for
from .removing import MergeOperation
from .session import Session
from .slots import Slots
from .vmstate import VmState

_CAPABILITIES = HypervisorCapabilities(
    reports_quiesce=True, reports_stun=True, reports_delta=True, consolidates=True
)


class _Nobody:
    """Waits for no answer."""

    def done(self) -> bool:
        """It never waits."""
        return True


_NOBODY = _Nobody()


class ModelHypervisor:
    """One modelled vCenter; implements :class:`~stillframe.drivers.contracts.HypervisorDriver`.

    Parameters
    ----------
    fabric:
        What it shares with the other vCenters of the world.
    vcenter:
        Itself.
    estate:
        The inventory that it is taken from; only what belongs to ``vcenter`` counts.
    states:
        Its VMs.
    """

    def __init__(
        self, fabric: Fabric, vcenter: VCenter, estate: Inventory, states: Iterable[VmState]
    ) -> None:
        own = vcenter.id
        self.id = own
        self.states: dict[VmId, VmState] = {state.vm.id: state for state in states}
        self._fabric = fabric
        self._fixed = Inventory(
            (vcenter,),
            tuple(cluster for cluster in estate.clusters if cluster.vcenter_id == own),
            tuple(host for host in estate.hosts if host.vcenter_id == own),
            tuple(store for store in estate.datastores if store.vcenter_id == own),
            (),
        )
        profile = fabric.profile
        # The same numbers first, and one more where it is needed.
        self._draw = fabric.draws.uniforms if profile.thaw_sigma else fabric.draws.three
        self.tasks = Slots(profile.vcenter_tasks)
        self.host_tasks: dict[HostId, Slots] = {
            host.id: Slots(profile.host_tasks) for host in self._fixed.hosts
        }
        self._algorithms: dict[HostId | None, MergeAlgorithm] = {
            host.id: algorithm_for(profile, host.version) for host in self._fixed.hosts
        }
        self._snapshots = 0
        sites = fabric.sites
        self._session = None if sites is None else Session(own, sites, fabric.env)

    @property
    def capabilities(self) -> HypervisorCapabilities:
        """Everything: a model sees what it does."""
        return _CAPABILITIES

    async def inventory(self) -> Inventory:
        """Everything this vCenter holds, with every VM where it is now."""
        await self._query("inventory")
        fixed = self._fixed
        vms = tuple(state.vm for state in self.states.values())
        return Inventory(fixed.vcenters, fixed.clusters, fixed.hosts, fixed.datastores, vms)

    async def list_snapshots(self, vm_ids: Sequence[VmId] | None = None) -> list[VmSnapshotState]:
        """See :meth:`HypervisorDriver.list_snapshots`; as of the moment of the answer."""
        await self._query("list_snapshots")
        found = map(self.states.get, self.states if vm_ids is None else vm_ids)
        stores, elsewhere = self._fabric.storage.datastores, self._fabric.delta_store
        return [
            state.listing(stores, elsewhere.get(state.guest))
            for state in found
            if state is not None
        ]

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        """See :meth:`HypervisorDriver.create_snapshot`."""
        operation = "create_snapshot"
        state = self._state(operation, request.vm_id)
        draw = self._claim(operation, state)
        quiesce = self._check_create(state, request)
        self._snapshots += 1
        future: asyncio.Future[VmSnapshot] = asyncio.get_running_loop().create_future()
        if self._session is not None:
            self._session.await_answer(operation, state.vm.id, future)
        CreateOperation(
            self._fabric,
            state,
            self._host_of(state),
            self.tasks,
            draw,
            future,
            request,
            f"{self.id}/snapshot-{self._snapshots}",
            quiesce=quiesce,
        ).begin()
        return await future

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        """See :meth:`HypervisorDriver.remove_snapshot`.

        The snapshot stays in the list until its delta is merged.
        """
        operation = "remove_snapshot"
        state = self._state(operation, ref.vm_id)
        draw = self._claim(operation, state)
        place = state.find(ref.snapshot_id)
        if place is None:
            reason = f"it has no snapshot {ref.snapshot_id} (any more)"
            raise NotFoundError(operation, ref.vm_id, reason)
        future: asyncio.Future[MergeResult] = asyncio.get_running_loop().create_future()
        if self._session is not None:
            self._session.await_answer(operation, state.vm.id, future)
        MergeOperation(
            self._fabric,
            state,
            operation,
            self._host_of(state),
            self.tasks,
            draw,
            future,
            [state.chain[place]],
            self._algorithm_of(state),
            may_fail=True,
        ).begin()
        return await future

    def remove_newest(self, state: VmState) -> None:
        """Somebody at the console removes the newest snapshot of a free VM, and waits for nothing.

        It leaves the list at once, as in vSphere, while its delta is being merged. One that was
        there before the world began is left alone.
        """
        fabric, place = self._fabric, len(state.chain) - 1
        newest = state.chain[place] if state.chain else None
        if newest is None or newest.foreign or newest.loose:
            return
        fabric.add(fabric.env.now, "world.vm.snapshot-removed", "", state.vm.id, newest.ref.tag)
        newest.loose = True
        if fabric.plane is not None:
            fabric.plane.snapshot_lost(state.guest, place)
        state.attempts += 1
        MergeOperation(
            fabric,
            state,
            "remove_snapshot",
            self._host_of(state),
            self.tasks,
            fabric.draws.three("console", state.vm.id, state.attempts),
            cast("asyncio.Future[MergeResult]", _NOBODY),
            [newest],
            self._algorithm_of(state),
            may_fail=False,
        ).begin()

    async def consolidate(self, vm_id: VmId) -> None:
        """See :meth:`HypervisorDriver.consolidate`."""
        operation = "consolidate"
        state = self._state(operation, vm_id)
        draw = self._claim(operation, state)
        # Newest first: what is merged down is merged again only if what lies below is loose too.
        loose = [snapshot for snapshot in reversed(state.chain) if snapshot.loose]
        if not loose:
            return
        future: asyncio.Future[MergeResult] = asyncio.get_running_loop().create_future()
        if self._session is not None:
            self._session.await_answer(operation, state.vm.id, future)
        MergeOperation(
            self._fabric,
            state,
            operation,
            self._host_of(state),
            self.tasks,
            draw,
            future,
            loose,
            self._algorithm_of(state),
            may_fail=False,
        ).begin()
        await future

    # -- checks ---------------------------------------------------------------------------------

    async def _query(self, operation: str) -> None:
        fabric = self._fabric
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._session is not None:
            self._session.check(operation, self.id)
            self._session.await_answer(operation, self.id, future)
            if self._session.loses_query(operation, future):
                await future
                return
        fabric.env.after(fabric.profile.query_latency, resolve, future, None)
        await future

    def _state(self, operation: str, vm_id: VmId) -> VmState:
        state = self.states.get(vm_id)
        if state is None:
            raise NotFoundError(operation, vm_id, f"{self.id} has no such VM")
        return state

    def _claim(self, operation: str, state: VmState) -> Sequence[float]:
        """The draws of a new operation on a VM that is free for it."""
        sites = self._fabric.sites
        state.attempts += 1
        if self._session is not None:
            self._session.check(operation, state.vm.id)
        if state.unreachable:
            reason = f"its host {state.vm.host_id} does not respond"
            raise DidNotHappenError(operation, state.vm.id, reason)
        if state.operation:
            raise self._busy(operation, state, f"{state.operation} is in progress")
        if sites is not None and sites.strikes(Site.HYPERVISOR_BUSY, state.vm.id, operation):
            raise self._busy(operation, state, "another task holds the VM")
        return self._draw(operation, state.vm.id, state.attempts)

    def _busy(self, operation: str, state: VmState, reason: str) -> BusyError:
        retry_s = self._fabric.profile.busy_retry
        return BusyError(operation, state.vm.id, reason, retry_after_s=retry_s)

    def _check_create(self, state: VmState, request: VmSnapshotRequest) -> bool:
        """Whether the guest will be quiesced; raises when the request is refused."""
        vm, profile = state.vm, self._fabric.profile
        if vm.is_template:
            reason = "it is a template, which has no snapshots"
            raise NeverWillError("create_snapshot", vm.id, reason)
        if len(state.chain) >= profile.snapshot_depth:
            reason = f"its chain has {len(state.chain)} snapshots, the most there can be"
            advice = "remove snapshots that are no longer needed"
            raise NeverWillError("create_snapshot", vm.id, reason, advice)
        if not request.quiesce or not state.running:
            return False
        if vm.can_quiesce is False:
            if profile.without_tools is WithoutTools.IGNORE:
                return False
            reason = "its guest tools are not running, so it cannot be quiesced"
            raise QuiesceFailedError("create_snapshot", vm.id, reason)
        return True

    def _host_of(self, state: VmState) -> Slots | None:
        host_id = state.vm.host_id
        return None if host_id is None else self.host_tasks.get(host_id)

    def _algorithm_of(self, state: VmState) -> MergeAlgorithm:
        known = self._algorithms.get(state.vm.host_id)
        return algorithm_for(self._fabric.profile, "") if known is None else known
