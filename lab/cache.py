"""A folder of things that take long to make, each named by the hash of what it is made from."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ..errors import StillframeError

_KEPT_S = 30 * 86400.0
"""An entry that nobody used for so long goes when the next one is made."""
_LOOK_S = 0.1


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/stillframe/lab``, or the same under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) if base else Path.home() / ".cache"


def key_of(*parts: bytes | str) -> str:
    """A name for something made from these parts, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


class Cache:
    """Entries are folders; an entry that exists is whole, because it was renamed into place.

    Parameters
    ----------
    folder:
        Where they lie; None for :func:`default_cache`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_cache() / "stillframe" / "lab"

    async def entry(self, name: str, make: Callable[[Path], Awaitable[None]]) -> Path:
        """The folder of an entry; ``make`` fills a new one if there is none yet.

        Two processes that want the same entry make it once: the second waits for the first.

        Raises
        ------
        StillframeError
            The cache cannot be written, or ``make`` raised it; nothing is left of the entry.
        """
        at = self.folder / name
        if not at.is_dir():
            async with self._alone():
                if not at.is_dir():
                    await self._make(at, make)
        # Somebody else's cache may be read-only; then its age is not ours to keep.
        with contextlib.suppress(OSError):
            os.utime(at)
        return at

    async def _make(self, at: Path, make: Callable[[Path], Awaitable[None]]) -> None:
        self._forget_old()
        scratch = Path(tempfile.mkdtemp(prefix="making-", dir=self.folder))
        try:
            await make(scratch)
            _publish(scratch, at)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _forget_old(self) -> None:
        """Remove entries that went out of use, and what builds that were killed left."""
        for path in self.folder.iterdir():
            unused_s = time.time() - path.stat().st_mtime
            if path.is_dir() and (path.name.startswith("making-") or unused_s > _KEPT_S):
                shutil.rmtree(path, ignore_errors=True)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold the lock of the cache; a process that dies lets go of it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StillframeError(
                f"the cache {self.folder} cannot be written: {error.strerror}",
                "set XDG_CACHE_HOME to a folder that can be",
            ) from None
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_LOOK_S)
            yield
        finally:
            os.close(lock)


def _publish(scratch: Path, at: Path) -> None:
    scratch.chmod(0o755)
    scratch.rename(at)
