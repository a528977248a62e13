"""Where a qemu-storage-daemon array ends: no space, too many, too long, outside, standing still."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support_lab import needs_lab, short_folder
from support_qsd import NEEDS, Interruption, QsdArray, qsd_array

from stillframe.drivers import qsd_groups
from stillframe.drivers.errors import (
    DidNotHappenError,
    HappenedError,
    NeverWillError,
    PoolFullError,
)
from stillframe.drivers.qsd import QsdDriver
from stillframe.drivers.qsd_monitor import Look, Monitor, RefusedError
from stillframe.lab.host import run as run_tool

pytestmark = needs_lab(*NEEDS)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("qsd") as made:
        yield made


def run(folder: Path, check: Any) -> None:
    """Run a check on an array with a driver."""

    async def main() -> None:
        async with qsd_array(folder) as array, array.driver() as driver:
            await check(array, driver)

    asyncio.run(main())


def test_a_group_that_cannot_be_prepared_leaves_nothing(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        for command, number in (("blockdev-create", 1), ("blockdev-add", 3), ("transaction", 0)):
            refused = Interruption(command, number, _no_space)
            with refused.installed(), pytest.raises(PoolFullError, match="No space left"):
                await array.cut(driver, "full")
            assert array.overlays() == []
            assert array.pool.records() == []
        await array.write(4)
        made = await array.cut(driver, "full")
        assert await array.held(driver, made.ref) == [4, 4]

    run(folder, check)


async def _no_space() -> None:
    raise RefusedError("Could not resize image: No space left on device")


def test_a_pool_without_room_for_what_comes_after_is_not_snapshotted(folder: Path) -> None:
    async def check(array: QsdArray, _driver: QsdDriver) -> None:
        async with array.driver(
            least_free=1 << 60, qmp_socket=str(array.pool.lab_socket)
        ) as driver:
            with pytest.raises(PoolFullError, match=r"are needed.*delete snapshots"):
                await array.cut(driver, "full")
            assert array.overlays() == []
            assert array.pool.records() == []

    run(folder, check)


def test_a_unit_carries_so_many_snapshots_and_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qsd_groups, "MOST_SNAPSHOTS", 2)

    async def check(array: QsdArray, driver: QsdDriver) -> None:
        for tag in ("one", "two"):
            await array.cut(driver, tag, 0)
        with pytest.raises(NeverWillError, match="has 2 snapshots"):
            await array.cut(driver, "three")
        await array.cut(driver, "three", 1)

    run(folder, check)


def test_reading_outside_the_unit_is_refused(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        made = await array.cut(driver, "read")
        size = 8 << 20
        assert await driver.read_back(made.ref, "a/unit-0", 0, size) == bytes(size)
        assert await driver.read_back(made.ref, "a/unit-0", size, 0) == b""
        for offset, length in ((size, 1), (-1, 1), (0, size + 1)):
            with pytest.raises(NeverWillError, match="not within"):
                await driver.read_back(made.ref, "a/unit-0", offset, length)

    run(folder, check)


def test_a_clone_has_a_name_of_its_own(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        made = await array.cut(driver, "parent")
        clone = await driver.clone(made.ref, "a/unit-0", "job/1 of 2")
        assert clone.id == "a/clones/job/1 of 2"
        with pytest.raises(NeverWillError, match="there is a clone of this name"):
            await driver.clone(made.ref, "a/unit-1", "job/1 of 2")
        await driver.discard(clone.id)
        await driver.clone(made.ref, "a/unit-1", "job/1 of 2")

    run(folder, check)


def test_a_tag_too_long_for_a_file_is_refused_and_leaves_nothing(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        for tag in ("x" * 250, ":" * 100):  # as a file name, each colon takes three bytes
            with pytest.raises(NeverWillError, match="too long"):
                await array.cut(driver, tag)
        assert array.pool.records() == []
        made = await array.cut(driver, "x" * 200)
        with pytest.raises(NeverWillError, match="name too long"):
            await driver.clone(made.ref, "a/unit-0", "y" * 300)
        await driver.delete_snapshot(made.ref)

    run(folder, check)


def test_a_merge_without_room_is_finished_when_there_is_room(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        await array.write(1)
        first = await array.cut(driver, "first")
        for block in range(512):
            await array.write(2, block)
        second = await array.cut(driver, "second")
        filler = array.folder / "filler"
        with pytest.raises(OSError, match="No space left"):
            await asyncio.to_thread(filler.write_bytes, bytes(32 << 20))
        with pytest.raises(HappenedError, match="No space left"):
            await driver.delete_snapshot(first.ref)
        with pytest.raises(PoolFullError):
            await array.cut(driver, "third")
        assert await array.held(driver, second.ref, 511) == [2, 2]
        await asyncio.to_thread(filler.unlink)
        assert [one.ref.tag for one in await driver.list_snapshots("")] == ["second"]
        await driver.delete_snapshot(second.ref)
        assert array.overlays() == ["unit-0.second.2.qcow2", "unit-1.second.2.qcow2"]
        assert await array.live(511) == [2, 2]

    async def main() -> None:
        small = folder / "small"
        small.mkdir()
        await run_tool("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small)
        try:
            async with qsd_array(small) as array, array.driver(least_free=0) as driver:
                await check(array, driver)
        finally:
            await run_tool("umount", small)

    asyncio.run(main())


def test_what_never_moves_is_not_waited_for_for_ever(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder) as array:
            monitor = Monitor("a", array.pool.qmp_socket, 5.0, 0.1)
            steps = iter(range(3))

            async def look() -> Look:
                return Look(done=False, progress=next(steps, None))

            with pytest.raises(DidNotHappenError, match=r"nothing has moved for 0\.1 s"):
                await monitor.until("wait", "JOB_STATUS_CHANGE", look)
            assert next(steps, None) is None
            await monitor.close()

    asyncio.run(main())
