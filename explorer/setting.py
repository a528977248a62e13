"""From a scenario and options to what a run needs: estate, world, specification of the job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..drivers.contracts import GroupSnapshot, GroupSnapshotRef
from ..drivers.records import Estate, PowerState
from ..orchestrator.spec import (
    JobSpec,
    QuiesceOverride,
    Rule,
    Selection,
    StrategyName,
)
from ..scenarios.schema import Scenario
from ..sim.array import ModelArray
from ..sim.array_calls import Held
from ..sim.array_profiles import ArrayProfile, PoolFullPolicy
from ..sim.config import (
    DEFAULT_ARRAY,
    HostLostEvent,
    PowerEvent,
    SnapshotRemovedEvent,
    StorageVmotionEvent,
    VmotionEvent,
    WorldConfig,
    WorldEvent,
)
from ..sim.profiles import WithoutTools
from ..sim.world import World
from .ground import Ground, ground_of
from .options import PlannedEvent, RunOptions

_MOST_WRITES_PER_S = 2.0
"""In block fidelity. A run costs what its writes cost, and so many tell images apart: more runs
find more than more writes."""
_DEFAULT_ARRAYS = {DEFAULT_ARRAY: ArrayProfile()}
_NAMED = {"on_pool_full": PoolFullPolicy, "without_tools": WithoutTools}


class Setting(NamedTuple):
    """What a run needs; ``awaited`` are events of the world that follow on others."""

    ground: Ground
    estate: Estate
    config: WorldConfig
    events: tuple[WorldEvent, ...]
    awaited: tuple[tuple[str, WorldEvent], ...]
    spec: JobSpec
    second_spec: JobSpec
    plan_age_s: float


def setting_of(scenario: Scenario, options: RunOptions) -> Setting:
    """Resolve options against a scenario.

    Raises
    ------
    InputError
        The scenario's estate cannot be used.
    """
    ground = ground_of(scenario)
    estate = ground.estate
    if options.vms is not None or options.foreign:
        vms = tuple(ground.vms) if options.vms is None else options.vms
        estate = ground.part(vms, options.foreign)
    plan_age_s = scenario.plan_age if options.plan_age_s is None else options.plan_age_s
    spec = _spec(scenario.job, ground, options)
    timed = [_event(one) for one in options.events if not one.on_event]
    awaited = [(one.on_event, _event(one)) for one in options.events if one.on_event]
    return Setting(
        ground,
        estate,
        _config(scenario.world, estate, options),
        (*_of_scenario(scenario, estate), *timed),
        tuple(awaited),
        spec,
        _second(spec, ground, options),
        plan_age_s,
    )


def _of_scenario(scenario: Scenario, estate: Estate) -> list[WorldEvent]:
    """The scenario's own events, as far as they concern what exists in this run."""
    inventory = estate.inventory
    names = {name for vm in inventory.vms for name in (vm.id, vm.name)}
    places = {name for one in inventory.hosts for name in (one.id, one.name)}
    places |= {name for one in inventory.datastores for name in (one.id, one.name)}
    return [event for event in scenario.world_events if _exists(event, names, places)]


def _exists(event: Any, vms: set[str], places: set[str]) -> bool:
    return all(
        getattr(event, field, None) in (None, *known)
        for field, known in (("vm", vms), ("host", places), ("datastore", places))
    )


def _event(planned: PlannedEvent) -> WorldEvent:
    if planned.kind == "vmotion":
        return VmotionEvent.model_construct(
            at=planned.at_s, vm=planned.vm, kind="vmotion", host=planned.target
        )
    if planned.kind == "storage-vmotion":
        return StorageVmotionEvent.model_construct(
            at=planned.at_s,
            vm=planned.vm,
            kind="storage-vmotion",
            datastore=planned.target,
            disks=planned.disks,
            copy_size=planned.copy_bytes,
        )
    if planned.kind == "host-lost":
        return HostLostEvent.model_construct(
            at=planned.at_s, kind="host-lost", host=planned.target, restart_after=180.0
        )
    if planned.kind == "snapshot-removed":
        return SnapshotRemovedEvent.model_construct(
            at=planned.at_s, vm=planned.vm, kind="snapshot-removed"
        )
    return PowerEvent.model_construct(
        at=planned.at_s,
        vm=planned.vm,
        kind="power",
        to=PowerState(planned.target),
        cut=planned.cut,
    )


