"""What the loop's building blocks cost, next to the unit that costs are stated in.

The unit is one timeout of a SimPy process, with 1,000 processes alive. Each bench does the same
number of operations, so the times compare directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import simpy

from stillframe.sim.bridge import after, resolve, wait
from stillframe.sim.env import SimEnv
from stillframe.sim.loop import SimLoop

ACTORS = 1_000
OPERATIONS = 10
ROUNDS = {"rounds": 10, "iterations": 1, "warmup_rounds": 1}


def _delay_s(actor: int) -> float:
    return 1.0 + actor % 7 * 0.1


def _processes(env: simpy.Environment) -> float:
    def process(actor: int) -> Any:
        for _ in range(OPERATIONS):
            yield env.timeout(_delay_s(actor))

    for actor in range(ACTORS):
        env.process(process(actor))
    env.run()
    return float(env.now)


def _tasks(operation: Callable[[SimEnv, int], Awaitable[object]]) -> float:
    async def task(env: SimEnv, actor: int) -> None:
        for _ in range(OPERATIONS):
            await operation(env, actor)

    async def main(env: SimEnv) -> float:
        await asyncio.gather(*(task(env, actor) for actor in range(ACTORS)))
        return float(env.now)

    loop = SimLoop()
    try:
        return loop.run_until_complete(main(loop.env))
    finally:
        loop.close()


async def _sleep(_env: SimEnv, actor: int) -> None:
    await asyncio.sleep(_delay_s(actor))


async def _guarded_sleep(_env: SimEnv, actor: int) -> None:
    async with asyncio.timeout(600):
        await asyncio.sleep(_delay_s(actor))


def _timeout(env: SimEnv, actor: int) -> Awaitable[object]:
    return wait(env.timeout(_delay_s(actor)))


def _alarm(env: SimEnv, actor: int) -> Awaitable[object]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    after(env, _delay_s(actor), resolve, done, None)
    return done


def _alarms_only() -> float:
    env = SimEnv()

    def ring(actor: int, left: int) -> None:
        if left:
            after(env, _delay_s(actor), ring, actor, left - 1)

    for actor in range(ACTORS):
        ring(actor, OPERATIONS)
    env.run()
    return float(env.now)


def _ends_at(now_s: float) -> None:
    # Every variant lets the same virtual time pass, or it did not do the work.
    if abs(now_s - OPERATIONS * _delay_s(6)) > 1e-6:
        raise AssertionError(f"ended at {now_s} s")


def test_unit_bare_simpy_process_timeout(benchmark: Any) -> None:
    _ends_at(benchmark.pedantic(lambda: _processes(simpy.Environment()), **ROUNDS))


def test_process_timeout_on_sim_env(benchmark: Any) -> None:
    _ends_at(benchmark.pedantic(lambda: _processes(SimEnv()), **ROUNDS))


def test_after(benchmark: Any) -> None:
    _ends_at(benchmark.pedantic(_alarms_only, **ROUNDS))


def test_asyncio_sleep(benchmark: Any) -> None:
    _ends_at(benchmark.pedantic(_tasks, args=(_sleep,), **ROUNDS))


def test_asyncio_timeout_around_sleep(benchmark: Any) -> None:
    _ends_at(benchmark.pedantic(_tasks, args=(_guarded_sleep,), **ROUNDS))


def test_wait_for_simpy_timeout(benchmark: Any) -> None:
    _ends_at(benchmark.pedantic(_tasks, args=(_timeout,), **ROUNDS))


def test_future_resolved_by_after(benchmark: Any) -> None:
    _ends_at(benchmark.pedantic(_tasks, args=(_alarm,), **ROUNDS))
