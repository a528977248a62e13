"""What all modelled hypervisors of a world stand on: datastores, units, arrays, guests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from ..drivers.records import (
    ArrayId,
    Datastore,
    DatastoreId,
    DatastoreKind,
    DeviceIdentity,
    Disk,
    Estate,
    HostId,
    StorageUnit,
    UnitId,
    Vm,
)
from ..orchestrator.events import EventLog
from .dataplane import DataPlane
from .draws import Draws
from .env import SimEnv
from .faultsites import FaultSites
from .fluid import FluidServer
from .guests import Guests, Shares
from .profiles import HypervisorProfile
from .slots import SerialLock
from .writers import Writers

Routes = tuple[tuple[FluidServer, float], ...]
"""The bandwidth servers that a transfer goes through, with each one's share of the bytes."""


class Port(Protocol):
    """What transfers need of an array: :class:`.array.ModelArray` has it."""

    io: FluidServer

    def refresh_load(self) -> None:
        """Bring the background load of ``io`` up to date."""


OpenDelta = tuple[int, float, float, Vm]
"""Guest, open from, open until, and the VM with its placement at the end."""


class StorageMap:
    """Which units lie under which datastore, and the metadata lock of each datastore.

    Devices that belong to no unit of the estate (local disks) are left out: what is on them
    reaches no array.
    """

    __slots__ = ("_unit_of", "_units_of", "datastores", "locks")

    def __init__(self, estate: Estate) -> None:
        self._unit_of: dict[DeviceIdentity, StorageUnit] = {
            device: unit for unit in estate.units for device in unit.devices
        }
        self.datastores: dict[DatastoreId, Datastore] = {
            store.id: store for store in estate.inventory.datastores
        }
        self.locks: dict[DatastoreId, SerialLock] = {
            store.id: SerialLock()
            for store in estate.inventory.datastores
            if store.kind is DatastoreKind.VMFS
        }
        self._units_of: dict[DatastoreId, tuple[tuple[UnitId, float], ...]] = {
            store.id: _by_capacity(
                unit for unit in map(self._unit_of.get, store.extents) if unit is not None
            )
            for store in estate.inventory.datastores
        }

    def shares(self, vm: Vm) -> Shares:
        """The units under a VM's disks, each with its share of the VM's capacity."""
        capacity = sum(disk.capacity_bytes for disk in vm.disks)
        if not capacity:
            return ()
        shares: dict[UnitId, float] = {}
        for disk in vm.disks:
            part = disk.capacity_bytes / capacity
            for unit_id, share in self.units_under(disk):
                shares[unit_id] = shares.get(unit_id, 0.0) + part * share
        return tuple(shares.items())

    def units_under(self, disk: Disk) -> tuple[tuple[UnitId, float], ...]:
        """The units under one disk, each with its share of the disk's bytes."""
        if disk.raw_device is not None:
            unit = self._unit_of.get(disk.raw_device)
            return ((unit.id, 1.0),) if unit is not None else ()
        if disk.datastore_id is None:
            return ()
        return self._units_of.get(disk.datastore_id, ())


def _by_capacity(units: Iterable[StorageUnit]) -> tuple[tuple[UnitId, float], ...]:
    capacities: dict[UnitId, int] = {}
    for unit in units:
        capacities[unit.id] = unit.capacity_bytes
    total = sum(capacities.values())
    # Units without a size count alike.
    if not total:
        return tuple((unit_id, 1.0 / len(capacities)) for unit_id in capacities)
    return tuple((unit_id, size / total) for unit_id, size in capacities.items())


class Fabric:
    """The shared surroundings of the hypervisors.

    Attributes
    ----------
    delta_store:
        For VMs whose deltas do not lie beside their disks, the datastore they go to.
    add:
        ``log.add``: time, kind, group (always empty), subject, detail.
    sites:
        Where faults happen; None when none can, so that nothing asks.
    lost_hosts:
        Hosts that are lost and not back.
    plane:
        Who follows the data, in block fidelity; None in flow fidelity.
    history:
        Every delta of ours that is closed, for the growth curves.
    in_flight:
        Operations that the hypervisors work on now, whether anyone waits or not.
    writers:
        How much the guests of a host write; set by the world.
    """

    __slots__ = (
        "_port_of",
        "add",
        "delta_store",
        "draws",
        "env",
        "guests",
        "history",
        "in_flight",
        "log",
        "lost_hosts",
        "plane",
        "profile",
        "sites",
        "storage",
        "writers",
    )

    writers: Writers

    def __init__(
        self,
        env: SimEnv,
        profile: HypervisorProfile,
        sites: FaultSites,
        draws: Draws,
        log: EventLog,
        storage: StorageMap,
        guests: Guests,
        delta_store: Mapping[int, DatastoreId],
        plane: DataPlane | None = None,
    ) -> None:
        self.env = env
        self.profile = profile
        self.sites = sites.if_any()
        self.draws = draws
        self.log = log
        self.add = log.add
        self.storage = storage
        self.guests = guests
        self.delta_store = dict(delta_store)
        self.history: list[OpenDelta] = []
        self.in_flight = 0
        self.lost_hosts: dict[HostId, None] = {}
        self.plane = plane
        self._port_of: dict[UnitId, tuple[Port, Routes]] = {}

    def connect(self, units: Sequence[StorageUnit], ports: Mapping[ArrayId, Port]) -> None:
        """Say which array carries the transfers of each unit."""
        alone: dict[ArrayId, Routes] = {
            array_id: ((port.io, 1.0),) for array_id, port in ports.items()
        }
        self._port_of = {unit.id: (ports[unit.array_id], alone[unit.array_id]) for unit in units}

    def servers(self) -> list[FluidServer]:
        """The bandwidth of every array, each once."""
        ports = {id(port): port for port, _ in self._port_of.values()}
        return [port.io for port in ports.values()]

    def routes(self, shares: Shares) -> Routes:
        """The bandwidth behind these units, with shares of the bytes that add up to 1."""
        if len(shares) == 1:
            port, alone = self._port_of[shares[0][0]]
            port.refresh_load()
            return alone
        by_port: dict[int, tuple[Port, float]] = {}
        for unit_id, share in shares:
            port, _ = self._port_of[unit_id]
            _, before = by_port.get(id(port), (port, 0.0))
            by_port[id(port)] = (port, before + share)
        total = sum(share for _, share in by_port.values())
        for port, _ in by_port.values():
            port.refresh_load()
        return tuple((port.io, share / total) for port, share in by_port.values())

    def delta_shares(self, guest: int, vm: Vm) -> tuple[tuple[DatastoreId, float], ...]:
        """The datastores that a delta of this VM grows on, each with its share of the bytes."""
        elsewhere = self.delta_store.get(guest)
        if elsewhere is not None:
            return ((elsewhere, 1.0),)
        sizes: dict[DatastoreId, int] = {}
        for disk in vm.disks:
            store_id = disk.datastore_id if disk.in_vm_snapshot else None
            if store_id is not None:
                sizes[store_id] = sizes.get(store_id, 0) + disk.capacity_bytes
        total = sum(sizes.values())
        return tuple((store_id, size / total) for store_id, size in sizes.items() if total)
