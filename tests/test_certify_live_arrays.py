"""The open arrays under the kit: what it finds of them, what their hooks do, a torn group caught.

The whole suite takes minutes on each; here is a part of every topic, with few repetitions. All of
it is what ``make evidence-certificates`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support_lab import lab_leftovers, needs_lab, short_folder

from stillframe.certify.array_suite import certify_array
from stillframe.certify.array_target import BLOCK_BYTES, ArrayTarget, ScratchUnit
from stillframe.certify.canaries.array_group import CANARIES
from stillframe.certify.effort import Effort
from stillframe.certify.outcome import SuiteResult, Verdict
from stillframe.certify.running import SuiteOptions
from stillframe.certify.targets.ceph import CephTarget
from stillframe.certify.targets.lab_array import LabArray
from stillframe.certify.targets.qsd import QsdTarget
from stillframe.certify.targets.xfs import XfsTarget
from stillframe.drivers.contracts import ArrayDriver, GroupSnapshot, GroupSnapshotRequest
from stillframe.drivers.errors import (
    DidNotHappenError,
    DriverError,
    HappenedError,
    NotFoundError,
    PoolFullError,
    UnknownOutcomeError,
)

SMALL = Effort("small", 3, 6, 2, 1 << 20, 60.0, 120.0)
PART = {
    "DCL": (1,),
    "MAP": (4, 17),
    "LIF": (1, 13),
    "LST": (1,),
    "ERR": (7, 9),
    "CON": (5,),
    "ASK": (5, 6),
    "DAT": (1, 3),
    "HIS": (2,),
    "CLN": (2,),
    "GRP": (2,),
    "FNC": (1,),
    "FLT": (1, 23, 24),
    "EXH": (1,),
    "END": (1,),
}
"""Numbers of requirements, by topic."""
ONLY = frozenset(f"ARR-{topic}-{one:02}" for topic, ones in PART.items() for one in ones)
MARKS = {
    QsdTarget: needs_lab("root", "fuse", "loop", "xfs"),
    XfsTarget: needs_lab("root", "xfs", "loop"),
    CephTarget: needs_lab("root", "ceph", "fuse"),
}
ARRAYS = [pytest.param(kind, marks=mark, id=kind.__name__) for kind, mark in MARKS.items()]
WITH_LINE = [one for one in ARRAYS if one.values[0] is not XfsTarget]


def certified(kind: type[ArrayTarget], only: frozenset[str]) -> SuiteResult:
    """What the kit says of some requirements; nothing is left of the array afterwards."""
    with short_folder("certify") as folder:
        target = made(kind, folder)
        with asyncio.Runner(loop_factory=target.new_loop) as runner:
            options = SuiteOptions(run="test", effort=SMALL, only=only)
            result = runner.run(certify_array(target, options))
        left = [one for one in lab_leftovers(folder) if one != f"folder {folder}"]
        assert left == []
    return result


def made(kind: type[Any], folder: Path) -> Any:
    """A target of the lab with the settings that it has by default."""
    return kind(kind.settings_model(), folder, 1)


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_part_of_every_topic_is_met(kind: type[LabArray]) -> None:
    result = certified(kind, ONLY)
    bad = [one for one in result.outcomes if one.verdict in (Verdict.FAIL, Verdict.BLOCKED)]
    assert [(one.requirement_id, one.reason) for one in bad] == []
    assert len(result.of(Verdict.PASS)) >= len(ONLY) - 4
    assert sum(one.compared_bytes for one in result.outcomes) > 0
    assert result.environment["kernel"].startswith("Linux")


@pytest.mark.parametrize("kind", ARRAYS[:1])
def test_a_torn_group_of_a_real_array_is_caught(kind: type[LabArray]) -> None:
    (torn,) = [one for one in CANARIES if one.id == "torn-group"]
    result = certified(torn.make(kind), frozenset({torn.breaks}))
    (outcome,) = result.outcomes
    assert outcome.verdict is Verdict.FAIL, outcome.reason


# -- hooks -----------------------------------------------------------------------------------------

Check = Callable[[Any, ArrayDriver, list[ScratchUnit]], Awaitable[None]]


def on(kind: type[LabArray], check: Check) -> None:
    """Run a check on an array of its own."""

    async def main(folder: Path) -> None:
        async with made(kind, folder) as target, target.connect() as driver:
            await check(target, driver, list(await target.units()))

    with short_folder("hook") as folder:
        asyncio.run(main(folder))


async def cut(driver: ArrayDriver, tag: str, *units: ScratchUnit) -> GroupSnapshot:
    ids = tuple(str(unit.unit_id) for unit in units)
    return await driver.snapshot_group(GroupSnapshotRequest(ids, tag, 30.0))


async def listed(driver: ArrayDriver) -> list[str]:
    return [one.ref.tag for one in await driver.list_snapshots("")]


@pytest.mark.parametrize("kind", ARRAYS)
def test_the_place_of_a_block_tells_how_old_data_is_kept(kind: type[LabArray]) -> None:
    async def check(target: Any, driver: ArrayDriver, units: list[ScratchUnit]) -> None:
        unit, start = units[0], 2 * BLOCK_BYTES
        await target.write(unit, start, b"a" * BLOCK_BYTES)
        snapshot = await cut(driver, "placed", unit)
        before = await target.place_of(unit, start, None)
        assert await target.place_of(unit, start, snapshot.ref) == before
        await target.write(unit, start, b"b" * BLOCK_BYTES)
        live = await target.place_of(unit, start, None)
        kept = await target.place_of(unit, start, snapshot.ref)
        redirects = driver.capabilities.method.value == "redirect-on-write"
        assert (live == before, kept == before) == (not redirects, redirects)

    on(kind, check)


@pytest.mark.parametrize("kind", ARRAYS)
def test_the_device_tells_its_snapshots_and_those_of_others(kind: type[LabArray]) -> None:
    async def check(target: Any, driver: ArrayDriver, units: list[ScratchUnit]) -> None:
        assert await target.snapshots_on_device() == frozenset()
        snapshot = await cut(driver, "mine", *units[:2])
        mine = await target.snapshots_on_device()
        assert len(mine) == 2
        async with target.foreign_snapshot(units[1]) as name:
            assert await target.snapshots_on_device() == mine | {name}
        await driver.delete_snapshot(snapshot.ref)
        assert await target.snapshots_on_device() == frozenset()

    on(kind, check)


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_unit_that_fails_fails_alone(kind: type[LabArray]) -> None:
    async def check(target: Any, driver: ArrayDriver, units: list[ScratchUnit]) -> None:
        async with target.failing_unit(units[1]):
            with pytest.raises(DriverError):
                await cut(driver, "both", *units[:2])
            await cut(driver, "others", units[0], units[2])
        await cut(driver, "both", *units[:2])
        assert sorted(await listed(driver)) == ["both", "others"]

    on(kind, check)


@pytest.mark.parametrize("kind", ARRAYS[:2])
def test_a_full_pool_still_takes_the_writes_of_hosts(kind: type[LabArray]) -> None:
    async def check(target: Any, driver: ArrayDriver, units: list[ScratchUnit]) -> None:
        await cut(driver, "before", *units)
        async with target.full_pool():
            with pytest.raises(PoolFullError):
                await cut(driver, "full", *units)
            await target.write(units[0], 0, b"x" * (1 << 20))
        await cut(driver, "after", *units)

    on(kind, check)


@pytest.mark.parametrize("kind", WITH_LINE)
def test_an_answer_is_lost_after_the_array_has_done_it(kind: type[LabArray]) -> None:
    async def check(target: Any, driver: ArrayDriver, units: list[ScratchUnit]) -> None:
        async with target.lost_answers("snapshot_group"):
            with pytest.raises(UnknownOutcomeError):
                await cut(driver, "lost", units[0])
        (found,) = await driver.list_snapshots("lost")
        async with target.lost_answers("delete_snapshot"):
            with pytest.raises((UnknownOutcomeError, HappenedError)):
                await driver.delete_snapshot(found.ref)
        assert await listed(driver) == []

    on(kind, check)


@pytest.mark.parametrize("kind", WITH_LINE)
def test_a_slow_call_is_done_late_and_a_void_session_replaced(kind: type[LabArray]) -> None:
    async def check(target: Any, driver: ArrayDriver, units: list[ScratchUnit]) -> None:
        async with target.slow_calls("snapshot_group", 0.5):
            making = asyncio.create_task(cut(driver, "late", units[0]))
            assert await listed(driver) == []
            await making
        assert await listed(driver) == ["late"]
        await target.expire_sessions()
        async with target.connect() as other:
            assert await listed(other) == ["late"]

    on(kind, check)


@pytest.mark.parametrize("kind", WITH_LINE)
def test_an_array_out_of_reach_does_nothing(kind: type[LabArray]) -> None:
    async def check(target: Any, driver: ArrayDriver, units: list[ScratchUnit]) -> None:
        async with target.unreachable():
            with pytest.raises((DidNotHappenError, UnknownOutcomeError)):
                await cut(driver, "nobody", units[0])
        await cut(driver, "somebody", units[0])
        assert "somebody" in await listed(driver)

    on(kind, check)


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_restart_loses_nothing_that_was_acknowledged(kind: type[LabArray]) -> None:
    async def check(target: Any, driver: ArrayDriver, units: list[ScratchUnit]) -> None:
        await target.write(units[0], 0, b"kept" * 1024)
        await cut(driver, "kept", units[0])
        await target.write(units[0], 0, b"more" * 1024)
        await target.restart()
        assert await target.read(units[0], 0, 8) == b"moremore"
        async with target.connect() as other:
            assert await listed(other) == ["kept"]

    on(kind, check)


def hooks(kind: type[ArrayTarget]) -> Mapping[str, bool]:
    """By hook of the clock and of faults, whether an array offers it."""
    names = ("unreachable", "lost_answers", "slow_calls", "expire_sessions", "full_pool")
    with short_folder("offers") as folder:
        target = made(kind, folder)
        return {name: target.offers(name) for name in (*names, "skewed_clock")}


def test_what_an_array_cannot_show_it_does_not_offer() -> None:
    assert [name for name, there in hooks(QsdTarget).items() if not there] == ["skewed_clock"]
    no_pool = [name for name, there in hooks(CephTarget).items() if not there]
    assert no_pool == ["full_pool", "skewed_clock"]
    assert [name for name, there in hooks(XfsTarget).items() if there] == ["full_pool"]


async def deleted(driver: ArrayDriver, snapshot: GroupSnapshot) -> None:
    """Delete it, on a driver that finds out meanwhile that its connection is dead."""
    async with asyncio.timeout(60.0):
        while True:
            try:
                await driver.delete_snapshot(snapshot.ref)
            except NotFoundError:
                return
            except UnknownOutcomeError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize("kind", ARRAYS[2:])
def test_a_deletion_that_the_death_of_the_array_cuts_off_leaves_nothing(
    kind: type[LabArray],
) -> None:
    """librbd moves what it deletes to a trash, and does not look there when it is asked again."""

    async def check(target: Any, driver: ArrayDriver, units: list[ScratchUnit]) -> None:
        cut_off = 0
        for number in range(1, 6):
            snapshot = await cut(driver, f"cut-off-{number}", *units[:2])
            deletion = asyncio.create_task(driver.delete_snapshot(snapshot.ref))
            await asyncio.wait([deletion], timeout=0.006 * number)
            await target.restart()
            try:
                await deletion
            except DriverError:
                cut_off += 1
            await deleted(driver, snapshot)
            assert await target.snapshots_on_device() == frozenset()
        assert cut_off

    on(kind, check)
