"""Lifecycle: group snapshots are made whole, found under their tag, and deleted for good."""

from __future__ import annotations

import math

from ...drivers.contracts import GroupSnapshotRef, GroupSnapshotRequest, Window
from ...drivers.errors import BusyError, DriverError, NeverWillError, NotFoundError
from ...drivers.records import UnitId
from ..array_bench import FENCE_TIMEOUT_S, ArrayBench
from ..requirement import Level, NotTested, Topic
from .array_common import expect_answer, group_of, largest_group, room_for, units_of
from .array_device import DEVICE_LIMIT_S, expect_on_device, on_device
from .array_sequences import walk

TOPIC: Topic[ArrayBench] = Topic("lifecycle", "ARR-LIF")

ON_DEVICE = ("snapshots_on_device",)


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall answer a group snapshot with the tag and exactly the units that were asked "
    "for, whatever their number.",
    units=3,
)
async def answers_for_the_group(bench: ArrayBench) -> None:
    for size in range(1, largest_group(bench) + 1):
        for group in (bench.units[:size], bench.units[-size:][::-1]):
            request = bench.request(*group)
            made = await bench.driver.snapshot_group(request)
            expect_answer(bench, made, request.tag, group)
            await bench.delete(made.ref)
    bench.note(sizes=list(range(1, largest_group(bench) + 1)))


@TOPIC.shall(
    2,
    Level.CORE,
    "A driver shall take a unit that one request names twice as one member of the group, or refuse "
    "the request with NeverWillError.",
    units=2,
)
async def named_twice(bench: ArrayBench) -> None:
    first, second = group_of(bench, 2)
    request = bench.request(first, second, first)
    try:
        made = await bench.driver.snapshot_group(request)
    except NeverWillError as error:
        bench.note(refused=error.reason)
        bench.expect(request.tag not in await bench.listed(), "it was refused, and is listed")
        return
    expect_answer(bench, made, request.tag, (first, second))
    held = (await bench.listed()).get(request.tag)
    bench.expect(held is not None, "a snapshot that was made is not listed")
    if held is not None:
        expect_answer(bench, held, request.tag, (first, second))


@TOPIC.shall(
    3,
    Level.CORE,
    "A driver shall have the array hold one snapshot for each unit of a group, and none beside.",
    hooks=ON_DEVICE,
    units=3,
)
async def one_for_each_unit(bench: ArrayBench) -> None:
    for size in range(1, largest_group(bench) + 1):
        before = await on_device(bench)
        made = await bench.cut(*bench.units[:size])
        new = await on_device(bench) - before
        sentence = f"a group of {size} units is {len(new)} snapshots on the array"
        bench.expect(len(new) == size, sentence, on_the_array=sorted(new))
        await bench.delete(made.ref)


@TOPIC.shall(
    4,
    Level.CORE,
    "A driver shall tell times of a snapshot that lie within the call that made it, on the loop's "
    "clock, the cut within the fence.",
    units=2,
)
async def times(bench: ArrayBench) -> None:
    start_s = bench.now_s()
    made = await bench.cut(*group_of(bench, 2))
    end_s = bench.now_s()
    told = [] if made.cut_s is None else [made.cut_s]
    if made.fence is not None:
        told += [made.fence.start_s, made.fence.end_s]
    if not told:
        raise NotTested("the driver tells no times")
    span = {"call_s": [start_s, end_s], "told_s": told}
    inside = all(start_s <= one <= end_s for one in told)
    bench.expect(inside, "a time does not lie within the call", **span)
    if made.fence is not None:
        _expect_in_fence(bench, made.fence, made.cut_s)


def _expect_in_fence(bench: ArrayBench, fence: Window, cut_s: float | None) -> None:
    length_s = fence.duration_s
    right = math.isfinite(length_s) and length_s >= 0
    bench.expect(right, f"the fence lasted {length_s} s")
    if cut_s is not None:
        inside = fence.start_s <= cut_s <= fence.end_s
        seen = {"fence_s": [fence.start_s, fence.end_s], "cut_s": cut_s}
        bench.expect(inside, "the cut does not lie within the fence", **seen)


