"""The orchestrator's job in a world in which one thing goes wrong: it ends clean and honest."""

from __future__ import annotations

from typing import Any

import pytest
from support_faulty_job import run, scenario

from stillframe.drivers.contracts import ConsistencyLevel
from stillframe.drivers.records import PowerState
from stillframe.orchestrator.events import Kind
from stillframe.orchestrator.result import JobStatus, VmStatus
from stillframe.scenarios.schema import load_scenario
from stillframe.sim.array_calls import ArrayEvent
from stillframe.sim.faults import Site
from stillframe.simulation import Simulation, simulate

ALONE = [site for site in Site if site not in (Site.DELETE_REFUSED, Site.LOST_ANSWER_DELETE)]
"""Sites that a job visits by itself; it deletes nothing unless something else went wrong."""
STRONG = (ConsistencyLevel.APPLICATION, ConsistencyLevel.FILESYSTEM)


def complete_tags(done: Simulation) -> list[str]:
    """Array snapshots that were complete and not deleted, by what the arrays themselves logged."""
    log = done.result.events
    gone = {row[4] for row in log.of(ArrayEvent.DELETED, ArrayEvent.INVALIDATED)}
    return [row[4] for row in log.of(ArrayEvent.COMPLETED) if row[4] not in gone]


def assert_clean_and_honest(done: Simulation) -> None:
    """Nothing is left but what the catalogue names, and a level is what the guest really was."""
    result, log = done.result, done.result.events
    assert done.world.leftovers() == []
    assert result.orphans == []
    kept = {ref.tag for entry in result.catalogue for ref in entry.cuts}
    assert sorted(kept) == sorted(complete_tags(done))
    cuts = {unit for row in log.of(ArrayEvent.CUT) for unit in row[4].split()}
    for entry in result.catalogue:
        assert set(entry.unit_ids) <= cuts
    # A guest that was never thawed by its host in time, or never frozen, is no better than crash.
    for vm in result.vms:
        if vm.status is VmStatus.PROTECTED and vm.level in STRONG:
            if done.topology.vm(vm.vm_id).power_state is PowerState.OFF:
                continue  # it was shut down, and its file systems with it
            assert vm.quiesce is not None
            frozen = [row[0] for row in log.of("world.vm.frozen") if row[3] == vm.vm_id]
            assert vm.quiesce.start_s in frozen
        if vm.status is not VmStatus.PROTECTED:
            assert vm.level is ConsistencyLevel.UNKNOWN
            assert vm.reason


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("site", ALONE, ids=str)
def test_a_fault_alone_leaves_nothing_behind(site: Site, most: int) -> None:
    for seed in (1, 2, 3):
        done = run({"sites": {site: {"fire": 1, "most": most}}}, seed)
        assert 1 <= done.world.faults.fired[site] <= most
        assert_clean_and_honest(done)


@pytest.mark.parametrize("site", [Site.DELETE_REFUSED, Site.LOST_ANSWER_DELETE], ids=str)
def test_what_has_to_be_deleted_is_deleted_in_the_end(site: Site) -> None:
    """A group that the array cut only in part has to go, and going takes more than one call."""
    sites = {name: {"fire": 1, "most": 1} for name in (Site.PARTIAL_GROUP, site)}
    for seed in (1, 2, 3):
        done = run({"sites": sites, "in_use": 10.0}, seed)
        assert done.world.faults.fired == {Site.PARTIAL_GROUP: 1, site: 1}
        assert_clean_and_honest(done)


def test_every_site_is_tried_in_a_job() -> None:
    assert {*ALONE, Site.DELETE_REFUSED, Site.LOST_ANSWER_DELETE} == set(Site)


def test_a_guest_that_does_not_freeze_is_taken_crash_consistent_and_called_so() -> None:
    done = run({"sites": {"quiesce-fails": {"fire": 1, "most": 2}}})
    levels = sorted(vm.level for vm in done.result.vms)
    assert done.result.status is JobStatus.PROTECTED
    assert levels.count(ConsistencyLevel.CRASH) == 2


