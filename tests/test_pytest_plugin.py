"""The pytest plugin: seeds, options and fixtures, in projects that pytest runs inside a test."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support_rvtools import complete, write_csv

# Imported out here: what a run inside a test imports for the first time is unloaded after it.
import stillframe.pytest_golden
import stillframe.pytest_job
import stillframe.pytest_plugin
import stillframe.pytest_worlds

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
LOADED = ("-p", "stillframe.pytest_plugin")
"""For a process of its own; what runs in this one has the module that is imported already."""
HEAVY = ("simpy", "pydantic", "numpy", "polars", "networkx", "yaml", "matplotlib", "typer")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose pytest has this plugin and no other, and takes warnings for errors."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini(
        "[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n"
    )
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest on the project, in this process."""
    return project.runpytest_inprocess(*arguments, plugins=[stillframe.pytest_plugin])


SEEDED = """
import pytest

@pytest.mark.stillframe_seeds({seeds})
def test_one(stillframe_seed):
    assert stillframe_seed not in {bad}
"""


def test_the_distribution_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"stillframe": "stillframe.pytest_plugin"}


def test_a_project_that_uses_no_fixture_pays_for_nothing(project: pytest.Pytester) -> None:
    project.makepyfile(
        f"""
        import sys

        def test_nothing_is_loaded():
            assert "stillframe.pytest_plugin" in sys.modules
            assert not {set(HEAVY)!r} & set(sys.modules)
            ours = {{name for name in sys.modules if name.partition(".")[0] == "stillframe"}}
            assert ours == {{"stillframe", "stillframe.errors", "stillframe.pytest_plugin"}}

        def test_a_fixture_loads_them(stillframe_job):
            assert {{"simpy", "pydantic"}} <= set(sys.modules)
        """
    )
    project.runpytest_subprocess(*LOADED).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("seeds", "options", "expected"),
    [
        ("3", [], [0, 1, 2]),
        ("range(5, 8)", [], [5, 6, 7]),
        ("[4, 9]", [], [4, 9]),
        ("3", ["--stillframe-seeds", "2"], [0, 1]),
        ("range(5, 8)", ["--stillframe-seeds", "1"], [0]),
        ("3", ["--stillframe-seed", "77"], [77]),
        ("3", ["--stillframe-seed", "77", "--stillframe-seeds", "2"], [77]),
    ],
)
def test_a_test_runs_once_with_each_seed(
    project: pytest.Pytester, seeds: str, options: list[str], expected: list[int]
) -> None:
    project.makepyfile(SEEDED.format(seeds=seeds, bad=[]))
    result = run(project, "-v", *options)
    result.assert_outcomes(passed=len(expected))
    result.stdout.fnmatch_lines([f"*::test_one[[]seed{seed}[]] PASSED*" for seed in expected])


@pytest.mark.parametrize(
    "seeds", ["0", "-1", "True", "", "1, 2", "seeds=4", "'3'", "[]", "[-1]", "[1.5]", "None"]
)
def test_a_marker_that_makes_no_sense_is_refused(project: pytest.Pytester, seeds: str) -> None:
    project.makepyfile(SEEDED.format(seeds=seeds, bad=[]))
    result = run(project)
    result.assert_outcomes(errors=1)
    assert f"::test_one: stillframe_seeds({seeds}) is not understood" in result.stdout.str()


def test_a_marker_without_effect_is_refused(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.stillframe_seeds(3)
        def test_one(tmp_path):
            pass
        """
    )
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*test_one: marker stillframe_seeds has no effect*"])


@pytest.mark.parametrize(
    "option", ["--stillframe-seed=-1", "--stillframe-seed=x", "--stillframe-seeds=0"]
)
def test_an_option_that_makes_no_sense_is_refused(project: pytest.Pytester, option: str) -> None:
    result = project.runpytest_subprocess(*LOADED, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    value = option.partition("=")[2]
    kind = "number of seeds" if "seeds=" in option else "seed"
    result.stderr.fnmatch_lines([f"*argument --stillframe-*: invalid {kind} value: '{value}'"])


@pytest.mark.parametrize("below_root", [False, True])
def test_the_command_under_a_failure_fails_again(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, below_root: bool
) -> None:
    """Also from a folder below the root, where paths of tests are written another way."""
    folder = project.mkdir("with space")
    (folder / "test_it.py").write_text(SEEDED.format(seeds=6, bad=[4]), encoding="utf-8")
    if below_root:
        monkeypatch.chdir(folder)
    result = run(project)
    result.assert_outcomes(passed=5, failed=1)
    (line,) = [line for line in result.outlines if line.startswith("seed 4; again with: ")]
    path = "test_it.py::test_one" if below_root else "'with space/test_it.py::test_one'"
    assert line.endswith(f"pytest {path} --stillframe-seed 4")
    words = shlex.split(line.partition("again with: pytest ")[2])
    run(project, *words).assert_outcomes(failed=1)
    words[-1] = "5"
    run(project, *words).assert_outcomes(passed=1)


def test_the_command_keeps_what_else_a_test_is_parametrised_with(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.parametrize("name", ["x", "y"])
        @pytest.mark.stillframe_seeds(2)
        def test_one(stillframe_seed, name):
            assert (stillframe_seed, name) != (1, "y")
        """
    )
    result = run(project)
    result.assert_outcomes(passed=3, failed=1)
    (line,) = [line for line in result.outlines if "again with: " in line]
    words = shlex.split(line.partition("again with: pytest ")[2])
    assert words[1:] == ["--stillframe-seed", "1"]
    run(project, *words).assert_outcomes(failed=1)


