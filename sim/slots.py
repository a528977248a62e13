"""First come, first served: places for tasks, and a lock with known holding times."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Slots:
    """A number of places; who finds none waits in line. Costs no event of its own.

    Parameters
    ----------
    limit:
        How many may be in at once; None for no limit.
    """

    __slots__ = ("_limit", "_waiting", "peak", "used")

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._waiting: deque[Callable[[], None]] = deque()
        self.used = 0
        self.peak = 0

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiting)

    def enter(self, proceed: Callable[[], None]) -> None:
        """Call ``proceed`` when there is a place: now, or when those before have left."""
        if self._limit is not None and self.used >= self._limit:
            self._waiting.append(proceed)
            return
        self.used = used = self.used + 1
        if used > self.peak:
            self.peak = used
        proceed()

    def withdraw(self, proceed: Callable[[], None]) -> bool:
        """Step out of the line; False when ``proceed`` was not waiting in it."""
        if proceed not in self._waiting:
            return False
        self._waiting.remove(proceed)
        return True

    def leave(self) -> None:
        """Give a place back; the first in line gets it at once."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self.used -= 1


class SerialLock:
    """A lock whose holders know on arrival for how long they will hold it.

    With that, first come first served is a recursion (Lindley 1952): the wait is over when all
    before are done. So it needs neither queue nor events.
    """

    __slots__ = ("free_s",)

    def __init__(self) -> None:
        self.free_s = 0.0

    def end_of(self, now_s: float, hold_s: float) -> float:
        """When somebody who arrives now and holds the lock that long would be done."""
        return (now_s if now_s > self.free_s else self.free_s) + hold_s

    def take(self, end_s: float) -> None:
        """Take the turn that ends then, as :meth:`end_of` has said at this same instant."""
        self.free_s = end_s
