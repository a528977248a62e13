"""Locks on files and folders that end with the process that took them, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Lock:
    """A lock (flock) on the file or folder that a path names; made by :func:`try_lock`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @property
    def descriptor(self) -> int:
        """The open file or folder."""
        if self._descriptor is None:
            raise ValueError("the lock was given back")
        return self._descriptor

    def release(self) -> None:
        """Give it back; repeating is fine."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def try_lock(path: Path, *, create: bool = False) -> Lock | None:
    """The lock on what ``path`` names, or None while somebody else holds it.

    Parameters
    ----------
    create:
        Make an empty file where there is nothing.

    Raises
    ------
    FileNotFoundError
        There is nothing, and none is to be made.
    """
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    while True:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return Lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # Whoever held it has removed or moved it: what is at the path now is another.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
