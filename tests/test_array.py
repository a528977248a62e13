"""The modelled array as a driver: group cuts, fences, limits, faults, space and load."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stillframe.drivers.contracts import (
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    SnapshotMethod,
)
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    UnknownOutcomeError,
)
from stillframe.drivers.records import Array, DeviceIdentity, DeviceKind, StorageUnit, UnitKind
from stillframe.orchestrator.events import EventLog
from stillframe.sim.array import ModelArray
from stillframe.sim.array_calls import ArrayEvent
from stillframe.sim.array_profiles import ARRAY_PROFILES, ArrayProfile, PoolFullPolicy
from stillframe.sim.draws import Draws
from stillframe.sim.env import SimEnv
from stillframe.sim.load import OverwriteModel, QuietUnits
from stillframe.sim.loop import SimLoop
from stillframe.sim.series import Quantity, Series

MB = 1e6
STEADY = {
    "management_sigma": 0.0,
    "snapshot_sigma": 0.0,
    "fence_sigma": 0.0,
    "delete_sigma": 0.0,
}


class FreshWrites:
    """Every unit is written at one rate, never the same extent twice."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s

    def overwritten_bytes(
        self, unit_id: str, since_s: float, now_s: float, granularity_bytes: int
    ) -> float:
        return self.bytes_per_s * (now_s - since_s)

    def write_rate_bytes_per_s(self, unit_id: str, start_s: float, end_s: float) -> float:
        return self.bytes_per_s


class Lab:
    """One array with four units, and a loop to call it from."""

    def __init__(
        self,
        overwritten: OverwriteModel | None = None,
        *,
        seed: int = 1,
        steady: bool = True,
        **profile: object,
    ) -> None:
        self.env = SimEnv()
        self.log = EventLog()
        self.series = Series()
        self.units = [
            StorageUnit(f"u{n}", "arr", f"lun {n}", UnitKind.LUN, 10**12, (device(n),))
            for n in range(4)
        ]
        self.array = ModelArray(
            self.env,
            Array("arr", "array"),
            self.units,
            ArrayProfile.model_validate((STEADY if steady else {}) | profile),
            Draws(seed),
            self.log,
            overwritten or QuietUnits(),
            self.series,
        )

    def run(self, main: Callable[[ModelArray], Awaitable[Any]]) -> Any:
        async def start() -> Any:
            return await main(self.array)

        with asyncio.Runner(loop_factory=lambda: SimLoop(self.env)) as runner:
            return runner.run(start())

    def times(self, kind: str) -> list[float]:
        return [row[0] for row in self.log.of(kind)]


def device(number: int) -> DeviceIdentity:
    return DeviceIdentity(DeviceKind.NAA, f"6000{number:04x}")


def request(tag: str, *units: str, fence_timeout_s: float = 7.0) -> GroupSnapshotRequest:
    return GroupSnapshotRequest(units or ("u0",), tag, fence_timeout_s)


