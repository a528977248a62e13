"""Between the two worlds: coroutines that wait for SimPy, and SimPy processes that run coroutines.

What a driver call costs is mostly how it waits. Measured in units of one bare SimPy process
timeout: ``await wait(env.timeout(...))`` in a coroutine costs about two, a SimPy process per call
about three. Cheapest is a chain of callbacks, made with :func:`after`, that ends in one future::

    def snapshot(self) -> asyncio.Future[str]:
        done = asyncio.get_running_loop().create_future()
        after(self.env, self.latency_s, resolve, done, "snapshot-1")
        return done
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

import simpy
from simpy.events import Event, Process
from simpy.resources.base import Get, Put
from simpy.resources.resource import Request

from .env import SimEnv, SimProcess, SimTimeout
from .loop import SimLoop

T = TypeVar("T")

# Events that hold nothing while they wait, so that abandoning them needs no clean-up.
_HOLDING_NOTHING = frozenset({SimTimeout, SimProcess, Event})

after = SimEnv.after
"""``after(env, delay_s, callback, *args)``: a cancellable call; see :meth:`SimEnv.after`."""


def resolve(future: asyncio.Future[T], value: T) -> None:
    """Set the result, unless whoever waited has gone."""
    if not future.done():
        future.set_result(value)


def reject(future: asyncio.Future[Any], exc: BaseException) -> None:
    """Set the exception, unless whoever waited has gone."""
    if not future.done():
        future.set_exception(exc)


def wait(event: Event) -> asyncio.Future[Any]:
    """Wait for a SimPy event in a coroutine: ``value = await wait(event)``.

    A failed event raises its own exception object. When the waiter is cancelled, the event is
    abandoned: its later failure is nobody's and does not end the run. A request of a resource is
    withdrawn, or released if it was granted in the meantime. What a granted ``get`` took out of a
    store or container goes to nobody then: between coroutines use ``asyncio.Queue``.

    A process is left running; use :func:`wait_process` to interrupt it.
    """
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if event.callbacks is None:
        _wake(future, event)
        return future
    event.callbacks.append(functools.partial(_wake, future))
    if type(event) not in _HOLDING_NOTHING and isinstance(event, (Put, Get)):
        future.add_done_callback(functools.partial(_withdraw, event))
    return future


def _wake(future: asyncio.Future[Any], event: Event) -> None:
    if not event._ok:
        event._defused = True
        reject(future, event._value)
    elif not future.done():
        future.set_result(event._value)


def _withdraw(event: Put[Any] | Get[Any], future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        return
    if not event.triggered:
        event.cancel()
    elif isinstance(event, Request):
        event.resource.release(event)


async def wait_process(process: Process) -> Any:
    """Wait for a SimPy process; cancelling the waiter interrupts the process."""
    try:
        return await wait(process)
    except asyncio.CancelledError:
        if process.is_alive:
            process.interrupt("cancelled")
        raise


def start(loop: SimLoop, coro: Coroutine[Any, Any, T]) -> Generator[Event, Any, T]:
    """Run a coroutine from a SimPy process: ``value = yield from start(loop, coro)``.

    What the coroutine raises is raised in the process; interrupting the process cancels the
    coroutine. A cancelled coroutine raises asyncio.CancelledError in the process.
    """
    event = Event(loop.env)
    task = loop.create_task(coro)
    task.add_done_callback(functools.partial(_finish, event))
    try:
        return (yield event)  # type: ignore[no-any-return]
    except simpy.Interrupt:
        task.cancel()
        raise


def _finish(event: Event, task: asyncio.Task[Any]) -> None:
    exc = asyncio.CancelledError() if task.cancelled() else task.exception()
    if exc is None:
        event.succeed(task.result())
        return
    event.fail(exc)  # type: ignore[arg-type]
    if not event.callbacks:
        event._defused = True  # the process was interrupted and no longer listens
