"""Predicted against measured: percentiles, their ranges, errors; and the model against itself."""

from __future__ import annotations

import random

import pytest
from support_validation import played, scenario, world

from stillframe.lab.fit_record import RunRecord
from stillframe.validation import JUDGED, ClockCheck, PercentileCheck, Sample, check
from stillframe.validation_runs import run_modelled

QUIESCE, MERGE, SNAPSHOT = JUDGED


def ranged(sample: Sample, percent: float) -> tuple[float, float]:
    """The range, which must be there."""
    found = sample.range_s(percent, random.Random(3))
    assert found is not None
    return found


def modelled(guests: int, load: str, runs: int, **hypervisor: object) -> list[RunRecord]:
    """Modelled runs of a cell with seeds that no other helper uses."""
    twin = scenario(guests, load, world(**hypervisor), seed=1)
    return run_modelled(twin, runs, lambda _label, _share: None)


def by_clock(checks: list[ClockCheck]) -> dict[str, ClockCheck]:
    """The checks by their clock."""
    return {one.clock: one for one in checks}


def test_a_percentile_is_over_the_values_of_all_runs_by_nearest_rank() -> None:
    sample = Sample(((4.0, 1.0), (), (3.0, 2.0)))
    assert sample.count == 4
    assert (sample.percentile_s(50), sample.percentile_s(95)) == (2.0, 4.0)
    assert Sample(((),)).percentile_s(50) is None


def test_a_range_is_wider_where_fewer_runs_were_measured() -> None:
    chance = random.Random(1)
    values = [chance.lognormvariate(0.0, 0.5) for _ in range(200)]
    many = ranged(Sample(tuple((value,) for value in values)), 50)
    few = ranged(Sample(tuple((value,) for value in values[:10])), 50)
    assert few[1] - few[0] > 2 * (many[1] - many[0])
    assert many[0] <= 1.0 <= many[1]


def test_whole_runs_are_resampled_because_their_vms_are_not_independent() -> None:
    """Ten runs of twenty VMs that all have their run's value say as much as ten values."""
    alike = Sample(tuple((float(run),) * 20 for run in range(10)))
    alone = Sample(tuple((float(run),) for run in range(10)))
    scattered = Sample(tuple((float(value),) for value in range(10) for _ in range(20)))
    assert ranged(alike, 50) == ranged(alone, 50)
    low, high = ranged(alike, 50)
    assert high - low >= 3.0
    narrow = ranged(scattered, 50)
    assert narrow[1] - narrow[0] <= 2.0


def test_one_run_has_no_range() -> None:
    assert Sample(((1.0, 2.0, 3.0),)).range_s(50, random.Random(1)) is None
    assert Sample(((1.0,), ())).range_s(50, random.Random(1)) is None


@pytest.mark.parametrize(
    ("measured_s", "predicted_s", "error"),
    [(2.0, 3.0, 0.5), (2.0, 1.0, -0.5), (0.0, 1.0, None), (None, 1.0, None), (1.0, None, None)],
)
def test_an_error_is_a_share_of_what_was_measured(
    measured_s: float | None, predicted_s: float | None, error: float | None
) -> None:
    one = PercentileCheck(percent=50, measured_s=measured_s, range_s=None, predicted_s=predicted_s)
    assert one.error == error
    assert one.within_range is None


@pytest.mark.parametrize(("predicted_s", "within"), [(1.0, True), (2.0, True), (2.1, False)])
def test_a_prediction_lies_within_the_range_or_not(predicted_s: float, within: bool) -> None:
    one = PercentileCheck(percent=95, measured_s=1.5, range_s=(1.0, 2.0), predicted_s=predicted_s)
    assert one.within_range is within


def test_the_judged_clocks_are_read_from_the_records() -> None:
    (run,) = played(2, "low", world(), 1)
    assert QUIESCE.sample([run]).runs == (tuple(vm.quiesce_s for vm in run.vms),)
    assert MERGE.sample([run]).runs == (tuple(vm.merge_s for vm in run.vms),)
    assert SNAPSHOT.sample([run]).runs == (
        tuple(call.completed_s - call.requested_s for call in run.calls),
    )


def test_a_clock_that_nobody_saw_is_absent_and_not_zero() -> None:
    runs = [
        run.model_copy(
            update={"vms": tuple(vm.model_copy(update={"quiesce_s": None}) for vm in run.vms)}
        )
        for run in played(1, "low", world(), 2)
    ]
    found = by_clock(check(runs, played(1, "low", world(), 2)))["quiesce_s"]
    assert found.measured == 0
    assert [one.measured_s for one in found.percentiles] == [None, None]
    assert [one.error for one in found.percentiles] == [None, None]


def test_the_right_profile_predicts_the_model_itself() -> None:
    checks = check(played(2, "high", world(), 60), modelled(2, "high", 120))
    for one in checks:
        p50, p95 = one.at(50), one.at(95)
        assert p50.error is not None
        assert p95.error is not None
        assert abs(p50.error) < 0.10, one
        assert abs(p95.error) < 0.25, one


@pytest.mark.parametrize(
    ("number", "value", "clock"),
    [("linux_freeze", "120 ms", "quiesce_s"), ("stun_remove", "40 ms", "merge_s")],
)
def test_a_wrong_number_shows_in_its_clock_and_in_no_other(
    number: str, value: str, clock: str
) -> None:
    live = played(2, "low", world(), 60)
    checks = by_clock(check(live, modelled(2, "low", 120, **{number: value})))
    for name, one in checks.items():
        error = one.at(50).error
        assert error is not None
        assert (error > 0.4) if name == clock else (abs(error) < 0.10), one


def test_the_load_reaches_the_twin() -> None:
    """A larger delta takes longer to merge, and nothing but the guests' rule says so."""
    slow = {"merge_rate": "1 MB/s"}
    light, heavy = modelled(1, "low", 5, **slow), modelled(1, "high", 5, **slow)
    p50_s = [MERGE.sample(runs).percentile_s(50) for runs in (light, heavy)]
    assert p50_s[0] is not None
    assert p50_s[1] is not None
    assert p50_s[1] > 3 * p50_s[0]


def test_the_same_seed_gives_the_same_checks() -> None:
    live, predicted = played(1, "low", world(), 5), modelled(1, "low", 5)
    assert check(live, predicted, seed=4) == check(live, predicted, seed=4)
    assert modelled(1, "low", 5) == predicted
