"""Drawn options that concern the world: faults, events, and how fast its systems are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..drivers.records import Datastore, DatastoreId, PowerState, VmId
from ..sim.faults import ActiveSite, Faults, Site
from .dice import Dice
from .ground import Ground
from .options import PlannedEvent

_NO_FAULTS = Faults()
_CLAIMED = 0.9
"""An array does not tell what is under way: what begins later than ``settle`` is nobody's claim."""
_CUES = (
    "world.vm.snapshot",
    "vm.located",
    "array.snapshot.requested",
    "world.array.fenced",
    "world.array.cut",
    "array.snapshot.completed",
    "vm.release.requested",
)
"""Rows of the log at which an event hits a job where it hurts."""
_SITES = tuple(Site)


def drawn_faults(dice: Dice, timeouts: Mapping[str, float]) -> Faults:
    """A few sites, some of them likely; none at all in one run of four.

    What is late is late by the measure of ``timeouts``: beyond the caller's patience, and mostly
    within the time for which he looks for it.
    """
    if dice.chance(0.25, "no faults"):
        return _NO_FAULTS
    wanted = dice.count(1, 7, "how many sites")
    names = {dice.pick(_SITES, "site", n): None for n in range(wanted)}
    sites = {
        site: ActiveSite.model_construct(
            fire=dice.size(0.03, 1.0, "fire", site),
            most=dice.count(1, 4, "most", site) if dice.chance(0.4, "has most", site) else None,
        )
        for site in names
    }
    create_s = timeouts.get("create", 300.0)
    array_s = timeouts.get("array", 600.0)
    settle_s = timeouts.get("settle", 900.0)
    return Faults.model_construct(
        sites=sites,
        budget=dice.count(1, 12, "budget"),
        slow_task=create_s * dice.size(0.5, 6.0, "slow task"),
        late_group=min(array_s * dice.size(0.5, 4.0, "late group"), _CLAIMED * settle_s),
        session=dice.size(1.0, 120.0, "session"),
        silence=dice.size(1.0, 300.0, "silence"),
        in_use=dice.size(1.0, 600.0, "in use"),
    )


def planned_events(
    ground: Ground, dice: Dice, vms: tuple[VmId, ...], plan_age_s: float
) -> tuple[PlannedEvent, ...]:
    """What happens beside the job, at times that are likely to hit it."""
    part = ground.part(vms, ())
    stores = part.inventory.datastores
    events = []
    for n in range(dice.count(1, 5, "how many events")):
        vm_id = dice.pick(vms, "event VM", n)
        vm = ground.vms[vm_id]
        before, at, _ = dice.three("event at", n)
        at_s = at * plan_age_s if before < 0.3 else plan_age_s + 40.0 * at * at
        values: dict[str, Any] = {"at_s": float(f"{at_s:.4g}"), "vm": vm_id, "disks": None}
        kind = dice.share("event kind", n)
        hosts = [host.id for host in part.inventory.hosts if host.vcenter_id == vm.vcenter_id]
        reach = [store.id for store in stores if store.vcenter_id == vm.vcenter_id]
        if kind < 0.5 and reach and not vm.is_template:
            keys = [disk.key for disk in vm.disks]
            one = len(keys) > 1 and dice.chance(0.4, "one disk", n)
            values["disks"] = (dice.pick(keys, "moving disk", n),) if one else None
            if dice.chance(0.5, "quick", n):
                values["copy_bytes"] = dice.count(0, 20_000_000, "copy", n)
            values |= {"kind": "storage-vmotion", "target": dice.pick(reach, "to store", n)}
        elif kind < 0.65 and hosts and vm.host_id is not None:
            values |= {"kind": "vmotion", "target": dice.pick(hosts, "to host", n)}
        elif kind < 0.72:
            values |= {"kind": "snapshot-removed"}
        elif kind < 0.8 and vm.host_id is not None:
            values |= {"kind": "host-lost", "target": vm.host_id, "vm": ""}
        else:
            to = dice.pick((PowerState.ON, PowerState.OFF, PowerState.SUSPENDED), "power", n)
            values |= {"kind": "power", "target": to.value, "cut": dice.chance(0.5, "cut", n)}
        if dice.chance(0.3, "on event", n):
            kind_of_row = dice.pick(_CUES, "cue", n)
            values["on_event"] = f"{kind_of_row}#{dice.count(1, 3, 'nth cue', n)}"
        events.append(PlannedEvent.model_construct(**values))
    if dice.chance(0.15, "there and back"):
        events += _there_and_back(ground, dice, vms, stores)
    if dice.chance(0.15, "between cuts"):
        events += _between_cuts(ground, dice, vms)
    return tuple(events)


