"""The cabling of a generated estate: vCenters, clusters, hosts, datastores, LUNs and volumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

from ..drivers.records import (
    Array,
    ArrayId,
    Cluster,
    Datastore,
    DatastoreKind,
    DeviceIdentity,
    DeviceKind,
    Host,
    StorageUnit,
    UnitKind,
    VCenter,
)

TIB = 2**40


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of everything a cabling has; see GeneratedEstate for their meaning."""

    datastores: int
    arrays: int
    vcenters: int
    clusters: int
    hosts: int
    neighbourhood: int
    local_datastores: int
    nfs_share: float
    multi_extent_share: float


@dataclass(slots=True)
class Store:
    """A datastore before its size is known."""

    id: str
    name: str
    kind: DatastoreKind
    vcenter_id: str
    array_id: ArrayId | None
    devices: tuple[DeviceIdentity, ...]
    used_bytes: int = 0


@dataclass(slots=True)
class Neighbourhood:
    """Datastores on one array that the hosts of one cluster share."""

    array_index: int
    vcenter_id: str
    stores: list[Store]
    weights: list[float]
    host_ids: list[str]


class Cabling:
    """Everything under the VMs of a generated estate.

    Parameters
    ----------
    counts:
        How many of each.
    draw:
        A source of uniform numbers in [0, 1), called in a fixed order.
    """

    def __init__(self, counts: Counts, draw: Callable[[], float]) -> None:
        self.counts = counts
        self.draw = draw
        self.arrays = tuple(
            Array(f"array-{i + 1}", f"Array {i + 1}", "model", "dual controller")
            for i in range(counts.arrays)
        )
        self._lun_numbers = [0] * counts.arrays
        self._unit_ids: dict[DeviceIdentity, str] = {}
        self._raw_units: list[StorageUnit] = []
        self.vcenters = tuple(
            VCenter(f"vc-{i + 1}", f"vcenter-{i + 1}", "7.0.3") for i in range(counts.vcenters)
        )
        self.clusters = self._clusters()
        self.hosts = self._hosts()
        self.areas = self._neighbourhoods()
        self.local = self._local_stores()

    def _clusters(self) -> tuple[Cluster, ...]:
        clusters = []
        for i in range(self.counts.clusters):
            vcenter_id = self.vcenters[i % len(self.vcenters)].id
            name = f"cluster-{i + 1:02d}"
            clusters.append(Cluster(f"{vcenter_id}/{name}", vcenter_id, name))
        return tuple(clusters)

    def _hosts(self) -> tuple[Host, ...]:
        hosts = []
        for i in range(self.counts.hosts):
            cluster = self.clusters[i % len(self.clusters)]
            vcenter_id = cluster.vcenter_id
            name = f"esx-{i + 1:03d}"
            hosts.append(Host(f"{vcenter_id}/{name}", vcenter_id, name, cluster.id, "7.0.3"))
        return tuple(hosts)

    def _neighbourhoods(self) -> list[Neighbourhood]:
        host_ids: dict[str | None, list[str]] = {cluster.id: [] for cluster in self.clusters}
        for host in self.hosts:
            host_ids[host.cluster_id].append(host.id)
        size, datastores = self.counts.neighbourhood, self.counts.datastores
        areas = []
        for n, first in enumerate(range(0, datastores, size)):
            cluster = self.clusters[n % len(self.clusters)]
            array_index = n % self.counts.arrays
            stores = [
                self._store(index, array_index, cluster.vcenter_id)
                for index in range(first, min(first + size, datastores))
            ]
            # Datastores fill unevenly: between half and one and a half of the mean.
            weights = list(accumulate(0.5 + self.draw() for _ in stores))
            areas.append(
                Neighbourhood(
                    array_index, cluster.vcenter_id, stores, weights, host_ids[cluster.id]
                )
            )
        return areas

    def _store(self, index: int, array_index: int, vcenter_id: str) -> Store:
        """Datastore number ``index`` of the estate, NFS or VMFS as the shares come out."""
        array = self.arrays[array_index]
        share = self.counts.nfs_share
        # Spread evenly over the estate: every neighbourhood gets its part of both kinds.
        nfs = int((index + 1) * share + 1e-9) > int(index * share + 1e-9)
        name = f"{'nfs' if nfs else 'vmfs'}-{index + 1:02d}"
        store_id = f"{vcenter_id}/{name}"
        if nfs:
            device = DeviceIdentity(
                DeviceKind.NFS, f"nas-{array_index + 1}.example:/vol/{name.replace('-', '_')}"
            )
            self._unit_ids[device] = f"{array.id}/vol-{index + 1:02d}"
            return Store(store_id, name, DatastoreKind.NFS, vcenter_id, array.id, (device,))
        extents = 2 if self.draw() < self.counts.multi_extent_share else 1
        devices = tuple(self.lun(array_index) for _ in range(extents))
        return Store(store_id, name, DatastoreKind.VMFS, vcenter_id, array.id, devices)

    def lun(self, array_index: int) -> DeviceIdentity:
        """A new LUN on an array, and the identity under which hosts know it."""
        self._lun_numbers[array_index] += 1
        number = self._lun_numbers[array_index]
        device = DeviceIdentity(DeviceKind.NAA, f"6000{array_index + 1:012x}{number:016x}")
        self._unit_ids[device] = f"{self.arrays[array_index].id}/lun-{number:03d}"
        return device

    def _local_stores(self) -> list[Store]:
        stores = []
        for i in range(self.counts.local_datastores):
            host = self.hosts[i % len(self.hosts)]
            name = f"local-{host.name}-{i + 1:02d}"
            device = DeviceIdentity(DeviceKind.LOCAL, f"vmhba0:C0:T{i}:L0")
            stores.append(
                Store(
                    f"{host.vcenter_id}/{name}",
                    name,
                    DatastoreKind.VMFS,
                    host.vcenter_id,
                    None,
                    (device,),
                )
            )
        return stores

    def add_raw_unit(self, device: DeviceIdentity, array_index: int, size_bytes: int) -> None:
        """Keep a LUN that a VM uses directly as one of the estate's units."""
        unit_id = self._unit_ids[device]
        array_id = self.arrays[array_index].id
        name = unit_id.partition("/")[2]
        self._raw_units.append(
            StorageUnit(unit_id, array_id, name, UnitKind.LUN, size_bytes, (device,))
        )

    def datastores(self) -> tuple[Datastore, ...]:
        """Every datastore, large enough for what VMs put on it."""
        stores = [store for area in self.areas for store in area.stores]
        return tuple(self._datastore(store) for store in stores + self.local)

    def units(self) -> tuple[StorageUnit, ...]:
        """Every unit of every array."""
        stores = [store for area in self.areas for store in area.stores]
        return tuple(unit for store in stores for unit in self._units(store)) + tuple(
            self._raw_units
        )

    def _datastore(self, store: Store) -> Datastore:
        capacity = _capacity_bytes(store.used_bytes)
        return Datastore(
            store.id,
            store.vcenter_id,
            store.name,
            store.kind,
            store.devices,
            capacity,
            capacity - store.used_bytes,
        )

    def _units(self, store: Store) -> list[StorageUnit]:
        assert store.array_id is not None, "a local datastore has no unit"  # noqa: S101
        kind = UnitKind.NFS_VOLUME if store.kind is DatastoreKind.NFS else UnitKind.LUN
        size = _capacity_bytes(store.used_bytes) // len(store.devices)
        return [
            StorageUnit(
                self._unit_ids[device],
                store.array_id,
                self._unit_ids[device].partition("/")[2],
                kind,
                size,
                (device,),
            )
            for device in store.devices
        ]


def _capacity_bytes(used_bytes: int) -> int:
    """A datastore is bought in TiB and kept at most three quarters full."""
    return max(1, -(-used_bytes * 4 // (3 * TIB))) * TIB
