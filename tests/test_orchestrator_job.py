"""The job's ordinary way: order of steps, grouping, both loops, limits."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from support_jobs import assert_clean, assert_protected_where_cut, bench
from support_memory import Faults, MemoryArray, MemoryHypervisor, small_estate

from stillframe.drivers.contracts import ArrayCapabilities, ConsistencyLevel
from stillframe.drivers.records import DeviceIdentity, DiskMode, Estate
from stillframe.errors import StillframeError
from stillframe.orchestrator.events import Kind, Row
from stillframe.orchestrator.job import Job
from stillframe.orchestrator.plan import NothingSelectedError, make_plan
from stillframe.orchestrator.result import JobStatus, VmStatus
from stillframe.orchestrator.spec import JobSpec, StrategyName
from stillframe.orchestrator.strategies import PlannedGroup
from stillframe.sim.loop import SimLoop
from stillframe.topology.graph import Topology


def run_on(loop_factory: type[asyncio.AbstractEventLoop] | None, seed: int) -> list[Row]:
    """The same job body on a given loop; returns its events without their times."""
    estate = small_estate(24, 6, [(0, 1), (2, 3)])
    faults = Faults()
    hypervisor = MemoryHypervisor(estate.inventory, faults, seed)
    array = MemoryArray("a1", estate.units, faults, seed=seed)
    topology = Topology(estate)
    spec = JobSpec.model_validate({"limits": {"create_per_host": 5, "remove_per_datastore": 1}})
    job = Job(
        "same",
        spec,
        make_plan(topology, spec),
        topology,
        {"vc": hypervisor},
        {"a1": array},
        random=random.Random(seed),
    )
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        result = runner.run(job.run())
    assert result.status is JobStatus.PROTECTED
    return [(0.0, *row[1:]) for row in result.events.rows]


@pytest.mark.parametrize("seed", range(5))
def test_same_events_in_the_same_order_on_asyncio_and_on_simloop(seed: int) -> None:
    assert run_on(None, seed) == run_on(SimLoop, seed)


def test_different_drivers_seeds_give_different_orders() -> None:
    """The comparison above compares something: the order does depend on the drivers."""
    assert run_on(SimLoop, 1) != run_on(SimLoop, 2)


def test_five_steps_in_order() -> None:
    ran = bench()
    result = ran.run()
    assert result.status is JobStatus.PROTECTED
    for group in result.groups:
        events = [row for row in result.events.rows if row[2] == group.group_id]
        order = [row[1] for row in events]
        created = [i for i, kind in enumerate(order) if kind == Kind.VM_SNAPSHOT_CREATED]
        cut = order.index(Kind.ARRAY_SNAPSHOT_REQUESTED)
        done = order.index(Kind.ARRAY_SNAPSHOT_COMPLETED)
        released = [i for i, kind in enumerate(order) if kind == Kind.VM_RELEASE_REQUESTED]
        assert len(created) == len(released) == len(group.vm_ids)
        assert max(created) < cut < done < min(released)
    assert_clean(ran)
    assert_protected_where_cut(ran)


def test_units_outside_the_selection_are_untouched() -> None:
    spec = JobSpec.model_validate({"select": {"include": {"name": "vm2"}}})
    ran = bench(spec)
    result = ran.run()
    assert ran.array.touched == ["a1/lun2"]
    assert result.targeted_units == 1
    assert result.estate_units == 3
    assert result.collateral == ("vc/vm5",)


@pytest.mark.parametrize(
    ("strategy", "groups", "calls"),
    [
        (StrategyName.ALL_AT_ONCE, [6], 1),
        (StrategyName.PER_COMPONENT, [4, 2], 2),
        (StrategyName.CHUNKS, [3, 1, 2], 3),
        (StrategyName.PER_DATASTORE, [2, 2, 2], 3),
    ],
)
def test_strategies_group_and_protect(
    strategy: StrategyName, groups: list[int], calls: int
) -> None:
    extra = {"chunk_vms": 3} if strategy is StrategyName.CHUNKS else {}
    ran = bench(JobSpec.model_validate({"strategy": strategy, **extra}))
    result = ran.run()
    assert [len(group.vm_ids) for group in result.groups] == groups
    assert len(result.calls) == calls
    assert result.status is JobStatus.PROTECTED
    assert_clean(ran)
    assert_protected_where_cut(ran)


def test_a_strategy_of_the_callers_own_is_used_and_named() -> None:
    def one_by_one(topology: Topology, vms: object, spec: JobSpec) -> list[PlannedGroup]:
        return [
            PlannedGroup(vm_id, (vm_id,), topology.units_of_vm(vm_id)) for vm_id in topology.vm_ids
        ]

    ran = bench(strategy=one_by_one)
    result = ran.run()
    assert result.strategy == "one_by_one"
    assert len(result.calls) == 6


def test_a_strategy_that_loses_a_vm_is_refused() -> None:
    def loses(topology: Topology, vms: object, spec: JobSpec) -> list[PlannedGroup]:
        return [PlannedGroup("g", topology.vm_ids[1:], ())]

    with pytest.raises(StillframeError, match=r"VM vc/vm0 is in no group"):
        bench(strategy=loses)


def test_nothing_selected_is_an_outcome_of_its_own() -> None:
    with pytest.raises(NothingSelectedError, match="matches no VM"):
        bench(JobSpec.model_validate({"select": {"include": {"name": "nobody"}}}))


def test_a_group_larger_than_the_array_allows_is_split_without_tearing_a_vm() -> None:
    ran = bench(
        JobSpec(strategy=StrategyName.ALL_AT_ONCE),
        capabilities=ArrayCapabilities(atomic_groups=True, units_per_group=2),
    )
    result = ran.run()
    assert result.status is JobStatus.PROTECTED
    assert sorted(call.unit_ids for call in result.calls) == [
        ("a1/lun0", "a1/lun1"),  # VM 0 spans these two
        ("a1/lun2",),
    ]
    assert_protected_where_cut(ran)


def test_calls_to_an_array_stay_within_its_capability() -> None:
    ran = bench(JobSpec(strategy=StrategyName.PER_DATASTORE))
    ran.run()
    assert ran.array.worker.most_running == 1


def test_limits_are_never_exceeded_and_waits_are_counted() -> None:
    spec = JobSpec.model_validate(
        {"limits": {"create_per_host": 2, "remove_per_vcenter": 1, "create_per_datastore": 1}}
    )
    ran = bench(spec)
    result = ran.run()
    peaks = ran.job.limiter.peaks()
    assert all(peak <= capacity for peak, capacity in peaks.values())
    assert ran.hypervisor.worker.most_running == 2
    waits = {wait.name: wait for wait in result.waits}
    assert waits["remove_per_vcenter"].waited > 0
    assert waits["create_per_host"].calls == 6


def test_levels_come_from_the_snapshot() -> None:
    ran = bench()
    result = ran.run()
    assert {entry.level for entry in result.catalogue} == {ConsistencyLevel.FILESYSTEM}
    assert ran.vm("vm0").disk_levels == (
        (2000, ConsistencyLevel.FILESYSTEM),
        (2001, ConsistencyLevel.FILESYSTEM),
    )


def test_skip_policy_never_asks_the_guest() -> None:
    ran = bench(JobSpec.model_validate({"quiesce": {"policy": "skip"}}))
    result = ran.run()
    assert all(vm.quiesce is None for vm in result.vms)
    assert {vm.level for vm in result.vms} == {ConsistencyLevel.CRASH}


def test_policy_overrides_apply_to_the_vms_they_match() -> None:
    overrides = [{"match": {"name": "vm1"}, "policy": "skip"}]
    ran = bench(JobSpec.model_validate({"quiesce": {"overrides": overrides}}))
    ran.run()
    assert ran.vm("vm1").level is ConsistencyLevel.CRASH
    assert ran.vm("vm2").level is ConsistencyLevel.FILESYSTEM


def test_a_vm_no_array_can_protect_is_reported_and_in_no_group() -> None:
    base = small_estate(4, 2)
    estate = Estate(base.inventory, base.arrays, base.units[:1])
    ran = bench(estate=estate)
    result = ran.run()
    assert result.status is JobStatus.PARTLY
    assert ran.vm("vm1").status is VmStatus.UNPROTECTED
    assert str(DeviceIdentity.parse(f"naa.60{1:030x}")) in ran.vm("vm1").reason
    assert ran.vm("vm1").requested_s is None


@pytest.mark.parametrize(
    ("capabilities", "level"),
    [
        (ArrayCapabilities(atomic_groups=True), ConsistencyLevel.CRASH),
        (ArrayCapabilities(atomic_groups=False), ConsistencyLevel.UNKNOWN),
        (ArrayCapabilities(atomic_groups=True, units_per_group=1), ConsistencyLevel.UNKNOWN),
    ],
)
def test_live_disks_are_worth_something_only_if_one_atomic_cut_took_them(
    capabilities: ArrayCapabilities, level: ConsistencyLevel
) -> None:
    """A VM whose two disks are independent, on two units; its home is on one of them."""
    base = small_estate(3, 3, [(0, 1)])
    disks = tuple(
        replace(disk, mode=DiskMode.INDEPENDENT_PERSISTENT) for disk in base.inventory.vms[0].disks
    )
    vms = (replace(base.inventory.vms[0], disks=disks), *base.inventory.vms[1:])
    estate = replace(base, inventory=replace(base.inventory, vms=vms))
    spec = JobSpec.model_validate({"independent_disks": True})
    ran = bench(spec, estate=estate, capabilities=capabilities)
    ran.run()
    assert ran.vm("vm0").status is VmStatus.PROTECTED
    assert ran.vm("vm0").level is level
    assert dict(ran.vm("vm0").disk_levels) == {2000: level, 2001: level}