def test_a_group_cut_in_part_protects_no_vm_of_the_unit_left_out() -> None:
    done = run({"sites": {"partial-group": {"fire": 1}}})
    (cut, *_) = [set(row[4].split()) for row in done.result.events.of(ArrayEvent.CUT)]
    assert len(cut) == 1
    for vm in done.result.vms:
        if not set(vm.unit_ids) <= cut:
            assert vm.status is not VmStatus.PROTECTED
    assert_clean_and_honest(done)


def everything(seed: int) -> dict[str, Any]:
    """All sites, a third of them active in a run, three fires each."""
    one = {"activate": 0.3, "fire": 0.3 + 0.7 * (seed % 2), "most": 3}
    return {"sites": dict.fromkeys(Site, one), "in_use": 10.0}


def test_faults_of_all_kinds_together_leave_nothing_behind_either() -> None:
    fired: dict[Site, int] = {}
    for seed in range(30):
        done = run(everything(seed), seed)
        assert done.world.leftovers() == []
        kept = {ref.tag for entry in done.result.catalogue for ref in entry.cuts}
        assert sorted(kept) == sorted(complete_tags(done))
        for site, count in done.world.faults.fired.items():
            fired[site] = fired.get(site, 0) + count
    assert len(fired) > 15


def test_a_run_with_faults_repeats_exactly() -> None:
    hashes = [
        simulate(scenario(everything(seed), seed)).result.events.trace_hash()
        for seed in (4, 4, 5, 5)
    ]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


def test_after_the_faults_stop_the_next_job_is_as_good_as_new() -> None:
    broken = run({"sites": dict.fromkeys(("snapshot-limit", "query-lost"), 1), "until": 10.0})
    assert broken.world.faults.fired == {}
    assert broken.result.status is JobStatus.PROTECTED


def shipped(name: str) -> Simulation:
    done = simulate(load_scenario(name))
    assert_clean_and_honest(done)
    return done


def test_late_answers_shows_what_it_says() -> None:
    done = shipped("late-answers")
    fired = {site.value: count for site, count in done.world.faults.fired.items()}
    assert fired == {
        "lost-answer-create": 2,
        "late-create": 2,
        "thaw-lost": 1,
        "lost-answer-group": 1,
    }
    struck: dict[str, list[str]] = {}
    for row in done.result.events.of("world.fault"):
        struck.setdefault(row[4], []).append(row[3])
    vms = {vm.vm_id: vm for vm in done.result.vms}
    for vm_id in struck["lost-answer-create"]:
        assert vms[vm_id].status is VmStatus.PROTECTED
        assert vms[vm_id].level is ConsistencyLevel.CRASH
    late = struck["late-create"]
    assert [row[3] for row in done.result.events.of(Kind.SWEPT)] == late
    appeared = [row[0] for row in done.result.events.of("world.vm.snapshot") if row[3] in late]
    assert all(at_s > 600 for at_s in appeared)
    (forgotten,) = struck["thaw-lost"]
    times = {
        kind: [row[0] for row in done.result.events.of(f"world.vm.{kind}") if row[3] == forgotten]
        for kind in ("frozen", "thawed")
    }
    assert times["thawed"][0] - times["frozen"][0] == pytest.approx(60.0)
    assert {vm_id for vm_id, vm in vms.items() if vm.status is not VmStatus.PROTECTED} == {
        *late,
        forgotten,
    }


def test_lost_host_shows_what_it_says() -> None:
    done = shipped("lost-host")
    log = done.result.events
    lost_s, restarted_s = log.of("world.host.lost")[0][0], log.of("world.vm.restarted")[0][0]
    assert (lost_s, restarted_s) == (2.0, 182.0)
    on_it = {row[3] for row in log.of("world.vm.restarted")}
    unprotected = {vm.vm_id for vm in done.result.vms if vm.status is not VmStatus.PROTECTED}
    assert unprotected
    assert unprotected < on_it
    adopted = {row[3] for row in log.of(Kind.LATE_SUCCESS)}
    assert adopted
    assert adopted < on_it
    levels = {vm.vm_id: vm.level for vm in done.result.vms}
    assert {levels[vm_id] for vm_id in adopted} == {ConsistencyLevel.CRASH}
    assert any(levels[vm_id] in STRONG for vm_id in on_it), "its snapshot was there before"
    merged = [row[0] for row in log.of("world.vm.merged") if row[3] in on_it]
    assert merged
    assert min(merged) > restarted_s
