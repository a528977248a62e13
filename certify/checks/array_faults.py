"""Faults: callers that stop waiting, and answers that are lost.

A caller that stops waiting knows nothing of the outcome, and the system may complete the call
afterwards. What keeps an estate clean is that the tag tells what there is.
"""

from __future__ import annotations

from ...drivers.contracts import GroupSnapshot
from ...drivers.errors import (
    BusyError,
    DriverError,
    HappenedError,
    NotFoundError,
    UnknownOutcomeError,
)
from ..array_bench import ArrayBench
from ..array_target import BLOCK_BYTES
from ..requirement import Level, NotTested, Topic, Violation
from .array_aftermath import (
    LOOK_S,
    again,
    cut_short,
    duration_s,
    expect_more,
    expect_once,
    expect_whole,
    fresh,
    members,
    moments_s,
    needs_one,
    outcome,
    remove,
    settle,
    under,
)

TOPIC: Topic[ArrayBench] = Topic("faults: callers and answers", "ARR-FLT")

MOST_MOMENTS = 12
SLOW_S = 2.0
STOPS_AFTER_S = 0.5
"""A caller that has less patience than the system needs."""


@TOPIC.shall(
    1,
    Level.FAULT,
    "When it is called again with the tag of a group snapshot whose caller stopped waiting, a "
    "driver shall end with one whole snapshot of that tag.",
    units=2,
)
async def repeated_after_stop(bench: ArrayBench) -> None:
    units, interrupted = bench.units[:2], 0
    took_s = await duration_s(bench, *units)
    for moment_s in moments_s(bench, took_s, MOST_MOMENTS):
        before, request = await members(bench), bench.request(*units)
        interrupted += await cut_short(bench.driver.snapshot_group(request), moment_s)
        await again(bench, bench.driver, request, "that is repeated")
        found = await expect_once(
            bench, bench.driver, request, before, "after its caller stopped waiting"
        )
        await bench.delete(found.ref)
    bench.note(interrupted=interrupted)
    needs_one(interrupted, "group snapshot")


@TOPIC.shall(
    2,
    Level.FAULT,
    "A driver shall list, whole and under its tag, a group snapshot that the array completed "
    "after its caller stopped waiting.",
    hooks=("slow_calls", "snapshots_on_device"),
    units=2,
)
async def late_success_listed(bench: ArrayBench) -> None:
    units = bench.units[:2]
    before, request = await bench.target.snapshots_on_device(), bench.request(*units)
    async with bench.target.slow_calls("snapshot_group", SLOW_S):
        running = await cut_short(bench.driver.snapshot_group(request), STOPS_AFTER_S)
    needs_one(running, "group snapshot")

    async def whole_on_device() -> bool:
        return len(await bench.target.snapshots_on_device() - before) >= len(units)

    if not await bench.until(whole_on_device, SLOW_S + STOPS_AFTER_S + 5.0, LOOK_S):
        raise NotTested("the array does not complete what nobody waits for")

    async def listed() -> bool:
        return bool(await under(bench, bench.driver, request.tag))

    there = await bench.until(listed, bench.effort.call_timeout_s, LOOK_S)
    bench.expect(there, "a snapshot that the array completed late is not listed")
    (found, *_) = await under(bench, bench.driver, request.tag)
    expect_whole(bench, found, request.unit_ids, "that was completed late")


@TOPIC.shall(
    3,
    Level.FAULT,
    "A driver shall not answer a repeated call with success while the group snapshot of that tag "
    "is still being made.",
    hooks=("slow_calls",),
    units=2,
)
async def no_early_success(bench: ArrayBench) -> None:
    request = bench.request(*bench.units[:2])
    async with bench.target.slow_calls("snapshot_group", SLOW_S):
        running = await cut_short(bench.driver.snapshot_group(request), STOPS_AFTER_S)
        needs_one(running, "group snapshot")
        said = await outcome(bench.driver.snapshot_group(request))
    if isinstance(said, GroupSnapshot):
        found = await under(bench, bench.driver, request.tag)
        bench.expect(found, "a call succeeded, and its snapshot is not listed")
        expect_whole(bench, found[0], request.unit_ids, "that a repeated call answered")
        return
    kinds = (BusyError, UnknownOutcomeError)
    name = type(said).__name__
    bench.expect(
        isinstance(said, kinds), f"a call with a tag in the making raised {name}", said=str(said)
    )
    await again(bench, bench.driver, request, "that was still being made")


