"""A Ceph cluster of one monitor and one OSD, both on this machine, without a manager."""

from __future__ import annotations

import secrets
import signal
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from ..drivers.ceph_settings import PYTHON
from ..errors import StillframeError
from .ceph_conf import Store, conf_text
from .host import run
from .processes import Process, end, process_of

_SETUP = Path(__file__).with_name("ceph_setup.py")
_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections, which come and go."""
_PORT_TRIES = 20


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process in the background that leaves its number in a file, below a folder it works in."""

    pid_file: Path
    folder: Path

    @property
    def process(self) -> Process | None:
        """It; None when it does not run."""
        return process_of(self.pid_file, self.folder)

    async def end(self, number: signal.Signals) -> None:
        """Send it a signal and wait for its end; when it does not run, that is fine."""
        process = self.process
        if process is not None:
            await end(process, number)


class CephCluster:
    """The two daemons and their files.

    Parameters
    ----------
    folder:
        Where everything of it lies.
    store:
        How the OSD keeps its objects.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder = folder
        self._store = store
        self.conf_file = folder / "ceph.conf"
        self.monitor = Daemon(folder / "run" / "mon.a.pid", folder)
        self.osd = Daemon(folder / "run" / "osd.0.pid", folder)

    async def make(self, pool: str, images: int, size_bytes: int) -> None:
        """Make a new cluster, start it, and make a pool with ``unit-0``, ``unit-1``, ... in it.

        Raises
        ------
        StillframeError
            A step failed; what runs already is for the caller to end.
        """
        folder, fsid, port = self._folder, str(uuid.uuid4()), _free_port()
        for name in ("run", "log", "mon", "osd"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # Room for each unit, a full copy of it, and what snapshots keep.
        text = conf_text(
            folder, fsid=fsid, port=port, store=self._store, store_bytes=4 * images * size_bytes
        )
        self.conf_file.write_text(text, encoding="utf-8")
        address, monmap, osd = f"[v2:127.0.0.1:{port}]", folder / "monmap", str(uuid.uuid4())
        await run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        await self._mon("--mkfs", "--monmap", str(monmap))
        await self._mon()
        await self._setup("osd", osd)
        await self._osd("--mkfs", "--osd-uuid", osd)
        await self._osd()
        await self._setup("pool", pool, str(images), str(size_bytes))

    async def start(self, pool: str, *, fence: bool) -> None:
        """Start what does not run; ``fence`` refuses what dead clients of a pool may still send."""
        if self.monitor.process is None:
            await self._mon()
        if self.osd.process is None:
            await self._osd()
        await self._setup("fence" if fence else "wait", pool)

    async def kill(self) -> None:
        """SIGKILL both daemons."""
        for daemon in (self.osd, self.monitor):
            await daemon.end(signal.SIGKILL)

    async def _mon(self, *options: str) -> None:
        await run("ceph-mon", "-c", self.conf_file, "-i", "a", *options)

    async def _osd(self, *options: str) -> None:
        await run("ceph-osd", "-c", self.conf_file, "-i", "0", *options)

    async def _setup(self, *words: str) -> None:
        await run(PYTHON, _SETUP, self.conf_file, *words)


def _free_port() -> int:
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StillframeError(f"{_PORT_TRIES} ports from {_PORTS.start} on are all taken")
