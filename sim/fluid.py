"""Shared bandwidth: equal-share processor sharing, computed instead of stepped.

All flows of a server run at one common rate ``r = min(cap, (capacity - background) / n)``. So one
clock is enough for all of them: the *virtual work* ``V``, the bytes that a flow which has always
been there would have got. A flow of ``w`` bytes that enters at ``V`` leaves when the clock shows
``V + w``, whatever comes and goes in between. Entering and leaving are heap operations, O(log n);
the server keeps a single timer for the flow that leaves next.

The model is the egalitarian processor sharing queue (Kleinrock, "Time-shared systems: a theoretical
treatment", J. ACM 14, 1967); its mean response time for Poisson arrivals, ``1 / (mu - lambda)``
for any distribution of work, is what the tests hold it against.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from operator import itemgetter

from .env import SimEnv
from .timers import Alarm

FLOW_FLOOR = 0.05
"""Share of the capacity that flows keep however much the background asks for (inference: arrays
and hypervisors throttle background and guest work against each other, neither starves)."""

_TOLERANCE_S = 1e-9
"""Flows that would leave within this time of now leave now."""

_REBASE_BYTES = 2.0**40
"""Beyond this the virtual clock is set back, so that it always resolves less than a byte."""


class Flow:
    """A transfer in progress; a handle for :meth:`FluidServer.cancel`."""

    __slots__ = ("_done", "_finish")

    def __init__(self, finish: float, done: Callable[[], None]) -> None:
        self._finish = finish
        self._done: Callable[[], None] | None = done

    @property
    def active(self) -> bool:
        """Whether the transfer is neither finished nor cancelled."""
        return self._done is not None


class FluidServer:
    """A resource that divides its bandwidth equally among the flows in progress.

    Parameters
    ----------
    env:
        The world's clock and queue of events.
    capacity_bytes_per_s:
        Bandwidth of the whole server, greater than 0.
    per_flow_bytes_per_s:
        The most that one flow can use; None when one flow can use everything.

    Raises
    ------
    ValueError
        A rate is not greater than 0.
    """

    __slots__ = (
        "_background",
        "_busy_s",
        "_cap",
        "_capacity",
        "_env",
        "_firing",
        "_flows",
        "_heap",
        "_rate",
        "_sequence",
        "_served",
        "_timer",
        "_timer_s",
        "_updated_s",
        "_virtual",
    )

    def __init__(
        self,
        env: SimEnv,
        capacity_bytes_per_s: float,
        per_flow_bytes_per_s: float | None = None,
    ) -> None:
        if not capacity_bytes_per_s > 0:
            raise ValueError(f"capacity {capacity_bytes_per_s!r} B/s is not greater than 0")
        if per_flow_bytes_per_s is not None and not per_flow_bytes_per_s > 0:
            raise ValueError(f"rate per flow {per_flow_bytes_per_s!r} B/s is not greater than 0")
        self._env = env
        self._capacity = float(capacity_bytes_per_s)
        self._cap = per_flow_bytes_per_s
        self._background = 0.0
        self._heap: list[tuple[float, int, Flow]] = []
        self._sequence = 0
        self._flows = 0
        self._virtual = 0.0
        self._rate = 0.0
        self._updated_s: float = env.now
        self._timer: Alarm | None = None
        self._timer_s = 0.0
        self._firing = False
        self._busy_s = 0.0
        self._served = 0.0

    def submit(self, work_bytes: float, done: Callable[[], None]) -> Flow:
        """Start a flow; ``done`` is called once, at the instant at which its work is finished.

        ``done`` is never called before this returns, not even when there is no work. It may submit
        and cancel flows. O(log n).

        Raises
        ------
        ValueError
            ``work_bytes`` is negative or not a number.
        """
        if not work_bytes >= 0:
            raise ValueError(f"work of {work_bytes!r} bytes is not a size")
        self._advance()
        if self._virtual > _REBASE_BYTES:
            self._rebase()
        flow = Flow(self._virtual + work_bytes, done)
        self._sequence += 1
        heappush(self._heap, (flow._finish, self._sequence, flow))
        self._flows += 1
        self._share()
        return flow

    def cancel(self, flow: Flow) -> None:
        """Take a flow out without calling its ``done``; a finished flow stays finished.

        The entry stays in the heap until it surfaces or until half of the heap is such entries:
        O(log n) amortised.
        """
        if flow._done is None:
            return
        self._advance()
        flow._done = None
        self._flows -= 1
        heap = self._heap
        if self._flows and len(heap) > 2 * self._flows + 16:
            heap[:] = [entry for entry in heap if entry[2]._done is not None]
            heapify(heap)
        self._share()

    def drop(self, wanted: Callable[[Callable[[], None]], bool]) -> list[Callable[[], None]]:
        """Cancel the flows for whose ``done`` ``wanted(done)`` holds; returns those, O(n)."""
        found = [
            (flow, flow._done)
            for _, _, flow in sorted(self._heap, key=itemgetter(1))
            if flow._done is not None and wanted(flow._done)
        ]
        for flow, _ in found:
            self.cancel(flow)
        return [done for _, done in found]

    def set_background(self, bytes_per_s: float) -> None:
        """Take this much of the capacity away from the flows, from now on; replaces the last value.

        Flows keep at least :data:`FLOW_FLOOR` of the capacity. O(1).

        Raises
        ------
        ValueError
            The rate is negative or not a number.
        """
        if not bytes_per_s >= 0:
            raise ValueError(f"background of {bytes_per_s!r} B/s is not a rate")
        if bytes_per_s != self._background:
            self._advance()
            self._background = float(bytes_per_s)
            self._share()

    @property
    def flows(self) -> int:
        """Flows in progress."""
        return self._flows

    @property
    def rate_bytes_per_s(self) -> float:
        """What each flow gets now; what a single flow would get when there is none."""
        return self._rate if self._flows else self._rate_for(1)

    @property
    def background_bytes_per_s(self) -> float:
        """The background as it was last set, before the flows' floor is applied."""
        return self._background

    @property
    def utilisation(self) -> float:
        """Share of the capacity in use now by flows and background together, 0 to 1."""
        return min(1.0, (self._flows * self._rate + self._background) / self._capacity)

    @property
    def busy_s(self) -> float:
        """Seconds so far in which there was at least one flow."""
        self._advance()
        return self._busy_s

    @property
    def done_bytes(self) -> float:
        """Bytes moved so far for all flows, those of unfinished and cancelled flows included."""
        self._advance()
        return self._served

    def remaining_bytes(self, flow: Flow) -> float:
        """What a flow still has to move; 0 when it is finished or cancelled."""
        if flow._done is None:
            return 0.0
        self._advance()
        return max(0.0, flow._finish - self._virtual)

    def _rate_for(self, flows: int) -> float:
        # Comparisons written out: with min() and max() this is the dearest line of a transfer.
        free, floor = self._capacity - self._background, FLOW_FLOOR * self._capacity
        share = (free if free > floor else floor) / flows
        cap = self._cap
        return share if cap is None or share < cap else cap

    def _advance(self) -> None:
        """Bring virtual clock and counters up to now; the rate was constant since the last time."""
        now_s = self._env.now
        if self._flows and now_s > self._updated_s:
            passed_s = now_s - self._updated_s
            gained = passed_s * self._rate
            self._virtual += gained
            self._served += gained * self._flows
            self._busy_s += passed_s
        self._updated_s = now_s

    def _share(self) -> None:
        """Divide the capacity anew and see to the timer; the clock is up to now."""
        if self._flows:
            self._rate = self._rate_for(self._flows)
        else:
            # An idle server forgets the past: V starts from 0 with full precision.
            self._rate = self._virtual = 0.0
            self._heap.clear()
        if not self._firing:
            self._arm()

    def _arm(self) -> None:
        heap = self._heap
        while heap and heap[0][2]._done is None:
            heappop(heap)
        if not heap:
            self._disarm()
            return
        left = heap[0][0] - self._virtual
        due_s = self._updated_s + (left if left > 0.0 else 0.0) / self._rate
        if self._timer is not None:
            # A timer that is too early is left: it looks again when it fires. An arrival, which
            # delays every other flow, thus costs no timer at all.
            if self._timer_s <= due_s:
                return
            self._disarm()
        self._timer_s = due_s
        self._timer = self._env.after(due_s - self._updated_s, self._fire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._advance()
        self._firing = True
        try:
            self._finish_due()
        finally:
            self._firing = False
        self._arm()

    def _finish_due(self) -> None:
        # Relative part: far from time 0 the clock itself resolves no better, and what is left
        # beyond its resolution could never be worked off.
        tolerance_s = _TOLERANCE_S + 1e-15 * self._updated_s
        heap = self._heap
        while heap:
            finish, _, flow = heap[0]
            done = flow._done
            if done is None:
                heappop(heap)
                continue
            if finish - self._virtual > tolerance_s * self._rate:
                return
            heappop(heap)
            flow._done = None
            self._flows -= 1
            self._share()
            done()

    def _rebase(self) -> None:
        """Subtract the virtual clock from everything; order is kept, ties by age are restored."""
        offset = self._virtual
        for _, _, flow in self._heap:
            flow._finish -= offset
        self._heap[:] = [(flow._finish, age, flow) for _, age, flow in self._heap]
        heapify(self._heap)
        self._virtual = 0.0
