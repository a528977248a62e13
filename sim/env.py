"""The SimPy environment under everything simulated."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any

import simpy
from simpy.core import BoundClass, EmptySchedule, StopSimulation
from simpy.events import NORMAL, AllOf, AnyOf, Event, Process, Timeout

from ..errors import StillframeError
from .timers import Alarm

# Below this the heap is not worth sweeping; above it, at most half of it is dead entries.
_SMALLEST_SWEEP = 2_000


class SimForbiddenError(StillframeError):
    """Simulated code asked for something that would make the run irreproducible or wrong."""


class SimTimeout(Timeout):
    """SimPy's timeout with the scheduling written out: one Python call less for each."""

    env: SimEnv

    def __init__(self, env: SimEnv, delay: float, value: object = None) -> None:
        if delay < 0:
            raise ValueError(f"a timeout cannot be {delay} s long")
        self.env = env
        self.callbacks = []
        self._value = value
        self._delay = delay
        self._ok = True
        if env._ties is None:
            heappush(env._queue, (env._now + delay, NORMAL, next(env._eid), self))
        else:
            env.schedule(self, NORMAL, delay)


class SimProcess(Process):
    """A process that passes on the very exception object that was raised.

    SimPy throws ``type(exc)(*exc.args)`` into whoever waits. That loses attributes, and turns an
    exception whose constructor takes anything else than its ``args`` into a TypeError.
    """

    def _resume(self, event: Event) -> None:
        env = self.env
        env._active_proc = self
        generator = self._generator
        while True:
            try:
                if event._ok:
                    event = generator.send(event._value)
                else:
                    event._defused = True
                    event = generator.throw(event._value)
            except StopIteration as stop:
                self._finish(True, stop.value)
                break
            except BaseException as exc:  # noqa: BLE001 - it becomes the outcome of the process
                self._finish(False, exc)
                break
            try:
                callbacks = event.callbacks
            except AttributeError:
                self._finish(False, _not_an_event(generator, event))
                break
            if callbacks is not None:
                callbacks.append(self._resume)
                self._target = event
                break
        env._active_proc = None

    def _finish(self, ok: bool, value: Any) -> None:
        self._ok = ok
        self._value = value
        self._target = None  # type: ignore[assignment]  # as SimPy leaves it
        self.env.schedule(self)


def _not_an_event(generator: Any, value: object) -> RuntimeError:
    name = getattr(generator, "__qualname__", repr(generator))
    return RuntimeError(f"process {name} yielded {value!r}, which is not an event")


