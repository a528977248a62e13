"""Writers: what they put on units, in threads and through targets, and how they end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support_lab import short_folder

from stillframe.certify import writers as module
from stillframe.certify.array_bench import ArrayBench, BenchUnit
from stillframe.certify.array_target import ArrayTarget, ScratchUnit
from stillframe.certify.effort import EFFORTS
from stillframe.certify.recording import CallLog
from stillframe.certify.requirement import Blocked, NotTested
from stillframe.certify.writers import HEAVY, LIGHT, Load, Shape, Writers
from stillframe.drivers.records import DeviceIdentity, DeviceKind, StorageUnit, UnitKind

UNIT_BYTES = 1 << 20


class Files(ArrayTarget):
    """Units that are files; there is no array."""


class Slow(Files):
    """Writes one after the other in its own way, until it is told to fail or to hang."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.failing = False
        self.going = asyncio.Event()
        self.going.set()

    async def write(self, unit: ScratchUnit, offset_bytes: int, data: bytes) -> None:
        if self.failing:
            raise OSError("the path is gone")
        await self.going.wait()
        await super().write(unit, offset_bytes, data)


def with_bench(
    check: Callable[[ArrayBench], Awaitable[None]], kind: type[ArrayTarget] = Files, count: int = 3
) -> None:
    """Run a check on units that are files, in real time."""

    async def body(folder: Path) -> None:
        units = []
        for number in range(count):
            path = folder / f"unit-{number}"
            path.write_bytes(bytes(UNIT_BYTES))
            device = DeviceIdentity(DeviceKind.FILE, str(path))
            scratch = ScratchUnit((device,), UNIT_BYTES, path)
            made = StorageUnit(f"a/{number}", "a", "", UnitKind.LUN, UNIT_BYTES, (device,))
            units.append(BenchUnit(number, scratch, made))
        target = kind({}, folder, 1)
        log = CallLog()
        driver: Any = None
        bench = ArrayBench(driver, target, units, EFFORTS["quick"], {}, "t", 1, log)
        await check(bench)

    with short_folder("writers") as folder, asyncio.Runner() as runner:
        runner.run(body(folder))


def open_flags(path: Path | None) -> int:
    """How this process has a file open, as the kernel says."""
    for entry in Path("/proc/self/fd").iterdir():
        if entry.is_symlink() and entry.readlink() == path:
            told = Path(f"/proc/self/fdinfo/{entry.name}").read_text(encoding="ascii")
            return int(told.split("flags:")[1].split()[0], 8)
    raise AssertionError(f"{path} is not open")


async def go_on(writers: Writers) -> None:
    """Wait for the writers until they say that they cannot."""
    while True:
        await writers.advance()


async def image(bench: ArrayBench, writers: Writers) -> None:
    """Every slot holds the last write that was acknowledged."""
    for number, unit in enumerate(writers.units):
        data = await bench.read(unit, 0, writers.load.length_bytes)
        for chain in writers.chains:
            for slot in range(chain.plan.slots):
                start = chain.plan.offset_bytes(slot)
                held = chain.plan.decode(data[start : start + chain.plan.write_bytes])
                assert held is not None
                assert held.low == chain.plan.last(len(chain.acknowledged_s), number, slot)


@pytest.mark.parametrize("kind", [Files, Slow])
@pytest.mark.parametrize("load", [LIGHT, HEAVY], ids=lambda load: load.name)
def test_what_was_acknowledged_is_on_the_units(kind: type[ArrayTarget], load: Load) -> None:
    async def check(bench: ArrayBench) -> None:
        async with Writers(bench, bench.units, load) as writers:
            await writers.advance(4)
        assert not writers.trouble
        await image(bench, writers)
        made = sum(len(c.acknowledged_s) * c.plan.write_bytes for c in writers.chains)
        assert bench.written_bytes == made + len(bench.units) * load.length_bytes

    with_bench(check, kind)


def test_each_write_of_a_chain_begins_when_the_one_before_was_acknowledged() -> None:
    async def check(bench: ArrayBench) -> None:
        async with Writers(bench, bench.units, LIGHT) as writers:
            await writers.advance(10)
        first, second = (chain.plan.order for chain in writers.chains)
        assert first == second[::-1]
        assert sorted(first) == [0, 1, 2]
        for chain in writers.chains:
            assert len(chain.issued_s) == len(chain.acknowledged_s) >= 30
            times_s = [
                time_s
                for pair in zip(chain.issued_s, chain.acknowledged_s, strict=True)
                for time_s in pair
            ]
            assert times_s == sorted(times_s)

    with_bench(check)


