"""A modelled array in real time: the same story as in virtual time, and its settings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stillframe.drivers.contracts import ArrayDriver, GroupSnapshot, GroupSnapshotRequest
from stillframe.drivers.errors import BusyError, DriverError, NeverWillError, NotFoundError
from stillframe.drivers.records import Array, DeviceIdentity, StorageUnit, UnitKind
from stillframe.errors import InputError
from stillframe.orchestrator.events import EventLog
from stillframe.sim.array import ModelArray
from stillframe.sim.array_profiles import ArrayProfile
from stillframe.sim.draws import Draws
from stillframe.sim.env import SimEnv
from stillframe.sim.load import QuietUnits
from stillframe.sim.loop import SimLoop
from stillframe.sim.realtime import RealTimeEnv, open_modelled_array
from stillframe.sim.series import Series

MS = 1e-3
DEVICES = tuple(DeviceIdentity.parse(f"naa.60000000000000000000000000000{n:03}") for n in range(3))
UNITS = tuple(
    StorageUnit(f"a1/lun-{n}", "a1", f"lun-{n}", UnitKind.LUN, 2**30, (device,))
    for n, device in enumerate(DEVICES)
)
QUICK = ArrayProfile(
    management_calls=1,
    management_latency=1 * MS,
    management_sigma=0.0,
    snapshot_base=2 * MS,
    snapshot_per_unit=2 * MS,
    snapshot_sigma=0.0,
    fence_base=1 * MS,
    fence_per_unit=2 * MS,
    fence_sigma=0.0,
    delete_latency=1 * MS,
    delete_sigma=0.0,
)
Story = list[tuple[Any, ...]]
Body = Callable[[ArrayDriver], Awaitable[Story]]


def model(env: SimEnv) -> ModelArray:
    """An array whose calls pass its only management channel one by one."""
    log, series = EventLog(), Series()
    return ModelArray(env, Array("a1", "a1"), UNITS, QUICK, Draws(1), log, QuietUnits(), series)


async def story(array: ArrayDriver) -> Story:
    """Calls one after the other and at once; what came of each, in the order of the answers."""
    told: Story = []

    async def cut(tag: str, *numbers: int) -> GroupSnapshot | None:
        unit_ids = tuple(UNITS[number].id for number in numbers)
        try:
            made = await array.snapshot_group(GroupSnapshotRequest(unit_ids, tag, 7.0))
        except DriverError as error:
            told.append((tag, type(error), str(error)))
            return None
        assert made.fence is not None
        assert made.cut_s is not None
        assert made.fence.start_s < made.cut_s < made.fence.end_s
        told.append((tag, made.ref, made.unit_ids, round(made.fence.duration_s, 9)))
        return made

    told.append(("resolve", [unit.id for unit in (await array.resolve(DEVICES)).values()]))
    both, refused, alone = await asyncio.gather(cut("t-a", 0, 1), cut("t-b", 1), cut("t-c", 2))
    assert both is not None
    assert alone is not None
    assert refused is None
    assert await cut("t-a", 0, 1) == both
    told.append(("list", [one.ref.tag for one in await array.list_snapshots("t-")]))
    await array.delete_snapshot(both.ref)
    with pytest.raises(NotFoundError):
        await array.delete_snapshot(both.ref)
    told.append(("left", [one.ref.tag for one in await array.list_snapshots("t-")]))
    await cut("t-d", 0, 2, 1)
    with pytest.raises(NeverWillError):
        await array.snapshot_group(GroupSnapshotRequest(("a1/lun-9",), "t-e", 7.0))
    return told


def in_virtual_time() -> Story:
    """The body on a simulated loop that drives the environment itself."""
    env = SimEnv()
    with asyncio.Runner(loop_factory=lambda: SimLoop(env)) as runner:
        return runner.run(story(model(env)))


async def _beside() -> Story:
    env = RealTimeEnv()
    try:
        return await story(model(env))
    finally:
        env.close()


def in_real_time() -> Story:
    """The body on asyncio's own loop."""
    return asyncio.run(_beside())


def beside_virtual_time() -> Story:
    """The body on a simulated loop that does not know of the environment."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(_beside())


def test_one_body_has_the_same_story_in_virtual_and_in_real_time() -> None:
    told = in_virtual_time()
    assert [row[0] for row in told] == [
        "resolve", "t-b", "t-c", "t-a", "t-a", "list", "left", "t-d",
    ]  # fmt: skip
    assert told[1][1] is BusyError
    assert told[3][3] == pytest.approx(5 * MS)
    assert told[5:7] == [("list", ["t-a", "t-c"]), ("left", ["t-c"])]
    assert in_real_time() == told
    assert beside_virtual_time() == told


# -- the driver --------------------------------------------------------------------------------

UNIT = {"name": "lun-0", "capacity": "1 TiB", "devices": [str(DEVICES[0])]}


async def opened(settings: dict[str, Any]) -> list[StorageUnit]:
    """The units that an array with these settings takes to be its own."""
    async with open_modelled_array("a1", settings) as array:
        assert isinstance(array, ArrayDriver)
        return list((await array.resolve(DEVICES)).values())


def open_units(settings: dict[str, Any]) -> list[StorageUnit]:
    """:func:`opened` in virtual time."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(opened(settings))


def test_units_are_written_as_in_an_estate_file() -> None:
    assert open_units({"units": [UNIT]}) == [
        StorageUnit("a1/lun-0", "a1", "lun-0", UnitKind.LUN, 2**40, DEVICES[:1])
    ]


def test_units_come_from_an_estate_file(tmp_path: Path) -> None:
    file = tmp_path / "estate.yaml"
    file.write_text(
        "arrays:\n"
        "  - {name: flash, units: [{name: x, capacity: 1 GiB, devices: ["
        + str(DEVICES[1])
        + "]}]}\n"
        "  - {name: other, units: [{name: y, capacity: 1 GiB, devices: ["
        + str(DEVICES[2])
        + "]}]}\n"
    )
    assert open_units({"estate": str(file), "array": "flash"}) == [
        StorageUnit("flash/x", "a1", "x", UnitKind.LUN, 2**30, (DEVICES[1],))
    ]
    with pytest.raises(InputError, match=r"a1: array: .*has no array 'a1' \(its arrays are flash"):
        open_units({"estate": str(file)})


def test_the_profile_takes_a_name_or_numbers_and_limits_the_array() -> None:
    async def main() -> int | None:
        settings = {"units": [UNIT], "profile": {"profile": "cow-small", "units_per_group": 3}}
        async with open_modelled_array("a1", settings) as array:
            return array.capabilities.units_per_group

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        assert runner.run(main()) == 3
    assert open_units({"units": [UNIT], "profile": "cow-small"})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "give either units or estate"),
        ({"units": [UNIT], "estate": "e.yaml"}, "give either units or estate"),
        ({"units": [UNIT], "array": "x"}, "no estate is given"),
        ({"units": [UNIT, UNIT]}, r"units\[1\]: id 'a1/lun-0' is that of another unit"),
        ({"units": [UNIT | {"capacity": 5}]}, r"units\[0\].capacity: 5 has no unit"),
        ({"units": [UNIT], "profile": "warp"}, "no array profile is called 'warp'"),
        ({"units": [UNIT], "sed": 3}, "sed: unknown key with value 3 .*did you mean 'seed'"),
        ({"units": [UNIT], "seed": -1}, "seed: -1 is not accepted"),
        ({"estate": "nowhere.yaml"}, "nowhere.yaml: does not exist"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        open_units(settings)
