"""The writes of datastores are held while their units are copied, and let go whatever happens."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support_lab import needs_lab, short_folder
from support_xfs import MIB, NEEDS, PATIENCE_S, Pool, Write, is_frozen, is_held, request, xfs_pool

from stillframe.drivers import xfs_ioctl
from stillframe.drivers.errors import BusyError, DidNotHappenError
from stillframe.lab.host import run

pytestmark = needs_lab(*NEEDS)
Share = Callable[[int, int], None]


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("xfs") as made:
        yield made


class DuringTheCut:
    """Has something done after the first unit was copied and before the second is."""

    def __init__(self, patch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
        self._share: Share = xfs_ioctl.share
        self._then = then
        self._copies = 0
        patch.setattr(xfs_ioctl, "share", self._copy)

    def _copy(self, source: int, copy: int) -> None:
        self._share(source, copy)
        self._copies += 1
        if self._copies == 1:
            self._then()


def write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def test_a_pair_written_between_two_copies_is_in_neither(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[Write] = []

    async def main(pool: Pool) -> None:
        first, second = await pool.datastore(0), await pool.datastore(1)
        for at in (first, second):
            write_synced(at / "n", b"old")

        def write_pair() -> None:
            writes.append(Write(first / "n", second / "n"))
            writes[0].blocks()

        async with pool.driver() as driver:
            DuringTheCut(monkeypatch, write_pair)
            snapshot = await driver.snapshot_group(request("a", *pool.unit_ids))
            writes[0].ends()
            for unit_id in snapshot.unit_ids:
                async with pool.clone_mounted(driver, snapshot, unit_id) as at:
                    assert (at / "n").read_bytes() == b"old"
        assert (first / "n").read_bytes() == (second / "n").read_bytes() == b"new"
        assert snapshot.fence is not None
        assert snapshot.cut_s is not None
        assert snapshot.fence.start_s < snapshot.cut_s < snapshot.fence.end_s
        assert writes[0].ended_s is not None
        assert writes[0].ended_s > snapshot.cut_s

    on_pool(folder, main)


@pytest.mark.parametrize("direct_io", [True, False], ids=["direct", "buffered"])
def test_all_that_was_written_before_the_cut_is_in_it_and_clean(
    folder: Path, direct_io: bool
) -> None:
    async def main(pool: Pool) -> None:
        at = await pool.datastore(0, direct_io=direct_io)
        synced, cached = os.urandom(MIB), os.urandom(MIB)
        write_synced(at / "synced", synced)
        (at / "cached").write_bytes(cached)
        async with pool.driver() as driver:
            snapshot = await driver.snapshot_group(request("a", pool.unit_ids[0]))
            (at / "cached").write_bytes(b"later")
            write_synced(at / "later", b"later")
            options = ("ro", "noload")  # without the journal: the file system itself is clean
            async with pool.clone_mounted(driver, snapshot, pool.unit_ids[0], *options) as seen:
                assert (seen / "synced").read_bytes() == synced
                assert (seen / "cached").read_bytes() == cached
                assert not (seen / "later").exists()

    on_pool(folder, main)


@pytest.mark.parametrize("direct_io", [True, False], ids=["direct", "buffered"])
def test_without_a_hold_one_unit_still_shows_what_was_synced(folder: Path, direct_io: bool) -> None:
    """A reflink copy flushes the page cache of the unit: a buffered loop device loses nothing."""

    async def main(pool: Pool) -> None:
        at = await pool.datastore(0, direct_io=direct_io)
        async with pool.driver(hold="groups") as driver:
            for number in range(5):
                data = os.urandom(MIB)
                write_synced(at / "n", data)
                snapshot = await driver.snapshot_group(request(f"a{number}", pool.unit_ids[0]))
                assert snapshot.fence is None
                async with pool.clone_mounted(driver, snapshot, pool.unit_ids[0]) as seen:
                    assert (seen / "n").read_bytes() == data

    on_pool(folder, main)


def test_the_loop_may_write_to_what_it_has_had_frozen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program's own journal may lie on a datastore: the fence must end without its loop."""

    async def main(pool: Pool) -> None:
        at = await pool.datastore(0)
        loop, thread = asyncio.get_running_loop(), threading.main_thread()

        def loop_writes() -> None:
            loop.call_soon_threadsafe(write_synced, at / "journal", b"entry")
            give_up_s = time.monotonic() + PATIENCE_S
            while not is_held(thread.native_id or 0):
                assert time.monotonic() < give_up_s

        async with pool.driver() as driver:
            DuringTheCut(monkeypatch, loop_writes)
            await driver.snapshot_group(request("a", pool.unit_ids[0]))
        assert (at / "journal").read_bytes() == b"entry"

    on_pool(folder, main)


