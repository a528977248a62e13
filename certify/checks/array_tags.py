"""Tags: one names at most one snapshot, so that a call may be repeated after a lost answer."""

from __future__ import annotations

from ...drivers.contracts import GroupSnapshotRef
from ...drivers.errors import DidNotHappenError, NeverWillError, NotFoundError
from ..array_bench import ArrayBench, BenchUnit
from ..requirement import Level, Topic
from .array_common import expect_answer, group_of, largest_group
from .array_device import expect_on_device, on_device

TOPIC: Topic[ArrayBench] = Topic("tags", "ARR-TAG")


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall answer the tag of a snapshot that exists with that snapshot, and make none.",
    units=2,
)
async def same_tag(bench: ArrayBench) -> None:
    group = group_of(bench, 2)
    made = await bench.cut(*group)
    for units in (group, group[::-1]):
        again = await bench.driver.snapshot_group(bench.request(*units, tag=made.ref.tag))
        bench.expect(again.ref == made.ref, "the tag now names another snapshot", got=again.ref)
        expect_answer(bench, again, made.ref.tag, group)
    held = await bench.listed()
    bench.expect(list(held) == [made.ref.tag], "there is another snapshot", tags=sorted(held))
    bench.expect(held[made.ref.tag].ref == made.ref, "the tag now names another snapshot")


@TOPIC.shall(
    2,
    Level.CORE,
    "A driver shall make nothing on the array when a tag is asked for that exists.",
    hooks=("snapshots_on_device",),
    units=2,
)
async def same_tag_on_device(bench: ArrayBench) -> None:
    group = group_of(bench, 2)
    made = await bench.cut(*group)
    before = await on_device(bench)
    request = bench.request(*group, tag=made.ref.tag)
    await bench.setup(bench.driver.snapshot_group(request), "asking for a tag again")
    await expect_on_device(bench, before, "after its tag was asked for again")


@TOPIC.shall(
    3,
    Level.CORE,
    "A driver shall refuse the tag of a snapshot for units that the snapshot lacks, and leave that "
    "snapshot as it is.",
    units=3,
)
async def tag_of_others(bench: ArrayBench) -> None:
    first, second, third = bench.units[:3]
    made = await bench.cut(first)
    others: list[tuple[BenchUnit, ...]] = [(third,)]
    if largest_group(bench) > 1:
        others.append((first, second))
    for units in others:
        call = bench.driver.snapshot_group(bench.request(*units, tag=made.ref.tag))
        doing = "a snapshot of other units under its tag"
        await bench.refused(call, NeverWillError, DidNotHappenError, doing=doing)
    held = await bench.listed()
    bench.expect(list(held) == [made.ref.tag], "the listing has changed", tags=sorted(held))
    bench.expect(held[made.ref.tag].ref == made.ref, "the tag names another snapshot")
    expect_answer(bench, held[made.ref.tag], made.ref.tag, (first,))


@TOPIC.shall(
    4,
    Level.CORE,
    "A driver shall make a new snapshot for the tag of one that was deleted, and tell the two "
    "apart.",
    units=2,
)
async def tag_again(bench: ArrayBench) -> None:
    group = group_of(bench, 2)
    refs: list[GroupSnapshotRef] = []
    tag = bench.tag("again")
    for units in (group[:1], group, group):
        made = await bench.driver.snapshot_group(bench.request(*units, tag=tag))
        expect_answer(bench, made, tag, units)
        bench.expect(made.ref not in refs, "it has the handle of the one that was deleted")
        refs.append(made.ref)
        await bench.delete(made.ref)


@TOPIC.shall(
    5,
    Level.CORE,
    "A driver shall raise NotFoundError for the deletion of an earlier snapshot of a tag that is "
    "in use again, and leave the later one.",
)
async def stale_handle(bench: ArrayBench) -> None:
    unit = bench.units[0]
    first = await bench.cut(unit)
    await bench.delete(first.ref)
    second = await bench.cut(unit, tag=first.ref.tag)
    call = bench.driver.delete_snapshot(first.ref)
    await bench.refused(call, NotFoundError, doing="deleting by the handle of an earlier snapshot")
    held = await bench.listed()
    bench.expect(second.ref.tag in held, "the later snapshot of the tag is deleted instead")
