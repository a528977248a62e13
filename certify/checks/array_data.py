"""What a snapshot holds: the bytes of the cut, and no others, for as long as it exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ...drivers.contracts import GroupSnapshotRef, ReadableArrayDriver, SnapshotMethod
from ...drivers.errors import DriverError
from ..array_bench import ArrayBench, BenchUnit
from ..array_target import BLOCK_BYTES
from ..requirement import Level, NotTested, Topic, Violation

TOPIC: Topic[ArrayBench] = Topic("data", "ARR-DAT")

_LARGE_BYTES = 1 << 20
_ODD_BYTES = ((1, 1), (511, 2), (513, 3000), (4095, 4098), (70_001, 33_333), (0, 1))
"""Offset and length of reads and writes that no block begins or ends with."""


async def _overwrite(
    bench: ArrayBench, units: Sequence[BenchUnit], length_bytes: int
) -> list[bytes]:
    """New random bytes from the beginning of each unit."""
    written = [bench.random_bytes(length_bytes) for _ in units]
    for unit, data in zip(units, written, strict=True):
        await bench.write(unit, 0, data)
    return written


async def _read_back(
    bench: ArrayBench, ref: GroupSnapshotRef, unit: BenchUnit, offset_bytes: int, length_bytes: int
) -> bytes:
    """As the requirement is about: failing is breaking it."""
    try:
        return await bench.read_back(ref, unit, offset_bytes, length_bytes)
    except DriverError as error:
        what = f"reading {length_bytes} bytes at {offset_bytes} back failed: {error}"
        raise Violation(what) from error


def _length(bench: ArrayBench, most_bytes: int = _LARGE_BYTES) -> int:
    return min(bench.span_bytes, most_bytes)


def _some(bench: ArrayBench, most: int) -> tuple[BenchUnit, ...]:
    limit = bench.capabilities.units_per_group
    return bench.units[: most if limit is None else min(most, limit)]


@TOPIC.shall(
    1,
    Level.DATA,
    "Every byte that had been acknowledged when a snapshot was asked for shall read back from it "
    "as it was written, for each unit of the group its own.",
    capability="reads_back",
)
async def bytes_of_the_cut(bench: ArrayBench) -> None:
    units = _some(bench, len(bench.units))
    for _ in range(_rounds(bench)):
        written = await _overwrite(bench, units, _length(bench))
        made = await bench.cut(*units)
        for unit, data in zip(units, written, strict=True):
            got = await _read_back(bench, made.ref, unit, 0, len(data))
            bench.compare(got, data, f"unit {unit.id} in the snapshot")
        await bench.delete(made.ref)


def _rounds(bench: ArrayBench) -> int:
    return max(2, bench.effort.rounds // 4)


@TOPIC.shall(
    2,
    Level.DATA,
    "What is written after the call has returned shall not show in the snapshot.",
    capability="reads_back",
)
async def later_writes(bench: ArrayBench) -> None:
    units = _some(bench, 2)
    written = await _overwrite(bench, units, _length(bench))
    made = await bench.cut(*units)
    for _ in range(_rounds(bench)):
        await _overwrite(bench, units, _length(bench))
        for unit, data in zip(units, written, strict=True):
            got = await bench.held(made.ref, unit, 0, len(data))
            bench.compare(got, data, f"unit {unit.id} in the snapshot, after later writes")


@TOPIC.shall(
    3,
    Level.DATA,
    "Making, reading and deleting snapshots shall not change what hosts read of the unit.",
)
async def unit_unchanged(bench: ArrayBench) -> None:
    unit = bench.units[0]
    for _ in range(_rounds(bench)):
        (data,) = await _overwrite(bench, [unit], _length(bench))
        made = await bench.cut(unit)
        bench.compare(await bench.read(unit, 0, len(data)), data, "the unit after the cut")
        block = bench.block() % len(data)
        fresh = bench.random_bytes(BLOCK_BYTES)
        await bench.write(unit, block, fresh)
        data = data[:block] + fresh + data[block + BLOCK_BYTES :]
        if bench.capabilities.reads_back:
            await bench.held(made.ref, unit, 0, len(data))
        bench.compare(await bench.read(unit, 0, len(data)), data, "the unit, written since the cut")
        await bench.delete(made.ref)
        bench.compare(await bench.read(unit, 0, len(data)), data, "the unit after the deletion")


@TOPIC.shall(
    4,
    Level.DATA,
    "A write of a mebibyte that had been acknowledged before the call shall be in the snapshot as "
    "a whole, wherever it begins, and one that follows shall not be in any part.",
    capability="reads_back",
)
async def large_writes(bench: ArrayBench) -> None:
    unit = bench.units[0]
    size = min(_LARGE_BYTES, bench.span_bytes // 2)
    before = bench.random_bytes(2 * size)
    await bench.write(unit, 0, before)
    for _ in range(_rounds(bench)):
        offset = bench.rng.randrange(size // BLOCK_BYTES) * BLOCK_BYTES
        large = bench.random_bytes(size)
        await bench.write(unit, offset, large)
        wanted = before[:offset] + large + before[offset + size :]
        made = await bench.cut(unit)
        before = bench.random_bytes(2 * size)
        await bench.write(unit, 0, before)
        got = await bench.held(made.ref, unit, 0, len(wanted))
        bench.compare(got, wanted, f"a write of {size} bytes at {offset}")
        await bench.delete(made.ref)


@TOPIC.shall(
    5,
    Level.DATA,
    "Reads of a snapshot shall give the bytes that were asked for, wherever they begin and however "
    "many they are, also where no block begins or ends.",
    capability="reads_back",
)
async def odd_reads(bench: ArrayBench) -> None:
    unit = bench.units[0]
    (data,) = await _overwrite(bench, [unit], _length(bench))
    made = await bench.cut(unit)
    await _overwrite(bench, [unit], len(data))
    reads = [*_ODD_BYTES, (len(data) - 5, 5)]
    for _ in range(_rounds(bench)):
        offset = bench.rng.randrange(len(data) - 1)
        reads.append((offset, bench.rng.randrange(1, min(len(data) - offset, 200_000) + 1)))
    for offset, length in reads:
        got = await _read_back(bench, made.ref, unit, offset, length)
        bench.compare(got, data[offset : offset + length], f"{length} bytes at {offset}")


@TOPIC.shall(
    6,
    Level.DATA,
    "Writes that begin or end within a block shall leave the rest of the block, in the snapshot "
    "and in the unit, as it was.",
    capability="reads_back",
)
async def odd_writes(bench: ArrayBench) -> None:
    unit = bench.units[0]
    (data,) = await _overwrite(bench, [unit], min(bench.span_bytes, 128 << 10))
    for number in range(2):
        model = bytearray(data)
        for offset, length in _ODD_BYTES:
            fresh = bench.random_bytes(length)
            await bench.write(unit, offset, fresh)
            model[offset : offset + length] = fresh
        if number:
            break
        made = await bench.cut(unit)
        wanted, data = bytes(model), bytes(model)
    got = await _read_back(bench, made.ref, unit, 0, len(wanted))
    bench.compare(got, wanted, "the snapshot between two rounds of writes")
    bench.compare(await bench.read(unit, 0, len(model)), bytes(model), "the unit after both")


@TOPIC.shall(
    7,
    Level.DATA,
    "The first and the last block of a unit shall be in its snapshots as those between are.",
    capability="reads_back",
)
async def first_and_last(bench: ArrayBench) -> None:
    unit = bench.units[0]
    places = (0, unit.scratch.capacity_bytes // BLOCK_BYTES * BLOCK_BYTES - BLOCK_BYTES)
    written = [bench.random_bytes(BLOCK_BYTES) for _ in places]
    for place, data in zip(places, written, strict=True):
        await bench.write(unit, place, data)
    made = await bench.cut(unit)
    for place in places:
        await bench.write(unit, place, bench.random_bytes(BLOCK_BYTES))
    for place, data in zip(places, written, strict=True):
        got = await _read_back(bench, made.ref, unit, place, BLOCK_BYTES)
        bench.compare(got, data, f"the block at {place}")


@TOPIC.shall(
    8,
    Level.DATA,
    "Blocks of zeros that were written over data shall read back as zeros, and data that was "
    "written over zeros as that data.",
    capability="reads_back",
)
async def zeros(bench: ArrayBench) -> None:
    unit, size = bench.units[0], 16 * BLOCK_BYTES
    data = bench.random_bytes(size)
    await bench.write(unit, 0, data)
    await bench.write(unit, size, bytes(size))
    first = await bench.cut(unit)
    await bench.write(unit, 0, bytes(size))
    await bench.write(unit, size, data)
    second = await bench.cut(unit)
    await bench.write(unit, 0, bench.random_bytes(2 * size))
    for made, wanted, name in (
        (first, data + bytes(size), "the first snapshot"),
        (second, bytes(size) + data, "the second snapshot"),
    ):
        got = await bench.held(made.ref, unit, 0, 2 * size)
        bench.compare(got, wanted, name)


@TOPIC.shall(
    9,
    Level.DATA,
    "A second connection shall read the same bytes back from a snapshot as the one that made it.",
    capability="reads_back",
)
async def another_connection(bench: ArrayBench) -> None:
    units = _some(bench, 2)
    written = await _overwrite(bench, units, _length(bench))
    made = await bench.cut(*units)
    await _overwrite(bench, units, _length(bench))
    async with bench.another_driver() as other:
        for unit, data in zip(units, written, strict=True):
            start = unit.scratch.begins_bytes
            reader = cast("ReadableArrayDriver", other)
            try:
                got = await reader.read_back(made.ref, unit.id, start, len(data))
            except DriverError as error:
                raise Violation(f"reading back through another connection: {error}") from error
            bench.compare(got, data, f"unit {unit.id} through another connection")


@TOPIC.shall(
    10,
    Level.DATA,
    "The array shall keep old data by the method that the driver declares: by redirect-on-write, "
    "what is overwritten stays in its place for the snapshot, and the unit goes elsewhere; by "
    "copy-on-write the unit stays in its place, and the snapshot has its copy elsewhere.",
    hooks=("place_of",),
)
async def method(bench: ArrayBench) -> None:
    declared = bench.capabilities.method
    if declared is SnapshotMethod.UNKNOWN:
        raise NotTested("the driver declares no method")
    unit, block = bench.units[0], bench.block()
    scratch, place_of = unit.scratch, bench.target.place_of
    await bench.write(unit, block, bench.random_bytes(BLOCK_BYTES))
    made = await bench.cut(unit)
    before = await place_of(scratch, block, None)
    await bench.write(unit, block, bench.random_bytes(BLOCK_BYTES))
    live, old = await place_of(scratch, block, None), await place_of(scratch, block, made.ref)
    bench.note(before=before, unit_after=live, snapshot_after=old, declared=declared.value)
    bench.expect(live != old, "the unit and the snapshot have one place for different data")
    stays = old if declared is SnapshotMethod.REDIRECT_ON_WRITE else live
    bench.expect(
        stays == before, f"the driver declares {declared.value}, and the data did not lie so"
    )
