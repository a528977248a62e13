"""The parts of a modelled array's calls: its management channel, its operations, its answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from ..drivers.contracts import GroupSnapshot, GroupSnapshotRequest
from ..drivers.errors import DriverError, NotFoundError, UnknownOutcomeError
from ..drivers.records import UnitId
from .draws import Uniforms
from .env import SimEnv

T = TypeVar("T")

SNAPSHOT = "snapshot_group"
DELETE = "delete_snapshot"


class ArrayEvent:
    """What an array does, in the event log; the subject is the array."""

    FENCED = "world.array.fenced"
    CUT = "world.array.cut"
    UNFENCED = "world.array.unfenced"
    ABORTED = "world.array.aborted"
    COMPLETED = "world.array.completed"
    DELETED = "world.array.deleted"
    INVALIDATED = "world.array.invalidated"
    WRITES_FAIL = "world.array.writes-fail"
    WRITES_RESUME = "world.array.writes-resume"


class Channel:
    """The management channel: some calls at once, the others first in, first out."""

    __slots__ = ("_env", "_free", "_waiting")

    def __init__(self, env: SimEnv, places: int) -> None:
        self._env = env
        self._free = places
        self._waiting: deque[tuple[float, Callable[..., None], tuple[Any, ...]]] = deque()

    def call(self, latency_s: float, then: Callable[..., None], *args: Any) -> None:
        """Call ``then(*args)`` when the channel has worked on the call for ``latency_s``."""
        if self._free:
            self._free -= 1
            self._env.after(latency_s, self._end, then, args)
        else:
            self._waiting.append((latency_s, then, args))

    def _end(self, then: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self._waiting:
            latency_s, next_then, next_args = self._waiting.popleft()
            self._env.after(latency_s, self._end, next_then, next_args)
        else:
            self._free += 1
        then(*args)


class Held:
    """A group snapshot on the array; listed from its completion on."""

    __slots__ = ("complete", "deleting", "number", "snapshot", "valid")

    def __init__(self, number: int, snapshot: GroupSnapshot) -> None:
        self.number = number
        self.snapshot = snapshot
        self.complete = False
        self.deleting = False
        self.valid = True


class GroupOperation:
    """A group snapshot on its way."""

    __slots__ = ("answer", "fenced_s", "names", "noise", "number", "request", "tag", "unit_ids")

    def __init__(
        self,
        request: GroupSnapshotRequest,
        unit_ids: tuple[UnitId, ...],
        number: int,
        noise: Uniforms,
        answer: asyncio.Future[GroupSnapshot],
    ) -> None:
        self.request = request
        self.unit_ids = unit_ids
        self.names = " ".join(unit_ids)
        self.tag = request.tag
        self.number = number
        self.noise = noise
        self.answer = answer
        self.fenced_s = 0.0


def settle(answer: asyncio.Future[T], outcome: T | DriverError) -> None:
    """Answer a call with a result or an error, unless its caller has stopped waiting."""
    if answer.done():
        return
    if isinstance(outcome, DriverError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def lost(operation: str, tag: str) -> UnknownOutcomeError:
    """The error of a call whose answer was lost; the operation goes on."""
    return UnknownOutcomeError(operation, tag, "the connection broke before the answer came")


def gone(tag: str) -> NotFoundError:
    """The error of a deletion that found nothing."""
    return NotFoundError(DELETE, tag, "there is no such group snapshot")
