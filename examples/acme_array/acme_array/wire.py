"""How the array speaks: a line of JSON, then as many bytes as it says. One call at a time."""

from __future__ import annotations

import asyncio
import json
from typing import Any


async def send(writer: asyncio.StreamWriter, message: dict[str, Any], data: bytes = b"") -> None:
    """Send a message and the bytes that belong to it."""
    writer.write(json.dumps(message | {"size": len(data)}).encode() + b"\n" + data)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next message; raises IncompleteReadError where the other side has gone."""
    line = await reader.readuntil(b"\n")
    message = json.loads(line)
    return message, await reader.readexactly(message.pop("size"))
