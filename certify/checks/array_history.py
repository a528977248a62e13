"""Several snapshots of a unit, one on the other: each keeps its own bytes, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations

from ...drivers.contracts import GroupSnapshot
from ..array_bench import ArrayBench, BenchUnit
from ..array_target import BLOCK_BYTES
from ..requirement import Level, NotTested, Topic

TOPIC: Topic[ArrayBench] = Topic("data over time", "ARR-HIS")

_AT_ONCE = 3
_UNITS = 2
_CHANGES_PER_ROUND = 5
_LARGEST_BLOCKS = 64


@TOPIC.shall(
    1,
    Level.DATA,
    "Of several snapshots of a unit each shall hold the bytes of its own cut.",
    capability="reads_back",
)
async def each_its_own(bench: ArrayBench) -> None:
    unit = bench.units[0]
    states, made = await _series(bench, unit)
    for one, data in zip(made, states, strict=True):
        got = await bench.held(one.ref, unit, 0, len(data))
        bench.compare(got, data, f"snapshot {made.index(one) + 1} of {len(made)}")


async def _series(bench: ArrayBench, unit: BenchUnit) -> tuple[list[bytes], list[GroupSnapshot]]:
    """Snapshots of a unit between which one block always changes, and another only once."""
    most = bench.capabilities.snapshots_per_unit
    count = _AT_ONCE if most is None else min(_AT_ONCE, most)
    if count < 2:
        raise NotTested("a unit carries one snapshot only")
    data = bytearray(bench.random_bytes((count + 2) * BLOCK_BYTES))
    await bench.write(unit, 0, bytes(data))
    states, made = [], []
    for number in range(count):
        for block in (0, number + 1):
            fresh = bench.random_bytes(BLOCK_BYTES)
            await bench.write(unit, block * BLOCK_BYTES, fresh)
            data[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = fresh
        states.append(bytes(data))
        made.append(await bench.cut(unit))
    await bench.write(unit, 0, bench.random_bytes(BLOCK_BYTES))
    return states, made


@TOPIC.shall(
    2,
    Level.DATA,
    "Deleting a snapshot shall not change what the others of the unit hold, nor what hosts read, "
    "in whatever order they are deleted.",
    capability="reads_back",
)
async def deletions(bench: ArrayBench) -> None:
    unit = bench.units[0]
    for order in permutations(range(_AT_ONCE)):
        states, made = await _series(bench, unit)
        live = await bench.read(unit, 0, len(states[0]))
        left = list(range(len(made)))
        for gone in [number for number in order if number in left]:
            await bench.delete(made[gone].ref)
            left.remove(gone)
            for number in left:
                got = await bench.held(made[number].ref, unit, 0, len(states[number]))
                told = f"snapshot {number + 1} after the deletion of {gone + 1} (order {order})"
                bench.compare(got, states[number], told)
            bench.compare(await bench.read(unit, 0, len(live)), live, "the unit after a deletion")


@dataclass(slots=True)
class _Kept:
    """A snapshot of a history, and what it has to hold of each of its units."""

    made: GroupSnapshot
    states: dict[int, bytes]


@dataclass(slots=True)
class _History:
    """Units, what they should hold, and the snapshots that there are."""

    bench: ArrayBench
    units: tuple[BenchUnit, ...]
    most: int
    live: list[bytearray] = field(default_factory=list)
    kept: list[_Kept] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    async def begin(self, length_bytes: int) -> None:
        """Write all over."""
        for unit in self.units:
            self.live.append(bytearray(self.bench.random_bytes(length_bytes)))
            await self.bench.write(unit, 0, bytes(self.live[-1]))

    async def change(self) -> None:
        """One step, drawn at random."""
        rng = self.bench.rng
        steps = [self.write] * 5 + [self.cut] * 2 + [self.delete]
        full = len(self.kept) >= self.most
        await rng.choice([s for s in steps if s != self.cut or not full])()

    async def write(self, *, odd: bool = False) -> None:
        """Write something somewhere; if ``odd``, several blocks from within one of them."""
        rng = self.bench.rng
        number = rng.randrange(len(self.units))
        size = len(self.live[number])
        length = rng.choice((rng.randrange(1, BLOCK_BYTES), BLOCK_BYTES, 16 * BLOCK_BYTES))
        length = min(length * rng.choice((1, 1, _LARGEST_BLOCKS // 16)), size)
        if odd:
            length = 16 * BLOCK_BYTES
        offset = rng.randrange(size - length) if size > length else 0
        if odd:
            offset += offset % BLOCK_BYTES == 0
        elif rng.random() < 0.5:
            offset -= offset % BLOCK_BYTES
        fresh = bytes(length) if rng.random() < 0.2 else self.bench.random_bytes(length)
        await self.bench.write(self.units[number], offset, fresh)
        self.live[number][offset : offset + length] = fresh
        self.done.append(f"write {length} bytes at {offset} of unit {number}")

    async def cut(self) -> None:
        """Snapshot one unit or both."""
        rng = self.bench.rng
        numbers = rng.sample(range(len(self.units)), rng.randint(1, len(self.units)))
        made = await self.bench.cut(*(self.units[number] for number in numbers))
        self.kept.append(_Kept(made, {number: bytes(self.live[number]) for number in numbers}))
        self.done.append(f"cut {made.ref.tag} of units {numbers}")

    async def delete(self) -> None:
        """Delete one of the snapshots, if there is any."""
        if self.kept:
            gone = self.kept.pop(self.bench.rng.randrange(len(self.kept)))
            await self.bench.delete(gone.made.ref)
            self.done.append(f"delete {gone.made.ref.tag}")

    async def compare(self) -> None:
        """Everything that there is with what should be there."""
        bench = self.bench
        bench.note(last_steps=self.done[-12:], steps=len(self.done))
        for number, unit in enumerate(self.units):
            wanted = bytes(self.live[number])
            bench.compare(await bench.read(unit, 0, len(wanted)), wanted, f"unit {number}")
        for one in self.kept:
            for number, wanted in one.states.items():
                got = await bench.held(one.made.ref, self.units[number], 0, len(wanted))
                bench.compare(got, wanted, f"snapshot {one.made.ref.tag} of unit {number}")


async def _history(bench: ArrayBench) -> _History:
    most = bench.capabilities.snapshots_per_unit
    units = bench.units[: min(_UNITS, bench.capabilities.units_per_group or _UNITS)]
    history = _History(bench, units, 4 if most is None else min(4, most))
    await history.begin(min(bench.span_bytes, 4 * _LARGEST_BLOCKS * BLOCK_BYTES))
    return history


@TOPIC.shall(
    3,
    Level.DATA,
    "After any sequence of writes, snapshots and deletions each snapshot shall hold what its units "
    "held at its cut, and each unit what was written last.",
    capability="reads_back",
)
async def any_history(bench: ArrayBench) -> None:
    history = await _history(bench)
    for _ in range(bench.effort.rounds):
        await history.write(odd=True)
        for _ in range(_CHANGES_PER_ROUND):
            await history.change()
        await history.compare()


@TOPIC.shall(
    4,
    Level.FAULT,
    "When the system has been restarted, its snapshots shall hold what they held before, and its "
    "units what had been acknowledged.",
    capability="reads_back",
    hooks=("restart",),
)
async def over_a_restart(bench: ArrayBench) -> None:
    history = await _history(bench)
    for _ in range(4 * _CHANGES_PER_ROUND):
        await history.change()
    while len(history.kept) >= history.most:
        await history.delete()
    await history.cut()
    await history.write()
    await bench.target.restart()
    async with bench.another_driver() as other:
        before, bench.driver = bench.driver, other
        try:
            await history.compare()
            while history.kept:  # now, because the connection from before may be of no more use
                await history.delete()
        finally:
            bench.driver = before
