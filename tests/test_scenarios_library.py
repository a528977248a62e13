"""Every shipped scenario loads, runs, and shows what its description says it shows."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import pytest

from stillframe.drivers.contracts import ConsistencyLevel
from stillframe.orchestrator.events import Kind, Row
from stillframe.orchestrator.plan import plan_ties
from stillframe.orchestrator.result import JobStatus, VmOutcome, VmStatus
from stillframe.orchestrator.spec import Rule
from stillframe.scenarios.schema import LIBRARY, list_scenarios, load_scenario
from stillframe.simulation import Simulation, simulate

EXPECTED_STATUS = {
    "copy-on-write": JobStatus.PROTECTED,
    "demo": JobStatus.PROTECTED,
    "first-claim": JobStatus.PROTECTED,
    "late-answers": JobStatus.PARTLY,
    "lost-host": JobStatus.PARTLY,
    "moved-after-plan": JobStatus.PROTECTED,
    "one-disk-ties": JobStatus.PROTECTED,
    "pool-runs-full": JobStatus.PARTLY,
    "redirect-on-write": JobStatus.PROTECTED,
    "storage-vmotion": JobStatus.PROTECTED,
    "ten-vms": JobStatus.PROTECTED,
    "whole-estate": JobStatus.PROTECTED,
}


@cache
def run_of(name: str) -> Simulation:
    """One run of a shipped scenario, shared by the tests."""
    return simulate(load_scenario(name))


def positions(run: Simulation, kind: str, group: str = "") -> list[int]:
    """Where in the event log events of a kind (and group) stand."""
    return [
        index
        for index, row in enumerate(run.result.events.rows)
        if row[1] == kind and (not group or row[2] == group)
    ]


def subjects(rows: Iterable[Row]) -> set[str]:
    return {row[3] for row in rows}


def units_of(rows: Iterable[Row]) -> set[str]:
    return {unit for row in rows for unit in row[4].split()}


def outcome(run: Simulation, name: str) -> VmOutcome:
    return next(vm for vm in run.result.vms if vm.name == name)


def test_every_shipped_scenario_has_an_expectation() -> None:
    shipped = list_scenarios()
    assert {one.name for one in shipped} == set(EXPECTED_STATUS)
    assert {path.name for path in LIBRARY.iterdir()} == {f"{n}.yaml" for n in EXPECTED_STATUS}
    for one in shipped:
        scenario = load_scenario(one.name)
        assert scenario.name == one.name
        assert scenario.title == one.title
        assert len(one.title) <= 80
        assert len(one.description) > 100


@pytest.mark.parametrize("name", EXPECTED_STATUS)
def test_the_job_ends_as_expected_and_leaves_nothing_behind(name: str) -> None:
    run = run_of(name)
    result = run.result
    assert result.status is EXPECTED_STATUS[name]
    assert result.orphans == []
    assert run.world.leftovers() == []
    assert run.world.in_flight == 0
    assert {entry.vm_id for entry in result.catalogue} == {
        vm.vm_id for vm in result.vms if vm.status is VmStatus.PROTECTED
    }


@pytest.mark.parametrize("name", EXPECTED_STATUS)
def test_arrays_cut_what_was_asked_for_and_nothing_else(name: str) -> None:
    """The array's own record of what it cut agrees with what the job says it needed."""
    run = run_of(name)
    log = run.result.events
    needed = {unit for vm in run.result.vms for unit in vm.unit_ids}
    requested = units_of(log.of(Kind.ARRAY_SNAPSHOT_REQUESTED))
    assert requested == needed
    assert units_of(log.of("world.array.cut")) == units_of(log.of(Kind.ARRAY_SNAPSHOT_COMPLETED))
    assert units_of(log.of("world.array.cut")) <= requested
    kept = {unit for entry in run.result.catalogue for unit in entry.unit_ids}
    assert len(kept) == run.result.targeted_units


@pytest.mark.parametrize("name", sorted(set(EXPECTED_STATUS) - {"storage-vmotion"}))
def test_each_group_opens_cuts_and_releases_in_this_order(name: str) -> None:
    run = run_of(name)
    rows = run.result.events.rows
    opened: dict[str, int] = {}
    asked: dict[str, int] = {}
    done: dict[str, int] = {}
    released: dict[str, int] = {}
    for index, (_, kind, group, _, _) in enumerate(rows):
        if kind == Kind.VM_SNAPSHOT_CREATED:
            opened[group] = index
        elif kind == Kind.ARRAY_SNAPSHOT_REQUESTED:
            asked.setdefault(group, index)
        elif kind in (Kind.ARRAY_SNAPSHOT_COMPLETED, Kind.ARRAY_SNAPSHOT_FAILED):
            done[group] = index
        elif kind == Kind.VM_RELEASE_REQUESTED:
            released.setdefault(group, index)
    assert asked
    for group, index in asked.items():
        assert opened[group] < index < done[group] < released[group]