@TOPIC.shall(
    5,
    Level.CORE,
    "A driver shall delete the snapshot that it is given and no other.",
    units=2,
)
async def deletes_one(bench: ArrayBench) -> None:
    room_for(bench, 4)
    group = group_of(bench, 2)
    made = [await bench.cut(*group) for _ in range(4)]
    left = {one.ref.tag: one.ref for one in made}
    bench.rng.shuffle(made)
    for one in made:
        await bench.driver.delete_snapshot(one.ref)
        del left[one.ref.tag]
        held = {tag: found.ref for tag, found in (await bench.listed()).items()}
        sentence = "after a deletion the listing is not what is left"
        bench.expect(held == left, sentence, listed=sorted(held), left=sorted(left))


@TOPIC.shall(
    6,
    Level.CORE,
    "A driver shall have the array give up all of a snapshot that it deletes, soon afterwards at "
    "the latest.",
    hooks=ON_DEVICE,
    units=2,
)
async def deleted_on_device(bench: ArrayBench) -> None:
    room_for(bench, 2)
    before = await on_device(bench)
    group = group_of(bench, 2)
    older, newer = await bench.cut(*group), await bench.cut(*group)
    for one in (older, newer):
        await bench.driver.delete_snapshot(one.ref)
    await expect_on_device(bench, before, "after its snapshots were deleted", DEVICE_LIMIT_S)


@TOPIC.shall(
    7,
    Level.CORE,
    "A driver shall raise NotFoundError for the deletion of a snapshot that is gone.",
)
async def deleted_twice(bench: ArrayBench) -> None:
    made = await bench.cut(bench.units[0])
    await bench.delete(made.ref)
    for _ in range(2):
        call = bench.driver.delete_snapshot(made.ref)
        await bench.refused(call, NotFoundError, doing="deleting what is gone")


@TOPIC.shall(
    8,
    Level.CORE,
    "A driver shall raise NotFoundError for the deletion of a snapshot that never was.",
)
async def deleted_never(bench: ArrayBench) -> None:
    made = await bench.cut(bench.units[0])
    ref, array_id = made.ref, made.ref.array_id
    for never in (
        GroupSnapshotRef(array_id, f"{array_id}/never", bench.tag("never")),
        GroupSnapshotRef(array_id, f"{ref.snapshot_id}0", f"{ref.tag}0"),
        GroupSnapshotRef(array_id, "", bench.tag("never")),
    ):
        call = bench.driver.delete_snapshot(never)
        await bench.refused(call, NotFoundError, doing="deleting what never was")
    held = await bench.listed()
    bench.expect(list(held) == [ref.tag], "another snapshot is deleted instead")


@TOPIC.shall(
    9,
    Level.CORE,
    "A driver shall list, answer again and delete what another connection made.",
    units=2,
)
async def other_connection(bench: ArrayBench) -> None:
    room_for(bench, 2)
    group = group_of(bench, 2)
    mine = await bench.cut(*group)
    async with bench.another_driver() as other:
        call = other.snapshot_group(bench.request(*group))
        theirs = await bench.setup(call, "a group snapshot over another connection")
        found = {one.ref.tag: one for one in await other.list_snapshots(bench.tag_prefix)}
        bench.expect(mine.ref.tag in found, "a connection does not list what another one made")
        same = (found[mine.ref.tag].ref, units_of(found[mine.ref.tag]))
        bench.expect(same == (mine.ref, units_of(mine)), "two connections list it differently")
        again = await other.snapshot_group(bench.request(*group, tag=mine.ref.tag))
        bench.expect(again.ref == mine.ref, "a tag names two snapshots on two connections")
        await other.delete_snapshot(mine.ref)
    held = await bench.listed()
    bench.expect(mine.ref.tag not in held, "it is still listed after another connection deleted it")
    bench.expect(theirs.ref.tag in held, "what a connection that is closed made is not listed")
    await bench.driver.delete_snapshot(theirs.ref)


@TOPIC.shall(
    10,
    Level.CORE,
    "A driver shall make nothing of a group of which one unit does not exist.",
    units=2,
)
async def one_unknown(bench: ArrayBench) -> None:
    first, second = group_of(bench, 2)
    tag = bench.tag("spoilt")
    for nobody in (
        f"{first.unit.array_id}/no-such-unit",
        f"{second.id}-that-is-not",
        "elsewhere/unit-0",
    ):
        await _refuse_group(bench, tag, first.id, nobody)
        await _refuse_group(bench, tag, nobody, second.id)
    held = await bench.listed()
    bench.expect(not held, "a group that was refused is listed", tags=sorted(held))
    made = await bench.driver.snapshot_group(bench.request(first, second, tag=tag))
    expect_answer(bench, made, tag, (first, second))


