"""A random walk over calls on a few tags, held against a model of what the contract says."""

from __future__ import annotations

from ...drivers.contracts import GroupSnapshotRef
from ...drivers.errors import DidNotHappenError, NeverWillError, NotFoundError
from ..array_bench import ArrayBench, BenchUnit
from .array_common import ids_of, largest_group, room_for, units_of

TAGS = 3
"""So few that each is used again and again."""
STEPS_PER_ROUND = 3


class _Walk:
    """What exists, by the contract, and the next step from there."""

    def __init__(self, bench: ArrayBench) -> None:
        self._bench = bench
        self._tags = [bench.tag("walk") for _ in range(TAGS)]
        self._alive: dict[str, tuple[GroupSnapshotRef, tuple[BenchUnit, ...]]] = {}
        self._gone: dict[str, GroupSnapshotRef] = {}
        self.steps: list[str] = []

    async def step(self) -> None:
        """One call, chosen by chance among those whose answer the contract fixes."""
        rng = self._bench.rng
        tag = rng.choice(self._tags)
        if tag in self._alive:
            await rng.choice((self._delete, self._delete, self._repeat, self._other_units))(tag)
        elif tag in self._gone and rng.random() < 0.3:
            await self._delete_again(tag)
        else:
            await self._make(tag)

    async def _make(self, tag: str) -> None:
        bench = self._bench
        size = bench.rng.randint(1, largest_group(bench))
        group = tuple(bench.rng.sample(bench.units, size))
        self._note("make", tag)
        made = await bench.driver.snapshot_group(bench.request(*group, tag=tag))
        new = made.ref != self._gone.get(tag) and units_of(made) == ids_of(group)
        self._expect(new, "a snapshot is not what was asked for")
        self._alive[tag] = made.ref, group

    async def _repeat(self, tag: str) -> None:
        ref, group = self._alive[tag]
        self._note("ask again", tag)
        again = await self._bench.driver.snapshot_group(self._bench.request(*group, tag=tag))
        self._expect(again.ref == ref, "a tag names another snapshot than before")

    async def _other_units(self, tag: str) -> None:
        _, group = self._alive[tag]
        others = [unit for unit in self._bench.units if unit not in group]
        if others:
            self._note("ask for other units", tag)
            call = self._bench.driver.snapshot_group(self._bench.request(others[0], tag=tag))
            wanted = (NeverWillError, DidNotHappenError)
            await self._bench.refused(call, *wanted, doing="a snapshot of other units")

    async def _delete(self, tag: str) -> None:
        ref, _ = self._alive.pop(tag)
        self._note("delete", tag)
        await self._bench.driver.delete_snapshot(ref)
        self._gone[tag] = ref

    async def _delete_again(self, tag: str) -> None:
        self._note("delete again", tag)
        call = self._bench.driver.delete_snapshot(self._gone[tag])
        await self._bench.refused(call, NotFoundError, doing="deleting what is gone")

    async def look(self) -> None:
        """The listing has to be what exists."""
        held = await self._bench.listed()
        found = {tag: (one.ref, units_of(one)) for tag, one in held.items()}
        wanted = {tag: (ref, ids_of(group)) for tag, (ref, group) in self._alive.items()}
        self._expect(found == wanted, "the listing is not what exists")

    def _note(self, step: str, tag: str) -> None:
        self.steps.append(f"{step} {self._tags.index(tag)}")

    def _expect(self, met: bool, what: str) -> None:
        self._bench.expect(met, f"{what} after {len(self.steps)} calls", steps=self.steps)


async def walk(bench: ArrayBench) -> None:
    """Walk for some steps per round, looking at the listing after each."""
    room_for(bench, TAGS)
    on_the_way = _Walk(bench)
    for _ in range(bench.effort.rounds * STEPS_PER_ROUND):
        await on_the_way.step()
        await on_the_way.look()
    bench.note(calls=len(on_the_way.steps))
