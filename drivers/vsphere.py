"""The driver for VMware vSphere: one vCenter behind the contract.

pyvmomi blocks, so every call runs in a thread of the driver's own pool, which is as large as the
pool of connections. A caller who stops waiting does not stop the thread: it goes on until the
vCenter answers or the call's time limit ends. Closing the driver breaks off what is left.

No call that changes anything is ever repeated by the driver. When its answer is lost, the outcome
is unknown, and the caller looks for the snapshot by its tag, which is its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import vsphere_faults as faults
from .contracts import (
    ConsistencyLevel,
    HypervisorCapabilities,
    MergeResult,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotRequest,
    VmSnapshotState,
)
from .errors import (
    DidNotHappenError,
    DriverError,
    HappenedError,
    NotFoundError,
    QuiesceFailedError,
    UnknownOutcomeError,
)
from .records import DeviceIdentity, Inventory, PowerState, VmId
from .vsphere_batch import BatchReader
from .vsphere_calls import Calls
from .vsphere_devices import Luns, device_facts
from .vsphere_inventory import TOOLS_RUNNING, InventoryReader, Progress
from .vsphere_location import POWER, Locator, VmFacts
from .vsphere_properties import BATCH, Wanted, read_all, read_objects
from .vsphere_session import Session
from .vsphere_settings import VsphereSettings, credentials_of, parse_settings, tls_context
from .vsphere_tasks import TaskEnd, TaskLostError, TaskPoller, busy_entities, read_tasks, run_window
from .vsphere_wire import Stub, vim, vmodl

DESCRIPTION = "Made by Stillframe for one array snapshot, and removed right after it."
_CAPABILITIES = HypervisorCapabilities(consolidates=True)
_GUEST = Wanted("VirtualMachine", ("runtime.powerState", "guest.toolsRunningStatus"))
_QUIESCE_MINUTES = (5, 240)
"""The least and most that a vCenter accepts as a guest's time limit (GuestQuiesceSpec)."""


