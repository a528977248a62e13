"""A process on a simulated loop dies at any step, or stands still, and the world goes on."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.sim.crash import ProcessDeadError, go_on, kill, stand_still
from stillframe.sim.env import SimEnv
from stillframe.sim.loop import SimLoop, SimStepLimitError

done: list[str] = []
times: list[float] = []


async def part(name: str, delay_s: float) -> None:
    try:
        await asyncio.sleep(delay_s)
        done.append(name)
    finally:
        await apart(tidy(name))


async def apart(work: Coroutine[Any, Any, None]) -> None:
    await asyncio.get_running_loop().create_task(work)


async def tidy(name: str) -> None:
    await asyncio.sleep(0.1)
    done.append(f"tidied {name}")
    times.append(asyncio.get_running_loop().time())


async def work() -> None:
    async with asyncio.timeout(100), asyncio.TaskGroup() as tasks:
        for n in range(4):
            tasks.create_task(part(str(n), 1.0 + n))
        await asyncio.sleep(2.5)


def steps_of_work() -> int:
    loop = SimLoop(SimEnv())
    loop.run_until_complete(work())
    loop.close()
    return loop.steps_run


def run_to(env: SimEnv, step: int) -> SimLoop:
    loop = SimLoop(env)
    loop.step_limit = step
    with pytest.raises(SimStepLimitError):
        loop.run_until_complete(loop.create_task(work()))
    return loop


def test_killed_at_each_step_it_leaves_nothing_and_the_world_goes_on() -> None:
    whole = steps_of_work()
    assert whole > 30
    for step in range(1, whole):
        env = SimEnv()
        heard: list[float] = []
        env.after(50.0, lambda env=env, heard=heard: heard.append(env.now))
        done.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loop = run_to(env, step)
            before = list(done)
            pending = asyncio.all_tasks(loop)
            kill(loop)
            assert all(task.get_coro().cr_frame is None for task in pending)
            if step % 8 == 0:
                gc.collect()
        assert done == before, "finally blocks of a dead process have no effect"
        assert loop.steps_run == step
        # Another process has the environment, from where the first left it.
        other = SimLoop(env)
        other.run_until_complete(asyncio.sleep(60.0))
        other.close()
        assert heard == [50.0]


def test_nothing_is_said_of_failures_that_nobody_looked_at(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fails() -> None:
        raise ValueError("lost with the process")

    async def main() -> None:
        tasks = [asyncio.get_running_loop().create_task(fails()) for _ in range(3)]
        await asyncio.sleep(10.0)
        del tasks

    loop = SimLoop(SimEnv())
    loop.step_limit = 5
    with pytest.raises(SimStepLimitError):
        loop.run_until_complete(loop.create_task(main()))
    kill(loop)
    gc.collect()
    assert not caplog.records


def test_an_answer_to_a_dead_process_reaches_nobody_and_breaks_nothing() -> None:
    env = SimEnv()
    loop = SimLoop(env)
    future: asyncio.Future[int] = loop.create_future()

    async def wait() -> None:
        await future

    loop.step_limit = 2
    env.after(1.0, lambda: None)
    env.after(2.0, lambda: None)
    with pytest.raises(SimStepLimitError):
        loop.run_until_complete(loop.create_task(wait()))
    kill(loop)
    died_s = env.now
    future.set_result(1)
    env.after(5.0, lambda: None)
    env.run()
    assert env.now == died_s + 5.0


def test_a_dead_process_starts_nothing() -> None:
    loop = run_to(SimEnv(), 20)
    kill(loop)
    with pytest.raises(ProcessDeadError):
        loop.create_task(tidy("late"))


def test_it_can_be_killed_twice_and_after_its_end() -> None:
    loop = SimLoop(SimEnv())
    loop.run_until_complete(asyncio.sleep(1.0))
    kill(loop)
    kill(loop)
    assert loop.is_closed()


@given(st.integers(2, 60), st.floats(0.01, 30.0))
def test_after_a_standstill_it_goes_on_with_what_it_missed(step: int, away_s: float) -> None:
    env = SimEnv()
    done.clear()
    times.clear()
    loop = SimLoop(env)
    loop.step_limit = step
    task = loop.create_task(work())
    try:
        loop.run_until_complete(task)
    except SimStepLimitError:
        standstill = stand_still(loop)
        before = list(done)
        env.run(until=env.now + away_s)
        other = SimLoop(env)
        other.run_until_complete(asyncio.sleep(0.5))
        other.close()
        assert done == before
        resumed_s, tidied = env.now, len(times)
        go_on(loop, standstill)
        loop.run_until_complete(task)
        assert all(at_s >= resumed_s for at_s in times[tidied:])
    loop.close()
    assert sorted(done) == sorted([str(n) for n in range(4)] + [f"tidied {n}" for n in range(4)])


def test_who_stands_still_can_be_killed_while_another_has_the_environment() -> None:
    env = SimEnv()
    loop = run_to(env, 20)
    stand_still(loop)
    other = SimLoop(env)
    kill(loop)
    other.run_until_complete(asyncio.sleep(1.0))
    other.close()
    assert env.now >= 1.0
