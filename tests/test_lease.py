"""Holding a job: renewals, the loss of the lease, and what a journal's failures do to the work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from stillframe.drivers.records import VmId
from stillframe.errors import StillframeError
from stillframe.orchestrator.journal import Intent, IntentKind, LeaseLostError
from stillframe.orchestrator.lease import Tenure, holding
from stillframe.orchestrator.memory_store import MemoryStore, throwaway_journal
from stillframe.sim.loop import SimLoop

INTENT = Intent("stillframe-j-1", IntentKind.VM_SNAPSHOT, "vc", "vc/vm0", 0.0)


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(main())  # type: ignore[arg-type]


class Bench:
    """A store on the loop's clock, a job in it, and what its journal has been asked."""

    def __init__(self, lease_s: float = 30.0) -> None:
        self.ahead_s = 0.0
        self.store = MemoryStore(lambda: asyncio.get_running_loop().time() + self.ahead_s)
        self.lease_s = lease_s
        self.renewed_s: list[float] = []
        self.failing: dict[str, StillframeError] = {}

    def begin(self) -> Spy:
        """The job's journal."""
        inner = self.store.begin("j", name="j", spec="{}", holder="one", lease_s=self.lease_s)
        return Spy(self, inner)

    def lose(self) -> None:
        """Another orchestrator takes the job, as its clock says that the lease has run out."""
        self.ahead_s += 2 * self.lease_s
        self.store.take_over("j", holder="two", lease_s=self.lease_s)


class Spy:
    """A journal that notes its renewals, and fails where the bench says so."""

    def __init__(self, bench: Bench, inner: Any) -> None:
        self._bench = bench
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name in self._bench.failing:

            def fail(*_: object) -> None:
                raise self._bench.failing[name]

            return fail
        if name == "renew":
            self._bench.renewed_s.append(asyncio.get_running_loop().time())
        return getattr(self._inner, name)


def test_the_lease_is_renewed_three_times_as_long_as_the_body_runs() -> None:
    bench = Bench()

    async def main() -> None:
        async with holding(bench.begin()):
            await asyncio.sleep(35.0)
        await asyncio.sleep(100.0)

    run(main)
    assert bench.renewed_s == [0.0, 10.0, 20.0, 30.0]


def test_a_journal_without_a_lease_is_not_renewed() -> None:
    async def main() -> None:
        async with holding(throwaway_journal("j", lambda: 0.0)) as tenure:
            tenure.check()
            await asyncio.sleep(1e9)
            tenure.check()
            assert tenure.lease_s is None

    run(main)


def test_a_finished_job_is_not_renewed() -> None:
    bench = Bench()

    async def main() -> None:
        async with holding(bench.begin()) as tenure:
            tenure.finish("protected")
            await asyncio.sleep(100.0)

    run(main)
    assert bench.renewed_s == [0.0]


def test_a_lost_lease_cancels_the_body_and_is_raised_as_itself() -> None:
    bench = Bench()
    ended: list[float] = []

    async def work() -> None:
        try:
            await asyncio.sleep(1000.0)
        finally:
            ended.append(asyncio.get_running_loop().time())

    async def main() -> None:
        async with holding(bench.begin()), asyncio.TaskGroup() as tasks:
            tasks.create_task(work())
            tasks.create_task(work())
            asyncio.get_running_loop().call_later(12.0, bench.lose)

    with pytest.raises(LeaseLostError, match="taken over by two"):
        run(main)
    assert ended == [20.0, 20.0], "at the next renewal"


def test_the_task_that_held_it_goes_on_after_the_loss() -> None:
    """The cancellation that ended the body is over with it."""
    bench = Bench()

    async def hold() -> None:
        async with holding(bench.begin()):
            bench.lose()
            await asyncio.sleep(1000.0)

    async def main() -> float:
        with pytest.raises(LeaseLostError):
            await hold()
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        await asyncio.sleep(5.0)
        return asyncio.get_running_loop().time()

    assert run(main) == 15.0


CALLS: list[tuple[str, Callable[[Tenure], object]]] = [
    ("renew", lambda tenure: tenure.renew()),
    ("intend", lambda tenure: tenure.intend(INTENT)),
    ("settle", lambda tenure: tenure.settle(INTENT.tag)),
    ("open_intents", lambda tenure: tenure.open_intents()),
    ("keep", lambda tenure: tenure.keep([], 0.0)),
    ("withdraw", lambda tenure: tenure.withdraw([], "gone")),
    ("kept", lambda tenure: tenure.kept()),
    ("finish", lambda tenure: tenure.finish("failed")),
]