class SimEnv(simpy.Environment):
    """A SimPy environment with original exceptions, cheap cancellable calls and seeded ties.

    Parameters
    ----------
    initial_time_s:
        Where the clock starts, in seconds.
    ties:
        When given, completions that fall on the same instant come in an order drawn from it
        instead of the order in which they were scheduled. That holds for what was scheduled
        with a delay; consequences within an instant (delay 0) keep their order, and SimPy's
        urgent events stay ahead of the others.
    """

    # SimPy binds these early only when they stand in the dictionary of the class itself; a
    # subclass that does not repeat them pays for a descriptor call on every event.
    if TYPE_CHECKING:
        now: float

        def timeout(self, delay: float = 0, value: Any | None = None) -> Timeout: ...
    else:
        process = BoundClass(SimProcess)
        timeout = BoundClass(SimTimeout)
        event = BoundClass(Event)
        all_of = BoundClass(AllOf)
        any_of = BoundClass(AnyOf)
        # SimPy's property, without a call in Python: a model asks for the time at every step.
        now = property(attrgetter("_now"))

    def __init__(self, initial_time_s: float = 0.0, *, ties: random.Random | None = None) -> None:
        # A float, because asyncio promises that loop.time() is one.
        super().__init__(float(initial_time_s))
        self._ties = ties
        self._sweep_above = _SMALLEST_SWEEP
        self._driver: object | None = None

    def schedule(self, event: Event, priority: Any = NORMAL, delay: float = 0) -> None:
        """Put an event into the heap ``delay`` seconds from now."""
        if delay and self._ties is not None:
            priority += self._ties.random()
        heappush(self._queue, (self._now + delay, priority, next(self._eid), event))

    def after(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Alarm:
        """Call ``callback(*args)`` in ``delay_s`` seconds of virtual time; can be cancelled.

        The cheapest way to let time pass in a model: about half of a ``Timeout`` with a callback.

        Raises
        ------
        ValueError
            The delay is negative or not a number.
        """
        if not delay_s >= 0.0:
            raise ValueError(f"a call cannot be scheduled {delay_s} s ahead")
        alarm = Alarm()
        alarm.callbacks = callback
        alarm.args = args
        queue: list[Any] = self._queue
        if len(queue) > self._sweep_above:
            self.sweep()
        priority: float = NORMAL
        if self._ties is not None and delay_s:
            priority += self._ties.random()
        heappush(queue, (self._now + delay_s, priority, next(self._eid), alarm))
        return alarm

    def sweep(self) -> None:
        """Drop cancelled entries from the heap.

        It happens by itself whenever the heap has doubled since the last time, so that cancelled
        guards cost neither memory nor heap depth, and a cancellation costs nothing but a flag.
        """
        queue = self._queue
        queue[:] = [entry for entry in queue if entry[3].callbacks is not None]
        heapify(queue)
        self._sweep_above = max(_SMALLEST_SWEEP, 2 * len(queue))

    def drop_calls(
        self, wanted: Callable[[Callable[..., object], tuple[Any, ...]], bool]
    ) -> list[Callable[..., object]]:
        """Cancel the calls made with :meth:`after` for which ``wanted(callback, args)`` holds.

        Looks at everything that is scheduled, in O(n). Returns the callbacks, earliest first.
        """
        queue: list[Any] = self._queue
        alarms = [
            entry
            for entry in queue
            if type(entry[3]) is Alarm
            and entry[3].callbacks is not None
            and wanted(entry[3].callbacks, entry[3].args)
        ]
        dropped = [entry[3].callbacks for entry in sorted(alarms, key=itemgetter(0, 1, 2))]
        for entry in alarms:
            entry[3].cancel()
        return dropped

    def attach(self, driver: object) -> None:
        """Let an event loop drive this environment; only one can at a time.

        Raises
        ------
        SimForbiddenError
            Another event loop still drives it.
        """
        if self._driver is not None:
            raise SimForbiddenError(
                f"this environment is still driven by {self._driver!r}", "close that loop first"
            )
        self._driver = driver

    def driven_by(self, driver: object) -> bool:
        """Whether this event loop drives the environment."""
        return self._driver is driver

    def detach(self, leftovers: type) -> None:
        """Let go of the event loop, and drop its entries (of type ``leftovers``) from the heap."""
        self._queue[:] = [entry for entry in self._queue if type(entry[3]) is not leftovers]
        heapify(self._queue)
        self._driver = None

    def peek(self) -> float:
        """The time in seconds of the next entry that counts; infinity if there is none."""
        queue = self._queue
        while queue and queue[0][3].callbacks is None:
            heappop(queue)
        return super().peek()

    def step(self) -> None:
        """Process the next event without an event loop, as :meth:`simpy.Environment.run` does.

        Raises
        ------
        SimForbiddenError
            An event loop drives this environment, and would miss what happens here.
        """
        if self._driver is not None:
            raise SimForbiddenError(
                f"this environment is driven by {self._driver!r}",
                "let time pass with asyncio.sleep, or run the environment before the loop is made",
            )
        queue: list[Any] = self._queue
        while queue and queue[0][3].callbacks is None:
            heappop(queue)
        if not queue:
            raise EmptySchedule
        self._now, _, _, event = heappop(queue)
        callbacks, event.callbacks = event.callbacks, None
        if type(event) is Alarm:
            callbacks(*event.args)
            return
        remaining = iter(callbacks)
        try:
            for callback in remaining:
                callback(event)
        except StopSimulation:
            # run(until=event) ends inside the event; the rest of it happens in the next run().
            event.callbacks = list(remaining)
            self.schedule(event, -1)
            raise
        if not event._ok and not hasattr(event, "_defused"):
            raise event._value
