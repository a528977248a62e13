"""Blocking calls behind asyncio: calls that nobody waits for any more, and questions in batches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from support_simloop import run

from stillframe.drivers.errors import DidNotHappenError, UnknownOutcomeError
from stillframe.drivers.vsphere_batch import BatchReader
from stillframe.drivers.vsphere_calls import Calls
from stillframe.drivers.vsphere_session import Session
from stillframe.drivers.vsphere_wire import NotSentError


class Task:
    """What a _Task method returns."""

    _moId = "task-1"  # noqa: N815  pyvmomi's name


class Plain:
    """A session that calls."""

    subject = "vc (host:443)"

    def call(self, function: Callable[[Any], Any]) -> Any:
        return function(None)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def calls_of(threads: ThreadPoolExecutor, grace_s: float = 3600.0) -> Calls:
    """Calls over a session that works."""
    return Calls(cast("Session", Plain()), threads, grace_s)


def now_s() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("answer", "after"), [(Task(), False), (ConnectionResetError("lost"), None)]
)
def test_a_call_that_nobody_waits_for_is_still_under_way(
    threads: ThreadPoolExecutor, answer: Any, after: bool | None
) -> None:
    entered, free = threading.Event(), threading.Event()

    def call(_: Any) -> Any:
        entered.set()
        free.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main() -> None:
        calls = calls_of(threads)
        waiting = asyncio.ensure_future(calls.start("create_snapshot", "vc/vm-1", call))
        await asyncio.to_thread(entered.wait)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert calls.under_way("vc/vm-1", now_s()) is True
        assert calls.under_way("vc/vm-2", now_s()) is False
        free.set()
        await asyncio.to_thread(threads.shutdown)
        assert calls.under_way("vc/vm-1", now_s()) is after

    asyncio.run(main())


def test_a_call_that_is_cancelled_before_its_thread_is_never_made() -> None:
    made: list[str] = []
    free = threading.Event()

    async def main(threads: ThreadPoolExecutor) -> None:
        calls = calls_of(threads)
        blocker = threads.submit(free.wait)
        waiting = asyncio.ensure_future(
            calls.start("create_snapshot", "vc/vm-1", lambda _: made.append("x"))
        )
        await asyncio.sleep(0)
        assert calls.under_way("vc/vm-1", now_s()) is True
        waiting.cancel()
        await asyncio.wait([waiting])
        assert calls.under_way("vc/vm-1", now_s()) is False
        free.set()
        await asyncio.wrap_future(blocker)

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(main(threads))
    assert made == []


@pytest.mark.parametrize(
    ("raised", "error", "after"),
    [
        (NotSentError("no route"), DidNotHappenError, False),
        (TimeoutError(), UnknownOutcomeError, None),
        (KeyError("an answer that makes no sense"), UnknownOutcomeError, None),
    ],
)
def test_a_call_that_was_not_sent_is_told_from_one_that_was_lost(
    threads: ThreadPoolExecutor, raised: Exception, error: type[Exception], after: bool | None
) -> None:
    def call(_: Any) -> Any:
        raise raised

    async def main() -> None:
        calls = calls_of(threads)
        with pytest.raises(error) as caught:
            await calls.start("remove_snapshot", "vc/vm-1", call)
        assert type(caught.value) is error
        assert calls.under_way("vc/vm-1", now_s()) is after

    asyncio.run(main())


class Source:
    """Answers after a second; remembers what was asked together."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.version = 0
        self.broken = False

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, str]:
        self.asked.append(list(keys))
        seen = self.version
        await asyncio.sleep(1)
        if self.broken:
            raise ConnectionResetError("lost")
        return {key: f"{key}@{seen}" for key in keys if key != "nobody"}


def test_questions_that_come_together_are_asked_together() -> None:
    source = Source()

    async def main() -> None:
        reader = BatchReader(source.fetch, 3)
        answers = await asyncio.gather(*(reader.get(key) for key in ("a", "b", "nobody", "c", "a")))
        assert answers == ["a@0", "b@0", None, "c@0", "a@0"]

    run(lambda _: main())
    assert source.asked == [["a", "b", "nobody"], ["c"]]


def test_no_answer_is_from_before_its_question() -> None:
    source = Source()

    async def main() -> None:
        reader = BatchReader(source.fetch, 10)
        first = asyncio.ensure_future(reader.get("a"))
        await asyncio.sleep(0.5)
        source.version = 1
        assert await asyncio.gather(reader.get("a"), reader.get("b")) == ["a@1", "b@1"]
        assert await first == "a@0"

    run(lambda _: main())
    assert source.asked == [["a"], ["a", "b"]]


def test_a_failed_request_fails_its_own_questions_only() -> None:
    source = Source()

    async def main() -> None:
        reader = BatchReader(source.fetch, 10)
        source.broken = True
        both = await asyncio.gather(reader.get("a"), reader.get("b"), return_exceptions=True)
        assert all(isinstance(one, ConnectionResetError) for one in both)
        source.broken = False
        assert await reader.get("a") == "a@0"

    run(lambda _: main())


def test_a_question_that_nobody_waits_for_hurts_nobody() -> None:
    source = Source()

    async def main() -> None:
        reader = BatchReader(source.fetch, 10)
        gone = asyncio.ensure_future(reader.get("a"))
        other = asyncio.ensure_future(reader.get("b"))
        await asyncio.sleep(0.5)
        gone.cancel()
        assert await other == "b@0"

    run(lambda _: main())
