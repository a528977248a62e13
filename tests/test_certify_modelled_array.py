"""The modelled arrays as targets: what their hooks do, and that a seed repeats a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stillframe.certify.array_target import ArrayTarget, ScratchUnit
from stillframe.certify.target import hooks_of
from stillframe.certify.targets.modelled_array import (
    CopyOnWriteArray,
    ModelledArrayTarget,
    RedirectOnWriteArray,
)
from stillframe.drivers.contracts import (
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRequest,
    ReadableArrayDriver,
    SnapshotMethod,
)
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    PoolFullError,
    UnknownOutcomeError,
)
from stillframe.drivers.records import DeviceKind
from stillframe.errors import StillframeError

KINDS: list[type[ModelledArrayTarget]] = [RedirectOnWriteArray, CopyOnWriteArray]
both = pytest.mark.parametrize("kind", KINDS, ids=["row", "cow"])
Check = Callable[[Any, Any, Sequence[ScratchUnit]], Awaitable[Any]]


def run(kind: type[ModelledArrayTarget], check: Check, seed: int = 1, **settings: Any) -> Any:
    """Run ``check(target, driver, units)`` in virtual time."""
    target = kind(settings, Path("nowhere"), seed)

    async def body() -> Any:
        async with target, target.connect() as driver:
            return await check(target, driver, await target.units())

    with asyncio.Runner(loop_factory=target.new_loop) as runner:
        return runner.run(body())


def request(units: Sequence[ScratchUnit], tag: str) -> GroupSnapshotRequest:
    """A group snapshot of these units."""
    return GroupSnapshotRequest(tuple(unit.unit_id or "" for unit in units), tag, 30.0)


async def tags(driver: ArrayDriver) -> list[str]:
    """What is listed."""
    return [one.ref.tag for one in await driver.list_snapshots("")]


@both
def test_it_offers_every_hook_and_keeps_to_the_optional_contract(
    kind: type[ModelledArrayTarget],
) -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        assert all(target.offers(hook) for hook in hooks_of(ArrayTarget))
        assert isinstance(driver, ReadableArrayDriver)
        assert driver.capabilities.method is kind.method
        assert driver.capabilities.units_per_group < len(units)
        kinds = {device.kind for unit in units for device in unit.devices}
        assert kinds == set(DeviceKind) - {DeviceKind.LOCAL}
        devices = [device for unit in units for device in unit.devices]
        known = await driver.resolve([*devices, *target.foreign_devices()])
        assert list(known) == devices
        assert {device: one.id for device, one in known.items()} == {
            device: unit.unit_id for unit in units for device in unit.devices
        }

    run(kind, check)


@both
def test_a_snapshot_and_its_clone_hold_the_bytes_of_the_cut(
    kind: type[ModelledArrayTarget],
) -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        unit = units[0]
        await target.write(unit, 70_000, b"before" * 1000)
        made = await driver.snapshot_group(request(units[:2], "t"))
        await target.write(unit, 70_003, b"after")
        held = await driver.read_back(made.ref, unit.unit_id, 70_000, 6000)
        assert held == b"before" * 1000
        assert await target.read(unit, 70_000, 12) == b"befafterfore"
        clone = await driver.clone(made.ref, unit.unit_id, "c")
        assert await driver.resolve(clone.devices) == {clone.devices[0]: clone}
        await target.write_clone(clone, 70_000, b"clone")
        assert await target.read_clone(clone, 70_000, 12) == b"cloneebefore"
        assert await target.read(unit, 70_000, 6) == b"befaft"
        refused = kind.method is SnapshotMethod.COPY_ON_WRITE
        if refused:
            with pytest.raises(BusyError, match="a clone reads through it"):
                await driver.delete_snapshot(made.ref)
        else:
            await driver.delete_snapshot(made.ref)
            assert await target.read_clone(clone, 70_005, 6) == b"ebefor"
        await driver.discard(clone.id)
        with pytest.raises(NeverWillError if refused else DriverError):
            await driver.read_back(made.ref, unit.unit_id, unit.capacity_bytes, 1)

    run(kind, check)


@both
def test_the_pool_fills_with_what_hosts_overwrite_and_empties_again(
    kind: type[ModelledArrayTarget],
) -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        pool = target.array.pool
        made = await driver.snapshot_group(request(units[:1], "t"))
        for number in range(3):
            await target.write(units[0], number * kind.extent_bytes, b"x")
            await target.write(units[0], number * kind.extent_bytes, b"y")
        await asyncio.sleep(3600.0)
        assert pool.used_bytes == pytest.approx(3 * kind.extent_bytes)
        await driver.delete_snapshot(made.ref)
        await asyncio.sleep(60.0)
        assert pool.used_bytes == 0

    run(kind, check)


@both
def test_a_full_pool_refuses_snapshots_and_takes_writes(kind: type[ModelledArrayTarget]) -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        async with target.full_pool():
            with pytest.raises(PoolFullError):
                await driver.snapshot_group(request(units[:1], "t"))
            await target.write(units[0], 0, b"x")
        assert await driver.snapshot_group(request(units[:1], "t"))

    run(kind, check)


@both
def test_a_unit_that_fails_fails_its_group_and_leaves_nothing(
    kind: type[ModelledArrayTarget],
) -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        async with target.failing_unit(units[1]):
            with pytest.raises(DidNotHappenError, match="lun-1 cannot be snapshotted"):
                await driver.snapshot_group(request(units[:2], "t"))
            await driver.snapshot_group(request(units[:1], "other"))
        assert await tags(driver) == ["other"]
        assert len(await target.snapshots_on_device()) == 1
        await target.write(units[1], 0, b"x")  # no fence is left

    run(kind, check)


@both
def test_a_restart_rolls_back_before_the_cut_and_forward_after_it(
    kind: type[ModelledArrayTarget],
) -> None:
    async def check(target: Any, driver: Any, units: Any) -> tuple[bool, ...]:
        outcomes = []
        for number in range(24):
            tag, group = f"t{number}", units[:2]
            call = asyncio.create_task(driver.snapshot_group(request(group, tag)))
            await asyncio.wait({call}, timeout=number * 0.002)
            write = asyncio.create_task(target.write(units[0], 0, b"x"))
            await target.restart()
            await write
            answer = await asyncio.gather(call, return_exceptions=True)
            unknown = isinstance(answer[0], UnknownOutcomeError)
            there = tag in await tags(driver)
            assert there or unknown
            assert len(await target.snapshots_on_device()) == len(group) * there
            made = await driver.snapshot_group(request(group, tag))
            await driver.delete_snapshot(made.ref)
            outcomes.append((unknown, there))
        return tuple(outcomes)

    assert {(True, False), (True, True), (False, True)} == set(run(kind, check))


@both
def test_a_restart_finishes_a_deletion_that_has_begun(kind: type[ModelledArrayTarget]) -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        made = await driver.snapshot_group(request(units[:2], "t"))
        async with target.slow_calls("delete_snapshot", 5.0):
            call = asyncio.create_task(driver.delete_snapshot(made.ref))
            await asyncio.wait({call}, timeout=1.0)
            with pytest.raises(BusyError, match="it is being deleted"):
                await driver.delete_snapshot(made.ref)
            await target.restart()
        with pytest.raises(UnknownOutcomeError):
            await call
        assert await tags(driver) == []
        assert await target.snapshots_on_device() == frozenset()

    run(kind, check)


@both
def test_answers_get_lost_and_the_work_goes_on(kind: type[ModelledArrayTarget]) -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        async with target.lost_answers("snapshot_group"):
            with pytest.raises(UnknownOutcomeError, match="the connection broke"):
                await driver.snapshot_group(request(units[:1], "t"))
        await asyncio.sleep(1.0)
        assert await tags(driver) == ["t"]
        async with target.lost_answers("list_snapshots"):
            with pytest.raises(UnknownOutcomeError):
                await driver.list_snapshots("")

    run(kind, check)


@both
def test_a_slow_group_is_busy_and_outlives_its_caller(kind: type[ModelledArrayTarget]) -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        async with target.slow_calls("snapshot_group", 5.0):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(driver.snapshot_group(request(units[:1], "t")), 1.0)
        with pytest.raises(BusyError):
            await driver.snapshot_group(request(units[:1], "t"))
        assert await tags(driver) == []
        await asyncio.sleep(5.0)
        assert await tags(driver) == ["t"]

    run(kind, check)


def test_a_session_that_expires_is_opened_again_but_its_answers_are_lost() -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        call = asyncio.create_task(driver.snapshot_group(request(units[:1], "t")))
        await asyncio.sleep(0.005)
        await target.expire_sessions()
        with pytest.raises(UnknownOutcomeError):
            await call
        await asyncio.sleep(1.0)
        assert await tags(driver) == ["t"]

    run(RedirectOnWriteArray, check)


def test_out_of_reach_nothing_is_answered_and_writes_wait() -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        start_s = asyncio.get_running_loop().time()
        async with target.unreachable():
            write = asyncio.create_task(target.write(units[0], 0, b"x"))
            with pytest.raises(UnknownOutcomeError, match="no answer within 20 s"):
                await driver.snapshot_group(request(units[:1], "t"))
            with pytest.raises(DidNotHappenError, match="no answer"):
                async with target.connect():
                    pass
            assert not write.done()
        await write
        assert asyncio.get_running_loop().time() - start_s == pytest.approx(40.0, abs=0.1)
        assert await tags(driver) == []

    run(RedirectOnWriteArray, check)


def test_an_answer_under_way_does_not_arrive_out_of_reach() -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        call = asyncio.create_task(driver.snapshot_group(request(units[:1], "t")))
        await asyncio.sleep(0.01)
        async with target.unreachable():
            with pytest.raises(UnknownOutcomeError, match="no answer"):
                await call
        assert await tags(driver) == ["t"]

    run(RedirectOnWriteArray, check)


def test_the_arrays_clock_can_be_wrong_and_the_driver_does_not_use_it() -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        async with target.skewed_clock(-500.0):
            before_s = asyncio.get_running_loop().time()
            made = await driver.snapshot_group(request(units[:1], "t"))
            assert target.front.clock_s() < before_s - 400.0
        assert made.cut_s > before_s

    run(RedirectOnWriteArray, check)


def test_others_make_and_lose_snapshots_of_a_unit() -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        async with target.foreign_snapshot(units[0]) as name:
            assert await target.snapshots_on_device() == {name}
            assert await tags(driver) == ["nightly-1"]
        stray = target.array.leave_on_device(units[0].unit_id)
        await target.restart()
        assert await target.snapshots_on_device() == {stray}
        assert await tags(driver) == []
        target.array.remove_on_device(stray)
        assert await target.snapshots_on_device() == frozenset()

    run(RedirectOnWriteArray, check)


@both
def test_a_seed_repeats_a_run_and_another_seed_does_not(kind: type[ModelledArrayTarget]) -> None:
    async def check(target: Any, driver: Any, units: Any) -> list[GroupSnapshot]:
        for number in range(20):
            await target.write(units[0], number, b"x")
        return [await driver.snapshot_group(request(units[:2], f"t{n}")) for n in range(3)]

    assert run(kind, check, seed=7) == run(kind, check, seed=7)
    assert run(kind, check, seed=7) != run(kind, check, seed=8)


def test_its_limits_and_sizes_are_settings() -> None:
    async def check(target: Any, driver: Any, units: Any) -> None:
        assert len(units) == 3
        assert units[0].capacity_bytes == 1024**2
        await driver.snapshot_group(request(units[:1], "a"))
        with pytest.raises(NeverWillError, match="carries 1 snapshots"):
            await driver.snapshot_group(request(units[:1], "b"))

    run(RedirectOnWriteArray, check, units=3, capacity="1 MiB", snapshots_per_unit=1)


def test_it_runs_in_virtual_time_only() -> None:
    async def body() -> None:
        async with RedirectOnWriteArray({}, Path("nowhere"), 1):
            pass

    with pytest.raises(StillframeError, match="runs on the loop of its new_loop"):
        asyncio.run(body())
