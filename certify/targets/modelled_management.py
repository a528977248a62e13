"""The management server of the modelled hypervisor, and a driver's connection to it.

The model itself never loses a message. Here are the parts of a real system that do: a server that
takes requests and works on them whether or not anyone still waits, that can be restarted, stop
answering, void its sessions and lose answers; and a client that logs in again by itself, gives up
after a time, and says honestly what it knows of the outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from ...drivers.contracts import (
    HypervisorCapabilities,
    HypervisorDriver,
    MergeResult,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotRequest,
    VmSnapshotState,
)
from ...drivers.errors import DidNotHappenError, DriverError, UnknownOutcomeError
from ...drivers.records import Inventory, VmId

Work = Callable[[], Awaitable[Any]]
QUESTIONS = frozenset({"inventory", "list_snapshots"})
"""Calls that change nothing: not to hear of them is as if they had not been made."""
_LOGIN_S = 0.05


def unheard(operation: str, subject: str, reason: str) -> DriverError:
    """What a client says that has sent a request and got no answer."""
    kind = DidNotHappenError if operation in QUESTIONS else UnknownOutcomeError
    return kind(operation, subject, reason)


class ManagementServer:
    """Takes requests for a hypervisor.

    Parameters
    ----------
    hypervisor:
        What does them.
    restart_s:
        How long a restart takes.

    Attributes
    ----------
    sessions:
        Counts how often all sessions were voided.
    """

    def __init__(self, hypervisor: HypervisorDriver, restart_s: float) -> None:
        self.hypervisor = hypervisor
        self.sessions = 0
        self._restart_s = restart_s
        self._restarts = 0
        self._serving = asyncio.Event()
        self._serving.set()
        self._reachable = asyncio.Event()
        self._reachable.set()
        self._delay_s: dict[str, float] = {}
        self._lost: dict[str, int] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._clients: dict[asyncio.Future[Any], tuple[str, str]] = {}
        self._queued: dict[str, int] = {}

    # -- serving --------------------------------------------------------------------------------

    async def answers(self) -> None:
        """Wait until it serves and can be reached."""
        while not (self._serving.is_set() and self._reachable.is_set()):
            await self._serving.wait()
            await self._reachable.wait()

    def take(self, operation: str, subject: str, work: Work) -> asyncio.Future[Any]:
        """A request arrives; the answer. To cancel that ends nothing but the waiting."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._clients[future] = operation, subject
        self._queued[subject] = self._queued.get(subject, 0) + 1
        task = asyncio.create_task(self._serve(operation, subject, work, future))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return future

    def queued(self, subject: str) -> bool:
        """Whether a request for this VM has been taken and is not done."""
        return self._queued.get(subject, 0) > 0

    async def _serve(
        self, operation: str, subject: str, work: Work, future: asyncio.Future[Any]
    ) -> None:
        answer: Any = None
        restarts = self._restarts
        try:
            await self._reachable.wait()
            if operation in self._delay_s:
                await asyncio.sleep(self._delay_s[operation])
            if restarts == self._restarts:  # else it went down with what it had not begun
                answer = await work()
        except DriverError as error:
            answer = error
        finally:
            self._queued[subject] -= 1
        await self._reachable.wait()
        self._clients.pop(future, None)
        if future.done():
            return
        if operation in self._lost:
            answer = unheard(operation, subject, "the connection broke before the answer came")
        if isinstance(answer, DriverError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    # -- what may happen to it ------------------------------------------------------------------

    async def restart(self) -> None:
        """It dies and comes back; what the hypervisor works on goes on, and nobody hears of it."""
        self._restarts += 1
        self.sessions += 1
        clients, self._clients = self._clients, {}
        for future, (operation, subject) in clients.items():
            if not future.done():
                reason = "the server went away before the answer came"
                future.set_exception(unheard(operation, subject, reason))
        self._serving.clear()
        await asyncio.sleep(self._restart_s)
        self._serving.set()

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Meanwhile requests stay where they are, and answers too."""
        self._reachable.clear()
        try:
            yield
        finally:
            self._reachable.set()

    @contextmanager
    def lost(self, operation: str) -> Iterator[None]:
        """Meanwhile the answers to these requests are lost."""
        self._lost[operation] = self._lost.get(operation, 0) + 1
        try:
            yield
        finally:
            self._lost[operation] -= 1
            if not self._lost[operation]:
                del self._lost[operation]

    @contextmanager
    def slow(self, operation: str, delay_s: float) -> Iterator[None]:
        """Meanwhile these requests wait so long in its queue."""
        self._delay_s[operation] = delay_s
        try:
            yield
        finally:
            del self._delay_s[operation]

    async def close(self) -> None:
        """End whatever still waits in it."""
        self._reachable.set()
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class ManagedHypervisor:
    """One connection to a management server; implements :class:`HypervisorDriver`.

    Parameters
    ----------
    server:
        The other side.
    answer_limit_s:
        How long it waits for an answer, beyond what the request itself allows.
    """

    def __init__(self, server: ManagementServer, answer_limit_s: float) -> None:
        self._server = server
        self._limit_s = answer_limit_s
        self._session = -1

    @property
    def capabilities(self) -> HypervisorCapabilities:
        """What the hypervisor says."""
        return self._server.hypervisor.capabilities

    async def inventory(self) -> Inventory:
        """See :meth:`HypervisorDriver.inventory`."""
        hypervisor = self._server.hypervisor
        found: Inventory = await self._ask("inventory", "inventory", hypervisor.inventory)
        return found

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        """See :meth:`HypervisorDriver.create_snapshot`."""
        hypervisor, freeze_s = self._server.hypervisor, 0.0
        if request.quiesce:
            freeze_s = request.quiesce_timeout_s
        made: VmSnapshot = await self._ask(
            "create_snapshot",
            request.vm_id,
            lambda: hypervisor.create_snapshot(request),
            freeze_s,
        )
        return made

    async def list_snapshots(self, vm_ids: Sequence[VmId] | None = None) -> list[VmSnapshotState]:
        """See :meth:`HypervisorDriver.list_snapshots`."""
        server = self._server

        async def look() -> list[VmSnapshotState]:
            found = await server.hypervisor.list_snapshots(vm_ids)
            return [
                one._replace(operation_running=one.operation_running or server.queued(one.vm_id))
                for one in found
            ]

        states: list[VmSnapshotState] = await self._ask("list_snapshots", "snapshots", look)
        return states

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        """See :meth:`HypervisorDriver.remove_snapshot`."""
        hypervisor = self._server.hypervisor
        merged: MergeResult = await self._ask(
            "remove_snapshot", ref.vm_id, lambda: hypervisor.remove_snapshot(ref)
        )
        return merged

    async def consolidate(self, vm_id: VmId) -> None:
        """See :meth:`HypervisorDriver.consolidate`."""
        hypervisor = self._server.hypervisor
        await self._ask("consolidate", vm_id, lambda: hypervisor.consolidate(vm_id))

    async def log_in(self, operation: str, subject: str) -> None:
        """Have a session.

        Raises
        ------
        DidNotHappenError
            The server does not answer.
        """
        try:
            async with asyncio.timeout(self._limit_s):
                await self._server.answers()
                await asyncio.sleep(_LOGIN_S)
                await self._server.answers()
        except TimeoutError:
            reason = f"the server has not answered for {self._limit_s:g} s"
            raise DidNotHappenError(operation, subject, reason) from None
        self._session = self._server.sessions

    async def _ask(self, operation: str, subject: str, work: Work, more_s: float = 0.0) -> Any:
        if self._session != self._server.sessions:
            await self.log_in(operation, subject)
        limit_s = self._limit_s + more_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._server.take(operation, subject, work)
        except TimeoutError:
            reason = f"no answer came within {limit_s:g} s"
            raise unheard(operation, subject, reason) from None


@asynccontextmanager
async def connected(
    server: ManagementServer, answer_limit_s: float
) -> AsyncIterator[HypervisorDriver]:
    """A connection. Raises DidNotHappenError when the server does not answer."""
    connection = ManagedHypervisor(server, answer_limit_s)
    await connection.log_in("connect", "server")
    yield connection
