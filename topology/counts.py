"""How many of everything an estate holds."""

from __future__ import annotations

from ..drivers.records import Estate


def counts_of(estate: Estate, protectable: int) -> dict[str, int]:
    """Counts by plural noun, in the order in which they are shown.

    Parameters
    ----------
    protectable:
        VMs that nothing keeps from being protected.
    """
    inventory = estate.inventory
    return {
        "vms": len(inventory.vms),
        "templates": sum(vm.is_template for vm in inventory.vms),
        "disks": sum(len(vm.disks) for vm in inventory.vms),
        "hosts": len(inventory.hosts),
        "clusters": len(inventory.clusters),
        "vcenters": len(inventory.vcenters),
        "datastores": len(inventory.datastores),
        "arrays": len(estate.arrays),
        "units": len(estate.units),
        "protectable_vms": protectable,
    }