async def outcome(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except DriverError as error:
        return error


def test_it_is_an_array_driver_with_the_capabilities_of_its_profile() -> None:
    array = Lab(profile="cow-hybrid", units_per_group=3).array
    assert isinstance(array, ArrayDriver)
    assert array.capabilities.method is SnapshotMethod.COPY_ON_WRITE
    assert array.capabilities.atomic_groups
    assert array.capabilities.units_per_group == 3
    assert array.capabilities.snapshots_per_unit == 96
    assert array.capabilities.group_operations == 2


def test_resolve_leaves_devices_of_others_out() -> None:
    lab = Lab()
    found = lab.run(lambda array: array.resolve([device(2), device(77), device(0)]))
    assert found == {device(2): lab.units[2], device(0): lab.units[0]}


def test_all_units_are_cut_at_one_instant_while_writes_are_held() -> None:
    lab = Lab(steady=False)
    taken: GroupSnapshot = lab.run(lambda a: a.snapshot_group(request("t", "u2", "u0", "u2")))
    assert taken.unit_ids == ("u2", "u0")
    assert taken.ref.tag == "t"
    assert [row[1] for row in lab.log.rows] == [
        ArrayEvent.FENCED,
        ArrayEvent.CUT,
        ArrayEvent.UNFENCED,
        ArrayEvent.COMPLETED,
    ]
    fenced, cut, unfenced = (row[0] for row in lab.log.rows[:3])
    assert fenced < cut < unfenced
    assert {row[4] for row in lab.log.rows[:3]} == {"u2 u0"}
    assert {row[3] for row in lab.log.rows} == {"arr"}
    assert taken.cut_s == cut
    assert taken.fence is not None
    assert taken.fence.exact
    assert (taken.fence.start_s, taken.fence.end_s) == (fenced, pytest.approx(unfenced))
    assert lab.array.in_flight == 0
    assert [lab.array.pool.snapshots_of(unit.id) for unit in lab.units] == [1, 0, 1, 0]


def test_writes_are_released_at_the_fence_timeout_and_nothing_is_left() -> None:
    lab = Lab(fence_base=1.0, fence_per_unit=1.5)

    async def main(array: ModelArray) -> Any:
        error = await outcome(array.snapshot_group(request("t", "u0", "u1", fence_timeout_s=3.0)))
        return error, await array.list_snapshots(""), await array.snapshot_group(request("t", "u0"))

    error, listed, again = lab.run(main)
    assert type(error) is DidNotHappenError
    assert "3 s" in str(error)
    fenced, released = lab.times(ArrayEvent.FENCED)[0], lab.times(ArrayEvent.UNFENCED)[0]
    assert released - fenced == pytest.approx(3.0)
    assert len(lab.times(ArrayEvent.CUT)) == 1
    assert len(lab.times(ArrayEvent.ABORTED)) == 1
    assert listed == []
    assert again.unit_ids == ("u0",)
    assert lab.array.pool.snapshots_of("u1") == 0


def test_the_array_grants_no_longer_fence_than_its_own_limit() -> None:
    lab = Lab(fence_base=6.0, fence_timeout_max=5.0)
    error = lab.run(lambda a: outcome(a.snapshot_group(request("t", fence_timeout_s=60.0))))
    assert type(error) is DidNotHappenError
    assert lab.times(ArrayEvent.UNFENCED)[0] - lab.times(ArrayEvent.FENCED)[0] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("first", "second", "at_once", "busy"),
    [
        (("u0", "u1"), ("u1", "u2"), 5, True),
        (("u0", "u1"), ("u2", "u3"), 5, False),
        (("u0", "u1"), ("u2", "u3"), 1, True),
    ],
)
def test_one_group_operation_at_a_time_on_a_unit_and_few_on_an_array(
    first: tuple[str, ...], second: tuple[str, ...], at_once: int, busy: bool
) -> None:
    lab = Lab(group_operations=at_once)

    async def main(array: ModelArray) -> Any:
        both = await asyncio.gather(
            outcome(array.snapshot_group(request("a", *first))),
            outcome(array.snapshot_group(request("b", *second))),
        )
        return both, await array.snapshot_group(request("b", *second))

    (one, two), later = lab.run(main)
    assert isinstance(one, GroupSnapshot)
    assert isinstance(two, BusyError if busy else GroupSnapshot)
    if busy:
        assert two.retry_after_s == 2.0
    assert later.unit_ids == second


def test_the_tag_makes_a_repeated_call_harmless() -> None:
    lab = Lab()

    async def main(array: ModelArray) -> Any:
        first = await array.snapshot_group(request("t", "u0", "u1"))
        same = await array.snapshot_group(request("t", "u1", "u0"))
        other = await outcome(array.snapshot_group(request("t", "u0")))
        return first, same, other

    first, same, other = lab.run(main)
    assert same is first
    assert isinstance(other, NeverWillError)
    assert len(lab.times(ArrayEvent.CUT)) == 1


def test_a_tag_whose_snapshot_is_being_made_is_busy() -> None:
    lab = Lab()

    async def main(array: ModelArray) -> Any:
        return await asyncio.gather(
            *(outcome(array.snapshot_group(request("t", unit))) for unit in ("u0", "u1"))
        )

    one, two = lab.run(main)
    assert isinstance(one, GroupSnapshot)
    assert isinstance(two, BusyError)


