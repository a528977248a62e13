"""A small Ceph array that the tests of one module share, seen through its own command-line tool."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support_lab import short_folder

from stillframe.drivers.ceph_link import WORKER
from stillframe.drivers.ceph_rbd import CephRbdDriver, open_ceph_rbd
from stillframe.drivers.contracts import GroupSnapshotRequest
from stillframe.lab.backend_ceph import CephBackend
from stillframe.lab.ceph_cluster import Daemon
from stillframe.lab.ceph_conf import Store

NEEDS = ("root", "ceph", "fuse")
ARRAY = "ceph"
UNIT_BYTES = 64 << 20
FENCE_S = 7.0
_DYING = Path(__file__).with_name("support_ceph_dying.py")


@dataclass(frozen=True)
class CephArray:
    """The array that is up."""

    backend: CephBackend
    files: Sequence[Path]

    @property
    def conf(self) -> str:
        """The cluster's configuration."""
        return str(self.backend.settings()["conf_file"])

    def open(self, **settings: Any) -> AbstractAsyncContextManager[CephRbdDriver]:
        """A driver for it."""
        return open_ceph_rbd(ARRAY, {**self.backend.settings(), **settings})

    def rbd(self, *words: str) -> Any:
        """What the command ``rbd`` answers; None when it answers nothing."""
        argv = ["rbd", "-c", self.conf, *words, "--format", "json"]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def do(self, *words: str) -> None:
        """Have the command ``rbd`` change something."""
        subprocess.run(["rbd", "-c", self.conf, *words], check=True, timeout=60)

    def groups(self) -> dict[str, list[str]]:
        """By group, the images in it now."""
        return {
            name: [one["image"] for one in self.rbd("group", "image", "list", f"rbd/{name}")]
            for name in self.rbd("group", "list", "rbd")
        }

    def holder(self) -> dict[str, str]:
        """The process that is changing groups; {} when nobody is."""
        argv = ["rados", "-c", self.conf, "-p", "rbd", "get", "stillframe.holder", "-"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        found: dict[str, str] = json.loads(done.stdout or "{}")
        return found

    def hold(self, holder: dict[str, str]) -> None:
        """Pretend that a process is changing groups, or died while it did."""
        argv = ["rados", "-c", self.conf, "-p", "rbd", "put", "stillframe.holder", "-"]
        subprocess.run(argv, input=json.dumps(holder), text=True, check=True, timeout=60)

    def cut_off(self, address: str) -> None:
        """Have the cluster refuse whatever comes from an address."""
        argv = ["ceph", "-c", self.conf, "osd", "blocklist", "add", address]
        subprocess.run(argv, check=True, capture_output=True, timeout=60)

    def dying(self, call: str, at: int, do: str, **what: Any) -> None:
        """Run the worker with one request, killed before that call of the binding."""
        with self.worker(call, at, 0, do, **what) as process:
            _, said = process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL, said

    def worker(
        self, call: str, at: int, pid: int, do: str, *, parent: Sequence[str] = (), **what: Any
    ) -> subprocess.Popen[str]:
        """The worker with one request; see the script on ``call``, ``at`` and ``pid``.

        ``parent`` is a program, with arguments, that starts it instead of us.
        """
        script = ["/usr/bin/python3", _DYING, WORKER, call, str(at), str(pid)]
        argv = [*script, self.conf, "rbd", "10"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*parent, *argv], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"id": 1, "do": do, **what}) + "\n")
        process.stdin.flush()
        return process


@contextmanager
def ceph_array(units: int = 3, store: Store = Store.FILESTORE) -> Iterator[CephArray]:
    """An array, taken down at the end."""
    with short_folder("ceph") as folder:
        backend = CephBackend(folder / "a", units, UNIT_BYTES, store)
        files = asyncio.run(backend.up())
        try:
            yield CephArray(backend, files)
        finally:
            asyncio.run(backend.down())


def request(tag: str, *units: int, fence_s: float = FENCE_S) -> GroupSnapshotRequest:
    """A request for a snapshot of these units."""
    return GroupSnapshotRequest(unit_ids(*units), tag, fence_s)


def unit_ids(*units: int) -> tuple[str, ...]:
    """The identifiers of units."""
    return tuple(f"{ARRAY}/unit-{number}" for number in units)


def pid_of(daemon: Daemon) -> int:
    """The number of a process that must be running."""
    process = daemon.process
    assert process is not None
    return process.pid


async def tags(driver: CephRbdDriver) -> list[str]:
    """Every tag that is listed."""
    return [one.ref.tag for one in await driver.list_snapshots("")]


async def delete_all(driver: CephRbdDriver) -> None:
    """Delete every snapshot."""
    for one in await driver.list_snapshots(""):
        await driver.delete_snapshot(one.ref)


def write(file: Path, data: bytes, offset: int = 0) -> None:
    """Write through the gateway; returns when it is on the array."""
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.pwrite(descriptor, data, offset)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
