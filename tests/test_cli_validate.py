"""``stillframe validate`` at the front door, on drivers in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support_live_front import World, config, invoke, line_of, refuse, world
from support_memory import Fault
from support_validation import LAB

from stillframe.drivers.errors import DriverError, NeverWillError
from stillframe.sim.array_profiles import ArrayProfile
from stillframe.sim.fitted_profile import FittedProfile, save_fitted
from stillframe.sim.profiles import HypervisorProfile

__all__ = ["world"]  # a fixture


def profile(array: str = "memory", **hypervisor: Any) -> str:
    """A fitted profile in the current folder."""
    save_fitted(
        FittedProfile(
            array=array,
            driver="memory",
            dates=("2026-01-05T21:00:00+00:00", "2026-01-06T21:00:00+00:00"),
            runs=("one", "two"),
            hypervisor=HypervisorProfile.model_validate({**LAB["hypervisor"], **hypervisor}),
            storage=ArrayProfile.model_validate(LAB["arrays"]["default"]),
        ),
        Path("profile.yaml"),
    )
    return "profile.yaml"


def validation(*args: str, **changes: Any) -> Any:
    """The JSON that ``validate`` answers with, after three live runs and five modelled ones."""
    result = invoke(
        "validate", config(**changes), "--profile", profile(), "--runs", "3", "--modelled", "5",
        "--json", *args,
    )  # fmt: skip
    return json.loads(result.stdout)


def jobs_kept() -> set[str]:
    """The jobs that the catalogue has entries of."""
    entries = json.loads(invoke("catalog", "list", "live.yaml", "--json").stdout)
    return {entry["job_id"] for entry in entries}


def tags(world: World) -> list[str]:
    """Of the snapshots on the array."""
    return [snapshot.ref.tag for snapshot in world.array.snapshots]


def test_the_same_job_runs_live_and_modelled(world: World) -> None:
    document = validation()
    assert (document["runs"], document["modelled_runs"]) == (3, 5)
    assert document["fitted_on"] == "2 runs on memory, 2026-01-05 to 2026-01-06"
    assert len({record["name"] for record in document["records"]}) == 3
    assert {record["array"] for record in document["records"]} == {"memory"}
    clocks = {one["clock"]: one for one in document["clocks"]}
    assert list(clocks) == ["quiesce_s", "merge_s", "snapshot_s"]
    merge = clocks["merge_s"]
    assert (merge["measured"], merge["predicted"]) == (18, 30)
    for one in merge["percentiles"]:
        assert one["error"] == one["predicted_s"] / one["measured_s"] - 1.0
        assert one["range_s"][0] <= one["measured_s"] <= one["range_s"][1]
    measured_s = sorted(
        vm["merged_s"] - vm["removal_s"] for one in document["records"] for vm in one["vms"]
    )
    assert [one["measured_s"] for one in merge["percentiles"]] == [measured_s[8], measured_s[17]]
    assert not world.left


def test_the_seed_decides_the_modelled_side(world: World) -> None:
    first, again, other = (validation("--seed", seed) for seed in ("1", "1", "9"))
    assert (first["seed"], other["seed"]) == (1, 9)
    p50_s = [one["clocks"][1]["percentiles"][0]["predicted_s"] for one in (first, again, other)]
    assert p50_s[0] == p50_s[1] != p50_s[2]


def test_each_live_run_leaves_what_a_live_run_leaves(world: World) -> None:
    validation()
    assert len(jobs_kept()) == 3
    assert all(any(job in tag for tag in tags(world)) for job in jobs_kept())


def test_what_is_not_retained_is_pruned_between_runs_when_asked(world: World) -> None:
    validation("--prune", retention={"keep_last": 1})
    assert len(jobs_kept()) == 1
    assert tags(world)
    assert all(any(job in tag for job in jobs_kept()) for tag in tags(world))


def test_the_result_is_saved_and_replaces_only_its_like(world: World) -> None:
    document = validation()
    saved = json.loads(Path("out/tonight.validation.json").read_text())
    assert {"file": document["file"], **saved} == document
    validation()
    Path("other.json").write_text("{}")
    arguments = ("validate", config(), "--profile", profile(), "--out")
    assert "holds something else than a validation" in refuse(*arguments, "other.json")
    assert "is a folder" in refuse(*arguments, "out")
    assert "folder no does not exist" in refuse(*arguments, "no/file.json")


def test_people_see_both_sides_and_the_error(world: World) -> None:
    text = invoke(
        "validate", config(), "--profile", profile(), "--runs", "2", "--modelled", "3"
    ).stdout
    for part in ("Everything: 2 live runs, 3 modelled", "fitted on 2 runs on memory",
                 "Predicted against measured", "95 % range", "array snapshot",
                 "Validation: out/tonight.validation.json"):  # fmt: skip
        assert part in text
    merge = next(line for line in text.splitlines() if line.strip().startswith("merge"))
    assert merge.split()[-2] == "%"
    assert merge.split()[-1] == "12"


def test_a_run_that_protects_only_some_is_counted_and_told(world: World) -> None:
    first = next(iter(world.hypervisor.vms))
    refused = NeverWillError("create_snapshot", first, "its disk is locked")
    world.faults.add("create", first, Fault(error=refused))
    arguments = ("validate", config(), "--profile", profile(), "--runs", "2", "--modelled", "2")
    assert "1 of 2 runs did not protect every VM." in invoke(*arguments, code=1).stdout
    assert "did not protect" not in invoke(*arguments).stdout


def test_a_run_that_measures_nothing_ends_the_validation(world: World) -> None:
    for vm_id in world.hypervisor.vms:
        refused = NeverWillError("create_snapshot", vm_id, "its disk is locked")
        world.faults.add("create", vm_id, Fault(error=refused))
    line = line_of(invoke("validate", config(), "--profile", profile(), code=3))
    assert "protected no VM" in line
    assert "its disk is locked" in line
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("changed", "options", "told"),
    [
        ({}, ("--runs", "1"), "--runs: 1 is too few"),
        ({}, ("--modelled", "1"), "--modelled: 1 is too few"),
        ({}, ("--prune",), "live.yaml: retention: nothing says what --prune keeps"),
        (
            {"job": {"select": {"include": {"name": "no-*"}}}},
            (),
            "live.yaml: job.select: the selection matches no VM",
        ),
    ],
)
def test_bad_input_is_one_line(
    world: World, changed: dict[str, Any], options: tuple[str, ...], told: str
) -> None:
    line = line_of(invoke("validate", config(**changed), "--profile", profile(), *options, code=2))
    assert told in line
    assert world.array.snapshots == []


def test_a_profile_of_another_array_is_refused_before_anything_runs(world: World) -> None:
    file, fitted = config(), profile(array="qsd")
    line = refuse("validate", file, "--profile", fitted)
    assert "profile.yaml: array: was fitted on qsd, and live.yaml has memory" in line
    assert world.opened == []


def test_a_profile_must_be_there_and_be_one(world: World) -> None:
    assert "no.yaml" in refuse("validate", config(), "--profile", "no.yaml")
    assert "this is not a fitted profile" in refuse("validate", config(), "--profile", "live.yaml")
    assert "--profile" in refuse("validate", config())
    assert world.opened == []


def test_a_system_that_cannot_be_reached_is_one_line(world: World) -> None:
    world.fail_to_open["vc"] = DriverError("connect", "vc", "nobody listens there")
    line = line_of(invoke("validate", config(), "--profile", profile(), code=3))
    assert "nobody listens there" in line


def test_a_world_that_does_not_fit_is_blamed_on_the_configuration(world: World) -> None:
    file = config(world={"arrays": {"floppy": {}}})
    line = line_of(
        invoke("validate", file, "--profile", profile(), "--runs", "2", "--modelled", "2", code=2)
    )
    assert "live.yaml: world.arrays.floppy: no such array" in line
