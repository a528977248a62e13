"""The driver: the array behind Stillframe's contract."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from stillframe.drivers.contracts import (
    ArrayCapabilities,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    SnapshotMethod,
)
from stillframe.drivers.errors import NeverWillError, NotFoundError
from stillframe.drivers.records import DeviceIdentity, DeviceKind, StorageUnit, UnitId, UnitKind
from stillframe.errors import InputError

from .device import SNAPSHOTS_PER_VOLUME, VOLUMES_PER_GROUP
from .link import Link
from .store import BLOCK_BYTES

CLONES = "clone-"


class AcmeSettings(BaseModel):
    """What the driver has to know; the password is in the environment as ``ACME_PASSWORD``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int
    call_timeout_s: float = 5.0


class AcmeArray:
    """One array; implements ``ReadableArrayDriver``."""

    def __init__(self, array_id: str, link: Link) -> None:
        self._id = array_id
        self._link = link

    @property
    def capabilities(self) -> ArrayCapabilities:
        """What the array can do."""
        return ArrayCapabilities(
            method=SnapshotMethod.REDIRECT_ON_WRITE,
            atomic_groups=True,
            units_per_group=VOLUMES_PER_GROUP,
            snapshots_per_unit=SNAPSHOTS_PER_VOLUME,
            group_operations=4,
            reads_back=True,
            clones=True,
        )

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        """See the contract."""
        known = {device: unit for unit in await self._units() for device in unit.devices}
        return {device: known[device] for device in devices if device in known}

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """See the contract."""
        operation = "snapshot_group"
        volumes = [self._volume(operation, unit_id) for unit_id in request.unit_ids]
        answer, _ = await self._link.call(
            operation, request.tag, "snapshot", name=request.tag, volumes=volumes
        )
        # The array's clock says when it cut; it is not ours, so that nothing is claimed.
        return self._snapshot(answer["number"], request.tag, answer["volumes"])

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """See the contract."""
        answer, _ = await self._link.call("list_snapshots", self._id, "snapshots")
        return [
            self._snapshot(number, name, volumes)
            for number, name, volumes in answer["snapshots"]
            if name.startswith(tag_prefix)
        ]

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """See the contract; the array never gives a number twice."""
        await self._link.call(
            "delete_snapshot", ref.tag, "delete", snapshot=self._number("delete_snapshot", ref)
        )

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """See the contract."""
        operation = "read_back"
        await self._is_there(operation, ref)
        start = offset_bytes - offset_bytes % BLOCK_BYTES
        end = -(-(offset_bytes + length_bytes) // BLOCK_BYTES) * BLOCK_BYTES
        _, data = await self._link.call(
            operation,
            ref.tag,
            "read",
            snapshot=ref.tag,
            volume=self._volume(operation, unit_id),
            offset=start,
            length=end - start,
        )
        return data[offset_bytes - start : offset_bytes - start + length_bytes]

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        """See the contract."""
        await self._is_there("clone", ref)
        made, volume = CLONES + name, self._volume("clone", unit_id)
        await self._link.call("clone", name, "clone", snapshot=ref.tag, volume=volume, name=made)
        (unit,) = [unit for unit in await self._units() if unit.name == made]
        return unit

    async def discard(self, unit_id: UnitId) -> None:
        """See the contract."""
        array_id, _, volume = unit_id.partition("/")
        if array_id != self._id or not volume.startswith(CLONES):
            raise NotFoundError("discard", unit_id, "it is no clone")
        await self._link.call("discard", unit_id, "discard", name=volume)

    async def _units(self) -> list[StorageUnit]:
        answer, _ = await self._link.call("resolve", self._id, "volumes")
        return [
            StorageUnit(
                f"{self._id}/{name}", self._id, name, UnitKind.LUN, size, devices_of(serial)
            )
            for name, size, serial in answer["volumes"]
        ]

    async def _is_there(self, operation: str, ref: GroupSnapshotRef) -> None:
        """The array finds snapshots by name; a name may be that of a later one by now."""
        if ref not in [one.ref for one in await self.list_snapshots(ref.tag)]:
            raise NotFoundError(operation, ref.tag, "there is no such snapshot (any more)")

    def _snapshot(self, number: int, name: str, volumes: Sequence[str]) -> GroupSnapshot:
        ref = GroupSnapshotRef(self._id, f"{self._id}/{number}", name)
        return GroupSnapshot(ref, tuple(f"{self._id}/{volume}" for volume in volumes))

    def _number(self, operation: str, ref: GroupSnapshotRef) -> int:
        number = ref.snapshot_id.rpartition("/")[2]
        if not number.isdecimal():
            raise NotFoundError(operation, ref.tag, f"{ref.snapshot_id} is no snapshot of ours")
        return int(number)

    def _volume(self, operation: str, unit_id: UnitId) -> str:
        array_id, _, volume = unit_id.partition("/")
        if array_id != self._id:
            raise NeverWillError(operation, unit_id, f"it is not on array {self._id}")
        return volume


def devices_of(serial: str) -> tuple[DeviceIdentity, ...]:
    """The identities of a volume: as hosts see it on page 83, and its serial number."""
    return (
        DeviceIdentity(DeviceKind.NAA, f"6000acc5{serial.lower()}"),
        DeviceIdentity(DeviceKind.SERIAL, serial),
    )


@asynccontextmanager
async def open_acme(system_id: str, settings: Mapping[str, Any]) -> AsyncIterator[AcmeArray]:
    """The factory that the entry point ``stillframe.drivers`` names.

    Raises
    ------
    InputError
        A setting is missing or wrong, or there is no password.
    DriverError
        The array does not answer, or refuses the password.
    """
    where = f"array {system_id}"
    try:
        checked = AcmeSettings.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(where, field, first["msg"]) from None
    password = os.environ.get("ACME_PASSWORD")
    if not password:
        raise InputError(where, "ACME_PASSWORD", "is not set in the environment")
    link = Link(checked.host, checked.port, password, checked.call_timeout_s)
    try:
        await link.login()
        yield AcmeArray(system_id, link)
    finally:
        await link.close()
