"""Exhaustion: what an array does when its space or one of its limits is used up."""

from __future__ import annotations

import asyncio

from ...drivers.contracts import GroupSnapshot, GroupSnapshotRequest
from ...drivers.errors import DriverError, NeverWillError, PoolFullError
from ..array_bench import ArrayBench, BenchUnit
from ..array_target import BLOCK_BYTES
from ..requirement import Level, NotTested, Topic, Violation
from .array_aftermath import again, expect_more, fresh, members, outcome, under
from .array_common import group_of, largest_group

TOPIC: Topic[ArrayBench] = Topic("exhaustion", "ARR-EXH")

WRITE_LIMIT_S = 30.0
FULL = "when no snapshot space is free"


async def _refused_full(bench: ArrayBench, *units: BenchUnit) -> DriverError:
    """The error of a group snapshot when no snapshot space is free.

    Raises
    ------
    NotTested
        There is none: the pool is not full, whatever the target does.
    """
    said = await outcome(bench.driver.snapshot_group(bench.request(*units)))
    if isinstance(said, GroupSnapshot):
        raise NotTested("the array made a snapshot though its pool was filled")
    return said


@TOPIC.shall(
    1,
    Level.FAULT,
    f"A driver shall refuse a group snapshot with PoolFullError {FULL}.",
    hooks=("full_pool",),
    units=2,
)
async def pool_full(bench: ArrayBench) -> None:
    async with bench.target.full_pool():
        for units in (bench.units[:1], bench.units[:2]):
            call = bench.driver.snapshot_group(bench.request(*units))
            await bench.refused(call, PoolFullError, doing=f"a group snapshot {FULL}")


@TOPIC.shall(
    2,
    Level.FAULT,
    f"A driver shall leave nothing of a group snapshot that it refuses {FULL}.",
    hooks=("full_pool", "snapshots_on_device"),
    units=2,
)
async def pool_full_leaves(bench: ArrayBench) -> None:
    before = await members(bench)
    async with bench.target.full_pool():
        await _refused_full(bench, *bench.units[:2])
    await expect_more(bench, before, 0, f"after a refusal {FULL}")
    bench.expect(not await bench.listed(), "a snapshot is listed that was refused")


@TOPIC.shall(
    3,
    Level.FAULT,
    f"A driver shall keep the snapshots that there are when it refuses a new one {FULL}.",
    hooks=("full_pool",),
    units=2,
)
async def pool_full_keeps(bench: ArrayBench) -> None:
    for units in (bench.units[:1], bench.units[:2]):
        await bench.cut(*units)
    before = await bench.listed()
    async with bench.target.full_pool():
        await _refused_full(bench, *bench.units[:2])
        during = await bench.listed()
    after = await bench.listed()
    for tags in (during, after):
        lost = sorted(set(before) - set(tags))
        bench.expect(not lost, "snapshots are gone since one was refused", lost=lost)


@TOPIC.shall(
    4,
    Level.FAULT,
    f"A driver shall give the bytes of earlier snapshots unchanged after a refusal {FULL}.",
    capability="reads_back",
    hooks=("full_pool",),
    units=2,
)
async def pool_full_bytes(bench: ArrayBench) -> None:
    units, offset = bench.units[:2], bench.block()
    held = {unit: bench.random_bytes(BLOCK_BYTES) for unit in units}
    for unit, data in held.items():
        await bench.write(unit, offset, data)
    made = await bench.cut(*units)
    for unit in units:
        await bench.write(unit, offset, bench.random_bytes(BLOCK_BYTES))
    async with bench.target.full_pool():
        await _refused_full(bench, *units)
    for unit, data in held.items():
        got = await bench.held(made.ref, unit, offset, BLOCK_BYTES)
        bench.compare(got, data, "what a snapshot holds after a later one was refused")


@TOPIC.shall(
    5,
    Level.FAULT,
    f"A driver shall leave no writes held or lost by a group snapshot that it refuses {FULL}.",
    hooks=("full_pool",),
    units=2,
)
async def pool_full_writes(bench: ArrayBench) -> None:
    units = bench.units[:2]
    async with bench.target.full_pool():
        try:
            for unit in units:
                await _written(bench, unit, 2 * WRITE_LIMIT_S)
        except (OSError, TimeoutError) as error:
            what = "a host cannot write while the pool is full, whatever the driver does"
            raise NotTested(what) from error
        await _refused_full(bench, *units)
        for unit in units:
            await _writable(bench, unit, "after a group snapshot was refused")


