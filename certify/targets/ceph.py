"""The Ceph array as a target: a cluster of its own with a gateway, and a line to it."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...drivers.ceph_rbd import open_ceph_rbd
from ...drivers.ceph_settings import PYTHON
from ...drivers.contracts import ArrayDriver, GroupSnapshotRef
from ...drivers.records import DeviceIdentity
from ...lab.backend_ceph import CephBackend
from ...lab.host import run
from ..array_target import ScratchUnit
from .lab_array import (
    CALL_TIMEOUT_S,
    SYSTEM_ID,
    LabArray,
    LabArraySettings,
    file_device,
    scratch_units,
    stopped,
)

_LINE = Path(__file__).with_name("ceph_line.py")
_TOLD = Path(__file__).with_name("ceph_told.py")
_REQUESTS = {
    "resolve": "image",
    "snapshot_group": "snapshot",
    "list_snapshots": "listed",
    "delete_snapshot": "delete",
    "read_back": "read",
    "clone": "copy",
    "discard": "discard",
}
"""What the driver asks its process for in a method of the contract."""
_GROUP = "somebody-else"
_FOREIGN = "by-hand"
_FENCED_S = "3600"


class CephTarget(LabArray):
    """One monitor, one OSD and a gateway, with images as scratch units."""

    name = "Ceph RBD"
    programs = {  # noqa: RUF012
        "ceph": ("rbd", "--version"),
        "gateway": ("qemu-storage-daemon", "--version"),
    }

    def __init__(self, settings: LabArraySettings, folder: Path, seed: int) -> None:
        super().__init__(settings, folder, seed)
        self._backend = CephBackend(folder / "a", settings.units, self.unit_bytes)
        self._pool = str(self._backend.settings()["pool"])
        self._rules = folder / "line.json"
        self._rule: dict[str, Any] = {"slow": {}, "lose": []}
        self._stack = AsyncExitStack()
        self._units: Sequence[ScratchUnit] = ()

    async def __aenter__(self) -> Self:
        """Bring up the cluster."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._backend.down)
            self._units = scratch_units(await self._backend.up(), self.unit_bytes)
            self._stack = stack.pop_all()
        self._tell_line()
        self._sessions.mkdir()
        words = [sys.executable, _LINE, self._rules, PYTHON, _TOLD, self._sessions]
        self._line.write_text(
            f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n', encoding="utf-8"
        )
        self._line.chmod(0o700)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take it down."""
        await self._stack.aclose()

    @property
    def _sessions(self) -> Path:
        return self.folder / "sessions"

    @property
    def _line(self) -> Path:
        return self.folder / "line"

    def connect(self) -> AbstractAsyncContextManager[ArrayDriver]:
        """A driver, through the line."""
        settings = self._backend.settings() | {
            "python": str(self._line),
            "timeout": CALL_TIMEOUT_S,
        }
        return open_ceph_rbd(SYSTEM_ID, settings)

    async def units(self) -> Sequence[ScratchUnit]:
        """The files of the gateway."""
        return self._units

    def foreign_devices(self) -> Sequence[DeviceIdentity]:
        """A file beside the units, one with a unit's name elsewhere, and one not there."""
        file = Path(self._units[0].devices[0].value)
        beside = [file.with_name(f"unit-{len(self._units)}"), self.folder / file.name]
        return [file_device(one) for one in (*beside, self._backend.cluster.conf_file)]

    # -- hooks -----------------------------------------------------------------------------------

    async def snapshots_on_device(self) -> frozenset[str]:
        """Every snapshot of every image, and every image that is no unit, as the cluster lists."""
        images = json.loads(await self._rbd("ls", "--format", "json", self._pool))
        held = await asyncio.gather(*(self._snapshots(image) for image in images))
        units = {unit.devices[0].value.rpartition("/")[2] for unit in self._units}
        names = [
            f"{image}@{one['id']}"
            for image, found in zip(images, held, strict=True)
            for one in found
        ]
        return frozenset(names + [f"image {image}" for image in images if image not in units])

    async def place_of(
        self, unit: ScratchUnit, offset_bytes: int, snapshot: GroupSnapshotRef | None
    ) -> str:
        """The object of the block, and which of its clones (``rados listsnaps``)."""
        image = self._image(unit)
        facts = json.loads(await self._rbd("info", "--format", "json", f"{self._pool}/{image}"))
        number, offset = divmod(offset_bytes, facts["object_size"])
        name = f"{facts['block_name_prefix']}.{number:016x}"
        conf = self._backend.cluster.conf_file
        asked = ("listsnaps", name, "--format", "json")
        told = json.loads(await run("rados", "-c", conf, "-p", self._pool, *asked))
        clone = "head"
        if snapshot is not None:
            group = f"stillframe.{snapshot.tag}"
            found = await self._snapshots(image)
            (at,) = [one["id"] for one in found if one["namespace"].get("group") == group]
            held = {kept["id"]: one["id"] for one in told["clones"] for kept in one["snapshots"]}
            clone = held.get(at, clone)
        return f"{name}/{clone}:{offset}"

    @asynccontextmanager
    async def foreign_snapshot(self, unit: ScratchUnit) -> AsyncIterator[str]:
        """A snapshot of the image, outside every group."""
        image = self._image(unit)
        name = f"{self._pool}/{image}@{_FOREIGN}"
        await self._rbd("snap", "create", "--no-progress", name)
        try:
            (found,) = [one for one in await self._snapshots(image) if one["name"] == _FOREIGN]
            yield f"{image}@{found['id']}"
        finally:
            await self._rbd("snap", "rm", "--no-progress", name)

    @asynccontextmanager
    async def failing_unit(self, unit: ScratchUnit) -> AsyncIterator[None]:
        """The image is in a group of somebody else, and can be in one only."""
        group = f"{self._pool}/{_GROUP}"
        await self._rbd("group", "create", group)
        try:
            await self._rbd("group", "image", "add", group, f"{self._pool}/{self._image(unit)}")
            yield
        finally:
            await self._rbd("group", "rm", group)

    async def restart(self) -> None:
        """SIGKILL monitor, OSD and gateway, and start them on what they left."""
        await self._backend.kill()
        await self._backend.restart()

    async def expire_sessions(self) -> None:
        """The cluster refuses whatever the drivers that are connected now may still ask."""
        for session in self._sessions.iterdir():
            address = session.read_text(encoding="ascii")
            session.unlink()
            conf = self._backend.cluster.conf_file
            await run("ceph", "-c", conf, "osd", "blocklist", "add", address, _FENCED_S)

    @asynccontextmanager
    async def lost_answers(self, operation: str) -> AsyncIterator[None]:
        """The line ends when the cluster has done it, before the driver is told."""
        self._tell_line(lose=[_REQUESTS[operation]])
        try:
            yield
        finally:
            self._tell_line(lose=[])

    @asynccontextmanager
    async def slow_calls(self, operation: str, delay_s: float) -> AsyncIterator[None]:
        """The line passes such requests on later."""
        self._tell_line(slow={_REQUESTS[operation]: delay_s})
        try:
            yield
        finally:
            self._tell_line(slow={})

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """SIGSTOP monitor, OSD and gateway."""
        cluster = self._backend.cluster
        parts = (self._backend.gateway, cluster.osd, cluster.monitor)
        with stopped([part.process for part in parts]):
            yield

    def _tell_line(self, **rule: object) -> None:
        self._rule |= rule
        new = self._rules.with_suffix(".new")
        new.write_text(json.dumps(self._rule), encoding="utf-8")
        new.replace(self._rules)

    async def _snapshots(self, image: str) -> list[dict[str, Any]]:
        words = ("snap", "ls", "--all", "--format", "json", f"{self._pool}/{image}")
        found: list[dict[str, Any]] = json.loads(await self._rbd(*words))
        return found

    async def _rbd(self, *words: str) -> str:
        return await run("rbd", "-c", self._backend.cluster.conf_file, *words)

    def _image(self, unit: ScratchUnit) -> str:
        return Path(unit.devices[0].value).name
