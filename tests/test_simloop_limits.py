"""How a simulated run ends: closing, deadlock, livelock, step limits, refusals."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support_simloop import Process, run

from stillframe.errors import StillframeError
from stillframe.sim.bridge import after, wait
from stillframe.sim.env import SimEnv, SimForbiddenError
from stillframe.sim.loop import (
    SimDeadlockError,
    SimLivelockError,
    SimLoop,
    SimStepLimitError,
)

# Ends of a loop --------------------------------------------------------------------------------


def test_closing_takes_the_timers_of_the_loop_out_of_a_shared_environment() -> None:
    env = SimEnv()
    log: list[str] = []

    async def first(env: SimEnv) -> None:
        asyncio.get_running_loop().call_later(5, log.append, "dead loop")
        after(env, 5, log.append, "model")

    async def second(env: SimEnv) -> None:
        assert len(env._queue) == 1
        await asyncio.sleep(10)

    run(first, env)
    run(second, env)
    assert log == ["model"]
    assert env.now == 10


def test_one_loop_at_a_time_drives_an_environment() -> None:
    env = SimEnv()
    loop = SimLoop(env)
    with pytest.raises(SimForbiddenError, match="close that loop first"):
        SimLoop(env).close()
    with pytest.raises(SimForbiddenError, match="is driven by"):
        env.run(until=1)
    loop.close()
    loop.close()
    env.run(until=1)
    SimLoop(env).close()
    gc.collect()  # the refused loop, which never opened, must not warn that it was not closed


def test_a_closed_loop_refuses_work() -> None:
    complaints: list[Any] = []
    loop = SimLoop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    loop.close()
    coroutine = asyncio.sleep(1)
    for call in (
        lambda: loop.call_soon(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.create_task(coroutine),
        lambda: loop.run_until_complete(coroutine),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    coroutine.close()
    gc.collect()
    assert complaints == []  # no half-made task was left behind


def test_stop_ends_run_forever_after_the_current_batch() -> None:
    loop = SimLoop()
    log: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(log.append, "same batch")
    loop.call_later(1, log.append, "later")
    loop.run_forever()
    assert (log, loop.time()) == (["same batch"], 0)
    loop.close()


def test_a_stop_before_the_run_lets_no_time_pass() -> None:
    loop = SimLoop()
    loop.call_later(1, print)
    loop.stop()
    loop.run_forever()
    assert loop.time() == 0
    loop.close()


# Deadlock, livelock, limits --------------------------------------------------------------------


def test_a_deadlock_names_each_pending_task_and_where_it_waits() -> None:
    async def stuck(event: asyncio.Event) -> None:
        await event.wait()

    async def main(env: SimEnv) -> None:
        async with asyncio.TaskGroup() as group:
            other = group.create_task(stuck(asyncio.Event()), name="quiesce vm-17")
            group.create_task(asyncio.sleep(3))
            await asyncio.shield(other)

    with pytest.raises(SimDeadlockError) as caught:
        run(main)
    lines = str(caught.value).splitlines()
    assert "t=3.0 s" in lines[0]
    assert "2 task(s) pending" in lines[0]
    assert lines[1].startswith("  task-1: ")
    assert "main:" in lines[1]
    assert lines[2].startswith("  quiesce vm-17: ")
    assert "stuck:" in lines[2]
    assert " > Event.wait:" in lines[2]
    assert len(lines) == 3
    assert isinstance(caught.value, StillframeError)


def test_a_deadlock_of_many_tasks_is_reported_in_bounded_length() -> None:
    async def main(env: SimEnv) -> None:
        event = asyncio.Event()
        await asyncio.gather(*(event.wait() for _ in range(100)))

    with pytest.raises(SimDeadlockError, match=r"101 task\(s\) pending") as caught:
        run(main)
    assert str(caught.value).splitlines()[-1] == "  and 51 more"


def test_a_task_that_waits_for_another_says_so() -> None:
    async def main(env: SimEnv) -> None:
        await asyncio.create_task(asyncio.Event().wait(), name="the other")

    with pytest.raises(SimDeadlockError, match=r"task-1: .*main:[0-9]+ > task the other"):
        run(main)


def test_a_cancelled_guard_does_not_put_off_a_deadlock() -> None:
    async def main(env: SimEnv) -> None:
        async with asyncio.timeout(600):
            await asyncio.sleep(1)
        await asyncio.Event().wait()

    with pytest.raises(SimDeadlockError, match=r"after t=1\.0 s"):
        run(main)


def test_sleeping_for_ever_is_a_deadlock_not_the_end_of_time() -> None:
    async def main(env: SimEnv) -> None:
        await asyncio.sleep(float("inf"))

    env = SimEnv()
    with pytest.raises(SimDeadlockError):
        run(main, env)
    assert env.now == 0


def _limited(main: Callable[[SimEnv], Awaitable[Any]], **limits: int) -> SimLoop:
    loops: list[SimLoop] = []

    def make() -> SimLoop:
        loops.append(SimLoop())
        for name, value in limits.items():
            setattr(loops[0], name, value)
        return loops[0]

    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main(runner.get_loop().env))  # type: ignore[arg-type, attr-defined]
    return loops[0]


async def _spin_in_tasks(env: SimEnv) -> None:
    await asyncio.sleep(1)
    while True:  # noqa: ASYNC110 - the mistake that is to be found
        await asyncio.sleep(0)


async def _spin_in_the_model(env: SimEnv) -> None:
    def process() -> Process:
        yield env.timeout(1)
        while True:
            yield env.timeout(0)

    env.process(process())
    await asyncio.sleep(5)


@pytest.mark.parametrize("main", [_spin_in_tasks, _spin_in_the_model])
def test_a_livelock_is_noticed_on_either_side(main: Callable[[SimEnv], Awaitable[Any]]) -> None:
    with pytest.raises(SimLivelockError, match=r"1000 steps at t=1\.0 s") as caught:
        _limited(main, livelock_steps=1_000)
    assert f"{main.__name__}:" in str(caught.value)  # type: ignore[attr-defined]


def test_progress_however_long_is_no_livelock() -> None:
    async def main(env: SimEnv) -> None:
        for _ in range(1_000):
            await asyncio.sleep(0.001)

    assert _limited(main, livelock_steps=20).steps_run > 1_000


def test_a_step_limit_stops_at_exactly_that_step() -> None:
    log: list[int] = []

    async def main(env: SimEnv) -> None:
        log.clear()
        env.process(tick(env))
        await asyncio.gather(*(asyncio.sleep(n) for n in range(5)))
        log.append(-1)

    def tick(env: SimEnv) -> Process:
        for n in range(5):
            yield env.timeout(0.5)
            log.append(n)

    whole = SimLoop()
    whole.run_until_complete(main(whole.env))
    whole.close()
    total, progress = whole.steps_run, []
    for limit in range(1, total):
        loop = SimLoop()
        loop.step_limit = limit
        task = loop.create_task(main(loop.env))
        with pytest.raises(SimStepLimitError, match=f"after {limit} steps"):
            loop.run_until_complete(task)
        assert loop.steps_run == limit
        progress.append(len(log))
        loop.run_until_complete(task)  # the limit is lifted: the rest runs as if never stopped
        assert loop.steps_run >= total
        assert log[-1] == -1
        loop.close()
    assert progress == sorted(progress)
    assert set(progress) >= set(range(6))


def test_steps_are_counted_by_kind() -> None:
    async def main(env: SimEnv) -> None:
        for _ in range(10):
            await asyncio.sleep(1)  # one timer; its callback and the task's wake-up
        for _ in range(5):
            await wait(env.timeout(1))  # one event; the wake-up

    loop = SimLoop()
    loop.run_until_complete(main(loop.env))
    assert loop.events_run == 15
    assert loop.callbacks_run == 1 + 20 + 5 + 1  # and the first step, and the stop
    assert loop.steps_run == loop.events_run + loop.callbacks_run
    loop.close()


# What is refused -------------------------------------------------------------------------------


def _refused() -> dict[str, Callable[[Any], Any]]:
    return {
        "to_thread": lambda _: asyncio.to_thread(print),
        "run_in_executor": lambda loop: loop.run_in_executor(None, print),
        "set_default_executor": lambda loop: loop.set_default_executor(None),
        "open_connection": lambda _: asyncio.open_connection("localhost", 1),
        "start_server": lambda _: asyncio.start_server(print, "localhost", 0),
        "open_unix_connection": lambda _: asyncio.open_unix_connection("/x"),
        "create_datagram_endpoint": lambda loop: loop.create_datagram_endpoint(print),
        "getaddrinfo": lambda loop: loop.getaddrinfo("localhost", 1),
        "sock_connect": lambda loop: loop.sock_connect(None, None),
        "subprocess_exec": lambda _: asyncio.create_subprocess_exec("true"),
        "subprocess_shell": lambda _: asyncio.create_subprocess_shell("true"),
        "add_signal_handler": lambda loop: loop.add_signal_handler(1, print),
        "add_reader": lambda loop: loop.add_reader(0, print),
        "add_writer": lambda loop: loop.add_writer(1, print),
        "connect_read_pipe": lambda loop: loop.connect_read_pipe(print, None),
    }


@pytest.mark.parametrize("name", _refused())
def test_what_leaves_the_simulation_is_refused(name: str) -> None:
    async def main(env: SimEnv) -> None:
        with pytest.raises(SimForbiddenError, match="refused on a simulated event loop"):
            await _refused()[name](asyncio.get_running_loop())

    run(main)


def test_no_call_of_an_event_loop_is_left_unanswered() -> None:
    # Whatever asyncio declares and does not implement for every loop must be refused by name.
    unanswered = [
        name
        for name in dir(asyncio.AbstractEventLoop)
        if not name.startswith("__")
        and getattr(SimLoop, name, None) is getattr(asyncio.AbstractEventLoop, name)
    ]
    assert unanswered == []


def test_call_soon_threadsafe_is_refused_from_another_thread_only() -> None:
    outcome: list[Any] = []

    async def main(env: SimEnv) -> None:
        loop = asyncio.get_running_loop()

        def elsewhere() -> None:
            try:
                loop.call_soon_threadsafe(outcome.append, "called")
            except SimForbiddenError as exc:
                outcome.append(str(exc))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        loop.call_soon_threadsafe(outcome.append, "own thread")
        await asyncio.sleep(1)

    run(main)
    assert len(outcome) == 2
    assert "another thread" in outcome[0]
    assert outcome[1] == "own thread"
