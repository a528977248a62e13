"""A qemu-storage-daemon array against a model in memory: any sequence of calls and crashes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_blocks import BLOCK_BYTES, read_block, value_of, write_block
from support_lab import needs_lab, short_folder
from support_qsd import NEEDS, QsdArray, qsd_array

from stillframe.drivers.contracts import GroupSnapshotRef
from stillframe.drivers.errors import BusyError
from stillframe.drivers.qsd import QsdDriver
from stillframe.drivers.records import UnitId

pytestmark = needs_lab(*NEEDS)
UNITS, BLOCKS = 2, 3
Content = dict[int, int]


class Cut(NamedTuple):
    """A snapshot that ought to exist, and what it ought to hold."""

    ref: GroupSnapshotRef
    held: dict[int, Content]


class Copy(NamedTuple):
    """A clone that ought to exist, and what it ought to hold."""

    unit_id: UnitId
    of: str
    file: Path
    held: Content


step = st.one_of(
    st.tuples(st.just("write"), st.integers(0, UNITS - 1), st.integers(0, BLOCKS - 1)),
    st.tuples(st.just("cut"), st.sets(st.integers(0, UNITS - 1), min_size=1).map(sorted)),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("clone"), st.integers(0, 9)),
    st.tuples(st.just("write clone"), st.integers(0, 9), st.integers(0, BLOCKS - 1)),
    st.tuples(st.just("discard"), st.integers(0, 9)),
    st.tuples(st.just("crash")),
)


class Play:
    """An array, and what ought to be on it."""

    def __init__(self, array: QsdArray) -> None:
        self.array = array
        self.live: dict[int, Content] = {unit: dict.fromkeys(range(BLOCKS), 0) for unit in range(2)}
        self.cuts: dict[str, Cut] = {}
        self.copies: list[Copy] = []
        self.number = 0

    async def do(self, driver: QsdDriver, what: str, *given: object) -> None:
        """One step; one that has no object is left out."""
        self.number += 1
        await getattr(self, what.replace(" ", "_"))(driver, *given)

    async def write(self, _: QsdDriver, unit: int, block: int) -> None:
        await asyncio.to_thread(write_block, self.array.files[unit], block, self.number)
        self.live[unit][block] = self.number

    async def cut(self, driver: QsdDriver, units: list[int]) -> None:
        tag = f"t{self.number}"
        made = await self.array.cut(driver, tag, *units)
        self.cuts[tag] = Cut(made.ref, {unit: dict(self.live[unit]) for unit in units})

    async def delete(self, driver: QsdDriver, which: int) -> None:
        if not self.cuts:
            return
        tag = sorted(self.cuts)[which % len(self.cuts)]
        if any(copy.of == tag for copy in self.copies):
            with pytest.raises(BusyError):
                await driver.delete_snapshot(self.cuts[tag].ref)
        else:
            await driver.delete_snapshot(self.cuts.pop(tag).ref)

    async def clone(self, driver: QsdDriver, which: int) -> None:
        if not self.cuts:
            return
        tag = sorted(self.cuts)[which % len(self.cuts)]
        unit, content = next(iter(self.cuts[tag].held.items()))
        unit_id, name = self.array.unit_ids[unit], f"c{self.number}"
        made = await driver.clone(self.cuts[tag].ref, unit_id, name)
        self.copies.append(Copy(made.id, tag, Path(made.devices[0].value), dict(content)))

    async def write_clone(self, _: QsdDriver, which: int, block: int) -> None:
        if self.copies:
            copy = self.copies[which % len(self.copies)]
            await asyncio.to_thread(write_block, copy.file, block, self.number)
            copy.held[block] = self.number

    async def discard(self, driver: QsdDriver, which: int) -> None:
        if self.copies:
            copy = self.copies.pop(which % len(self.copies))
            await driver.discard(copy.unit_id)

    async def crash(self, _: QsdDriver) -> None:
        await self.array.kill_and_restart()

    async def check(self, driver: QsdDriver) -> None:
        """Everything is what it ought to be."""
        listed = {one.ref.tag: one.ref for one in await driver.list_snapshots("")}
        assert listed == {tag: cut.ref for tag, cut in self.cuts.items()}
        for cut in self.cuts.values():
            for unit, content in cut.held.items():
                length = BLOCKS * BLOCK_BYTES
                data = await driver.read_back(cut.ref, self.array.unit_ids[unit], 0, length)
                for block, value in content.items():
                    start = block * BLOCK_BYTES
                    assert value_of(data[start : start + BLOCK_BYTES]) == value
        for unit, content in self.live.items():
            assert await blocks_of(self.array.files[unit]) == content
        for copy in self.copies:
            assert await blocks_of(copy.file) == copy.held


async def blocks_of(file: Path) -> Content:
    """What a unit or clone holds now."""
    return {
        block: await asyncio.to_thread(read_block, file, block * BLOCK_BYTES)
        for block in range(BLOCKS)
    }


@given(st.lists(step, min_size=1, max_size=14))
@settings(max_examples=12, deadline=None)
def test_it_holds_what_a_model_in_memory_holds(steps: list[tuple[object, ...]]) -> None:
    async def main(folder: Path) -> None:
        async with qsd_array(folder, UNITS) as array, AsyncExitStack() as stack:
            driver = await stack.enter_async_context(array.driver())
            play = Play(array)
            for what, *given_ in steps:
                await play.do(driver, str(what), *given_)
            await play.check(driver)

    with short_folder("qsd") as folder:
        asyncio.run(main(folder))
