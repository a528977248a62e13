"""The real-time environment: the order of virtual time, beside a normal loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.sim import realtime
from stillframe.sim.bridge import wait
from stillframe.sim.env import SimEnv, SimForbiddenError
from stillframe.sim.loop import SimLoop
from stillframe.sim.realtime import RealTimeEnv

MS = 1e-3
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
