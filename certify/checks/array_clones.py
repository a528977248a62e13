"""Writable copies of a snapshot: what they hold, and what they leave alone."""

from __future__ import annotations

from ...drivers.contracts import GroupSnapshot
from ...drivers.errors import BusyError, DriverError
from ...drivers.records import StorageUnit
from ..array_bench import ArrayBench, BenchUnit
from ..array_target import BLOCK_BYTES
from ..cuts import moment_of, read_image, take
from ..requirement import Level, NotTested, Topic, Violation
from ..rounds import control, tell_power
from ..writers import LIGHT, Writers

TOPIC: Topic[ArrayBench] = Topic("clones", "ARR-CLN")

_SPAN_BYTES = 256 << 10
_ODD_BYTES = ((1, 700), (4095, 2), (9000, 5000))
_ROUNDS = 6
"""Cuts whose images are looked at through clones, which many arrays are slow to make."""


async def _parent(bench: ArrayBench) -> tuple[GroupSnapshot, BenchUnit, bytes]:
    """A snapshot, its unit, and what it has to hold; the unit has been overwritten since."""
    unit, data = bench.units[0], bench.random_bytes(min(_SPAN_BYTES, bench.span_bytes))
    await bench.write(unit, 0, data)
    made = await bench.cut(unit)
    await bench.write(unit, 0, bench.random_bytes(len(data)))
    return made, unit, data


async def _read(bench: ArrayBench, clone: StorageUnit, unit: BenchUnit, length_bytes: int) -> bytes:
    start = unit.scratch.begins_bytes
    return await bench.target.read_clone(clone, start, length_bytes)


async def _write(
    bench: ArrayBench, clone: StorageUnit, unit: BenchUnit, offset_bytes: int, data: bytes
) -> None:
    await bench.target.write_clone(clone, unit.scratch.begins_bytes + offset_bytes, data)
    bench.written_bytes += len(data)


@TOPIC.shall(
    1,
    Level.DATA,
    "A clone shall hold the bytes of the snapshot that it was made of, not those that its unit "
    "holds since.",
    capability="clones",
)
async def bytes_of_the_snapshot(bench: ArrayBench) -> None:
    made, unit, data = await _parent(bench)
    try:
        clone = await bench.readable.clone(made.ref, unit.id, bench.tag("clone"))
    except DriverError as error:
        raise Violation(f"no clone is made: {error}") from error
    bench.keep_clone(clone)
    bench.compare(await _read(bench, clone, unit, len(data)), data, "the clone")


@TOPIC.shall(
    2,
    Level.DATA,
    "A clone shall be found by hosts under identities of its own, and be as large as its unit.",
    capability="clones",
)
async def own_identity(bench: ArrayBench) -> None:
    made, unit, _ = await _parent(bench)
    clones = [await bench.clone(made.ref, unit, f"twin-{number}") for number in range(2)]
    taken = {device for one in bench.units for device in one.scratch.devices + one.unit.devices}
    ids = {one.id for one in bench.units}
    for clone in clones:
        bench.expect(clone.devices, "a clone names no device under which a host finds it")
        shared = sorted(str(device) for device in taken.intersection(clone.devices))
        bench.expect(not shared, "a clone has a device of another unit", devices=shared)
        bench.expect(clone.id not in ids, "a clone has the identifier of another unit", id=clone.id)
        bench.expect(
            clone.capacity_bytes == unit.unit.capacity_bytes,
            "a clone is not as large as its unit",
            clone_bytes=clone.capacity_bytes,
            unit_bytes=unit.unit.capacity_bytes,
        )
        taken.update(clone.devices)
        ids.add(clone.id)


@TOPIC.shall(
    3,
    Level.DATA,
    "Writes to a clone shall be held by that clone, and shall reach neither the unit, nor the "
    "snapshot, nor another clone of it.",
    capability="clones",
)
async def writes_stay(bench: ArrayBench) -> None:
    made, unit, data = await _parent(bench)
    live = await bench.read(unit, 0, len(data))
    first = await bench.clone(made.ref, unit, "written")
    second = await bench.clone(made.ref, unit, "left-alone")
    fresh = bench.random_bytes(len(data))
    await _write(bench, first, unit, 0, fresh)
    bench.compare(await _read(bench, first, unit, len(data)), fresh, "the clone that was written")
    bench.compare(await bench.read(unit, 0, len(data)), live, "the unit of the clone")
    bench.compare(await _read(bench, second, unit, len(data)), data, "the other clone")
    if bench.capabilities.reads_back:
        got = await bench.held(made.ref, unit, 0, len(data))
        bench.compare(got, data, "the snapshot of the clone")


