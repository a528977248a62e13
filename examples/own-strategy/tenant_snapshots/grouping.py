"""One group for each tenant: all VMs of a tenant are cut at one point in time.

The applications of a tenant talk to each other over the network, so that a restore of some of its
VMs to another minute than the rest would not fit together, whatever the disks say.
"""

from __future__ import annotations

from collections.abc import Sequence

from stillframe import JobSpec, PlannedGroup, Topology
from stillframe.drivers.records import Vm

PREFIX = "tenant:"


def tenant_of(vm: Vm) -> str:
    """The tenant that a VM's tag names; "none" for a VM without such a tag."""
    return next((tag.removeprefix(PREFIX) for tag in vm.tags if tag.startswith(PREFIX)), "none")


def per_tenant(topology: Topology, vms: Sequence[Vm], spec: JobSpec) -> list[PlannedGroup]:
    """A grouping strategy: one group for each tenant, in the order of their names."""
    members: dict[str, list[str]] = {}
    for vm in vms:
        members.setdefault(tenant_of(vm), []).append(vm.id)
    groups = []
    for tenant, vm_ids in sorted(members.items()):
        units = dict.fromkeys(
            unit
            for vm_id in vm_ids
            for unit in topology.units_of_vm(
                vm_id, physical_raw=spec.physical_raw_disks, independent=spec.independent_disks
            )
        )
        groups.append(PlannedGroup(tenant, tuple(vm_ids), tuple(units)))
    return groups
