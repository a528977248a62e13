"""Reading an exported image over NBD, which the daemon serves beside its own writes.

Reading the image's file while the daemon has it open would race with it. A FUSE export would do,
but a read of a file whose daemon hangs cannot be given up; a socket can be closed.

The protocol is that of the NBD project (doc/proto.md): fixed newstyle negotiation with
``NBD_OPT_GO``, then simple replies.
"""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

_GREETING = struct.Struct(">QQH")
_MAGIC = 0x4E42444D41474943
_OPTION_MAGIC = 0x49484156454F5054
_FIXED_NEWSTYLE = 1
_GO = 7
_OPTION_REPLY = struct.Struct(">QIII")
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_ACK, _INFO = 1, 3
_REQUEST = struct.Struct(">IHHQQI")
_REQUEST_MAGIC = 0x25609513
_REPLY = struct.Struct(">IIQ")
_REPLY_MAGIC = 0x67446698
_READ, _DISCONNECT = 0, 2
_MOST_AT_ONCE_BYTES = 8 << 20


class NbdError(Exception):
    """The server does not speak the protocol, or refused."""


async def read_export(socket: Path, name: str, offset_bytes: int, length_bytes: int) -> bytes:
    """Bytes of an export.

    Parameters
    ----------
    socket:
        Where the NBD server listens.
    name:
        The export's name.

    Raises
    ------
    NbdError
        There is no such export, or it could not be read there.
    OSError, EOFError
        The connection failed.
    """
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        await _negotiate(reader, writer, name)
        parts = []
        end = offset_bytes + length_bytes
        for start in range(offset_bytes, end, _MOST_AT_ONCE_BYTES):
            length = min(_MOST_AT_ONCE_BYTES, end - start)
            writer.write(_REQUEST.pack(_REQUEST_MAGIC, 0, _READ, start, start, length))
            magic, error, _ = _REPLY.unpack(await reader.readexactly(_REPLY.size))
            if magic != _REPLY_MAGIC or error:
                raise NbdError(f"reading {length} bytes at {start} failed with error {error}")
            parts.append(await reader.readexactly(length))
        writer.write(_REQUEST.pack(_REQUEST_MAGIC, 0, _DISCONNECT, 0, 0, 0))
        return b"".join(parts)
    finally:
        writer.close()


async def _negotiate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    magic, option_magic, flags = _GREETING.unpack(await reader.readexactly(_GREETING.size))
    if magic != _MAGIC or option_magic != _OPTION_MAGIC or not flags & _FIXED_NEWSTYLE:
        raise NbdError("what listens there is no NBD server of the fixed newstyle")
    encoded = name.encode()
    wish = struct.pack(">I", len(encoded)) + encoded + struct.pack(">H", 0)
    writer.write(struct.pack(">IQII", _FIXED_NEWSTYLE, _OPTION_MAGIC, _GO, len(wish)) + wish)
    while True:
        header = await reader.readexactly(_OPTION_REPLY.size)
        reply_magic, _, kind, length = _OPTION_REPLY.unpack(header)
        said = await reader.readexactly(length)
        if reply_magic != _OPTION_REPLY_MAGIC or kind not in (_ACK, _INFO):
            raise NbdError(f"export {name!r} is refused: {said.decode(errors='replace')}")
        if kind == _ACK:
            return
