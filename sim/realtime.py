"""Modelled parts beside live ones: a SimPy environment in step with a running asyncio loop.

:class:`RealTimeEnv` has the interface of :class:`~stillframe.sim.env.SimEnv`, so that models built
on that run unchanged; but its clock is the loop's, and one timer of the loop runs what is due. A
modelled array (:func:`open_modelled_array`) can so stand in for an array without a driver, beside
hypervisors that are real. What it answers comes from the model and says nothing about the data of
any real array: such a job protects nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from heapq import heappop
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator, model_validator
from simpy.core import BoundClass
from simpy.events import NORMAL, AllOf, AnyOf, Event, Timeout

from ..drivers.records import Array, StorageUnit
from ..errors import InputError
from ..orchestrator.events import EventLog
from ..orchestrator.spec import Section
from ..topology.estate import load_estate
from ..topology.estate_names import default_id
from ..topology.estate_schema import UnitEntry
from ..topology.yamlfile import validate
from .array import ModelArray
from .array_profiles import ArrayProfile
from .draws import Draws
from .env import SimEnv, SimProcess
from .kept_array import KeptArray, KeptSnapshots
from .load import QuietUnits
from .series import Series
from .timers import Alarm

MOST_AT_ONCE = 1_000
"""Events of one instant that run before the loop may do something else (and see a Ctrl-C)."""


class RealTimeEnv(SimEnv):
    """A SimPy environment whose clock is that of the running event loop.

    Make it, and use it, in the thread of a running loop; every loop with ``time`` and ``call_at``
    will do. Events run in SimPy's order, all of one instant in one callback of the loop, so that
    whoever waits for an instant's events reacts before those of the next.

    While events run, the clock stands at the time for which they were scheduled, as in virtual
    time: a chain of delays does not grow by the loop's lateness. It never runs backwards: once
    somebody has read a later time from outside, late events happen at that time.

    An event that fails, with nobody waiting for it, and a call that raises are told to the loop's
    exception handler, and the other events go on.

    Raises
    ------
    RuntimeError
        No event loop is running.
    """

    # See SimEnv on why they are repeated. The timeout is SimPy's own: it is scheduled by a call.
    if not TYPE_CHECKING:
        process = BoundClass(SimProcess)
        timeout = BoundClass(Timeout)
        event = BoundClass(Event)
        all_of = BoundClass(AllOf)
        any_of = BoundClass(AnyOf)

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._in_event = False
        self._closed = False
        self._reached_s = 0.0
        super().__init__(self._loop.time())
        # Whoever would run it by hand, or drive it with another loop, is refused.
        self.attach(self)

    @property
    def _now(self) -> float:
        if not self._in_event:
            self._reached_s = max(self._reached_s, self._loop.time())
        return self._reached_s

    @_now.setter
    def _now(self, value: float) -> None:
        self._reached_s = value

    def schedule(self, event: Event, priority: Any = NORMAL, delay: float = 0) -> None:
        """Put an event into the heap ``delay`` seconds from now."""
        super().schedule(event, priority, delay)
        self._arm()

    def after(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Alarm:
        """Call ``callback(*args)`` in ``delay_s`` seconds; see :meth:`SimEnv.after`."""
        alarm = super().after(delay_s, callback, *args)
        self._arm()
        return alarm

    def close(self) -> None:
        """Stop: nothing that is scheduled happens any more, now or later."""
        self._closed = True
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        """Have the loop call when the first event is due; an earlier call than needed is kept."""
        if self._in_event or self._closed:
            return
        due_s = self.peek()
        if due_s == float("inf") or (self._timer is not None and self._timer.when() <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._run_due)

    def _run_due(self) -> None:
        """Run the events of the first instant that is due, then wait for the next."""
        timer, self._timer = self._timer, None
        # A loop may call a timer early by the resolution of its clock.
        now_s = max(self._loop.time(), timer.when() if timer is not None else 0.0)
        due_s = self.peek()
        if due_s > now_s:  # the entry for which the timer was set has been cancelled
            self._arm()
            return
        self._reached_s = instant_s = max(self._reached_s, due_s)
        self._in_event = True
        try:
            for _ in range(MOST_AT_ONCE):
                if self.peek() > instant_s:
                    break
                self._run_one(heappop(self._queue)[3])
        finally:
            self._in_event = False
            self._arm()

    def _run_one(self, event: Any) -> None:
        callbacks, event.callbacks = event.callbacks, None
        if type(event) is Alarm:
            self._call(event, callbacks, *event.args)
            return
        for callback in callbacks:
            self._call(event, callback, event)
        if not event._ok and not hasattr(event, "_defused"):
            self._failed(event, event._value)

    def _call(self, event: object, callback: Callable[..., object], *args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:  # noqa: BLE001  # the loop's handler decides, as for its own
            self._failed(event, error)

    def _failed(self, event: object, error: BaseException) -> None:
        message = f"A modelled event failed at t={self._reached_s} s: {event!r}"
        self._loop.call_exception_handler({"message": message, "exception": error})


class ModelledArraySettings(Section):
    """The settings of driver ``modelled-array`` in a live configuration.

    Attributes
    ----------
    profile:
        A named profile of :mod:`stillframe.sim.array_profiles`, or one with numbers replaced:
        ``{profile: cow-hybrid, snapshot_base: 2 s}``.
    units:
        What lies on the array, written as in an estate file; the devices decide which datastores
        it takes to be its own.
    estate:
        An estate file from which the units are taken instead.
    array:
        Which array of that file; default: the one with the identifier of the configuration.
    seed:
        Drives the model's jitter and faults.
    state_file:
        Where it keeps its snapshots, so that they outlive the process as those of a real array
        do; default: nowhere.
    """

    profile: ArrayProfile = ArrayProfile()
    units: tuple[UnitEntry, ...] | None = None
    estate: str | None = None
    array: str | None = None
    seed: Annotated[int, Field(ge=0)] = 1
    state_file: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("profile", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"profile": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> ModelledArraySettings:
        if (self.units is None) == (self.estate is None):
            raise ValueError("give either units or estate: a modelled array has to know its units")
        if self.array is not None and self.estate is None:
            raise ValueError("array names one of an estate file, but no estate is given")
        return self


@asynccontextmanager
async def open_modelled_array(
    system_id: str, settings: Mapping[str, Any]
) -> AsyncIterator[ModelArray]:
    """A modelled array in real time, to stand in for one that has no driver (yet).

    This is a model: it takes the time that its profile says, keeps its snapshots in this process
    (or in a file) and holds no data. No guest's writes reach it, so its snapshots take no space. A
    job in which it takes part measures the hypervisor's side and rehearses the array's; what it
    catalogues cannot be restored.

    Parameters
    ----------
    system_id:
        The array's identifier in the job.
    settings:
        See :class:`ModelledArraySettings`; sizes and times carry their units.

    Raises
    ------
    InputError
        The settings, the estate file or the state file cannot be used.
    """
    chosen = validate(ModelledArraySettings, dict(settings), system_id)
    array, units = _array_and_units(system_id, chosen)
    with ExitStack() as stack:
        kept = None
        if chosen.state_file is not None:
            kept = stack.enter_context(KeptSnapshots(Path(chosen.state_file), system_id))
        env = RealTimeEnv()
        stack.callback(env.close)
        parts = (chosen.profile, Draws(chosen.seed), EventLog(), QuietUnits(), Series())
        if kept is not None:
            yield KeptArray(kept, env, array, units, *parts)
        else:
            yield ModelArray(env, array, units, *parts)


def _array_and_units(
    system_id: str, settings: ModelledArraySettings
) -> tuple[Array, list[StorageUnit]]:
    if settings.units is not None:
        entries = settings.units
        ids = [entry.id or default_id(system_id, entry.name) for entry in entries]
        for number, unit_id in enumerate(ids):
            if unit_id in ids[:number]:
                field = f"units[{number}]"
                raise InputError(system_id, field, f"id {unit_id!r} is that of another unit")
        return Array(system_id, system_id), [
            StorageUnit(unit_id, system_id, entry.name, entry.kind, entry.capacity, entry.devices)
            for unit_id, entry in zip(ids, entries, strict=True)
        ]
    estate = load_estate(settings.estate or "")
    wanted = settings.array or system_id
    found = [array for array in estate.arrays if wanted in (array.id, array.name)]
    if len(found) != 1:
        known = ", ".join(array.id for array in estate.arrays) or "none"
        problem = f"{settings.estate} has no array {wanted!r}"
        if found:
            problem = f"{settings.estate} has {len(found)} arrays called {wanted!r}"
        raise InputError(system_id, "array", problem, f"its arrays are {known}")
    units = [unit for unit in estate.units if unit.array_id == found[0].id]
    return replace(found[0], id=system_id), [replace(unit, array_id=system_id) for unit in units]
