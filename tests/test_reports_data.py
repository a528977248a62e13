"""Tables and statistics of a run."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_reports import Inputs, build_inputs, build_run

from stillframe.drivers.contracts import Window
from stillframe.errors import StillframeError
from stillframe.orchestrator.result import VmOutcome
from stillframe.reports.rundata import SCHEMAS, VMS, installed_versions, plain
from stillframe.reports.stats import (
    CLOCKS,
    ecdf,
    occupancy,
    over_limits,
    peak,
    percentile,
    summaries,
    values_of,
    worst,
)


def one_vm(outcome: VmOutcome) -> pl.DataFrame:
    inputs = build_inputs(12)
    inputs.result.vms = [outcome]
    return inputs.run().vms


def test_every_table_has_exactly_its_schema() -> None:
    for name, frame in build_run(40).tables().items():
        assert frame.schema == SCHEMAS[name], name


def test_empty_tables_keep_their_types() -> None:
    inputs = build_inputs(12)
    inputs.result.vms, inputs.result.calls = [], []
    run = Inputs(inputs.result).run()
    assert run.vms.schema == VMS
    assert run.series.height == 0
    assert run.placements.schema == SCHEMAS["placements"]


def test_what_nobody_saw_is_null_and_never_zero() -> None:
    vm = one_vm(VmOutcome("vm-1", "a", "g"))
    unseen = ["quiesce_start_s", "quiesce_s", "quiesce_exact", "stun_create_s", "stun_remove_s",
              "requested_s", "opened_s", "removal_s", "merged_s", "open_s", "merge_s",
              "delta_bytes", "merged_bytes", "passes"]  # fmt: skip
    assert {name: vm[name][0] for name in unseen} == dict.fromkeys(unseen)


def test_a_measured_zero_stays_zero() -> None:
    vm = one_vm(VmOutcome("vm-1", "a", "g", delta_bytes=0, quiesce=Window(5.0, 5.0)))
    assert vm["delta_bytes"][0] == 0
    assert vm["quiesce_s"][0] == 0.0


def test_windows_become_start_and_length_and_differences_follow_their_definition() -> None:
    outcome = VmOutcome("vm-1", "a", "g", opened_s=3, removal_s=10.0, merged_s=14.5)
    outcome.quiesce = Window(1.0, 2.5, exact=False)
    vm = one_vm(outcome).row(0, named=True)
    assert (vm["quiesce_start_s"], vm["quiesce_s"], vm["quiesce_exact"]) == (1.0, 1.5, False)
    assert (vm["open_s"], vm["merge_s"]) == (7.0, 4.5)


def test_one_missing_end_leaves_the_difference_absent() -> None:
    vm = one_vm(VmOutcome("vm-1", "a", "g", opened_s=3.0, removal_s=4.0)).row(0, named=True)
    assert vm["open_s"] == 1.0
    assert vm["merge_s"] is None


def test_the_job_wins_over_what_the_caller_claims_about_it() -> None:
    inputs = build_inputs(12)
    inputs.meta |= {"status": "protected by wishing", "trace_hash": "none", "extra": (1, 2)}
    meta = inputs.run().meta
    assert meta["status"] == inputs.result.status.value
    assert meta["trace_hash"] == inputs.result.events.trace_hash()
    assert meta["extra"] == [1, 2]
    assert meta["seed"] == 7


def test_versions_name_what_an_outcome_depends_on() -> None:
    assert set(installed_versions()) == {"stillframe", "python", "simpy", "platform"}


def test_plain_drops_what_json_cannot_carry() -> None:
    assert plain({1: (float("nan"), math.inf, True, 2.5, None)}) == {
        "1": [None, None, True, 2.5, None]
    }


def test_rows_of_the_wrong_shape_are_refused() -> None:
    inputs = build_inputs(12)
    inputs.series = [(1.0, "pool.used_bytes")]
    with pytest.raises(StillframeError, match="cannot be built"):
        inputs.run()
    inputs.series = [("soon", "pool.used_bytes", "array-1", 1.0)]
    with pytest.raises(StillframeError, match="cannot be built"):
        inputs.run()


@given(
    values=st.lists(st.floats(0, 1e6), min_size=1, max_size=80),
    percent=st.one_of(st.sampled_from([0.0, 50.0, 95.0, 99.0, 100.0]), st.integers(0, 100)),
)
def test_percentiles_are_numpys_by_nearest_rank(values: list[float], percent: float) -> None:
    ascending = np.sort(np.array(values))
    expected = np.percentile(ascending, percent, method="inverted_cdf")
    assert percentile(ascending, percent) == expected


def test_percentiles_of_nothing_are_absent_and_of_nonsense_refused() -> None:
    assert percentile(np.array([]), 50) is None
    with pytest.raises(ValueError, match="101"):
        percentile(np.array([1.0]), 101)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_an_ecdf_says_which_share_does_not_exceed_a_value(values: list[float]) -> None:
    x, y = ecdf(np.array(values))
    last = {float(value): share for value, share in zip(x, y, strict=True)}
    for value, share in last.items():
        assert share == pytest.approx(sum(v <= value for v in values) / len(values))


intervals = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda p: (p[0] / 2, (p[0] + p[1]) / 2)),
    max_size=12,
)


@given(intervals)
def test_occupancy_is_the_exact_mean_of_each_bin(spans: list[tuple[float, float]]) -> None:
    starts, ends = (np.array([s[i] for s in spans], dtype=float) for i in (0, 1))
    edges = np.linspace(-1.0, 40.0, 8)
    for low, high, mean in zip(edges, edges[1:], occupancy(starts, ends, edges), strict=False):
        inside = sum(max(0.0, min(high, e) - max(low, s)) for s, e in spans)
        assert mean == pytest.approx(inside / (high - low), abs=1e-9)


@given(intervals)
def test_the_peak_is_the_most_that_overlap_anywhere(spans: list[tuple[float, float]]) -> None:
    longer = [(s, e) for s, e in spans if e > s]
    starts, ends = (np.array([s[i] for s in longer], dtype=float) for i in (0, 1))
    overlaps = [sum(s <= at < e for s, e in longer) for at, _ in longer]
    assert peak(starts, ends) == max(overlaps, default=0)


def test_summaries_count_seen_absent_and_upper_bounds() -> None:
    run = build_run(200, sees_all=False)
    by_name = {row.clock.column: row for row in summaries(run)}
    assert by_name["quiesce_s"].bounds == by_name["quiesce_s"].count == 192
    assert by_name["quiesce_s"].absent == 8
    stun = by_name["stun_create_s"]
    assert (stun.count, stun.absent, stun.p50_s, stun.max_s, stun.worst) == (0, 200, None, None, "")
    assert by_name["open_s"].bounds == 0
    assert list(by_name) == [clock.column for clock in CLOCKS] + ["snapshot_s", "fence_s"]


def test_the_worst_is_named() -> None:
    run = build_run(200)
    row = next(row for row in summaries(run) if row.clock.column == "quiesce_s")
    longest = worst(run, "quiesce_s", 1).row(0, named=True)
    assert (row.max_s, row.worst) == (longest["quiesce_s"], longest["name"])
    assert row.max_s == values_of(run.vms, "quiesce_s")[-1]


def test_a_guest_at_its_limit_is_not_over_it() -> None:
    inputs = build_inputs(12)
    for vm, length in zip(inputs.result.vms, (10.0, 10.5, 20.0, 20.5, 60.5), strict=False):
        vm.quiesce = Window(0.0, length)
    for vm in inputs.result.vms[5:]:
        vm.quiesce = None
    assert [(row.over, row.measured) for row in over_limits(inputs.run())] == [
        (4, 5),
        (2, 5),
        (1, 5),
    ]