@TOPIC.shall(
    4,
    Level.FAULT,
    "A driver shall raise UnknownOutcomeError when the answer to a group snapshot is lost.",
    hooks=("lost_answers",),
    units=2,
)
async def lost_snapshot_told(bench: ArrayBench) -> None:
    request = bench.request(*bench.units[:2])
    async with bench.target.lost_answers("snapshot_group"):
        said = await outcome(bench.driver.snapshot_group(request))
    if isinstance(said, GroupSnapshot | HappenedError):  # it found out what had become of it
        found = await under(bench, bench.driver, request.tag)
        bench.expect(found, "a call took effect, it says, and its snapshot is not listed")
        return
    await settle(bench, bench.driver, request)
    _expect_unknown(said, "a group snapshot")


@TOPIC.shall(
    5,
    Level.FAULT,
    "A driver shall answer a call that is repeated after a lost answer with the snapshot that the "
    "first call made, and make no second.",
    hooks=("lost_answers",),
    units=2,
)
async def lost_snapshot_repeated(bench: ArrayBench) -> None:
    before, request = await members(bench), bench.request(*bench.units[:2])
    async with bench.target.lost_answers("snapshot_group"):
        await outcome(bench.driver.snapshot_group(request))
    made = await again(bench, bench.driver, request, "whose answer was lost")
    expect_whole(bench, made, request.unit_ids, "that was repeated after a lost answer")
    await expect_once(bench, bench.driver, request, before, "after a lost answer")


@TOPIC.shall(
    6,
    Level.FAULT,
    "A driver shall list a snapshot whose answer was lost as soon as it is complete, whole and "
    "under its tag.",
    hooks=("lost_answers",),
    units=2,
)
async def lost_snapshot_listed(bench: ArrayBench) -> None:
    request = bench.request(*bench.units[:2])
    async with bench.target.lost_answers("snapshot_group"):
        await outcome(bench.driver.snapshot_group(request))

    async def listed() -> bool:
        return bool(await under(bench, bench.driver, request.tag))

    there = await bench.until(listed, bench.effort.call_timeout_s, LOOK_S)
    bench.expect(there, "a snapshot that was made is not listed, and its answer was lost")
    (found, *_) = await under(bench, bench.driver, request.tag)
    expect_whole(bench, found, request.unit_ids, "whose answer was lost")


@TOPIC.shall(
    7,
    Level.FAULT,
    "A driver shall not tell that a deletion did not happen when its answer was lost.",
    hooks=("lost_answers",),
)
async def lost_deletion_told(bench: ArrayBench) -> None:
    made = await bench.cut(bench.units[0])
    async with bench.target.lost_answers("delete_snapshot"):
        said = await outcome(bench.driver.delete_snapshot(made.ref))
    if said is None or isinstance(said, NotFoundError | HappenedError):  # it found out by itself
        found = await under(bench, bench.driver, made.ref.tag)
        bench.expect(not found, "a deletion took effect, it says, and its snapshot is listed")
        return
    _expect_unknown(said, "a deletion")


@TOPIC.shall(
    8,
    Level.FAULT,
    "A driver shall end a deletion that is repeated after a lost answer with the snapshot gone.",
    hooks=("lost_answers",),
)
async def lost_deletion_repeated(bench: ArrayBench) -> None:
    before, made = await members(bench), await bench.cut(bench.units[0])
    async with bench.target.lost_answers("delete_snapshot"):
        await outcome(bench.driver.delete_snapshot(made.ref))
    await remove(bench, bench.driver, made.ref, "after a lost answer")
    found = await under(bench, bench.driver, made.ref.tag)
    bench.expect(not found, "a snapshot is listed that was deleted twice")
    await expect_more(bench, before, 0, "after a deletion that was repeated")


@TOPIC.shall(
    9,
    Level.FAULT,
    "A driver shall not list too few snapshots when the answer to the listing is lost.",
    hooks=("lost_answers",),
)
async def lost_listing(bench: ArrayBench) -> None:
    made = await bench.cut(bench.units[0])
    async with bench.target.lost_answers("list_snapshots"):
        said = await outcome(bench.driver.list_snapshots(bench.tag_prefix))
    if not isinstance(said, DriverError):
        tags = [one.ref.tag for one in said]
        bench.expect(made.ref.tag in tags, "a listing without an answer lacks a snapshot")


