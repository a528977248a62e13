"""The space of the modelled array: reclaimed over time, refused when short, given up when full."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support_array import MB, FreshWrites, Lab, outcome, request

from stillframe.drivers.contracts import GroupSnapshot
from stillframe.drivers.errors import NotFoundError, PoolFullError
from stillframe.sim.array import ModelArray
from stillframe.sim.array_calls import ArrayEvent
from stillframe.sim.array_profiles import PoolFullPolicy
from stillframe.sim.series import Quantity


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
