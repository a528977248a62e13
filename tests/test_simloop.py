"""What SimLoop promises to asyncio code: virtual time and order."""

from __future__ import annotations

import asyncio
import contextvars
import random
import subprocess
import sys
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st
from support_simloop import Process, run

from stillframe.sim.bridge import after, wait
from stillframe.sim.env import SimEnv
from stillframe.sim.tasks import SimTask

# asyncio in virtual time -----------------------------------------------------------------------


def test_sleep_moves_the_clock_by_exactly_its_delay() -> None:
    async def main(env: SimEnv) -> str:
        loop = asyncio.get_running_loop()
        assert loop.time() == 0.0
        assert isinstance(loop.time(), float)
        await asyncio.sleep(3.5)
        assert env.now == loop.time() == 3.5
        await asyncio.sleep(1_000_000)
        assert loop.time() == 1_000_003.5
        return "done"

    assert run(main) == "done"


def test_time_is_a_float_even_from_an_integer_start() -> None:
    async def main(env: SimEnv) -> None:
        assert isinstance(asyncio.get_running_loop().time(), float)

    run(main, SimEnv(initial_time_s=5))


def test_a_clock_that_starts_at_an_epoch_still_moves() -> None:
    # One nanosecond, asyncio's clock resolution, vanishes when added to this.
    async def main(env: SimEnv) -> None:
        await asyncio.sleep(0.25)
        async with asyncio.timeout(5):
            await asyncio.sleep(1)
        assert env.now == 1_700_000_001.25

    run(main, SimEnv(initial_time_s=1.7e9))


def test_a_task_group_waits_for_all_and_aborts_on_failure() -> None:
    async def bad() -> None:
        await asyncio.sleep(1)
        raise ValueError

    async def main(env: SimEnv) -> None:
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(asyncio.sleep(2, "slow"))
            fast = group.create_task(asyncio.sleep(1, "fast"))
        assert (env.now, slow.result(), fast.result()) == (2, "slow", "fast")
        sleepers: list[asyncio.Task[None]] = []

        async def abort() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(bad())
                sleepers.append(group.create_task(asyncio.sleep(50)))

        with pytest.raises(ExceptionGroup) as caught:
            await abort()
        assert caught.group_contains(ValueError)
        assert sleepers[0].cancelled()
        assert env.now == 3

    run(main)


def test_timeouts_expire_reschedule_and_leave_no_trace() -> None:
    async def main(env: SimEnv) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.sleep(5)
        assert env.now == 2
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(9), 1)
        assert env.now == 3
        async with asyncio.timeout(100):
            await asyncio.sleep(1)
        async with asyncio.timeout_at(env.now + 1) as limit:
            limit.reschedule(env.now + 3)
            await asyncio.sleep(2)
        assert env.now == 6

    run(main)


def test_semaphore_is_first_come_first_served() -> None:
    async def main(env: SimEnv) -> None:
        semaphore = asyncio.Semaphore(2)
        log = []

        async def worker(number: int) -> None:
            async with semaphore:
                log.append((number, env.now))
                await asyncio.sleep(1)

        await asyncio.gather(*(worker(i) for i in range(5)))
        assert log == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]

    run(main)


def test_queue_barrier_wait_and_async_generators() -> None:
    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)

    async def main(env: SimEnv) -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def produce() -> None:
            for i in range(3):
                await queue.put(i)
                await asyncio.sleep(1)

        async def consume() -> list[int]:
            return [await queue.get() for _ in range(3)]

        assert (await asyncio.gather(produce(), consume()))[1] == [0, 1, 2]
        barrier = asyncio.Barrier(2)
        assert sorted(await asyncio.gather(barrier.wait(), barrier.wait())) == [0, 1]
        sleepers = [asyncio.create_task(asyncio.sleep(s)) for s in (1, 2)]
        done, pending = await asyncio.wait(sleepers, return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({sleepers[0]}, {sleepers[1]})
        await sleepers[1]
        async for number in numbers():
            assert number == 1
            break

    run(main)


def test_tasks_and_futures_are_the_fast_ones() -> None:
    async def main(env: SimEnv) -> None:
        # asyncio.Task and asyncio.Future are the C types; the Python ones take twice the time.
        assert asyncio.Task.__module__ == asyncio.Future.__module__ == "_asyncio"
        assert isinstance(asyncio.current_task(), asyncio.Task)
        assert type(asyncio.get_running_loop().create_future()) is asyncio.Future

    run(main)


def test_closing_the_runner_lets_cleanup_take_virtual_time() -> None:
    seen: list[float] = []

    async def background(env: SimEnv) -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            await asyncio.sleep(5)
            seen.append(env.now)

    async def main(env: SimEnv) -> None:
        main.task = asyncio.create_task(background(env))  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    run(main)
    assert seen == [6]


def test_debug_mode_works() -> None:
    async def main(env: SimEnv) -> None:
        asyncio.get_running_loop().set_debug(True)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(2))
            group.create_task(asyncio.sleep(1))
        assert env.now == 2

    run(main)


