"""The modelled arrays as targets: the reference that every requirement can be tried on.

They run in virtual time and keep real bytes. Everything that a requirement asks of a target they
can do; none of it is known to the driver, which talks to the array's management service.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ...drivers.contracts import ArrayDriver, GroupSnapshotRef, SnapshotMethod
from ...drivers.records import (
    Array,
    DeviceIdentity,
    DeviceKind,
    StorageUnit,
    UnitKind,
)
from ...errors import StillframeError
from ...orchestrator.events import EventLog
from ...orchestrator.spec import Count, Section
from ...quantity import Bytes, Seconds
from ...sim.array_calls import DELETE, SNAPSHOT
from ...sim.array_front import ArrayClient, ArrayFront
from ...sim.array_profiles import ArrayProfile
from ...sim.draws import Draws
from ...sim.loop import SimLoop
from ...sim.readable_array import ReadableArray
from ..array_target import ArrayTarget, ScratchUnit


class ModelledArraySettings(Section):
    """How the modelled array is built; every field has a default.

    Attributes
    ----------
    units, capacity:
        Units and the size of each; the last one is an NFS volume. One unit more than a group
        takes, so that the limit can be exceeded.
    units_per_group, snapshots_per_unit, group_operations:
        Limits of the array.
    latency:
        Median time of a host's read or write.
    fence:
        Median time for which writes are held before the cut.
    """

    units: Annotated[int, Field(ge=3, le=64)] = 5
    capacity: Annotated[Bytes, Field(ge=1024**2)] = 16 * 1024**2
    units_per_group: Count | None = 4
    snapshots_per_unit: Count | None = 8
    group_operations: Count = 3
    latency: Seconds = 0.0005
    fence: Seconds = 0.006


class ModelledArrayTarget(ArrayTarget):
    """A modelled array of the profile that the subclass names, and all hooks.

    Attributes
    ----------
    array:
        The array itself; its ``data`` are the bytes and its ``staged`` faults.
    front:
        Its management service, which the driver talks to.
    """

    modelled: ClassVar[bool] = True
    settings_model = ModelledArraySettings
    method: ClassVar[SnapshotMethod]
    extent_bytes: ClassVar[int]
    array: ReadableArray
    front: ArrayFront

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """A loop in virtual time."""
        return SimLoop()

    async def __aenter__(self) -> ModelledArrayTarget:
        """Build the array on the running loop, which has to be a simulated one."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, SimLoop):
            raise StillframeError(f"{type(self).__name__} runs on the loop of its new_loop only")
        settings = self._settings
        self._records = [self._unit(number) for number in range(settings.units)]
        self.array = ReadableArray(
            loop.env,
            Array("modelled", "modelled", model=self.method.value),
            self._records,
            self._profile(),
            Draws(f"certify/{self.seed}"),
            EventLog(),
            settings.latency,
        )
        self.front = ArrayFront(self.array)
        return self

    async def __aexit__(self, *error: object) -> None:
        """End what the service still works on."""
        await self.front.stop()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[ArrayDriver]:
        """A session of its own with the array's service."""
        client = ArrayClient(self.front)
        await client.log_in()
        yield client

    async def units(self) -> Sequence[ScratchUnit]:
        """The units, with every identity that hosts have for them."""
        return [
            ScratchUnit(unit.devices, unit.capacity_bytes, None, unit.id) for unit in self._records
        ]

    def foreign_devices(self) -> Sequence[DeviceIdentity]:
        """Units of another array of the same make, and an export of another server."""
        return (
            DeviceIdentity(DeviceKind.NAA, f"6000eb37{0:024x}"),
            DeviceIdentity(DeviceKind.EUI, f"{0xEB37 << 48:016x}"),
            DeviceIdentity(DeviceKind.SERIAL, "MOD-B-0000"),
            DeviceIdentity(DeviceKind.NFS, "modelled-b.example:/vol/4"),
        )

    async def environment(self) -> Mapping[str, str]:
        """What the model is."""
        profile = self.array.profile
        return {
            "array": f"model, {profile.method.value}, extents of {profile.snapshot_extent} bytes",
            "clock": "virtual",
        }

    # -- a host ----------------------------------------------------------------------------------

    async def write(self, unit: ScratchUnit, offset_bytes: int, data: bytes) -> None:
        """Write as a host does."""
        await self.array.data.write(self._id(unit), offset_bytes, data)

    async def read(self, unit: ScratchUnit, offset_bytes: int, length_bytes: int) -> bytes:
        """What a host reads now."""
        return await self.array.data.read(self._id(unit), offset_bytes, length_bytes)

    async def write_clone(self, clone: StorageUnit, offset_bytes: int, data: bytes) -> None:
        """Write to a clone as a host does."""
        await self.array.data.write(self._by_device(clone), offset_bytes, data)

    async def read_clone(self, clone: StorageUnit, offset_bytes: int, length_bytes: int) -> bytes:
        """Read a clone as a host does."""
        return await self.array.data.read(self._by_device(clone), offset_bytes, length_bytes)

    # -- hooks -----------------------------------------------------------------------------------

    async def snapshots_on_device(self) -> frozenset[str]:
        """Every member of every snapshot, and every clone."""
        return self.array.data.members()

    async def place_of(
        self, unit: ScratchUnit, offset_bytes: int, snapshot: GroupSnapshotRef | None
    ) -> str:
        """The place of the extent in the array's store."""
        number = None if snapshot is None else self.array.number_of(snapshot)
        return self.array.data.place(self._id(unit), offset_bytes, number)

    @asynccontextmanager
    async def foreign_snapshot(self, unit: ScratchUnit) -> AsyncIterator[str]:
        """A snapshot that the array's own schedule made."""
        name, tag = self.array.make_foreign(self._id(unit))
        try:
            yield name
        finally:
            self.array.delete_foreign(tag)

    @asynccontextmanager
    async def failing_unit(self, unit: ScratchUnit) -> AsyncIterator[None]:
        """A unit whose cut fails, after the fence has begun."""
        failing = self.array.staged.failing
        failing.add(self._id(unit))
        try:
            yield
        finally:
            failing.discard(self._id(unit))

    @asynccontextmanager
    async def full_pool(self) -> AsyncIterator[None]:
        """Somebody else takes the space, but for the rest that is kept for hosts' writes."""
        pool = self.array.pool
        kept_bytes = self.array.profile.pool_minimum_free * pool.capacity_bytes / 2
        pool.reserve(pool.free_bytes - kept_bytes)
        try:
            yield
        finally:
            pool.reserve(0.0)

    async def restart(self) -> None:
        """The service dies and comes back."""
        await self.front.restart()

    async def expire_sessions(self) -> None:
        """Every session is void."""
        self.front.expire()

    @asynccontextmanager
    async def skewed_clock(self, skew_s: float) -> AsyncIterator[None]:
        """The array's own clock is wrong."""
        self.front.clock_ahead_s += skew_s
        try:
            yield
        finally:
            self.front.clock_ahead_s -= skew_s

    @asynccontextmanager
    async def lost_answers(self, operation: str) -> AsyncIterator[None]:
        """Connections break while the service does what this method asks."""
        self.front.lost.add(operation)
        try:
            yield
        finally:
            self.front.lost.discard(operation)

    @asynccontextmanager
    async def slow_calls(self, operation: str, delay_s: float) -> AsyncIterator[None]:
        """The array accepts snapshots and deletions and lets them wait; other requests wait."""
        late_s = self.array.staged.late_by_s if operation in (SNAPSHOT, DELETE) else None
        slow_s = self.front.slow_s if late_s is None else late_s
        slow_s[operation] = slow_s.get(operation, 0.0) + delay_s
        try:
            yield
        finally:
            slow_s[operation] -= delay_s

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """Neither requests nor answers nor hosts' reads and writes get through."""
        self.front.reachable = False
        self.front.drop_answers()
        self.array.data.stop()
        try:
            yield
        finally:
            self.array.data.go()
            self.front.reachable = True

    # -- how it is built -------------------------------------------------------------------------

    @property
    def _settings(self) -> ModelledArraySettings:
        if isinstance(self.settings, ModelledArraySettings):
            return self.settings
        return ModelledArraySettings.model_validate(dict(self.settings or {}))

    def _profile(self) -> ArrayProfile:
        chosen: dict[str, Any] = {
            name: getattr(self._settings, name)
            for name in ("units_per_group", "snapshots_per_unit", "group_operations")
        }
        return ArrayProfile(
            method=self.method,
            snapshot_extent=self.extent_bytes,
            management_latency=0.004,
            snapshot_base=0.01,
            snapshot_per_unit=0.004,
            fence_base=self._settings.fence,
            fence_per_unit=0.0005,
            delete_latency=0.01,
            pool_bytes=4 * 1024**3,
            **chosen,
        )

    def _unit(self, number: int) -> StorageUnit:
        last = number == self._settings.units - 1
        unit_id = f"modelled/vol-{number}" if last else f"modelled/lun-{number}"
        devices: tuple[DeviceIdentity, ...]
        devices = (DeviceIdentity(DeviceKind.NFS, f"modelled-a.example:/vol/{number}"),)
        if not last:
            devices = (
                DeviceIdentity(DeviceKind.NAA, f"6000eb36{number:024x}"),
                DeviceIdentity(DeviceKind.EUI, f"{(0xEB36 << 48) + number:016x}"),
                DeviceIdentity(DeviceKind.T10, f"STILLFRM MODEL A{number:04}"),
                DeviceIdentity(DeviceKind.UUID, f"5f0c1b1e-0000-4000-8000-{number:012x}"),
                DeviceIdentity(DeviceKind.SERIAL, f"MOD-A-{number:04}"),
                DeviceIdentity(DeviceKind.FILE, f"/pool/unit-{number}"),
            )
        kind = UnitKind.NFS_VOLUME if last else UnitKind.LUN
        size = self._settings.capacity
        return StorageUnit(unit_id, "modelled", unit_id.partition("/")[2], kind, size, devices)

    @staticmethod
    def _id(unit: ScratchUnit) -> str:
        return unit.unit_id or ""

    def _by_device(self, clone: StorageUnit) -> str:
        return self.array.unit_behind(clone.devices)


class RedirectOnWriteArray(ModelledArrayTarget):
    """A modelled array that keeps snapshots by redirect-on-write."""

    name = "modelled array (redirect-on-write)"
    method = SnapshotMethod.REDIRECT_ON_WRITE
    extent_bytes = 4096


class CopyOnWriteArray(ModelledArrayTarget):
    """A modelled array that keeps snapshots by copy-on-write."""

    name = "modelled array (copy-on-write)"
    method = SnapshotMethod.COPY_ON_WRITE
    extent_bytes = 65536
