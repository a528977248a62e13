"""What ``make evidence-canaries`` makes of runs: which canaries are caught, and by what else."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import evidence_canaries
from benchmarks.canaries_page import page
from benchmarks.evidence_canaries import (
    Job,
    Seen,
    false_failures,
    figures_of,
    row,
)
from stillframe.certify.canary import Canary

TORN: Canary[Any] = Canary(
    "torn", "ARR-GRP-01", "cuts units one by one", lambda kind: kind, ("ARR-DAT-02",), "it is torn"
)


def seen(canary: str = "torn", seed: int = 1, **verdicts: str) -> Seen:
    """A run with these verdicts; what is not named passes."""
    every = {"ARR-GRP-01": "pass", "ARR-DAT-02": "pass", "ARR-LIF-03": "pass"}
    named = {name.replace("_", "-"): verdict for name, verdict in verdicts.items()}
    job = Job("array", "modelled-row", canary, seed, "quick")
    reasons = {name: "because" for name, verdict in named.items() if verdict != "pass"}
    return Seen(job, every | named, reasons, frozenset({"ARR-DAT-02"}))


WHOLE = seen("")


def test_a_canary_is_caught_when_its_own_requirement_fails() -> None:
    caught = row(TORN, seen(ARR_GRP_01="fail"), WHOLE)
    assert caught["caught"]
    assert (caught["declared"], caught["undeclared"]) == ([], [])
    for verdict in ("pass", "not tested", "blocked"):
        assert not row(TORN, seen(ARR_GRP_01=verdict), WHOLE)["caught"]


def test_what_else_fails_is_declared_or_not() -> None:
    found = row(TORN, seen(ARR_GRP_01="fail", ARR_DAT_02="blocked", ARR_LIF_03="fail"), WHOLE)
    assert (found["declared"], found["undeclared"]) == (["ARR-DAT-02"], ["ARR-LIF-03"])


def test_what_the_whole_fails_too_is_not_the_canarys_fault() -> None:
    whole = seen("", ARR_LIF_03="fail")
    assert not row(TORN, seen(ARR_GRP_01="fail", ARR_LIF_03="fail"), whole)["undeclared"]
    (false,) = false_failures([WHOLE, whole])
    assert (false["requirement"], false["reason"]) == ("ARR-LIF-03", "because")


class Named:
    """As much of a requirement as figures need."""

    def __init__(self, name: str) -> None:
        self.id = name


def figures(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], wholes: list[Seen]
) -> dict[str, Any]:
    """Value and judgement of each figure by the first words of its name."""
    required = {"array": [Named("ARR-GRP-01"), Named("ARR-DAT-02")], "hypervisor": []}
    monkeypatch.setattr(evidence_canaries, "REQUIREMENTS", required)
    return {one.name: (one.value, one.met) for one in figures_of(rows, wholes)}


def test_aims_are_missed_by_a_canary_that_escapes_and_a_requirement_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [row(TORN, seen(ARR_GRP_01="fail", ARR_LIF_03="fail"), WHOLE)]
    found = figures(monkeypatch, [*rows, row(TORN, WHOLE, WHOLE)], [WHOLE])
    assert found["canaries caught"] == (50, False)
    assert found["requirements with a canary that fails them"] == (50, False)
    assert found["canaries that fail exactly their requirement"] == (0, None)
    assert found["canaries that fail others undeclared"] == (1, False)
    assert found["modelled-row (array): false failures in 1 runs, a seed each"] == (0, True)


def test_aims_are_met_when_all_are_caught_and_nothing_else_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other: Canary[Any] = Canary("other", "ARR-DAT-02", "loses data", lambda kind: kind)
    rows = [
        row(TORN, seen(ARR_GRP_01="fail", ARR_DAT_02="fail"), WHOLE),
        row(other, seen("other", ARR_DAT_02="fail"), WHOLE),
    ]
    found = figures(monkeypatch, rows, [WHOLE, seen("", seed=2)])
    assert found["canaries caught"] == (100, True)
    assert found["requirements with a canary that fails them"] == (100, True)
    assert found["canaries that fail exactly their requirement"] == (1, None)
    assert found["requirements that write data and compare what comes back"] == (1, None)
    assert found["modelled-row (array): false failures in 2 runs, a seed each"] == (0, True)


def test_the_page_shows_the_matrix() -> None:
    rows = [
        {"kind": "array", **row(TORN, seen(ARR_GRP_01="fail", ARR_DAT_02="fail"), WHOLE)},
        {"kind": "array", **row(TORN, seen(ARR_LIF_03="fail"), WHOLE)},
    ]
    about = {"date": "2026-01-05", "implementation": "CPython", "python": "3.12", "effort": "quick",
             "table": rows, "without": ["ARR-MAP-01"],
             "false": false_failures([seen("", ARR_LIF_03="fail")])}  # fmt: skip
    text = page([], about)
    lines = ["| ARR-GRP-01 | torn | cuts units one by one | yes | ARR-DAT-02: it is torn |",
             "| ARR-GRP-01 | torn | cuts units one by one | **pass** | **ARR-LIF-03** |",
             "Without a canary: ARR-MAP-01.",
             "False failure of ARR-LIF-03 on modelled-row, seed 1: because."]  # fmt: skip
    assert not [line for line in lines if line not in text]