@pytest.mark.parametrize(("name", "call"), CALLS, ids=[name for name, _ in CALLS])
def test_any_call_that_finds_the_lease_lost_ends_the_body(
    name: str, call: Callable[[Tenure], object]
) -> None:
    bench = Bench()
    refused: list[str] = []

    async def caller(tenure: Tenure) -> None:
        await asyncio.sleep(1.0)
        bench.lose()
        tenure.check()  # nobody knows yet
        with pytest.raises(LeaseLostError):
            call(tenure)
        for _, other in [*CALLS, ("check", Tenure.check)]:
            with pytest.raises(LeaseLostError):
                other(tenure)
        refused.append(name)

    async def main() -> None:
        async with holding(bench.begin()) as tenure:
            helper = asyncio.get_running_loop().create_task(caller(tenure))
            try:
                await asyncio.sleep(1000.0)
            finally:
                assert asyncio.get_running_loop().time() == 1.0
                await helper

    with pytest.raises(LeaseLostError):
        run(main)
    assert refused == [name]


def test_the_body_that_finds_it_itself_is_not_cancelled_on_top() -> None:
    bench = Bench()
    went_on: list[bool] = []

    async def main() -> None:
        async with holding(bench.begin()) as tenure:
            bench.lose()
            with pytest.raises(LeaseLostError):
                tenure.intend(INTENT)
            await asyncio.sleep(0)
            went_on.append(True)

    with pytest.raises(LeaseLostError):
        run(main)
    assert went_on


def test_a_job_that_is_lost_before_it_begins_does_nothing() -> None:
    bench = Bench()

    async def main() -> None:
        journal = bench.begin()
        bench.lose()
        async with holding(journal):
            raise AssertionError("the body ran")

    with pytest.raises(LeaseLostError):
        run(main)


def test_after_a_standstill_nothing_is_touched_before_the_lease_is_renewed() -> None:
    """A process that was stopped finds its renewals late, and other things to do before them."""

    async def main(taken: bool) -> list[float]:
        bench = Bench()
        async with holding(bench.begin()) as tenure:
            tenure.end()  # no renewal comes while it is stopped
            await asyncio.sleep(29.0)
            tenure.check()
            await asyncio.sleep(1.0)
            if taken:
                bench.lose()
                with pytest.raises(LeaseLostError):
                    tenure.check()
                return bench.renewed_s
            tenure.check()
            tenure.check()
        return bench.renewed_s

    assert run(lambda: main(False)) == [0.0, 30.0]
    with pytest.raises(LeaseLostError):
        run(lambda: main(True))


def test_a_journal_that_cannot_be_written_for_a_while_costs_nothing() -> None:
    bench = Bench()

    async def main() -> None:
        async with holding(bench.begin()) as tenure:
            await asyncio.sleep(5.0)
            bench.failing["renew"] = StillframeError("the disk is full")
            await asyncio.sleep(20.0)
            del bench.failing["renew"]
            await asyncio.sleep(20.0)
            assert str(tenure.trouble) == "the disk is full"

    run(main)
    assert bench.renewed_s == [0.0, 30.0, 40.0]


def test_a_journal_that_cannot_be_written_any_more_loses_the_job_when_the_lease_runs_out() -> None:
    bench = Bench()
    ended: list[float] = []

    async def main() -> None:
        async with holding(bench.begin()):
            bench.failing["renew"] = StillframeError("the disk is full", "make room")
            try:
                await asyncio.sleep(1000.0)
            finally:
                ended.append(asyncio.get_running_loop().time())

    with pytest.raises(LeaseLostError, match="cannot be renewed: the disk is full: make room"):
        run(main)
    assert ended == [30.0]


def test_a_journal_that_fails_at_the_begin_says_so() -> None:
    bench = Bench()
    bench.failing["renew"] = StillframeError("the disk is full")

    async def main() -> None:
        async with holding(bench.begin()):
            raise AssertionError("the body ran")

    with pytest.raises(StillframeError, match="the disk is full") as caught:
        run(main)
    assert not isinstance(caught.value, LeaseLostError)


def test_a_settled_intent_that_cannot_be_noted_stops_no_release() -> None:
    bench = Bench()
    bench.failing["settle"] = StillframeError("the disk is full")

    async def main() -> Tenure:
        async with holding(bench.begin()) as tenure:
            tenure.intend(INTENT)
            tenure.settle(INTENT.tag)
            return tenure

    tenure = run(main)
    assert str(tenure.trouble) == "the disk is full"
    assert tenure.lost is None


def test_other_failures_and_cancellations_pass() -> None:
    bench = Bench()

    async def failing() -> None:
        async with holding(bench.begin()):
            raise ValueError("a defect")

    async def cancelled() -> None:
        async with holding(Bench().begin()):
            await asyncio.sleep(1000.0)

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(cancelled())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    with pytest.raises(ValueError, match="a defect"):
        run(failing)
    run(main)


def kept_of(tenure: Tenure) -> Sequence[VmId]:
    return [entry.vm_id for entry in tenure.kept()]


def test_it_is_the_journal_otherwise() -> None:
    bench = Bench()

    async def main() -> None:
        async with holding(bench.begin()) as tenure:
            tenure.intend(INTENT)
            assert tenure.open_intents() == [INTENT]
            tenure.settle(INTENT.tag)
            assert tenure.open_intents() == []
            assert kept_of(tenure) == []
            assert tenure.lease_s == 30.0
            tenure.finish("protected")
        (record,) = bench.store.jobs()
        assert record.status == "protected"
        assert not record.holder

    run(main)