def test_limits_and_nonsense_are_refused_for_good() -> None:
    lab = Lab(units_per_group=2, snapshots_per_unit=2)

    async def main(array: ModelArray) -> Any:
        for tag in ("a", "b"):
            await array.snapshot_group(request(tag, "u0"))
        return [
            await outcome(array.snapshot_group(GroupSnapshotRequest((), "x", 7.0))),
            await outcome(array.snapshot_group(request("x", "u1", "elsewhere"))),
            await outcome(array.snapshot_group(request("x", "u1", "u2", "u3"))),
            await outcome(array.snapshot_group(request("x", "u0", "u1"))),
        ]

    errors = lab.run(main)
    assert all(type(error) is NeverWillError for error in errors)
    for error, word in zip(errors, ("no unit", "elsewhere", "takes 2", "carries 2"), strict=True):
        assert word in str(error)
    assert len(lab.times(ArrayEvent.FENCED)) == 2


def test_a_pool_with_too_little_free_refuses_new_snapshots_until_space_is_reclaimed() -> None:
    lab = Lab(
        FreshWrites(10 * MB),
        pool_bytes=1000 * MB,
        pool_minimum_free=0.5,
        reclaim_bandwidth=100 * MB,
    )

    async def main(array: ModelArray) -> Any:
        first = await array.snapshot_group(request("a"))
        await asyncio.sleep(60)
        refused = await outcome(array.snapshot_group(request("b")))
        await array.delete_snapshot(first.ref)
        still = await outcome(array.snapshot_group(request("c")))
        await asyncio.sleep(5)
        return refused, still, await array.snapshot_group(request("d"))

    refused, still, later = lab.run(main)
    assert isinstance(refused, PoolFullError)
    assert isinstance(still, PoolFullError)
    assert isinstance(later, GroupSnapshot)


def test_a_caller_that_stops_waiting_stops_nothing() -> None:
    lab = Lab(snapshot_base=30.0)

    async def main(array: ModelArray) -> Any:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(array.snapshot_group(request("job/t")), 1.0)
        early = await array.list_snapshots("job/")
        flying = array.in_flight
        await asyncio.sleep(60)
        return early, flying, await array.list_snapshots("job/"), array.in_flight

    early, flying, late, after = lab.run(main)
    assert early == []
    assert (flying, after) == (1, 0)
    assert [snapshot.ref.tag for snapshot in late] == ["job/t"]


def test_a_lost_answer_leaves_the_operation_running() -> None:
    lab = Lab(lost_answer_probability=1.0)

    async def main(array: ModelArray) -> Any:
        made = await outcome(array.snapshot_group(request("t")))
        early = await array.list_snapshots("t")
        await asyncio.sleep(5)
        (found,) = await array.list_snapshots("t")
        deleted = await outcome(array.delete_snapshot(found.ref))
        await asyncio.sleep(5)
        return made, early, deleted, await array.list_snapshots("t")

    made, early, deleted, left = lab.run(main)
    assert isinstance(made, UnknownOutcomeError)
    assert isinstance(deleted, UnknownOutcomeError)
    assert early == left == []
    assert lab.array.in_flight == 0


def test_busy_faults_come_with_their_probability() -> None:
    lab = Lab(busy_probability=0.3)

    async def main(array: ModelArray) -> Any:
        return [await outcome(array.snapshot_group(request(f"t{n}"))) for n in range(300)]

    errors = [result for result in lab.run(main) if isinstance(result, BusyError)]
    assert 60 < len(errors) < 120


def test_listing_is_by_prefix_and_oldest_first() -> None:
    lab = Lab()

    async def main(array: ModelArray) -> Any:
        for tag in ("j1/b", "j2/a", "j1/a"):
            await array.snapshot_group(request(tag))
        return [snapshot.ref.tag for snapshot in await array.list_snapshots("j1/")]

    assert lab.run(main) == ["j1/b", "j1/a"]


