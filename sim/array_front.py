"""The way to a modelled array: sessions, answers that are lost, a service that restarts.

:class:`ArrayFront` is the array's management service, :class:`ArrayClient` a driver that talks to
it. What the service was asked it goes on with when nobody waits for the answer any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from ..drivers.contracts import (
    ArrayCapabilities,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
)
from ..drivers.errors import DidNotHappenError, DriverError, UnknownOutcomeError
from ..drivers.records import DeviceIdentity, StorageUnit, UnitId
from .array_calls import DELETE, SNAPSHOT, settle
from .readable_array import CLONE, DISCARD, READ, ReadableArray

T = TypeVar("T")

RESTART_S = 1.5
"""From the death of the service until it serves again."""
CALL_TIMEOUT_S = 20.0
"""After so long without an answer a client gives up waiting."""
LOGIN_S = 0.005
BREAKS_AFTER_S = 0.01
"""A connection that is to break does so after this: the service is at work by then."""
RESOLVE, LIST = "resolve", "list_snapshots"


class ArrayFront:
    """The management service of a modelled array.

    Parameters
    ----------
    array:
        What does the work.

    Attributes
    ----------
    epoch:
        Sessions of an earlier epoch are void.
    restarts:
        How often it has died.
    lost:
        Operations whose answers get lost.
    slow_s:
        Operations that the service is slow to begin, and by how much.
    reachable:
        Whether requests and answers get through.
    serving:
        Whether anything listens; a request is refused otherwise.
    clock_ahead_s:
        By how much its own clock is ahead of the true time; nobody ought to rely on that clock.
    """

    def __init__(self, array: ReadableArray) -> None:
        self.array = array
        self.epoch = 0
        self.restarts = 0
        self.lost: set[str] = set()
        self.slow_s: dict[str, float] = {}
        self.reachable = True
        self.serving = True
        self.clock_ahead_s = 0.0
        self._at_work: dict[asyncio.Task[None], asyncio.Future[Any]] = {}

    def clock_s(self) -> float:
        """What its own clock shows."""
        return asyncio.get_running_loop().time() + self.clock_ahead_s

    def ask(
        self, operation: str, subject: str, call: Callable[[], Coroutine[Any, Any, T]]
    ) -> asyncio.Future[T]:
        """Send a request; the answer may never come.

        Raises
        ------
        DidNotHappenError
            Nothing listens.
        """
        if not self.serving:
            raise DidNotHappenError(operation, subject, "the connection was refused")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        if not self.reachable:
            return answer
        task = loop.create_task(self._serve(operation, subject, call, answer))
        self._at_work[task] = answer
        task.add_done_callback(self._at_work.pop)
        return answer

    def expire(self) -> None:
        """Every session is void, and answers to them are not given any more."""
        self.epoch += 1
        self._break_connections()

    def drop_answers(self) -> None:
        """What is at work now is not answered, and nobody is told so."""
        for task in list(self._at_work):
            nobodys: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            nobodys.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
            self._at_work[task] = nobodys

    async def restart(self) -> None:
        """The service dies in the middle of everything; returns when it serves again."""
        self.serving = False
        self.restarts += 1
        self.array.crash()
        self.expire()
        await self.stop()
        await asyncio.sleep(RESTART_S)
        self.array.recover()
        self.serving = True

    async def stop(self) -> None:
        """Give up all work."""
        tasks = list(self._at_work)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _break_connections(self) -> None:
        for answer in list(self._at_work.values()):
            if not answer.done():
                answer.set_exception(ConnectionResetError())

    async def _serve(
        self,
        operation: str,
        subject: str,
        call: Callable[[], Awaitable[T]],
        answer: asyncio.Future[T],
    ) -> None:
        task = asyncio.current_task()
        if operation in self.lost:
            lost = UnknownOutcomeError(operation, subject, "the connection broke")
            asyncio.get_running_loop().call_later(BREAKS_AFTER_S, settle, answer, lost)
        await asyncio.sleep(self.slow_s.get(operation, 0.0))
        outcome: T | DriverError
        try:
            outcome = await call()
        except DriverError as error:
            outcome = error
        if task is not None:
            answer = self._at_work[task]
        if operation not in self.lost:
            settle(answer, outcome)


class ArrayClient:
    """A driver for a modelled array behind its service; implements ``ReadableArrayDriver``.

    It logs in again by itself when its session has expired, since a request that was refused for
    that has done nothing. An answer that does not come is told as unknown.
    """

    def __init__(self, front: ArrayFront) -> None:
        self._front = front
        self._array = front.array
        self._epoch = -1

    @property
    def capabilities(self) -> ArrayCapabilities:
        """What the array can do."""
        return self._array.capabilities

    async def log_in(self) -> None:
        """Begin a session. Raises DidNotHappenError when the service does not answer."""
        array_id = self._array.id
        try:
            await self._answer("log_in", array_id, self._open_session)
        except UnknownOutcomeError as error:
            raise DidNotHappenError("log_in", array_id, error.reason) from error

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        """See :meth:`ModelArray.resolve`."""
        return await self._call(RESOLVE, self._array.id, lambda: self._array.resolve(devices))

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """See :meth:`ModelArray.snapshot_group`."""
        return await self._call(SNAPSHOT, request.tag, lambda: self._array.snapshot_group(request))

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """See :meth:`ModelArray.list_snapshots`."""
        return await self._call(
            LIST, self._array.id, lambda: self._array.list_snapshots(tag_prefix)
        )

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """See :meth:`ModelArray.delete_snapshot`."""
        await self._call(DELETE, ref.tag, lambda: self._array.delete_snapshot(ref))

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """See :meth:`ReadableArray.read_back`."""
        return await self._call(
            READ,
            ref.tag,
            lambda: self._array.read_back(ref, unit_id, offset_bytes, length_bytes),
        )

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        """See :meth:`ReadableArray.clone`."""
        return await self._call(CLONE, name, lambda: self._array.clone(ref, unit_id, name))

    async def discard(self, unit_id: UnitId) -> None:
        """See :meth:`ReadableArray.discard`."""
        await self._call(DISCARD, unit_id, lambda: self._array.discard(unit_id))

    async def _call(
        self, operation: str, subject: str, call: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        if self._epoch != self._front.epoch:
            try:
                await self.log_in()
            except DidNotHappenError as error:
                reason = f"no session could be opened: {error.reason}"
                raise DidNotHappenError(operation, subject, reason) from error
        return await self._answer(operation, subject, call)

    async def _answer(
        self, operation: str, subject: str, call: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._front.ask(operation, subject, call)
        except TimeoutError:
            reason = f"there was no answer within {CALL_TIMEOUT_S:g} s"
            raise UnknownOutcomeError(operation, subject, reason) from None
        except ConnectionResetError:
            reason = "the connection broke before the answer came"
            raise UnknownOutcomeError(operation, subject, reason) from None

    async def _open_session(self) -> None:
        await asyncio.sleep(LOGIN_S)
        self._epoch = self._front.epoch
