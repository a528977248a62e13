"""A run in a file: it comes back as it was, and what is wrong with a file is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stillframe.errors import InputError, StillframeError
from stillframe.explorer import replayfile
from stillframe.explorer.options import RunOptions
from stillframe.explorer.replayfile import read_replay, run_again, write_replay
from stillframe.explorer.run import explore_one
from stillframe.scenarios.schema import list_scenarios, load_scenario

CLAIM = load_scenario("first-claim")
SMALL = RunOptions(vms=("vc-1/shop-db",))
REPORT = explore_one(CLAIM, 5, SMALL)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file of a small run."""
    path = tmp_path / "run.json"
    write_replay(path, REPORT, CLAIM)
    return path


@pytest.mark.parametrize(
    "name", [one.name for one in list_scenarios() if one.name != "whole-estate"]
)
@pytest.mark.parametrize("seed", [2, 11])
def test_every_drawn_run_repeats_from_its_file(name: str, seed: int, tmp_path: Path) -> None:
    scenario = load_scenario(name)
    report = explore_one(scenario, seed)
    path = tmp_path / "run.json"
    write_replay(path, report, scenario)
    replay = read_replay(path)
    assert replay.options == report.options
    found = run_again(replay)
    assert not found.differs
    assert found.report == report


def test_an_estate_in_a_file_of_its_own_comes_along(tmp_path: Path) -> None:
    (tmp_path / "estate.yaml").write_text(
        "vcenters: [{name: vc}]\n"
        "hosts: [{name: h}]\n"
        "arrays: [{name: a, units: [{name: l, capacity: 1 TiB, devices: [naa.60001]}]}]\n"
        "datastores: [{name: d, extents: [naa.60001], capacity: 1 TiB}]\n"
        "vms: [{name: v, host: h, disks: [{datastore: d, size: 10 GiB}]}]\n",
        encoding="utf-8",
    )
    own = tmp_path / "own.yaml"
    own.write_text("name: own\ntitle: Own\nestate: {file: estate.yaml}\n", encoding="utf-8")
    scenario = load_scenario(own)
    report = explore_one(scenario, 1)
    path = tmp_path / "elsewhere" / "run.json"
    path.parent.mkdir()
    write_replay(path, report, scenario)
    (tmp_path / "estate.yaml").unlink()
    assert not run_again(read_replay(path)).differs


def change(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def test_the_file_says_what_it_was_made_with(written: Path) -> None:
    data = json.loads(written.read_text(encoding="utf-8"))
    assert set(data["versions"]) == {"stillframe", "python", "simpy"}
    assert data["options"] == {"vms": ["vc-1/shop-db"]}
    assert (data["seed"], data["scenario"]["name"]) == (5, "first-claim")
    assert data["trace_hash"] == REPORT.trace_hash


def test_a_run_that_comes_out_otherwise_says_why(written: Path) -> None:
    change(written, trace_hash="0" * 32)
    assert run_again(read_replay(written)).differs.endswith("though the versions are the same")
    versions = {**replayfile.running_versions(), "simpy": "4.0.9"}
    change(written, versions=versions)
    assert "was made with simpy 4.0.9 (here " in run_again(read_replay(written)).differs
    change(written, own_parts=["strategy per_tenant"])
    differs = run_again(read_replay(written)).differs
    assert differs.endswith("made with strategy per_tenant, which are not in it")


def test_other_violations_are_another_run(written: Path) -> None:
    change(written, violations=[{"invariant": "I1 frozen", "sentence": "v is frozen"}])
    assert run_again(read_replay(written)).differs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "format: the file is no stillframe-replay"),
        ({"version": 2}, "version: 2 is not known (this program reads 1)"),
        ({"seed": "x"}, "seed: 'x' is not accepted"),
        ({"sede": 1}, "sede: unknown key with value 1 (did you mean 'seed'?)"),
        ({"options": {"vmz": []}}, "options.vmz: unknown key"),
        ({"options": {"crash_steps": [-1]}}, "options.crash_steps[0]: -1 is not accepted"),
        ({"options": {"faults": {"sites": {"array-bussy": {}}}}}, "options.faults"),
        ({"scenario": {"name": "x"}}, "scenario.title: is missing"),
        ({"scenario": []}, "scenario: a list is not accepted"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(
    written: Path, changes: dict[str, Any], said: str
) -> None:
    change(written, **changes)
    with pytest.raises(InputError) as caught:
        read_replay(written)
    assert str(caught.value).startswith(f"{written}: {said}")
    assert "\n" not in str(caught.value)


def test_an_estate_that_contradicts_itself_is_named(written: Path) -> None:
    data = json.loads(written.read_text(encoding="utf-8"))
    data["scenario"]["estate"]["inline"]["vms"][0]["host"] = "nowhere"
    change(written, scenario=data["scenario"])
    with pytest.raises(InputError, match=r"run\.json: estate\.inline\.vms\[0\].*nowhere"):
        read_replay(written)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: is not JSON"),
        (b"[]", "format: the file is no"),
        (b'{"a": 1,\n "b"', "line 2: is not JSON"),
        (b'{"a": 1, "a": 2}', "a: the key occurs twice"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[" * 100_000, "is nested too deep"),
        (
            b'{"format": "stillframe-replay", "version": 1, "seed": NaN}',
            "holds NaN, which is no number",
        ),
    ],
)
def test_what_is_no_replay_file_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_replay(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_files_that_are_not_there_or_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_replay(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        read_replay(tmp_path)
    with pytest.raises(StillframeError, match="cannot be written"):
        write_replay(tmp_path / "no" / "such.json", REPORT, CLAIM)


def test_a_truncated_file_is_never_a_run(written: Path) -> None:
    whole = written.read_bytes()
    for length in range(0, len(whole) - 2, 97):
        written.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_replay(written)