def test_deleting() -> None:
    lab = Lab(delete_latency=10.0, management_calls=4)

    async def main(array: ModelArray) -> Any:
        taken = await array.snapshot_group(request("t"))
        foreign = GroupSnapshotRef("other", taken.ref.snapshot_id, "t")
        results = await asyncio.gather(
            outcome(array.delete_snapshot(taken.ref)),
            outcome(array.delete_snapshot(taken.ref)),
            outcome(array.snapshot_group(request("t"))),
            outcome(array.delete_snapshot(foreign)),
        )
        again = await outcome(array.delete_snapshot(taken.ref))
        return *results, again, await array.list_snapshots("")

    first, second, remade, foreign, again, left = lab.run(main)
    assert first is None
    assert isinstance(second, BusyError)
    assert isinstance(remade, BusyError)
    assert isinstance(foreign, NotFoundError)
    assert isinstance(again, NotFoundError)
    assert left == []
    assert lab.array.pool.snapshots == 0
    assert len(lab.times(ArrayEvent.DELETED)) == 1


def test_deleting_frees_space_over_time() -> None:
    lab = Lab(FreshWrites(MB), reclaim_bandwidth=10 * MB, delete_latency=0.0)

    async def main(array: ModelArray) -> Any:
        taken = await array.snapshot_group(request("t"))
        await asyncio.sleep(200)
        before = array.pool.used_bytes
        await array.delete_snapshot(taken.ref)
        await asyncio.sleep(10)
        middle = array.pool.used_bytes
        await asyncio.sleep(20)
        return before, middle, array.pool.used_bytes

    before, middle, after = lab.run(main)
    assert before == pytest.approx(200 * MB, rel=0.01)
    assert before - middle == pytest.approx(100 * MB, rel=0.01)
    assert after == 0.0
    assert list(lab.series.of(Quantity.POOL_USED_BYTES, "arr"))[-1][1] == 0.0
    assert list(lab.series.of(Quantity.ARRAY_SNAPSHOTS, "arr"))[-1][1] == 0.0


def test_a_full_pool_takes_the_oldest_snapshots_out_of_the_list() -> None:
    lab = Lab(
        FreshWrites(MB),
        pool_bytes=100 * MB,
        on_pool_full=PoolFullPolicy.INVALIDATE_SNAPSHOTS,
    )

    async def main(array: ModelArray) -> Any:
        first = await array.snapshot_group(request("old"))
        await asyncio.sleep(50)
        await array.snapshot_group(request("new"))
        await asyncio.sleep(60)
        return await array.list_snapshots(""), await outcome(array.delete_snapshot(first.ref))

    listed, deleted = lab.run(main)
    assert [snapshot.ref.tag for snapshot in listed] == ["new"]
    assert isinstance(deleted, NotFoundError)
    (row,) = lab.log.of(ArrayEvent.INVALIDATED)
    assert row[0] == pytest.approx(lab.times(ArrayEvent.CUT)[0] + 100.0, abs=0.1)
    assert row[4] == "old"


def test_a_snapshot_given_up_before_it_was_complete_is_never_reported() -> None:
    lab = Lab(
        FreshWrites(MB),
        pool_bytes=10 * MB,
        on_pool_full=PoolFullPolicy.INVALIDATE_SNAPSHOTS,
        snapshot_per_unit=30.0,
    )

    async def main(array: ModelArray) -> Any:
        return await outcome(array.snapshot_group(request("t"))), await array.list_snapshots("")

    error, listed = lab.run(main)
    assert isinstance(error, PoolFullError)
    assert listed == []
    assert lab.array.pool.snapshots == 0


def test_a_snapshot_given_up_while_it_is_being_deleted_is_not_found() -> None:
    lab = Lab(
        FreshWrites(MB),
        pool_bytes=10 * MB,
        on_pool_full=PoolFullPolicy.INVALIDATE_SNAPSHOTS,
        delete_latency=30.0,
    )

    async def main(array: ModelArray) -> Any:
        taken = await array.snapshot_group(request("t"))
        return await outcome(array.delete_snapshot(taken.ref))

    assert isinstance(lab.run(main), NotFoundError)
    assert not lab.log.of(ArrayEvent.DELETED)
    assert lab.array.in_flight == 0


