"""The gateway in front of a Ceph pool: a qemu-storage-daemon that exports RBD images as files.

Where the kernel has no RBD, a host reaches an image through a qemu-storage-daemon: a node with
driver ``rbd``, and a FUSE export on a file. QMP does not say where an export is mounted, so we
ask of a gateway that the file has the name of the export: export ``unit-0`` is some
``…/unit-0``, and is a mounted FUSE file.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import BusyError, DidNotHappenError
from .qsd_monitor import Monitor, RefusedError
from .qsd_pool import node_name

_COPIES = "copies"
_POLL_S = 0.01


class Gateway:
    """One gateway; connects for each call, because its socket serves one client at a time.

    Calls of one driver wait for each other.

    Parameters
    ----------
    socket:
        Its QMP socket.
    conf_file, pool:
        What the nodes that it is asked for shall open.
    timeout_s:
        How long it may take to greet, and to do one thing.
    """

    def __init__(self, socket: Path, conf_file: Path, pool: str, timeout_s: float) -> None:
        self._socket = socket
        self._conf = conf_file
        self._pool = pool
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()

    async def exports(self) -> dict[str, str]:
        """By export, the image of our pool that it stands for.

        Raises
        ------
        DidNotHappenError
            The gateway does not answer.
        """
        operation, subject = "resolve", str(self._socket)
        async with self._connected(operation, subject) as monitor:
            exports = await monitor.call(operation, "query-block-exports")
            nodes = await monitor.call(operation, "query-named-block-nodes", {"flat": True})
        images = {one["node-name"]: image for one in nodes if (image := self._image_of(one, nodes))}
        return {
            one["id"]: images[one["node-name"]]
            for one in exports
            if one["type"] == "fuse" and one["node-name"] in images
        }

    def copy_file(self, name: str) -> Path:
        """The file on which a copy is exported."""
        return self._socket.resolve().parent / _COPIES / name

    async def export(self, image: str) -> Path:
        """Export an image of the pool, writable; the file that stands for it."""
        file = self.copy_file(image)
        file.parent.mkdir(exist_ok=True)
        file.touch()
        node = {
            "driver": "rbd",
            "node-name": node_name(file),
            "pool": self._pool,
            "image": image,
            "conf": str(self._conf),
            # Else a hole punched into the file would be answered "done" and keep its old data.
            "discard": "unmap",
        }
        export = {
            "type": "fuse",
            "id": image,
            "node-name": node_name(file),
            "mountpoint": str(file),
            "writable": True,
        }
        operation = "clone"
        async with self._connected(operation, image) as monitor:
            await monitor.change(operation, "blockdev-add", node)
            try:
                await monitor.change(operation, "block-export-add", export)
            except RefusedError:
                await monitor.change(operation, "blockdev-del", {"node-name": node_name(file)})
                raise
        return file

    async def withdraw(self, image: str) -> None:
        """End the export of a copy and its node; what is not there any more is no error.

        Raises
        ------
        BusyError
            A loop device is on it, or it is in use otherwise.
        """
        file = self.copy_file(image)
        device = loop_on(file)
        if device:
            raise BusyError("discard", image, f"{device} is on {file}", "detach it first")
        operation = "discard"
        async with self._connected(operation, image) as monitor:
            if await _has_export(monitor, image):
                await monitor.change(operation, "block-export-del", {"id": image, "mode": "hard"})
                await self._wait_gone(monitor, image)
            nodes = await monitor.call(operation, "query-named-block-nodes", {"flat": True})
            if any(one["node-name"] == node_name(file) for one in nodes):
                await monitor.change(operation, "blockdev-del", {"node-name": node_name(file)})
        file.unlink(missing_ok=True)

    async def _wait_gone(self, monitor: Monitor, name: str) -> None:
        # An export answers first what it was asked before.
        for _ in range(round(self._timeout_s / _POLL_S)):
            if not await _has_export(monitor, name):
                return
            await asyncio.sleep(_POLL_S)
        raise BusyError("discard", name, "its export is in use")

    def _image_of(self, node: Mapping[str, Any], nodes: list[Mapping[str, Any]]) -> str:
        """The image under a node, directly or through a raw node; "" when it is not of our pool."""
        if node["drv"] == "raw":
            under = [one for one in nodes if one["file"] == node["file"] and one["drv"] == "rbd"]
            return self._image_of(under[0], nodes) if under else ""
        if node["drv"] != "rbd" or not node["file"].startswith("json:"):
            return ""
        options = json.loads(node["file"].removeprefix("json:"))
        ours = options["pool"] == self._pool and _same(options.get("conf"), self._conf)
        return str(options["image"]) if ours else ""

    @asynccontextmanager
    async def _connected(self, operation: str, subject: str) -> AsyncIterator[Monitor]:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._turn.acquire()
        except TimeoutError:
            reason = f"other calls have kept the gateway for {self._timeout_s:g} s"
            raise BusyError(operation, subject, reason) from None
        monitor = Monitor(subject, self._socket, self._timeout_s, self._timeout_s)
        try:
            yield monitor
        except RefusedError as error:
            raise DidNotHappenError(operation, subject, f"the gateway refuses: {error}") from error
        finally:
            await monitor.close()
            self._turn.release()


async def _has_export(monitor: Monitor, name: str) -> bool:
    exports = await monitor.call("discard", "query-block-exports")
    return any(one["id"] == name for one in exports)


def loop_on(file: Path) -> str:
    """The loop device on a file; "" without one."""
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # detached just now
            if entry.read_text(encoding="utf-8").rstrip("\n") == str(file):
                return f"/dev/{entry.parts[3]}"
    return ""


def fuse_files(table: Path = Path("/proc/self/mounts")) -> frozenset[str]:
    """Everything at which a FUSE file system is mounted."""
    rows = [line.split(" ") for line in table.read_text(encoding="utf-8").splitlines()]
    return frozenset(
        _unescaped(row[1]) for row in rows if row[2] == "fuse" or row[2].startswith("fuse.")
    )


_ESCAPES: Mapping[str, str] = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


def _unescaped(text: str) -> str:
    for escape, plain in _ESCAPES.items():
        text = text.replace(escape, plain)
    return text


def _same(conf: str | None, ours: Path) -> bool:
    """Whether a node's configuration is ours; without one, librados took its default."""
    return Path(conf or "/etc/ceph/ceph.conf").resolve() == ours.resolve()