@TOPIC.shall(
    4,
    Level.DATA,
    "Writes to the unit shall not reach its clones, while they are made and afterwards.",
    capability="clones",
)
async def unit_written(bench: ArrayBench) -> None:
    made, unit, data = await _parent(bench)
    clone = await bench.clone(made.ref, unit, "while-written")
    for _ in range(max(2, bench.effort.rounds // 8)):
        await bench.write(unit, 0, bench.random_bytes(len(data)))
        bench.compare(await _read(bench, clone, unit, len(data)), data, "the clone, unit written")


@TOPIC.shall(
    5,
    Level.DATA,
    "Where a clone has been written in part, the rest shall stay as the snapshot holds it, within "
    "a block too.",
    capability="clones",
)
async def written_in_part(bench: ArrayBench) -> None:
    made, unit, data = await _parent(bench)
    clone = await bench.clone(made.ref, unit, "in-part")
    model = bytearray(data)
    blocks = [(bench.rng.randrange(len(data) // BLOCK_BYTES) * BLOCK_BYTES, BLOCK_BYTES)]
    for offset, length in [*_ODD_BYTES, *blocks]:
        fresh = bench.random_bytes(length)
        await _write(bench, clone, unit, offset, fresh)
        model[offset : offset + length] = fresh
    got = await _read(bench, clone, unit, len(data))
    bench.compare(got, bytes(model), "the clone, written in part")


@TOPIC.shall(
    6,
    Level.DATA,
    "Deleting the snapshot of a clone shall succeed and leave the clone as it is, or be refused "
    "with BusyError and leave both as they are.",
    capability="clones",
)
async def parent_deleted(bench: ArrayBench) -> None:
    made, unit, data = await _parent(bench)
    clone = await bench.clone(made.ref, unit, "of-deleted")
    half = bench.random_bytes(len(data) // 2)
    await _write(bench, clone, unit, 0, half)
    try:
        await bench.driver.delete_snapshot(made.ref)
        bench.note(snapshot_was="deleted")
        bench.expect(made.ref.tag not in await bench.listed(), "a deleted snapshot is still listed")
    except BusyError:
        bench.note(snapshot_was="kept, BusyError")
        bench.expect(made.ref.tag in await bench.listed(), "a snapshot that was kept is not listed")
        if bench.capabilities.reads_back:
            got = await bench.held(made.ref, unit, 0, len(data))
            bench.compare(got, data, "the snapshot that was kept")
    except DriverError as error:
        raise Violation(f"the deletion raised {type(error).__name__} ({error})") from error
    got = await _read(bench, clone, unit, len(data))
    bench.compare(got, half + data[len(half) :], "the clone afterwards")


@TOPIC.shall(
    7,
    Level.DATA,
    "Deleting other snapshots of the unit, older and newer ones, shall not change a clone.",
    capability="clones",
)
async def neighbours_deleted(bench: ArrayBench) -> None:
    most = bench.capabilities.snapshots_per_unit
    if most is not None and most < 3:
        raise NotTested(f"a unit carries {most} snapshots only")
    unit, made, states = bench.units[0], [], []
    for _ in range(3):
        states.append(bench.random_bytes(8 * BLOCK_BYTES))
        await bench.write(unit, 0, states[-1])
        made.append(await bench.cut(unit))
    clone = await bench.clone(made[1].ref, unit, "between")
    await bench.write(unit, 0, bench.random_bytes(len(states[0])))
    for gone in (0, 2):
        await bench.delete(made[gone].ref)
        got = await _read(bench, clone, unit, len(states[1]))
        bench.compare(got, states[1], f"the clone after the deletion of snapshot {gone + 1} of 3")


@TOPIC.shall(
    8,
    Level.DATA,
    "Discarding a clone shall succeed and leave everything else as it is: other clones, the "
    "snapshot, the unit.",
    capability="clones",
)
async def discarded(bench: ArrayBench) -> None:
    made, unit, data = await _parent(bench)
    live = await bench.read(unit, 0, len(data))
    kept, gone = [await bench.clone(made.ref, unit, name) for name in ("kept", "gone")]
    await _write(bench, gone, unit, 0, bench.random_bytes(len(data)))
    try:
        await bench.readable.discard(gone.id)
    except DriverError as error:
        raise Violation(f"discarding a clone raised {type(error).__name__} ({error})") from error
    bench.compare(await _read(bench, kept, unit, len(data)), data, "the clone that was kept")
    bench.compare(await bench.read(unit, 0, len(data)), live, "the unit of the clones")
    bench.expect(made.ref.tag in await bench.listed(), "the snapshot of the clones is gone")
    if bench.capabilities.reads_back:
        got = await bench.held(made.ref, unit, 0, len(data))
        bench.compare(got, data, "the snapshot of the clones")


@TOPIC.shall(
    9,
    Level.CORE,
    "A clone shall not be listed as a group snapshot.",
    capability="clones",
)
async def not_listed(bench: ArrayBench) -> None:
    made, unit, _ = await _parent(bench)
    await bench.clone(made.ref, unit, "listed")
    found = await bench.listed()
    bench.expect(set(found) == {made.ref.tag}, "a clone is listed", tags=sorted(found))


@TOPIC.shall(
    10,
    Level.GROUP,
    "Clones of the members of a group that was cut under load shall show one point in time.",
    capability="clones",
    units=2,
)
async def clones_of_a_group(bench: ArrayBench) -> None:
    if not bench.capabilities.atomic_groups:
        raise NotTested("the driver declares that it does not cut groups at one point in time")
    units = bench.units[: bench.capabilities.units_per_group]
    numbers = range(len(units))
    async with Writers(bench, units, LIGHT) as writers:
        seen = []
        for number in range(min(_ROUNDS, bench.effort.rounds)):
            await writers.advance()
            cut = await take(bench, writers, numbers)
            ref = cut.made.ref
            image = await read_image(bench, writers, ref, numbers, through_clones=True)
            await bench.delete(ref)
            try:
                seen.append((cut, moment_of(writers, numbers, image, cut.before.at_s)))
            except Violation as found:
                raise Violation(found.what, round=number + 1, **found.evidence) from found
        await control(bench, writers, numbers, through_clones=True)
        tell_power(bench, writers, numbers, seen)
