"""A process that dies in the middle of a snapshot leaves nothing frozen and nothing half made."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support_lab import needs_lab, short_folder
from support_xfs import NEEDS, Pool, Write, is_frozen, request, until, xfs_pool

from stillframe.drivers.errors import BusyError

pytestmark = needs_lab(*NEEDS)
CHILD = Path(__file__).with_name("support_xfs_child.py")


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("xfs") as made:
        yield made


@dataclass
class Child:
    """A process that stands still in the middle of a snapshot."""

    process: asyncio.subprocess.Process
    switch_pid: int

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def kill_switch(self) -> None:
        """The one that would thaw after its death dies first."""
        os.kill(self.switch_pid, signal.SIGKILL)
        status = Path(f"/proc/{self.switch_pid}/stat")
        await until(lambda: not status.exists() or ") Z " in status.read_text())


@asynccontextmanager
async def child_at(pool: Pool, stage: str, tag: str, *units: int) -> AsyncIterator[Child]:
    names = [pool.files[unit].name for unit in units]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), str(pool.path), tag, stage, *names, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield Child(process, int(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def leftovers(pool: Pool) -> list[str]:
    kept = ("snapshots", "staging", "trash", "frozen", "clones")
    return [str(path) for name in kept for path in (pool.hidden / name).iterdir()]


def test_its_datastores_are_thawed_when_it_dies(folder: Path) -> None:
    async def main() -> None:
        async with xfs_pool(folder) as pool:
            both = [await pool.datastore(number) for number in (0, 1)]
            async with child_at(pool, "frozen", "a", 0, 1) as child:
                writes = [Write(at / "n") for at in both]
                for write in writes:
                    write.blocks()
                await child.kill()
            for write in writes:
                write.ends()
            async with pool.driver() as driver:
                assert not await driver.list_snapshots("")
                assert not leftovers(pool)

    asyncio.run(main())


@pytest.mark.parametrize("by", ["opening", "an open driver"])
def test_the_next_driver_thaws_when_the_switch_died_too(folder: Path, by: str) -> None:
    async def main() -> None:
        async with xfs_pool(folder) as pool:
            at = await pool.datastore(0)
            if by == "opening":
                await die_frozen(pool)
                write = Write(at / "n")
                write.blocks()
                async with pool.driver() as driver:
                    write.ends()
            else:
                async with pool.driver() as driver:
                    await die_frozen(pool)
                    await driver.snapshot_group(request("b", pool.unit_ids[0]))
                    assert not is_frozen(at)
                    assert [one.ref.tag for one in await driver.list_snapshots("")] == ["b"]
            assert not list((pool.hidden / "frozen").iterdir())

    asyncio.run(main())


async def die_frozen(pool: Pool) -> None:
    async with child_at(pool, "frozen", "a", 0) as child:
        await child.kill_switch()
        await child.kill()


def test_a_datastore_that_a_living_process_holds_stays_frozen(folder: Path) -> None:
    async def main() -> None:
        async with xfs_pool(folder) as pool:
            at = await pool.datastore(0)
            async with child_at(pool, "frozen", "a", 0):
                write = Write(at / "n")
                async with pool.driver() as driver:
                    write.blocks()
                    with pytest.raises(BusyError, match="being made"):
                        await driver.snapshot_group(request("a", pool.unit_ids[0]))
                    with pytest.raises(BusyError, match="one of its units"):
                        await driver.snapshot_group(request("b", *pool.unit_ids))
                    snapshot = await driver.snapshot_group(request("c", pool.unit_ids[1]))
                    assert [one.ref for one in await driver.list_snapshots("")] == [snapshot.ref]
                write.blocks()
            write.ends()

    asyncio.run(main())


@pytest.mark.parametrize("stage", ["frozen", "copied", "finished"])
def test_half_a_snapshot_is_never_listed_and_is_swept(folder: Path, stage: str) -> None:
    async def main() -> None:
        async with xfs_pool(folder) as pool:
            async with child_at(pool, stage, "a", 0, 1) as child:
                async with pool.driver() as driver:
                    assert not await driver.list_snapshots("")
                    assert list((pool.hidden / "staging").iterdir())  # its maker lives
                await child.kill()
            async with pool.driver() as driver:
                assert not leftovers(pool)
                snapshot = await driver.snapshot_group(request("a", *pool.unit_ids))
                assert [one.ref for one in await driver.list_snapshots("")] == [snapshot.ref]

    asyncio.run(main())


def test_a_driver_that_is_open_makes_the_tag_anew(folder: Path) -> None:
    async def main() -> None:
        async with xfs_pool(folder) as pool, pool.driver() as driver:
            async with child_at(pool, "copied", "a", 0, 1) as child:
                await child.kill()
            snapshot = await driver.snapshot_group(request("a", pool.unit_ids[0]))
            assert snapshot.unit_ids == pool.unit_ids[:1]

    asyncio.run(main())


def test_half_a_deletion_is_finished(folder: Path) -> None:
    async def main() -> None:
        async with xfs_pool(folder) as pool:
            async with pool.driver() as driver:
                snapshot = await driver.snapshot_group(request("a", pool.unit_ids[0]))
            # What a process leaves that dies after it has put the snapshot away.
            (pool.hidden / "snapshots/tag-a").rename(pool.hidden / "trash/0")
            async with pool.driver() as driver:
                assert not leftovers(pool)
                again = await driver.snapshot_group(request("a", pool.unit_ids[0]))
                assert again.ref.snapshot_id != snapshot.ref.snapshot_id

    asyncio.run(main())