def test_a_full_pool_that_fails_writes_keeps_its_snapshots() -> None:
    lab = Lab(
        FreshWrites(MB),
        pool_bytes=100 * MB,
        pool_minimum_free=0.0,
        on_pool_full=PoolFullPolicy.FAIL_WRITES,
    )

    async def main(array: ModelArray) -> Any:
        taken = await array.snapshot_group(request("t"))
        await asyncio.sleep(150)
        failing = array.writes_failing
        listed = await array.list_snapshots("")
        refused = await outcome(array.snapshot_group(request("x")))
        await array.delete_snapshot(taken.ref)
        await asyncio.sleep(10)
        return failing, len(listed), refused, array.writes_failing

    failing, listed, refused, after = lab.run(main)
    assert (failing, listed, after) == (True, 1, False)
    assert isinstance(refused, PoolFullError)
    assert len(lab.times(ArrayEvent.WRITES_FAIL)) == len(lab.times(ArrayEvent.WRITES_RESUME)) == 1


def merge_s(method: str, work_bytes: float = 1000 * MB) -> tuple[float, float]:
    """How long a merge takes while a snapshot of the unit is open, and the background meanwhile."""
    lab = Lab(FreshWrites(5 * MB), method=method, io_bandwidth=100 * MB, flow_bandwidth=None)

    async def main(array: ModelArray) -> tuple[float, float]:
        await array.snapshot_group(request("t", "u0", "u1", "u2", "u3"))
        start_s, done = lab.env.now, asyncio.get_running_loop().create_future()
        array.io.submit(work_bytes, lambda: done.set_result(None))
        await done
        return lab.env.now - start_s, array.io.background_bytes_per_s

    measured: tuple[float, float] = lab.run(main)
    return measured


def test_copy_on_write_pays_three_times_and_merges_slowly_redirect_on_write_does_not() -> None:
    # 4 units x 5 MB/s of guest writes, every one a first overwrite, on 100 MB/s.
    assert merge_s("redirect-on-write") == (pytest.approx(1000 / 80), pytest.approx(20 * MB))
    assert merge_s("copy-on-write") == (pytest.approx(1000 / 40), pytest.approx(60 * MB))


def test_without_snapshots_copy_on_write_pays_for_guest_writes_only() -> None:
    lab = Lab(FreshWrites(5 * MB), method="copy-on-write")
    lab.array.refresh_load()
    assert lab.array.io.background_bytes_per_s == pytest.approx(20 * MB)

    async def main(array: ModelArray) -> Any:
        taken = await array.snapshot_group(request("t", "u0"))
        during = array.io.background_bytes_per_s
        await array.delete_snapshot(taken.ref)
        return during, array.io.background_bytes_per_s

    during, after = lab.run(main)
    assert during == pytest.approx(30 * MB)
    assert after == pytest.approx(20 * MB)
    assert max(value for _, value in lab.series.of(Quantity.ARRAY_COPY_BYTES_PER_S, "arr")) == (
        pytest.approx(10 * MB)
    )


def test_the_guests_write_rate_is_asked_for_once_per_interval() -> None:
    class Counting(FreshWrites):
        asked = 0

        def write_rate_bytes_per_s(self, unit_id: str, start_s: float, end_s: float) -> float:
            self.asked += 1
            return super().write_rate_bytes_per_s(unit_id, start_s, end_s)

    model = Counting(MB)
    lab = Lab(model, load_interval=300.0)
    for _ in range(100):
        lab.array.refresh_load()
    assert model.asked == 4
    lab.env.run(until=301.0)
    lab.array.refresh_load()
    assert model.asked == 8