# -- the first claim, step by step -----------------------------------------------------------

SHOP = {"shop-web-1", "shop-web-2", "shop-db", "shop-search", "shop-report"}
SHOP_UNITS = {"array-a/lun-1", "array-a/lun-2", "array-a/lun-3", "array-b/vol-bulk"}


def test_step_1_vms_are_selected_not_volumes() -> None:
    run = run_of("first-claim")
    assert {vm.name for vm in run.result.vms} == SHOP
    assert subjects(run.result.events.of(Kind.VM_SNAPSHOT_REQUESTED)) == {
        f"vc-1/{name}" for name in SHOP
    }


def test_step_2_a_vm_snapshot_of_each_holds_its_disks_still() -> None:
    run = run_of("first-claim")
    log = run.result.events
    assert subjects(log.of("world.vm.snapshot")) == {f"vc-1/{name}" for name in SHOP}
    # Only a running guest can be frozen, and each thaws again before the array cuts anything of it.
    assert subjects(log.of("world.vm.frozen")) == {f"vc-1/{n}" for n in SHOP - {"shop-report"}}
    for group in ("g0001", "g0002"):
        cut = positions(run, Kind.ARRAY_SNAPSHOT_REQUESTED, group)[0]
        members = next(g.vm_ids for g in run.result.groups if g.group_id == group)
        thawed = [
            index for index in positions(run, "world.vm.thawed") if log.rows[index][3] in members
        ]
        assert thawed
        assert max(thawed) < cut
    assert {vm.level for vm in run.result.vms} == {
        ConsistencyLevel.APPLICATION,
        ConsistencyLevel.FILESYSTEM,
    }


def test_step_3_units_come_from_the_snapshots_metadata() -> None:
    run = run_of("first-claim")
    located = {row[3]: set(row[4].split()) for row in run.result.events.of(Kind.VM_LOCATED)}
    assert located == {
        "vc-1/shop-web-1": {"array-a/lun-1"},
        "vc-1/shop-web-2": {"array-a/lun-1"},
        "vc-1/shop-db": {"array-a/lun-1", "array-b/vol-bulk"},
        "vc-1/shop-search": {"array-a/lun-2", "array-a/lun-3"},
        "vc-1/shop-report": {"array-a/lun-2", "array-a/lun-3"},
    }
    for vm_id in located:
        rows = [r for r in run.result.events.rows if r[3] == vm_id]
        kinds = [row[1] for row in rows]
        assert kinds.index(Kind.VM_SNAPSHOT_CREATED) < kinds.index(Kind.VM_LOCATED)


def test_step_4_arrays_cut_exactly_the_identified_units_after_all_vm_snapshots() -> None:
    run = run_of("first-claim")
    log = run.result.events
    for kind in (Kind.ARRAY_SNAPSHOT_REQUESTED, Kind.ARRAY_SNAPSHOT_COMPLETED, "world.array.cut"):
        assert units_of(log.of(kind)) == SHOP_UNITS
    for group in run.result.groups:
        created = positions(run, Kind.VM_SNAPSHOT_CREATED, group.group_id)
        assert len(created) == len(group.vm_ids)
        assert max(created) < min(positions(run, Kind.ARRAY_SNAPSHOT_REQUESTED, group.group_id))
    # The delta of this VM lies where nothing needs to be cut: base and delta are kept apart.
    (rule,) = run.scenario.world.working_directories
    assert (rule.match, rule.datastore) == ("shop-web-2", "ds-lab")
    assert run.topology.units_of_datastore("vc-1/ds-lab") == ("array-a/lun-5",)
    # Both extents of the one datastore are cut by one call, at one point in time.
    wide = [call for call in run.result.calls if "array-a/lun-2" in call.unit_ids]
    assert [set(call.unit_ids) for call in wide] == [{"array-a/lun-2", "array-a/lun-3"}]
    assert (run.result.targeted_units, run.result.estate_units) == (4, 6)
    assert run.result.collateral == ("vc-1/mail-1",)


def test_step_5_vm_snapshots_go_after_the_arrays_have_answered() -> None:
    run = run_of("first-claim")
    rows = run.result.events.rows
    assert subjects(run.result.events.of("world.vm.merged")) == {f"vc-1/{n}" for n in SHOP}
    for group in run.result.groups:
        completed = positions(run, Kind.ARRAY_SNAPSHOT_COMPLETED, group.group_id)
        requested = positions(run, Kind.VM_RELEASE_REQUESTED, group.group_id)
        assert len(requested) == len(group.vm_ids)
        assert max(completed) < min(requested)
        merged = [
            index for index in positions(run, "world.vm.merged") if rows[index][3] in group.vm_ids
        ]
        assert max(completed) < min(merged)


