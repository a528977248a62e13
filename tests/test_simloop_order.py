"""The order SimLoop keeps: fixed at an instant, permuted on request, equal in every process."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys

import simpy
from hypothesis import given
from hypothesis import strategies as st
from support_simloop import Process, run

from stillframe.sim.bridge import after, wait
from stillframe.sim.env import SimEnv


def test_the_order_at_one_instant_is_model_then_timers_then_tasks() -> None:
    log: list[str] = []

    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()

        async def task(n: int) -> None:
            await asyncio.sleep(1)
            log.append(f"task{n}")
            await asyncio.sleep(0)
            log.append(f"task{n}b")

        def process(n: int) -> Process:
            yield env.timeout(1)
            log.append(f"process{n}")
            yield env.timeout(0)
            log.append(f"process{n}b")

        tasks = []
        for n in (1, 2):
            loop.call_later(1, log.append, f"timer{n}")
            env.process(process(n))
            tasks.append(loop.create_task(task(n)))
            env.timeout(1).callbacks.append(lambda _, n=n: log.append(f"event{n}"))
            after(env, 1, log.append, f"alarm{n}")
        await asyncio.gather(*tasks)

    run(main)
    model = ["event1", "alarm1", "event2", "alarm2", "process1", "process2"]
    consequences = ["process1b", "process2b"]
    orchestrator = ["timer1", "timer2", "task1", "task2", "task1b", "task2b"]
    assert log == model + consequences + orchestrator


def test_callbacks_of_events_and_of_the_loop_share_one_queue() -> None:
    # What an event wakes at an instant lines up with the timers that were scheduled around it.
    log: list[str] = []

    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(1, log.append, "timer before")
        after(env, 1, loop.call_soon, log.append, "woken by the model")
        loop.call_later(1, log.append, "timer after")
        await asyncio.sleep(2)

    run(main)
    assert log == ["timer before", "woken by the model", "timer after"]


def test_polling_at_one_instant_does_not_starve_the_model() -> None:
    async def main(env: SimEnv) -> None:
        flag: list[int] = []
        after(env, 0, flag.append, 1)
        for _ in range(3):
            await asyncio.sleep(0)
        assert flag

    run(main)


@given(st.lists(st.tuples(st.sampled_from("caw"), st.integers(0, 3)), max_size=30))
def test_everything_happens_on_time_and_in_scheduling_order(plan: list[tuple[str, int]]) -> None:
    log: list[tuple[float, int]] = []

    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()

        def note(number: int) -> None:
            log.append((env.now, number))

        for number, (kind, delay) in enumerate(plan):
            if kind == "c":
                loop.call_later(delay, note, number)
            elif kind == "a":
                after(env, delay, loop.call_soon, note, number)
            else:
                wait(env.timeout(delay)).add_done_callback(lambda _, n=number: note(n))
        await asyncio.sleep(10)

    run(main)
    by_time = sorted((float(delay), number) for number, (_, delay) in enumerate(plan))
    # A future's callback is one batch later than the event that resolves it.
    direct = [entry for entry in log if plan[entry[1]][0] != "w"]
    assert direct == [entry for entry in by_time if plan[entry[1]][0] != "w"]
    assert sorted(log) == by_time


def _interleaving(seed: str | None) -> list[int]:
    log: list[int] = []

    async def worker(number: int) -> None:
        for step in range(3):
            log.append(10 * number + step)
            await asyncio.sleep(step % 2)

    async def main(env: SimEnv) -> None:
        await asyncio.gather(*(worker(n) for n in range(6)))

    run(main, ready_order=None if seed is None else random.Random(seed))
    return log


def test_ready_order_permutes_by_seed_and_keeps_each_task_in_order() -> None:
    plain = _interleaving(None)
    assert plain == [10 * n + step for step in range(3) for n in range(6)]
    seen = {tuple(_interleaving(f"seed-{i}")) for i in range(5)}
    assert len(seen) == 5
    for log in seen:
        assert sorted(log) == sorted(plain)
        for n in range(6):
            assert [x % 10 for x in log if x // 10 == n] == [0, 1, 2]
    assert _interleaving("seed-3") == _interleaving("seed-3")


def _ties(seed: str | None) -> list[str]:
    env = SimEnv(ties=None if seed is None else random.Random(seed))
    log: list[str] = []
    for n in range(4):
        env.timeout(1).callbacks.append(lambda _, n=n: log.append(f"event{n}"))
        env.after(1, log.append, f"alarm{n}")
        env.after(0, log.append, f"now{n}")
        env.timeout(0).callbacks.append(lambda _, n=n: log.append(f"now{n}b"))
    env.run()
    return log


def test_ties_permute_delayed_completions_only() -> None:
    plain = _ties(None)
    now, later = plain[:8], plain[8:]
    assert later == [f"{kind}{n}" for n in range(4) for kind in ("event", "alarm")]
    seen = {tuple(_ties(f"seed-{i}")) for i in range(5)}
    assert len(seen) == 5
    assert all(list(log[:8]) == now and sorted(log[8:]) == sorted(later) for log in seen)
    assert _ties("seed-1") == _ties("seed-1")


def test_urgent_events_stay_ahead_under_ties() -> None:
    for seed in range(20):
        env = SimEnv(ties=random.Random(seed))
        log: list[str] = []
        env.timeout(1).callbacks.append(lambda _, log=log: log.append("normal"))
        urgent = env.event()
        urgent._ok, urgent._value = True, None
        urgent.callbacks.append(lambda _, log=log: log.append("urgent"))
        env.schedule(urgent, simpy.events.URGENT, 1)
        env.run()
        assert log == ["urgent", "normal"]


_TRACE = """
import asyncio, hashlib, random
from stillframe.sim.bridge import after, wait
from stillframe.sim.env import SimEnv
from stillframe.sim.loop import SimLoop

