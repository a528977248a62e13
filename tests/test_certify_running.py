"""How checks become verdicts, and what a broken check or driver does to the rest of a suite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from support_certify import certified

from stillframe.certify.array_bench import ArrayBench
from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.canary import BrokenDriver, with_driver
from stillframe.certify.effort import EFFORTS
from stillframe.certify.outcome import Outcome, SuiteResult, Verdict
from stillframe.certify.requirement import Blocked, Check, Level, NotTested, Topic
from stillframe.certify.targets.modelled_array import RedirectOnWriteArray
from stillframe.drivers.contracts import ArrayDriver
from stillframe.drivers.errors import BusyError, DidNotHappenError, NotFoundError
from stillframe.errors import InputError, StillframeError


def suite(*checks: Check[ArrayBench], **needs: Any) -> SuiteResult:
    """A suite of these checks on the reference array."""
    return _suite(RedirectOnWriteArray, *checks, **needs)


def _suite(
    kind: type[ArrayTarget], *checks: Check[ArrayBench], options: Any = None, **needs: Any
) -> SuiteResult:
    topic: Topic[ArrayBench] = Topic("made up", "ARR-TST")
    for number, check in enumerate(checks, 1):
        topic.shall(number, Level.CORE, "A driver shall.", **needs)(check)
    return certified(kind, topic.requirements, **(options or {}))


def only(result: SuiteResult) -> Outcome:
    """The one outcome."""
    (outcome,) = result.outcomes
    return outcome


async def passes(bench: ArrayBench) -> None:
    """Meets its requirement."""
    await bench.cut(bench.units[0])


def raising(error: BaseException) -> Check[ArrayBench]:
    """A check that ends so."""

    async def check(bench: ArrayBench) -> None:
        raise error

    return check


def test_a_check_that_returns_is_a_pass() -> None:
    outcome = only(suite(passes))
    assert (outcome.verdict, outcome.reason) == (Verdict.PASS, "")
    assert outcome.events == ()
    assert suite(passes).conformant


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        (NotTested("cannot be shown"), Verdict.NOT_TESTED, "cannot be shown"),
        (Blocked("something else"), Verdict.BLOCKED, "something else"),
        (ValueError("oops"), Verdict.FAIL, "ValueError is no DriverError: oops"),
        (TimeoutError(), Verdict.FAIL, "the driver raised TimeoutError, which is no DriverError"),
        (
            BusyError("resolve", "a", "why"),
            Verdict.FAIL,
            "a call failed that has to succeed: BusyError: resolve on a failed: why",
        ),
    ],
)
def test_how_a_check_ends_is_its_verdict(error: Exception, verdict: Verdict, reason: str) -> None:
    result = suite(raising(error), passes)
    assert [one.verdict for one in result.outcomes] == [verdict, Verdict.PASS]
    assert result.outcomes[0].reason == reason
    assert result.conformant is (verdict is Verdict.NOT_TESTED)


def test_nothing_that_was_tried_is_not_conformant() -> None:
    assert not suite(raising(NotTested("never"))).conformant


def test_a_failed_expectation_keeps_what_was_seen_and_the_calls() -> None:
    async def check(bench: ArrayBench) -> None:
        bench.note(rounds=3)
        await bench.cut(bench.units[0])
        bench.expect(True, "never said")
        bench.expect(False, "it is torn", sequence=[1, 2])

    outcome = only(suite(check))
    assert (outcome.verdict, outcome.reason) == (Verdict.FAIL, "it is torn")
    assert outcome.evidence == {"rounds": 3, "sequence": [1, 2]}
    (call,) = outcome.events
    assert call["call"] == "snapshot_group"
    assert call["result"].startswith("GroupSnapshot(")


def test_the_wrong_error_and_no_error_are_violations() -> None:
    async def wrong(bench: ArrayBench) -> None:
        await bench.refused(_raise(BusyError("a", "b", "c")), NotFoundError, doing="this")

    async def none(bench: ArrayBench) -> None:
        await bench.refused(asyncio.sleep(0), NotFoundError, BusyError, doing="this")

    async def right(bench: ArrayBench) -> None:
        await bench.refused(_raise(BusyError("a", "b", "c")), DidNotHappenError, doing="this")

    first, second, third = suite(wrong, none, right).outcomes
    assert first.reason == "this raised BusyError (a on b failed: c) instead of NotFoundError"
    assert second.reason == "this succeeded instead of raising NotFoundError or BusyError"
    assert third.verdict is Verdict.PASS


async def _raise(error: Exception) -> None:
    raise error


def test_a_step_that_is_not_the_point_blocks() -> None:
    async def check(bench: ArrayBench) -> None:
        await bench.setup(_raise(BusyError("a", "b", "c")), "getting ready")

    outcome = only(suite(check))
    assert outcome.verdict is Verdict.BLOCKED
    assert outcome.reason == "getting ready failed: a on b failed: c"


def test_a_check_that_never_ends_is_ended() -> None:
    async def check(bench: ArrayBench) -> None:
        await asyncio.Event().wait()

    async def fails_later(bench: ArrayBench) -> None:
        assert not await bench.until(_never, 1.0)

    effort = replace(EFFORTS["quick"], check_timeout_s=30.0)
    result = _suite(RedirectOnWriteArray, check, fails_later, options={"effort": effort})
    assert result.outcomes[0].reason == "the check did not end within 30 s"
    assert result.outcomes[1].verdict is Verdict.PASS


async def _never() -> bool:
    return False


class Hanging(BrokenDriver):
    """A driver of which one call does not come back."""

    async def resolve(self, devices: Any) -> Any:
        """Answers the first time."""
        if hasattr(self, "asked"):
            await asyncio.Event().wait()
        self.asked = True
        return await self.inner.resolve(devices)


def test_a_call_that_does_not_come_back_is_a_violation() -> None:
    async def check(bench: ArrayBench) -> None:
        await bench.driver.resolve(bench.units[0].scratch.devices)

    effort = replace(EFFORTS["quick"], call_timeout_s=5.0)
    outcome = only(
        _suite(with_driver(Hanging)(RedirectOnWriteArray), check, options={"effort": effort})
    )
    assert outcome.reason == "resolve did not come back within 5 s"
    assert outcome.events[-1]["result"] == "no answer"


def test_what_a_check_leaves_is_cleaned_before_the_next() -> None:
    async def leaves(bench: ArrayBench) -> None:
        made = await bench.cut(bench.units[0])
        await bench.clone(made.ref, bench.units[0], "copy")

    async def looks(bench: ArrayBench) -> None:
        assert await bench.driver.list_snapshots("") == []
        assert await bench.target.snapshots_on_device() == bench.before
        assert bench.left == []

    assert suite(leaves, looks).conformant


def test_what_cannot_be_cleaned_is_remembered() -> None:
    class Keeps(BrokenDriver):
        async def delete_snapshot(self, ref: Any) -> None:
            raise BusyError("delete_snapshot", ref.tag, "in use")

    async def looks(bench: ArrayBench) -> None:
        assert "is left" in bench.left[0]

    assert suite(passes, looks).outcomes[1].verdict is Verdict.FAIL
    broken = _suite(with_driver(Keeps)(RedirectOnWriteArray), passes, looks)
    assert broken.outcomes[1].verdict is Verdict.PASS


def test_a_dead_connection_is_opened_again_for_the_next_check() -> None:
    class Dies(BrokenDriver):
        dead = False

        async def list_snapshots(self, tag_prefix: str) -> Any:
            if self.dead:
                raise DidNotHappenError("list_snapshots", "array", "the session is dead")
            return await self.inner.list_snapshots(tag_prefix)

    async def kill(bench: ArrayBench) -> None:
        bench.driver._driver.dead = True  # type: ignore[attr-defined]

    result = _suite(with_driver(Dies)(RedirectOnWriteArray), kill, passes)
    assert [one.verdict for one in result.outcomes] == [Verdict.PASS, Verdict.PASS]


@pytest.mark.parametrize(
    ("needs", "verdict", "reason"),
    [
        ({"units": 99}, Verdict.NOT_TESTED, "it takes 99 scratch units, and there are"),
        ({"hooks": ("restart",)}, Verdict.NOT_TESTED, "the target does not offer restart"),
        ({"capability": "clones"}, Verdict.ABSENT, "the driver declares clones: False"),
        ({"capability": "units_per_group"}, Verdict.ABSENT, "the driver declares units_per_group"),
    ],
)
def test_what_cannot_be_tried_is_said(needs: Any, verdict: Verdict, reason: str) -> None:
    class Less(BrokenDriver):
        @property
        def capabilities(self) -> Any:
            return replace(self.inner.capabilities, clones=False, units_per_group=None)

    class Plain(with_driver(Less)(RedirectOnWriteArray)):  # type: ignore[misc]
        def offers(self, hook: str) -> bool:
            return hook != "restart" and super().offers(hook)

    outcome = only(_suite(Plain, raising(AssertionError("was tried")), **needs))
    assert outcome.verdict is verdict
    assert outcome.reason.startswith(reason)


def test_choices_depend_on_the_seed_and_the_requirement_alone() -> None:
    drawn: list[int] = []

    async def draw(bench: ArrayBench) -> None:
        drawn.append(bench.rng.randrange(1 << 30))

    suite(draw, draw)
    suite(draw, draw)
    _suite(RedirectOnWriteArray, draw, draw, options={"seed": 2})
    _suite(RedirectOnWriteArray, draw, draw, options={"only": frozenset({"ARR-TST-02"})})
    assert drawn[:2] == drawn[2:4]
    assert len({*drawn[:2], *drawn[4:6]}) == 4
    assert drawn[6:] == [drawn[1]]


@pytest.mark.parametrize("missing", ["resolve", "delete_snapshot", "capabilities"])
def test_a_driver_that_lacks_a_method_is_told_so(missing: str) -> None:
    class Lacks:
        def __init__(self, inner: ArrayDriver, target: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            if name == missing:
                raise AttributeError(name)
            return getattr(self._inner, name)

    with pytest.raises(InputError, match=f"Lacks lacks {missing}"):
        _suite(with_driver(Lacks)(RedirectOnWriteArray), passes)


def _connecting(connect: Callable[[Any], Any]) -> type[ArrayTarget]:
    class Other(RedirectOnWriteArray):
        def connect(self) -> AbstractAsyncContextManager[ArrayDriver]:
            made: AbstractAsyncContextManager[ArrayDriver] = connect(self)
            return made

    return Other


def test_a_connect_that_is_no_context_manager_is_told_so() -> None:
    with pytest.raises(InputError, match="connect: gives int, not an asynchronous context"):
        _suite(_connecting(lambda _: 3), passes)


def test_a_system_that_does_not_answer_is_told_so() -> None:
    class Silent:
        async def __aenter__(self) -> Any:
            await asyncio.Event().wait()

        async def __aexit__(self, *_: object) -> None:
            pass

    with pytest.raises(StillframeError, match="did not connect within 60 s"):
        _suite(_connecting(lambda _: Silent()), passes)


def test_too_few_units_and_units_that_nobody_knows_are_told() -> None:
    class Few(RedirectOnWriteArray):
        async def units(self) -> Any:
            return (await super().units())[:2]

    class Unknown(BrokenDriver):
        async def resolve(self, devices: Any) -> Any:
            return {}

    class Nameless(RedirectOnWriteArray):
        async def units(self) -> Any:
            return [replace(one, unit_id=None) for one in await super().units()]

    with pytest.raises(InputError, match="units: gives 2 units"):
        _suite(Few, passes)
    with pytest.raises(InputError, match="the driver does not know it"):
        _suite(with_driver(Unknown)(Nameless), passes)
    assert _suite(with_driver(Unknown)(RedirectOnWriteArray), passes).conformant


def test_two_requirements_never_share_an_identifier() -> None:
    topic: Topic[ArrayBench] = Topic("made up", "ARR-TST")
    topic.shall(1, Level.CORE, "One.")(passes)
    with pytest.raises(ValueError, match="ARR-TST-01 is the identifier of two"):
        topic.shall(1, Level.CORE, "Another.")(passes)
