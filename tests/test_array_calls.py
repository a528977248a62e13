"""Calls to the modelled array: late, lost, refused, listed, deleted, queued and repeatable."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_array import MB, FreshWrites, Lab, outcome, request
from support_faults import sure

from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRef
from stillframe.drivers.errors import BusyError, NotFoundError, UnknownOutcomeError
from stillframe.sim.array import ModelArray
from stillframe.sim.array_calls import ArrayEvent
from stillframe.sim.array_profiles import PoolFullPolicy


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
    lab = Lab(faults=sure("lost-answer-group", "lost-answer-delete"))

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
    lab = Lab(faults={"sites": {"array-busy": 0.3}})

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
            faults={
                "sites": {
                    "array-busy": 0.1,
                    "lost-answer-group": 0.2,
                    "lost-answer-delete": 0.2,
                    "partial-group": 0.1,
                    "fence-timeout": 0.1,
                    "delete-refused": 0.1,
                }
            },
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
