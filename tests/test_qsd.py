"""What is the qsd driver's own: how it deletes, its monitor, and a daemon that does not answer."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecuteError, QMPClient
from support_array_pairs import PairWriter
from support_blocks import read_block
from support_lab import needs_lab, short_folder
from support_qsd import NEEDS, Died, Interruption, QsdArray, die, qsd_array

from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    UnknownOutcomeError,
)
from stillframe.drivers.qsd import QsdDriver, open_qsd
from stillframe.drivers.qsd_monitor import RefusedError
from stillframe.drivers.qsd_pool import GroupRecord, Stage, node_name
from stillframe.drivers.registry import driver_factory
from stillframe.errors import InputError

pytestmark = needs_lab(*NEEDS)
SHORT: dict[str, Any] = {"connect_timeout": 0.3, "call_timeout": 0.3}


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("qsd") as made:
        yield made


def run(folder: Path, check: Any, units: int = 2, **settings: Any) -> None:
    """Run a check on an array with a driver."""

    async def main() -> None:
        async with qsd_array(folder, units) as array, array.driver(**settings) as driver:
            await check(array, driver)

    asyncio.run(main())


# -- deletion --------------------------------------------------------------------------------------


def test_the_space_of_the_newest_is_free_after_the_next_deletion(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        await array.write(1)
        first = await array.cut(driver, "first")
        await array.write(2)
        await driver.delete_snapshot(first.ref)
        assert await driver.list_snapshots("") == []
        assert len(array.overlays()) == 2  # they take the writes and cannot be merged
        assert [one.stage for one in array.pool.records()] == [Stage.DELETED]
        second = await array.cut(driver, "second")
        await array.write(3)
        assert await array.held(driver, second.ref) == [2, 2]
        await driver.delete_snapshot(second.ref)
        assert array.overlays() == ["unit-0.second.2.qcow2", "unit-1.second.2.qcow2"]
        assert [one.tag for one in array.pool.records()] == ["second"]
        assert await array.live() == [3, 3]
        await array.kill_and_restart()
        assert await array.live() == [3, 3]

    run(folder, check)


def test_what_a_deletion_cannot_free_yet_waits_for_each_unit_by_itself(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        both = await array.cut(driver, "both")
        await array.cut(driver, "left", 0)
        await driver.delete_snapshot(both.ref)
        assert array.overlays() == ["unit-0.left.2.qcow2", "unit-1.both.1.qcow2"]
        assert [one.ref.tag for one in await driver.list_snapshots("")] == ["left"]

    run(folder, check)


def test_an_overlay_under_a_clone_is_merged_when_the_clone_is_gone(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        first = await array.cut(driver, "first", 0)
        await array.write(5)
        second = await array.cut(driver, "second", 0)
        clone = await driver.clone(second.ref, "a/unit-0", "copy")
        await driver.delete_snapshot(first.ref)
        assert len(array.overlays()) == 2
        with pytest.raises(BusyError, match="clone copy lies on it"):
            await driver.delete_snapshot(second.ref)
        await array.kill_and_restart()
        copy = Path(clone.devices[0].value)
        assert await asyncio.to_thread(read_block, copy, 0) == 5
        await driver.discard(clone.id)
        assert array.overlays() == ["unit-0.second.2.qcow2"]

    run(folder, check)


def test_a_merge_that_fails_is_said_and_tried_again(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        await array.write(1)
        first = await array.cut(driver, "first")
        await array.write(2)
        await array.cut(driver, "second")
        refused, told = Interruption("block-commit", 1, _refuse), "space .* is not free yet"
        with refused.installed(), pytest.raises(HappenedError, match=told):
            await driver.delete_snapshot(first.ref)
        with pytest.raises(NotFoundError):
            await driver.delete_snapshot(first.ref)
        third = await array.cut(driver, "third")
        await driver.delete_snapshot(third.ref)
        assert "unit-1.first.1.qcow2" not in array.overlays()
        assert await array.live() == [2, 2]

    run(folder, check)


async def _refuse() -> None:
    raise RefusedError("there is no memory")


# -- making ----------------------------------------------------------------------------------------


def test_a_call_whose_caller_went_away_is_finished(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        sent = asyncio.Event()

        async def at_the_cut() -> None:
            sent.set()

        with Interruption("transaction", 0, at_the_cut).installed():
            call = asyncio.create_task(array.cut(driver, "left"))
            await sent.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        async with AsyncExitStack() as stack:
            await driver.close()
            other = await stack.enter_async_context(array.driver())
            assert [one.ref.tag for one in await other.list_snapshots("")] == ["left"]
        assert [one.stage for one in array.pool.records()] == [Stage.MADE]

    run(folder, check)


def test_a_tag_that_another_process_is_making_is_busy(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        array.pool.write(GroupRecord("theirs", 1, ("unit-0",), Stage.MAKING))
        lock = os.open(array.folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(BusyError, match="being made"):
                await array.cut(driver, "theirs")
            with pytest.raises(BusyError, match="another process"):
                await array.cut(driver, "ours")
            with pytest.raises(BusyError, match="another process"):
                await driver.list_snapshots("th")
            assert await driver.list_snapshots("ours") == []
        finally:
            os.close(lock)
        assert await driver.list_snapshots("th") == []
        await array.cut(driver, "ours")
        # The other one has ended without its overlays: it is as if it had never begun.
        assert [one.tag for one in array.pool.records()] == ["ours"]

    run(folder, check, call_timeout=0.2)


def test_no_pair_of_writes_fits_into_a_cut(folder: Path) -> None:
    """Cut one by one, units are half a millisecond apart: these pairs take less."""

    async def check(array: QsdArray, driver: QsdDriver) -> None:
        async with PairWriter(*array.files, durable=False) as writer:
            for number in range(20):
                await writer.pairs(1)
                acknowledged = writer.done
                made = await array.cut(driver, f"pair-{number}")
                first, second = await array.held(driver, made.ref)
                assert acknowledged <= second <= first <= second + 1

    run(folder, check)


def test_sixteen_units_are_cut_together(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        await array.write(1)
        made = await array.cut(driver, "wide")
        await array.write(2)
        assert await array.held(driver, made.ref) == [1] * 16
        assert made.fence is not None
        assert not made.fence.exact

    run(folder, check, units=16)


# -- the monitor and the daemon --------------------------------------------------------------------


def test_a_monitor_that_another_client_holds_is_said(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        with pytest.raises(DidNotHappenError, match=r"qmp\.sock did not greet.*another client"):
            async with array.driver(**SHORT):
                pass
        lab = str(array.folder / "lab.sock")
        async with array.driver(qmp_socket=lab) as other:  # everybody has a monitor of his own
            await array.cut(driver, "seen")
            assert [one.ref.tag for one in await other.list_snapshots("")] == ["seen"]
        async with array.driver(qmp_socket=lab):
            pass

    run(folder, check)


def test_two_drivers_change_the_pool_one_after_the_other(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        async with array.driver(qmp_socket=str(array.folder / "lab.sock")) as other:
            drivers = [driver, other] * 3
            await array.write(1)
            made = await asyncio.gather(
                *(array.cut(one, f"t{number}") for number, one in enumerate(drivers))
            )
            await array.write(2)
            held = await asyncio.gather(
                *(array.held(one, cut.ref) for one, cut in zip(drivers, made, strict=True))
            )
            assert held == [[1, 1]] * 6
            both = await asyncio.gather(
                *(one.delete_snapshot(cut.ref) for cut in made[:3] for one in (driver, other)),
                return_exceptions=True,
            )
            assert sum(isinstance(one, NotFoundError) for one in both) == 3
            assert sum(one is None for one in both) == 3
            listed = [[cut.ref for cut in await one.list_snapshots("")] for one in (driver, other)]
            assert listed[0] == listed[1]
            assert sorted(ref.tag for ref in listed[0]) == ["t3", "t4", "t5"]
            assert await array.live() == [2, 2]

    run(folder, check)


def test_a_daemon_that_is_dead_is_said_and_found_again(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        made = await array.cut(driver, "kept")
        await array.backend.kill()
        for _ in range(2):
            with pytest.raises(DidNotHappenError, match=r"a failed: .*(nobody answers|ended)"):
                await driver.list_snapshots("")
        with pytest.raises(DidNotHappenError, match=r"nobody answers at .*Connection refused"):
            await array.cut(driver, "more")
        with pytest.raises(DidNotHappenError, match="nobody answers"):
            await driver.delete_snapshot(made.ref)
        with pytest.raises(DidNotHappenError, match="nobody answers"):
            await driver.resolve([])
        with pytest.raises(DidNotHappenError, match="nobody answers"):
            async with array.driver():
                pass
        await array.backend.restart()
        assert [one.ref for one in await driver.list_snapshots("")] == [made.ref]
        await array.cut(driver, "more")

    run(folder, check)


def test_a_daemon_that_falls_silent_at_the_cut_leaves_the_outcome_open(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        async def stop() -> None:
            array.signal(signal.SIGSTOP)

        silent, told = (
            Interruption("transaction", 0, stop),
            r"no answer to transaction within 0\.3 s",
        )
        with silent.installed(), pytest.raises(UnknownOutcomeError, match=told):
            await array.cut(driver, "open")
        with pytest.raises(DidNotHappenError, match="did not greet"):
            await driver.list_snapshots("")
        array.signal(signal.SIGCONT)
        # The cut was on its way and is made now: the caller looks for its tag and finds it.
        made = await array.cut(driver, "open")
        assert [one.ref for one in await driver.list_snapshots("")] == [made.ref]
        assert [one.stage for one in array.pool.records()] == [Stage.MADE]
        assert len(array.overlays()) == 2

    run(folder, check, **SHORT)


def test_a_cut_that_was_given_up_cannot_come_later(folder: Path) -> None:
    """Whoever puts the pool in order closes its overlays, so it has nothing to put on top."""

    async def main() -> None:
        async with qsd_array(folder) as array:
            async with array.driver() as driver:
                ending = Interruption("transaction", 0, die)
                with ending.installed(), pytest.raises(Died):
                    await array.cut(driver, "late")
            (record,) = array.pool.records()
            late = [array.pool.overlay(unit, record) for unit in record.units]
            assert all(path.exists() for path in late)
            async with array.driver() as driver:
                assert await driver.list_snapshots("") == []
            assert array.overlays() == []
            actions = [
                {
                    "type": "blockdev-snapshot",
                    "data": {"node": node_name(array.pool.base(unit)), "overlay": node_name(path)},
                }
                for unit, path in zip(record.units, late, strict=True)
            ]
            client = QMPClient("late")
            await client.connect(str(array.pool.lab_socket))
            with pytest.raises(ExecuteError, match="Cannot find"):
                await client.execute("transaction", {"actions": actions})
            await client.disconnect()

    asyncio.run(main())


def test_a_group_that_the_daemon_has_only_in_part_is_none(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        both = await array.cut(driver, "both")
        first = await array.cut(driver, "first", 0)
        client = QMPClient("somebody")
        await client.connect(str(array.pool.lab_socket))
        await client.execute("block-export-del", {"id": "unit-1", "mode": "hard"})
        await client.disconnect()
        assert [one.ref.tag for one in await driver.list_snapshots("")] == ["first"]
        with pytest.raises(NeverWillError, match="does not have all of it open"):
            await array.cut(driver, "both")
        with pytest.raises(NeverWillError, match="a has no such unit"):
            await array.cut(driver, "more")
        with pytest.raises(NotFoundError):
            await driver.delete_snapshot(both.ref)
        await driver.delete_snapshot(first.ref)
        await array.kill_and_restart()
        assert [one.ref for one in await driver.list_snapshots("")] == [both.ref]

    run(folder, check)


# -- input -----------------------------------------------------------------------------------------


def test_a_damaged_record_is_said(folder: Path) -> None:
    async def check(array: QsdArray, driver: QsdDriver) -> None:
        (array.folder / "groups" / "7.made.json").write_text(json.dumps({"tag": "x"}))
        for call in (driver.list_snapshots(""), array.cut(driver, "new")):
            with pytest.raises(NeverWillError, match=r"7\.made\.json is no record of a group"):
                await call

    run(folder, check)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"qmp_socket": "/nowhere/qmp.sock"}, "array a: pool_folder: Field required"),
        ({"qmp_socket": "/nowhere/qmp.sock", "pool_folder": "/nowhere"}, "is not the pool of a"),
        ({"qmp_socket": "/q", "pool_folder": "/p", "socket": 1}, "array a: socket: Extra inputs"),
        ({"qmp_socket": "/q", "pool_folder": "/p", "call_timeout": "fast"}, "call_timeout: 'fast'"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], told: str) -> None:
    async def main() -> None:
        async with open_qsd("a", settings):
            pass

    with pytest.raises(InputError, match=told):
        asyncio.run(main())


def test_the_driver_is_found_by_its_name() -> None:
    assert driver_factory("qsd") is open_qsd
