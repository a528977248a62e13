"""``explore`` and ``replay``: what they print and write, and which code they exit with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stillframe import cli_explore
from stillframe.cli import app
from stillframe.explorer import campaign
from stillframe.explorer.report import RunReport, Violation
from stillframe.explorer.run import explore_one


def invoke(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def broken(scenario: Any, seed: int, *args: Any, **options: Any) -> RunReport:
    """A run in which every seed that ends in 7 leaves something behind."""
    report = explore_one(scenario, seed, *args, **options)
    if seed % 10 == 7:
        return replace(report, violations=(Violation("I2 orphans", "vc-1/web-1 still has t"),))
    return report


def test_explore_says_what_ran_and_that_all_held() -> None:
    told = invoke("explore", "ten-vms", "--seeds", "30")
    assert "30 runs" in told
    assert "Every invariant held in every run." in told


def test_explore_as_json_counts_everything() -> None:
    told = json.loads(invoke("explore", "ten-vms", "first-claim", "--seeds", "20", "--json"))
    assert told["runs"] == 40
    assert told["violations"] == []
    assert sum(told["journals"].values()) == 40
    assert sum(told["fidelities"].values()) == 40
    assert set(told["versions"]) == {"stillframe", "python", "simpy"}


def test_a_violation_is_told_with_the_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(campaign, "explore_one", broken)
    told = invoke(
        "explore", "ten-vms", "--seeds", "20", "--from", "5", "--fidelity", "flow", code=3
    )
    assert "I2 orphans: vc-1/web-1 still has t" in told
    line = next(one for one in told.splitlines() if "stillframe replay" in one).split()
    assert line[:5] == ["stillframe", "replay", "ten-vms@flow", "--seed", "7"]
    assert "simpy 4" in told
    monkeypatch.undo()
    # The command repeats the very run: its hash is the one that was printed.
    assert "Every invariant held." in invoke(*line[1:])


def test_out_writes_a_file_that_repeats_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(campaign, "explore_one", broken)
    monkeypatch.setattr(cli_explore, "explore_one", broken)
    file = tmp_path / "failure.json"
    told = invoke("explore", "ten-vms", "--seeds", "10", "--out", str(file), code=3)
    assert f"stillframe replay {file} repeats it" in " ".join(told.split())
    monkeypatch.undo()
    # What was found was put in by this test, so that the run differs from its file.
    assert "differs" in invoke("replay", str(file), code=3)


def test_replay_tells_options_events_and_outcome() -> None:
    told = invoke("replay", "ten-vms", "--seed", "3", "--events")
    assert "job.started" in told
    assert "trace hash" in told
    data = json.loads(invoke("replay", "ten-vms", "--seed", "3", "--json"))
    assert data["events"] is None
    assert data["trace_hash"] in told
    assert data["options"]["vms"]


def test_replay_holds_the_run_to_an_expected_hash() -> None:
    assert "not 00ff" in invoke("replay", "ten-vms", "--seed", "3", "--expect", "00ff", code=3)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("explore",), "name a scenario"),
        (("explore", "nosuch", "--seeds", "1"), "not known"),
        (("explore", "ten-vms", "--seeds", "1", "--out", "x.yaml"), "does not end in .json"),
        (("explore", "whole-estate", "--exhaustive-crash"), "too many places to die at"),
        (("replay", "ten-vms"), "needs --seed"),
        (("replay", "nosuch.json"), "does not exist"),
    ],
)
def test_bad_input_is_one_line(args: tuple[str, ...], told: str) -> None:
    found = invoke(*args, code=2)
    assert told in found
    assert len(found.strip().splitlines()) == 1
