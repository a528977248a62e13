"""Runs of the explorer: deaths, rivals, journals, and that a run is what its options say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from support_explorer import ten_vms

from stillframe.explorer import journals
from stillframe.explorer.course import Course
from stillframe.explorer.draw import draw_options
from stillframe.explorer.options import (
    JournalKind,
    PlannedEvent,
    Rival,
    RunOptions,
)
from stillframe.explorer.run import explore_one
from stillframe.explorer.setting import setting_of
from stillframe.orchestrator import arraycalls, group, vmcalls
from stillframe.orchestrator.context import Context, VmWork
from stillframe.orchestrator.spec import OnVmFailure, QuiescePolicy
from stillframe.sim.faults import ActiveSite, Faults, Site

SHORT = {"lease_s": 5.0, "downtime_s": 6.0}


def test_a_plain_run_takes_the_job_through_and_finds_nothing() -> None:
    report = explore_one(ten_vms(), 1, RunOptions(), keep_events=True)
    assert report.violations == ()
    assert report.outcomes == ("job ended",)
    assert report.crashes == report.recoveries == 0
    assert report.rows is not None
    assert sum(row[1] == "catalogue.added" for row in report.rows) == 10


@pytest.mark.parametrize("journal", list(JournalKind))
def test_a_job_that_dies_is_recovered_whatever_keeps_its_journal(journal: JournalKind) -> None:
    options = RunOptions(
        barriers=("array.snapshot.completed#1",), journal=journal, lose_tail=True, **SHORT
    )
    report = explore_one(ten_vms(), 1, options)
    assert report.violations == ()
    assert report.crashes == 1
    assert report.recoveries >= 1
    assert report.outcomes[0] == "job died: reached its barrier"


def test_a_barrier_kills_before_anything_else_happens() -> None:
    options = RunOptions(barriers=("array.snapshot.completed#1",), **SHORT)
    report = explore_one(ten_vms(), 1, options, keep_events=True)
    assert report.rows is not None
    kinds = [row[1] for row in report.rows if not row[1].startswith("world.")]
    place = kinds.index("array.snapshot.completed")
    assert "vm.release.requested" not in kinds[:place]
    following = [row for row in report.rows if row[1] == "vm.release.requested"]
    assert {row[2] for row in following} == {"recovery"}


def test_killed_at_each_step_of_a_small_job_everything_converges_without_a_warning() -> None:
    few = RunOptions(vms=("vc-1/db-1", "vc-1/web-3"), **SHORT)
    whole = explore_one(ten_vms(), 3, few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(1, whole.steps_by_incarnation[0]):
            report = explore_one(ten_vms(), 3, few.model_copy(update={"crash_steps": (step,)}))
            assert report.violations == (), (step, report.violations)
            assert report.crashes == 1
            assert report.steps_by_incarnation[0] == step


def test_a_recovery_that_dies_is_recovered_too() -> None:
    options = RunOptions(barriers=("vm.snapshot.created#3", "vm.release.requested#2"), **SHORT)
    report = explore_one(ten_vms(), 1, options)
    assert report.crashes == 2
    assert report.violations == ()


def test_a_job_that_stood_still_beyond_its_lease_is_stopped_by_the_fence() -> None:
    rival = Rival(at_event="vm.snapshot.created#4", after_s=30.0)
    report = explore_one(ten_vms(), 1, RunOptions(rival=rival, lease_s=10.0))
    assert report.outcomes[:2] == ("rival ended", "stalled job ended with LeaseLostError")
    assert report.violations == ()


def test_a_job_that_stood_still_within_its_lease_goes_on() -> None:
    rival = Rival(at_event="vm.snapshot.created#4", after_s=2.0)
    report = explore_one(ten_vms(), 1, RunOptions(rival=rival, lease_s=10.0))
    assert report.outcomes[:2] == ("rival ended", "stalled job ended")
    assert report.violations == ()


def test_rival_and_job_may_be_at_work_in_turn() -> None:
    for its_steps in range(5, 100, 12):
        rival = Rival(at_event="array.snapshot.completed#1", after_s=30.0, its_steps=its_steps)
        report = explore_one(ten_vms(), 1, RunOptions(rival=rival, lease_s=10.0))
        assert report.violations == (), (its_steps, report.violations)


def test_an_event_can_follow_on_another() -> None:
    event = PlannedEvent(
        kind="power", at_s=0.0, vm="vc-1/web-1", target="off", on_event="world.array.fenced#1"
    )
    report = explore_one(ten_vms(), 1, RunOptions(events=(event,)), keep_events=True)
    assert report.rows is not None
    fenced = next(row for row in report.rows if row[1] == "world.array.fenced")
    power = next(row for row in report.rows if row[1] == "world.vm.power")
    assert power[0] == fenced[0]


def test_an_error_of_the_model_is_a_finding_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(self: object, number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("stillframe.sim.array.ModelArray.pool_changed", fails)
    report = explore_one(ten_vms(), 1, RunOptions())
    assert any("KeyError" in one.sentence for one in report.violations) or report.failed


# -- the same again --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_a_run_again_from_its_options_as_data_takes_the_same_steps(seed: int) -> None:
    first = explore_one(ten_vms(), seed)
    options = RunOptions.from_data(json.loads(json.dumps(first.options.to_data())))
    again = explore_one(ten_vms(), seed, options)
    assert again.trace_hash == first.trace_hash


def test_the_same_in_another_process_under_any_hash_seed() -> None:
    code = (
        "from stillframe.scenarios.schema import load_scenario\n"
        "from stillframe.explorer.run import explore_one\n"
        "s = load_scenario('ten-vms')\n"
        "print([explore_one(s, n).trace_hash for n in range(12)])\n"
    )
    here = [explore_one(ten_vms(), seed).trace_hash for seed in range(12)]
    for hash_seed in ("1", "77"):
        told = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert told.strip() == str(here)


def test_options_differ_from_seed_to_seed_and_concern_only_what_exists() -> None:
    drawn = [draw_options(ten_vms(), seed) for seed in range(300)]
    assert len({one.model_dump_json() for one in drawn}) == 300
    known = {"vc-1/" + name for name in NAMES}
    assert all(one.vms and set(one.vms) <= known for one in drawn)
    for field in RunOptions.model_fields:
        default = getattr(RunOptions(), field)
        assert any(getattr(one, field) != default for one in drawn), f"{field} is never drawn"
    assert {site for one in drawn for site in one.faults.sites} == set(Site)


NAMES = ["web-1", "web-2", "web-3", "db-1", "db-2", "mail-1", "file-1", "old-1", "ci-1", "log-1"]


def test_a_delta_of_others_stays_when_a_group_fails_before_its_cut() -> None:
    options = RunOptions(
        foreign=(("vc-1/web-1", 2),),
        loose=("vc-1/web-1",),
        on_vm_failure=OnVmFailure.FAIL_GROUP,
        policy=QuiescePolicy.REQUIRE,
    )
    report = explore_one(ten_vms(), 1, options, keep_events=True)
    assert report.rows is not None
    assert any(row[1] == "vm.snapshot.failed" for row in report.rows), "web-3 cannot be quiesced"
    assert report.violations == ()


def test_a_snapshot_that_somebody_else_removes_protects_nobody() -> None:
    for cue in ("vm.located", "array.snapshot.requested", "vm.release.requested"):
        event = PlannedEvent(kind="snapshot-removed", at_s=0.0, vm="vc-1/db-2", on_event=f"{cue}#1")
        report = explore_one(ten_vms(), 1, RunOptions(events=(event,)))
        assert report.violations == (), cue


# -- safeguards: what is taken away is noticed --------------------------------------------------

LATE = RunOptions(
    timeouts=(("create", 5.0), ("settle", 100.0)),
    quiesce_timeout_s=5.0,
    faults=Faults(sites={Site.LATE_CREATE: ActiveSite(fire=0.5)}, slow_task=30.0),
)


def invariants_of(options: RunOptions, seed: int = 1) -> set[str]:
    """The invariants that a run breaks."""
    return {one.invariant[:2] for one in explore_one(ten_vms(), seed, options).violations}


def test_without_late_success_handling_there_are_orphans(monkeypatch: pytest.MonkeyPatch) -> None:
    assert invariants_of(LATE) == set()

    async def forget(context: Context, work: VmWork, request: object, *_: object, **__: object):  # type: ignore[no-untyped-def]
        context.journal.settle(work.tag)
        raise vmcalls.DidNotHappenError("create_snapshot", work.vm.id, "no answer in time")

    monkeypatch.setattr(vmcalls, "_adopt", forget)
    assert "I2" in invariants_of(LATE)


def test_without_the_quiesce_timeout_guests_stay_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(
        quiesce_timeout_s=5.0, faults=Faults(sites={Site.QUIESCE_HANGS: ActiveSite(fire=0.5)})
    )
    assert invariants_of(options) == set()
    request = vmcalls.VmSnapshotRequest
    monkeypatch.setattr(
        vmcalls, "VmSnapshotRequest", lambda vm, tag, quiesce, _: request(vm, tag, quiesce, 1e9)
    )
    assert "I1" in invariants_of(options)


def test_without_the_release_on_failure_snapshots_outlive_their_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = RunOptions(faults=Faults(sites={Site.POOL_FULL: ActiveSite(fire=1.0)}))
    assert invariants_of(options) == set()
    release: Callable[..., object] = group.GroupRun._release_all

    async def only_if_well(self: group.GroupRun) -> None:
        if all(work.verified for work in self.works):
            await release(self)  # type: ignore[misc]

    monkeypatch.setattr(group.GroupRun, "_release_all", only_if_well)
    assert "I2" in invariants_of(options)


def test_without_group_atomicity_an_entry_promises_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = RunOptions(faults=Faults(sites={Site.PARTIAL_GROUP: ActiveSite(fire=1.0)}))
    seeds = range(1, 30)
    from stillframe.scenarios.schema import load_scenario

    scenario = load_scenario("first-claim")

    def broken() -> set[str]:
        return {
            one.invariant[:2]
            for seed in seeds
            for one in explore_one(scenario, seed, options).violations
        }

    assert broken() == set()
    monkeypatch.setattr(arraycalls, "_whole", lambda _call, snapshot: snapshot)
    assert {"I4", "I8"} <= broken()


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_course_leaves_no_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_memory: bool
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(journals, "_MEMORY", tmp_path if in_memory else tmp_path / "none")
    run = Course(ten_vms(), 1, RunOptions(journal=JournalKind.SQLITE_FILE), None)
    run.run()
    assert len(list(tmp_path.iterdir())) == 1
    run.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("own", "most"), [(20.0, 2.0), (0.5, 0.5)])
def test_guests_write_no_more_often_than_images_need(own: float, most: float) -> None:
    scenario = ten_vms()
    block = scenario.world.block.model_copy(update={"most_writes_per_s": own})
    world = scenario.world.model_copy(update={"block": block})
    setting = setting_of(scenario.model_copy(update={"world": world}), RunOptions(fidelity="block"))
    assert setting.config.block.most_writes_per_s == most
