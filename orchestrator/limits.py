"""Places in several limits at once.

A create needs a place at its vCenter, its host and each of its datastores. Taking semaphores one
after the other would hold a vCenter place while waiting for a busy datastore, which starves every
other datastore; here a call takes all its places in one step or waits in the queue of the first
limit that is full. A queue is served in order of arrival over all limits.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from heapq import heappop, heappush

from .result import LimiterWaits


class Scope:
    """One limit on one object: at most ``capacity`` calls hold a place at once."""

    __slots__ = ("calls", "capacity", "free", "least_free", "name", "queue", "waits")

    def __init__(self, name: str, capacity: int, waits: LimiterWaits) -> None:
        self.name = name
        self.capacity = capacity
        self.free = self.least_free = capacity
        self.calls = 0
        self.queue: list[tuple[int, Waiter]] = []
        self.waits = waits


Scopes = tuple[Scope, ...]


class Waiter(ABC):
    """Somebody in line for a place in each of ``scopes``."""

    __slots__ = ("arrival", "full", "scopes", "since_s")

    arrival: int
    full: Scope
    """The limit that had no place when the waiter came."""
    since_s: float

    def __init__(self, scopes: Scopes) -> None:
        self.scopes = scopes

    @abstractmethod
    def gone(self) -> bool:
        """Whether the waiter no longer wants its places."""

    @abstractmethod
    def admit(self, waited_s: float) -> None:
        """Called once, when it has a place in each scope: it has to release them."""


class _Acquisition(Waiter):
    """A coroutine that waits in :meth:`Limiter.acquire`."""

    __slots__ = ("future",)

    def __init__(self, scopes: Scopes, future: asyncio.Future[float]) -> None:
        super().__init__(scopes)
        self.future = future

    def gone(self) -> bool:
        return self.future.done()

    def admit(self, waited_s: float) -> None:
        self.future.set_result(waited_s)


class Limiter:
    """All limits of one job.

    A scope's queue is non-empty only while the scope is full; everything below keeps that true.
    """

    def __init__(self) -> None:
        self._scopes: dict[tuple[str, str], Scope] = {}
        self._waits: dict[str, LimiterWaits] = {}
        self._arrivals = 0

    def scope(self, limit: str, object_id: str, capacity: int | None) -> Scope | None:
        """The scope of this limit on this object, made on first use; None when unlimited."""
        if capacity is None:
            return None
        key = (limit, object_id)
        scope = self._scopes.get(key)
        if scope is None:
            waits = self._waits.setdefault(limit, LimiterWaits(limit))
            scope = self._scopes[key] = Scope(f"{limit} {object_id}", capacity, waits)
        return scope

    def take(self, scopes: Scopes) -> bool:
        """Take a place in each scope if all have one now; True if so."""
        for scope in scopes:
            if scope.free <= 0:
                return False
        for scope in scopes:
            scope.calls += 1
            scope.free = free = scope.free - 1
            if free < scope.least_free:
                scope.least_free = free
        return True

    def line_up(self, waiter: Waiter) -> None:
        """Have a waiter admitted when there is a place; :meth:`take` has just found none."""
        self._arrivals += 1
        waiter.arrival = self._arrivals
        waiter.full = full = _first_full(waiter.scopes)
        waiter.since_s = asyncio.get_running_loop().time()
        heappush(full.queue, (waiter.arrival, waiter))

    async def acquire(self, scopes: Scopes) -> float:
        """Take a place in each scope; returns the seconds waited.

        A waiter that is cancelled takes nothing, also when its place came at the same moment.
        """
        if self.take(scopes):
            return 0.0
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.line_up(_Acquisition(scopes, future))
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():
                self.release(scopes)
            raise

    def release(self, scopes: Scopes) -> None:
        """Give the places back and let waiters in, the longest-waiting first."""
        for scope in scopes:
            scope.free += 1
        for scope in scopes:
            if scope.queue:
                self._admit(scope)

    def _admit(self, scope: Scope) -> None:
        queue = scope.queue
        while scope.free > 0 and queue:
            entry = heappop(queue)
            waiter = entry[1]
            if waiter.gone():
                continue
            if not self.take(waiter.scopes):
                heappush(_first_full(waiter.scopes).queue, entry)
                continue
            waits = waiter.full.waits
            waited_s = asyncio.get_running_loop().time() - waiter.since_s
            waits.waited += 1
            waits.total_s += waited_s
            if waited_s > waits.longest_s:
                waits.longest_s = waited_s
            waiter.admit(waited_s)

    def waits(self) -> list[LimiterWaits]:
        """How long calls waited, per limit, in order of first use."""
        for waits in self._waits.values():
            waits.calls = 0
        for scope in self._scopes.values():
            scope.waits.calls += scope.calls
        return list(self._waits.values())

    def peaks(self) -> dict[str, tuple[int, int]]:
        """Per scope the most places ever taken at once, and its capacity."""
        return {
            scope.name: (scope.capacity - scope.least_free, scope.capacity)
            for scope in self._scopes.values()
        }


def _first_full(scopes: Scopes) -> Scope:
    for scope in scopes:
        if scope.free <= 0:
            return scope
    raise AssertionError("nobody lines up while there are places")