def test_paths_are_written_in_threads_and_other_targets_through_their_method() -> None:
    async def count(bench: ArrayBench) -> None:
        before = {thread.name for thread in threading.enumerate()}
        async with Writers(bench, bench.units, LIGHT) as writers:
            names = {thread.name for thread in threading.enumerate()} - before
            found = [name for name in names if name.startswith("stillframe writer")]
            assert bool(found) is (type(bench.target) is Files)
            await writers.advance()
            if found:
                flags = [open_flags(unit.scratch.path) for unit in bench.units]
                assert all(one & os.O_DIRECT and one & os.O_DSYNC for one in flags)

    with_bench(count, Files)
    with_bench(count, Slow)


def test_a_mark_tells_no_more_than_was_acknowledged_and_no_less_than_was_begun() -> None:
    async def check(bench: ArrayBench) -> None:
        async with Writers(bench, bench.units, LIGHT) as writers:
            for _ in range(50):
                mark = writers.mark()
                for number, chain in enumerate(writers.chains):
                    done = mark.acknowledged[number]
                    assert not done or chain.acknowledged_s[done - 1] <= mark.at_s
                    assert chain.issued(mark.issued[number] + 1) >= mark.at_s
                await writers.advance(1)

    with_bench(check)


@pytest.mark.parametrize("kind", [Files, Slow])
def test_while_writers_rest_nothing_is_begun(kind: type[ArrayTarget]) -> None:
    async def check(bench: ArrayBench) -> None:
        async with Writers(bench, bench.units, LIGHT) as writers:
            await writers.advance()
            async with writers.resting():

                async def resting() -> bool:
                    return all(len(c.issued_s) == len(c.acknowledged_s) for c in writers.chains)

                assert await bench.until(resting, 10.0)
                before = [len(chain.issued_s) for chain in writers.chains]
                await bench.read(bench.units[0], 0, 4096)
                assert [len(chain.issued_s) for chain in writers.chains] == before
            await writers.advance()

    with_bench(check, kind)


def test_a_write_that_fails_is_told_and_blocks_whoever_waits() -> None:
    async def check(bench: ArrayBench) -> None:
        assert isinstance(bench.target, Slow)
        async with Writers(bench, bench.units, LIGHT) as writers:
            await writers.advance()
            bench.target.failing = True
            with pytest.raises(Blocked, match="the path is gone"):
                await go_on(writers)
            assert not await writers.advanced(1)

    with_bench(check, Slow)


def test_a_path_that_cannot_be_written_is_told() -> None:
    async def check(bench: ArrayBench) -> None:
        path = bench.units[0].scratch.path
        assert path is not None
        path.unlink()
        writers = Writers(bench, bench.units, LIGHT)
        writers._start_thread(writers.chains[0], "stillframe writer x")
        writers.chains[1].done.set()
        await writers.chains[0].done.wait()
        assert "No such file" in writers.trouble

    with_bench(check)


def test_a_write_that_never_comes_back_does_not_keep_a_check_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STOP_LIMIT_S", 0.05)
    monkeypatch.setattr(module, "ADVANCE_LIMIT_S", 0.05)

    async def check(bench: ArrayBench) -> None:
        assert isinstance(bench.target, Slow)

        async def hang() -> None:
            assert isinstance(bench.target, Slow)
            async with Writers(bench, bench.units, LIGHT) as writers:
                bench.target.going.clear()
                with pytest.raises(Blocked, match="stand still"):
                    await go_on(writers)

        async def fail() -> None:
            assert isinstance(bench.target, Slow)
            async with Writers(bench, bench.units, LIGHT) as writers:
                bench.target.going.clear()

                async def writing() -> bool:
                    return any(len(c.issued_s) > len(c.acknowledged_s) for c in writers.chains)

                assert await bench.until(writing, 10.0)
                raise RuntimeError("what happens within is not hidden by its end")

        with pytest.raises(Blocked, match="did not come back"):
            await hang()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        bench.target.going.set()
        with pytest.raises(RuntimeError, match="its end"):
            await fail()

    with_bench(check, Slow)


def test_units_that_are_too_short_are_not_tested() -> None:
    async def check(bench: ArrayBench) -> None:
        with pytest.raises(NotTested, match="shorter"):
            Writers(bench, bench.units, Load("large", (Shape(UNIT_BYTES, 8),)))

    with_bench(check)
