"""Write profiles: exact where tabulated, monotone everywhere, the same bytes every time."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_traces import EXTENT, GRAIN, record, replay, synthetic

from stillframe.errors import InputError, StillframeError
from stillframe.sim.calibrate import (
    SHORTEST_STEPS,
    Touches,
    build_profile,
    calibrate_trace,
    count_units,
    duration_grid,
    touches,
)
from stillframe.sim.profilefile import load_profile
from stillframe.sim.trace import BlockTrace
from stillframe.sim.traceprofile import TraceProfile, UnitCounts
from stillframe.sim.writeprofile import ParametricProfile, ScaledProfile, WriteProfile


@pytest.fixture(scope="module")
def shipped() -> TraceProfile:
    return load_profile()


@pytest.fixture(scope="module")
def small() -> TraceProfile:
    return build_profile(synthetic(1), granularities=(GRAIN, EXTENT))


# --- building ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("unit", [GRAIN, EXTENT])
def test_tables_are_exact_at_their_points(seed: int, unit: int) -> None:
    trace = synthetic(seed)
    profile = build_profile(trace, granularities=(unit,))
    for duration_s in profile.durations_s:
        for phase in range(0, profile.phases, 37):
            phase_s = phase * profile.phase_step_s
            expected = replay(trace, phase_s, duration_s, unit)
            assert profile.delta_bytes(phase_s, duration_s, unit) == pytest.approx(expected)


def test_touches_on_whole_phase_steps_are_counted_once_per_cycle() -> None:
    """Times and gaps that fall exactly on the grid are where rounding would show."""
    count = 64
    trace = BlockTrace(
        np.arange(count) * 0.125,
        np.ones(count, dtype=np.bool_),
        (np.arange(count, dtype=np.int64) % 8) * GRAIN,
        np.full(count, GRAIN, dtype=np.int64),
    )
    profile = build_profile(trace, granularities=(GRAIN,))
    assert profile.phases == count
    for phase in range(count):
        for steps in profile.duration_steps:
            size = profile.delta_bytes(phase * 0.125, steps * 0.125, GRAIN)
            assert size == min(steps, 8) * GRAIN


@pytest.mark.parametrize("step_s", [0.1, 0.05, 1 / 3])
def test_a_perfectly_regular_trace_is_counted_alike_at_every_phase(step_s: float) -> None:
    """Touches of one unit on borders of steps must neither count twice nor drop out."""
    count = 400
    trace = BlockTrace(
        np.arange(count) * step_s,
        np.ones(count, dtype=np.bool_),
        np.arange(count, dtype=np.int64) * GRAIN,
        np.full(count, GRAIN, dtype=np.int64),
    )
    profile = build_profile(trace)
    assert profile.distinct_bytes(GRAIN) == count * GRAIN


def test_rounding_never_loses_a_unit_that_is_touched_once() -> None:
    """Just below a phase step, and for a period that is not quite its number of steps."""
    odd_s = 3.0 + 4.0 / 7.0
    assert odd_s / (odd_s / 7) < 7
    for period_s, phases in ((10.0, 80), (odd_s, 7)):
        step_s = period_s / phases
        times_s = np.array([np.nextafter(3.0 * step_s, 0.0), 5.0 * step_s, 0.0])
        once = Touches(times_s, times_s, np.ones(3, dtype=np.bool_))
        counted = count_units(once, period_s, (2, phases))
        assert counted.distinct[:, -1].tolist() == [3] * phases
        assert counted.touches.sum(axis=1).tolist() == [0, 0, 3]


def test_mean_over_phases_is_the_sum_of_gaps(shipped: TraceProfile, small: TraceProfile) -> None:
    """Σ min(gap, t) / period: how the mean follows from the touches, without any window."""
    trace = synthetic(1)
    gaps_s = touches(trace, GRAIN).gaps_s(trace.period_s)
    for duration_s in (0.7, 5.0, 20.0):
        expected = np.minimum(gaps_s, duration_s).sum() / trace.period_s * GRAIN
        (row,) = small.summary((duration_s,), (GRAIN,))
        assert row.mean_bytes == pytest.approx(expected, rel=0.05)


def test_grid_is_whole_steps_and_ends_with_the_period() -> None:
    grid = duration_grid(1000)
    assert grid[0] == SHORTEST_STEPS
    assert grid[-1] == 1000
    assert all(shorter < longer for shorter, longer in pairwise(grid))
    assert duration_grid(1) == (1,)


def test_off_grid_durations_follow_the_bursts(small: TraceProfile) -> None:
    """Between two tabulated durations, the gain comes where the new touches are."""
    trace = synthetic(1)
    rng = np.random.default_rng(3)
    phases_s = rng.integers(0, small.phases, 200) * small.phase_step_s
    for duration_s in (1.6, 4.9, 11.3, 30.1):
        modelled = small.delta_bytes_many(phases_s, duration_s, GRAIN)
        replayed = [replay(trace, float(phase_s), duration_s, GRAIN) for phase_s in phases_s]
        assert np.abs(modelled - replayed).mean() <= 0.04 * np.mean(replayed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"is_write": np.zeros(120, dtype=np.bool_)}, "synthetic 1: holds no writes in 120"),
        ({"length_bytes": np.zeros(120, dtype=np.int64)}, "synthetic 1: holds no writes"),
        ({"times_s": np.zeros(120)}, "synthetic 1: covers no time"),
    ],
)
def test_traces_without_a_profile(change: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(InputError, match=says):
        build_profile(replace(synthetic(1), **change))


@pytest.mark.parametrize("units", [(), (0,), (1000,), (-512,)])
def test_granularities_that_cannot_be(units: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="--granularity"):
        build_profile(synthetic(1), granularities=units)


def test_calibrate_reports_totals_rates_and_progress(tmp_path: Path) -> None:
    path = tmp_path / "guest.vscsi"
    path.write_bytes(
        b"".join(
            record(1000 * i, lbn=8 * i, command=0x28 if i % 4 == 0 else 0x2A) for i in range(1000)
        )
    )
    seen: list[float] = []
    profile, summary = calibrate_trace(
        path, granularities=(GRAIN,), progress=lambda _, share: seen.append(share)
    )
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert (summary.totals.reads, summary.totals.writes) == (250, 750)
    assert summary.totals.written_bytes == 750 * 4096
    assert summary.distinct_bytes == {GRAIN: 750 * 4096}
    assert (summary.write_rate_bytes_per_s * summary.rate_bin_s).sum() == pytest.approx(750 * 4096)
    assert (summary.read_rate_bytes_per_s * summary.rate_bin_s).sum() == pytest.approx(250 * 4096)
    assert profile.name == "guest"
    assert "guest.vscsi (SHA-256 " in profile.source
    assert summary.rows
    assert all(row.duration_s <= profile.period_s for row in summary.rows)


# --- looking up -------------------------------------------------------------------------------

PHASES = st.floats(-1e5, 1e5)
DURATIONS = st.floats(0.0, 1e5)


@given(phase_s=PHASES, durations=st.lists(DURATIONS, min_size=2, max_size=6))
@settings(max_examples=300)
def test_never_falls_with_duration(
    shipped: TraceProfile, phase_s: float, durations: list[float]
) -> None:
    parametric = ParametricProfile(2e6, 8e9, locality=0.8)
    profiles: list[WriteProfile] = [shipped, parametric, ScaledProfile(shipped, 3.0, 1e9)]
    for profile in profiles:
        sizes = [profile.delta_bytes(phase_s, duration) for duration in sorted(durations)]
        assert sizes == sorted(sizes)
        assert sizes[0] >= 0.0


@given(phase=st.integers(0, 10**6), column=st.integers(0, 23), side=st.sampled_from([-1, 0, 1]))
@settings(max_examples=300)
def test_meets_the_table_from_both_sides(
    shipped: TraceProfile, phase: int, column: int, side: int
) -> None:
    row = phase % shipped.phases
    duration_s = shipped.durations_s[column] * (1.0 + side * 1e-12)
    size = shipped.delta_bytes(row * shipped.phase_step_s, duration_s)
    tabulated = float(shipped.units[GRAIN].distinct[row, column]) * GRAIN
    assert size == pytest.approx(tabulated, rel=1e-6, abs=1.0)


@given(phases=st.lists(PHASES, min_size=1, max_size=20), data=st.data())
def test_many_gives_the_same_numbers_as_one(
    shipped: TraceProfile, phases: list[float], data: st.DataObject
) -> None:
    size = len(phases)
    durations = data.draw(st.lists(DURATIONS, min_size=size, max_size=size))
    for profile in (shipped, ScaledProfile(shipped, 0.5, 3e8), ParametricProfile(1e6, 1e9, 0.9)):
        for unit in (GRAIN, 1024 * 1024):
            many = profile.delta_bytes_many(np.array(phases), np.array(durations), unit)
            one = [profile.delta_bytes(p, d, unit) for p, d in zip(phases, durations, strict=True)]
            if isinstance(profile, ParametricProfile):
                assert many.tolist() == pytest.approx(one, rel=1e-12)
            else:
                assert many.tolist() == one


def test_many_broadcasts_and_takes_nothing(shipped: TraceProfile) -> None:
    phases = np.array([0.0, 100.0, 1700.0])
    assert shipped.delta_bytes_many(phases, 60.0).shape == (3,)
    assert shipped.delta_bytes_many(phases[:, None], np.array([1.0, 2.0])).shape == (3, 2)
    assert shipped.delta_bytes_many(np.array([]), 60.0).shape == (0,)
    assert ParametricProfile(1.0, 1e6).delta_bytes_many(np.array([]), 60.0).shape == (0,)


def test_phases_are_cyclic_and_nearest(small: TraceProfile) -> None:
    step = small.phase_step_s
    for phase in (0, 5, small.phases - 1):
        size = small.delta_bytes(phase * step, 3.0)
        assert small.delta_bytes((phase + 0.4) * step, 3.0) == size
        assert small.delta_bytes((phase - 0.4) * step, 3.0) == size
        assert small.delta_bytes(phase * step + 7 * small.period_s, 3.0) == size
        assert small.delta_bytes(phase * step - 7 * small.period_s, 3.0) == size


def test_beyond_the_period_units_seen_once_count_as_new_again(small: TraceProfile) -> None:
    trace = synthetic(1)
    gaps_s = touches(trace, GRAIN).gaps_s(trace.period_s)
    once = np.count_nonzero(gaps_s >= trace.period_s)
    whole = small.delta_bytes(3.0, small.period_s)
    assert whole == small.distinct_bytes(GRAIN)
    assert small.delta_bytes(3.0, 3 * small.period_s) == pytest.approx(whole + 2 * once * GRAIN)
    assert small.extrapolates(small.period_s * 1.01)
    assert not small.extrapolates(small.period_s)


def test_a_gain_without_a_touch_is_spread_over_time(small: TraceProfile) -> None:
    """The tables of a foreign file may disagree; that must not divide by zero."""
    given_units = small.units[GRAIN]
    silent = UnitCounts(given_units.distinct, np.zeros_like(given_units.touches))
    profile = TraceProfile(
        "x", "x", small.period_s, small.duration_steps, {GRAIN: silent}, small.step_bytes,
        small.totals,
    )  # fmt: skip
    shorter, longer = small.durations_s[8:10]
    low, high = (small.delta_bytes(0.0, duration_s) for duration_s in (shorter, longer))
    assert low < high
    middle = (shorter + longer) / 2
    assert profile.delta_bytes(0.0, middle) == pytest.approx((low + high) / 2)
    many = profile.delta_bytes_many(np.zeros(1), middle)
    assert many.tolist() == pytest.approx([(low + high) / 2])


@pytest.mark.parametrize("duration_s", [-1e-9, -1.0, math.nan])
def test_durations_that_cannot_be(shipped: TraceProfile, duration_s: float) -> None:
    profiles: list[WriteProfile] = [shipped, ParametricProfile(1e6, 1e9), ScaledProfile(shipped)]
    for profile in profiles:
        with pytest.raises(StillframeError, match="negative or not a number"):
            profile.delta_bytes(0.0, duration_s)
        with pytest.raises(StillframeError, match="negative or not a number"):
            profile.delta_bytes_many(np.zeros(2), np.array([1.0, duration_s]))
        with pytest.raises(StillframeError, match="negative or not a number"):
            profile.written_bytes(0.0, duration_s)


def test_unknown_granularity_names_the_known_ones(small: TraceProfile) -> None:
    for call in (small.delta_bytes, small.delta_bytes_many):
        with pytest.raises(StillframeError, match=r"no table at 8192 bytes.*4096, 65536"):
            call(np.float64(0.0), 1.0, 8192)  # type: ignore[operator]
    assert small.granularity_at_least(8192) == EXTENT
    assert small.granularity_at_least(GRAIN) == GRAIN
    with pytest.raises(StillframeError, match="no table at 1048576 bytes"):
        small.granularity_at_least(1024 * 1024)


@given(phase_s=PHASES, parts=st.lists(st.floats(0.0, 9000.0), min_size=2, max_size=2))
def test_written_bytes_add_up(shipped: TraceProfile, phase_s: float, parts: list[float]) -> None:
    first, second = parts
    split = shipped.written_bytes(phase_s, first) + shipped.written_bytes(phase_s + first, second)
    whole = shipped.written_bytes(phase_s, first + second)
    assert split == pytest.approx(whole, rel=1e-6, abs=16.0)


def test_written_bytes_of_a_cycle_are_all(shipped: TraceProfile) -> None:
    total = shipped.totals.written_bytes
    assert shipped.written_bytes(123.4, shipped.period_s) == pytest.approx(total)
    assert shipped.written_bytes(123.4, 5 * shipped.period_s) == pytest.approx(5 * total)
    assert shipped.rate_bytes_per_s * shipped.period_s == pytest.approx(total)


# --- formulas and scaling ---------------------------------------------------------------------


def test_parametric_matches_random_writes() -> None:
    """Against drawing the writes: 80 % of them to 20 % of 500 blocks."""
    rng = np.random.default_rng(9)
    blocks, writes = 500, 600
    distinct = []
    for _ in range(300):
        hot = rng.random(writes) < 0.8
        where = np.where(hot, rng.integers(0, 100, writes), rng.integers(100, blocks, writes))
        distinct.append(len(np.unique(where)))
    profile = ParametricProfile(GRAIN * 10.0, GRAIN * blocks, locality=0.8)
    assert profile.delta_bytes(0.0, writes / 10.0) / GRAIN == pytest.approx(
        float(np.mean(distinct)), rel=0.01
    )


def test_parametric_limits() -> None:
    profile = ParametricProfile(1e6, 1e9)
    assert profile.delta_bytes(0.0, 0.0) == 0.0
    assert profile.delta_bytes(0.0, 1.0) == pytest.approx(1e6, rel=1e-3)
    assert profile.delta_bytes(0.0, 1e9) == pytest.approx(1e9)
    assert profile.written_bytes(5.0, 10.0) == 1e7
    # A large unit is paid in full for a small write; a large write touches many small units.
    assert profile.delta_bytes(0.0, 1.0, EXTENT) == pytest.approx(16e6, rel=0.02)
    large = ParametricProfile(1e6, 1e9, write_bytes=EXTENT)
    assert large.delta_bytes(0.0, 1.0, EXTENT) == pytest.approx(1e6, rel=1e-3)
    assert large.delta_bytes(0.0, 1.0, GRAIN) == pytest.approx(1e6, rel=1e-3)
    assert "without a source" in profile.source
    with pytest.raises(StillframeError, match="granularity 0"):
        profile.delta_bytes(0.0, 1.0, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate_bytes_per_s", -1.0),
        ("rate_bytes_per_s", math.nan),
        ("working_set_bytes", 0.0),
        ("locality", 0.4),
        ("locality", 1.0),
        ("write_bytes", 0),
        ("period_s", math.inf),
    ],
)
def test_parameters_out_of_range(field: str, value: float) -> None:
    good = ParametricProfile(1e6, 1e9)
    with pytest.raises(StillframeError, match=f"parameter {field} is out of range"):
        replace(good, **{field: value})  # type: ignore[arg-type]


def test_scaled_multiplies_and_caps(shipped: TraceProfile) -> None:
    scaled = ScaledProfile(shipped, 2.0, limit_bytes=1e9)
    assert scaled.delta_bytes(0.0, 60.0) == 2.0 * shipped.delta_bytes(0.0, 60.0)
    assert scaled.delta_bytes(0.0, 3600.0) == 1e9
    assert scaled.delta_bytes_many(np.zeros(1), 3600.0).tolist() == [1e9]
    assert scaled.written_bytes(0.0, 3600.0) == 2.0 * shipped.written_bytes(0.0, 3600.0) > 1e9
    assert scaled.rate_bytes_per_s == 2.0 * shipped.rate_bytes_per_s
    assert scaled.period_s == shipped.period_s
    assert scaled.source.endswith("bytes scaled by 2")
    for scale, limit in ((-1.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (1.0, -1.0)):
        with pytest.raises(StillframeError, match="write profile"):
            ScaledProfile(shipped, scale, limit)
