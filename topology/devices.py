"""Units and arrays out of the devices that hosts see, where no array says what is its own.

A hypervisor knows devices but not arrays: one unit is made per device, and units are grouped into
arrays by vendor and model (LUNs) or by server (NFS). That is an assumption, which whoever uses
this has to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..drivers.records import (
    Array,
    Datastore,
    DeviceIdentity,
    DeviceKind,
    StorageUnit,
    UnitKind,
)

UNKNOWN_ARRAY = "unknown array"
"""The array of devices whose vendor and model nobody gives."""


class DeviceFacts(NamedTuple):
    """What a host says about a block device; ``local`` devices belong to the host itself."""

    vendor: str
    model: str
    local: bool


Facts = Mapping[DeviceIdentity, DeviceFacts]


def is_local(device: DeviceIdentity, facts: Facts) -> bool:
    """Whether a device belongs to a host, so that no array can snapshot it."""
    known = facts.get(device)
    return device.kind is DeviceKind.LOCAL or bool(known and known.local)


def device_sizes(
    datastores: Iterable[Datastore], raw: Mapping[DeviceIdentity, int]
) -> dict[DeviceIdentity, int | None]:
    """The devices under datastores, then those of raw device mappings, with their sizes.

    Parameters
    ----------
    raw:
        Devices of raw mappings with the mappings' sizes in bytes.

    Returns
    -------
    dict
        Bytes per device, None when not known. A datastore's capacity counts in equal parts for
        each of its extents, the largest of several answers wins.
    """
    sizes: dict[DeviceIdentity, int | None] = {}
    for datastore in datastores:
        for device in datastore.extents:
            size = datastore.capacity_bytes
            share = None if size is None else size // len(datastore.extents)
            sizes[device] = max(share or 0, sizes.get(device) or 0) or share
    for device, raw_size in raw.items():
        sizes.setdefault(device, raw_size)
    return sizes


def group_devices(
    sizes: Mapping[DeviceIdentity, int | None], facts: Facts
) -> tuple[tuple[Array, ...], list[StorageUnit]]:
    """A unit for each device that is not local, and the arrays that they seem to be of.

    Parameters
    ----------
    sizes:
        As :func:`device_sizes` gives them; a unit of unknown size has 0 bytes.
    """
    arrays: dict[str, Array] = {}
    units = []
    for device, size in sizes.items():
        if is_local(device, facts):
            continue
        array = array_of(device, facts)
        arrays.setdefault(array.id, array)
        kind = UnitKind.NFS_VOLUME if device.kind is DeviceKind.NFS else UnitKind.LUN
        name = str(device)
        units.append(StorageUnit(f"{array.id}/{name}", array.id, name, kind, size or 0, (device,)))
    return tuple(arrays.values()), units


def array_of(device: DeviceIdentity, facts: Facts) -> Array:
    """The array that a device seems to be of."""
    if device.kind is DeviceKind.NFS:
        server = device.value.partition(":/")[0]
        return Array(f"nfs {server}", server)
    known = facts.get(device)
    name = f"{known.vendor} {known.model}".strip() if known else ""
    if not name or known is None:
        return Array(UNKNOWN_ARRAY, UNKNOWN_ARRAY)
    return Array(name, name, known.vendor, known.model)
