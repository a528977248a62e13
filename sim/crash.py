"""The sudden end of a process that runs on a simulated loop, and one that stands still for a while.

What runs on the environment beside the loop, the modelled systems, goes on: only the loop's own
timers and coroutines are its process's memory.

A process that is killed executes nothing more. Python cannot end a coroutine without running its
``finally`` blocks, so they run, in order of creation of their tasks, in a loop that does nothing
any more: what they schedule is dropped, and what they start is closed. That they have no effect
elsewhere is the caller's business: whatever reaches outside (drivers, journals, logs) has to refuse
a dead process; :class:`ProcessDeadError` is made for that.
"""

from __future__ import annotations

import asyncio
from asyncio import base_events, events
from collections.abc import Callable, Coroutine
from heapq import heapify
from typing import Any, NamedTuple, NoReturn

from .loop import SimLoop
from .timers import SimHandle, SimTimer

_MOST_AWAITS_ON_THE_WAY_OUT = 100
"""A coroutine may wait in its ``finally`` blocks as often as this; each wait is ended at once."""


class ProcessDeadError(BaseException):
    """Raised to code of a process that has been killed; not an ``Exception``, so that no handler
    of failures takes it for one."""


class Standstill(NamedTuple):
    """The timers of a loop that has been stopped, in the order in which they were due."""

    timers: tuple[tuple[float, SimTimer], ...]


def kill(loop: SimLoop) -> None:
    """End the process that ran on this loop; the environment can be driven by another one at once.

    The loop must not be running: let it run to its ``step_limit``, or stop it. It may be at a
    standstill. Nothing is reported of tasks that were pending or of failures nobody looked at.
    """
    pending = asyncio.all_tasks(loop)
    loop.set_exception_handler(_say_nothing)
    if not loop.is_closed():
        if loop.env.driven_by(loop):
            loop.close()
        else:
            base_events.BaseEventLoop.close(loop)
    _silence(loop)
    outer = events._get_running_loop()
    # Coroutines may ask for the loop on their way out.
    events._set_running_loop(loop)
    try:
        for task in sorted(pending, key=_number):
            _close(task.get_coro())
            # It never ends, and until it is collected whoever asks for tasks looks at it too.
            asyncio.tasks._unregister_task(task)
    finally:
        events._set_running_loop(outer)


def stand_still(loop: SimLoop) -> Standstill:
    """Take a loop off its environment as it is; what is answered meanwhile it learns afterwards.

    The loop must not be running. Let go on with :func:`go_on`, or end it with :func:`kill`.
    """
    queue: list[Any] = loop.env._queue
    waiting = sorted(entry for entry in queue if type(entry[3]) is SimTimer)
    loop.env.detach(SimTimer)
    return Standstill(tuple((entry[0], entry[3]) for entry in waiting))


def go_on(loop: SimLoop, standstill: Standstill) -> None:
    """Put a loop back onto its environment; timers that were missed are due now.

    Raises
    ------
    SimForbiddenError
        Another loop still drives the environment.
    """
    env = loop.env
    env.attach(loop)
    now_s = env.now
    queue: list[Any] = env._queue
    for due_s, timer in standstill.timers:
        if timer.callbacks is not None:
            queue.append((max(due_s, now_s), 1, next(env._eid), timer))
    heapify(queue)


def _number(task: asyncio.Task[Any]) -> int:
    return getattr(task, "number", 0)


def _silence(loop: SimLoop) -> None:
    """Let the loop take whatever it is given and do nothing."""
    ignore: Any = _ignore_call
    loop.call_soon = loop.call_at = loop.call_later = ignore  # type: ignore[method-assign]
    refuse: Any = _refuse_task
    loop.create_task = refuse  # type: ignore[method-assign]


def _ignore_call(*_args: object, **_options: object) -> SimHandle:
    handle: SimHandle = SimHandle()
    handle.cancel()
    return handle


def _refuse_task(coro: Coroutine[Any, Any, Any], **_options: object) -> NoReturn:
    coro.close()
    raise ProcessDeadError("its process is dead")


def _say_nothing(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
    """A dead process reports nothing."""


def _close(coro: Any) -> None:
    close: Callable[[], None] = coro.close
    for _ in range(_MOST_AWAITS_ON_THE_WAY_OUT):
        try:
            close()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001, S112 - what dead code raises reaches nobody
            continue
        return