# -- moves -----------------------------------------------------------------------------------


def test_a_vm_that_moved_after_the_plan_is_protected_where_it_is() -> None:
    run = run_of("moved-after-plan")
    planned = {unit for group in run.plan.groups for unit in group.unit_ids}
    assert planned == {"array-a/lun-a", "array-a/lun-b"}
    moved = outcome(run, "app-3")
    assert moved.moved
    assert moved.unit_ids == ("array-b/lun-c",)
    log = run.result.events
    assert units_of(log.of(Kind.ARRAY_SNAPSHOT_REQUESTED)) == {"array-a/lun-a", "array-b/lun-c"}
    assert units_of(log.of("world.array.cut")) == {"array-a/lun-a", "array-b/lun-c"}
    entry = next(one for one in run.result.catalogue if one.vm_id == moved.vm_id)
    assert [cut.array_id for cut in entry.cuts] == ["array-b"]
    assert log.of(Kind.JOB_STARTED)[0][0] >= 600


def test_a_vm_that_moved_before_the_cut_is_cut_again_where_it_is() -> None:
    run = run_of("storage-vmotion")
    log = run.result.events
    early = outcome(run, "early")
    assert [row[3] for row in log.of(Kind.VM_MOVED_DURING_CUT)] == [early.vm_id]
    relocated = next(row for row in log.of("world.vm.relocated") if row[3] == early.vm_id)
    first, second = log.of(Kind.ARRAY_SNAPSHOT_REQUESTED)
    assert relocated[0] < first[0]
    assert units_of([first]) == {"array-a/lun-a"}
    assert units_of([second]) == {"array-b/lun-c"}
    assert early.unit_ids == ("array-b/lun-c",)
    entry = next(one for one in run.result.catalogue if one.vm_id == early.vm_id)
    assert [cut.array_id for cut in entry.cuts] == ["array-b"]
    # Its VM snapshot was there all the while: opened before both cuts, removed after both.
    rows = log.rows
    opened = next(
        i
        for i, row in enumerate(rows)
        if row[1] == Kind.VM_SNAPSHOT_CREATED and row[3] == early.vm_id
    )
    released = next(
        i
        for i, row in enumerate(rows)
        if row[1] == Kind.VM_RELEASE_REQUESTED and row[3] == early.vm_id
    )
    completed = positions(run, Kind.ARRAY_SNAPSHOT_COMPLETED)
    assert opened < min(completed)
    assert max(completed) < released


def test_a_vm_that_is_busy_at_its_release_is_released_later() -> None:
    run = run_of("storage-vmotion")
    log = run.result.events
    late = outcome(run, "late")
    assert [row for row in log.of(Kind.CALL_RETRIED) if row[3] == late.vm_id]
    arrived = next(row for row in log.of("world.vm.relocated") if row[3] == late.vm_id)
    merged = next(row for row in log.of("world.vm.merged") if row[3] == late.vm_id)
    assert arrived[0] < merged[0]
    assert not late.left_behind
    # It lay on the old unit when that was cut, and that is what the catalogue says.
    assert late.unit_ids == ("array-a/lun-a",)


# -- grouping --------------------------------------------------------------------------------


def test_one_disk_ties_everything_and_the_plan_names_it() -> None:
    run = run_of("one-disk-ties")
    assert [len(component.vm_ids) for component in run.plan.components] == [21]
    assert len(run.result.groups) == 1
    assert {call.array_id for call in run.result.calls} == {"array-a", "array-b"}
    found = plan_ties(run.topology, run.plan, run.scenario.job)
    assert {tie.vm_id for tie in found} == {"vc-1/bridge"}
    assert found[0].disk_key == 2001
    assert found[0].parts == (11, 10)


def test_the_demo_targets_part_of_the_estate() -> None:
    run = run_of("demo")
    result = run.result
    inventory = run.topology.estate.inventory
    assert len(inventory.vms) == 200
    shared = [store for store in inventory.datastores if not store.name.startswith("local")]
    assert len(shared) == 12
    assert {store.kind.value for store in shared} == {"vmfs", "nfs"}
    assert len(run.topology.estate.arrays) == 2
    assert 0 < result.targeted_units < result.estate_units
    assert {call.array_id for call in result.calls} == {"array-1", "array-2"}
    assert len(result.groups) > 1
    assert any(len(vm.unit_ids) > 1 for vm in result.vms)
    assert result.collateral
    degraded = [vm for vm in result.vms if vm.degraded]
    assert degraded
    assert {vm.level for vm in degraded} == {ConsistencyLevel.CRASH}
    refused = [vm for vm in degraded if run.topology.vm(vm.vm_id).can_quiesce]
    assert refused, "one guest with tools refuses to freeze"
    assert result.events.of("world.vm.frozen")


