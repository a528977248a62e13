"""What SimLoop promises to asyncio code: all of it works, in virtual time."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from support_simloop import run

from stillframe.sim.env import SimEnv
from stillframe.sim.tasks import SimTask


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
