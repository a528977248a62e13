"""Waiting for vCenter tasks: one request per interval for all that are open.

A thread for each task that polls it costs a request each time; a vCenter's update channel keeps a
connection open and costs it work for every object in the filter. One read of a few named
properties of all open tasks costs neither, and is answered from memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from xml.etree.ElementTree import Element

from .contracts import Window
from .errors import DriverError
from .vsphere_faults import Fault, from_task
from .vsphere_properties import Found, Step, Wanted, read_from, read_objects
from .vsphere_session import Session
from .vsphere_wire import text

_PATHS = (
    "info.state",
    "info.error",
    "info.result",
    "info.queueTime",
    "info.startTime",
    "info.completeTime",
)
_BATCH = 2000
"""Tasks in one request: more than a vCenter runs at a time, and half a megabyte."""
_OPEN = ("queued", "running")


class TaskEnd(NamedTuple):
    """How a task ended.

    Attributes
    ----------
    fault:
        Why it failed; None when it succeeded.
    result:
        The identifier of what it made; empty if none.
    started_s, completed_s:
        Seconds from when the server queued it, on the server's clock; None where not said.
    """

    fault: Fault | None
    result: str
    started_s: float | None
    completed_s: float | None


class TaskLostError(Exception):
    """Nobody can say any more how the task ended."""


Read = Callable[[Sequence[str]], Awaitable[Mapping[str, TaskEnd | None]]]
"""Asked for open tasks: those that exist, with their end if they have ended."""


class TaskPoller:
    """Watches the open tasks of one vCenter.

    Parameters
    ----------
    read:
        Looks at all of them at once.
    interval_s:
        Seconds between two looks.
    outage_s:
        Seconds without any answer after which the open tasks are given up.
    """

    def __init__(self, read: Read, interval_s: float, outage_s: float) -> None:
        self._read = read
        self._interval_s = interval_s
        self._outage_s = outage_s
        self._open: dict[str, asyncio.Future[TaskEnd]] = {}
        self._poller: asyncio.Task[None] | None = None

    @property
    def open(self) -> int:
        """Tasks that are being watched."""
        return len(self._open)

    async def wait(self, task_id: str) -> TaskEnd:
        """The end of this task.

        Raises
        ------
        TaskLostError
            The vCenter has forgotten it, or has not answered for too long.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[TaskEnd] = loop.create_future()
        self._open[task_id] = future
        if self._poller is None or self._poller.done():
            self._poller = loop.create_task(self._poll())
            self._poller.add_done_callback(self._stopped)
        try:
            return await future
        finally:
            self._open.pop(task_id, None)

    async def close(self) -> None:
        """Stop looking; whoever still waits is told that nobody knows."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait([self._poller])
        self._fail("the session was closed")

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        answered_s = loop.time()
        while True:
            await asyncio.sleep(self._interval_s)
            asked = list(self._open)
            if not asked:
                return
            try:
                seen = await self._read(asked)
            except DriverError as error:
                if loop.time() - answered_s >= self._outage_s:
                    self._fail(f"the vCenter has not answered since: {error.reason}")
                    return
                continue
            answered_s = loop.time()
            for task_id in asked:
                self._settle(task_id, seen)

    def _stopped(self, poller: asyncio.Task[None]) -> None:
        """Nobody must wait for a poller that has broken down."""
        if not poller.cancelled() and (error := poller.exception()) is not None:
            self._fail(f"reading the tasks failed: {error!r}")

    def _settle(self, task_id: str, seen: Mapping[str, TaskEnd | None]) -> None:
        future = self._open.get(task_id)
        if future is None or future.done():
            return
        if task_id not in seen:
            future.set_exception(TaskLostError("the vCenter no longer knows the task"))
            return
        end = seen[task_id]
        if end is not None:
            future.set_result(end)

    def _fail(self, reason: str) -> None:
        for future in self._open.values():
            if not future.done():
                future.set_exception(TaskLostError(reason))


def read_tasks(session: Session, task_ids: Sequence[str]) -> dict[str, TaskEnd | None]:
    """The tasks that exist, with their end if they have ended (blocks)."""
    found = read_objects(session, [Wanted("Task", _PATHS)], task_ids, batch=_BATCH)
    return {one.id: _end(one) for one in found}


def _end(task: Found) -> TaskEnd | None:
    state = task.text("info.state")
    if state in _OPEN:
        return None
    queued = _seconds(task.values.get("info.queueTime"))
    error = task.values.get("info.error")
    fault = None
    if state != "success":
        fault = Fault(("unnamed fault",), state) if error is None else from_task(error)
    return TaskEnd(
        fault,
        task.text("info.result"),
        _after(queued, _seconds(task.values.get("info.startTime"))),
        _after(queued, _seconds(task.values.get("info.completeTime"))),
    )


def _seconds(value: Element | None) -> float | None:
    if value is None:
        return None
    try:
        return datetime.fromisoformat(text(value)).timestamp()
    except ValueError:
        return None


def _after(start_s: float | None, end_s: float | None) -> float | None:
    if start_s is None or end_s is None or end_s < start_s:
        return None
    return end_s - start_s


def busy_entities(session: Session) -> frozenset[str]:
    """The objects on which a task is queued or under way, as far as the user may see (blocks)."""
    root = Step("TaskManager", "recentTask")
    recent = read_from(session, root, session.content.task_manager, Wanted("Task", ("info.state",)))
    for one in recent:
        one.check()
    under_way = [one.id for one in recent if one.text("info.state") in _OPEN]
    entities = read_objects(session, [Wanted("Task", ("info.entity",))], under_way)
    return frozenset(one.text("info.entity") for one in entities)


def run_window(end: TaskEnd, sent_s: float, made_s: float, seen_s: float) -> Window:
    """The task's run time on the loop's clock, widened by what is not known about it.

    The server's clock tells how long after it was queued a task started and ended. It was queued
    between ``sent_s`` (the call went out) and ``made_s`` (its answer was there).
    """
    start_s = sent_s + (end.started_s or 0.0)
    end_s = seen_s if end.completed_s is None else min(seen_s, made_s + end.completed_s)
    return Window(min(start_s, end_s), end_s, exact=False)
