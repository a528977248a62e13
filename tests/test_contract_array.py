"""What every array driver owes the orchestrator: one body, run against each that ships.

The arms are in support_contract_array. One test is about the arms themselves: units that are cut
one after the other come out torn, so the test that finds no torn group could have found one.
"""

from __future__ import annotations

import asyncio
from itertools import permutations

import pytest
from support_array_pairs import PairWriter
from support_contract_array import ArrayArm, Run, read_block, run, write_block

from stillframe.drivers.contracts import (
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    ReadableArrayDriver,
    SnapshotMethod,
)
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    NeverWillError,
    NotFoundError,
)
from stillframe.drivers.records import DeviceIdentity

__all__ = ["run"]  # a fixture
CUTS = 6
PAIRS_BETWEEN_CUTS = 3


def test_it_says_what_it_can_do(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        assert isinstance(arm.driver, ArrayDriver)
        able = arm.driver.capabilities
        assert able.method in SnapshotMethod
        assert able.atomic_groups
        readable = isinstance(arm.driver, ReadableArrayDriver)
        assert (able.reads_back, able.clones) == (readable, readable)

    run(check)


def test_it_knows_its_own_units_and_leaves_out_others(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        own = {device: unit for unit in arm.units for device in unit.devices}
        foreign = [
            DeviceIdentity.parse(text)
            for text in ("naa.6000000000000099", "file./nowhere/unit-0.dev", "filer:/export/a")
        ]
        known = await arm.driver.resolve([*foreign, *own])
        assert dict(known) == own
        assert len({unit.id for unit in known.values()}) == 3
        assert len({unit.array_id for unit in known.values()}) == 1
        assert await arm.driver.resolve([]) == {}

    run(check)


@pytest.mark.parametrize("numbers", [(0,), (2, 0), (0, 1, 2)])
def test_a_group_holds_its_units_and_no_other(run: Run, numbers: tuple[int, ...]) -> None:
    async def check(arm: ArrayArm) -> None:
        clock = asyncio.get_running_loop().time
        before_s = clock()
        made = await arm.cut("subset", *numbers)
        wanted = {arm.units[number].id for number in numbers}
        assert set(made.unit_ids) == wanted
        assert made.ref.tag == "subset"
        if made.cut_s is not None:
            assert before_s <= made.cut_s <= clock()
        if made.fence is not None:
            assert before_s <= made.fence.start_s <= made.fence.end_s <= clock()
        (listed,) = await arm.driver.list_snapshots("")
        assert (listed.ref, set(listed.unit_ids)) == (made.ref, wanted)
        others = {unit.id for unit in arm.units} - wanted
        if arm.places is not None:
            for other in others:
                with pytest.raises((NotFoundError, NeverWillError)):
                    await arm.readable.read_back(made.ref, other, 0, 4096)

    run(check)


def test_what_a_snapshot_holds_stays_as_it_was_at_the_cut(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        assert arm.readable
        for number in (0, 1):
            for block in (0, 7):
                await arm.write(number, block, 10 + number)
        made = await arm.cut("kept", 0, 1)
        for value in (20, 30):
            for number in (0, 1):
                await arm.write(number, 7, value)
        for number in (0, 1):
            held = [await arm.held(made.ref, number, block) for block in (0, 7)]
            assert held == [10 + number, 10 + number]
            assert [await arm.live(number, block) for block in (0, 7)] == [10 + number, 30]

    run(check)


def test_a_unit_that_does_not_exist_spoils_the_whole_group(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        first = arm.units[0]
        for nobody in (f"{first.array_id}/unit-99", "elsewhere/unit-0"):
            request = GroupSnapshotRequest((first.id, nobody), "spoilt", 30.0)
            with pytest.raises((NeverWillError, NotFoundError)):
                await arm.driver.snapshot_group(request)
        with pytest.raises((NeverWillError, NotFoundError)):
            await arm.driver.snapshot_group(GroupSnapshotRequest((), "spoilt", 30.0))
        assert await arm.tags() == []

    run(check)


def test_a_tag_names_one_snapshot(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        made = await arm.cut("twice", 0, 1)
        again = await arm.cut("twice", 1, 0)
        assert again.ref == made.ref
        assert set(again.unit_ids) == set(made.unit_ids)
        with pytest.raises((NeverWillError, DidNotHappenError)):
            await arm.cut("twice", 2)
        (listed,) = await arm.driver.list_snapshots("")
        assert set(listed.unit_ids) == set(made.unit_ids)

    run(check)


def test_a_tag_may_be_used_again_when_its_snapshot_is_gone(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        made = await arm.cut("again", 0)
        await arm.driver.delete_snapshot(made.ref)
        other = await arm.cut("again", 0, 1)
        assert other.ref != made.ref
        with pytest.raises(NotFoundError):
            await arm.driver.delete_snapshot(made.ref)
        assert await arm.tags() == ["again"]

    run(check)


def test_a_tag_may_hold_any_characters_that_ours_hold(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        tag = "sf-job.1_a:b-2026-01-02T03:04:05Z"
        made = await arm.cut(tag, 0)
        assert await arm.tags(tag) == [tag]
        await arm.driver.delete_snapshot(made.ref)

    run(check)


def test_snapshots_are_listed_by_the_beginning_of_their_tag(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        for tag in ("job-1", "job-2", "other"):
            await arm.cut(tag, 0)
        assert await arm.tags("job-") == ["job-1", "job-2"]
        assert await arm.tags("nothing") == []
        assert len(await arm.tags()) == 3

    run(check)


def test_a_deleted_snapshot_is_not_found_again(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        made = await arm.cut("gone", 0, 1)
        await arm.driver.delete_snapshot(made.ref)
        assert await arm.tags() == []
        with pytest.raises(NotFoundError):
            await arm.driver.delete_snapshot(made.ref)
        never = GroupSnapshotRef(made.ref.array_id, "never", "never")
        with pytest.raises(NotFoundError):
            await arm.driver.delete_snapshot(never)
        if arm.places is not None:
            with pytest.raises(NotFoundError):
                await arm.readable.read_back(made.ref, arm.units[0].id, 0, 4096)
            with pytest.raises(NotFoundError):
                await arm.readable.clone(made.ref, arm.units[0].id, "of-nothing")

    run(check)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_deleting_one_leaves_what_the_others_hold(run: Run, order: tuple[int, ...]) -> None:
    async def check(arm: ArrayArm) -> None:
        assert arm.readable
        made: list[GroupSnapshot] = []
        for number in range(3):
            await arm.write(0, 0, 100 + number)  # overwritten in each
            await arm.write(1, number, 200 + number)  # written once, between two of them
            made.append(await arm.cut(f"s{number}", 0, 1))
        await arm.write(0, 0, 103)
        first = [[await arm.held(one.ref, 1, block) for block in range(3)] for one in made]
        left = list(range(3))
        for gone in order:
            await arm.driver.delete_snapshot(made[gone].ref)
            left.remove(gone)
            assert await arm.tags() == [f"s{number}" for number in left]
            for number in left:
                assert await arm.held(made[number].ref, 0, 0) == 100 + number
                held = [await arm.held(made[number].ref, 1, block) for block in range(3)]
                assert held == first[number]
                assert held[number] == 200 + number
            assert await arm.live(0, 0) == 103
            assert [await arm.live(1, block) for block in range(3)] == [200, 201, 202]

    run(check)


def test_a_clone_is_writable_and_touches_nothing_else(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        assert arm.readable
        await arm.write(0, 0, 1)
        made = await arm.cut("parent", 0)
        await arm.write(0, 0, 2)
        _, place = await arm.clone(made.ref, 0, "first")
        other_id, other = await arm.clone(made.ref, 0, "second")
        assert await asyncio.to_thread(read_block, place.file, place.offset_bytes) == 1
        assert place.offset_bytes % 4096 == 0
        await asyncio.to_thread(write_block, place.file, place.offset_bytes // 4096, 3)
        assert await asyncio.to_thread(read_block, place.file, place.offset_bytes) == 3
        assert await asyncio.to_thread(read_block, other.file, other.offset_bytes) == 1
        assert await arm.held(made.ref, 0, 0) == 1
        assert await arm.live(0, 0) == 2
        await arm.readable.discard(other_id)
        assert not other.file.exists()
        with pytest.raises(NotFoundError):
            await arm.readable.discard(other_id)
        for nothing in (arm.units[0].id, "elsewhere/clones/first"):
            with pytest.raises(NotFoundError):
                await arm.readable.discard(nothing)
        assert await asyncio.to_thread(read_block, place.file, place.offset_bytes) == 3
        assert await arm.live(0, 0) == 2

    run(check)


def test_a_clone_outlives_deletions_around_it(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        assert arm.readable
        made = []
        for number in range(3):
            await arm.write(0, number, 50 + number)
            made.append(await arm.cut(f"s{number}", 0))
        clone_id, place = await arm.clone(made[1].ref, 0, "between")
        for number in (0, 2):
            await arm.driver.delete_snapshot(made[number].ref)
        start = place.offset_bytes
        for block in (0, 1):
            held = await asyncio.to_thread(read_block, place.file, start + 4096 * block)
            assert held == 50 + block
        try:
            await arm.driver.delete_snapshot(made[1].ref)
        except BusyError:
            assert await arm.tags() == ["s1"]
            assert await arm.held(made[1].ref, 0, 1) == 51
        assert await asyncio.to_thread(read_block, place.file, start + 4096) == 51
        await arm.readable.discard(clone_id)
        assert [await arm.live(0, block) for block in range(3)] == [50, 51, 52]

    run(check)


def test_a_second_driver_sees_the_same(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        made = await arm.cut("shared", 0, 1)
        async with arm.reopen() as other:
            (listed,) = await other.list_snapshots("")
            assert (listed.ref, set(listed.unit_ids)) == (made.ref, set(made.unit_ids))
            devices = [device for unit in arm.units for device in unit.devices]
            assert dict(await other.resolve(devices)) == dict(await arm.driver.resolve(devices))
            again = await other.snapshot_group(GroupSnapshotRequest(made.unit_ids, "shared", 30.0))
            assert again.ref == made.ref
            await other.delete_snapshot(listed.ref)
        assert await arm.tags() == []
        with pytest.raises(NotFoundError):
            await arm.driver.delete_snapshot(made.ref)

    run(check)


def test_calls_at_once_are_made_whole_or_refused(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        groups = {"c0": (0, 1), "c1": (1, 2), "c2": (2,), "c3": (0, 1, 2)}
        answers = await asyncio.gather(
            *(arm.cut(tag, *numbers) for tag, numbers in groups.items()), return_exceptions=True
        )
        made = {one.ref.tag: one for one in answers if isinstance(one, GroupSnapshot)}
        assert made
        refused = [one for one in answers if not isinstance(one, GroupSnapshot)]
        assert all(isinstance(one, BusyError) for one in refused)
        for tag, one in made.items():
            assert set(one.unit_ids) == {arm.units[number].id for number in groups[tag]}
        assert sorted(await arm.tags()) == sorted(made)

    run(check)


def test_one_tag_asked_for_twice_at_once_is_made_once(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        answers = await asyncio.gather(
            arm.cut("same", 0, 1), arm.cut("same", 0, 1), return_exceptions=True
        )
        made = {one.ref for one in answers if isinstance(one, GroupSnapshot)}
        assert len(made) == 1
        assert all(isinstance(one, GroupSnapshot | BusyError) for one in answers)
        assert await arm.tags() == ["same"]

    run(check)


def test_a_group_is_cut_at_one_point_in_time(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        assert arm.readable
        assert arm.places is not None
        async with PairWriter(arm.places[0].file, arm.places[1].file) as writer:
            for number in range(CUTS):
                await writer.pairs(PAIRS_BETWEEN_CUTS)
                acknowledged = writer.done
                made = await arm.cut(f"pair-{number}", 0, 1)
                first = await arm.held(made.ref, 0, 0)
                second = await arm.held(made.ref, 1, 0)
                assert acknowledged <= second <= first <= second + 1
                await arm.driver.delete_snapshot(made.ref)

    run(check)


def test_units_cut_one_after_the_other_are_torn_by_a_pair_of_writes(run: Run) -> None:
    async def check(arm: ArrayArm) -> None:
        assert arm.readable
        await arm.write(0, 0, 1)
        await arm.write(1, 0, 1)
        first = await arm.cut("apart-0", 0)
        await arm.write(0, 0, 2)
        await arm.write(1, 0, 2)
        second = await arm.cut("apart-1", 1)
        assert await arm.held(first.ref, 0, 0) == 1
        assert await arm.held(second.ref, 1, 0) == 2  # a later write without the one before it

    run(check)