def test_a_failing_callback_goes_to_the_exception_handler() -> None:
    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        caught: list[Any] = []
        loop.set_exception_handler(lambda _, context: caught.append(context["exception"]))
        loop.call_soon(lambda: 1 / 0)
        loop.call_later(1, lambda: 1 / 0)
        await asyncio.sleep(2)
        assert [type(exc) for exc in caught] == [ZeroDivisionError] * 2

    run(main)


def test_a_callback_gets_any_number_of_arguments_and_its_context() -> None:
    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        got: list[tuple[Any, ...]] = []
        for arguments in ((), (1,), (1, 2, 3)):
            loop.call_soon(lambda *a: got.append(a), *arguments)
            loop.call_later(1, lambda *a: got.append(a), *arguments)
        await asyncio.sleep(2)
        assert got == [(), (1,), (1, 2, 3)] * 2

    run(main)


def test_callbacks_run_in_the_context_they_were_given() -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        given = contextvars.copy_context()
        given.run(variable.set, "given")
        variable.set("current")
        got: list[str] = []

        def note() -> None:
            got.append(variable.get())

        for context in (None, given):
            loop.call_soon(note, context=context)
            loop.call_later(1, note, context=context)
            loop.call_at(1, note, context=context)
        variable.set("changed later")
        await asyncio.sleep(2)
        assert got == ["current", "given", "current", "current", "given", "given"]

    run(main)


def test_a_deadline_in_the_past_is_now_and_the_clock_never_goes_back() -> None:
    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(5)
        seen: list[float] = []
        loop.call_at(1, lambda: seen.append(loop.time()))
        loop.call_later(-1, lambda: seen.append(loop.time()))
        await asyncio.sleep(1)
        assert seen == [5, 5]

    run(main)


def test_a_cancelled_handle_does_not_run() -> None:
    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        log: list[str] = []
        handles = [loop.call_soon(log.append, "soon"), loop.call_later(1, log.append, "later")]
        for handle in handles:
            assert not handle.cancelled()
            handle.cancel()
            assert handle.cancelled()
        await asyncio.sleep(2)
        assert log == []

    run(main)


def test_a_timer_cancelled_at_its_own_instant_does_not_run() -> None:
    # Both are due at once and already in the ready queue when the first cancels the second.
    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()
        log: list[str] = []
        first = loop.call_later(1, lambda: second.cancel())
        second = loop.call_later(1, log.append, "ran")
        await asyncio.sleep(2)
        assert first.when() == second.when() == 1
        assert log == []

    run(main)


def test_equal_deadlines_all_expire_before_the_task_goes_on() -> None:
    async def main(env: SimEnv) -> None:
        expired: list[bool] = []

        async def nested() -> None:
            async with asyncio.timeout(1) as outer:
                try:
                    async with asyncio.timeout(1) as inner:
                        await asyncio.sleep(10)
                finally:
                    expired.extend((inner.expired(), outer.expired()))

        with pytest.raises(TimeoutError):
            await nested()
        assert expired == [True, True]

    run(main)


# Order -----------------------------------------------------------------------------------------


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


def test_a_task_factory_is_honoured() -> None:
    made: list[Any] = []

    def factory(loop: Any, coro: Any, **options: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    async def main(env: SimEnv) -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        task = asyncio.create_task(asyncio.sleep(1))
        assert not isinstance(task, SimTask)
        await task
        assert len(made) == 1

    run(main)
