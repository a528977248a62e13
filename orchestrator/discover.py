"""Reading the estate from the drivers themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from ..drivers.contracts import ArrayDriver, HypervisorDriver
from ..drivers.records import (
    Array,
    ArrayId,
    DeviceIdentity,
    Estate,
    Inventory,
    StorageUnit,
    UnitId,
    VCenterId,
)

T = TypeVar("T")


async def discover(
    hypervisors: Mapping[VCenterId, HypervisorDriver],
    arrays: Mapping[ArrayId, ArrayDriver],
    descriptions: Sequence[Array] = (),
) -> Estate:
    """Ask every vCenter what it holds and every array which devices are its own.

    Parameters
    ----------
    descriptions:
        Names, vendors and models of arrays, where known; other arrays go by their identifier.

    Raises
    ------
    DriverError
        A driver could not answer.
    """
    inventory = merged(await _all([driver.inventory() for driver in hypervisors.values()]))
    devices = _devices(inventory)
    answers = await _all([driver.resolve(devices) for driver in arrays.values()])
    units: dict[UnitId, StorageUnit] = {}
    for answer in answers:
        for device in devices:
            unit = answer.get(device)
            if unit is not None:
                units[unit.id] = unit
    known = {description.id: description for description in descriptions}
    return Estate(
        inventory=inventory,
        arrays=tuple(known.get(array_id, Array(array_id, array_id)) for array_id in arrays),
        units=tuple(units.values()),
    )


def merged(inventories: Sequence[Inventory]) -> Inventory:
    """Several inventories as one."""
    return Inventory(
        vcenters=tuple(item for one in inventories for item in one.vcenters),
        clusters=tuple(item for one in inventories for item in one.clusters),
        hosts=tuple(item for one in inventories for item in one.hosts),
        datastores=tuple(item for one in inventories for item in one.datastores),
        vms=tuple(item for one in inventories for item in one.vms),
    )


def _devices(inventory: Inventory) -> list[DeviceIdentity]:
    """Every device under a datastore or a raw mapping, once, in inventory order."""
    found: dict[DeviceIdentity, None] = {}
    for store in inventory.datastores:
        found.update(dict.fromkeys(store.extents))
    for vm in inventory.vms:
        for disk in vm.disks:
            if disk.raw_device is not None:
                found[disk.raw_device] = None
    return list(found)


async def _all(calls: Sequence[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*calls))
