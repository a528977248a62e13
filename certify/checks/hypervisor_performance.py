"""How long calls take, and what guests feel of them.

Everything is measured and reported. It is judged only where the vendor states a limit (the section
``limits`` of his configuration, names as in LIMITS); otherwise the requirement counts as not
tested, and what was measured stands in the certificate all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from ...drivers.contracts import VmSnapshotRef
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import PLAIN, SECOND
from ..requirement import Level, NotTested, Topic

TOPIC: Topic[HypervisorBench] = Topic("performance", "HYP-PRF")

LIMITS: Mapping[str, str] = {
    "create_p95_s": "the 95th percentile of a quiesced create, one VM at a time and two at once",
    "create_crash_p95_s": "the 95th percentile of a create without quiescing",
    "remove_p95_s": "the 95th percentile of a removal, the guest idle and writing",
    "list_p95_s": "the 95th percentile of a listing, of one VM and of all",
    "inventory_p95_s": "the 95th percentile of reading the inventory",
    "freeze_p95_s": "the 95th percentile of how long a guest stands frozen, as it sees it",
    "stun_p95_s": "the 95th percentile of the stun of a create, as the driver tells it",
    "write_pause_p95_s": "the 95th percentile of the longest write of a guest during a create",
}
"""What a vendor may limit, and the name under which he does, in seconds."""

_IDLE, _WRITING = "idle", "guest writes"
_SHARE = 0.95
_TIME_SHARE = 0.6
"""Of the time that a check has: a slow system is measured less often, and not refused for it."""
_BLOCKS = 256
"""Blocks that a guest under load writes to, one after the other and again."""
_FIRST_BLOCK = 256


@TOPIC.shall(
    1,
    Level.PERFORMANCE,
    "A quiesced create shall take no longer than the vendor states.",
)
async def create(bench: HypervisorBench) -> None:
    """One VM at a time, then two at once where there is another one."""
    alone = await _creates(bench, [PLAIN], quiesce=True)
    bench.measure("create", alone, vms_at_once=1)
    seen = [alone]
    if SECOND in bench.vms:
        seen.append(await _creates(bench, [PLAIN, SECOND], quiesce=True))
        bench.measure("create", seen[-1], vms_at_once=2)
    _judge(bench, "create", seen)


@TOPIC.shall(
    2,
    Level.PERFORMANCE,
    "A create without quiescing shall take no longer than the vendor states.",
)
async def create_crash(bench: HypervisorBench) -> None:
    """One VM at a time."""
    values = await _creates(bench, [PLAIN], quiesce=False)
    bench.measure("create_crash", values, vms_at_once=1)
    _judge(bench, "create_crash", [values])


@TOPIC.shall(
    3,
    Level.PERFORMANCE,
    "A removal shall take no longer than the vendor states.",
)
async def remove(bench: HypervisorBench) -> None:
    """The guest idle, then writing from the create on, where the target lets it."""
    seen = [await _removals(bench)]
    bench.measure("remove", seen[0], load=_IDLE)
    if bench.target.offers("write"):
        async with _guest_writes(bench):
            seen.append(await _removals(bench))
        bench.measure("remove", seen[-1], load=_WRITING)
    _judge(bench, "remove", seen)


@TOPIC.shall(
    4,
    Level.PERFORMANCE,
    "A listing shall take no longer than the vendor states.",
)
async def listing(bench: HypervisorBench) -> None:
    """Of one VM, and of all."""
    one = await _timed(bench, lambda: bench.driver.list_snapshots([bench.ids[PLAIN]]))
    bench.measure("list", one, vms="one")
    everything = await _timed(bench, bench.driver.list_snapshots)
    bench.measure("list", everything, vms="all")
    _judge(bench, "list", [one, everything])


@TOPIC.shall(
    5,
    Level.PERFORMANCE,
    "Reading the inventory shall take no longer than the vendor states.",
)
async def inventory(bench: HypervisorBench) -> None:
    """The size of the system is said beside it."""
    values = await _timed(bench, bench.driver.inventory)
    bench.measure("inventory", values, vms=len((await bench.inventory()).vms))
    _judge(bench, "inventory", [values])


@TOPIC.shall(
    6,
    Level.PERFORMANCE,
    "A guest shall stand frozen for a snapshot no longer than the vendor states.",
    hooks=("frozen_spans",),
)
async def freeze(bench: HypervisorBench) -> None:
    """By the guest's own account."""
    values = []
    for _ in _repeats(bench):
        start_s = bench.now_s()
        made = await bench.create(PLAIN)
        spans = await bench.target.frozen_spans(bench.vms[PLAIN], start_s)
        values += [span.duration_s for span in spans if math.isfinite(span.end_s)]
        await bench.remove(made.ref)
    if not values:
        raise NotTested("the guest has not seen itself frozen")
    bench.measure("freeze", values)
    _judge(bench, "freeze", [values])


