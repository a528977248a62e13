"""Connections to the array: borrowed for a call each, and a session that is renewed when it ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    UnknownOutcomeError,
)

from .wire import receive, send

_ERRORS: dict[str, type[DriverError]] = {
    "busy": BusyError,
    "no-space": PoolFullError,
    "not-found": NotFoundError,
    "unknown-volume": NotFoundError,
    "exists": NeverWillError,
    "limit": NeverWillError,
    "range": NeverWillError,
    "denied": NeverWillError,
    "broken": DidNotHappenError,
    "session": DidNotHappenError,
}


class Link:
    """How the driver reaches the array.

    Parameters
    ----------
    timeout_s:
        For how long a call waits for its answer.
    """

    def __init__(self, host: str, port: int, password: str, timeout_s: float) -> None:
        self._address = (host, port)
        self._password = password
        self._timeout_s = timeout_s
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._session = ""

    async def call(
        self, operation: str, subject: str, call: str, data: bytes = b"", **fields: Any
    ) -> tuple[dict[str, Any], bytes]:
        """One call of the array; ``operation`` and ``subject`` are for errors.

        Raises
        ------
        DriverError
            Of the class that says whether the array did what was asked.
        """
        answer, sent = await self._once(operation, subject, call, data, fields)
        if answer.get("error") == "session":  # nothing was done: the array looked at that first
            await self.login()
            answer, sent = await self._once(operation, subject, call, data, fields)
        if "error" in answer:
            raise _ERRORS[answer["error"]](operation, subject, answer["reason"])
        return answer, sent

    async def login(self) -> None:
        """Begin a session. Raises DriverError when the array does not answer or refuses."""
        fields = {"password": self._password}
        answer, _ = await self._once("login", str(self._address[1]), "login", b"", fields)
        if "error" in answer:
            advice = "check ACME_PASSWORD"
            raise NeverWillError("login", f"port {self._address[1]}", answer["reason"], advice)
        self._session = answer["session"]

    async def close(self) -> None:
        """Close what is open."""
        while self._idle:
            await _close(self._idle.pop()[1])

    async def _once(
        self, operation: str, subject: str, call: str, data: bytes, fields: dict[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        reader, writer = await self._connection(operation, subject)
        message = {"call": call, "session": self._session} | fields
        whole = False
        try:
            async with asyncio.timeout(self._timeout_s):
                await send(writer, message, data)
                answer = await receive(reader)
            whole = True
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
            reason = f"the answer did not come ({type(error).__name__})"
            raise UnknownOutcomeError(operation, subject, reason) from error
        finally:
            # A connection on which an answer is still to come is of no use to another call.
            if whole:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return answer

    async def _connection(
        self, operation: str, subject: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            await _close(writer)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.open_connection(*self._address, limit=1 << 24)
        except (OSError, TimeoutError) as error:
            host, port = self._address
            reason = f"{host}:{port} does not answer"
            raise DidNotHappenError(operation, subject, reason, "is the array up?") from error


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