def test_a_failure_without_a_seed_says_nothing_of_one(project: pytest.Pytester) -> None:
    project.makepyfile("def test_one(stillframe_estate):\n    assert not stillframe_estate(vms=2)")
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*again with*")


def test_every_name_of_ours_says_whose_it_is(project: pytest.Pytester) -> None:
    plain = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", *LOADED, "-v"],
        cwd=project.path,
        check=False,
        capture_output=True,
        text=True,
    )
    ours = [line for line in plain.stdout.splitlines() if "pytest_plugin.py" in line]
    assert len(ours) == 5
    assert all(line.startswith("stillframe_") for line in ours)


def test_a_job_in_one_line(project: pytest.Pytester) -> None:
    """From an estate, from the name of a shipped scenario, and from files of both kinds."""
    project.makefile(
        ".yaml",
        small="""
        name: small
        title: Six VMs
        estate: {generate: {vms: 6, datastores: 2, arrays: 1}}
        """,
        estate="""
        vcenters: [{name: vc}]
        hosts: [{name: h}]
        arrays: [{name: a, units: [{name: l, capacity: 1 TiB, devices: [naa.60001]}]}]
        datastores: [{name: d, extents: [naa.60001], capacity: 1 TiB}]
        vms: [{name: v, host: h, disks: [{datastore: d, size: 10 GiB}]}]
        """,
    )
    project.makepyfile(
        """
        def test_estate(stillframe_estate, stillframe_job):
            estate = stillframe_estate(vms=8, datastores=3, seed=2)
            assert len(estate.inventory.vms) == 8
            assert stillframe_job(estate).result.protected == 8

        def test_names_and_files(stillframe_estate, stillframe_job):
            for where, protected in (("first-claim", 5), ("small.yaml", 6), ("estate.yaml", 1)):
                run = stillframe_job(where)
                assert run.result.protected == protected
                assert run.rows[0][1] == "job.started"
            assert len(stillframe_estate("small.yaml").inventory.vms) == 6
            assert len(stillframe_estate("estate.yaml").inventory.vms) == 1

        def test_own_settings(stillframe_job):
            whole = stillframe_job("small.yaml")
            some = stillframe_job("small.yaml", spec={"strategy": "all-at-once"}, seed=7)
            assert (whole.plan.strategy, some.plan.strategy) == ("per-component", "all-at-once")
            assert (whole.seed, some.seed) == (0, 7)
            assert stillframe_job("first-claim", spec={"recuts": 1}).result.protected == 5
            slow = stillframe_job("small.yaml", world={"hypervisor": {"task_latency": 9.0}})
            assert slow.result.makespan_s > whole.result.makespan_s + 9

        def test_own_strategy(stillframe_job):
            def mine(topology, vms, spec):
                from stillframe import PlannedGroup
                return [PlannedGroup(vm.id, (vm.id,), topology.units_of_vm(vm.id)) for vm in vms]

            assert len(stillframe_job("small.yaml", strategy=mine).plan.groups) == 6
        """
    )
    run(project).assert_outcomes(passed=4)


