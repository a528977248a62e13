"""A fitted profile as a file: written, read back, named by a world; and the command that fits."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_fit import (
    RECORD_BYTES,
    RING_BYTES,
    live_folder,
    modelled_job,
    modelled_runs,
    world,
)
from typer.testing import CliRunner

from stillframe.cli import app
from stillframe.errors import InputError
from stillframe.lab.fit import FittedProfile, fit, load_fitted, save_fitted
from stillframe.lab.fit_record import WriteLoad, records_of
from stillframe.scenarios.live import load_live
from stillframe.scenarios.schema import load_scenario
from stillframe.sim.config import WorldConfig

SCENARIO = {
    "name": "twin",
    "title": "Twin",
    "estate": {"generate": {"seed": 1, "vms": 4}},
}
LIVE = {"name": "lab", "hypervisors": {"host": {"driver": "vsphere", "host": "vc"}}}


@functools.cache
def profile() -> FittedProfile:
    return fit(modelled_runs((1, 2), (50.0, 1600.0), 4))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "lab.yaml"
    save_fitted(profile(), place)
    return place


def scenario(folder: Path, section: dict[str, Any]) -> Path:
    place = folder / "scenario.yaml"
    place.write_text(yaml.safe_dump({**SCENARIO, "world": section}))
    return place


def test_a_profile_is_read_back_as_it_was_written(file: Path) -> None:
    assert load_fitted(file) == profile()
    again = file.with_name("again.yaml")
    save_fitted(load_fitted(file), again)
    assert again.read_bytes() == file.read_bytes()
    text = file.read_text()
    assert f"linux_freeze: {profile().hypervisor.linux_freeze!r} s" in text
    assert "fitted to 24 creates in 16 runs" in text
    assert "vss_hold" not in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other"}, "format: this is not a fitted profile"),
        ({"hypervisor": {"linux_freeze": 3}}, "hypervisor.linux_freeze: 3 has no unit"),
        ({"storage": {"snapshot_bse": "1 s"}}, "storage.snapshot_bse: unknown key"),
        ({"version": 2}, "version: 2 is not accepted"),
        ({"runs": []}, "runs: a list is not accepted"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_in_one_line(
    file: Path, change: dict[str, Any], says: str
) -> None:
    data = {**yaml.safe_load(file.read_text()), **change}
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError) as caught:
        load_fitted(file)
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)


def test_a_profile_that_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        save_fitted(profile(), tmp_path / "nowhere" / "lab.yaml")
    with pytest.raises(InputError, match="does not exist"):
        load_fitted(tmp_path / "lab.yaml")


def test_a_scenario_begins_with_the_profile_that_it_names(file: Path) -> None:
    found = load_scenario(scenario(file.parent, {"profile_file": "lab.yaml"})).world
    assert found.hypervisor == profile().hypervisor
    assert found.arrays == {"default": profile().storage}
    assert found == profile().world(WorldConfig())


def test_a_live_configuration_does_too(file: Path) -> None:
    place = file.with_name("live.yaml")
    place.write_text(yaml.safe_dump({**LIVE, "world": {"profile_file": "lab.yaml"}}))
    assert load_live(place).world == profile().world(WorldConfig())


def test_what_the_configuration_says_wins_number_by_number(file: Path) -> None:
    section = {
        "profile_file": "lab.yaml",
        "hypervisor": {"linux_freeze": "3 s", "under_load": {"per_operation": {"freeze": 9}}},
        "arrays": {"default": {"snapshot_base": "2 s"}, "other": {"profile": "cow-small"}},
        "guests": [{"scale_sigma": 0}],
    }
    found = load_scenario(scenario(file.parent, section)).world
    fitted = profile().hypervisor
    assert found.hypervisor.linux_freeze == 3.0
    assert found.hypervisor.sources["linux_freeze"] == "set in the configuration"
    assert found.hypervisor.stun_create == fitted.stun_create
    assert found.hypervisor.sources["stun_create"] == fitted.sources["stun_create"]
    assert found.hypervisor.under_load is not None
    assert fitted.under_load is not None
    assert found.hypervisor.under_load.per_operation.freeze == 9.0
    assert found.hypervisor.under_load.per_operation.thaw == fitted.under_load.per_operation.thaw
    assert found.hypervisor.under_load.per_writer == fitted.under_load.per_writer
    assert found.arrays["default"].snapshot_base == 2.0
    assert found.arrays["default"].source_of("snapshot_base") == "set in the configuration"
    assert found.arrays["default"].snapshot_per_unit == profile().storage.snapshot_per_unit
    assert found.arrays["other"].profile == "cow-small"
    assert found.guests[0].scale_sigma == 0.0


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("gone.yaml", "gone.yaml: does not exist"),
        (7, "world.profile_file: 7 is not text"),
    ],
)
def test_a_profile_file_that_cannot_be_used_is_refused(
    tmp_path: Path, named: object, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario(scenario(tmp_path, {"profile_file": named}))
    assert says in str(caught.value)


def test_a_world_without_a_file_around_it_names_no_profile() -> None:
    with pytest.raises(ValueError, match="only read for a configuration that is a file itself"):
        WorldConfig.model_validate({"profile_file": "lab.yaml"})


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Result folders as live runs leave them."""
    folders = []
    for seed in range(6):
        rate_per_s = (100.0, 400.0)[seed // 3]
        data = modelled_job(1 + seed % 2, world(rate_per_s), seed)
        folder = tmp_path / f"run-{seed}"
        folders.append(str(live_folder(folder, data, f"job-{seed}", rate_per_s=rate_per_s)))
    return folders


def test_the_command_fits_shows_and_keeps(runs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "lab.yaml"
    result = CliRunner().invoke(app, ["calibrate", "lab", *runs, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "Fitted to 6 runs with driver qemu on array qsd" in result.stdout
    assert "linux_freeze" in result.stdout
    assert f"Profile: {out}" in result.stdout
    kept = load_fitted(out)
    assert kept.runs == tuple(f"job-{seed}" for seed in range(6))
    assert (kept.driver, kept.array) == ("qemu", "qsd")
    assert kept.hypervisor.sources["linux_freeze"].endswith("in 6 runs on qsd, 2026-11-23")


def test_a_run_says_how_its_guests_were_told_to_write(runs: list[str]) -> None:
    loads = [record.writes for record in records_of([Path(run) for run in runs])]
    assert [load.rate_per_s for load in loads if load is not None] == [100.0] * 3 + [400.0] * 3
    assert loads[0] == WriteLoad(
        record_bytes=RECORD_BYTES, rate_per_s=100.0, nominal_per_s=100.0, file_bytes=RING_BYTES
    )


@pytest.mark.parametrize(
    "guests",
    [
        [],
        [{"match": "web-*", "profile": {"rate": 1.0, "working_set": 4096}}],
        [{"profile": "cloudphysics-hour1"}],
        [{"profile": {"rate": 1.0, "working_set": 4096}, "scale_sigma": 1.0}],
    ],
)
def test_guests_that_did_not_all_write_alike_are_not_guessed_at(
    runs: list[str], guests: list[Any]
) -> None:
    file = Path(runs[0]) / "run.json"
    head = json.loads(file.read_text())
    head["meta"]["live"]["guests"] = guests
    file.write_text(json.dumps(head))
    assert records_of([Path(runs[0])])[0].writes is None


def test_the_command_answers_in_json(runs: list[str]) -> None:
    result = CliRunner().invoke(app, ["calibrate", "lab", *runs, "--json"])
    document = json.loads(result.stdout)
    assert document["file"] is None
    assert document["hypervisor"]["profile"] == "lab-qemu"
    assert {row["number"] for row in document["numbers"]} >= {"linux_freeze", "snapshot_base"}


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["calibrate", "lab", *arguments])
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_runs_that_cannot_be_used_are_refused(runs: list[str], tmp_path: Path) -> None:
    assert "2 are too few" in refused(*runs[:2])
    assert "is the same run as" in refused(*runs, runs[0])
    assert "there is no such folder" in refused(*runs, str(tmp_path / "gone"))
    other = live_folder(tmp_path / "xfs", modelled_job(1, world(), 9), "job-9", "xfs-reflink")
    assert "more than one array: qsd (6 runs), xfs-reflink (1 runs)" in refused(*runs, str(other))
    head = json.loads((other / "run.json").read_text())
    del head["meta"]["live"]
    (other / "run.json").write_text(json.dumps(head))
    assert "is the result of a modelled run" in refused(*runs, str(other))


def test_nothing_is_overwritten_unasked(runs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "lab.yaml"
    out.write_text("mine")
    assert "exists already" in refused(*runs, "--out", str(out))
    assert "does not end in .yaml" in refused(*runs, "--out", str(tmp_path / "lab.txt"))
    assert out.read_text() == "mine"
