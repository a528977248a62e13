"""Failing runs made small: what goes, what stays, and that it is still the same failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_sabotage import forget_to_sweep

from stillframe.errors import StillframeError
from stillframe.explorer.contrast import contrast
from stillframe.explorer.options import JournalKind, PlannedEvent, RunOptions
from stillframe.explorer.replayfile import read_replay, run_again, write_replay
from stillframe.explorer.report import RunReport, Violation
from stillframe.explorer.run import explore_one
from stillframe.explorer.shrink import shrink
from stillframe.scenarios.schema import Scenario, load_scenario
from stillframe.sim.faults import ActiveSite, Faults, Site

CLAIM = load_scenario("first-claim")
DB, WEB, MAIL = "vc-1/shop-db", "vc-1/shop-web-1", "vc-1/mail-1"
CUTS = PlannedEvent(kind="power", at_s=3.0, vm=DB, target="off", cut=True)
MOVES = PlannedEvent(kind="vmotion", at_s=1.0, vm=WEB, target="vc-1/esx-2")
FULL = RunOptions(
    vms=(WEB, MAIL, DB, "vc-1/lab-1"),
    foreign=((WEB, 1), (DB, 2)),
    limits=(("create_per_host", 2), ("groups", 1)),
    timeouts=(("array", 20.0),),
    attempts=2,
    events=(MOVES, CUTS),
    cancel_s=12.0,
    faults=Faults(
        sites={site: ActiveSite(fire=0.5) for site in list(Site)[:9]}, budget=9, silence=7.0
    ),
    ready_order=True,
    crash_steps=(40, 0, 9),
    journal=JournalKind.SQLITE_MEMORY,
)


def report_of(options: RunOptions, *invariants: str, scenario: Scenario = CLAIM) -> RunReport:
    """A report as a run with these options and broken invariants would have it."""
    return RunReport(
        scenario=scenario.name,
        seed=3,
        options=options,
        violations=tuple(Violation(name, f"{name} does not hold") for name in invariants),
        trace_hash="",
        crashes=0,
        recoveries=0,
        steps_by_incarnation=(100,),
        virtual_s=1.0,
        fired={"quiesce-fails": 4},
    )


class Fake:
    """Runs nothing: ``broken`` says which invariants a run with these options would break."""

    def __init__(self, broken: Any) -> None:
        self.broken = broken
        self.seen: list[tuple[Scenario, RunOptions]] = []

    def __call__(self, scenario: Scenario, seed: int, options: RunOptions) -> RunReport:
        assert seed == 3
        self.seen.append((scenario, options))
        return report_of(options, *self.broken(options), scenario=scenario)


def needs_little(options: RunOptions) -> list[str]:
    """Broken while one site is active, one VM is there, one event happens and a process dies."""
    there = (
        Site.QUIESCE_HANGS in options.faults.sites
        and options.vms is not None
        and DB in options.vms
        and CUTS in options.events
        and options.crash_steps[2:] == (9,)
    )
    return ["I2 orphans"] if there else []


def test_what_is_not_needed_goes_and_what_is_needed_stays() -> None:
    run = Fake(needs_little)
    found = shrink(report_of(FULL, "I2 orphans"), CLAIM, run=run)
    left = found.report.options
    assert left == RunOptions(
        vms=(DB,),
        events=(CUTS,),
        faults=Faults(sites={Site.QUIESCE_HANGS: ActiveSite(fire=0.5)}, budget=1),
        crash_steps=(0, 0, 9),
    )
    assert found.finished
    assert found.before._asdict() == {
        "fault_sites": 9,
        "vms": 4,
        "events": 2,
        "settings": 8,
        "steps": 100,
    }
    assert found.after[:4] == (1, 1, 1, 1)
    assert found.runs == len(run.seen) <= 80
    assert "fault sites 9 → 1, vms 4 → 1, events 2 → 1, settings 8 → 1" in found.sentence()


def test_nothing_is_run_twice() -> None:
    run = Fake(needs_little)
    shrink(report_of(FULL, "I2 orphans"), CLAIM, run=run)
    keys = [(scenario.model_dump_json(), options) for scenario, options in run.seen]
    assert all(key not in keys[:number] for number, key in enumerate(keys))


def test_another_broken_invariant_is_another_failure() -> None:
    """Without its fault site the run breaks something else, which is no reason to drop it."""

    def broken(options: RunOptions) -> list[str]:
        return needs_little(options) or ["I9 terminates"]

    found = shrink(report_of(FULL, "I2 orphans"), CLAIM, run=Fake(broken))
    assert found.invariant == "I2 orphans"
    assert set(found.report.options.faults.sites) == {Site.QUIESCE_HANGS}
    assert [one.invariant for one in found.report.violations] == ["I2 orphans"]


def test_a_run_that_cannot_be_made_does_not_fail() -> None:
    """An event names a VM: without the VM there is no run at all."""

    def broken(options: RunOptions) -> list[str]:
        if WEB not in (options.vms or ()) and MOVES in options.events:
            raise StillframeError("there is no such VM")
        return ["I2 orphans"] if MOVES in options.events else []

    found = shrink(report_of(FULL, "I2 orphans"), CLAIM, run=Fake(broken))
    assert found.report.options == RunOptions(vms=(WEB,), events=(MOVES,))


def test_the_scenario_shrinks_too() -> None:
    scenario = load_scenario("storage-vmotion")
    assert scenario.events
    found = shrink(
        report_of(RunOptions(), "I1 frozen", scenario=scenario),
        scenario,
        run=Fake(lambda options: ["I1 frozen"]),
    )
    assert found.scenario.events == ()
    assert found.scenario.world == type(scenario.world)()
    assert found.after.vms == 1


@pytest.mark.parametrize("most_runs", [1, 2, 7, 30])
def test_when_the_runs_are_used_up_the_smallest_so_far_is_the_result(most_runs: int) -> None:
    told: list[tuple[int, int]] = []
    run = Fake(needs_little)
    found = shrink(
        report_of(FULL, "I2 orphans"),
        CLAIM,
        run=run,
        most_runs=most_runs,
        progress=lambda done, of: told.append((done, of)),
    )
    assert not found.finished
    assert "more may be possible" in found.sentence()
    assert told == [(done, most_runs) for done in range(1, most_runs + 1)]
    assert needs_little(found.report.options)


def test_only_failures_that_repeat_can_shrink() -> None:
    with pytest.raises(StillframeError, match=r"does not fail$"):
        shrink(report_of(FULL), CLAIM, run=Fake(lambda options: []))
    with pytest.raises(StillframeError, match="does not fail again"):
        shrink(report_of(FULL, "I2 orphans"), CLAIM, run=Fake(lambda options: []))


def test_the_passing_run_that_is_kept_is_one_thing_away() -> None:
    found = shrink(report_of(FULL, "I2 orphans"), CLAIM, run=Fake(needs_little))
    assert found.passing is not None
    scenario, options = found.passing
    assert scenario == found.scenario
    assert not needs_little(options)
    failing = found.report.options
    differing = [
        name for name in RunOptions.model_fields if getattr(options, name) != getattr(failing, name)
    ]
    assert len(differing) == 1
    assert differing != ["vms"]


def test_a_run_that_fails_whatever_is_taken_away_has_no_contrast() -> None:
    found = shrink(report_of(FULL, "I1 frozen"), CLAIM, run=Fake(lambda options: ["I1 frozen"]))
    assert found.passing is None
    with pytest.raises(StillframeError, match="no run near seed 3 that passes"):
        contrast(found)


def test_a_contrast_shows_what_the_last_cause_brings_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget_to_sweep(monkeypatch)
    lost = PlannedEvent(kind="host-lost", at_s=2.6, target="vc-1/esx-2")
    options = RunOptions(vms=("vc-1/shop-web-1", "vc-1/shop-web-2"), events=(lost,))
    report = explore_one(CLAIM, 9, options)
    assert report.failed
    text = contrast(shrink(report, CLAIM))
    assert text.startswith("it passes with events as by default:\nthe runs differ: passing ")
    first = text.split("what came before it:")[1].split("\n\n")[0].splitlines()[-1]
    assert first.strip().startswith("+     2.600000 s  world.host.lost")


def first_failing(scenario: Scenario, most: int = 200) -> RunReport:
    reports = (explore_one(scenario, seed) for seed in range(most))
    return next(report for report in reports if report.failed)


@pytest.mark.parametrize("name", ["first-claim", "demo"])
def test_a_real_failure_becomes_small_and_replays_from_a_file(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scenario = load_scenario(name)
    path = tmp_path / "small.json"
    with monkeypatch.context() as patch:
        forget_to_sweep(patch)
        report = first_failing(scenario)
        found = shrink(report, scenario)
        assert found.finished
        assert found.runs < 200
        assert report.violations[0].invariant in {v.invariant for v in found.report.violations}
        assert found.after.vms <= min(2, found.before.vms)
        assert found.after.fault_sites + found.after.events <= 2
        assert found.after.settings <= 3
        again = shrink(report, scenario)
        assert (again.report, again.runs) == (found.report, found.runs)
        write_replay(path, found.report, found.scenario)
        replayed = run_again(read_replay(path))
        assert not replayed.differs
        assert replayed.report.violations == found.report.violations
    mended = run_again(read_replay(path))
    assert not mended.report.failed
    assert mended.differs
