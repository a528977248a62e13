"""One operation per VM, begun when its places are free: order, limits, cancellation, errors."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.orchestrator.crew import in_turn
from stillframe.orchestrator.limits import Limiter, Scope
from stillframe.sim.loop import SimLoop


def run(main: Callable[[], Awaitable[None]], order: random.Random | None = None) -> None:
    async def wrapped() -> None:
        await main()

    with asyncio.Runner(loop_factory=lambda: SimLoop(ready_order=order)) as runner:
        runner.run(wrapped())


class Team:
    """VMs that share limits, and a record of what was done to them."""

    def __init__(self, capacity: int, hosts: dict[str, int] | None = None) -> None:
        self.limiter = Limiter()
        self.context: Any = SimpleNamespace(limiter=self.limiter)
        self.all = self.scope("vcenter", capacity)
        self.hosts = {name: self.scope(name, places) for name, places in (hosts or {}).items()}
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.tasks: dict[asyncio.Task[Any] | None, None] = {}
        self.active = 0

    def scope(self, name: str, capacity: int) -> Scope:
        scope = self.limiter.scope("limit", name, capacity)
        assert scope is not None
        return scope

    def vm(self, name: str, holds_s: float, host: str | None = None) -> tuple[Any, Any]:
        work = SimpleNamespace(
            vm=SimpleNamespace(id=name),
            outcome=SimpleNamespace(wait_s=0.0),
            places=(),
            holds_s=holds_s,
        )
        return work, (self.all,) if host is None else (self.all, self.hosts[host])

    async def operate(self, _context: Any, work: Any) -> None:
        self.begun.append(work.vm.id)
        self.tasks[asyncio.current_task()] = None
        self.active += 1
        assert self.active <= self.all.capacity
        try:
            await asyncio.sleep(work.holds_s)
        finally:
            self.active -= 1
        self.ended.append(work.vm.id)

    def whole(self) -> bool:
        """Every place is free and nobody is in line."""
        scopes = [self.all, *self.hosts.values()]
        return all(scope.free == scope.capacity for scope in scopes) and not self.active


def test_places_go_in_order_and_a_task_goes_on_with_the_next_vm() -> None:
    team = Team(2)
    works = [team.vm(str(number), 1.0 + number) for number in range(6)]

    async def main() -> None:
        await in_turn(team.context, team.operate, works)
        assert asyncio.get_running_loop().time() == 12.0

    run(main)
    assert team.begun == team.ended == ["0", "1", "2", "3", "4", "5"]
    assert len(team.tasks) == 2
    assert [work.outcome.wait_s for work, _ in works] == [0.0, 0.0, 1.0, 2.0, 4.0, 6.0]
    assert team.whole()


def test_nobody_to_work_on_is_over_at_once() -> None:
    team = Team(1)

    async def main() -> None:
        await in_turn(team.context, team.operate, [])

    run(main)


def test_who_lines_up_is_told() -> None:
    team = Team(1)
    told: list[str] = []

    async def main() -> None:
        works = [team.vm(name, 1.0) for name in "abc"]
        await in_turn(team.context, team.operate, works, lambda _, work: told.append(work.vm.id))

    run(main)
    assert told == ["b", "c"]


def test_a_call_repeated_at_once_keeps_its_place_before_those_behind_it() -> None:
    team = Team(1)

    async def twice(context: Any, work: Any) -> None:
        if work.vm.id == "a":
            scopes, work.places = work.places, ()
            context.limiter.release(scopes)
            await context.limiter.acquire(scopes)
            work.places = scopes
        await team.operate(context, work)

    async def main() -> None:
        await in_turn(team.context, twice, [team.vm(name, 1.0) for name in "abc"])

    run(main)
    assert team.begun == ["a", "b", "c"]
    assert team.whole()


def test_the_first_error_ends_the_others_and_is_raised() -> None:
    team = Team(2)

    async def fails(context: Any, work: Any) -> None:
        await team.operate(context, work)
        raise LookupError(work.vm.id)

    async def main() -> None:
        works = [team.vm("short", 1.0), team.vm("long", 9.0), team.vm("waits", 9.0)]
        with pytest.raises(LookupError, match="short"):
            await in_turn(team.context, fails, works)
        assert asyncio.get_running_loop().time() == 1.0

    run(main)
    assert team.ended == ["short"]
    assert team.whole()


def test_cancelled_it_waits_until_the_operations_have_ended() -> None:
    team = Team(2)

    async def slow_to_stop(context: Any, work: Any) -> None:
        try:
            await team.operate(context, work)
        finally:
            await asyncio.sleep(3)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        works = [team.vm(name, 9.0) for name in "abc"]
        task = loop.create_task(in_turn(team.context, slow_to_stop, works))
        loop.call_at(1.0, task.cancel)
        loop.call_at(2.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.time() == 4.0
        assert team.whole()

    run(main)
    assert team.begun == ["a", "b"]
    assert not team.ended


@pytest.mark.parametrize("seed", range(20))
def test_cancelled_before_the_others_are_in_line(seed: int) -> None:
    team = Team(1)

    async def main() -> None:
        works = [team.vm(name, 9.0) for name in "ab"]
        task = asyncio.get_running_loop().create_task(in_turn(team.context, team.operate, works))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(1)
        assert team.whole()

    run(main, random.Random(seed))
    assert not team.ended


@pytest.mark.parametrize("cancel_first", [True, False])
def test_cancelled_between_admission_and_the_first_step(*, cancel_first: bool) -> None:
    """The place of another group's VM comes at the very moment of the cancellation."""
    team = Team(1)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        alarms: list[asyncio.Task[None]] = []
        if cancel_first:
            loop.call_at(5.0, lambda: alarms[0].cancel())
        holder = loop.create_task(in_turn(team.context, team.operate, [team.vm("a", 5.0)]))
        await asyncio.sleep(1)
        waiter = loop.create_task(in_turn(team.context, team.operate, [team.vm("b", 5.0)]))
        alarms.append(waiter)
        if not cancel_first:
            loop.call_at(5.0, waiter.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await holder

    run(main)
    assert team.begun == ["a"]
    assert team.whole()


@given(
    capacity=st.integers(1, 3),
    hosts=st.fixed_dictionaries({"x": st.integers(1, 2), "y": st.integers(1, 2)}),
    groups=st.lists(
        st.tuples(
            st.integers(0, 2),  # begins
            st.none() | st.integers(0, 9),  # is cancelled
            st.lists(
                st.tuples(st.integers(0, 3), st.none() | st.sampled_from("xy")),
                max_size=6,
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    seed=st.none() | st.integers(0, 99),
)
def test_limits_hold_and_every_place_comes_back(
    capacity: int,
    hosts: dict[str, int],
    groups: list[tuple[int, int | None, list[tuple[int, str | None]]]],
    seed: int | None,
) -> None:
    """Also when callbacks that are ready at the same time run in another order."""
    team = Team(capacity, hosts)

    async def group(number: int, begins_s: int, vms: list[tuple[int, str | None]]) -> None:
        await asyncio.sleep(begins_s)
        works = [team.vm(f"{number}/{i}", holds_s, host) for i, (holds_s, host) in enumerate(vms)]
        await in_turn(team.context, team.operate, works)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = []
        for number, (begins_s, cancel_s, vms) in enumerate(groups):
            tasks.append(loop.create_task(group(number, begins_s, vms)))
            if cancel_s is not None:
                loop.call_at(cancel_s, tasks[-1].cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert team.whole()

    run(main, None if seed is None else random.Random(seed))
    assert len(team.begun) == len(set(team.begun))
    for number, (_, cancel_s, vms) in enumerate(groups):
        done = [name for name in team.ended if name.startswith(f"{number}/")]
        assert len(done) == len(vms) or cancel_s is not None
