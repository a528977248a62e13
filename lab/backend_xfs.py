"""The XFS array of a lab: a pool on a loop device, one file in it for each unit.

Nothing runs for it: the pool is a sparse image under a loop device, the units are files in an XFS
file system with reflinks, and a snapshot is a reflink copy.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ..errors import StillframeError
from .host import attach_loop, detach_loop, loops, mount, mounts, run, thaw, unmount, within

_LEAST_POOL_BYTES = 1 << 30
"""mkfs.xfs refuses less than 300 MB, and a snapshot needs room to grow."""
_COPIES = 4
"""Room in the pool for every unit and this many full copies less one; it is sparse."""


class XfsBackend:
    """A pool of unit files with reflinks; implements :class:`~stillframe.lab.backend.Backend`.

    Parameters
    ----------
    folder:
        Where everything of it lies: ``pool.img``, and the pool mounted at ``pool``.
    units:
        How many units.
    unit_bytes:
        The size of each.
    """

    driver = "xfs-reflink"
    direct_io = True

    def __init__(self, folder: Path, units: int, unit_bytes: int) -> None:
        self._image = folder.resolve() / "pool.img"
        self._pool = folder.resolve() / "pool"
        self._units = [self._pool / f"unit-{number}" for number in range(units)]
        self._unit_bytes = unit_bytes

    async def up(self) -> list[Path]:
        """Make the pool and its units; the units' files, in order.

        Raises
        ------
        StillframeError
            It is up already, or a step failed: nothing is left then.
        """
        if self._image.exists():
            raise StillframeError(f"{self._image} exists already", "take the array down first")
        try:
            await self._make()
        except OSError as error:
            await self.down()
            raise StillframeError(f"the pool cannot be made: {error}") from error
        except BaseException:
            await asyncio.shield(self.down())
            raise
        return list(self._units)

    async def _make(self) -> None:
        self._pool.mkdir(parents=True, exist_ok=True)
        pool_bytes = max(_LEAST_POOL_BYTES, _COPIES * len(self._units) * self._unit_bytes)
        _make_sparse(self._image, pool_bytes)
        await run("mkfs.xfs", "-q", "-m", "reflink=1", str(self._image))
        device = await attach_loop(self._image, read_only=False, direct_io=False)
        await mount(device, self._pool)
        for unit in self._units:
            _make_sparse(unit, self._unit_bytes)

    def settings(self) -> dict[str, Any]:
        """See :class:`~stillframe.lab.backend.Backend`."""
        return {"pool_folder": str(self._pool)}

    async def kill(self) -> None:
        """Raises StillframeError: there is no process to kill."""
        self._no_process()

    async def restart(self) -> list[Path]:
        """Raises StillframeError: what cannot be killed need not be restarted."""
        self._no_process()

    def _no_process(self) -> NoReturn:
        raise StillframeError(
            "an XFS pool has no process that could be killed", "use the array qsd or ceph for that"
        )

    async def down(self) -> None:
        """Thaw, unmount and detach all that lies on the units and the pool; remove the pool."""
        for loop in loops():
            if within(loop.backing, self._pool):
                await _free(loop.device)
        # The pool last: what is mounted on its units writes to it while it is unmounted.
        for loop in loops():
            if loop.backing == self._image:
                await _free(loop.device)
        if self._image.exists():
            self._image.unlink()
        if self._pool.is_dir():
            shutil.rmtree(self._pool)


def _make_sparse(path: Path, size_bytes: int) -> None:
    with path.open("xb") as file:
        file.truncate(size_bytes)


async def _free(device: Path) -> None:
    own = re.compile(re.escape(str(device)) + r"(p\d+)?")
    for entry in reversed([one for one in mounts() if own.fullmatch(one.source)]):
        with suppress(OSError):  # a file system that has failed cannot be asked, only unmounted
            thaw(entry.at)  # whoever froze it is gone, and what is frozen stays behind else
        await unmount(entry.at)
    await detach_loop(device)
