"""Validation on a real lab of one guest: live runs, a fit of them, and a prediction."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_lab import needs_lab, short_folder
from typer.testing import CliRunner

from benchmarks.evidence_validation import cells_of
from benchmarks.validation_lab import LOADS, Plan, Session, measure
from stillframe.cli import app
from stillframe.lab.fit import FittedProfile, fit, save_fitted
from stillframe.lab.fit_record import RunRecord
from stillframe.lab.lab import bring_up
from stillframe.lab.spec import LabSpec
from stillframe.lab.teardown import take_down
from stillframe.sim.config import WorldConfig

pytestmark = needs_lab("root", "qemu", "fuse", "loop")


@pytest.fixture(scope="module")
def session() -> Iterator[dict[str, Any]]:
    """What a small session measures on a lab of one guest: two runs of each load, and a warm-up."""
    with short_folder("v") as folder:
        file = folder / "records.json"
        held = Session(seed=1, file=file, arrays=["qsd"])
        measure(Plan(["qsd"], [1], rounds=1, blocks=1, runs=2), folder / "labs", held)
        assert held.failures == []
        yield json.loads(file.read_text(encoding="utf-8"))


def test_a_session_measures_every_clock_under_every_load(session: dict[str, Any]) -> None:
    runs = session["runs"]
    assert [run["warm_up"] for run in runs] == [True] + [False] * 6
    assert {run["load"] for run in runs} == set(LOADS)
    for run in runs:
        record = RunRecord.model_validate(run["record"])
        assert (record.array, record.hypervisor) == ("qsd", "qemu")
        (vm,) = record.vms
        (call,) = record.calls
        assert vm.quiesce_s is not None
        assert vm.merge_s is not None
        assert call.latency_s > 0.0
        assert vm.quiesce_s > 0.0
        assert vm.merge_s > 0.0
        assert record.writes is not None
        assert record.writes.nominal_per_s == LOADS[run["load"]].rate_per_s
    assert len({run["record"]["name"] for run in runs}) == len(runs)


@pytest.fixture(scope="module")
def profile(session: dict[str, Any]) -> FittedProfile:
    """What those runs make."""
    return fit([run for cell in cells_of(session) for run in cell.runs])


def test_what_was_measured_makes_a_twin_and_a_profile(
    session: dict[str, Any], profile: FittedProfile
) -> None:
    cells = cells_of(session)
    assert [(cell.guests, cell.load, len(cell.runs)) for cell in cells] == [
        (1, load, 2) for load in LOADS
    ]
    assert (profile.array, len(profile.runs)) == ("qsd", 6)
    estate = cells[0].twin(profile.world(WorldConfig())).build_estate()
    assert [vm.name for vm in estate.inventory.vms] == ["vm-0"]
    assert len(estate.units) == 1


def test_the_command_holds_a_lab_against_its_twin(profile: FittedProfile, tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    save_fitted(profile, file)
    with short_folder("v") as folder, asyncio.Runner() as runner:
        place = folder / "lab"
        lab = runner.run(bring_up(LabSpec(guests=1, wide=0, writer=LOADS["low"]), place))
        try:
            config = yaml.safe_load(lab.config_file.read_text(encoding="utf-8"))
            lab.config_file.write_text(yaml.safe_dump({**config, "retention": {"keep_last": 1}}))
            result = CliRunner().invoke(
                app,
                ["validate", str(lab.config_file), "--profile", str(file), "--runs", "3",
                 "--modelled", "20", "--prune", "--out", str(tmp_path / "v.json"), "--json"],
            )  # fmt: skip
            kept = CliRunner().invoke(app, ["catalog", "list", str(lab.config_file), "--json"])
        finally:
            runner.run(take_down(place))
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["runs"], document["runs_not_whole"], document["array"]) == (3, 0, "qsd")
    for clock in document["clocks"]:
        assert (clock["measured"], clock["predicted"]) == (3, 20)
        for one in clock["percentiles"]:
            # How good it is depends on the machine; that it speaks of the same thing does not.
            assert one["predicted_s"] < 100 * one["measured_s"] < 10_000 * one["predicted_s"]
    assert len({entry["job_id"] for entry in json.loads(kept.stdout)}) == 1
