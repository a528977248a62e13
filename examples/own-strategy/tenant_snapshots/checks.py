"""What must always hold here, beside what Stillframe checks itself."""

from __future__ import annotations

from collections.abc import Iterator

from stillframe.explorer.evidence import Evidence

from .grouping import tenant_of


def tenants_are_whole(evidence: Evidence) -> Iterator[str]:
    """All VMs of a tenant that a job has in the catalogue show one point in time on each array."""
    tenants = {vm.id: tenant_of(vm) for vm in evidence.estate.inventory.vms}
    cuts: dict[tuple[str, str, str], set[str]] = {}
    for entry in evidence.entries:
        for cut in entry.cuts:
            place = (entry.job_id, tenants[entry.vm_id], cut.array_id)
            cuts.setdefault(place, set()).add(cut.tag)
    for (job_id, tenant, array_id), tags in sorted(cuts.items()):
        if len(tags) > 1:
            yield f"job {job_id} cut tenant {tenant} {len(tags)} times on {array_id}"