def test_the_demo_without_its_exclusion_reports_vms_on_local_disks() -> None:
    """What the description promises to whoever takes the line away."""
    scenario = load_scenario("demo")
    select = scenario.job.select.model_copy(update={"exclude": Rule(folder="*/Build")})
    job = scenario.job.model_copy(update={"select": select})
    result = simulate(scenario.model_copy(update={"job": job})).result
    assert result.status is JobStatus.PARTLY
    local = [vm for vm in result.vms if vm.status is not VmStatus.PROTECTED]
    assert 1 <= len(local) <= 8
    assert all("local to a host" in vm.reason for vm in local)


def test_the_whole_estate_is_ten_thousand_vms() -> None:
    run = run_of("whole-estate")
    assert len(run.topology.vm_ids) == 10_000
    templates = sum(vm.is_template for vm in run.topology.estate.inventory.vms)
    assert len(run.result.vms) == 10_000 - templates
    assert len(run.result.groups) > 40
    assert len(run.topology.estate.arrays) == 4
    waits = {wait.name: wait for wait in run.result.waits}
    longest = max(waits.values(), key=lambda wait: wait.total_s)
    assert longest.name == "create_per_vcenter"
    assert waits["groups"].waited > 0
    assert waits["calls_per_array"].waited == 0


# -- arrays ----------------------------------------------------------------------------------


def series(run: Simulation, quantity: str) -> list[float]:
    return [value for _, name, _, value in run.world.series.rows if name == quantity]


def merge_s(run: Simulation) -> float:
    return sum(
        vm.merged_s - vm.removal_s
        for vm in run.result.vms
        if vm.merged_s is not None and vm.removal_s is not None
    )


def test_copy_on_write_pays_where_redirect_on_write_does_not() -> None:
    redirect, copy = run_of("redirect-on-write"), run_of("copy-on-write")
    assert redirect.topology.estate == copy.topology.estate
    mine, other = redirect.scenario, copy.scenario
    assert (mine.seed, mine.job, mine.observe) == (other.seed, other.job, other.observe)
    assert mine.world.guests == other.world.guests
    differ = {
        name
        for name, value in mine.world.arrays["default"]
        if value != getattr(other.world.arrays["default"], name)
    }
    assert differ <= {"method", "sources"}
    assert max(series(redirect, "array.copy_bytes_per_s"), default=0) == 0
    assert max(series(copy, "array.copy_bytes_per_s")) > 50e6
    assert merge_s(copy) > 2 * merge_s(redirect)
    # Both keep the same old data: that is what guests overwrite, not how it is kept.
    used = [max(series(run, "pool.used_bytes")) for run in (redirect, copy)]
    assert used[0] == pytest.approx(used[1], rel=0.02)


def test_a_full_pool_is_reported_not_hidden() -> None:
    run = run_of("pool-runs-full")
    result = run.result
    reasons = [vm.reason for vm in result.vms if vm.status is VmStatus.UNPROTECTED]
    refused = [reason for reason in reasons if "snapshot space" in reason]
    given_up = [reason for reason in reasons if "no longer lists" in reason]
    assert refused
    assert given_up
    assert len(refused) + len(given_up) == len(reasons)
    assert result.protected > len(result.vms) / 2
    (capacity,) = series(run, "pool.capacity_bytes")
    used = series(run, "pool.used_bytes")
    assert 0.9 * capacity < max(used) <= capacity
    # All VM snapshots are gone again, those of the refused groups too.
    assert len(result.events.of("world.vm.merged")) == len(result.vms)
    finished_s = result.finished_s
    lost = [row for row in result.events.of("world.array.invalidated") if row[0] > finished_s]
    assert lost, "while the world goes on, snapshots that held at the end are given up"


def test_the_level_at_which_a_pool_gave_up_a_snapshot_is_on_record() -> None:
    """Otherwise a picture shows it falling from wherever the last look was."""
    run = run_of("pool-runs-full")
    series = run.world.series
    _, capacity = next(series.of("pool.capacity_bytes", "array-1"))
    given_up = [row[0] for row in run.result.events.of("world.array.invalidated")]
    levels = list(series.of("pool.used_bytes", "array-1"))
    assert given_up
    for at_s in given_up:
        assert max(level for t_s, level in levels if t_s == at_s) > 0.999 * capacity
