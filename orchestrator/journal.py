"""What the orchestrator intends, before it does it.

A create whose answer never comes may still happen. So every create is noted with its unique tag
*before* the call and struck out when its outcome is known; what is left open at the end is looked
for by its tag. A durable journal puts the same two calls on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, Protocol


class IntentKind(StrEnum):
    """What may be left behind."""

    VM_SNAPSHOT = "vm-snapshot"
    ARRAY_SNAPSHOT = "array-snapshot"


class Intent(NamedTuple):
    """One create that was begun: its tag, and the driver and object it was begun on.

    ``system_id`` is a vCenter or an array, ``object_id`` the VM (or the array again).
    """

    tag: str
    kind: IntentKind
    system_id: str
    object_id: str
    begun_s: float


class Journal(Protocol):
    """Where intents are kept."""

    def intend(self, intent: Intent) -> None:
        """Note an intent; when this returns, it is as durable as the journal gets."""
        ...

    def settle(self, tag: str) -> None:
        """The outcome of this intent is known, and nothing of it is left to look for."""
        ...

    def open_intents(self) -> Iterable[Intent]:
        """Intents that are not settled, oldest first."""
        ...


class MemoryJournal:
    """A journal that lives as long as the process."""

    def __init__(self) -> None:
        self._open: dict[str, Intent] = {}

    def intend(self, intent: Intent) -> None:
        """See :class:`Journal`."""
        self._open[intent.tag] = intent

    def settle(self, tag: str) -> None:
        """See :class:`Journal`."""
        self._open.pop(tag, None)

    def open_intents(self) -> list[Intent]:
        """See :class:`Journal`."""
        return list(self._open.values())