def _between_cuts(ground: Ground, dice: Dice, vms: tuple[VmId, ...]) -> list[PlannedEvent]:
    """A disk that joins another of its VM when one of their units is cut: it is in no image."""
    spanning = [
        vm_id
        for vm_id in vms
        if len({disk.datastore_id for disk in ground.vms[vm_id].disks if disk.datastore_id}) > 1
    ]
    if not spanning:
        return []
    vm = ground.vms[dice.pick(spanning, "spanning VM")]
    disk = dice.pick([disk for disk in vm.disks if disk.datastore_id], "joining disk")
    places = (one.datastore_id for one in vm.disks if one.datastore_id != disk.datastore_id)
    target = next(place for place in places if place is not None)
    cue = dice.pick(("world.array.fenced#1", "world.array.cut#1", "world.array.cut#2"), "at cut")
    return [_quick_move(vm.id, disk.key, target, cue)]


def _quick_move(vm_id: VmId, disk_key: int, target: DatastoreId, cue: str) -> PlannedEvent:
    """A storage vMotion that takes no longer than its switch."""
    return PlannedEvent.model_construct(
        at_s=0.0,
        vm=vm_id,
        kind="storage-vmotion",
        target=target,
        disks=(disk_key,),
        copy_bytes=0,
        on_event=cue,
    )


def _there_and_back(
    ground: Ground, dice: Dice, vms: tuple[VmId, ...], stores: Sequence[Datastore]
) -> list[PlannedEvent]:
    """A disk that leaves when a cut is asked for and is back soon after: no look sees it away."""
    vm = ground.vms[dice.pick(vms, "traveller")]
    lying = [disk for disk in vm.disks if disk.datastore_id is not None]
    if not lying or vm.is_template:
        return []
    disk = dice.pick(lying, "travelling disk")
    away = [
        store.id
        for store in stores
        if store.vcenter_id == vm.vcenter_id and store.id != disk.datastore_id
    ]
    if not away:
        return []
    number = dice.count(1, 2, "which cut")
    back = str(disk.datastore_id)
    return [
        _quick_move(vm.id, disk.key, dice.pick(away, "away"), f"array.snapshot.requested#{number}"),
        _quick_move(vm.id, disk.key, back, f"world.array.cut#{number}"),
    ]


def hypervisor_numbers(dice: Dice) -> tuple[tuple[str, float | int | str | None], ...]:
    """Numbers of the hypervisor's profile, some of them."""
    drawn: dict[str, float | int | str | None] = {
        "vcenter_tasks": dice.count(1, 8, "vCenter tasks"),
        "host_tasks": dice.count(1, 3, "host tasks"),
        "snapshot_depth": dice.count(1, 4, "depth"),
        "task_latency": dice.size(0.05, 5.0, "task latency"),
        "linux_freeze": dice.size(0.05, 20.0, "linux freeze"),
        "windows_freeze": dice.size(0.5, 20.0, "windows freeze"),
        "merge_rate": dice.size(1e6, 1e9, "merge rate"),
        "storage_vmotion_rate": dice.size(1e8, 1e11, "storage vMotion rate"),
        "vmotion": dice.size(0.5, 60.0, "vMotion"),
        "vmotion_switchover": dice.size(0.01, 2.0, "switchover"),
        "busy_retry": dice.size(0.2, 10.0, "busy retry"),
        "without_tools": dice.pick(("refuse", "ignore"), "without tools"),
    }
    return tuple(
        (name, value) for name, value in drawn.items() if dice.chance(0.3, "differs", name)
    )


def array_numbers(dice: Dice) -> tuple[tuple[str, float | int | str | None], ...]:
    """Numbers of every array's profile, some of them."""
    drawn: dict[str, float | int] = {
        "units_per_group": dice.count(1, 3, "units per group"),
        "snapshots_per_unit": dice.count(1, 4, "snapshots per unit"),
        "group_operations": dice.count(1, 3, "group operations"),
        "management_calls": dice.count(1, 2, "management calls"),
        "management_latency": dice.size(0.02, 3.0, "management latency"),
        "snapshot_base": dice.size(0.1, 20.0, "snapshot base"),
        "snapshot_per_unit": dice.size(0.01, 5.0, "snapshot per unit"),
        "fence_base": dice.size(0.05, 8.0, "fence base"),
        "delete_latency": dice.size(0.1, 60.0, "delete latency"),
    }
    chosen: list[tuple[str, float | int | str | None]] = [
        (name, value) for name, value in drawn.items() if dice.chance(0.25, "array", name)
    ]
    if dice.chance(0.4, "tight pool"):
        policy = dice.pick(("invalidate-snapshots", "fail-writes"), "on pool full")
        chosen.append(("pool_reserve", dice.size(1e-8, 1e-3, "pool reserve")))
        chosen.append(("pool_minimum_free", 0.0))
        chosen.append(("on_pool_full", policy))
    return tuple(chosen)
