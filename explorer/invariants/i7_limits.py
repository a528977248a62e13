"""I7: never more at once than allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...drivers.records import Vm
from ...orchestrator.events import Kind
from ..calls import CONSOLIDATE, CREATE, REMOVE, SNAPSHOT, Call
from ..evidence import Evidence
from ..report import Violation

ID = "I7 limits"
SENTENCE = "Concurrency limits are never exceeded."

Scope = tuple[str, str]
"""Name of the limit, and the object it is on."""


def check(evidence: Evidence) -> list[Violation]:
    """Count the calls that each process had under way, per vCenter, host, datastore and array."""
    vms = {vm.id: vm for vm in evidence.estate.inventory.vms}
    elsewhere = _movers(evidence)
    limits = _limits(evidence)
    by_scope: dict[tuple[int, Scope], list[Call]] = {}
    scopes_of: dict[tuple[str, str], tuple[Scope, ...]] = {}
    for call in evidence.calls_of(CREATE, REMOVE, CONSOLIDATE, SNAPSHOT):
        asked = (call.operation, call.subject)
        if asked not in scopes_of:
            scopes_of[asked] = tuple(_scopes(call, vms, elsewhere))
        for scope in scopes_of[asked]:
            by_scope.setdefault((call.life, scope), []).append(call)
    changes: list[tuple[float, int, int, Scope]] = []
    for (life, scope), calls in by_scope.items():
        limit = _limit(limits, scope)
        if limit is None or len(calls) <= limit:
            continue
        for call in calls:
            changes.append((call.begun_s, 1, life, scope))
            if call.ended_s is not None:
                changes.append((call.ended_s, 0, life, scope))
    # Where one call ends when another begins, the place is free: ends (0) sort before begins (1).
    changes.sort(key=lambda change: change[:2])
    return [*_over(changes, limits), *_groups(evidence)]


def _groups(evidence: Evidence) -> list[Violation]:
    """Groups of one job that ran at once, by its own events."""
    limit = evidence.spec.limits.groups
    if limit is None or len(evidence.of(Kind.GROUP_STARTED)) <= limit:
        return []
    running = 0
    for at_s, kind, _, subject, _ in evidence.rows:
        if kind == Kind.JOB_STARTED:
            running = 0
        elif kind == Kind.GROUP_STARTED:
            running += 1
        elif kind == Kind.GROUP_FINISHED and running:
            running -= 1
        if running > limit:
            return [
                Violation(ID, f"{running} groups ran at once, groups is {limit}", subject, at_s)
            ]
    return []


def _over(
    changes: Iterable[tuple[float, int, int, Scope]], limits: Mapping[str, int | None]
) -> list[Violation]:
    busy: dict[tuple[int, Scope], int] = {}
    found: dict[tuple[int, Scope], Violation] = {}
    for at_s, begins, life, scope in changes:
        key = (life, scope)
        busy[key] = count = busy.get(key, 0) + (1 if begins else -1)
        limit = _limit(limits, scope)
        if begins and limit is not None and count > limit and key not in found:
            sentence = f"process {life} had {count} calls at once, {scope[0]} is {limit}"
            found[key] = Violation(ID, sentence, scope[1], at_s)
    return list(found.values())


def _limit(limits: Mapping[str, int | None], scope: Scope) -> int | None:
    """Of all objects of a kind alike, or of this one."""
    name, object_id = scope
    return limits[name] if name in limits else limits.get(f"{name} {object_id}")


def _limits(evidence: Evidence) -> dict[str, int | None]:
    limits = evidence.spec.limits
    found: dict[str, int | None] = {
        name: getattr(limits, name)
        for name in type(limits).model_fields
        if name not in ("groups", "calls_per_array")
    }
    for array_id, array in evidence.world.arrays.items():
        most = array.capabilities.group_operations
        if limits.calls_per_array is not None:
            most = min(most, limits.calls_per_array)
        found[f"calls_per_array {array_id}"] = most
    return found


def _movers(evidence: Evidence) -> frozenset[str]:
    """VMs that changed host or datastore: a process counts them where it saw them last."""
    kinds = ("world.vm.migrating", "world.vm.relocated", "world.vm.restarted")
    return frozenset(row[3] for row in evidence.of(*kinds))


def _scopes(call: Call, vms: Mapping[str, Vm], elsewhere: frozenset[str]) -> Iterator[Scope]:
    if call.operation == SNAPSHOT:
        yield "calls_per_array", call.subject
        return
    vm = vms[call.subject]
    what = "create" if call.operation == CREATE else "remove"
    yield f"{what}_per_vcenter", vm.vcenter_id
    if vm.id in elsewhere:
        return
    if vm.host_id is not None:
        yield f"{what}_per_host", vm.host_id
    for store_id in dict.fromkeys(
        disk.datastore_id for disk in vm.disks if disk.in_vm_snapshot and disk.datastore_id
    ):
        yield f"{what}_per_datastore", store_id
