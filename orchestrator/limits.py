"""Places in several limits at once.

A create needs a place at its vCenter, its host and each of its datastores. Taking semaphores one
after the other would hold a vCenter place while waiting for a busy datastore, which starves every
other datastore; here a call takes all its places in one step or waits in the queue of the first
limit that is full. A queue is served in order of arrival over all limits.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush

from .result import LimiterWaits


class Scope:
    """One limit on one object: at most ``capacity`` calls hold a place at once."""

    __slots__ = ("capacity", "free", "name", "peak", "queue", "waits")

    def __init__(self, name: str, capacity: int, waits: LimiterWaits) -> None:
        self.name = name
        self.capacity = capacity
        self.free = capacity
        self.peak = 0
        self.queue: list[tuple[int, _Waiter]] = []
        self.waits = waits


Scopes = tuple[Scope, ...]


class _Waiter:
    __slots__ = ("arrival", "future", "scopes")

    def __init__(self, arrival: int, scopes: Scopes, future: asyncio.Future[None]) -> None:
        self.arrival = arrival
        self.scopes = scopes
        self.future = future


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
        """Take a place in each scope if all have one now; True if so.

        What :meth:`acquire` begins with; calling it first spares a coroutine in the common case.
        """
        if _first_full(scopes) is not None:
            return False
        for scope in scopes:
            _take(scope)
            scope.waits.calls += 1
        return True

    async def acquire(self, scopes: Scopes) -> float:
        """Take a place in each scope; returns the seconds waited.

        A waiter that is cancelled takes nothing, also when its place came at the same moment.
        """
        full = _first_full(scopes)
        if full is None:
            self.take(scopes)
            return 0.0
        loop = asyncio.get_running_loop()
        self._arrivals += 1
        waiter = _Waiter(self._arrivals, scopes, loop.create_future())
        heappush(full.queue, (waiter.arrival, waiter))
        since_s = loop.time()
        try:
            await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled():
                self.release(scopes)
            raise
        waited_s = loop.time() - since_s
        for scope in scopes:
            scope.waits.calls += 1
        full.waits.waited += 1
        full.waits.total_s += waited_s
        full.waits.longest_s = max(full.waits.longest_s, waited_s)
        return waited_s

    def release(self, scopes: Scopes) -> None:
        """Give the places back and let waiters in, the longest-waiting first."""
        for scope in scopes:
            scope.free += 1
        for scope in scopes:
            if scope.queue:
                _admit(scope)

    def waits(self) -> list[LimiterWaits]:
        """How long calls waited, per limit, in order of first use."""
        return list(self._waits.values())

    def peaks(self) -> dict[str, tuple[int, int]]:
        """Per scope the most places ever taken at once, and its capacity."""
        return {scope.name: (scope.peak, scope.capacity) for scope in self._scopes.values()}


def _first_full(scopes: Scopes) -> Scope | None:
    for scope in scopes:
        if scope.free <= 0:
            return scope
    return None


def _take(scope: Scope) -> None:
    scope.free -= 1
    taken = scope.capacity - scope.free
    if taken > scope.peak:
        scope.peak = taken


def _admit(scope: Scope) -> None:
    while scope.free > 0 and scope.queue:
        _, waiter = heappop(scope.queue)
        if waiter.future.done():
            continue
        full = _first_full(waiter.scopes)
        if full is not None:
            heappush(full.queue, (waiter.arrival, waiter))
            continue
        for taken in waiter.scopes:
            _take(taken)
        waiter.future.set_result(None)