async def _written(
    bench: ArrayBench, unit: BenchUnit, limit_s: float = WRITE_LIMIT_S
) -> tuple[int, bytes]:
    offset, data = bench.block(), bench.random_bytes(BLOCK_BYTES)
    async with asyncio.timeout(limit_s):
        await bench.write(unit, offset, data)
    return offset, data


async def _writable(bench: ArrayBench, unit: BenchUnit, when: str) -> None:
    try:
        offset, data = await _written(bench, unit)
    except TimeoutError:
        raise Violation(f"a write waits for {WRITE_LIMIT_S:g} s {when}", unit=unit.id) from None
    except OSError as error:
        raise Violation(f"a write fails {when}: {error}", unit=unit.id) from error
    bench.compare(await bench.read(unit, offset, BLOCK_BYTES), data, f"what a host wrote {when}")


@TOPIC.shall(
    6,
    Level.FAULT,
    "A driver shall make a group snapshot that it refused for want of space when it is called "
    "again after space became free.",
    hooks=("full_pool",),
    units=2,
)
async def pool_free_again(bench: ArrayBench) -> None:
    units = bench.units[:2]
    request = bench.request(*units)
    async with bench.target.full_pool():
        said = await outcome(bench.driver.snapshot_group(request))
        if isinstance(said, GroupSnapshot):
            raise NotTested("the array made a snapshot though its pool was filled")
    await _taken(bench, request, "after space became free")
    found = await under(bench, bench.driver, request.tag)
    bench.expect(len(found) == 1, f"{len(found)} snapshots are listed of one that was refused once")


async def _taken(bench: ArrayBench, request: GroupSnapshotRequest, when: str) -> None:
    """The array takes this, soon at least: what was deleted may take a while to be free."""
    said: list[GroupSnapshot | DriverError] = []

    async def taken() -> bool:
        said.append(await outcome(bench.driver.snapshot_group(request)))
        return isinstance(said[-1], GroupSnapshot)

    limit_s = bench.effort.call_timeout_s
    if not await bench.until(taken, limit_s, 0.2):
        raise Violation(f"a snapshot {when} is refused for {limit_s:g} s", last=str(said[-1]))


# -- snapshots of one unit -------------------------------------------------------------------------


async def _room(bench: ArrayBench, unit: BenchUnit) -> int:
    """How many more snapshots a unit can carry by what is declared; ``many`` without a limit.

    Raises
    ------
    NotTested
        More than it is worth to make.
    """
    limit, most = bench.capabilities.snapshots_per_unit, bench.effort.many
    if limit is None:
        return most
    if limit > most:
        raise NotTested(f"a unit carries {limit} snapshots, and at this effort {most} are made")
    carried = sum(unit.id in one.unit_ids for one in (await bench.listed("")).values())
    return limit - carried


async def _fill(bench: ArrayBench, unit: BenchUnit) -> list[GroupSnapshot]:
    """As many snapshots of a unit as it can carry. Raises Blocked when they are fewer."""
    return [await bench.cut(unit) for _ in range(await _room(bench, unit))]


@TOPIC.shall(
    7,
    Level.FAULT,
    "A driver shall make as many snapshots of one unit as it declares in snapshots_per_unit; "
    "without a limit, as many as are asked for.",
)
async def snapshots_reached(bench: ArrayBench) -> None:
    unit = bench.units[0]
    room = await _room(bench, unit)
    for number in range(room):
        said = await outcome(bench.driver.snapshot_group(bench.request(unit)))
        declared = bench.capabilities.snapshots_per_unit
        bench.expect(
            isinstance(said, GroupSnapshot),
            f"snapshot {number + 1} of one unit was refused",
            said=str(said),
            declared=declared,
        )
    bench.expect(len(await bench.listed()) == room, "not all snapshots of a unit are listed")
    bench.note(made=room)


@TOPIC.shall(
    8,
    Level.FAULT,
    "A driver shall refuse one snapshot more of a unit than it declares with NeverWillError or "
    "PoolFullError, and keep those that there are.",
    capability="snapshots_per_unit",
)
async def snapshots_exceeded(bench: ArrayBench) -> None:
    unit = bench.units[0]
    made = {one.ref.tag for one in await _fill(bench, unit)}
    call = bench.driver.snapshot_group(bench.request(unit))
    kinds = (NeverWillError, PoolFullError)
    await bench.refused(call, *kinds, doing="a snapshot more than a unit can carry")
    listed = set(await bench.listed())
    lost = sorted(made - listed)
    bench.expect(not lost, "snapshots are gone since one was refused", lost=lost)


