"""Campaigns: the same account however it is spread, and what a failure tells."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from stillframe.explorer import campaign
from stillframe.explorer.campaign import DETERMINISM, explore, map_runs
from stillframe.explorer.report import RunReport, Violation
from stillframe.explorer.run import explore_one

TWO = ("first-claim", "ten-vms")


def test_the_account_does_not_depend_on_the_number_of_processes() -> None:
    heard: list[tuple[int, int, int]] = []
    alone = explore(TWO, range(60), twice_share=0.1)
    shared = explore(
        TWO, range(60), jobs=2, twice_share=0.1, on_progress=lambda *told: heard.append(told)
    )
    assert asdict(alone) == asdict(shared)
    assert alone.runs == 120
    assert 3 < alone.twice < 30
    assert alone.crashes
    assert alone.recoveries
    assert alone.fired
    assert heard[-1] == (120, 120, alone.failed_runs)


def _broken(scenario: Any, seed: int, *args: Any, **options: Any) -> RunReport:
    from dataclasses import replace

    report = explore_one(scenario, seed, *args, **options)
    if seed % 40 == 7:
        return replace(report, violations=(Violation("I2 orphans", f"left by {seed}"),))
    return report


def test_failures_are_counted_by_invariant_with_the_first_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(campaign, "explore_one", _broken)
    account = explore(["ten-vms"], range(120), twice_share=0.0)
    (failure,) = account.failures.values()
    assert (failure.invariant, failure.runs, failure.first_seed) == ("I2 orphans", 3, 7)
    assert account.failed_runs == 3


def test_fail_fast_begins_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "explore_one", _broken)
    account = explore(["ten-vms"], range(500), fail_fast=True)
    assert account.failed
    assert account.runs == campaign.CHUNK_SEEDS


def test_a_run_that_is_not_repeatable_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    calls = []

    def drifting(*args: Any, **options: Any) -> RunReport:
        calls.append(1)
        return replace(explore_one(*args, **options), trace_hash=str(len(calls)))

    monkeypatch.setattr(campaign, "explore_one", drifting)
    account = explore(["ten-vms"], range(10), twice_share=1.0)
    assert account.twice == 10
    (failure,) = account.failures.values()
    assert failure.invariant == DETERMINISM
    assert failure.runs == 10


def square(number: int) -> int:
    return number * number


def die_once(item: tuple[str, int]) -> int:
    flag = Path(item[0])
    if item[1] == 3 and not flag.exists():
        flag.write_text("died")
        os._exit(1)
    return item[1]


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_runs(square, range(30), 1)) == [n * n for n in range(30)]
    assert list(map_runs(square, range(30), 2)) == [n * n for n in range(30)]


def test_a_worker_that_dies_costs_nothing_but_time(tmp_path: Path) -> None:
    items = [(str(tmp_path / "flag"), n) for n in range(8)]
    assert list(map_runs(die_once, items, 2)) == list(range(8))