ballast = [object() for _ in range(random.SystemRandom().randrange(5000))]  # moves addresses
log = []

async def vm(env, rng, name):
    try:
        for step in range(3):
            await asyncio.sleep(rng.randrange(3))
            await wait(env.timeout(rng.randrange(3)))
            if rng.random() < 0.1:
                raise OSError(name)
    except asyncio.CancelledError:
        log.append((env.now, name, asyncio.current_task().get_name(), "cancelled"))
        await asyncio.sleep(0)
        raise
    finally:
        log.append((env.now, name, "end"))

async def main(env):
    for seed in range(15):
        rng = random.Random(f"trace/{seed}")
        try:
            async with asyncio.TaskGroup() as group:
                for n in range(20):
                    group.create_task(vm(env, rng, f"vm-{n}"))
        except* OSError as group:
            log.append([str(exc) for exc in group.exceptions])
        tasks = [asyncio.create_task(asyncio.sleep(n % 3, n)) for n in range(9)]
        done, pending = await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
        log.append([task.result() for task in done])
        for task in pending:
            task.cancel()

env = SimEnv()
with asyncio.Runner(loop_factory=lambda: SimLoop(env)) as runner:
    runner.run(main(env))
assert sum(entry[-1] == "cancelled" for entry in log) > 50
print(hashlib.sha256(repr(log).encode()).hexdigest())
"""


def test_a_run_is_the_same_in_every_process_and_under_every_hash_seed() -> None:
    def trace(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", _TRACE],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert len({trace(seed) for seed in ("0", "1", "12345")}) == 1


def test_task_names_and_hashes_are_numbers_of_the_loop() -> None:
    async def main(env: SimEnv) -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]
        named = asyncio.create_task(asyncio.sleep(0), name="quiesce vm-7")
        assert [hash(task) for task in [*tasks, named]] == [2, 3, 4, 5]
        assert named.get_name() == "quiesce vm-7"
        assert "task-3" in repr(tasks[1])
        tasks[0].set_name("renamed")
        await asyncio.gather(*tasks, named)
        return [task.get_name() for task in tasks]

    assert run(main) == run(main) == ["renamed", "task-3", "task-4"]
