"""The commands: what they print, what they write, and which code they exit with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stillframe import __version__, cli_common, simulation
from stillframe.cli import app
from stillframe.cli_plan import worth_telling
from stillframe.errors import StillframeError
from stillframe.orchestrator.result import JobStatus
from stillframe.reports import folder
from stillframe.sim.profilefile import load_profile
from stillframe.sim.trace import RECORD
from stillframe.topology.queries import Component
from stillframe.topology.ties import Tie

PARTLY = """\
name: partly
title: One VM on a local disk
estate:
  inline:
    vcenters: [{name: vc-1}]
    hosts: [{name: esx-1}]
    arrays:
      - name: array-a
        units: [{name: lun-1, capacity: 1 TiB, devices: [naa.6001]}]
    datastores:
      - {name: ds-1, extents: [naa.6001]}
      - {name: local, extents: ["mpx.vmhba0:C0:T0:L0"]}
    vms:
      - {name: "web [1]", host: esx-1, disks: [{datastore: ds-1, size: 60 GiB}]}
      - {name: own, host: esx-1, disks: [{datastore: local, size: 60 GiB}]}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*args: str, code: int = 0) -> Any:
    """Run a command and expect this exit code, and a quiet stderr if it is 0 or 1."""
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == code, result.stdout + result.stderr
    if code in (0, 1):
        assert result.stderr == ""
    return result


def document(*args: str, code: int = 0) -> Any:
    """The one JSON document that a command writes."""
    return json.loads(invoke(*args, "--json", code=code).stdout)


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_help_version_and_no_command() -> None:
    assert invoke("--version").stdout == f"stillframe {__version__}\n"
    text = invoke("--help").stdout
    for word in ("plan", "run", "report", "calibrate", "estate", "scenario", "Exit codes"):
        assert word in text
    assert "plan" in invoke().stdout
    for command in ("plan", "run", "report"):
        assert "Exit codes" in invoke(command, "--help").stdout


