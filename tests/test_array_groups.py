"""The modelled array cuts groups of units at one instant, within fences and limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support_array import Lab, device, outcome, request

from stillframe.drivers.contracts import (
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRequest,
    SnapshotMethod,
)
from stillframe.drivers.errors import BusyError, DidNotHappenError, NeverWillError
from stillframe.sim.array import ModelArray
from stillframe.sim.array_calls import ArrayEvent


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
