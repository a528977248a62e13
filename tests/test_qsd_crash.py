"""A daemon or a driver that ends in the middle, at every command, and what is left of a group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support_blocks import write_block
from support_lab import needs_lab, short_folder
from support_qsd import NEEDS, Died, Interruption, QsdArray, die, qsd_array

from stillframe.drivers.contracts import GroupSnapshot
from stillframe.drivers.errors import DriverError, UnknownOutcomeError
from stillframe.drivers.qsd import QsdDriver
from stillframe.drivers.qsd_pool import Stage

pytestmark = needs_lab(*NEEDS)
ENDS = ("daemon", "driver")
MAKING = ("blockdev-add", "blockdev-create", "job-dismiss", "transaction")
DELETING = ("block-commit", "job-dismiss", "blockdev-del")


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("qsd") as made:
        yield made


async def three_states(array: QsdArray, driver: QsdDriver) -> list[GroupSnapshot]:
    """Snapshots that hold 1 and 2; the units hold 3."""
    made = []
    for value in (1, 2):
        await array.write(value)
        made.append(await array.cut(driver, f"s{value}"))
    await array.write(3)
    return made


async def delete_two(array: QsdArray, driver: QsdDriver, made: list[GroupSnapshot]) -> None:
    """Merge one overlay into another, then that one into the unit's first image."""
    await array.cut(driver, "later")
    await driver.delete_snapshot(made[1].ref)
    await driver.delete_snapshot(made[0].ref)


async def everywhere(
    commands: Sequence[str], at: Callable[[str, int], Awaitable[bool]]
) -> dict[str, int]:
    """Try the end at every one of these commands; how often each was struck."""
    struck = dict.fromkeys(commands, 0)
    for command in commands:
        while await at(command, struck[command]):
            struck[command] += 1
    return struck


def interruption(
    array: QsdArray, command: str, number: int, end: str, *, after: bool
) -> Interruption:
    """The end of the daemon or of the driver at one command."""
    return Interruption(
        command, number, array.backend.kill if end == "daemon" else die, after=after
    )


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("end", ENDS)
def test_a_snapshot_is_there_whole_or_not_at_all(folder: Path, end: str, after: bool) -> None:
    async def at(command: str, number: int) -> bool:
        async with qsd_array(folder) as array:
            told: type[BaseException] | None = None
            ending = interruption(array, command, number, end, after=after)
            async with array.driver() as driver:
                made = await three_states(array, driver)
                with ending.installed():
                    try:
                        await array.cut(driver, "new")
                    except (DriverError, Died) as error:
                        told = type(error)
            if not ending.struck:
                return False
            if end == "daemon":
                array.files = await array.backend.restart()
            async with array.driver() as driver:
                tags = [one.ref.tag for one in await driver.list_snapshots("")]
                assert tags[:2] == ["s1", "s2"]
                # Decided at the transaction; the daemon's death right after it undoes it again, as
                # nobody has been told and nothing has been written since.
                there = (command, after, end) == ("transaction", True, "driver")
                assert tags[2:] == ["new"] * there
                unknown = (command, end) == ("transaction", "daemon") and after
                assert (told is UnknownOutcomeError) is unknown
                again = await array.cut(driver, "new")  # the same one, or at last
                await array.write(4)
                assert await array.held(driver, again.ref) == [3, 3]
                for one, value in zip(made, (1, 2), strict=True):
                    assert await array.held(driver, one.ref) == [value, value]
                assert await array.live() == [4, 4]
                assert len(array.overlays()) == 6
                assert len(array.pool.records()) == 3
            return True

    struck = asyncio.run(everywhere(MAKING, at))
    assert (struck["transaction"], struck["blockdev-add"], struck["blockdev-create"]) == (1, 4, 2)
    assert struck["job-dismiss"] == 2


def test_a_cut_is_kept_when_writes_came_after_it_and_nobody_was_told(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder) as array:

            async def write_and_die() -> None:
                await asyncio.to_thread(write_block, array.files[0], 0, 9)
                await array.backend.kill()

            async with array.driver() as driver:
                await three_states(array, driver)
                ending = Interruption("transaction", 0, write_and_die, after=True)
                with ending.installed(), pytest.raises(UnknownOutcomeError):
                    await array.cut(driver, "new")
            assert [one.stage for one in array.pool.records()][-1] is Stage.MAKING
            array.files = await array.backend.restart()
            async with array.driver() as driver:
                (new,) = await driver.list_snapshots("new")
                assert await array.held(driver, new.ref) == [3, 3]
                assert await array.live() == [9, 3]

    asyncio.run(main())


def test_a_snapshot_that_was_listed_once_outlives_the_daemon(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder) as array:
            async with array.driver() as driver:
                ending = Interruption("transaction", 0, die, after=True)
                with ending.installed(), pytest.raises(Died):
                    await array.cut(driver, "new")
            async with array.driver() as driver:
                (new,) = await driver.list_snapshots("new")
            await array.kill_and_restart()
            async with array.driver() as driver:
                assert [one.ref for one in await driver.list_snapshots("")] == [new.ref]

    asyncio.run(main())


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("end", ENDS)
def test_a_deletion_is_finished_later_and_harms_nothing(
    folder: Path, end: str, after: bool
) -> None:
    units = 2 if (end, after) == ("driver", False) else 1

    async def at(command: str, number: int) -> bool:
        async with qsd_array(folder, units) as array:
            ending = interruption(array, command, number, end, after=after)
            async with array.driver() as driver:
                made = await three_states(array, driver)
                await array.write(7, block=1)
                with ending.installed(), contextlib.suppress(DriverError, Died):
                    await delete_two(array, driver, made)
            if not ending.struck:
                return False
            if end == "daemon":
                array.files = await array.backend.restart()
            async with array.driver() as driver:
                assert (await array.live(), await array.live(1)) == ([3] * units, [7] * units)
                listed = {one.ref.tag: one.ref for one in await driver.list_snapshots("")}
                holds = {"s1": 1, "s2": 2, "later": 3}
                for tag, ref in listed.items():
                    assert await array.held(driver, ref) == [holds[tag]] * units, tag
                extra = await array.cut(driver, "extra")
                await array.cut(driver, "last")
                for ref in (*listed.values(), extra.ref):
                    await driver.delete_snapshot(ref)
                assert (await array.live(), await array.live(1)) == ([3] * units, [7] * units)
                assert len(array.overlays()) == units
                assert len(array.pool.records()) == 1
            await array.kill_and_restart()
            assert (await array.live(), await array.live(1)) == ([3] * units, [7] * units)

        return True

    struck = asyncio.run(everywhere(DELETING, at))
    assert struck["block-commit"] == struck["blockdev-del"] / 2 == 2 * units