def test_help_loads_nothing_heavy() -> None:
    """What makes --help slow is what it imports."""
    code = (
        "import sys, stillframe.cli\n"
        "heavy = {'pydantic', 'numpy', 'polars', 'matplotlib', 'networkx', 'simpy', 'openpyxl'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_installed_command_works(here: Path) -> None:
    command = [sys.executable, "-m", "stillframe"]
    done = subprocess.run([*command, "plan", "zzz"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"stillframe {__version__}\n")
    assert written(here) == []


def test_a_reader_that_leaves_early_ends_the_command_quietly() -> None:
    """With the code that the shell knows from other programs, not with one of a job's."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "stillframe", "scenario", "schema"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


# -- plan ------------------------------------------------------------------------------------


def test_plan_says_what_ties_the_group_together(here: Path) -> None:
    text = invoke("plan", "one-disk-ties").stdout
    assert "21 VMs selected, 1 group by strategy per-component; 2 of 2 units targeted" in text
    assert "moving disk 2001 of VM bridge off datastore ds-b splits this group" in text
    assert "Windows predicted by one modelled run, seed 1" in text
    assert text.rstrip().endswith("Nothing was touched.")
    assert written(here) == []


def test_plan_names_collateral_and_what_cannot_be_protected(here: Path) -> None:
    (here / "partly.yaml").write_text(PARTLY, encoding="utf-8")
    text = invoke("plan", "partly.yaml", "--no-predict", code=1).stdout
    assert "Cannot be protected" in text
    assert "on disks local to a host" in text
    assert "web [1]" in text
    assert "Windows predicted" not in text
    assert "1 collateral VM (on a targeted unit, not selected): mail-1." in (
        invoke("plan", "first-claim", "--no-predict").stdout
    )


def test_plan_as_json(here: Path) -> None:
    plan = document("plan", "first-claim", "--seed", "5")
    assert plan["strategy"] == "per-component"
    assert len(plan["selected"]) == 5
    assert [len(group["vms"]) for group in plan["groups"]] == [3, 2]
    assert plan["targeting"]["units"] == 4
    assert plan["targeting"]["units_in_estate"] == 6
    assert plan["collateral"] == ["vc-1/mail-1"]
    assert plan["largest_component"]["ties"][0]["vm"] == "vc-1/shop-db"
    predicted = plan["predicted"]
    assert (predicted["seed"], predicted["status"]) == (5, "protected")
    assert predicted["windows_s"]["quiesce"]["n"] == 4
    spread = predicted["windows_s"]["open"]
    assert 0 < spread["p50"] <= spread["p95"] <= spread["max"]
    assert document("plan", "first-claim", "--no-predict")["predicted"] is None
    assert written(here) == []


@pytest.mark.parametrize(
    ("strategy", "groups"), [("all-at-once", 1), ("per-datastore", 2), ("chunks", 2)]
)
def test_plan_with_another_strategy(here: Path, strategy: str, groups: int) -> None:
    plan = document("plan", "first-claim", "--no-predict", "--strategy", strategy)
    assert (plan["strategy"], len(plan["groups"])) == (strategy, groups)


def test_plan_of_vms_that_cannot_be_protected_at_all(here: Path) -> None:
    (here / "none.yaml").write_text(
        PARTLY + "job: {select: {include: {name: own}}}\n", encoding="utf-8"
    )
    assert document("plan", "none.yaml", "--no-predict", code=3)["groups"] == []


# -- run and report --------------------------------------------------------------------------


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is most of a small run's time, and one test that looks at the pictures is enough."""
    monkeypatch.setattr(folder, "draw_all", lambda _run: {})


def test_run_writes_a_result_and_says_where(here: Path) -> None:
    text = invoke("run", "first-claim").stdout
    result = here / "out" / "first-claim"
    assert text.splitlines()[-1] == "Report: out/first-claim/report.html"
    for name in ("run.json", "vms.parquet", "events.parquet", "report.html"):
        assert (result / name).is_file()
    assert list((result / "figures").glob("*.png"))
    meta = json.loads((result / "run.json").read_text("utf-8"))["meta"]
    assert meta["command"] == "stillframe run first-claim --seed 1"
    assert meta["status"] == "protected"


@pytest.mark.usefixtures("no_pictures")
def test_run_again_replaces_its_own_result_and_report_renders_it(here: Path) -> None:
    (here / "partly.yaml").write_text(PARTLY, encoding="utf-8")
    first = document("run", "partly.yaml", "--out", "result", code=1)
    assert first["folder"] == "result"
    assert first["status"] == "partly-protected"
    assert {vm["name"]: vm["status"] for vm in first["vms"]} == {
        "web [1]": "protected",
        "own": "unprotected",
    }
    second = document("run", "partly.yaml", "--out", "result", "--seed", "9", code=1)
    assert (first["seed"], second["seed"]) == (1, 9)
    assert first["trace_hash"] != second["trace_hash"]
    (here / "result" / "report.html").unlink()
    run_json = (here / "result" / "run.json").read_bytes()
    text = invoke("report", "result", code=1).stdout
    assert "result/report.html" in text
    assert (here / "result" / "report.html").is_file()
    assert (here / "result" / "run.json").read_bytes() == run_json
    assert document("report", "result", code=1)["trace_hash"] == second["trace_hash"]
    assert sorted(path.name for path in here.iterdir()) == ["partly.yaml", "result"]


@pytest.mark.usefixtures("no_pictures")
def test_the_command_in_a_result_repeats_it(here: Path) -> None:
    args = ("run", "first-claim", "--strategy", "all-at-once", "--seed", "3")
    first = document(*args, "--out", "a")
    assert first["strategy"] == "all-at-once"
    again = first["command"].split()[1:]
    assert document(*again, "--out", "b")["trace_hash"] == first["trace_hash"]


@pytest.mark.usefixtures("no_pictures")
def test_a_cancelled_job_exits_with_3_and_leaves_a_result(here: Path) -> None:
    (here / "cancelled.yaml").write_text(
        PARTLY + 'events: [{at: "1 s", cancel_job: true}]\n', encoding="utf-8"
    )
    assert document("run", "cancelled.yaml", "--out", "it", code=3)["status"] == "cancelled"
    assert (here / "it" / "report.html").is_file()


@pytest.mark.usefixtures("no_pictures")
def test_a_job_that_protects_nothing_exits_with_3(here: Path) -> None:
    (here / "none.yaml").write_text(
        PARTLY + "job: {select: {include: {name: own}}}\n", encoding="utf-8"
    )
    assert document("run", "none.yaml", "--out", "it", code=3)["status"] == "failed"


def test_a_job_that_ctrl_c_cancelled_is_no_result(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop turns Ctrl-C into a cancelled job; no seed repeats when that was."""
    real = simulation.simulate

    def interrupted(*args: Any, **options: Any) -> simulation.Simulation:
        simulation = real(*args, **options)
        simulation.result.status = JobStatus.CANCELLED
        return simulation

    monkeypatch.setattr(simulation, "simulate", interrupted)
    for command in ("plan", "run"):
        result = invoke(command, "first-claim", code=130)
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    assert written(here) == []


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (
            "events: [{at: 1 s, cancel_job: true}, {at: 2 s, kind: power, vm: ghost, to: off}]",
            ("bad.yaml: events[1].vm", "'ghost'"),
        ),
        ("world: {arrays: {array-x: {}}}", ("bad.yaml: world.arrays.array-x", "array-a")),
        ("world: {guests: [{match: a, profile: gone.npz}]}", ("gone.npz", "does not exist")),
        ("world: {guests: [{match: a, profile: gone}]}", ("'gone'", "is not known")),
    ],
)
def test_what_the_world_refuses_is_blamed_on_the_scenario(
    here: Path, tail: str, words: tuple[str, ...]
) -> None:
    (here / "bad.yaml").write_text(PARTLY + tail + "\n", encoding="utf-8")
    for command in ("plan", "run"):
        result = invoke(command, "bad.yaml", code=2)
        assert result.stderr.count("\n") == 1
        for word in words:
            assert word in result.stderr
    assert written(here) == ["bad.yaml"]


@pytest.mark.parametrize(
    ("error", "code", "lines", "words"),
    [
        (StillframeError("the lab\nburns", "call 112"), 3, 1, "the lab burns: call 112"),
        (KeyboardInterrupt(), 130, 1, "interrupted"),
        (OSError(28, "No space left on device", "/x"), 3, 1, "/x: No space left on device"),
        (RuntimeError("a defect\nof ours"), 3, None, "internal error"),
    ],
)
def test_failures_are_one_line_and_nothing_is_written(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    lines: int | None,
    words: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(simulation, "simulate", fail)
    result = invoke("run", "first-claim", code=code)
    assert words in result.stderr
    assert result.stdout == ""
    if lines is not None:
        assert result.stderr.count("\n") == lines
        assert "Traceback" not in result.stderr
    else:
        assert "a defect" in result.stderr
    assert written(here) == []


# -- calibrate and scenarios -----------------------------------------------------------------


def test_calibrate_writes_a_profile_that_loads(here: Path) -> None:
    rows = np.zeros(400, dtype=RECORD)
    rows["length_bytes"] = 4096
    rows["command"] = 0x2A
    rows["version"] = 1 << 8
    rows["lbn"] = np.arange(400) * 8
    rows["time_us"] = np.arange(400) * 100_003 + np.arange(400) % 7
    rows.tofile(here / "disk.vscsi")
    text = invoke("calibrate", "trace", "disk.vscsi", "--out", "disk.npz").stdout
    assert "400 writes of 1.56 MiB" in text
    assert text.splitlines()[-1] == "Write profile: disk.npz"
    profile = load_profile(here / "disk.npz")
    assert profile.distinct_bytes() == 400 * 4096
    found = document("calibrate", "trace", "disk.vscsi")
    assert found["totals"]["writes"] == 400
    assert found["profile"] is None
    assert found["rows"]


def test_scenario_list_and_schema() -> None:
    names = [one["name"] for one in document("scenario", "list")]
    assert "demo" in names
    lines = invoke("scenario", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == names
    schema = json.loads(invoke("scenario", "schema").stdout)
    assert schema == document("scenario", "schema")
    assert schema["title"] == "Scenario"


# -- progress --------------------------------------------------------------------------------


def test_the_bar_waits_two_seconds_and_only_shows_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(cli_common.time, "monotonic", lambda: now[0])
    with cli_common.progress("Working") as show:
        now[0] = 10.0
        show("half", 0.5)
    assert capsys.readouterr() == ("", "")
    bar = cli_common._Bar("Working")
    now[0] += 1.9
    bar.show("early", 0.1)
    assert bar._progress is None
    now[0] += 0.2
    bar.show("half", 0.5)
    assert bar._progress is not None
    assert bar._progress.tasks[0].completed == 0.5
    assert "half" in bar._progress.tasks[0].description
    bar.stop()
    captured = capsys.readouterr()
    assert captured.out == ""


def test_ties_that_free_next_to_nobody_are_not_told() -> None:
    def tie(freed: int) -> Tie:
        return Tie("vm", (2000,), False, "ds", ("unit",), (100 - freed, freed), f"frees {freed}")

    component = Component(tuple(f"vm-{n}" for n in range(100)), ("a", "b"), ("array",))
    assert [one.freed for one in worth_telling([tie(50), tie(5), tie(4), tie(1)], component)] == [
        50,
        5,
    ]
    small = Component(("x", "y", "z"), ("a", "b"), ("array",))
    assert worth_telling([tie(1)], small) == [tie(1)]
