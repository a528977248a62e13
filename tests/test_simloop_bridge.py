"""What SimLoop promises to models: events, processes, requests, alarms, one heap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import simpy
from support_simloop import DriverTrouble, Process, run

from stillframe.sim.bridge import after, reject, resolve, start, wait, wait_process
from stillframe.sim.env import SimEnv
from stillframe.sim.loop import (
    SimLoop,
)

# Between coroutines and SimPy ------------------------------------------------------------------


def test_a_coroutine_waits_for_events_and_processes() -> None:
    async def main(env: SimEnv) -> None:
        def process() -> Process:
            yield env.timeout(2)
            return "value"

        assert await wait(env.process(process())) == "value"
        assert env.now == 2
        assert await wait(env.timeout(1, "tick")) == "tick"
        past = env.timeout(0, "past")
        await asyncio.sleep(1)
        assert past.processed
        assert await wait(past) == "past"

    run(main)


def test_the_original_exception_object_reaches_the_coroutine() -> None:
    trouble = DriverTrouble(vm="vm-1")

    async def main(env: SimEnv) -> None:
        def inner() -> Process:
            yield env.timeout(1)
            raise trouble

        def outer() -> Process:
            with pytest.raises(DriverTrouble) as caught:
                yield env.process(inner())
            raise caught.value

        with pytest.raises(DriverTrouble) as caught:
            await wait(env.process(outer()))
        assert caught.value is trouble

    run(main)


def test_a_process_waits_for_a_coroutine() -> None:
    trouble = DriverTrouble(vm="vm-2")

    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)

        async def double(x: int) -> int:
            await asyncio.sleep(2)
            return 2 * x

        async def bad() -> None:
            await asyncio.sleep(1)
            raise trouble

        async def cancels_itself() -> None:
            raise asyncio.CancelledError

        def process() -> Process:
            result = yield from start(loop, double(4))
            with pytest.raises(DriverTrouble) as caught:
                yield from start(loop, bad())
            assert caught.value is trouble
            with pytest.raises(asyncio.CancelledError):
                yield from start(loop, cancels_itself())
            return result

        assert await wait(env.process(process())) == 8
        assert env.now == 3

    run(main)


def test_interrupting_a_process_cancels_its_coroutine() -> None:
    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        seen: list[float] = []

        async def work() -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                seen.append(env.now)
                raise

        def process() -> Process:
            with pytest.raises(simpy.Interrupt):
                yield from start(loop, work())

        running = env.process(process())
        await asyncio.sleep(2)
        running.interrupt()
        await asyncio.sleep(1)
        assert seen == [2]

    run(main)


def test_cancelling_wait_process_interrupts_the_process() -> None:
    async def main(env: SimEnv) -> None:
        seen: list[tuple[float, Any]] = []

        def process() -> Process:
            try:
                yield env.timeout(10)
            except simpy.Interrupt as interrupt:
                seen.append((env.now, interrupt.cause))
                raise

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await wait_process(env.process(process()))
        await asyncio.sleep(0.5)
        assert seen == [(3, "cancelled")]

    run(main)


def test_the_late_failure_of_an_abandoned_operation_does_not_end_the_run() -> None:
    async def main(env: SimEnv) -> float:
        def late() -> Process:
            yield env.timeout(10)
            raise DriverTrouble(vm="vm-3")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await wait(env.process(late()))
        await asyncio.sleep(20)
        return env.now

    assert run(main) == 21


def test_cancelling_a_waiter_withdraws_its_request() -> None:
    async def main(env: SimEnv) -> None:
        resource = simpy.Resource(env, 1)

        async def hold() -> None:
            request = resource.request()
            await wait(request)
            try:
                await asyncio.sleep(100)
            finally:
                resource.release(request)

        holder = asyncio.create_task(hold())
        queued = asyncio.create_task(hold())
        await asyncio.sleep(1)
        assert (resource.count, len(resource.queue)) == (1, 1)
        queued.cancel()
        await asyncio.sleep(1)
        assert (resource.count, len(resource.queue)) == (1, 0)
        holder.cancel()
        await asyncio.sleep(1)
        assert resource.count == 0

    run(main)


def test_a_request_granted_while_its_waiter_is_cancelled_is_released() -> None:
    async def main(env: SimEnv) -> None:
        resource = simpy.Resource(env, 1)
        first = resource.request()
        await wait(first)
        waiter = asyncio.ensure_future(wait(resource.request()))
        await asyncio.sleep(1)
        waiter.cancel()
        resource.release(first)  # grants it at the very instant of the cancellation
        await asyncio.sleep(1)
        assert resource.count == 0

    run(main)


def test_an_unawaited_failure_of_the_model_ends_the_run_with_its_own_exception() -> None:
    trouble = DriverTrouble(vm="vm-4")

    async def main(env: SimEnv) -> None:
        def bad() -> Process:
            yield env.timeout(1)
            raise trouble

        env.process(bad())
        await asyncio.sleep(10)

    with pytest.raises(DriverTrouble) as caught:
        run(main)
    assert caught.value is trouble


def test_a_failing_alarm_ends_the_run() -> None:
    async def main(env: SimEnv) -> None:
        after(env, 1, lambda: 1 / 0)
        await asyncio.sleep(10)

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_yielding_something_else_than_an_event_fails_the_process() -> None:
    async def main(env: SimEnv) -> None:
        def confused() -> Process:
            yield 5

        with pytest.raises(RuntimeError, match=r"confused yielded 5, which is not an event"):
            await wait(env.process(confused()))

    run(main)


def test_resolve_and_reject_leave_a_finished_future_alone() -> None:
    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        gone, kept, failed = (loop.create_future() for _ in range(3))
        gone.cancel()
        resolve(gone, 1)
        reject(gone, OSError())
        resolve(kept, 2)
        reject(kept, OSError())
        reject(failed, OSError("x"))
        assert gone.cancelled()
        assert await kept == 2
        with pytest.raises(OSError, match="x"):
            await failed

    run(main)


# Alarms and the heap ---------------------------------------------------------------------------


def test_an_alarm_can_be_cancelled_and_knows_whether_it_is_pending() -> None:
    env = SimEnv()
    log: list[str] = []
    rung = env.after(1, log.append, "rung")
    cancelled = env.after(5, log.append, "cancelled")
    assert rung.pending
    cancelled.cancel()
    assert not cancelled.pending
    assert env.peek() == 1
    env.run()
    assert log == ["rung"]
    assert not rung.pending
    rung.cancel()
    assert env.now == 1  # a cancelled alarm does not move the clock
    assert env.peek() == float("inf")


@pytest.mark.parametrize("delay_s", [-1.0, float("nan")])
def test_an_alarm_in_the_past_is_refused(delay_s: float) -> None:
    with pytest.raises(ValueError, match="ahead"):
        SimEnv().after(delay_s, print)


def test_a_negative_timeout_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        SimEnv().timeout(-1)


@pytest.mark.parametrize("kind", ["call_later", "call_at", "after"])
def test_cancelled_timers_do_not_pile_up(kind: str) -> None:
    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        arm: Any = env.after if kind == "after" else getattr(loop, kind)
        live = [loop.call_at(500, print) for _ in range(10)]
        for _ in range(20_000):
            arm(600, print).cancel()
        assert len(env._queue) < 2_100
        assert sum(entry[3] in live for entry in env._queue) == 10
        for timer in live:
            timer.cancel()

    run(main)


def test_a_sweep_keeps_the_order_of_what_is_left() -> None:
    env = SimEnv()
    log: list[int] = []
    for n in range(500):
        env.after((n * 7) % 50, log.append, n)
        env.after(1, print).cancel()
    env.sweep()
    assert len(env._queue) == 500
    env.run()
    assert log == sorted(range(500), key=lambda n: ((n * 7) % 50, n))


def test_an_environment_also_runs_without_a_loop() -> None:
    env = SimEnv()
    trouble = DriverTrouble(vm="vm-5")

    def bad() -> Process:
        yield env.timeout(1)
        raise trouble

    assert env.run(until=env.timeout(2, "x")) == "x"
    env.run(until=3)
    env.process(bad())
    with pytest.raises(DriverTrouble) as caught:
        env.run()
    assert caught.value is trouble
    assert env.now == 4