class VsphereDriver:
    """One vCenter; implements :class:`~stillframe.drivers.contracts.HypervisorDriver`.

    Made by :func:`open_vsphere`. Identifiers are ``system_id/moid``.

    Parameters
    ----------
    session:
        Logged in.
    executor:
        Threads for its blocking calls.
    """

    def __init__(
        self, session: Session, settings: VsphereSettings, executor: ThreadPoolExecutor
    ) -> None:
        self._session = session
        self._settings = settings
        self._executor = executor
        self._prefix = f"{session.system_id}/"
        self._calls = Calls(session, executor, settings.lost_call_grace)
        self._luns = Luns()
        self._locator = Locator(session, self._luns)
        self._poller = TaskPoller(self._read_tasks, settings.poll_interval, settings.outage_timeout)
        self._locations: BatchReader[VmFacts] = BatchReader(self._locate, BATCH)
        self._guests: BatchReader[tuple[PowerState, str]] = BatchReader(self._look, BATCH)
        self._has_create_ex = True

    @property
    def capabilities(self) -> HypervisorCapabilities:
        """It consolidates. vSphere reports neither when a guest froze nor stun nor deltas."""
        return _CAPABILITIES

    @property
    def session(self) -> Session:
        """The session that it works through."""
        return self._session

    async def inventory(self, progress: Progress | None = None) -> Inventory:
        """Everything this vCenter holds, as far as the user may see.

        Parameters
        ----------
        progress:
            Called on the event loop's thread with the VMs read so far and the number of all.
        """
        notify = None
        if progress is not None:
            loop, told = asyncio.get_running_loop(), progress

            def notify(done: int, total: int) -> None:
                loop.call_soon_threadsafe(told, done, total)

        reader = InventoryReader(self._session, self._luns)
        return await self._calls.read("inventory", self._session.system_id, reader.read, notify)

    async def device_facts(self) -> dict[DeviceIdentity, tuple[str, str, bool]]:
        """Vendor, model, and whether it is local to a host, of each block device (optional)."""
        own = self._session.system_id
        return await self._calls.read("device_facts", own, device_facts, self._session)

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        """See :meth:`HypervisorDriver.create_snapshot`.

        The tag becomes the snapshot's name. The level is ``filesystem`` when vSphere says that
        the snapshot is quiesced, also in Windows: it does not say whether applications took part.
        The ``quiesce`` window is the task's run time, which encloses the freeze.
        """
        vm_id = request.vm_id
        moid = self._moid(faults.CREATE, vm_id)
        quiesce = request.quiesce and await self._can_freeze(vm_id, moid)
        loop = asyncio.get_running_loop()
        sent_s = loop.time()
        task = await self._create_task(moid, request, quiesce=quiesce)
        made_s = loop.time()
        end = await self._end_of(faults.CREATE, vm_id, task)
        if end.fault is not None:
            error = faults.ended(faults.CREATE, vm_id, end.fault, quiesce=quiesce)
            raise await self._after_failure(
                vm_id,
                moid,
                error,
                lambda facts: any(one.name == request.tag for one in facts.snapshots),
            )
        window = run_window(end, sent_s, made_s, loop.time())
        try:
            facts = await self._facts(faults.CREATE, vm_id, moid)
        except DriverError as error:
            reason = f"the snapshot exists, but where the VM lies could not be read: {error.reason}"
            raise HappenedError(faults.CREATE, vm_id, reason) from error
        node = next((one for one in facts.snapshots if one.name == request.tag), None)
        if node is None:
            reason = "vCenter reports success, but the VM does not list the snapshot"
            raise UnknownOutcomeError(faults.CREATE, vm_id, reason)
        frozen = quiesce and node.quiesced
        return VmSnapshot(
            VmSnapshotRef(vm_id, self._prefix + node.id, request.tag),
            ConsistencyLevel.FILESYSTEM if frozen else ConsistencyLevel.CRASH,
            facts.location,
            window.end_s,
            quiesce=window if frozen else None,
        )

    async def list_snapshots(self, vm_ids: Sequence[VmId] | None = None) -> list[VmSnapshotState]:
        """See :meth:`HypervisorDriver.list_snapshots`.

        ``operation_running`` is what the vCenter's list of recent tasks says; None when it cannot
        be read, and shortly after a call to the VM was lost, which may still be on its way.
        """
        operation, own = "list_snapshots", self._session.system_id
        if vm_ids is None:
            found = await self._calls.read(
                operation, own, read_all, self._session, [Wanted("VirtualMachine", ("name",))]
            )
            moids = [one.id for one in found]
        else:
            prefixed = (vm_id for vm_id in vm_ids if vm_id.startswith(self._prefix))
            moids = [vm_id.removeprefix(self._prefix) for vm_id in prefixed]
        # In this order: a call becomes a task, a task leaves its traces on the VM. Asked for the
        # other way round, what passes on in between would be seen nowhere.
        now_s = asyncio.get_running_loop().time()
        calls = {moid: self._calls.under_way(self._prefix + moid, now_s) for moid in moids}
        busy = await self._busy()
        facts = await self._calls.read(operation, own, self._locator.read, moids)
        return [self._state(facts[moid], calls[moid], busy) for moid in moids if moid in facts]

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        """See :meth:`HypervisorDriver.remove_snapshot`; children are never removed with it."""
        operation, vm_id = faults.REMOVE, ref.vm_id
        moid = self._moid(operation, vm_id)
        snapshot = ref.snapshot_id.removeprefix(self._prefix)
        task = await self._calls.start(
            operation,
            vm_id,
            lambda stub: vim.vm.Snapshot(snapshot, stub).RemoveSnapshot_Task(
                removeChildren=False, consolidate=True
            ),
        )
        end = await self._end_of(operation, vm_id, task)
        if end.fault is not None:
            raise await self._after_failure(
                vm_id,
                moid,
                faults.ended(operation, vm_id, end.fault),
                lambda facts: all(one.id != snapshot for one in facts.snapshots),
            )
        return MergeResult()

    async def consolidate(self, vm_id: VmId) -> None:
        """See :meth:`HypervisorDriver.consolidate`."""
        operation = faults.CONSOLIDATE
        moid = self._moid(operation, vm_id)
        task = await self._calls.start(
            operation,
            vm_id,
            lambda stub: vim.VirtualMachine(moid, stub).ConsolidateVMDisks_Task(),
        )
        end = await self._end_of(operation, vm_id, task)
        if end.fault is not None:
            raise faults.ended(operation, vm_id, end.fault)

    async def close(self) -> None:
        """Log out and end all threads; takes at most about two connect timeouts.

        Whoever still waits is told that the outcome is unknown.
        """
        limit_s = self._settings.connect_timeout
        loop = asyncio.get_running_loop()
        await self._poller.close()
        logout = loop.run_in_executor(self._executor, self._session.logout)
        await asyncio.wait([logout], timeout=limit_s)
        self._session.abort()
        await self._locations.close()
        await self._guests.close()
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    # -- create -----------------------------------------------------------------------------------

    async def _can_freeze(self, vm_id: VmId, moid: str) -> bool:
        """Whether there is a running guest to quiesce.

        vSphere itself drops the wish to quiesce when VMware Tools do not run, and reports success.

        Raises
        ------
        QuiesceFailedError
            There is one, and its tools do not run.
        """
        guest = await self._calls.translated(faults.CREATE, vm_id, self._guests.get(moid))
        if guest is None:
            raise self._no_such_vm(faults.CREATE, vm_id)
        power, tools = guest
        if power is not PowerState.ON:
            return False
        if tools != TOOLS_RUNNING:
            reason = "VMware Tools do not run in the guest, so it cannot be quiesced"
            raise QuiesceFailedError(
                faults.CREATE, vm_id, reason, "install or start VMware Tools in the guest"
            )
        return True

    async def _create_task(self, moid: str, request: VmSnapshotRequest, *, quiesce: bool) -> str:
        def with_limit(stub: Stub) -> Any:
            low, high = _QUIESCE_MINUTES
            minutes = min(max(math.ceil(request.quiesce_timeout_s / 60), low), high)
            return vim.VirtualMachine(moid, stub).CreateSnapshotEx_Task(
                name=request.tag,
                description=DESCRIPTION,
                memory=False,
                quiesceSpec=vim.vm.GuestQuiesceSpec(timeout=minutes),
            )

        def plain(stub: Stub) -> Any:
            return vim.VirtualMachine(moid, stub).CreateSnapshot_Task(
                name=request.tag, description=DESCRIPTION, memory=False, quiesce=quiesce
            )

        def create(stub: Stub) -> Any:
            if quiesce and self._has_create_ex:
                try:
                    return with_limit(stub)
                except vmodl.fault.MethodNotFound:  # an older server; nothing has happened
                    self._has_create_ex = False
            return plain(stub)

        return await self._calls.start(faults.CREATE, request.vm_id, create)

    async def _after_failure(
        self, vm_id: VmId, moid: str, error: DriverError, happened: Callable[[VmFacts], bool]
    ) -> DriverError:
        """The error for a task that failed; looks at the VM when the fault does not tell."""
        if not isinstance(error, UnknownOutcomeError):
            return error
        try:
            facts = await self._facts(error.operation, vm_id, moid)
        except DriverError:
            return error
        cls = HappenedError if happened(facts) else DidNotHappenError
        return cls(error.operation, vm_id, error.reason, error.advice)

    # -- calls ------------------------------------------------------------------------------------

    def _moid(self, operation: str, vm_id: VmId) -> str:
        if not vm_id.startswith(self._prefix):
            raise self._no_such_vm(operation, vm_id)
        return vm_id.removeprefix(self._prefix)

    def _no_such_vm(self, operation: str, vm_id: VmId) -> NotFoundError:
        return NotFoundError(operation, vm_id, f"{self._session.subject} has no such VM")

    async def _end_of(self, operation: str, vm_id: VmId, task_id: str) -> TaskEnd:
        try:
            return await self._poller.wait(task_id)
        except TaskLostError as error:
            reason = f"how task {task_id} ended is not to be learnt: {error}"
            raise UnknownOutcomeError(operation, vm_id, reason) from error

    async def _read_tasks(self, task_ids: Sequence[str]) -> Mapping[str, TaskEnd | None]:
        own = self._session.system_id
        return await self._calls.read("tasks", own, read_tasks, self._session, task_ids)

    async def _locate(self, moids: Sequence[str]) -> Mapping[str, VmFacts]:
        return await self._calls.run(self._locator.read, moids)

    async def _look(self, moids: Sequence[str]) -> Mapping[str, tuple[PowerState, str]]:
        found = await self._calls.run(read_objects, self._session, [_GUEST], moids)
        for one in found:
            one.check()
        return {
            one.id: (
                POWER.get(one.text("runtime.powerState"), PowerState.OFF),
                one.text("guest.toolsRunningStatus"),
            )
            for one in found
        }

    async def _facts(self, operation: str, vm_id: VmId, moid: str) -> VmFacts:
        facts = await self._calls.translated(operation, vm_id, self._locations.get(moid))
        if facts is None:
            raise self._no_such_vm(operation, vm_id)
        return facts

    async def _busy(self) -> frozenset[str] | None:
        try:
            return await self._calls.read(
                "list_tasks", self._session.system_id, busy_entities, self._session
            )
        except DriverError:
            return None

    def _state(
        self, facts: VmFacts, called: bool | None, busy: frozenset[str] | None
    ) -> VmSnapshotState:
        vm_id, running = self._prefix + facts.id, called
        if called is False:
            running = None if busy is None else facts.id in busy
        return VmSnapshotState(
            vm_id,
            facts.location,
            tuple(VmSnapshotRef(vm_id, self._prefix + one.id, one.name) for one in facts.snapshots),
            needs_consolidation=facts.needs_consolidation,
            operation_running=running,
        )


@contextlib.asynccontextmanager
async def open_vsphere(system_id: str, settings: Mapping[str, Any]) -> AsyncIterator[VsphereDriver]:
    """Connect to a vCenter, give its driver, log out at the end.

    Parameters
    ----------
    system_id:
        Under which name the estate knows it; prefix of all identifiers.
    settings:
        See :class:`~stillframe.drivers.vsphere_settings.VsphereSettings`.

    Raises
    ------
    InputError
        The settings or the credentials cannot be used.
    DidNotHappenError, NeverWillError
        It cannot be reached, cannot prove who it is, or refuses the user.
    """
    checked = parse_settings(system_id, settings)
    session = Session(
        system_id, checked, credentials_of(system_id, checked), tls_context(system_id, checked)
    )
    # Not one thread more than there are connections: it would shake hands anew for each call.
    executor = ThreadPoolExecutor(checked.pool_size, thread_name_prefix=f"vsphere-{system_id}")
    try:
        await asyncio.get_running_loop().run_in_executor(executor, session.open)
    except BaseException:
        session.abort()
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    driver = VsphereDriver(session, checked, executor)
    try:
        yield driver
    finally:
        await driver.close()
