"""Talking to a QEMU guest agent over its Unix socket.

The channel is a serial line: answers carry no number, commands are worked on one after the other,
and what somebody else was sent may still arrive. So every connection begins with a
synchronisation, and after a command that was given up there has to be another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

_MOST_BYTES = 1 << 20
_MARKS = count(1)
_DELIMITER = b"\xff"


class AgentRefusedError(Exception):
    """The agent says no, in its own words."""


class AgentLostError(Exception):
    """There is no agent, or it went away, or it does not answer in time."""


class Agent:
    """A connection to an agent that has answered; made by :func:`talk_to`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def call(self, command: str, **arguments: Any) -> Any:
        """The agent's answer to ``guest-COMMAND``.

        Raises
        ------
        AgentRefusedError
            It answers with an error.
        AgentLostError
            The connection broke.
        """
        message: dict[str, Any] = {"execute": f"guest-{command}"}
        if arguments:
            message["arguments"] = arguments
        await self._send(json.dumps(message).encode() + b"\n")
        answer = _parsed(await self._line())
        if "return" in answer:
            return answer["return"]
        raise AgentRefusedError(str(answer.get("error", {}).get("desc", answer)))

    async def synchronise(self) -> None:
        """Pass over everything that is not meant for us; raises AgentLostError."""
        mark = next(_MARKS)
        sync = {"execute": "guest-sync-delimited", "arguments": {"id": mark}}
        # The byte, which is in no JSON, makes the agent drop half a command that came before.
        await self._send(_DELIMITER + json.dumps(sync).encode() + b"\n")
        while True:
            line = (await self._line()).rpartition(_DELIMITER)[2]
            with contextlib.suppress(AgentLostError):
                if _parsed(line).get("return") == mark:
                    return

    async def _send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise AgentLostError(f"the guest agent's connection broke: {error}") from error

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except (OSError, ValueError) as error:
            raise AgentLostError(f"the guest agent's connection broke: {error}") from error
        if not line.endswith(b"\n"):
            raise AgentLostError("the guest agent's connection ended")
        return line


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise AgentLostError("the guest agent answers what is no JSON") from error
    if not isinstance(answer, dict):
        raise AgentLostError("the guest agent answers what is no object")
    return answer


@asynccontextmanager
async def talk_to(path: Path, answer_s: float) -> AsyncIterator[Agent]:
    """Connect to an agent and see that it answers.

    Parameters
    ----------
    answer_s:
        Seconds until it must have answered.

    Raises
    ------
    AgentLostError
        It has not.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_MOST_BYTES)
    except OSError as error:
        raise AgentLostError(f"the guest agent cannot be reached: {error}") from error
    try:
        agent = Agent(reader, writer)
        try:
            async with asyncio.timeout(answer_s):
                await agent.synchronise()
        except TimeoutError as error:
            raise AgentLostError(f"the guest agent did not answer in {answer_s:g} s") from error
        yield agent
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
