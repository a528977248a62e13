"""Blocking calls from asyncio: the driver's threads, and what their failures mean.

A caller who is cancelled stops waiting; his call goes on in its thread. So who asks whether a VM
is idle must be told of calls that nobody waits for any more, and of calls that were lost on the
way and may still arrive.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from . import vsphere_faults as faults
from .errors import DidNotHappenError, UnknownOutcomeError
from .records import VmId
from .vsphere_session import Session
from .vsphere_wire import LOST_ANSWER, MethodFault, NotSentError, Stub

T = TypeVar("T")


class Calls:
    """Runs the blocking calls of one vCenter.

    Parameters
    ----------
    executor:
        Its threads; not more than the session has connections.
    lost_call_grace_s:
        Seconds after a lost call for which it may still arrive.
    """

    def __init__(
        self, session: Session, executor: ThreadPoolExecutor, lost_call_grace_s: float
    ) -> None:
        self._session = session
        self._executor = executor
        self._grace_s = lost_call_grace_s
        self._lock = threading.Lock()
        self._in_flight: Counter[VmId] = Counter()
        self._lost_s: dict[VmId, float] = {}

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run in a thread; raises what the function raises."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    async def read(self, operation: str, subject: str, function: Callable[..., T], *args: Any) -> T:
        """Run something that changes nothing; whatever goes wrong with it, nothing happened.

        Raises
        ------
        DriverError
            A DidNotHappenError or a NeverWillError.
        """
        return await self.translated(operation, subject, self.run(function, *args))

    async def translated(self, operation: str, subject: str, answer: Awaitable[T]) -> T:
        """The answer to a read, its failures translated as :meth:`read` does."""
        try:
            return await answer
        except MethodFault as error:
            raise faults.refused(operation, subject, faults.from_exception(error)) from error
        except (NotSentError, *LOST_ANSWER) as error:
            reason = f"{self._session.subject} did not answer: {error or type(error).__name__}"
            raise DidNotHappenError(operation, subject, reason) from error

    async def start(self, operation: str, vm_id: VmId, call: Callable[[Stub], Any]) -> str:
        """Call a method that makes a task; returns the task's identifier. Never repeated.

        Raises
        ------
        UnknownOutcomeError
            The call was sent, and its answer was lost.
        DriverError
            Of another kind: the call was refused or not sent, and nothing happened.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            self._in_flight[vm_id] += 1
        future = self._executor.submit(lambda: str(self._session.call(call)._moId))
        # Called in the thread, whether or not anybody still waits for the answer.
        future.add_done_callback(lambda done: self._returned(vm_id, done, loop.time()))
        try:
            return await asyncio.wrap_future(future)
        except MethodFault as error:
            raise faults.refused(operation, vm_id, faults.from_exception(error)) from error
        except NotSentError as error:
            reason = f"{self._session.subject} cannot be reached: {error}"
            raise DidNotHappenError(operation, vm_id, reason) from error
        except LOST_ANSWER as error:
            reason = f"the answer to the call was lost: {error or type(error).__name__}"
            raise UnknownOutcomeError(operation, vm_id, reason) from error

    def _returned(self, vm_id: VmId, done: Future[str], now_s: float) -> None:
        error = None if done.cancelled() else done.exception()
        with self._lock:
            self._in_flight[vm_id] -= 1
            if isinstance(error, LOST_ANSWER) and not isinstance(error, MethodFault):
                self._lost_s[vm_id] = now_s

    def under_way(self, vm_id: VmId, now_s: float) -> bool | None:
        """Whether a call to this VM is in flight; None when one was lost and may still arrive."""
        with self._lock:
            if self._in_flight[vm_id] > 0:
                return True
            lost_s = self._lost_s.get(vm_id)
            if lost_s is None:
                return False
            if now_s - lost_s < self._grace_s:
                return None
            del self._lost_s[vm_id]
            return False