async def _refuse_group(bench: ArrayBench, tag: str, *unit_ids: UnitId) -> None:
    call = bench.driver.snapshot_group(GroupSnapshotRequest(unit_ids, tag, FENCE_TIMEOUT_S))
    doing = f"a snapshot of {', '.join(unit_ids)}"
    await bench.refused(call, DriverError, doing=doing)


@TOPIC.shall(
    11,
    Level.CORE,
    "A driver shall leave no snapshot of any unit on the array when it refuses a group because "
    "one unit does not exist.",
    hooks=ON_DEVICE,
    units=2,
)
async def unknown_leaves_nothing(bench: ArrayBench) -> None:
    first, second = group_of(bench, 2)
    before = await on_device(bench)
    for tag in (bench.tag("spoilt"), bench.tag("spoilt")):
        nobody = f"{first.unit.array_id}/no-such-unit"
        await _refuse_group(bench, tag, first.id, second.id, nobody)
    await expect_on_device(bench, before, "after a group was refused", DEVICE_LIMIT_S)


@TOPIC.shall(
    12,
    Level.CORE,
    "A driver shall leave neither a snapshot on the array nor a tag in use when one unit of a "
    "group cannot be snapshotted.",
    hooks=("failing_unit", *ON_DEVICE),
    units=3,
)
async def failing_member(bench: ArrayBench) -> None:
    group = group_of(bench, 3)
    before, tag = await on_device(bench), bench.tag("failed")
    for bad in group:
        async with bench.target.failing_unit(bad.scratch):
            request = bench.request(*group, tag=tag)
            call = bench.driver.snapshot_group(request)
            doing = f"a group in which {bad.id} cannot be snapshotted"
            await bench.refused(call, DriverError, doing=doing)
            await expect_on_device(bench, before, "after a group failed", DEVICE_LIMIT_S)
            held = await bench.listed()
            bench.expect(tag not in held, "a group that failed is listed")
    made = await bench.driver.snapshot_group(bench.request(*group, tag=tag))
    expect_answer(bench, made, tag, group)


@TOPIC.shall(
    13,
    Level.CORE,
    "A driver shall leave the snapshots of others on its units alone.",
    hooks=("foreign_snapshot", *ON_DEVICE),
    units=2,
)
async def foreign(bench: ArrayBench) -> None:
    room_for(bench, 3)
    group = group_of(bench, 2)
    own = await bench.cut(*group)
    async with bench.target.foreign_snapshot(group[0].scratch) as name:
        later = await bench.cut(*group)
        held = await bench.listed()
        bench.expect(
            set(held) == {own.ref.tag, later.ref.tag},
            "beside the kit's snapshots it lists others under the kit's prefix",
            tags=sorted(held),
        )
        for one in (own, later):
            await bench.delete(one.ref)
            there = name in await on_device(bench)
            bench.expect(there, "a snapshot that somebody else made is gone", name=name)


@TOPIC.shall(
    14,
    Level.CORE,
    "A driver shall refuse with BusyError the deletion of a snapshot that a clone keeps, leaving "
    "all of it, or delete it and leave the clone.",
    capability="clones",
    units=2,
)
async def kept_by_a_clone(bench: ArrayBench) -> None:
    group = group_of(bench, 2)
    made = await bench.cut(*group)
    clone = await bench.clone(made.ref, group[0], "keeps")
    try:
        await bench.driver.delete_snapshot(made.ref)
    except BusyError as error:
        bench.note(deletion=f"refused: {error.reason}")
        held = await bench.listed()
        bench.expect(made.ref.tag in held, "a deletion was refused, and the snapshot is gone")
        expect_answer(bench, held[made.ref.tag], made.ref.tag, group)
        await bench.readable.discard(clone.id)
        await bench.driver.delete_snapshot(made.ref)
    else:
        bench.note(deletion="done")
        await bench.readable.discard(clone.id)
    held = await bench.listed()
    bench.expect(made.ref.tag not in held, "a snapshot that was deleted is listed")


@TOPIC.shall(
    15,
    Level.CORE,
    "A driver shall be right about what exists after any sequence of calls on a few tags.",
    units=3,
)
async def any_sequence(bench: ArrayBench) -> None:
    await walk(bench)
