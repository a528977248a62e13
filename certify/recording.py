"""A driver that notes its calls, and ends those that do not come back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

from ..drivers.errors import DriverError
from .requirement import Violation

_CALLS = frozenset(
    {
        "resolve",
        "snapshot_group",
        "list_snapshots",
        "delete_snapshot",
        "read_back",
        "clone",
        "discard",
        "inventory",
        "create_snapshot",
        "remove_snapshot",
        "consolidate",
    }
)
_KEPT = 40
"""Calls of a check that are kept: the last ones."""


class CallLog:
    """What was called, when (seconds since the check began), and what came of it."""

    def __init__(self) -> None:
        self.calls: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._zero_s = 0.0

    def begin(self) -> None:
        """Forget everything; now is zero."""
        self.calls.clear()
        self._zero_s = asyncio.get_running_loop().time()

    def add(self, call: str, detail: str, start_s: float, came_of_it: str) -> None:
        """Note a call that has ended (or whose caller stopped waiting)."""
        now_s = asyncio.get_running_loop().time()
        self.calls.append(
            {
                "call": call,
                "with": detail,
                "start_s": round(start_s - self._zero_s, 6),
                "duration_s": round(now_s - start_s, 6),
                "result": came_of_it,
            }
        )


def recorded(driver: Any, log: CallLog, timeout_s: float) -> Any:
    """The same driver, with every call of the contracts noted and limited in time.

    A call that outlives the limit is a violation of whatever is being checked: the contract wants
    an error in the end, and the orchestrator has a limit of its own above the driver's.
    """
    return cast("Any", _Recorded(driver, log, timeout_s))


class _Recorded:
    def __init__(self, driver: Any, log: CallLog, timeout_s: float) -> None:
        self._driver = driver
        self._log = log
        self._timeout_s = timeout_s

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        return self._noted(name, found) if name in _CALLS else found

    def _noted(
        self, name: str, method: Callable[..., Coroutine[Any, Any, Any]]
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(*args: Any, **options: Any) -> Any:
            start_s = asyncio.get_running_loop().time()
            detail = ", ".join(short(one) for one in (*args, *options.values()))
            try:
                async with asyncio.timeout(self._timeout_s) as limit:
                    answer = await method(*args, **options)
            except TimeoutError:
                if not limit.expired():
                    self._log.add(name, detail, start_s, "TimeoutError")
                    raise
                self._log.add(name, detail, start_s, "no answer")
                raise Violation(
                    f"{name} did not come back within {self._timeout_s:g} s", call=name
                ) from None
            except asyncio.CancelledError:
                self._log.add(name, detail, start_s, "the caller stopped waiting")
                raise
            except DriverError as error:
                self._log.add(name, detail, start_s, f"{type(error).__name__}: {error}")
                raise
            except Exception as error:
                self._log.add(name, detail, start_s, f"{type(error).__name__}: {error}")
                raise
            self._log.add(name, detail, start_s, short(answer))
            return answer

        return call


def short(value: object) -> str:
    """A value as a certificate quotes it: never more than a line, never data."""
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    text = str(value) if isinstance(value, str | int | float | None) else repr(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
