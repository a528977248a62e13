"""The plugin's lab: one's own code under faults and crashes, and how failures are shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support_sabotage import forget_to_sweep

import stillframe.pytest_golden
import stillframe.pytest_lab
import stillframe.pytest_plugin
from stillframe.explorer.replayfile import read_replay, run_again

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose pytest has this plugin and no other, and takes warnings for errors."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest on the project, in this process."""
    return project.runpytest_inprocess(*arguments, plugins=[stillframe.pytest_plugin])


def test_a_lab_runs_seeds_and_counts_what_happened(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.stillframe_seeds(4)
        def test_one(stillframe_lab, stillframe_seed):
            report = stillframe_lab("first-claim").run()
            assert report.seed == stillframe_seed
            assert report.rows
            assert stillframe_lab("first-claim").run(9).seed == 9

        def test_many(stillframe_lab):
            found = stillframe_lab("first-claim").explore(40)
            assert found.runs == 40
            assert found.crashes and found.recoveries and sum(found.fired.values())

        def test_an_estate(stillframe_lab, stillframe_estate):
            estate = stillframe_estate(vms=5, datastores=2)
            assert stillframe_lab(estate).explore([3, 4]).runs == 2

        def test_golden(stillframe_lab, stillframe_golden):
            stillframe_golden(stillframe_lab("first-claim").run(), "crash")
        """
    )
    run(project, "--stillframe-update-golden").assert_outcomes(passed=7)
    run(project).assert_outcomes(passed=7)


def test_the_command_line_says_which_seeds(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        def test_many(stillframe_lab):
            print("runs:", stillframe_lab("first-claim").explore(50).runs)

        def test_one(stillframe_lab):
            print("seed:", stillframe_lab("first-claim").run().seed)
        """
    )
    for options, runs, seed in (
        (["--stillframe-seeds", "3"], 3, 0),
        (["--stillframe-seed", "8"], 1, 8),
        (["--stillframe-seed", "8", "--stillframe-seeds", "3"], 1, 8),
    ):
        result = run(project, "-s", *options)
        result.stdout.fnmatch_lines([f"*runs: {runs}", f"*seed: {seed}"])


def test_what_is_given_is_not_drawn(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        SPEC = {"strategy": "all-at-once", "recuts": 0, "timeouts": {"array": 44.0}}

        def test_options(stillframe_lab):
            free = stillframe_lab("first-claim")
            fix = {"crash_steps": (), "ties": False}
            held = stillframe_lab("first-claim", spec=SPEC, options=fix)
            drawn = [free.options(seed) for seed in range(60)]
            fixed = [held.options(seed) for seed in range(60)]
            for name in ("strategy", "recuts", "policy", "limits", "timeouts", "attempts"):
                assert len({repr(getattr(one, name)) for one in drawn}) > 1
                assert {getattr(one, name) for one in fixed} <= {None, ()}
            assert any(one.crash_steps for one in drawn) and any(one.ties for one in drawn)
            assert not any(one.crash_steps or one.ties for one in fixed)
            assert [one.vms for one in drawn] == [one.vms for one in fixed]

        def test_the_job_is_as_it_was_asked_for(stillframe_lab):
            def as_asked(evidence):
                spec = evidence.spec
                if (spec.recuts, spec.timeouts.array) != (0, 44.0):
                    yield "another job"

            stillframe_lab("first-claim", spec=SPEC, checks=[as_asked]).explore(10)
        """
    )
    run(project).assert_outcomes(passed=2)


ONE_JOB = """
def never_more_than_one_job(evidence):
    if len(evidence.jobs) > 1:
        yield f"{len(evidence.jobs)} jobs"

def test_many(stillframe_lab):
    stillframe_lab("first-claim", checks=[never_more_than_one_job]).explore(100)
"""
MANY = """
def test_many(stillframe_lab):
    stillframe_lab("first-claim"{more}).explore(100)
"""


def failing_seed(result: pytest.RunResult) -> int:
    (seed,) = re.findall(r"^E .*Error: seed (\d+) of first-claim breaks", str(result.stdout), re.M)
    return int(seed)


def test_a_broken_invariant_can_be_seen_again_in_two_ways(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_to_sweep(monkeypatch)
    project.makepyfile(test_it=MANY.format(more=""))
    result = run(project)
    result.assert_outcomes(failed=1)
    seed = failing_seed(result)
    assert seed > 0
    command = f"pytest test_it.py::test_many --stillframe-seed {seed}"
    result.stdout.fnmatch_lines(
        [
            "E*  I2 orphans: * ended and did not tell that *",
            "E*what went wrong before: *",
            f"E*again: {command}",
            f"E*again: stillframe replay *first-claim-{seed}.json",
            f"seed {seed}; again with: {command}",
        ]
    )
    again = run(project, *shlex.split(command)[1:])
    again.assert_outcomes(failed=1)
    assert failing_seed(again) == seed
    # Where CI is set, pytest's short summary repeats the whole message.
    (path,) = set(re.findall(r"again: stillframe replay (\S+)$", str(result.stdout), re.M))
    replayed = run_again(read_replay(Path(path)))
    assert not replayed.differs
    assert replayed.report.failed


def test_a_failing_run_is_made_small_when_it_is_asked_for(project: pytest.Pytester) -> None:
    """Also with a check of the test's own, which decides what counts as the same failure."""
    project.makepyfile(test_it=ONE_JOB)
    plain = run(project)
    plain.assert_outcomes(failed=1)
    plain.stdout.no_fnmatch_line("*is still broken after*")
    result = run(project, "--stillframe-shrink")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*again: pytest test_it.py::test_many *",
            "E* never_more_than_one_job is still broken after * runs: *vms * → 1, *",
            "E*the small run: options={'vms': [[]'vc-1/*'], 'second_job': True}",
            "E*it passes with second_job as by default:",
            "E*the runs differ: passing * events, failing *",
        ]
    )


