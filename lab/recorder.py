"""Writes down, with the time, what the guests of a lab acknowledge: a process of its own.

Run as a program (``recorder.py FOLDER GUEST...``), on nothing but the standard library so that it
is there at once. It listens on ``FOLDER/GUEST.sock``, where the guest's QEMU connects each time it
starts, and appends each acknowledgement to ``FOLDER/GUEST.log`` at once as one line: the time of
receipt (CLOCK_MONOTONIC in seconds, which is one clock for all processes of the machine), the
record's number, and how long the guest's write took in milliseconds. It returns to its caller when
it listens, and goes on in the background until SIGTERM; its number is in ``FOLDER/pid``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

_CHUNK_BYTES = 1 << 16
_EAGER = -10
"""A niceness: guests and arrays load the machine, and a late recorder notes late times."""


class _Stream:
    """One guest's connection: bytes in, whole lines with their time out."""

    def __init__(self, connection: socket.socket, log: Path) -> None:
        self.connection = connection
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._rest = b""

    def read(self) -> bool:
        """Write down what has come; whether there can be more."""
        try:
            data = self.connection.recv(_CHUNK_BYTES)
        except ConnectionError:
            data = b""
        now = b"%.6f " % time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        whole = b"".join(now + line + b"\n" for line in lines if line)
        if whole:
            os.write(self._log, whole)
        return bool(data)

    def close(self) -> None:
        """Let go of it; a line that has only half come was not acknowledged."""
        self.connection.close()
        os.close(self._log)


def record(folder: Path, listeners: dict[str, socket.socket]) -> None:
    """Write down what comes, for ever."""
    with selectors.DefaultSelector() as selector:
        for guest, listener in listeners.items():
            selector.register(listener, selectors.EVENT_READ, folder / f"{guest}.log")
        while True:
            for key, _ in selector.select():
                if isinstance(key.data, _Stream):
                    if not key.data.read():
                        selector.unregister(key.fileobj)
                        key.data.close()
                elif isinstance(key.fileobj, socket.socket):
                    stream = _Stream(key.fileobj.accept()[0], key.data)
                    selector.register(stream.connection, selectors.EVENT_READ, stream)


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    return listener


def _into_background(pid_file: Path) -> None:
    """Leave the caller: it need not live as long as we do."""
    if os.fork():
        os._exit(0)
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
    # Only a share of all users may do that; without it the times are a little later under load.
    with contextlib.suppress(PermissionError):
        os.nice(_EAGER)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main(folder: Path, guests: list[str]) -> None:
    """Listen, leave the caller, record."""
    listeners = {guest: _listen(folder / f"{guest}.sock") for guest in guests}
    _into_background(folder / "pid")
    signal.signal(signal.SIGTERM, _end)
    record(folder, listeners)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
