"""Files and folders that nobody may change for a while, root included (``chattr +i``)."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GET, _SET = 0x80086601, 0x40086602
"""linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS."""
_IMMUTABLE = 0x10
"""linux/fs.h: FS_IMMUTABLE_FL. In a folder nothing is made, renamed or deleted."""


def immutable(path: Path, *, on: bool) -> None:
    """Set or clear the flag.

    Raises
    ------
    OSError
        There is no such file, or its file system has no such flag.
    """
    number = os.open(path, os.O_RDONLY)
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(number, _GET, struct.pack("i", 0)))
        flags = flags | _IMMUTABLE if on else flags & ~_IMMUTABLE
        fcntl.ioctl(number, _SET, struct.pack("i", flags))
    finally:
        os.close(number)


@contextmanager
def held_immutable(path: Path) -> Iterator[None]:
    """Immutable meanwhile. Raises as :func:`immutable`."""
    immutable(path, on=True)
    try:
        yield
    finally:
        immutable(path, on=False)