@TOPIC.shall(
    9,
    Level.FAULT,
    "A driver shall snapshot no unit of a group when one of them carries as many snapshots as it "
    "can.",
    capability="snapshots_per_unit",
    hooks=("snapshots_on_device",),
    units=2,
)
async def full_member(bench: ArrayBench) -> None:
    full, other = group_of(bench, 2)
    await _fill(bench, full)
    before = await members(bench)
    for units in ((full, other), (other, full)):
        said = await outcome(bench.driver.snapshot_group(bench.request(*units)))
        if isinstance(said, GroupSnapshot):
            raise NotTested("the array takes more snapshots of a unit than are declared")
        await expect_more(bench, before, 0, "after a group with a full unit was refused")


@TOPIC.shall(
    10,
    Level.FAULT,
    "A driver shall snapshot a unit again that carried as many snapshots as it can, after one of "
    "them was deleted.",
    capability="snapshots_per_unit",
)
async def room_again(bench: ArrayBench) -> None:
    unit = bench.units[0]
    made = await _fill(bench, unit)
    await outcome(bench.driver.snapshot_group(bench.request(unit)))
    await bench.delete(bench.rng.choice(made).ref)
    await _taken(bench, bench.request(unit), "of a unit with room for it")


@TOPIC.shall(
    11,
    Level.FAULT,
    "A driver shall give of each snapshot of a unit that carries as many as it can the bytes of "
    "its own cut.",
    capability="reads_back",
)
async def full_unit_bytes(bench: ArrayBench) -> None:
    unit, offset = bench.units[0], bench.block()
    held = []
    for _ in range(await _room(bench, unit)):
        data = bench.random_bytes(BLOCK_BYTES)
        await bench.write(unit, offset, data)
        held.append((await bench.cut(unit), data))
    await bench.write(unit, offset, bench.random_bytes(BLOCK_BYTES))
    await outcome(bench.driver.snapshot_group(bench.request(unit)))
    for number, (made, data) in enumerate(held, 1):
        got = await bench.held(made.ref, unit, offset, BLOCK_BYTES)
        bench.compare(got, data, f"what snapshot {number} of {len(held)} of a unit holds")


# -- units of one group ----------------------------------------------------------------------------


@TOPIC.shall(
    12,
    Level.FAULT,
    "A driver shall snapshot as many units in one group as it declares in units_per_group; "
    "without a limit, all that there are.",
)
async def group_reached(bench: ArrayBench) -> None:
    limit, count = bench.capabilities.units_per_group, largest_group(bench)
    if limit is not None and limit > count:
        raise NotTested(f"a group takes {limit} units, and there are {count}")
    for units in (bench.units[:count], bench.units[-count:]):
        made = await bench.driver.snapshot_group(bench.request(*units))
        lacking = sorted({unit.id for unit in units} - set(made.unit_ids))
        bench.expect(not lacking, "the largest group that is declared lacks units", lacking=lacking)
    bench.note(units=count)


@TOPIC.shall(
    13,
    Level.FAULT,
    "A driver shall refuse a group of more units than it declares with NeverWillError.",
    capability="units_per_group",
)
async def group_exceeded(bench: ArrayBench) -> None:
    call = bench.driver.snapshot_group(bench.request(*_too_many(bench)))
    await bench.refused(call, NeverWillError, doing="a group of more units than are declared")


@TOPIC.shall(
    14,
    Level.FAULT,
    "A driver shall leave nothing of a group that it refuses for having too many units.",
    capability="units_per_group",
    hooks=("snapshots_on_device",),
)
async def group_exceeded_leaves(bench: ArrayBench) -> None:
    before = await members(bench)
    request = bench.request(*_too_many(bench))
    said = await outcome(bench.driver.snapshot_group(request))
    if isinstance(said, GroupSnapshot):
        raise NotTested("the array takes more units in a group than are declared")
    await expect_more(bench, before, 0, "after a group was refused for its size")
    async with fresh(bench) as driver:
        smaller = bench.request(*bench.units[:1], tag=request.tag)
        await again(bench, driver, smaller, "under the tag of a group that was refused")


def _too_many(bench: ArrayBench) -> tuple[BenchUnit, ...]:
    limit = bench.capabilities.units_per_group or 0
    if len(bench.units) <= limit:
        raise NotTested(f"a group takes {limit} units, and there are no more")
    return bench.units[: limit + 1]
