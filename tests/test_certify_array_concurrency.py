"""Calls at once: the reference passes, every canary fails, waiting is as good as being busy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest
from support_certify_topics import KINDS, NAMES, expect_caught, outcomes, reasons

from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.canaries import array_concurrency, array_questions
from stillframe.certify.canary import BrokenDriver, Canary, with_driver
from stillframe.certify.checks.array_common import ended, together
from stillframe.certify.outcome import Verdict
from stillframe.certify.targets.modelled_array import RedirectOnWriteArray
from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from stillframe.drivers.errors import BusyError, DriverError

TOPICS = ("ARR-CON", "ARR-ASK")
CANARIES = (*array_concurrency.CANARIES, *array_questions.CANARIES)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reference_takes_calls_at_once(kind: type[ArrayTarget], seed: int) -> None:
    found = outcomes(kind, *TOPICS, seed=seed)
    assert len(found) == 18
    assert reasons(found, Verdict.PASS) == {}
    assert found["ARR-CON-01"].evidence["at_once"] == 3
    assert found["ARR-CON-02"].evidence == {"asked": 6, "made": 3}
    assert found["ARR-CON-04"].evidence["refused_at_first"] > 0
    assert found["ARR-ASK-01"].evidence["looks"] >= 5
    assert found["ARR-ASK-03"].evidence["listings"] > 10
    assert found["ARR-ASK-06"].compared_bytes > 100_000


@pytest.mark.parametrize("canary", CANARIES, ids=[one.id for one in CANARIES])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_every_canary_fails_its_requirement(
    kind: type[ArrayTarget], canary: Canary[ArrayTarget]
) -> None:
    expect_caught(kind, canary)


class Waits(BrokenDriver):
    """One call that changes anything at a time, over all connections; the others wait."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.turn = getattr(target, "turn", None) or asyncio.Lock()

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """In turn; goes on when nobody waits any more."""
        made: GroupSnapshot = await asyncio.shield(self._in_turn("snapshot_group", request))
        return made

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """In turn."""
        await asyncio.shield(self._in_turn("delete_snapshot", ref))

    def _in_turn(self, method: str, what: Any) -> asyncio.Task[Any]:
        async def work() -> Any:
            async with self.target.turn:
                return await getattr(self.inner, method)(what)

        task = asyncio.ensure_future(work())
        task.add_done_callback(lambda one: one.cancelled() or one.exception())
        return task


def test_a_driver_that_makes_calls_wait_is_as_good() -> None:
    found = outcomes(with_driver(Waits)(RedirectOnWriteArray), *TOPICS, "ARR-ERR", "ARR-LIF")
    never = "the driver refused none of several calls at once as busy"
    assert reasons(found, Verdict.PASS) == {"ARR-CON-04": never, "ARR-ERR-14": never}


class BusyAtOnce(BrokenDriver):
    """Whatever meets another call is busy, and says when to come again or does not."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.at_work = 0

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """Alone."""
        made: GroupSnapshot = await self._alone("snapshot_group", request)
        return made

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """Alone."""
        await self._alone("delete_snapshot", ref)

    async def _alone(self, method: str, what: Any) -> Any:
        if self.target.at_work:
            raise BusyError(method, what.tag, "one thing at a time")
        self.target.at_work += 1
        try:
            return await getattr(self.inner, method)(what)
        finally:
            self.target.at_work -= 1


def test_a_driver_that_is_busy_all_the_time_breaks_what_it_declares_alone() -> None:
    found = outcomes(with_driver(BusyAtOnce)(RedirectOnWriteArray), *TOPICS)
    failed = reasons(found, Verdict.PASS)
    assert list(failed) == ["ARR-CON-01"]


class CutsAgain(BrokenDriver):
    """What it lists early it cuts once more, before the call ends, and calls both the same."""

    def __init__(self, inner: Any, target: Any) -> None:
        super().__init__(inner, target)
        target.real = getattr(target, "real", {})

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """Twice, if that takes long."""
        begin_s = asyncio.get_running_loop().time()
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        if asyncio.get_running_loop().time() - begin_s > 1.0:
            await asyncio.sleep(0.5)
            other = replace(request, tag=f"{request.tag}~2")
            again: GroupSnapshot = await self.inner.snapshot_group(other)
            self.target.real[made.ref] = again.ref
        return made

    async def read_back(self, ref: GroupSnapshotRef, *place: Any) -> bytes:
        """Of the later one."""
        data: bytes = await self.inner.read_back(self.target.real.get(ref, ref), *place)
        return data


def test_what_is_listed_while_it_is_made_has_to_be_complete_by_its_data() -> None:
    found = outcomes(with_driver(CutsAgain)(RedirectOnWriteArray), "ARR-ASK-01")
    assert found["ARR-ASK-01"].reason == (
        "a snapshot was listed before it was complete: it holds what was written after that"
    )


def test_together_gives_answers_and_drivers_errors_and_raises_others() -> None:
    async def answer(value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def fail(error: Exception) -> int:
        raise error

    busy = BusyError("a", "b", "c")

    async def body() -> None:
        calls: list[Awaitable[int]] = [answer(1), fail(busy), answer(2)]
        came: list[int | DriverError] = await together(calls)
        assert came == [1, busy, 2]
        with pytest.raises(KeyError):
            await together([answer(1), fail(KeyError("x"))])

    asyncio.run(body())


def test_the_end_of_a_task_is_waited_for_whatever_comes_of_it() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def body() -> None:
        failing = asyncio.ensure_future(fail())
        await ended(failing)
        assert failing.done()
        cancelled = asyncio.ensure_future(asyncio.sleep(60))
        cancelled.cancel()
        await ended(cancelled)
        assert cancelled.cancelled()

    asyncio.run(body())
