"""The event log of an exploration run: it can end a process at a row, and take a look at a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..orchestrator.events import EventLog

WORLD = "world."
Look = Callable[[float, str, str], None]
"""Is told time, subject and detail of a row of the kind that it watches, once it is written."""


class _Waiting:
    """Somebody who waits for a row."""

    __slots__ = ("kind", "left", "then")

    def __init__(self, kind: str, left: int, then: Callable[[], None]) -> None:
        self.kind = kind
        self.left = left
        self.then = then


class WatchedLog(EventLog):
    """Hands rows of chosen kinds to whoever watches them.

    Attributes
    ----------
    deaf:
        Rows of the orchestrator are dropped: its process is dead. The model's are not.
    """

    __slots__ = ("_looks", "_waiting", "deaf")

    def __init__(self) -> None:
        super().__init__()
        self.deaf = False
        self._looks: dict[str, Look] = {}
        self._waiting: dict[str, list[_Waiting]] = {}

    def watch(self, kind: str, look: Look) -> None:
        """Call ``look`` after every row of this kind; one look for each kind."""
        self._looks[kind] = look

    def when(self, event: str, then: Callable[[], None]) -> _Waiting:
        """Call ``then`` once, after the n-th row of a kind from now on; ``event`` is ``kind#n``."""
        kind, _, count = event.partition("#")
        waiting = _Waiting(kind, int(count or 1), then)
        self._waiting.setdefault(kind, []).append(waiting)
        return waiting

    def forget(self, waiting: _Waiting) -> None:
        """Do not wait for this any more."""
        there = self._waiting.get(waiting.kind, [])
        if waiting in there:
            there.remove(waiting)

    def add(self, t_s: float, kind: str, group: str, subject: str, detail: str = "") -> None:
        """See :meth:`EventLog.add`."""
        if self.deaf and kind[:6] != WORLD:
            return
        self._fields += (t_s, kind, group, subject, detail)
        look = self._looks.get(kind)
        if look is not None:
            look(t_s, subject, detail)
        if kind in self._waiting:
            self._count(self._waiting[kind])

    def _count(self, there: list[_Waiting]) -> None:
        for waiting in list(there):
            waiting.left -= 1
            if not waiting.left:
                there.remove(waiting)
                waiting.then()

    @property
    def fields(self) -> list[Any]:
        """The fields of all rows, one after the other."""
        return self._fields
