"""What a scenario offers an exploration to choose from; worked out once per process.

A run takes a few VMs of an estate and what belongs to them. So the largest scenario is explored as
quickly as the smallest, and over many seeds every corner of it has its turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..drivers.records import (
    Datastore,
    DatastoreId,
    Estate,
    Host,
    HostId,
    Inventory,
    StorageUnit,
    UnitId,
    Vm,
    VmId,
)
from ..orchestrator.select import select
from ..scenarios.schema import Scenario
from ..topology.graph import Topology

_REMEMBERED = 32
_SPARE_HOSTS = 2
_SPARE_STORES = 2


class Ground:
    """One scenario's estate, indexed.

    Attributes
    ----------
    estate:
        All of it.
    vms:
        Its VMs by identifier.
    chosen:
        The VMs that the scenario's job selects.
    remarkable:
        VMs that do not simply lie on one unit: spanning, raw mapped, independent disks, foreign
        snapshots, switched off, templates, on local disks.
    units_of, array_of:
        Units of each VM, and the array of each unit.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.estate = estate = scenario.build_estate()
        inventory = estate.inventory
        topology = Topology(estate)
        self.vms: dict[VmId, Vm] = {vm.id: vm for vm in inventory.vms}
        self.chosen: tuple[VmId, ...] = tuple(vm.id for vm in select(topology, scenario.job.select))
        self.chosen_set = frozenset(self.chosen)
        self.array_of = {unit.id: unit.array_id for unit in estate.units}
        self.units_of: dict[VmId, tuple[UnitId, ...]] = {
            vm_id: topology.units_of_vm(vm_id, physical_raw=True, independent=True)
            for vm_id in self.vms
        }
        self.remarkable: tuple[VmId, ...] = tuple(
            vm.id for vm in inventory.vms if self._is_remarkable(vm)
        )
        self._on: dict[UnitId, list[VmId]] = {}
        for vm_id, units in self.units_of.items():
            for unit in units:
                self._on.setdefault(unit, []).append(vm_id)
        self._unit_of = {device: unit for unit in estate.units for device in unit.devices}
        self._hosts: dict[HostId, Host] = {host.id: host for host in inventory.hosts}
        self._stores: dict[DatastoreId, Datastore] = {
            store.id: store for store in inventory.datastores
        }
        self._order = {vm.id: n for n, vm in enumerate(inventory.vms)}

    def _is_remarkable(self, vm: Vm) -> bool:
        return (
            len(self.units_of[vm.id]) != 1
            or vm.snapshot_count > 0
            or vm.is_template
            or any(not disk.in_vm_snapshot or disk.raw_device is not None for disk in vm.disks)
        )

    def neighbours(self, vm_id: VmId) -> list[VmId]:
        """VMs that share a unit with this one, in estate order per unit; at most 24 per unit."""
        found = dict.fromkeys(
            other for unit in self.units_of[vm_id] for other in self._on[unit][:24]
        )
        found.pop(vm_id, None)
        return list(found)

    def part(self, vm_ids: Iterable[VmId], foreign: Sequence[tuple[VmId, int]]) -> Estate:
        """The estate of only these VMs: their hosts, datastores and units, and a few spare ones.

        Spare hosts and datastores, of the same vCenters, are where events can move a VM to.
        """
        wanted = sorted(vm_ids, key=self._order.__getitem__)
        counts = dict(foreign)
        vms = tuple(
            replace(vm, snapshot_count=counts[vm.id]) if vm.id in counts else vm
            for vm in map(self.vms.__getitem__, wanted)
        )
        inventory = self.estate.inventory
        vcenter_ids = dict.fromkeys(vm.vcenter_id for vm in vms)
        hosts = self._hosts_of(vms, vcenter_ids)
        stores = self._stores_of(vms, vcenter_ids)
        units = self._units_under(vms, stores)
        array_ids = dict.fromkeys(unit.array_id for unit in units)
        cluster_ids = dict.fromkeys(host.cluster_id for host in hosts)
        return Estate(
            inventory=Inventory(
                vcenters=tuple(one for one in inventory.vcenters if one.id in vcenter_ids),
                clusters=tuple(one for one in inventory.clusters if one.id in cluster_ids),
                hosts=hosts,
                datastores=stores,
                vms=vms,
            ),
            arrays=tuple(one for one in self.estate.arrays if one.id in array_ids),
            units=units,
        )

    def _hosts_of(self, vms: Sequence[Vm], vcenter_ids: dict[str, None]) -> tuple[Host, ...]:
        used = {vm.host_id: None for vm in vms if vm.host_id is not None}
        spare = 0
        for host in self.estate.inventory.hosts:
            if spare >= _SPARE_HOSTS:
                break
            if host.id not in used and host.vcenter_id in vcenter_ids:
                used[host.id] = None
                spare += 1
        return tuple(self._hosts[host_id] for host_id in used)

    def _stores_of(self, vms: Sequence[Vm], vcenter_ids: dict[str, None]) -> tuple[Datastore, ...]:
        used: dict[DatastoreId, None] = {}
        for vm in vms:
            if vm.home_datastore_id is not None:
                used[vm.home_datastore_id] = None
            for disk in vm.disks:
                if disk.datastore_id is not None:
                    used[disk.datastore_id] = None
        for rule in self.scenario.world.working_directories:
            for store in self.estate.inventory.datastores:
                if rule.datastore in (store.id, store.name):
                    used[store.id] = None
        spare = 0
        for store in self.estate.inventory.datastores:
            if spare >= _SPARE_STORES:
                break
            if store.id not in used and store.vcenter_id in vcenter_ids:
                used[store.id] = None
                spare += 1
        return tuple(self._stores[store_id] for store_id in used)

    def _units_under(
        self, vms: Sequence[Vm], stores: Sequence[Datastore]
    ) -> tuple[StorageUnit, ...]:
        devices = dict.fromkeys(device for store in stores for device in store.extents)
        for vm in vms:
            devices.update(
                (disk.raw_device, None) for disk in vm.disks if disk.raw_device is not None
            )
        units: dict[UnitId, StorageUnit] = {}
        for device in devices:
            unit = self._unit_of.get(device)
            if unit is not None:
                units[unit.id] = unit
        return tuple(units.values())


_known: dict[int, Ground] = {}


def ground_of(scenario: Scenario) -> Ground:
    """The ground of a scenario; the same object is only worked out once.

    Raises
    ------
    InputError
        The scenario's estate cannot be used.
    """
    ground = _known.get(id(scenario))
    if ground is None or ground.scenario is not scenario:
        if len(_known) >= _REMEMBERED:
            _known.clear()
        ground = _known[id(scenario)] = Ground(scenario)
    return ground
