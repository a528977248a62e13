"""The reflink array beside its fences: what it is opened on, its space, copies and errors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support_lab import needs_lab, short_folder
from support_xfs import MIB, NEEDS, PATIENCE_S, Pool, is_frozen, request, units_of, xfs_pool

from stillframe.drivers import xfs_fence, xfs_ioctl, xfs_store
from stillframe.drivers.contracts import GroupSnapshotRef
from stillframe.drivers.deadman import DeadMan
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    UnknownOutcomeError,
)
from stillframe.drivers.records import DeviceIdentity, DeviceKind
from stillframe.drivers.xfs_reflink import open_xfs_reflink
from stillframe.errors import InputError, StillframeError
from stillframe.lab.host import attach_loop, detach_loop, mount, run, unmount

pytestmark = needs_lab(*NEEDS)
Main = Callable[[Pool], Coroutine[Any, Any, None]]
OnPool = Callable[[Main], None]


@pytest.fixture
def on_pool() -> Iterator[OnPool]:
    with short_folder("xfs") as folder:

        def start(main: Main) -> None:
            async def go() -> None:
                async with xfs_pool(folder) as pool:
                    await main(pool)

            asyncio.run(go())

        yield start


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "array x: pool_folder: Field required"),
        ({"pool_folder": "/none/such"}, "array x: pool_folder: /none/such cannot be used"),
        ({"pool_folder": "/proc"}, "array x: pool_folder: /proc cannot be used"),
        ({"pool_folder": "/proc", "hold": "never"}, "array x: hold: Input should be 'always'"),
        ({"pool_folder": "/proc", "least_free": "-1 B"}, "array x: least_free"),
        ({"pool_folder": "/proc", "units": 3}, "array x: units: Extra inputs"),
    ],
)
def test_what_it_cannot_use_is_said_in_one_line(settings: dict[str, Any], message: str) -> None:
    async def main() -> None:
        async with open_xfs_reflink("x", settings):
            pytest.fail("it was opened")

    with pytest.raises(InputError) as raised:
        asyncio.run(main())
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_system_without_reflink_copies_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        image, at = tmp_path / "image", tmp_path / "ext4"
        with image.open("wb") as file:
            file.truncate(8 * MIB)
        device = await attach_loop(image, read_only=False, direct_io=False)
        try:
            await run("mkfs.ext4", "-q", device)
            await mount(device, at)
            try:
                with pytest.raises(InputError, match="file system without reflink copies"):
                    async with open_xfs_reflink("x", {"pool_folder": at}):
                        pass
                assert [path.name for path in at.iterdir()] == ["lost+found"]
            finally:
                await unmount(at)
        finally:
            await detach_loop(device)

    asyncio.run(main())


def test_devices_are_known_by_the_file_and_not_by_its_name(on_pool: OnPool) -> None:
    async def main(pool: Pool) -> None:
        hard, soft = pool.folder / "pool/.other-name", pool.folder / "soft"
        os.link(pool.files[0], hard)
        soft.symlink_to(pool.files[0])
        (pool.path / "a folder").mkdir()
        strange = ("/dev/null", "/etc/hostname", pool.path, pool.path / "none", pool.hidden)
        async with pool.driver() as driver:
            both = await units_of(driver, pool.files)
            assert [unit.id for unit in both] == list(pool.unit_ids)
            assert {unit.capacity_bytes for unit in both} == {32 * MIB}
            assert (await units_of(driver, [hard]))[0] == both[0]
            others = [DeviceIdentity(DeviceKind.FILE, str(path)) for path in (soft, *strange)]
            others.append(DeviceIdentity(DeviceKind.SERIAL, str(pool.files[0])))
            assert await driver.resolve(others) == {}
            snapshot = await driver.snapshot_group(request("a", *pool.unit_ids))
            clone = await driver.clone(snapshot.ref, pool.unit_ids[1], "c")
            assert (await driver.resolve(clone.devices)) == {clone.devices[0]: clone}

    on_pool(main)


def fill(pool: Pool, leave_bytes: int = 0) -> Path:
    """Take all free space of a pool but so much."""
    filler = pool.path / ".filler"
    with filler.open("ab") as file:
        for step in (64 * MIB, MIB, 4096):
            with contextlib.suppress(OSError):  # full already
                while _free_bytes(pool) - step >= leave_bytes:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), step)
    return filler


def _free_bytes(pool: Pool) -> int:
    facts = os.statvfs(pool.path)
    return facts.f_bavail * facts.f_frsize


def test_a_pool_with_too_little_free_is_said_to_be_full(on_pool: OnPool) -> None:
    async def main(pool: Pool) -> None:
        filler = fill(pool, leave_bytes=32 * MIB)
        async with pool.driver() as driver:
            with pytest.raises(PoolFullError, match="64 MiB are needed"):
                await driver.snapshot_group(request("a", *pool.unit_ids))
        async with pool.driver(least_free="16 MiB") as driver:
            snapshot = await driver.snapshot_group(request("a", *pool.unit_ids))
        fill(pool)
        # It can still be asked, and relieved.
        async with pool.driver(least_free=0) as driver:
            assert [one.ref for one in await driver.list_snapshots("")] == [snapshot.ref]
            await driver.delete_snapshot(snapshot.ref)
            filler.unlink()
            assert await driver.snapshot_group(request("b", *pool.unit_ids))

    on_pool(main)


@pytest.mark.parametrize("stage", ["share", "manifest"])
def test_space_that_runs_out_leaves_nothing(
    on_pool: OnPool, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main(pool: Pool) -> None:
        at = await pool.datastore(0)
        async with pool.driver() as driver:
            with monkeypatch.context() as patch:
                place = (xfs_ioctl, "share") if stage == "share" else (xfs_store.json, "dump")
                patch.setattr(*place, full)
                with pytest.raises(PoolFullError, match="the pool is full"):
                    await driver.snapshot_group(request("a", *pool.unit_ids))
            assert not is_frozen(at)
            assert not list((pool.hidden / "staging").iterdir())
            assert not await driver.list_snapshots("")
            assert await driver.snapshot_group(request("a", *pool.unit_ids))

    on_pool(main)


def test_a_failure_after_the_rename_leaves_the_outcome_open(
    on_pool: OnPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        sync = xfs_store._sync_folder

        def broken(folder: Path) -> None:
            if folder.name == "snapshots":
                raise OSError(errno.EIO, "Input/output error")
            sync(folder)

        async with pool.driver() as driver:
            monkeypatch.setattr(xfs_store, "_sync_folder", broken)
            with pytest.raises(UnknownOutcomeError, match="Input/output error"):
                await driver.snapshot_group(request("a", *pool.unit_ids))
            assert len(await driver.list_snapshots("a")) == 1

    on_pool(main)


def test_groups_of_different_units_are_cut_at_the_same_time(
    on_pool: OnPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        for number in (0, 1):
            await pool.datastore(number)
        share, both = xfs_ioctl.share, threading.Barrier(2, timeout=PATIENCE_S)

        def meet_and_share(source: int, copy: int) -> None:
            both.wait()
            share(source, copy)

        async with pool.driver() as one, pool.driver() as other:
            monkeypatch.setattr(xfs_ioctl, "share", meet_and_share)
            first, second = pool.unit_ids
            made = await asyncio.gather(
                one.snapshot_group(request("a", first)),
                one.snapshot_group(request("b", second)),
            )
            made += await asyncio.gather(
                one.snapshot_group(request("c", first)),
                other.snapshot_group(request("d", second)),
            )
            listed = {one.ref.tag: one for one in await other.list_snapshots("")}
            assert listed == {one.ref.tag: one for one in made}

    on_pool(main)


@pytest.mark.parametrize(
    ("number", "expected", "message"),
    [
        (errno.EPERM, NeverWillError, "not permitted"),
        (errno.EOPNOTSUPP, NeverWillError, "cannot be frozen"),
        (errno.EIO, DidNotHappenError, "cannot be frozen"),
    ],
)
def test_a_datastore_that_cannot_be_frozen_is_named(
    on_pool: OnPool,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    expected: type[Exception],
    message: str,
) -> None:
    async def main(pool: Pool) -> None:
        refusing, other = await pool.datastore(0), await pool.datastore(1)
        freeze, device = xfs_ioctl.freeze, refusing.stat().st_dev

        def refuse(folder: int) -> None:
            if os.fstat(folder).st_dev == device:
                raise OSError(number, os.strerror(number))
            freeze(folder)

        monkeypatch.setattr(xfs_ioctl, "freeze", refuse)
        async with pool.driver() as driver:
            with pytest.raises(expected, match=f"{refusing.name}|{message}") as raised:
                await driver.snapshot_group(request("a", *pool.unit_ids))
            assert message in str(raised.value)
        assert not is_frozen(other)

    on_pool(main)


def test_what_cannot_be_thawed_is_thawed_at_the_latest_when_the_driver_closes(
    on_pool: OnPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        at = await pool.datastore(0)

        def fail(folder: int) -> bool:
            raise OSError(errno.EIO, "Input/output error")

        async with pool.driver() as driver:
            with monkeypatch.context() as patch:
                patch.setattr(xfs_ioctl, "thaw", fail)
                with pytest.raises(DidNotHappenError, match="fsfreeze --unfreeze"):
                    await driver.snapshot_group(request("a", pool.unit_ids[0]))
            assert list((pool.hidden / "frozen").iterdir())
        assert not is_frozen(at)

    on_pool(main)


def test_nothing_is_frozen_when_nobody_could_thaw_after_a_crash(
    on_pool: OnPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        await pool.datastore(0)
        monkeypatch.setattr(xfs_ioctl, "freeze", lambda folder: pytest.fail("it froze"))

        def dead(*_: object) -> None:
            raise StillframeError("the dead man's switch has ended")

        async with pool.driver() as driver:
            monkeypatch.setattr(DeadMan, "hold", dead)
            with pytest.raises(DidNotHappenError, match="switch has ended"):
                await driver.snapshot_group(request("a", pool.unit_ids[0]))
            monkeypatch.setattr(DeadMan, "start", dead)
            with pytest.raises(DidNotHappenError, match="switch has ended"):
                await driver.snapshot_group(request("a", pool.unit_ids[0]))

    on_pool(main)


def test_writing_out_what_is_cached_may_not_take_for_ever(
    on_pool: OnPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        at, go_on = await pool.datastore(0), threading.Event()
        monkeypatch.setattr(xfs_fence.xfs_ioctl, "flush", lambda folder: go_on.wait(PATIENCE_S))
        async with pool.driver(flush_timeout="100 ms") as driver:
            with pytest.raises(DidNotHappenError, match=r"longer than 0\.1 s"):
                await driver.snapshot_group(request("a", pool.unit_ids[0]))
            go_on.set()
        assert not is_frozen(at)

    on_pool(main)


def test_clones_are_named_once_and_not_taken_away_under_a_host(on_pool: OnPool) -> None:
    async def main(pool: Pool) -> None:
        unit = pool.unit_ids[0]
        async with pool.driver() as driver:
            snapshot = await driver.snapshot_group(request("a", unit))
            clone = await driver.clone(snapshot.ref, unit, "c")
            for name in ("c", "", ".hidden", "a/b", "a\0b"):
                with pytest.raises(NeverWillError):
                    await driver.clone(snapshot.ref, unit, name)
            with pytest.raises(NotFoundError, match="not in it"):
                await driver.clone(snapshot.ref, pool.unit_ids[1], "d")
            file = Path(clone.devices[0].value)
            device = await attach_loop(file, read_only=True, direct_io=True)
            with pytest.raises(BusyError, match=f"{device} is on it"):
                await driver.discard(clone.id)
            await detach_loop(device)
            again = await driver.snapshot_group(request("of a clone", clone.id))
            assert again.unit_ids == (clone.id,)
            await driver.discard(clone.id)
            with pytest.raises(NotFoundError):
                await driver.discard(clone.id)
            with pytest.raises(NotFoundError):
                await driver.discard(unit)  # a unit is no clone
            assert pool.files[0].exists()
            assert await driver.read_back(again.ref, clone.id, 0, 1) == b"\0"

    on_pool(main)


def test_a_handle_reaches_only_the_snapshot_it_was_given_for(on_pool: OnPool) -> None:
    async def main(pool: Pool) -> None:
        unit = pool.unit_ids[0]
        async with pool.driver() as driver:
            old = await driver.snapshot_group(request("a", unit))
            await driver.delete_snapshot(old.ref)
            new = await driver.snapshot_group(request("a", unit))
            for call in (
                driver.delete_snapshot(old.ref),
                driver.read_back(old.ref, unit, 0, 1),
                driver.clone(GroupSnapshotRef("xfs", new.ref.snapshot_id, "b"), unit, "c"),
            ):
                with pytest.raises(NotFoundError):
                    await call
            assert [one.ref for one in await driver.list_snapshots("")] == [new.ref]
            for place in ((32 * MIB, 1), (-1, 1), (0, -1)):
                with pytest.raises(NeverWillError, match="holds 33554432 bytes"):
                    await driver.read_back(new.ref, unit, *place)
            with pytest.raises(NeverWillError, match="too long"):
                await driver.snapshot_group(request("a" * 252, unit))

    on_pool(main)


def test_what_it_keeps_of_a_snapshot_is_judged_when_it_is_read(on_pool: OnPool) -> None:
    async def main(pool: Pool) -> None:
        await pool.datastore(0)
        path = pool.hidden / "snapshots/tag-a/manifest.json"
        async with pool.driver() as driver:
            snapshot = await driver.snapshot_group(request("a", pool.unit_ids[0]))
            assert await driver.list_snapshots("a") == [snapshot]
            facts = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps(facts | {"boot": "an earlier one"}), encoding="utf-8")
            (listed,) = await driver.list_snapshots("")
            # That boot's clock says nothing in this one.
            assert (listed.ref, listed.cut_s, listed.fence) == (snapshot.ref, None, None)
            path.write_text("{", encoding="utf-8")
            with pytest.raises(NeverWillError, match=r"manifest\.json is damaged"):
                await driver.list_snapshots("")

    on_pool(main)
