"""SnapshotPool against explicit sets of extents, a worked example, and its two ways to end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillframe.drivers.records import StorageUnit, UnitKind
from stillframe.sim.array_profiles import ArrayProfile, PoolFullPolicy
from stillframe.sim.env import SimEnv
from stillframe.sim.load import OverwriteModel, QuietUnits
from stillframe.sim.pool import SnapshotPool

EXTENT = 4096
DAY = 86400.0
MB = 1e6


def unit(name: str, capacity_bytes: float = 1e12) -> StorageUnit:
    return StorageUnit(name, "array", name, UnitKind.LUN, int(capacity_bytes), ())


class FreshWrites:
    """Each unit is written at its own constant rate, never the same extent twice."""

    def __init__(self, rates: Mapping[str, float]) -> None:
        self.rates = rates
        self.questions = 0

    def overwritten_bytes(
        self, unit_id: str, since_s: float, now_s: float, granularity_bytes: int
    ) -> float:
        self.questions += 1
        return self.rates[unit_id] * (now_s - since_s)

    def write_rate_bytes_per_s(self, unit_id: str, start_s: float, end_s: float) -> float:
        return self.rates[unit_id]


class ListedWrites:
    """Explicit writes ``(time, unit, extent)``: what a snapshot keeps can be counted."""

    def __init__(self, writes: list[tuple[float, str, int]]) -> None:
        self.writes = writes

    def extents(self, unit_id: str, since_s: float, now_s: float) -> set[int]:
        return {e for t, u, e in self.writes if u == unit_id and since_s < t <= now_s}

    def overwritten_bytes(
        self, unit_id: str, since_s: float, now_s: float, granularity_bytes: int
    ) -> float:
        return float(len(self.extents(unit_id, since_s, now_s)) * granularity_bytes)

    def write_rate_bytes_per_s(self, unit_id: str, start_s: float, end_s: float) -> float:
        return 0.0


class Ear:
    """Remembers what the pool says and when."""

    def __init__(self, env: SimEnv) -> None:
        self.env = env
        self.invalidated: list[tuple[float, int]] = []
        self.failing: list[tuple[float, bool]] = []
        self.changes = 0

    def pool_changed(self) -> None:
        self.changes += 1

    def snapshot_invalidated(self, number: int) -> None:
        self.invalidated.append((self.env.now, number))

    def writes_failing_changed(self, failing: bool) -> None:
        self.failing.append((self.env.now, failing))


class Lab:
    def __init__(
        self,
        overwritten: OverwriteModel,
        units: list[StorageUnit],
        capacity_bytes: float = 1e15,
        **profile: object,
    ) -> None:
        self.env = SimEnv()
        self.ear = Ear(self.env)
        values = {"snapshot_extent": EXTENT, "reclaim_bandwidth": 1e18} | profile
        self.pool = SnapshotPool(
            self.env,
            capacity_bytes,
            ArrayProfile.model_validate(values),
            units,
            overwritten,
            self.ear,
        )

    def at(self, when_s: float, act: Callable[..., object], *args: object) -> None:
        self.env.after(when_s - self.env.now, act, *args)


# Long histories over few extents: deleted snapshots between others, whose intervals overlap.
moves = st.lists(
    st.tuples(
        st.sampled_from(["cut", "cut", "drop"]),
        st.sampled_from([{"a"}, {"b"}, {"a", "b"}]),
    ),
    min_size=4,
    max_size=12,
)
writes = st.lists(
    st.tuples(st.integers(0, 130).map(float), st.sampled_from("ab"), st.integers(0, 4)),
    min_size=20,
    max_size=60,
)


@settings(deadline=None, max_examples=200)
@given(writes, moves, st.data())
def test_space_is_that_of_the_distinct_extents_of_every_interval(
    written: list[tuple[float, str, int]], drawn: list[tuple[str, set[str]]], data: st.DataObject
) -> None:
    model = ListedWrites(written)
    lab = Lab(model, [unit("a"), unit("b")])
    cuts: dict[int, tuple[float, set[str]]] = {}

    def cut(number: int, units: set[str]) -> None:
        cuts[number] = (lab.env.now, units)
        lab.pool.cut(number, tuple(sorted(units)))

    def drop() -> None:
        if cuts:
            number = data.draw(st.sampled_from(sorted(cuts)))
            del cuts[number]
            lab.pool.drop(number)

    for number, (what, units) in enumerate(drawn):
        lab.at(10.0 * (number + 1), *((cut, number, units) if what == "cut" else (drop,)))
    # A last cut closes every interval, so that nothing is left to a forecast.
    lab.at(140.0, cut, 99, {"a", "b"})
    lab.env.run(until=140.5)

    expected = 0
    for name in "ab":
        times = sorted(time_s for time_s, units in cuts.values() if name in units)
        for start, end in itertools.pairwise(times):
            expected += EXTENT * len(model.extents(name, start, end))
        assert lab.pool.snapshots_of(name) == len(times)
    assert lab.pool.used_bytes == pytest.approx(expected, abs=1e-3)
    assert lab.pool.snapshots == len(cuts)


def test_worked_example_daily_snapshots_kept_for_21_days_hold_84_gb() -> None:
    # 40 GB volume, 10 % of it changed a day, no day like another: 21 days x 4 GB.
    lab = Lab(FreshWrites({"v": 4e9 / DAY}), [unit("v", 40e9)])
    for day in range(40):
        lab.at(day * DAY, lab.pool.cut, day, ("v",))
        if day >= 21:
            lab.at(day * DAY, lab.pool.drop, day - 21)
    lab.env.run(until=40 * DAY - 1)
    # 20 whole days between 21 snapshots, and the day since the newest.
    assert lab.pool.snapshots == 21
    assert lab.pool.used_bytes == pytest.approx(84e9, rel=1e-4)


def test_one_snapshot_never_holds_more_than_its_unit() -> None:
    lab = Lab(FreshWrites({"v": 4e9 / DAY}), [unit("v", 40e9)])
    lab.pool.cut(1, ("v",))
    lab.env.run(until=21 * DAY)
    assert lab.pool.used_bytes == pytest.approx(40e9, rel=1e-6)


def test_growth_between_looks_is_what_the_model_says_at_looks() -> None:
    lab = Lab(FreshWrites({"v": 3 * MB}), [unit("v")])
    lab.at(50.0, lab.pool.cut, 1, ("v",))
    for until_s in (51.0, 57.0, 333.0, 5000.0):
        lab.env.run(until=until_s)
        assert lab.pool.used_bytes == pytest.approx(3 * MB * (until_s - 50.0))
        assert lab.pool.growth_bytes_per_s == pytest.approx(3 * MB)


def test_looks_are_few_and_end_at_the_horizon() -> None:
    model = FreshWrites({"v": 1.0})
    lab = Lab(model, [unit("v")], sample_horizon=30 * DAY)
    lab.pool.cut(1, ("v",))
    lab.env.run()
    assert 30 * DAY <= lab.env.now < 34 * DAY
    assert model.questions < 80
    assert lab.pool.growth_bytes_per_s == 0.0


def test_a_new_cut_takes_over_the_looking() -> None:
    model = FreshWrites({"v": 1.0})
    lab = Lab(model, [unit("v")])
    for number in range(50):
        lab.at(float(number), lab.pool.cut, number, ("v",))
    lab.env.run(until=60.0)
    asked = model.questions
    lab.env.run(until=5000.0)
    assert model.questions - asked < 12


def test_deleting_everything_leaves_exactly_nothing() -> None:
    lab = Lab(FreshWrites({"a": 0.1, "b": 1 / 3}), [unit("a"), unit("b")])
    for number in range(7):
        lab.at(0.7 * number, lab.pool.cut, number, ("a", "b"))
    for number in (3, 0, 6, 5, 1, 2, 4):
        lab.at(10.1 + number, lab.pool.drop, number)
    lab.env.run(until=30.0)
    assert lab.pool.used_bytes == 0.0
    assert lab.pool.growth_bytes_per_s == 0.0


def test_space_of_a_deleted_snapshot_becomes_free_over_time() -> None:
    lab = Lab(FreshWrites({"v": MB}), [unit("v")], reclaim_bandwidth=2 * MB)
    lab.pool.cut(1, ("v",))
    lab.at(100.0, lab.pool.drop, 1)
    lab.env.run(until=100.5)
    assert lab.pool.used_bytes == pytest.approx(99 * MB)
    lab.env.run(until=125.0)
    assert lab.pool.used_bytes == pytest.approx(50 * MB)
    lab.env.run()
    assert lab.pool.used_bytes == 0.0
    assert lab.env.now == pytest.approx(150.0, abs=900.0)


def test_a_dropped_newest_snapshot_hands_its_growth_to_the_one_before() -> None:
    lab = Lab(FreshWrites({"v": MB}), [unit("v")])
    lab.pool.cut(1, ("v",))
    lab.at(10.0, lab.pool.cut, 2, ("v",))
    lab.at(11.0, lab.pool.drop, 2)
    lab.env.run(until=400.0)
    assert lab.pool.used_bytes == pytest.approx(400 * MB)


def test_the_interval_that_takes_over_grows_at_its_own_rate() -> None:
    class Saturating(FreshWrites):
        def overwritten_bytes(
            self, unit_id: str, since_s: float, now_s: float, granularity_bytes: int
        ) -> float:
            return min(now_s - since_s, 100.0) * MB

    lab = Lab(Saturating({}), [unit("v")])
    lab.pool.cut(1, ("v",))
    lab.at(200.0, lab.pool.cut, 2, ("v",))
    lab.env.run(until=260.0)
    assert lab.pool.used_bytes == pytest.approx(160 * MB, rel=0.1)
    assert lab.pool.growth_bytes_per_s > 0
    lab.pool.drop(2)
    assert lab.pool.growth_bytes_per_s == 0.0
    lab.env.run(until=261.0)
    assert lab.pool.used_bytes == pytest.approx(100 * MB)


def test_dropping_an_unknown_snapshot_is_an_error() -> None:
    lab = Lab(QuietUnits(), [unit("v")])
    with pytest.raises(KeyError):
        lab.pool.drop(1)


def test_a_full_pool_gives_up_its_oldest_snapshots_at_the_computed_moment() -> None:
    lab = Lab(
        FreshWrites({"a": 2 * MB, "b": MB}),
        [unit("a"), unit("b")],
        capacity_bytes=1000 * MB,
        on_pool_full=PoolFullPolicy.INVALIDATE_SNAPSHOTS,
    )
    lab.pool.cut(1, ("a",))
    lab.at(100.0, lab.pool.cut, 2, ("a", "b"))
    # 2 MB/s for 100 s, then 3 MB/s: 1000 MB at 366.67 s, far from any look.
    lab.env.run(until=366.0)
    assert not lab.ear.invalidated
    lab.env.run(until=400.0)
    # What the first one held alone, 200 MB, is free at once; the second one lives until 433.33 s.
    assert lab.ear.invalidated == [(pytest.approx(100.0 + 800.0 / 3.0), 1)]
    assert lab.pool.used_bytes == pytest.approx(900 * MB)
    lab.env.run(until=500.0)
    assert lab.ear.invalidated[1:] == [(pytest.approx(100.0 + 1000.0 / 3.0), 2)]
    assert lab.pool.used_bytes == 0.0
    assert not lab.ear.failing


def test_a_full_pool_fails_writes_until_enough_is_freed() -> None:
    lab = Lab(
        FreshWrites({"a": MB, "b": MB}),
        [unit("a"), unit("b")],
        capacity_bytes=300 * MB,
        on_pool_full=PoolFullPolicy.FAIL_WRITES,
        reclaim_bandwidth=10 * MB,
    )
    lab.pool.cut(1, ("a",))
    lab.pool.cut(2, ("b",))
    lab.env.run(until=200.0)
    assert lab.ear.failing == [(pytest.approx(150.0), True)]
    assert lab.pool.failing
    assert lab.pool.used_bytes == 300 * MB
    assert lab.pool.growth_bytes_per_s == 0.0
    # 400 MB wanted; b still wants 1 MB/s, 10 MB/s are reclaimed: 100 MB are won back in 11.1 s.
    lab.pool.drop(1)
    lab.env.run(until=220.0)
    assert lab.ear.failing[1:] == [(pytest.approx(200.0 + 100.0 / 9.0, abs=0.01), False)]
    assert not lab.ear.invalidated
    assert lab.pool.growth_bytes_per_s == pytest.approx(MB)


def test_rounding_far_from_time_zero_does_not_stop_the_clock() -> None:
    lab = Lab(
        FreshWrites({"v": 1.37e9}),
        [unit("v", 1e16)],
        capacity_bytes=9.1e14,
        on_pool_full=PoolFullPolicy.INVALIDATE_SNAPSHOTS,
        snapshot_extent=512,
        reclaim_bandwidth=3.3e9,
    )
    for number in range(20):
        lab.at(1e9 + 1e5 * number / 3, partial(lab.pool.cut, number), ("v",))
    lab.at(1e9 + 6.4e5, lab.pool.drop, 19)
    lab.env.run(until=1e9 + 2e6)
    assert lab.env.now == 1e9 + 2e6