def _config(world: WorldConfig, estate: Estate, options: RunOptions) -> WorldConfig:
    update: dict[str, Any] = {"faults": options.faults}
    if options.hypervisor:
        numbers = {name: _named(name, value) for name, value in options.hypervisor}
        update["hypervisor"] = world.hypervisor.model_copy(update=numbers)
    known = {name for array in estate.arrays for name in (array.id, array.name)} | {DEFAULT_ARRAY}
    # A world that names no array has all of them by default; what is drawn is for those too.
    arrays = world.arrays or _DEFAULT_ARRAYS
    if options.array:
        numbers = {name: _named(name, value) for name, value in options.array}
        profiles: dict[str, ArrayProfile] = {
            name: profile.model_copy(update=numbers) for name, profile in arrays.items()
        }
        arrays = profiles
    update["arrays"] = {name: profile for name, profile in arrays.items() if name in known}
    if options.fidelity == "block":
        often = min(_MOST_WRITES_PER_S, world.block.most_writes_per_s)
        update["fidelity"] = "block"
        update["block"] = world.block.model_copy(update={"most_writes_per_s": often})
    return world.model_copy(update=update)


def _named(name: str, value: float | int | str | None) -> Any:
    kind = _NAMED.get(name)
    return value if kind is None else kind(str(value))


def _spec(spec: JobSpec, ground: Ground, options: RunOptions) -> JobSpec:
    update: dict[str, Any] = {}
    if options.excluded:
        update["select"] = _without(spec.select, ground, options.excluded)
    if options.strategy is not None:
        update["strategy"] = options.strategy
        update["chunk_vms"] = JobSpec.model_fields["chunk_vms"].default
    if options.chunk_vms is not None and options.strategy is StrategyName.CHUNKS:
        update["chunk_vms"] = options.chunk_vms
    quiesce: dict[str, Any] = {}
    if options.policy is not None:
        quiesce["policy"] = options.policy
    if options.quiesce_timeout_s is not None:
        quiesce["timeout"] = options.quiesce_timeout_s
    if options.overrides:
        quiesce["overrides"] = tuple(
            QuiesceOverride.model_construct(
                match=Rule.model_construct(name=ground.vms[vm_id].name), policy=policy
            )
            for vm_id, policy in options.overrides
        )
    if quiesce:
        update["quiesce"] = spec.quiesce.model_copy(update=quiesce)
    if options.limits:
        update["limits"] = spec.limits.model_copy(update=dict(options.limits))
    if options.timeouts:
        update["timeouts"] = spec.timeouts.model_copy(update=dict(options.timeouts))
    retry: dict[str, Any] = {}
    if options.attempts is not None:
        retry["attempts"] = options.attempts
    if options.first_pause_s is not None:
        retry["first_pause"] = options.first_pause_s
    if retry:
        update["retry"] = spec.retry.model_copy(update=retry)
    for name in ("on_vm_failure", "recuts", "physical_raw_disks", "independent_disks"):
        value = getattr(options, name)
        if value is not None:
            update[name] = value
    return spec.model_copy(update=update) if update else spec


def _second(spec: JobSpec, ground: Ground, options: RunOptions) -> JobSpec:
    if not options.second_excluded:
        return spec
    select = _without(spec.select, ground, options.second_excluded)
    return spec.model_copy(update={"select": select})


def _without(selection: Selection, ground: Ground, excluded: Sequence[str]) -> Selection:
    rules = [Rule.model_construct(name=ground.vms[vm_id].name) for vm_id in excluded]
    if selection.exclude is not None:
        rules.append(selection.exclude)
    return selection.model_copy(update={"exclude": Rule.model_construct(any=tuple(rules))})


def plant(world: World, options: RunOptions, job_id: str) -> list[GroupSnapshotRef]:
    """Put other people's array snapshots on the arrays, and give VM snapshots their names."""
    planted = []
    for one in options.planted:
        array = world.arrays.get(one.array_id)
        if array is not None:
            tag = one.tag.replace("{job}", job_id)
            planted.append(_plant(array, one.unit_ids, tag))
    for hypervisor in world.hypervisors.values():
        for state in hypervisor.states.values():
            for number, snapshot in enumerate(state.chain):
                form = _FOREIGN_NAMES[number % len(_FOREIGN_NAMES)]
                tag = form.format(job=job_id, n=number)
                snapshot.ref = snapshot.ref._replace(tag=tag)
            if state.vm.id in options.loose and state.chain:
                state.chain[0].loose = True
                if world.plane is not None:
                    world.plane.snapshot_lost(state.guest, 0)
    return planted


_FOREIGN_NAMES = ("stillframe-{job}-2-{n}", "before upgrade {n}", "stillframe-{job}")


def _plant(array: ModelArray, unit_ids: tuple[str, ...], tag: str) -> GroupSnapshotRef:
    array._number += 1
    number = array._number
    ref = GroupSnapshotRef(array.id, f"{array.id}/group-snapshot-{number}", tag)
    held = array._held[number] = Held(number, GroupSnapshot(ref, unit_ids, 0.0))
    held.complete = True
    array._by_tag[tag] = held
    if array._plane is not None:
        array._plane.cut(array.id, number, ref.snapshot_id, unit_ids)
    array.pool.cut(number, unit_ids)
    return ref
