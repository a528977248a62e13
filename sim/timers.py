"""Things that wait in the event heap without being SimPy events.

A SimPy ``Timeout`` cannot be cancelled, and carries a list, a value and a dictionary. Most timers
of a run are guards that never go off, so the ones here are small and can be cancelled. They have no
``__init__`` of their own: the few places that make them set the slots themselves, which takes two
thirds of the time of a constructor call.

Whatever lies in the heap has an attribute ``callbacks``, as SimPy's events do. It is None once the
entry no longer counts; that is the one test by which a dead entry is recognised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any


class Alarm:
    """One call in the model's future, as made by :meth:`~stillframe.sim.env.SimEnv.after`.

    It runs in the model's half of an instant, in heap order: exactly where the callback of a
    ``Timeout`` made at the same moment would run. What the call raises ends the run.
    """

    __slots__ = ("args", "callbacks")

    callbacks: Callable[..., object] | None
    args: tuple[Any, ...]

    def cancel(self) -> None:
        """Make sure that the call does not happen; harmless when it already has."""
        self.callbacks = None
        self.args = ()

    @property
    def pending(self) -> bool:
        """The call has neither happened nor been cancelled."""
        return self.callbacks is not None

    def __repr__(self) -> str:
        return f"<Alarm {self.callbacks!r}>" if self.pending else "<Alarm done>"


class SimHandle(asyncio.Handle):
    """A callback in the loop's ready queue; cancelled when ``_callback`` is None."""

    __slots__ = ()

    _callback: Callable[..., object] | None
    _args: tuple[Any, ...]
    _context: Context
    # asyncio.Handle's constructor must not run: SimLoop sets the three slots.
    __init__ = object.__init__

    def cancel(self) -> None:
        """Make sure that the callback does not run."""
        self._callback = None
        self._args = ()

    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._callback is None

    def __repr__(self) -> str:
        return f"<SimHandle {self._callback!r}>" if self._callback else "<SimHandle cancelled>"


class SimTimer(asyncio.TimerHandle):
    """A callback of the loop at a time; lies in the heap beside the model's events."""

    __slots__ = ("callbacks",)

    callbacks: tuple[()] | None
    _callback: Callable[..., object] | None
    _args: tuple[Any, ...]
    _context: Context
    _when: float
    __init__ = object.__init__
    # Equal by identity: two timers for the same call at the same time are two timers.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def cancel(self) -> None:
        """Make sure that the callback does not run; the heap drops the entry later."""
        self._callback = self.callbacks = None
        self._args = ()

    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._callback is None

    def when(self) -> float:
        """The virtual time in seconds at which the callback is due."""
        return self._when

    def __repr__(self) -> str:
        what = repr(self._callback) if self._callback else "cancelled"
        return f"<SimTimer {what} at {self._when}>"
