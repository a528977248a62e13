"""Declarations: what a driver says of itself is so, of what it declares absent too."""

from __future__ import annotations

import dataclasses

from ...drivers.contracts import ArrayCapabilities, SnapshotMethod
from ...drivers.errors import DriverError
from ..array_bench import ArrayBench
from ..array_target import BLOCK_BYTES
from ..requirement import Level, Topic
from .array_aftermath import fresh, outcome

TOPIC: Topic[ArrayBench] = Topic("declarations", "ARR-DCL")

_LIMITS = ("units_per_group", "snapshots_per_unit")
_FLAGS = ("atomic_groups", "holds_writes", "reads_back", "clones")


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall declare its limits as whole numbers from 1 on or as None, its method as one "
    "of the contract's, and everything else as true or false.",
)
async def well_formed(bench: ArrayBench) -> None:
    declared = bench.capabilities
    bench.expect(isinstance(declared, ArrayCapabilities), "what is declared is no capabilities")
    for name in (*_LIMITS, "group_operations"):
        value = getattr(declared, name)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        right = whole or (value is None and name in _LIMITS)
        bench.expect(right, f"{name} is declared as {value!r}")
    for name in _FLAGS:
        value = getattr(declared, name)
        bench.expect(isinstance(value, bool), f"{name} is declared as {value!r}")
    known = isinstance(declared.method, SnapshotMethod)
    bench.expect(known, f"method is declared as {declared.method!r}")


@TOPIC.shall(
    2,
    Level.CORE,
    "A driver shall declare the same on every connection, and the same after work as before.",
)
async def the_same(bench: ArrayBench) -> None:
    before = dataclasses.asdict(bench.capabilities)
    made = await bench.cut(bench.units[0])
    _expect_same(bench, before, bench.capabilities, "after a group snapshot")
    await bench.delete(made.ref)
    _expect_same(bench, before, bench.capabilities, "after a deletion")
    async with fresh(bench) as driver:
        _expect_same(bench, before, driver.capabilities, "on another connection")


def _expect_same(
    bench: ArrayBench, before: dict[str, object], now: ArrayCapabilities, when: str
) -> None:
    differ = {
        name: value for name, value in dataclasses.asdict(now).items() if before[name] != value
    }
    bench.expect(not differ, f"capabilities differ {when}", before=before, now=differ)


@TOPIC.shall(
    3,
    Level.CORE,
    "A driver shall declare reads_back if and only if it gives the bytes of a snapshot.",
)
async def reads_back(bench: ArrayBench) -> None:
    unit, offset, data = bench.units[0], bench.block(), bench.random_bytes(BLOCK_BYTES)
    await bench.write(unit, offset, data)
    made = await bench.cut(unit)
    has = callable(getattr(bench.driver, "read_back", None))
    if bench.capabilities.reads_back:
        bench.expect(has, "reads_back is declared, and the driver has no read_back")
        got = await bench.read_back(made.ref, unit, offset, BLOCK_BYTES)
        bench.compare(got, data, "what was read back")
    elif has:
        said = await outcome(bench.read_back(made.ref, unit, offset, BLOCK_BYTES))
        refused = isinstance(said, DriverError)
        bench.expect(refused, "reads_back is declared absent, and the driver reads back")


@TOPIC.shall(
    4,
    Level.CORE,
    "A driver shall declare clones if and only if it makes and discards them.",
)
async def clones(bench: ArrayBench) -> None:
    unit = bench.units[0]
    made = await bench.cut(unit)
    lacking = [
        name for name in ("clone", "discard") if not callable(getattr(bench.driver, name, None))
    ]
    if bench.capabilities.clones:
        bench.expect(not lacking, f"clones is declared, and the driver has no {lacking}")
        clone = await bench.readable.clone(made.ref, unit.id, bench.tag("declared"))
        bench.keep_clone(clone)
        await bench.readable.discard(clone.id)
    elif "clone" not in lacking:
        said = await outcome(bench.readable.clone(made.ref, unit.id, bench.tag("declared")))
        if not isinstance(said, DriverError):
            bench.keep_clone(said)
        refused = isinstance(said, DriverError)
        bench.expect(refused, "clones is declared absent, and the driver makes a clone")


@TOPIC.shall(
    5,
    Level.GROUP,
    "A driver shall declare a fence or a cut that it cannot see as None, never as zero.",
    units=2,
)
async def never_zero(bench: ArrayBench) -> None:
    for units in (bench.units[:1], bench.units[:2]):
        made = await bench.cut(*units)
        bench.expect(made.cut_s != 0, "the time of the cut is zero")
        if made.fence is not None:
            length_s = made.fence.duration_s
            bench.expect(length_s > 0, "the fence is told to have no length", fence_s=length_s)
    bench.note(cut_told=made.cut_s is not None, fence_told=made.fence is not None)