@TOPIC.shall(
    10,
    Level.FAULT,
    "A driver shall not leave devices out when the answer to their mapping is lost.",
    hooks=("lost_answers",),
)
async def lost_mapping(bench: ArrayBench) -> None:
    devices = bench.units[0].scratch.devices
    known = await bench.setup(bench.driver.resolve(devices), "mapping devices")
    async with bench.target.lost_answers("resolve"):
        said = await outcome(bench.driver.resolve(devices))
    if not isinstance(said, DriverError):
        lacking = sorted(str(device) for device in set(known) - set(said))
        bench.expect(not lacking, "a mapping without an answer lacks devices", lacking=lacking)


@TOPIC.shall(
    11,
    Level.FAULT,
    "A driver shall raise an error instead of giving bytes when the answer to reading a snapshot "
    "back is lost.",
    capability="reads_back",
    hooks=("lost_answers",),
)
async def lost_bytes(bench: ArrayBench) -> None:
    unit, offset = bench.units[0], bench.block()
    data = bench.random_bytes(BLOCK_BYTES)
    await bench.write(unit, offset, data)
    made = await bench.cut(unit)
    async with bench.target.lost_answers("read_back"):
        said = await outcome(bench.read_back(made.ref, unit, offset, BLOCK_BYTES))
    if not isinstance(said, DriverError):  # asked again by itself
        bench.compare(said, data, "what was read back without an answer")


@TOPIC.shall(
    12,
    Level.FAULT,
    "A driver shall end a discard that is repeated after a lost answer with the clone gone.",
    capability="clones",
    hooks=("lost_answers",),
)
async def lost_discard(bench: ArrayBench) -> None:
    unit = bench.units[0]
    made = await bench.cut(unit)
    before = await members(bench)
    clone = await bench.clone(made.ref, unit, "lost")
    async with bench.target.lost_answers("discard"):
        said = await outcome(bench.readable.discard(clone.id))
    if isinstance(said, DriverError) and not isinstance(said, NotFoundError | HappenedError):
        _expect_unknown(said, "a discard")
    gone: list[bool] = []

    async def discarded() -> bool:
        said = await outcome(bench.readable.discard(clone.id))
        gone.append(isinstance(said, NotFoundError))
        return gone[-1]

    done = await bench.until(discarded, bench.effort.call_timeout_s, LOOK_S)
    bench.expect(done, "a clone is never told to be gone, though it was discarded again and again")
    await expect_more(bench, before, 0, "after a discard that was repeated")


@TOPIC.shall(
    13,
    Level.FAULT,
    "When it is called again for a deletion whose caller stopped waiting, a driver shall end with "
    "the snapshot gone.",
)
async def deletion_stopped(bench: ArrayBench) -> None:
    before, unit, interrupted = await members(bench), bench.units[0], 0
    probe = await bench.cut(unit)
    start_s = bench.now_s()
    await bench.delete(probe.ref)
    for moment_s in moments_s(bench, bench.now_s() - start_s, MOST_MOMENTS):
        made = await bench.cut(unit)
        interrupted += await cut_short(bench.driver.delete_snapshot(made.ref), moment_s)
        await remove(bench, bench.driver, made.ref, "whose caller stopped waiting")
        found = await under(bench, bench.driver, made.ref.tag)
        bench.expect(not found, "a snapshot is listed that was deleted twice")
    await expect_more(bench, before, 0, "after deletions whose callers stopped waiting")
    bench.note(interrupted=interrupted)
    needs_one(interrupted, "deletion")


@TOPIC.shall(
    14,
    Level.FAULT,
    "A driver shall let another connection find by its tag what a caller began that has died: "
    "called again there, it ends with one whole snapshot.",
    units=2,
)
async def caller_died(bench: ArrayBench) -> None:
    units, interrupted = bench.units[:2], 0
    took_s = await duration_s(bench, *units)
    for moment_s in moments_s(bench, took_s, MOST_MOMENTS // 2):
        before, request = await members(bench), bench.request(*units)
        async with fresh(bench) as other:
            interrupted += await cut_short(other.snapshot_group(request), moment_s)
        await again(bench, bench.driver, request, "that a dead caller began")
        found = await expect_once(bench, bench.driver, request, before, "after its caller died")
        await bench.delete(found.ref)
    bench.note(interrupted=interrupted)
    needs_one(interrupted, "group snapshot")


def _expect_unknown(said: object, what: str) -> None:
    if isinstance(said, UnknownOutcomeError):
        return
    name = type(said).__name__
    raise Violation(f"{what} whose answer was lost raised {name}: {said}")
