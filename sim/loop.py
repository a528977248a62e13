"""An asyncio event loop whose clock and scheduler are a SimPy environment.

Code written for asyncio runs on it unchanged, in virtual time, beside SimPy processes; nothing in
that code can tell. Every run with the same inputs takes the same steps in the same order, in any
process and under any ``PYTHONHASHSEED``.

One instant is worked off in rounds. A round is

1. everything in SimPy's heap that is due now, in SimPy's order (priority, then order of
   scheduling), including what it causes at this same instant; a timer of the loop that is due
   joins the queue of ready callbacks at its place in that order;
2. one batch of ready callbacks: those that were ready when the batch began, first in first out.

Rounds repeat until nothing is ready, and only then the clock moves. This is asyncio's own
iteration with "poll the operating system" replaced by "work off the model's events", so asyncio's
promises carry over: timers with equal deadlines are all due before any task that they wake runs,
and neither side can starve the other at one instant.

What no event loop can make repeatable, and simulated code must not use: wall clocks, the global
random generator, ``uuid4``, iteration over sets of strings or of objects hashed by address, and
finalisers run by the garbage collector. One order is asyncio's alone: ``asyncio.Runner.close``
cancels the tasks that are left in the order of a set, which is that of their creation except when
their numbers collide in its hash table; end the tasks you start.
"""

from __future__ import annotations

import asyncio
import functools
import random
import threading
from asyncio import base_events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from simpy.events import NORMAL

from ..errors import StillframeError
from .env import SimEnv, SimForbiddenError
from .refused import RefusedCalls
from .tasks import NO_NAME, SimTask, describe_pending
from .timers import Alarm, SimHandle, SimTimer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_new_task = SimTask.__new__
_init_task = SimTask.__init__

_NEVER = float("inf")


class SimDeadlockError(StillframeError):
    """Nothing is scheduled any more, and somebody still waits.

    A model process that repeats for ever hides a deadlock, because something is always scheduled:
    give such a run a horizon, an :meth:`SimEnv.after` whose callback raises.
    """


class SimLivelockError(StillframeError):
    """The run goes on at one instant without the clock ever moving."""


class SimStepLimitError(StillframeError):
    """The run was stopped at the step that it was asked to stop at."""


