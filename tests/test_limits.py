"""Places in several limits at once: never too many, nobody forgotten, no place lost."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from stillframe.orchestrator.limits import Limiter, Scope
from stillframe.sim.loop import SimLoop


def scopes_of(limiter: Limiter, capacities: dict[str, int], names: list[str]) -> tuple[Scope, ...]:
    """The scopes of these names, each once."""
    found = [limiter.scope("limit", name, capacities[name]) for name in dict.fromkeys(names)]
    return tuple(scope for scope in found if scope is not None)


@settings(max_examples=150, deadline=None)
@given(
    capacities=st.fixed_dictionaries({name: st.integers(1, 3) for name in "abc"}),
    calls=st.lists(
        st.tuples(
            st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
            st.integers(0, 10),  # arrives
            st.integers(1, 5),  # holds
            st.none() | st.integers(0, 8),  # is cancelled after
        ),
        max_size=30,
    ),
)
def test_limits_hold_and_every_place_comes_back(
    capacities: dict[str, int], calls: list[tuple[list[str], int, int, int | None]]
) -> None:
    limiter = Limiter()
    holding = dict.fromkeys(capacities, 0)
    served = []

    async def call(number: int, names: list[str], arrives: int, holds: int) -> None:
        await asyncio.sleep(arrives)
        scopes = scopes_of(limiter, capacities, names)
        await limiter.acquire(scopes)
        try:
            for name in dict.fromkeys(names):
                holding[name] += 1
                assert holding[name] <= capacities[name]
            await asyncio.sleep(holds)
            served.append(number)
        finally:
            for name in dict.fromkeys(names):
                holding[name] -= 1
            limiter.release(scopes)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = []
        for number, (names, arrives, holds, cancel) in enumerate(calls):
            task = loop.create_task(call(number, names, arrives, holds))
            if cancel is not None:
                loop.call_at(cancel, task.cancel)
            tasks.append(task)
        await asyncio.gather(*tasks, return_exceptions=True)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())
    assert set(served) >= {i for i, (_, _, _, cancel) in enumerate(calls) if cancel is None}
    for name, capacity in capacities.items():
        scope = limiter.scope("limit", name, capacity)
        assert scope is not None
        assert scope.free == capacity


def test_a_waiter_for_a_busy_limit_does_not_hold_the_others() -> None:
    """Two semaphores in a row would make the third call wait behind the second."""
    order = []

    async def main() -> None:
        limiter = Limiter()
        vcenter = limiter.scope("vcenter", "vc", 2)
        busy = limiter.scope("datastore", "busy", 1)
        idle = limiter.scope("datastore", "idle", 1)
        assert vcenter is not None
        assert busy is not None
        assert idle is not None

        async def call(name: str, scopes: tuple[Scope, ...]) -> None:
            await limiter.acquire(scopes)
            order.append(name)
            await asyncio.sleep(10)
            limiter.release(scopes)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(call("first on busy", (vcenter, busy)))
            tasks.create_task(call("second on busy", (vcenter, busy)))
            tasks.create_task(call("first on idle", (vcenter, idle)))

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())
    assert order == ["first on busy", "first on idle", "second on busy"]


def test_waits_are_measured_and_charged_to_the_limit_that_was_full() -> None:
    async def main() -> list[tuple[str, int, int, float, float]]:
        limiter = Limiter()
        host = limiter.scope("host", "h", 5)
        store = limiter.scope("store", "d", 1)
        assert host is not None
        assert store is not None

        async def call() -> None:
            await limiter.acquire((host, store))
            await asyncio.sleep(2)
            limiter.release((host, store))

        await asyncio.gather(call(), call(), call())
        return [(w.name, w.calls, w.waited, w.total_s, w.longest_s) for w in limiter.waits()]

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        waits = runner.run(main())
    assert waits == [("host", 3, 0, 0.0, 0.0), ("store", 3, 2, 6.0, 4.0)]


def test_unlimited_is_no_scope() -> None:
    assert Limiter().scope("limit", "x", None) is None


def test_a_place_that_came_at_the_moment_of_the_cancellation_is_given_back() -> None:
    async def main() -> int:
        limiter = Limiter()
        scope = limiter.scope("limit", "x", 1)
        assert scope is not None
        await limiter.acquire((scope,))
        waiting = asyncio.get_running_loop().create_task(limiter.acquire((scope,)))
        await asyncio.sleep(1)
        limiter.release((scope,))  # the place is the waiter's now, but it has not run yet
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        return scope.free

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        assert runner.run(main()) == 1