def test_a_freeze_that_takes_too_long_is_given_up_and_thawed_when_it_comes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        slow, quick = await pool.datastore(0), await pool.datastore(1)
        freeze, go_on = xfs_ioctl.freeze, threading.Event()
        slow_device = slow.stat().st_dev

        def freeze_late(opened: int) -> None:
            if os.fstat(opened).st_dev == slow_device:
                go_on.wait(PATIENCE_S)
            freeze(opened)

        monkeypatch.setattr(xfs_ioctl, "freeze", freeze_late)
        async with pool.driver() as driver:
            with pytest.raises(DidNotHappenError, match=r"ds-0-0.* could not be frozen within"):
                await driver.snapshot_group(request("a", *pool.unit_ids, fence_timeout_s=0.2))
            assert not is_frozen(quick)
            assert not await driver.list_snapshots("")
            with pytest.raises(BusyError):  # nobody freezes on top of that
                await driver.snapshot_group(request("b", *pool.unit_ids))
            go_on.set()
        # Closing has waited for it.
        assert not is_frozen(slow)
        assert not list((pool.hidden / "frozen").iterdir())
        assert not list((pool.hidden / "staging").iterdir())

    on_pool(folder, main)


def test_a_copy_that_takes_too_long_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        at, go_on = await pool.datastore(0), threading.Event()
        async with pool.driver() as driver:
            DuringTheCut(monkeypatch, lambda: assert_waited(go_on))
            with pytest.raises(DidNotHappenError, match="held for longer than"):
                await driver.snapshot_group(request("a", pool.unit_ids[0], fence_timeout_s=2.0))
            Write(at / "x").ends()
            with pytest.raises(BusyError):  # the copy is still under way
                await driver.snapshot_group(request("a", pool.unit_ids[0]))
            go_on.set()
        async with pool.driver() as driver:
            assert not await driver.list_snapshots("")
            assert await driver.snapshot_group(request("a", pool.unit_ids[0]))

    on_pool(folder, main)


def assert_waited(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S)


def test_a_snapshot_during_which_somebody_thawed_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        at = await pool.datastore(0)
        async with pool.driver() as driver:
            DuringTheCut(monkeypatch, lambda: thaw_by_hand(at))
            with pytest.raises(DidNotHappenError, match="somebody thawed"):
                await driver.snapshot_group(request("a", pool.unit_ids[0]))
            assert not await driver.list_snapshots("")

    on_pool(folder, main)


def thaw_by_hand(at: Path) -> None:
    subprocess.run(["fsfreeze", "--unfreeze", str(at)], check=True)


def test_what_somebody_else_froze_stays_frozen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(pool: Pool) -> None:
        other, own = await pool.datastore(0), await pool.datastore(1)
        freeze, thaw, refused = xfs_ioctl.freeze, xfs_ioctl.thaw, threading.Event()
        thawed: list[int] = []

        def freeze_own_last(opened: int) -> None:
            if os.fstat(opened).st_dev == own.stat().st_dev:
                refused.wait(PATIENCE_S)
            try:
                freeze(opened)
            except OSError:
                refused.set()
                raise

        def thaw_and_note(opened: int) -> bool:
            thawed.append(os.fstat(opened).st_dev)
            return thaw(opened)

        monkeypatch.setattr(xfs_ioctl, "freeze", freeze_own_last)
        monkeypatch.setattr(xfs_ioctl, "thaw", thaw_and_note)
        async with pool.driver() as driver:
            await run("fsfreeze", "--freeze", other)
            with pytest.raises(BusyError, match="frozen by somebody else"):
                await driver.snapshot_group(request("a", *pool.unit_ids))
            # What was on its way when the other was refused is thawed before the call returns.
            assert thawed == [own.stat().st_dev]
        assert is_frozen(other)

    on_pool(folder, main)


def test_all_slices_of_a_unit_are_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(pool: Pool) -> None:
        half = 16 * MIB
        slices = [await pool.datastore(0, offset=at, size=half) for at in (0, half)]
        writes: list[Write] = []

        def write_to_each() -> None:
            writes.extend(Write(at / "n") for at in slices)
            for one in writes:
                one.blocks()

        async with pool.driver() as driver:
            DuringTheCut(monkeypatch, write_to_each)
            await driver.snapshot_group(request("a", pool.unit_ids[0]))
        for one in writes:
            one.ends()

    on_pool(folder, main)


def on_pool(folder: Path, main: Callable[[Pool], object]) -> None:
    """Run a test on a pool of its own with two units."""

    async def go() -> None:
        async with xfs_pool(folder) as pool:
            outcome = main(pool)
            assert asyncio.iscoroutine(outcome)
            await outcome

    asyncio.run(go())
