"""The kernel calls of the reflink array: share extents, hold and let go a file system, flush.

All of them block, some for as long as a disk takes; call them in a thread. None can be interrupted.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
from pathlib import Path
from tempfile import TemporaryFile

_FICLONE = 0x40049409
"""linux/fs.h: ``_IOW(0x94, 9, int)``."""
_FIFREEZE = 0xC0045877
"""linux/fs.h: ``_IOWR('X', 119, int)``."""
_FITHAW = 0xC0045878
"""linux/fs.h: ``_IOWR('X', 120, int)``."""
_libc = ctypes.CDLL(None, use_errno=True)


def share(source: int, copy: int) -> None:
    """Make one open file share all extents of another: a copy that takes no space.

    The kernel flushes what is cached of the source and keeps its writers out meanwhile, so that
    the copy shows one point in time. On a frozen file system this waits for the thaw.
    """
    fcntl.ioctl(copy, _FICLONE, source)


def freeze(folder: int) -> None:
    """Flush the file system of an open folder and hold all writes to it.

    Raises
    ------
    OSError
        EBUSY: it is frozen already. EPERM: not permitted.
    """
    fcntl.ioctl(folder, _FIFREEZE, 0)


def thaw(folder: int) -> bool:
    """Let the writes go on; whether it was frozen."""
    try:
        fcntl.ioctl(folder, _FITHAW, 0)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def flush(folder: int) -> None:
    """Write everything cached of the file system of an open folder, without holding anybody."""
    if _libc.syncfs(folder):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def open_for_writing(path: Path) -> bool:
    """Whether anything has a file open for writing: processes, mappings, the kernel.

    A read lease is granted only where there is no writer; it is given back at once.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Whoever opens it while we hold the lease has a signal sent to us: one that is ignored.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        os.close(file)
    return False


def can_share(folder: Path) -> bool:
    """Whether the file system of a folder makes reflink copies.

    A full one cannot be asked and is believed: what is in it has to stay reachable.

    Raises
    ------
    OSError
        Files cannot be made there.
    """
    try:
        with TemporaryFile(dir=folder) as source, TemporaryFile(dir=folder) as copy:
            os.pwrite(source.fileno(), bytes(4096), 0)
            share(source.fileno(), copy.fileno())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
            return False
        raise
    return True
