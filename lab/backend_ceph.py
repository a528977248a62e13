"""The Ceph array of a lab: a small cluster, and a gateway that makes its images files on the host.

The cluster is one monitor and one OSD on 127.0.0.1. The kernel of a lab need not know RBD: a
qemu-storage-daemon opens the images and exports each as a FUSE file. Three processes then, all in
the background, all with their files in one folder.

:meth:`CephBackend.kill` ends all three with SIGKILL, as a power failure of the array would; each
can also be killed and come back alone (:meth:`CephBackend.kill_only`), because what breaks differs:
without the gateway the units' files fail, without the OSD they hang until it is back.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..errors import StillframeError
from .ceph_cluster import CephCluster, Daemon
from .ceph_conf import Store
from .host import detach_loop, loops, mounts, run, thaw, unmount, within

_POOL = "rbd"
_PROGRAM = "qemu-storage-daemon"
_SOCKET_BYTES = 100
"""A unix socket's path has room for 107 bytes."""


class Part(StrEnum):
    """A process of the array."""

    GATEWAY = "gateway"
    OSD = "osd"
    MONITOR = "monitor"


class CephBackend:
    """RBD images behind a gateway; implements :class:`~stillframe.lab.backend.Backend`.

    Parameters
    ----------
    folder:
        Where everything of it lies. Short: sockets lie in it.
    units:
        How many units.
    unit_bytes:
        The size of each.
    store:
        How the OSD keeps its objects.

    Attributes
    ----------
    cluster, gateway:
        Its processes.
    """

    driver = "ceph-rbd"
    # On a FUSE export, loop devices that bypass the page cache put large writes in wrong places.
    direct_io = False

    def __init__(
        self, folder: Path, units: int, unit_bytes: int, store: Store = Store.FILESTORE
    ) -> None:
        self._folder = folder.resolve()
        self._store = store
        self._units = [f"unit-{number}" for number in range(units)]
        self._unit_bytes = unit_bytes
        self.cluster = CephCluster(self._folder / "cluster", store)
        self.gateway = Daemon(self._folder / "gateway.pid", self._folder)

    @property
    def _files(self) -> list[Path]:
        return [self._folder / "units" / unit for unit in self._units]

    def _socket(self, whose: str) -> Path:
        return self._folder / f"{whose}.sock"

    async def up(self) -> list[Path]:
        """Make the cluster, its images, and start the gateway; the units' files, in order.

        Raises
        ------
        StillframeError
            It is up already, its path is too long, or a step failed: nothing is left then.
        """
        if len(os.fsencode(self._socket("gateway"))) > _SOCKET_BYTES:
            raise StillframeError(
                f"{self._folder} is too long for the sockets in it", "choose a shorter folder"
            )
        if self.cluster.conf_file.exists():
            raise StillframeError(f"{self._folder} already holds an array", "take it down first")
        try:
            await self.cluster.make(_POOL, len(self._units), self._unit_bytes)
            await self._start_gateway()
        except OSError as error:
            await self.down()
            raise StillframeError(f"the cluster cannot be made: {error}") from error
        except BaseException:
            await asyncio.shield(self.down())
            raise
        return self._files

    def settings(self) -> dict[str, Any]:
        """See :class:`~stillframe.lab.backend.Backend`."""
        return {
            "conf_file": str(self.cluster.conf_file),
            "pool": _POOL,
            "gateway_socket": str(self._socket("gateway")),
        }

    async def kill(self) -> None:
        """End all three processes with SIGKILL; the files of the units fail from then on.

        Raises
        ------
        StillframeError
            The OSD keeps its objects in memory: they would be lost.
        """
        await self.kill_only(*Part)

    async def kill_only(self, *parts: Part) -> None:
        """End these processes with SIGKILL; see :meth:`kill`."""
        if Part.OSD in parts and not self._store.survives_a_kill:
            raise StillframeError(
                f"killing an OSD with {self._store} loses all data", "use another store"
            )
        if Part.GATEWAY in parts:
            await self.gateway.end(signal.SIGKILL)
        if Part.OSD in parts:
            await self.cluster.osd.end(signal.SIGKILL)
        if Part.MONITOR in parts:
            await self.cluster.monitor.end(signal.SIGKILL)

    async def restart(self) -> list[Path]:
        """Start what does not run, on the same data; the units' files, in order.

        Raises
        ------
        StillframeError
            A loop device is still on an export of a dead gateway, or a step failed.
        """
        gateway_runs = self.gateway.process is not None
        for loop in loops():
            # Once its file is unmounted nobody can tell any more whose it is.
            if not gateway_runs and within(loop.backing, self._folder):
                raise StillframeError(
                    f"{loop.device} is still on {loop.backing}, which nobody serves",
                    "detach it first",
                )
        await self.cluster.start(_POOL, fence=not gateway_runs)
        if not gateway_runs:
            await self._start_gateway()
        return self._files

    async def _start_gateway(self) -> None:
        await self._clear_dead_mounts()
        words: list[str | Path] = [_PROGRAM]
        # A socket serves one client at a time: one is the driver's, one is the lab's.
        for whose in ("gateway", "lab"):
            socket = f"socket,id={whose},path={self._socket(whose)},server=on,wait=off"
            words += ["--chardev", socket, "--monitor", f"chardev={whose}"]
        for unit, file in zip(self._units, self._files, strict=True):
            file.parent.mkdir(exist_ok=True)
            file.touch()
            # Without discard=unmap a hole punched into the file is answered "done" and keeps its
            # old data; ext4 zeroes blocks by punching holes.
            node = f"driver=rbd,node-name={unit},pool={_POOL},image={unit}"
            words += ["--blockdev", f"{node},conf={self.cluster.conf_file},discard=unmap"]
            words += [
                "--export",
                f"type=fuse,id={unit},node-name={unit},mountpoint={file},writable=on",
            ]
        # It goes to the background when everything is exported, and says on stderr why not.
        await run(*words, "--daemonize", "--pidfile", self.gateway.pid_file)

    async def down(self) -> None:
        """Take everything off the units, end the processes, remove the folder."""
        if self.cluster.osd.process is None or self.cluster.monitor.process is None:
            # What lies on the units would wait for them for ever; without a gateway it fails.
            await self.gateway.end(signal.SIGKILL)
        for loop in loops():
            if within(loop.backing, self._folder):
                for entry in reversed([one for one in mounts() if one.source == str(loop.device)]):
                    thaw(entry.at)
                    await unmount(entry.at)
                await detach_loop(loop.device)
        try:
            await self.gateway.end(signal.SIGTERM)
        except StillframeError:
            await self.gateway.end(signal.SIGKILL)
        await self._clear_dead_mounts()
        await self.cluster.kill()
        if self._folder.is_dir():
            await asyncio.to_thread(shutil.rmtree, self._folder)

    async def _clear_dead_mounts(self) -> None:
        """Unmount exports that nobody serves any more; never one of a living gateway."""
        if self.gateway.process is not None:
            return
        for entry in reversed(mounts()):
            if entry.fs_type.startswith("fuse") and within(entry.at, self._folder):
                # Out of sight at once, whoever still has it open.
                await run("umount", "--lazy", entry.at)
