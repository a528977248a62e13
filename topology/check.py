"""Whether an estate is consistent in itself, before a graph is built from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..drivers.records import DeviceIdentity, Estate, Inventory, Vm
from ..errors import StillframeError


def check_estate(estate: Estate) -> None:
    """Refuse an estate that names things twice or names things it does not hold.

    A device that no unit claims is not an error: what is known of the arrays is often partial
    (see :func:`stillframe.topology.queries.protectability`).

    Raises
    ------
    StillframeError
        A duplicate id, a reference to an object that does not exist or belongs to another
        vCenter, a device that two units claim, a datastore that lists one extent twice. The text
        names the object.
    """
    _check_inventory(estate.inventory)
    arrays = _unique("array", (array.id for array in estate.arrays))
    _unique("unit", (unit.id for unit in estate.units))
    owner: dict[DeviceIdentity, str] = {}
    for unit in estate.units:
        _refers("unit", unit.id, "array", unit.array_id, arrays)
        for device in unit.devices:
            other = owner.setdefault(device, unit.id)
            if other != unit.id:
                raise StillframeError(
                    f"device {str(device)!r} is claimed by units {other!r} and {unit.id!r}",
                    "a device is one unit of one array; correct the one that does not own it",
                )


def _check_inventory(inventory: Inventory) -> None:
    vcenters = _unique("vCenter", (vcenter.id for vcenter in inventory.vcenters))
    _unique("cluster", (cluster.id for cluster in inventory.clusters))
    _unique("host", (host.id for host in inventory.hosts))
    _unique("datastore", (datastore.id for datastore in inventory.datastores))
    _unique("VM", (vm.id for vm in inventory.vms))
    for cluster in inventory.clusters:
        _refers("cluster", cluster.id, "vCenter", cluster.vcenter_id, vcenters)
    clusters = {cluster.id: cluster.vcenter_id for cluster in inventory.clusters}
    for host in inventory.hosts:
        _refers("host", host.id, "vCenter", host.vcenter_id, vcenters)
        if host.cluster_id is not None:
            _refers("host", host.id, "cluster", host.cluster_id, clusters)
            _same_vcenter(
                "host",
                host.id,
                host.vcenter_id,
                "cluster",
                host.cluster_id,
                clusters[host.cluster_id],
            )
    for datastore in inventory.datastores:
        _refers("datastore", datastore.id, "vCenter", datastore.vcenter_id, vcenters)
        if len(set(datastore.extents)) < len(datastore.extents):
            raise StillframeError(f"datastore {datastore.id!r} lists one extent twice")
    hosts = {host.id: host.vcenter_id for host in inventory.hosts}
    datastores = {datastore.id: datastore.vcenter_id for datastore in inventory.datastores}
    for vm in inventory.vms:
        _refers("VM", vm.id, "vCenter", vm.vcenter_id, vcenters)
        _check_vm(vm, hosts, datastores)


def _check_vm(vm: Vm, hosts: dict[str, str], datastores: dict[str, str]) -> None:
    if vm.host_id is not None:
        _refers("VM", vm.id, "host", vm.host_id, hosts)
        _same_vcenter("VM", vm.id, vm.vcenter_id, "host", vm.host_id, hosts[vm.host_id])
    if vm.home_datastore_id is not None:
        home = vm.home_datastore_id
        _refers("home of VM", vm.id, "datastore", home, datastores)
        _same_vcenter("VM", vm.id, vm.vcenter_id, "datastore", home, datastores[home])
    keys: set[int] = set()
    for disk in vm.disks:
        if disk.key in keys:
            raise StillframeError(f"VM {vm.id!r} has two disks with key {disk.key}")
        keys.add(disk.key)
        place = disk.datastore_id
        if place is None:
            continue
        if place not in datastores:
            _refers(f"disk {disk.key} of VM", vm.id, "datastore", place, datastores)
        _same_vcenter("VM", vm.id, vm.vcenter_id, "datastore", place, datastores[place])


def _unique(kind: str, ids: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    for identifier in ids:
        if identifier in seen:
            raise StillframeError(f"{kind} id {identifier!r} is used twice")
        seen.add(identifier)
    return seen


def _refers(kind: str, name: str, target_kind: str, target: str, known: Collection[str]) -> None:
    if target not in known:
        raise StillframeError(
            f"{kind} {name!r} names {target_kind} {target!r}, which does not exist"
        )


def _same_vcenter(
    kind: str, name: str, vcenter_id: str, target_kind: str, target: str, target_vcenter_id: str
) -> None:
    if vcenter_id != target_vcenter_id:
        raise StillframeError(
            f"{kind} {name!r} of vCenter {vcenter_id!r} names {target_kind} {target!r} "
            f"of vCenter {target_vcenter_id!r}"
        )
