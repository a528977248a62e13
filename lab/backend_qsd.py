"""The qemu-storage-daemon array of a lab: one detached process, every unit a file under FUSE."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from ..drivers.qsd_pool import Pool, image_format
from ..drivers.qsd_start import broken_links, daemon_arguments, sweep
from ..errors import StillframeError
from .host import detach_loop, loops, mounts, run, thaw, unmount, within
from .processes import Process, end, process_of

_PROGRAM = "qemu-storage-daemon"
_LOCK_S = 10.0
_SOCKET_BYTES = 100
"""A unix socket's path has room for 107 bytes, and QEMU appends nothing."""


class QsdBackend:
    """An array of files under one daemon; implements :class:`~stillframe.lab.backend.Backend`.

    Parameters
    ----------
    folder:
        Where everything of it lies; made. Short: sockets lie in it.
    units:
        How many units.
    unit_bytes:
        The size of each.
    more_monitors:
        How many drivers more than one may be open at the same time, each with a monitor of its own
        (see :attr:`monitors`).
    """

    driver = "qsd"
    # A loop device that bypasses the page cache is accepted on a FUSE export, and writes of 512 KiB
    # and more then arrive in the wrong places (Linux 6.18, QEMU 7.2). Through the page cache they
    # do not, and a flush still reaches the daemon: fdatasync of the loop device is a FUSE fsync.
    direct_io = False

    def __init__(self, folder: Path, units: int, unit_bytes: int, more_monitors: int = 0) -> None:
        self._pool = Pool(folder.resolve())
        self._more_monitors = more_monitors
        self._units = [f"unit-{number}" for number in range(units)]
        self._unit_bytes = unit_bytes
        self.patience_s = 10.0
        """For how long a daemon that was asked to end may take before it is killed."""

    async def up(self) -> list[Path]:
        """Make the units and start the daemon; where the units are exported, in order.

        Raises
        ------
        StillframeError
            It is up already, its path is too long, or the daemon refuses.
        """
        folder = self._pool.folder
        if len(os.fsencode(self._pool.qmp_socket)) > _SOCKET_BYTES:
            raise StillframeError(
                f"{folder} is too long for the sockets in it", "choose a shorter folder"
            )
        if any(self._pool.base(unit).exists() for unit in self._units):
            raise StillframeError(f"{folder} already holds an array", "take it down first")
        try:
            self._make()
            return await self._start()
        except OSError as error:
            await self.down()
            raise StillframeError(f"the array cannot be made: {error}") from error
        except BaseException:
            await asyncio.shield(self.down())
            raise

    def _make(self) -> None:
        for folder in (self._pool.folder, self._pool.groups, self._pool.clones):
            folder.mkdir(parents=True, exist_ok=True)
        for unit in self._units:
            with self._pool.base(unit).open("xb") as file:
                file.truncate(self._unit_bytes)
            self._pool.device(unit).touch()

    def settings(self) -> dict[str, Any]:
        """See :class:`~stillframe.lab.backend.Backend`."""
        return {"qmp_socket": str(self._pool.qmp_socket), "pool_folder": str(self._pool.folder)}

    @property
    def monitors(self) -> list[Path]:
        """The sockets of the monitors that drivers may have."""
        more = range(1, self._more_monitors + 1)
        return [self._pool.qmp_socket, *map(self._pool.monitor, more)]

    @property
    def process(self) -> Process | None:
        """The daemon; None when it does not run."""
        return process_of(self._pid_file, self._pool.folder)

    async def kill(self) -> None:
        """SIGKILL, then take away the mounts of the dead exports.

        A loop device on one keeps failing until it is detached.

        Raises
        ------
        StillframeError
            No daemon runs.
        """
        daemon = self.process
        if daemon is None:
            raise StillframeError(f"no {_PROGRAM} runs on {self._pool.folder}")
        await end(daemon, signal.SIGKILL)
        await self._clear_dead_mounts()

    async def restart(self) -> list[Path]:
        """Start a daemon on what the last one left.

        Raises
        ------
        StillframeError
            The last one still runs, or the files cannot be used.
        """
        if self.process is not None:
            raise StillframeError(f"{_PROGRAM} still runs on {self._pool.folder}", "kill it first")
        return await self._start()

    async def down(self) -> None:
        """Take everything off the units and clones, end the daemon, remove the folder."""
        for loop in loops():
            if within(loop.backing, self._pool.folder):
                for entry in reversed([one for one in mounts() if one.source == str(loop.device)]):
                    thaw(entry.at)
                    await unmount(entry.at)
                await detach_loop(loop.device)
        daemon = self.process
        if daemon is not None:
            try:
                await end(daemon, signal.SIGTERM, self.patience_s)
            except StillframeError:
                await end(daemon, signal.SIGKILL)
        await self._clear_dead_mounts()
        if self._pool.folder.is_dir():
            await asyncio.to_thread(shutil.rmtree, self._pool.folder)

    async def _start(self) -> list[Path]:
        pool = self._pool
        await self._clear_dead_mounts()
        try:
            async with pool.locked(_LOCK_S):
                sweep(pool)
                for over, under in broken_links(pool):
                    under_format = ("-F", image_format(under), "-b", under)
                    await run("qemu-img", "rebase", "-u", "-f", "qcow2", *under_format, over)
                arguments = daemon_arguments(pool, self._more_monitors)
                for path in (*map(pool.device, self._units), *pool.clones.glob("*.qcow2")):
                    path.with_suffix(".dev").touch()
                # It goes to the background when everything is exported, and says on stderr why not.
                await run(_PROGRAM, *arguments, "--daemonize", "--pidfile", self._pid_file)
        except BlockingIOError:
            raise StillframeError(
                f"{pool.folder} is locked by another process", "end it, or wait for it"
            ) from None
        return [pool.device(unit) for unit in self._units]

    @property
    def _pid_file(self) -> Path:
        return self._pool.folder / "daemon.pid"

    async def _clear_dead_mounts(self) -> None:
        """Unmount exports that nobody serves any more; never one of a living daemon."""
        if self.process is not None:
            return
        for entry in reversed(mounts()):
            if entry.fs_type.startswith("fuse") and within(entry.at, self._pool.folder):
                # Out of sight at once, whoever still has it open.
                await run("umount", "--lazy", entry.at)
