"""Models in real time: the same order and results as in virtual time, beside a normal loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.drivers.contracts import ArrayDriver, GroupSnapshot, GroupSnapshotRequest
from stillframe.drivers.errors import BusyError, DriverError, NeverWillError, NotFoundError
from stillframe.drivers.records import Array, DeviceIdentity, StorageUnit, UnitKind
from stillframe.errors import InputError
from stillframe.orchestrator.events import EventLog
from stillframe.sim import realtime
from stillframe.sim.array import ModelArray
from stillframe.sim.array_profiles import ArrayProfile
from stillframe.sim.bridge import wait
from stillframe.sim.draws import Draws
from stillframe.sim.env import SimEnv, SimForbiddenError
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


# -- the environment ---------------------------------------------------------------------------

Plan = list[tuple[float, "Plan"]]
_delays = st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.5, 2.0])
plans: st.SearchStrategy[Plan] = st.recursive(
    st.just([]), lambda inner: st.lists(st.tuples(_delays, inner), max_size=4), max_leaves=12
)


def lay_out(
    env: SimEnv, plan: Plan, log: list[tuple[float, str]], name: str, start_s: float
) -> Any:
    """Calls that make calls; every third one is cancelled by the one before it."""
    made: list[Any] = []

    def ring(number: int, inner: Plan) -> None:
        log.append((round(env.now - start_s, 9), f"{name}{number}"))
        if (number + 1) % 3 == 0 and number + 1 < len(made):
            made[number + 1].cancel()
        lay_out(env, inner, log, f"{name}{number}.", start_s)

    for number, (delay_s, inner) in enumerate(plan):
        made.append(env.after(delay_s, ring, number, inner))


@given(plan=plans)
def test_calls_come_at_the_times_and_in_the_order_of_virtual_time(plan: Plan) -> None:
    expected: list[tuple[float, str]] = []
    alone = SimEnv()
    lay_out(alone, plan, expected, "", 0.0)
    alone.run()
    seen: list[tuple[float, str]] = []

    async def main() -> None:
        await asyncio.sleep(3.25)
        env = RealTimeEnv()
        assert env.now == 3.25
        lay_out(env, plan, seen, "", 3.25)
        await asyncio.sleep(1000)
        env.close()

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())
    assert seen == expected


def test_an_earlier_event_does_not_wait_for_a_later_one() -> None:
    async def main() -> None:
        env = RealTimeEnv()
        done = asyncio.Event()
        env.after(10_000.0, lambda: None)
        env.after(1 * MS, done.set)
        await done.wait()
        done.clear()
        env.timeout(2 * MS).callbacks.append(lambda _: done.set())
        await done.wait()
        env.close()

    asyncio.run(main())


def test_processes_events_and_conditions_of_simpy_run() -> None:
    async def main() -> list[Any]:
        env = RealTimeEnv()
        door = env.event()

        def opener() -> Generator[Any, Any, str]:
            yield env.timeout(1 * MS)
            door.succeed("open")
            return "opener"

        def guest() -> Generator[Any, Any, Any]:
            opened = yield door
            first = yield env.any_of([env.timeout(1 * MS, "soon"), env.timeout(9_000.0, "late")])
            return [opened, *first.todict().values()]

        inside, outside = env.process(guest()), env.process(opener())
        found = [await wait(outside), await wait(inside)]
        env.close()
        return found

    assert asyncio.run(main()) == ["opener", ["open", "soon"]]


class Clock(asyncio.SelectorEventLoop):
    """A loop whose clock a test sets."""

    now_s = 100.0

    def time(self) -> float:
        return self.now_s


def with_clock(main: Callable[[Clock, RealTimeEnv], Awaitable[None]]) -> None:
    """Run a coroutine on such a loop."""

    async def body() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clock)
        env = RealTimeEnv()
        await main(loop, env)
        env.close()

    with asyncio.Runner(loop_factory=Clock) as runner:
        runner.run(body())


async def turns(number: int = 5) -> None:
    """Let the loop turn, without time passing."""
    for _ in range(number):
        await asyncio.sleep(0)


def test_a_late_loop_does_not_stretch_a_chain_of_delays() -> None:
    async def main(loop: Clock, env: RealTimeEnv) -> None:
        seen: list[float] = []
        env.after(1.0, lambda: env.after(1.0, lambda: seen.append(env.now)))
        loop.now_s += 10.0
        await turns()
        assert seen == [102.0]
        assert env.now == 110.0

    with_clock(main)


def test_the_clock_never_runs_backwards() -> None:
    async def main(loop: Clock, env: RealTimeEnv) -> None:
        seen: list[float] = []
        env.after(1.0, lambda: seen.append(env.now))
        env.after(2.0, lambda: seen.append(env.now))
        loop.now_s += 10.0
        assert env.now == 110.0
        await turns()
        assert seen == [110.0, 110.0]
        loop.now_s -= 5.0
        assert env.now == 110.0

    with_clock(main)


def test_whoever_waits_for_an_instant_reacts_before_the_next() -> None:
    async def main(loop: Clock, env: RealTimeEnv) -> None:
        seen: list[str] = []
        first = loop.create_future()
        first.add_done_callback(lambda _: seen.append("waiter"))
        env.after(1.0, first.set_result, None)
        env.after(1.0, seen.append, "same instant")
        env.after(2.0, seen.append, "next")
        loop.now_s += 10.0
        await turns()
        assert seen == ["same instant", "waiter", "next"]

    with_clock(main)


def test_an_instant_without_end_leaves_the_loop_alive() -> None:
    async def main(loop: Clock, env: RealTimeEnv) -> None:
        ran = 0

        def again() -> None:
            nonlocal ran
            ran += 1
            if ran < 50 * realtime.MOST_AT_ONCE:
                env.after(0.0, again)

        env.after(0.0, again)
        await turns(6)
        assert realtime.MOST_AT_ONCE <= ran < 20 * realtime.MOST_AT_ONCE

    with_clock(main)


def test_a_cancelled_call_does_not_happen_and_the_rest_does() -> None:
    async def main(loop: Clock, env: RealTimeEnv) -> None:
        seen: list[str] = []
        env.after(1.0, seen.append, "cancelled").cancel()
        env.after(3.0, seen.append, "kept")
        loop.now_s += 2.0
        await turns()
        assert seen == []
        loop.now_s += 2.0
        await turns()
        assert seen == ["kept"]

    with_clock(main)


def test_what_a_call_raises_reaches_the_handler_and_the_others_go_on() -> None:
    async def main(loop: Clock, env: RealTimeEnv) -> None:
        told: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        trouble, seen = ValueError("model"), []

        def fail(*_: Any) -> None:
            raise trouble

        env.after(1.0, fail)
        both = env.timeout(1.0)
        both.callbacks += [fail, lambda _: seen.append("second callback")]
        env.after(2.0, seen.append, "later")
        loop.now_s += 10.0
        await turns()
        assert told == [trouble, trouble]
        assert seen == ["second callback", "later"]

    with_clock(main)


def test_a_failed_process_surfaces_in_its_waiter_else_in_the_handler() -> None:
    trouble = KeyError("lun-7")

    def failing(env: RealTimeEnv) -> Generator[Any, Any, None]:
        yield env.timeout(0.0)
        raise trouble

    async def main(loop: Clock, env: RealTimeEnv) -> None:
        told: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        with pytest.raises(KeyError) as caught:
            await wait(env.process(failing(env)))
        assert caught.value is trouble
        assert told == []
        env.process(failing(env))
        await turns()
        assert told == [trouble]

    with_clock(main)


def test_nobody_else_can_drive_it_and_it_needs_a_running_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        RealTimeEnv()

    async def main(loop: Clock, env: RealTimeEnv) -> None:
        env.after(1.0, lambda: None)
        with pytest.raises(SimForbiddenError):
            env.run()
        with pytest.raises(SimForbiddenError):
            SimLoop(env)

    with_clock(main)


def test_after_closing_nothing_happens_any_more() -> None:
    async def main(loop: Clock, env: RealTimeEnv) -> None:
        seen: list[str] = []
        env.after(1.0, seen.append, "before")
        env.close()
        env.after(1.0, seen.append, "after")
        loop.now_s += 10.0
        await turns()
        assert seen == []

    with_clock(main)


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