def test_the_management_channel_serves_first_come_first_served() -> None:
    lab = Lab(management_calls=2, management_latency=1.0)

    async def main(array: ModelArray) -> Any:
        ends: list[tuple[int, float]] = []

        async def call(number: int) -> None:
            await array.list_snapshots("")
            ends.append((number, lab.env.now))

        await asyncio.gather(*(call(number) for number in range(5)))
        return ends

    assert lab.run(main) == [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0), (4, 3.0)]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32),
    st.lists(
        st.tuples(
            st.sampled_from(["snapshot", "delete", "abandon"]),
            st.integers(0, 5),
            st.sets(st.integers(0, 3), min_size=1),
            st.floats(0.0, 20.0),
        ),
        max_size=15,
    ),
)
def test_any_history_keeps_list_log_and_pool_in_step_and_repeats_exactly(
    seed: int, calls: list[tuple[str, int, set[int], float]]
) -> None:
    def run() -> tuple[str, Lab]:
        lab = Lab(
            FreshWrites(MB),
            seed=seed,
            steady=False,
            pool_bytes=100 * MB,
            on_pool_full=PoolFullPolicy.INVALIDATE_SNAPSHOTS,
            busy_probability=0.1,
            lost_answer_probability=0.2,
        )

        async def one(array: ModelArray, what: str, tag: str, units: tuple[str, ...]) -> None:
            if what == "delete":
                for snapshot in await array.list_snapshots(tag):
                    await outcome(array.delete_snapshot(snapshot.ref))
            elif what == "abandon":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(outcome(array.snapshot_group(request(tag, *units))), 0.5)
            else:
                await outcome(array.snapshot_group(request(tag, *units)))

        async def main(array: ModelArray) -> list[GroupSnapshot]:
            async with asyncio.TaskGroup() as tasks:
                for what, tag, units, pause_s in calls:
                    names = tuple(f"u{n}" for n in sorted(units))
                    tasks.create_task(one(array, what, f"tag-{tag}", names))
                    await asyncio.sleep(pause_s)
            await asyncio.sleep(30)
            assert array.in_flight == 0
            return await array.list_snapshots("")

        listed: list[GroupSnapshot] = lab.run(main)
        lives = [(r[4], 1) for r in lab.log.of(ArrayEvent.COMPLETED)]
        gone = len(lab.log.of(ArrayEvent.DELETED, ArrayEvent.INVALIDATED))
        given_up_early = lab.array.pool.snapshots - (len(lives) - gone)
        # Only a snapshot given up between cut and completion is gone without having been complete.
        assert given_up_early >= 0
        assert len(listed) == lab.array.pool.snapshots
        assert len({snapshot.ref.tag for snapshot in listed}) == len(listed)
        fenced, unfenced = lab.times(ArrayEvent.FENCED), lab.times(ArrayEvent.UNFENCED)
        assert len(fenced) == len(unfenced)
        for unit in lab.units:
            carried = sum(unit.id in snapshot.unit_ids for snapshot in listed)
            assert lab.array.pool.snapshots_of(unit.id) == carried
        return lab.log.trace_hash(), lab

    first, lab = run()
    second, again = run()
    assert first == second
    assert lab.series.rows == again.series.rows


def test_another_seed_takes_other_times() -> None:
    def fence(seed: int) -> float:
        taken = Lab(seed=seed, steady=False).run(lambda a: a.snapshot_group(request("t")))
        assert taken.fence is not None
        return float(taken.fence.duration_s)

    assert fence(1) == fence(1)
    assert fence(1) != fence(2)


@pytest.mark.parametrize("name", ARRAY_PROFILES)
def test_shipped_profiles_are_valid_and_name_a_source_or_inference(name: str) -> None:
    profile = ARRAY_PROFILES[name]
    assert ArrayProfile.model_validate(profile.model_dump()) == profile
    assert profile.sources.keys() <= ArrayProfile.model_fields.keys()
    assert profile.source_of("retry_after") == "inference"
    assert "set in the configuration" not in profile.sources.values()
    with pytest.raises(KeyError):
        profile.source_of("colour")


def test_a_profile_is_a_start_that_fields_override() -> None:
    text = {"profile": "cow-hybrid", "snapshots_per_unit": 4, "fence_base": "250 ms"}
    profile = ArrayProfile.model_validate(text)
    assert profile.method is SnapshotMethod.COPY_ON_WRITE
    assert (profile.snapshots_per_unit, profile.fence_base) == (4, 0.25)
    assert profile.source_of("snapshots_per_unit") == "set in the configuration"
    assert "E-Series" in profile.source_of("on_pool_full")
    assert profile.io_bandwidth == ARRAY_PROFILES["cow-hybrid"].io_bandwidth


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"profile": "nobody"}, "cow-hybrid"),
        ({"method": "unknown"}, "cannot be modelled"),
        ({"color": 1}, "color"),
        ({"snapshot_extent": "0 B"}, "snapshot_extent"),
        ({"fence_base": "3 lightyears"}, "lightyears"),
        ({"busy_probability": 1.5}, "busy_probability"),
    ],
)
def test_bad_profiles_are_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        ArrayProfile.model_validate(values)