@TOPIC.shall(
    7,
    Level.PERFORMANCE,
    "A create shall stun a VM no longer than the vendor states.",
    capability="reports_stun",
)
async def stun(bench: HypervisorBench) -> None:
    """As the driver tells it."""
    values = []
    for _ in _repeats(bench):
        made = await bench.create(PLAIN, quiesce=False)
        if made.stun is not None:
            values.append(made.stun.duration_s)
        await bench.remove(made.ref)
    if not values:
        raise NotTested("the driver has told no stun")
    bench.measure("stun", values)
    _judge(bench, "stun", [values])


@TOPIC.shall(
    8,
    Level.PERFORMANCE,
    "A write of a guest shall wait no longer for a quiesced create than the vendor states.",
    hooks=("write",),
)
async def write_pause(bench: HypervisorBench) -> None:
    """The longest write during each create: whatever the guest waited for, it counts."""
    values = []
    async with _guest_writes(bench) as waits:
        for _ in _repeats(bench):
            done = len(waits)
            made = await bench.create(PLAIN)
            await bench.until(partial(_grown, waits, done), bench.effort.call_timeout_s)
            values += [max(waits[done:])] if waits[done:] else []
            await bench.remove(made.ref)
    if not values:
        raise NotTested("the guest has not written during a create")
    bench.measure("write_pause", values)
    _judge(bench, "write_pause", [values])


# -- measuring and judging ---------------------------------------------------------------------


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by this share of them (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _judge(bench: HypervisorBench, name: str, seen: Sequence[Sequence[float]]) -> None:
    """Hold each of the samples against the limit of this name, if there is one."""
    key = f"{name}_p95_s"
    worst_s = max(percentile(values, _SHARE) for values in seen)
    bench.note(**{key: round(worst_s, 6)})
    limit_s = bench.limits.get(key)
    if limit_s is None:
        raise NotTested(f"measured, not judged: no limit {key} is stated")
    what = f"{LIMITS[key]} is {worst_s:.3f} s, above the limit of {limit_s:g} s"
    bench.expect(worst_s <= limit_s, what, limit_s=limit_s)


def _repeats(bench: HypervisorBench, parts: int = 1) -> Iterator[int]:
    """As many repetitions as the effort says, or as its time allows for one of so many parts."""
    end_s = bench.now_s() + _TIME_SHARE * bench.effort.check_timeout_s / parts
    for number in range(bench.effort.repeats):
        if number and bench.now_s() >= end_s:
            return
        yield number


async def _timed(bench: HypervisorBench, call: Callable[[], Awaitable[object]]) -> list[float]:
    values = []
    for _ in _repeats(bench, 2):
        start_s = bench.now_s()
        await bench.setup(call(), "a call that is timed")
        values.append(bench.now_s() - start_s)
    return values


async def _creates(bench: HypervisorBench, roles: Sequence[str], *, quiesce: bool) -> list[float]:
    """Durations of creates, on these VMs at once."""
    values = []

    async def one(role: str) -> VmSnapshotRef:
        start_s = bench.now_s()
        made = await bench.create(role, quiesce=quiesce)
        values.append(bench.now_s() - start_s)
        return made.ref

    for _ in _repeats(bench, 2):
        for ref in await bench.together(*(one(role) for role in roles)):
            await bench.remove(ref)
    return values


async def _removals(bench: HypervisorBench) -> list[float]:
    values = []
    for _ in _repeats(bench, 2):
        made = await bench.create(PLAIN)
        start_s = bench.now_s()
        await bench.remove(made.ref)
        values.append(bench.now_s() - start_s)
    return values


@asynccontextmanager
async def _guest_writes(bench: HypervisorBench) -> AsyncIterator[list[float]]:
    """Meanwhile the plain VM's guest writes, block after block; how long each write took."""
    waits: list[float] = []

    async def write() -> None:
        number = 0
        while True:
            start_s = bench.now_s()
            await bench.write(PLAIN, _FIRST_BLOCK + number % _BLOCKS)
            waits.append(bench.now_s() - start_s)
            number += 1

    writing = asyncio.create_task(write())
    try:
        yield waits
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing


async def _grown(values: Sequence[float], beyond: int) -> bool:
    return len(values) > beyond
