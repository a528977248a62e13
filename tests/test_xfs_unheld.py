"""What can write to a unit and cannot be held is told, and refused where it would tear a group."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support_lab import needs_lab, short_folder
from support_xfs import NEEDS, Pool, Write, is_frozen, request, xfs_pool

from stillframe.drivers import xfs_ioctl, xfs_make, xfs_users
from stillframe.drivers.errors import DidNotHappenError, NeverWillError
from stillframe.drivers.xfs_users import block_writers, device_number, mount_table, under
from stillframe.lab.host import attach_loop, mount, run, unmount

pytestmark = needs_lab(*NEEDS)
Main = Callable[[Pool], Coroutine[Any, Any, None]]


@pytest.fixture
def on_pool() -> Iterator[Callable[[Main], None]]:
    with short_folder("xfs") as folder:

        def start(main: Main) -> None:
            async def go() -> None:
                async with xfs_pool(folder) as pool:
                    await main(pool)

            asyncio.run(go())

        yield start


def test_a_bare_loop_device_is_refused_in_a_group_only(on_pool: Callable[[Main], None]) -> None:
    async def main(pool: Pool) -> None:
        device = await attach_loop(pool.files[0], read_only=False, direct_io=True)
        async with pool.driver() as driver:
            with pytest.raises(NeverWillError, match=f"{device} on unit-0, not mounted here"):
                await driver.snapshot_group(request("a", *pool.unit_ids))
            assert await driver.snapshot_group(request("b", pool.unit_ids[0]))
            # The other unit is nobody's, and alone it is not asked who writes to it.
            assert await driver.snapshot_group(request("c", pool.unit_ids[1]))

    on_pool(main)


def test_what_cannot_write_is_no_obstacle(on_pool: Callable[[Main], None]) -> None:
    async def main(pool: Pool) -> None:
        await attach_loop(pool.files[0], read_only=True, direct_io=True)
        with pool.files[1].open("rb"):
            async with pool.driver() as driver:
                assert await driver.snapshot_group(request("a", *pool.unit_ids))

    on_pool(main)


@pytest.mark.parametrize("mounted", [False, True], ids=["alone", "beside a datastore"])
def test_a_process_that_has_a_unit_open_is_refused(
    on_pool: Callable[[Main], None], mounted: bool
) -> None:
    async def main(pool: Pool) -> None:
        at = await pool.datastore(0) if mounted else None
        with pool.files[0].open("r+b"):
            async with pool.driver() as driver:
                with pytest.raises(NeverWillError, match=f"process {os.getpid()} on unit-0"):
                    await driver.snapshot_group(request("a", *pool.unit_ids))
                assert at is None or not is_frozen(at)

    on_pool(main)


def test_a_writer_that_is_no_process_is_seen(
    on_pool: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        with pool.files[0].open("r+b"):
            # As for a server in the kernel, which has no process.
            monkeypatch.setattr(xfs_users, "_processes", lambda wanted: [])
            assert xfs_users.raw_writers(pool.files, frozenset()) == [
                "something that is no process on unit-0"
            ]
        assert xfs_users.raw_writers(pool.files, frozenset()) == []

    on_pool(main)


def test_when_it_is_allowed_atomic_groups_are_not_claimed(
    on_pool: Callable[[Main], None],
) -> None:
    async def main(pool: Pool) -> None:
        await attach_loop(pool.files[0], read_only=False, direct_io=True)
        async with pool.driver() as careful:
            assert careful.capabilities.atomic_groups
            assert careful.capabilities.holds_writes
        async with pool.driver(unheld="allow") as driver:
            assert not driver.capabilities.atomic_groups
            assert await driver.snapshot_group(request("a", *pool.unit_ids))

    on_pool(main)


def test_a_mount_that_comes_during_the_cut_spoils_it(
    on_pool: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        await pool.datastore(0)
        share = xfs_ioctl.share

        def attach_and_share(source: int, copy: int) -> None:
            subprocess.run(["losetup", "--find", str(pool.files[1])], check=True)
            share(source, copy)

        async with pool.driver() as driver:
            monkeypatch.setattr(xfs_ioctl, "share", attach_and_share)
            with pytest.raises(DidNotHappenError, match="came or went"):
                await driver.snapshot_group(request("a", *pool.unit_ids))
            assert not await driver.list_snapshots("")

    on_pool(main)


def test_a_partition_that_is_not_mounted_is_not_held(on_pool: Callable[[Main], None]) -> None:
    async def main(pool: Pool) -> None:
        file = pool.files[0]
        device = Path((await run("losetup", "--find", "--show", "--partscan", file)).strip())
        parts = [Path(f"{device}p{number}") for number in (1, 2)]
        for number, part in enumerate(parts, start=1):
            # Told to the kernel by hand: not every kernel reads partition tables.
            await run("addpart", device, str(number), str(number * 16384), "16384")
            await run("mkfs.ext4", "-q", part)
        mounts = [pool.folder / part.name for part in parts]
        await mount(parts[0], mounts[0])
        async with pool.driver() as driver:
            with pytest.raises(NeverWillError, match=f"{parts[1]} on unit-0, not mounted here"):
                await driver.snapshot_group(request("a", *pool.unit_ids))
            await mount(parts[1], mounts[1])
            assert await driver.snapshot_group(request("a", *pool.unit_ids))
            assert [writer.mounts for writer in block_writers([file])] == [(at,) for at in mounts]

    on_pool(main)


def test_a_mount_point_that_another_mount_covers_is_not_taken_for_it(
    on_pool: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen by its path alone, the file system on top would be frozen in its place."""

    async def main(pool: Pool) -> None:
        at = await pool.datastore(0)
        covering = await attach_loop(pool.files[1], read_only=False, direct_io=True)
        await run("mkfs.ext4", "-q", covering)
        await mount(covering, at)
        share, writes = xfs_ioctl.share, []

        def write_and_share(source: int, copy: int) -> None:
            writes.append(Write(at / "n"))
            writes[0].ends()
            share(source, copy)

        async with pool.driver() as driver:
            with monkeypatch.context() as patch:
                patch.setattr(xfs_ioctl, "share", write_and_share)
                with pytest.raises(DidNotHappenError, match="not mounted any more"):
                    await driver.snapshot_group(request("a", pool.unit_ids[0]))
            await unmount(at)
            assert await driver.snapshot_group(request("b", pool.unit_ids[0]))

    on_pool(main)


def test_the_pool_itself_is_never_frozen(
    on_pool: Callable[[Main], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        at = await pool.datastore(0)
        own = device_number(at.stat().st_dev)
        # As if the pool's image lay on that datastore.
        monkeypatch.setattr(xfs_make.xfs_users, "under", lambda device: {device, own})
        monkeypatch.setattr(xfs_ioctl, "freeze", lambda folder: pytest.fail("it froze"))
        async with pool.driver() as driver:
            with pytest.raises(NeverWillError, match="holds the pool itself"):
                await driver.snapshot_group(request("a", pool.unit_ids[0]))

    on_pool(main)


def test_what_a_file_system_lies_on_is_followed_down_to_the_host(
    on_pool: Callable[[Main], None],
) -> None:
    async def main(pool: Pool) -> None:
        at = await pool.datastore(0)
        numbers = [device_number(one.stat().st_dev) for one in (at, pool.path, pool.folder)]
        assert set(numbers) <= under(numbers[0])
        assert numbers[0] not in under(numbers[1])
        assert {mount.device for mount in mount_table()} >= set(numbers)

    on_pool(main)