def test_what_is_not_in_a_file_is_not_offered_as_one(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_to_sweep(monkeypatch)
    own = {
        "strategy": "lambda t, v, s: __import__('stillframe.orchestrator.strategies', "
        "fromlist=['x']).all_at_once(t, v, s)",
        "checks": "[lambda evidence: []]",
        "retention": "lambda entries, now_s: []",
    }
    for name, value in own.items():
        project.makepyfile(test_it=MANY.format(more=f", {name}={value}"))
        result = run(project)
        result.assert_outcomes(failed=1)
        result.stdout.no_fnmatch_line("*stillframe replay*")
    project.makepyfile(test_it=MANY.format(more=""))
    without_cache = run(project, "-p", "no:cacheprovider")
    without_cache.assert_outcomes(failed=1)
    without_cache.stdout.no_fnmatch_line("*stillframe replay*")


def test_a_check_of_ones_own_is_an_invariant_like_others(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=ONE_JOB)
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*  never_more_than_one_job: 2 jobs"])


def test_a_strategy_that_loses_a_vm_fails_at_once(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        from stillframe import PlannedGroup

        def loses(topology, vms, spec):
            return [PlannedGroup("g", (), ())]

        def test_many(stillframe_lab):
            stillframe_lab("first-claim", strategy=loses).explore(5)
        """
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*seed 0 of first-claim *",
            "E*is in no group*",
            "E*again: pytest test_it.py::test_many *",
        ]
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("('first-claim', options={'crash_step': ()})", "options: crash_step: unknown key"),
        ("('first-claim', options={'downtime_s': -1})", "options: downtime_s: -1 is not accepted"),
        ("('first-claim').explore(0)", "stillframe_lab: seeds: 0 is no seed at all"),
        ("('first-claim').explore([])", "stillframe_lab: seeds: [] is no seed at all"),
        ("('first-klaim')", "'first-klaim' is not known"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    project: pytest.Pytester, call: str, said: str
) -> None:
    project.makepyfile(f"def test_one(stillframe_lab):\n    stillframe_lab{call}")
    result = run(project)
    result.assert_outcomes(failed=1)
    assert any(said in line for line in result.outlines if line.startswith("E "))