class SimLoop(RefusedCalls, base_events.BaseEventLoop):
    """An event loop in the virtual time of a SimPy environment.

    Use it with ``asyncio.Runner(loop_factory=lambda: SimLoop(env))``.

    Parameters
    ----------
    env:
        The environment to drive; a new one if None. One loop drives an environment at a time.
    ready_order:
        When given, each batch of ready callbacks runs in an order drawn from it: another legal
        interleaving of tasks for every seed. What asyncio promises and this gives up is the order
        of ``call_soon`` within a batch, and with it the order in which the done-callbacks of one
        future run. Kept: a callback never runs before the batch in which it would have run, none
        is lost, the steps of one task keep their order, and so does whatever asyncio keeps in
        queues of its own (waiters of locks, semaphores and queues).

    Attributes
    ----------
    livelock_steps:
        A step is one entry of the heap or one ready callback. After this many without the clock
        moving the run ends with SimLivelockError; it is noticed after at most twice as many.
    step_limit:
        When not None, the run ends with SimStepLimitError after exactly this many steps of the
        loop's life, and the limit is lifted so that cleaning up can go on. Set it before the run.
    """

    def __init__(
        self, env: SimEnv | None = None, *, ready_order: random.Random | None = None
    ) -> None:
        super().__init__()
        self.env = env if env is not None else SimEnv()
        self.livelock_steps = 2_000_000
        self.step_limit: int | None = None
        self._ready: deque[SimHandle | SimTimer]
        self._task_factory: Any
        self._thread_id: int | None
        self._stopping: bool
        self._order = ready_order
        self._tasks_made = 0
        self._home_thread = threading.get_ident()
        # Steps are granted in slices, and counted in _steps_run when a slice is settled.
        self._steps_run = self._callbacks_run = self._granted = 0
        self._stood_at: float | None = None
        self._stood_since = 0
        try:
            self.env.attach(self)
        except SimForbiddenError:
            super().close()  # or asyncio warns of a loop that nobody closed
            raise
        # asyncio's primitives make futures all the time: without a Python call in between.
        self.create_future = functools.partial(  # type: ignore[method-assign]
            asyncio.Future, loop=self
        )

    # The clock ------------------------------------------------------------------------------

    def time(self) -> float:
        """The virtual time in seconds."""
        return self.env._now

    # Scheduling: the hot path ---------------------------------------------------------------

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """Start a task; without a name it is called after its number within this loop."""
        if self._task_factory is not None:
            return super().create_task(coro, name=name, context=context, **options)
        self._tasks_made = number = self._tasks_made + 1
        label: Any = NO_NAME if name is None else name
        # Made in two steps: two thirds of the time of a constructor in Python.
        task = _new_task(SimTask)
        task.number = number
        if options:
            _init_task(task, coro, loop=self, name=label, context=context, **options)
        else:
            _init_task(task, coro, loop=self, name=label, context=context)
        return task

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> SimHandle:
        """Run the callback in the next batch."""
        handle: SimHandle = SimHandle()
        handle._callback = callback
        handle._args = args
        handle._context = copy_context() if context is None else context
        self._ready.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> SimTimer:
        """Run the callback at a virtual time in seconds; at once if that is past."""
        timer: SimTimer = SimTimer()
        timer._when = when
        timer._callback = callback
        timer._args = args
        timer._context = copy_context() if context is None else context
        timer.callbacks = ()
        env = self.env
        queue: list[Any] = env._queue
        if len(queue) > env._sweep_above:
            env.sweep()
        now = env._now
        heappush(queue, (when if when > now else now, NORMAL, next(env._eid), timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> SimTimer:
        """Run the callback in ``delay`` seconds of virtual time."""
        # call_at written out: every asyncio.sleep comes through here.
        env = self.env
        now = env._now
        when = now + delay
        timer: SimTimer = SimTimer()
        timer._when = when
        timer._callback = callback
        timer._args = args
        timer._context = copy_context() if context is None else context
        timer.callbacks = ()
        queue: list[Any] = env._queue
        if len(queue) > env._sweep_above:
            env.sweep()
        heappush(queue, (when if when > now else now, NORMAL, next(env._eid), timer))
        return timer

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> SimHandle:
        """:meth:`call_soon`, from this loop's own thread only.

        Raises
        ------
        SimForbiddenError
            Called from another thread.
        """
        running_in = self._thread_id
        if threading.get_ident() != (running_in or self._home_thread):
            raise SimForbiddenError(
                "a call from another thread is refused on a simulated event loop",
                "when it arrives would depend on the machine",
            )
        return self.call_soon(callback, *args, context=context)

    def _run_once(self) -> None:
        # BaseEventLoop calls this until it is stopped; one call here lasts until then. Long,
        # because each function call saved in it is saved once per event of a run.
        ready = self._ready
        popleft, push = ready.popleft, ready.append
        env = self.env
        queue: list[Any] = env._queue
        order = self._order
        left = batches = 0
        self._stood_at = None
        try:
            while True:
                if not ready and not self._stopping:
                    # Never to a cancelled entry: a guard that nobody waits for takes no time.
                    while queue and queue[0][3].callbacks is None:
                        heappop(queue)
                    if not queue or queue[0][0] == _NEVER:
                        raise self._deadlock()
                    env._now = queue[0][0]

                now = env._now
                while queue and queue[0][0] <= now:
                    if not left:
                        left, _ = self._grant(0, 1)
                    left -= 1
                    event = heappop(queue)[3]
                    kind = type(event)
                    if kind is SimTimer:
                        push(event)
                        continue
                    callbacks = event.callbacks
                    event.callbacks = None
                    if kind is Alarm:
                        if callbacks is not None:
                            callbacks(*event.args)
                        continue
                    for callback in callbacks:
                        callback(event)
                    if not event._ok and not hasattr(event, "_defused"):
                        raise event._value  # the very object; SimPy would raise a copy

                batch = len(ready)
                if batch > left:
                    left, batch = self._grant(left, batch)
                left -= batch
                batches += batch
                if order is not None and batch > 1:
                    self._permute(order)
                for _ in range(batch):
                    handle = popleft()
                    run = handle._callback
                    if run is None:
                        continue
                    args = handle._args
                    try:
                        # Unpacking a tuple into a call costs as much as the call itself.
                        if not args:
                            handle._context.run(run)
                        elif len(args) == 1:
                            handle._context.run(run, args[0])
                        else:
                            handle._context.run(run, *args)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as exc:  # noqa: BLE001 - goes to the exception handler
                        self._callback_failed(handle, exc)
                if self._stopping:
                    return
        finally:
            self._steps_run += self._granted - left
            self._callbacks_run += batches
            self._granted = 0

    # Steps, limits and what goes wrong --------------------------------------------------------

    @property
    def steps_run(self) -> int:
        """Heap entries and ready callbacks worked off; up to date while the loop is not running."""
        return self._steps_run

    @property
    def callbacks_run(self) -> int:
        """Ready callbacks worked off, cancelled ones included; up to date between runs."""
        return self._callbacks_run

    @property
    def events_run(self) -> int:
        """Heap entries worked off: events, alarms and the loop's timers; up to date between runs.

        SimPy's heap also holds the loop's timers, so a sleep counts as one event and one callback.
        """
        return self._steps_run - self._callbacks_run

    def _grant(self, left: int, wanted: int) -> tuple[int, int]:
        # Settles a slice of steps and grants the next, of which it returns the size and how much
        # of ``wanted`` may run. Checking once per slice leaves the hot path a countdown.
        self._steps_run += self._granted - left
        self._granted = 0
        now = self.env._now
        if now != self._stood_at:
            self._stood_at, self._stood_since = now, self._steps_run
        stood = self._steps_run - self._stood_since
        if stood and stood + wanted > self.livelock_steps:
            raise SimLivelockError(
                f"{self.livelock_steps} steps at t={now} s without the clock moving",
                describe_pending(self, "look for a wait that takes no time"),
            )
        allowed = max(self.livelock_steps, wanted)
        if self.step_limit is not None:
            allowed = min(allowed, self.step_limit - self._steps_run)
            if allowed <= 0:
                self.step_limit = None
                raise SimStepLimitError(f"stopped after {self._steps_run} steps at t={now} s")
        self._granted = allowed
        return allowed, min(wanted, allowed)

    def _permute(self, order: random.Random) -> None:
        batch = list(self._ready)
        self._ready.clear()
        order.shuffle(batch)
        self._ready.extend(batch)

    def _callback_failed(self, handle: asyncio.Handle, exc: BaseException) -> None:
        message = f"Exception in callback {handle!r}"
        self.call_exception_handler({"message": message, "exception": exc, "handle": handle})

    def _deadlock(self) -> SimDeadlockError:
        return SimDeadlockError(
            f"nothing is scheduled after t={self.time()} s",
            describe_pending(self, "nobody can wake them"),
        )

    # The end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the loop and take its timers out of the environment, which can then go on."""
        if not self.is_closed():
            super().close()
            if self.env.driven_by(self):  # a loop that stands still has been taken off already
                self.env.detach(SimTimer)
            # Refusing from here on must not cost an open loop a check per call.
            refuse: Any = self._refuse_closed
            self.call_soon = self.call_at = self.call_later = refuse  # type: ignore[method-assign]
            self.create_task = refuse  # type: ignore[method-assign]

    def _refuse_closed(self, *_args: object, **_options: object) -> NoReturn:
        raise RuntimeError("Event loop is closed")

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do: there is no executor."""

    def _write_to_self(self) -> None:
        """Nothing to wake up: no poll is ever under way."""

    def _process_events(self, event_list: Any) -> None:
        """Nothing comes from outside."""
