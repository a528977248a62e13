"""What Stillframe needs to certify the driver: one class.

`stillframe certify array acme --config vendor.yaml` brings an array of its own up, in a process, and
tries every requirement on it. The hooks are the array's operator's door (see ``device.py``).
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from stillframe.certify import ArrayTarget, ScratchUnit
from stillframe.drivers.contracts import ArrayDriver, GroupSnapshotRef
from stillframe.drivers.records import StorageUnit
from stillframe.errors import StillframeError
from stillframe.quantity import Bytes

from .driver import devices_of, open_acme
from .link import Link
from .store import BLOCK_BYTES

ARRAY = "acme-1"
CALL_TIMEOUT_S = 5.0
_CALLS = {
    "resolve": "volumes",
    "snapshot_group": "snapshot",
    "list_snapshots": "snapshots",
    "delete_snapshot": "delete",
    "read_back": "read",
    "clone": "clone",
    "discard": "discard",
}
"""What the array calls the methods of the contract."""


class AcmeTargetSettings(BaseModel):
    """The section ``settings`` of ``vendor.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    units: Annotated[int, Field(ge=3, le=16)] = 4
    unit_size: Annotated[Bytes, Field(ge=1 << 20)] = 16 << 20


class AcmeTarget(ArrayTarget):
    """An Acme array in a process of its own, with volumes that may be overwritten."""

    name = "Acme array"
    settings_model = AcmeTargetSettings

    async def __aenter__(self) -> Self:
        """Start the array."""
        # For this one array, and for nobody else: it ends with it.
        os.environ.setdefault("ACME_PASSWORD", secrets.token_urlsafe())
        self._port = 0
        await self._start()
        self._host = self._link()  # a host's reads and writes, and the operator's door
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        await self._host.close()
        await self._end()

    def connect(self) -> AbstractAsyncContextManager[ArrayDriver]:
        """As a job would: through the driver's factory."""
        return open_acme(ARRAY, {"port": self._port, "call_timeout_s": CALL_TIMEOUT_S})

    async def units(self) -> Sequence[ScratchUnit]:
        """All volumes that are no clones; the console knows their names."""
        answer = await self._operate("list")
        return [
            ScratchUnit(devices_of(serial), size, unit_id=f"{ARRAY}/{name}")
            for name, size, serial in answer["volumes"]
            if name.startswith("lun-")
        ]

    async def environment(self) -> Mapping[str, str]:
        """What the certificate says of the system."""
        return {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}

    # -- a host's reads and writes ---------------------------------------------------------------

    async def write(self, unit: ScratchUnit, offset_bytes: int, data: bytes) -> None:
        """The array takes whole blocks: the ends of an unaligned write are read first."""
        await self._write(_volume(unit.unit_id), offset_bytes, data)

    async def read(self, unit: ScratchUnit, offset_bytes: int, length_bytes: int) -> bytes:
        """What the array holds now."""
        return await self._read(_volume(unit.unit_id), offset_bytes, length_bytes)

    async def write_clone(self, clone: StorageUnit, offset_bytes: int, data: bytes) -> None:
        """As to a unit."""
        await self._write(clone.name, offset_bytes, data)

    async def read_clone(self, clone: StorageUnit, offset_bytes: int, length_bytes: int) -> bytes:
        """As from a unit."""
        return await self._read(clone.name, offset_bytes, length_bytes)

    async def _write(self, volume: str, offset: int, data: bytes) -> None:
        start = offset - offset % BLOCK_BYTES
        end = -(-(offset + len(data)) // BLOCK_BYTES) * BLOCK_BYTES
        if (start, end) != (offset, offset + len(data)):
            there = await self._read(volume, start, end - start)
            data = there[: offset - start] + data + there[offset - start + len(data) :]
        await self._host.call("write", volume, "write", data, volume=volume, offset=start)

    async def _read(self, volume: str, offset: int, length: int) -> bytes:
        start = offset - offset % BLOCK_BYTES
        end = -(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES
        fields = {"volume": volume, "offset": start, "length": end - start}
        _, data = await self._host.call("read", volume, "read", **fields)
        return data[offset - start : offset - start + length]

    # -- hooks -----------------------------------------------------------------------------------

    async def snapshots_on_device(self) -> frozenset[str]:
        """Members of snapshots, and clones."""
        answer = await self._operate("list")
        members = {f"{name}@{number}" for number, _, held in answer["snapshots"] for name in held}
        clones = {name for name, _, _ in answer["volumes"] if not name.startswith("lun-")}
        return frozenset(members | clones)

    async def place_of(
        self, unit: ScratchUnit, offset_bytes: int, snapshot: GroupSnapshotRef | None
    ) -> str:
        """The number of the place in the array's store."""
        name = None if snapshot is None else snapshot.tag
        volume = _volume(unit.unit_id)
        answer = await self._operate("place", volume=volume, offset=offset_bytes, snapshot=name)
        return str(answer["place"])

    @asynccontextmanager
    async def foreign_snapshot(self, unit: ScratchUnit) -> AsyncIterator[str]:
        """One that the operator makes."""
        volume = _volume(unit.unit_id)
        await self._operate("cut", name="by-hand", volumes=[volume])
        try:
            snapshots = (await self._operate("list"))["snapshots"]
            (number,) = [number for number, name, _ in snapshots if name == "by-hand"]
            yield f"{volume}@{number}"
        finally:
            await self._operate("drop", name="by-hand")

    def failing_unit(self, unit: ScratchUnit) -> AbstractAsyncContextManager[None]:
        """The operator marks the volume as broken."""
        return self._switched("failing", of=_volume(unit.unit_id))

    def full_pool(self) -> AbstractAsyncContextManager[None]:
        """The operator says that there is no space."""
        return self._switched("full")

    def lost_answers(self, operation: str) -> AbstractAsyncContextManager[None]:
        """The array hangs up instead of answering."""
        return self._switched("mute", of=_CALLS[operation])

    @asynccontextmanager
    async def slow_calls(self, operation: str, delay_s: float) -> AsyncIterator[None]:
        """The array waits before it does what is asked."""
        await self._operate("delay", of=_CALLS[operation], by_s=delay_s)
        try:
            yield
        finally:
            await self._operate("delay", of=_CALLS[operation], by_s=0.0)

    @asynccontextmanager
    async def skewed_clock(self, skew_s: float) -> AsyncIterator[None]:
        """The array's clock is set."""
        await self._operate("skew", by_s=skew_s)
        try:
            yield
        finally:
            await self._operate("skew", by_s=0.0)

    async def expire_sessions(self) -> None:
        """The array forgets who has logged in."""
        await self._operate("forget-sessions")

    async def restart(self) -> None:
        """The array's process is killed, and started again on the same file and port."""
        self._process.kill()
        await self._process.wait()
        await self._start()

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """The array's process is gone for a while."""
        self._process.kill()
        await self._process.wait()
        try:
            yield
        finally:
            await self._start()

    @asynccontextmanager
    async def _switched(self, what: str, **fields: Any) -> AsyncIterator[None]:
        await self._operate(what, on=True, **fields)
        try:
            yield
        finally:
            await self._operate(what, on=False, **fields)

    async def _operate(self, what: str, **fields: Any) -> dict[str, Any]:
        answer, _ = await self._host.call("operate", what, "operate", what=what, **fields)
        return answer

    # -- the array's process ---------------------------------------------------------------------

    async def _start(self) -> None:
        words = [str(self.folder / "array.sqlite"), "--port", str(self._port)]
        words += ["--volumes", str(self.settings.units)]
        words += ["--volume-bytes", str(self.settings.unit_size)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "acme_array.device",
            *words,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        said = (await self._process.stdout.readline()).split()
        if said[:1] != [b"port"]:
            await self._end()
            raise StillframeError("the Acme array did not start", "see what it said above")
        self._port = int(said[1])

    async def _end(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    def _link(self) -> Link:
        return Link("127.0.0.1", self._port, os.environ["ACME_PASSWORD"], CALL_TIMEOUT_S)


def _volume(unit_id: str | None) -> str:
    return (unit_id or "").partition("/")[2]
