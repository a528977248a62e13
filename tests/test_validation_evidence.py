"""``make evidence-validation`` on played sessions: what is fitted, what is judged and shown."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support_validation import session, world

from benchmarks.evidence_validation import cells_of, figures_of, read_records, rows_of
from benchmarks.validation_page import BEGIN, END, renewed, tables

RUNS = 8
MODELLED = 6
ROWS_OF_A_CELL = 6
"""Three clocks, two percentiles."""

Row = dict[str, Any]


@pytest.fixture(scope="module")
def played() -> dict[str, Any]:
    """A session whose guests freeze slower than the shipped profile says."""
    return session(world(linux_freeze="180 ms"), RUNS)


@pytest.fixture(scope="module")
def rows(played: dict[str, Any]) -> list[Row]:
    """What comes of it."""
    return rows_of(cells_of(played), MODELLED)


def changed(played: dict[str, Any], pick: Callable[[Row], bool]) -> list[Row]:
    """The rows when every quiesce window of the picked runs is ten times as long."""
    document = copy.deepcopy(played)
    for run in document["runs"]:
        for vm in run["record"]["vms"] if pick(run) else ():
            vm["quiesce_s"] *= 10
    return rows_of(cells_of(document), MODELLED)


def one(
    rows: list[Row], guests: int, load: str, clock: str = "quiesce_s", percent: int = 50
) -> Row:
    """The row of a cell, clock and percentile."""
    wanted = (guests, load, clock, percent)
    (found,) = [
        row for row in rows if (row["guests"], row["load"], row["clock"], row["percent"]) == wanted
    ]
    return found


def in_fit(run: Row) -> bool:
    """Whether a run's cell is one of those that are fitted."""
    return run["guests"] != 2 and run["load"] != "middle"


def test_four_of_nine_cells_are_fitted_and_five_predicted(rows: list[Row]) -> None:
    assert len(rows) == 9 * ROWS_OF_A_CELL
    fitted = {(row["guests"], row["load"]) for row in rows if row["in_fit"]}
    assert fitted == {(1, "low"), (1, "high"), (4, "low"), (4, "high")}
    assert {row["runs"] for row in rows} == {RUNS}
    assert one(rows, 4, "low")["values"] == 4 * RUNS


def test_nothing_measured_in_a_predicted_cell_is_used_to_predict_it(
    played: dict[str, Any], rows: list[Row]
) -> None:
    after = changed(played, lambda run: not in_fit(run))
    assert [row["predicted_s"] for row in after] == [row["predicted_s"] for row in rows]
    before, now = one(rows, 2, "low"), one(after, 2, "low")
    assert now["measured_s"] == pytest.approx(10 * before["measured_s"])
    assert now["error"] < -0.8


def test_what_the_writers_reached_there_is_not_used_either(
    played: dict[str, Any], rows: list[Row]
) -> None:
    document = copy.deepcopy(played)
    for run in document["runs"]:
        if not in_fit(run):
            run["record"]["writes"]["rate_per_s"] = 1.0
    after = rows_of(cells_of(document), MODELLED)
    assert after == rows


def test_fitted_cells_do_count(played: dict[str, Any], rows: list[Row]) -> None:
    after = changed(played, in_fit)
    assert one(after, 2, "low")["predicted_s"] > 3 * one(rows, 2, "low")["predicted_s"]


def test_warm_up_runs_are_not_used(played: dict[str, Any], rows: list[Row]) -> None:
    assert changed(played, lambda run: run["warm_up"]) == rows


def test_a_fit_beats_the_shipped_profile_where_that_is_wrong(rows: list[Row]) -> None:
    held_out = [row for row in rows if not row["in_fit"] and row["clock"] == "quiesce_s"]
    for row in held_out:
        if row["percent"] == 50:
            assert abs(row["error"]) < 0.25
            assert row["others"]["shipped"] < -0.4


def test_the_halves_of_a_session_are_its_rounds(played: dict[str, Any]) -> None:
    """The second round is taken as the prediction of the first."""
    after = changed(played, lambda run: run["round"] == 1)
    assert one(after, 1, "low")["others"]["repeated"] > 5


def test_figures_judge_predicted_cells_by_the_aims(rows: list[Row]) -> None:
    figures = {figure.name: figure for figure in figures_of(rows, ["qsd"])}
    errors = sorted(
        100 * abs(row["error"])
        for row in rows
        if not row["in_fit"] and (row["clock"], row["percent"]) == ("merge_s", 95)
    )
    median = figures["qsd: error of the predicted p95 of merge, median of 5 cells"]
    assert (median.value, median.unit, median.aim) == (errors[2], "%", "<= 30 %")
    worst = figures["qsd: error of the predicted p95 of merge, worst cell"]
    assert (worst.value, worst.aim) == (errors[4], "<= 30 %")
    assert figures["qsd: live runs"].value == 9 * RUNS
    assert {figure.aim for figure in figures.values()} == {None, "<= 15 %", "<= 30 %"}
    assert [f.aim for name, f in figures.items() if "without a model" in name] == [None, None]


def test_an_array_that_was_not_measured_misses_its_aims(rows: list[Row]) -> None:
    missed = [figure for figure in figures_of(rows, ["qsd", "xfs"]) if "xfs" in figure.name]
    assert [(figure.value, figure.met) for figure in missed] == [(None, False)] * 2


def test_an_array_without_all_cells_of_the_fit_is_not_predicted(played: dict[str, Any]) -> None:
    runs = [run for run in played["runs"] if (run["guests"], run["load"]) != (4, "high")]
    assert rows_of(cells_of({**played, "runs": runs}), MODELLED) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}'])
def test_records_must_be_records(tmp_path: Path, text: str) -> None:
    file = tmp_path / "records.json"
    file.write_text(text)
    with pytest.raises(SystemExit, match=r"records\.json"):
        read_records(file)
    with pytest.raises(SystemExit, match="cannot be read"):
        read_records(tmp_path / "none.json")


def test_the_page_shows_every_cell(rows: list[Row]) -> None:
    about = {
        "date": "2026-01-05", "cpus": 2, "platform": "Linux x86_64", "python": "3.11.2",
        "implementation": "CPython", "modelled_runs": MODELLED, "failures": ["xfs: no loop device"],
        "table": json.loads(json.dumps(rows)),
    }  # fmt: skip
    figures = [{"name": "f", "value": 1.0, "unit": "%", "aim": None, "met": None}]
    text = tables(figures, about)
    lines = [line for line in text.splitlines() if line.startswith(("| 1 |", "| 2 |", "| 4 |"))]
    assert len(lines) == 9 * 3
    assert lines[0].startswith(f"| 1 | low | yes | {RUNS} | {RUNS} |")
    assert "Not measured: xfs: no loop device." in text
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert renewed(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert renewed(renewed(page, "x"), "new") == renewed(page, "new")
    for wrong in ("", BEGIN, END + BEGIN, BEGIN + BEGIN + END):
        with pytest.raises(ValueError, match="does not have"):
            renewed(wrong, "new")