def test_an_estate_from_an_export_of_rvtools(project: pytest.Pytester) -> None:
    """And a folder that happens to be called like a shipped scenario is not taken for one."""
    write_csv(project.mkdir("export"), complete())
    project.mkdir("demo")
    project.makepyfile(
        """
        def test_one(stillframe_estate, stillframe_job):
            assert stillframe_estate("export").inventory.vms
            assert stillframe_job("export").result.vms
            assert len(stillframe_estate("demo").inventory.vms) == 200
        """
    )
    run(project).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("stillframe_estate(wms=3)", "estate: wms: unknown key with value 3 (did you mean 'vms'?)"),
        ("stillframe_estate('demo', vms=3)", "estate: vms: a count beside a source"),
        ("stillframe_estate('demmo')", "'demmo' is not known (did you mean 'demo'?)"),
        ("stillframe_estate('no.yaml')", "no.yaml: does not exist"),
        ("stillframe_job('demo', spec={'recuts': -1})", "spec: recuts: -1 is not accepted"),
        ("stillframe_job('demo', world={'x': 1})", "world: x: unknown key with value 1"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    project: pytest.Pytester, call: str, said: str
) -> None:
    project.makepyfile(f"def test_one(stillframe_estate, stillframe_job):\n    {call}")
    result = run(project)
    result.assert_outcomes(failed=1)
    errors = [line for line in result.outlines if line.startswith("E ")]
    assert any(said in line for line in errors)


def test_a_job_that_leaves_something_behind_fails_its_test(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillframe.sim.world import World

    monkeypatch.setattr(World, "leftovers", lambda self: ["VM v has a delta left"])
    project.makepyfile("def test_one(stillframe_job):\n    stillframe_job('first-claim')")
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*after job * (seed 0):", "E*VM v has a delta left"])


def test_a_job_that_exceeds_a_limit_fails_its_test(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillframe.orchestrator.limits import Limiter

    monkeypatch.setattr(Limiter, "peaks", lambda self: {"create_per_host h": (9, 8)})
    project.makepyfile("def test_one(stillframe_job):\n    stillframe_job('first-claim')")
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*create_per_host h had 9 operations at once, allowed are 8"])


GOLDEN = """
import pytest

def test_one(stillframe_job, stillframe_golden):
    stillframe_golden(stillframe_job("first-claim", {more}), "claim")
"""


def test_a_golden_trace_is_written_compared_and_written_anew(project: pytest.Pytester) -> None:
    """A difference shows what is missing, and the file stays as it is until it is asked for."""
    path = project.makepyfile(test_it=GOLDEN.format(more=""))
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*claim.jsonl does not exist yet*--stillframe-update-golden*"])
    run(project, "--stillframe-update-golden").assert_outcomes(passed=1)
    run(project).assert_outcomes(passed=1)
    kept = project.path / "golden" / "claim.jsonl"
    before = kept.read_bytes()

    path.write_text(
        GOLDEN.format(
            more="spec={'select': {'include': {'name': 'shop-*'}}, 'quiesce': {'policy': 'skip'}}"
        ),
        encoding="utf-8",
    )
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*claim.jsonl: the runs differ: kept * events, now *",
            "E*the first thing that only one of them did, and what came before it:",
            "E*-*world.vm.frozen*",
            "E*if this is meant: pytest --stillframe-update-golden",
        ]
    )
    assert kept.read_bytes() == before
    run(project, "--stillframe-update-golden").assert_outcomes(passed=1)
    assert kept.read_bytes() != before
    run(project).assert_outcomes(passed=1)


def test_a_golden_trace_that_lost_an_event_is_noticed(project: pytest.Pytester) -> None:
    project.makepyfile(test_it=GOLDEN.format(more=""))
    run(project, "--stillframe-update-golden").assert_outcomes(passed=1)
    kept = project.path / "golden" / "claim.jsonl"
    lines = kept.read_text(encoding="utf-8").splitlines()
    (released,) = [
        n for n, line in enumerate(lines) if "release.completed" in line and "db" in line
    ]
    kept.write_text("\n".join(lines[:released] + lines[released + 1 :]), encoding="utf-8")
    result = run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*0 only kept (-), 1 only now (+)", "E*+*vm.release.completed*"])
    kept.write_text(lines[0] + "\n[1]", encoding="utf-8")
    run(project).stdout.fnmatch_lines(["E*claim.jsonl: line 2: is not an event*"])


@pytest.mark.parametrize("name", ["../claim", "a/b", "", "."])
def test_a_golden_trace_stays_in_its_folder(project: pytest.Pytester, name: str) -> None:
    project.makepyfile(f"def test_one(stillframe_golden):\n    stillframe_golden([], {name!r})")
    result = run(project, "--stillframe-update-golden")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E*golden trace: name: '{name}' has other than*"])
