"""``rehearse``: predictions on a twin, and how they stand beside what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support_live_front import World, config, invoke, line_of, pulled, refuse, world
from support_rvtools import complete, write_xlsx

from stillframe.reports.folder import read_folder

__all__ = ["world"]  # a fixture

WORLD_SECTION = {"guests": [{"match": "*", "scale_sigma": 0.0}]}


def rehearsal(*args: str, **changes: Any) -> Any:
    """Pull, then rehearse; the JSON that ``rehearse`` answers with."""
    if not Path("estate.yaml").exists():
        pulled("--out", "estate.yaml")
    file = config(world=WORLD_SECTION, **changes)
    result = invoke("rehearse", file, "--estate", "estate.yaml", "--json", *args)
    return json.loads(result.stdout)


def test_a_rehearsal_predicts_every_clock_and_is_saved(world: World) -> None:
    document = rehearsal("--replications", "3", "--seed", "5")
    prediction = document["prediction"]
    assert json.loads(Path(document["file"]).read_text()) == prediction
    assert document["file"] == "out/tonight.prediction.json"
    assert len(document["plan"]["selected"]) == 6
    assert (prediction["replications"], prediction["seed"]) == (3, 5)
    assert prediction["protected"] == [6, 6, 6]
    assert len(set(prediction["makespan_s"])) == 3
    clocks = {one["clock"]: one for one in prediction["clocks"]}
    assert clocks["open_s"]["count"] == 18
    assert clocks["stun_create_s"]["count"] == 18
    assert 0 < clocks["open_s"]["p50_s"] <= clocks["open_s"]["max_s"]
    assert world.array.snapshots == []
    assert not world.left


def test_the_replications_are_the_runs_of_their_seeds(world: World) -> None:
    three = rehearsal("--replications", "3", "--seed", "5")["prediction"]
    singles = [
        rehearsal("--seed", str(seed), "--out", f"{seed}.json")["prediction"] for seed in (5, 6, 7)
    ]
    assert three["makespan_s"] == [one["makespan_s"][0] for one in singles]
    worst = [max(one["clocks"][n]["max_s"] for one in singles) for n in range(len(three["clocks"]))]
    assert [one["max_s"] for one in three["clocks"]] == worst


def test_a_prediction_replaces_one_and_nothing_else(world: World) -> None:
    rehearsal("--out", "p.json")
    rehearsal("--out", "p.json")
    Path("p.json").write_text('{"format": "other"}')
    result = invoke("rehearse", "live.yaml", "--estate", "estate.yaml", "--out", "p.json", code=2)
    assert "p.json holds something else than a prediction" in line_of(result)


def test_a_rehearsal_for_people_shows_plan_and_windows(world: World) -> None:
    pulled("--out", "estate.yaml")
    text = invoke("rehearse", config(), "--estate", "estate.yaml").stdout
    for part in ("Rehearsal: Everything", "Groups", "Predicted by one modelled run, seed 1",
                 "stun at remove", "The modelled job takes", "protects 6 of 6 VMs",
                 "Prediction: out/tonight.prediction.json"):  # fmt: skip
        assert part in text


def test_a_rehearsal_names_what_does_not_fit_the_twin(world: World) -> None:
    pulled("--out", "estate.yaml")
    file = config(world={"arrays": {"floppy": {}}})
    line = line_of(invoke("rehearse", file, "--estate", "estate.yaml", code=2))
    assert "live.yaml: world.arrays.floppy: no such array" in line
    file = config(job={"select": {"include": {"name": "no-*"}}})
    line = line_of(invoke("rehearse", file, "--estate", "estate.yaml", code=2))
    assert "live.yaml: job.select: the selection matches no VM of estate.yaml" in line
    assert not Path("out").exists()


def test_an_rvtools_export_serves_as_the_estate_of_a_twin(world: World) -> None:
    write_xlsx(Path("export.xlsx"), complete())
    result = invoke("rehearse", config(), "--estate", "export.xlsx", "--json")
    assert json.loads(result.stdout)["prediction"]["estate"] == "export.xlsx"
    assert world.opened == []


def test_a_prediction_stands_beside_what_was_measured(world: World) -> None:
    prediction = rehearsal()["prediction"]
    invoke("run", "--live", config(), "--out", "result")
    arguments = ("rehearse", "--compare", "out/tonight.prediction.json", "result")
    document = json.loads(invoke(*arguments, "--json").stdout)
    assert document["measured_on"] == "live systems"
    assert document["protected"] == {"predicted": [6], "measured": 6}
    clocks = {one["clock"]: one for one in document["clocks"]}
    predicted = {one["clock"]: one for one in prediction["clocks"]}
    assert clocks["open_s"]["predicted"]["p95_s"] == predicted["open_s"]["p95_s"]
    run = read_folder(Path("result"))
    assert clocks["merge_s"]["measured"]["max_s"] == run.vms["merge_s"].max()
    assert clocks["stun_create_s"]["predicted"]["count"] == 6
    assert clocks["stun_create_s"]["measured"] == {
        "count": 0, "absent": 6, "p50_s": None, "p95_s": None, "p99_s": None, "max_s": None,
        "upper_bounds": 0,
    }  # fmt: skip
    text = invoke(*arguments).stdout
    assert "measured on live systems" in text
    rows = [line.split() for line in text.splitlines()]
    place = next(n for n, row in enumerate(rows) if row[:3] == ["stun", "at", "create"])
    assert rows[place + 1] == ["measured", "0", *["absent"] * 4]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not a prediction"),
        ("[]", "format: this is not a prediction"),
        ('{"format": "stillframe-prediction"}', "name: is missing"),
    ],
)
def test_a_damaged_prediction_is_named(world: World, text: str, told: str) -> None:
    Path("p.json").write_text(text)
    assert told in refuse("rehearse", "--compare", "p.json", "result")
