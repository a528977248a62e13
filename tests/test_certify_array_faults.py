"""Faults, exhaustion, declarations, the end: the reference meets them, every canary does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from support_certify import certified

from stillframe.certify.array_requirements import ARRAY_REQUIREMENTS
from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.canaries import (
    array_declared,
    array_end,
    array_exhaustion,
    array_faults,
    array_outages,
    array_restarts,
)
from stillframe.certify.canary import BrokenDriver, Canary, with_driver
from stillframe.certify.outcome import Outcome, Verdict
from stillframe.certify.targets.modelled_array import CopyOnWriteArray, RedirectOnWriteArray
from stillframe.drivers.contracts import ArrayCapabilities
from stillframe.drivers.errors import BusyError, NeverWillError

TOPICS = ("ARR-FLT", "ARR-EXH", "ARR-DCL", "ARR-END")
REQUIREMENTS = [one for one in ARRAY_REQUIREMENTS if one.id.startswith(TOPICS)]
MODULES = (
    array_declared,
    array_faults,
    array_restarts,
    array_outages,
    array_exhaustion,
    array_end,
)
CANARIES = [canary for module in MODULES for canary in module.CANARIES]


def outcome_of(kind: type[Any], identifier: str, **options: Any) -> Outcome:
    """What comes of one requirement."""
    wanted = [one for one in REQUIREMENTS if one.id == identifier]
    (outcome,) = certified(kind, wanted, **options).outcomes
    return outcome


@pytest.mark.parametrize("kind", [RedirectOnWriteArray, CopyOnWriteArray], ids=["row", "cow"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reference_meets_them_all(kind: type[ArrayTarget], seed: int) -> None:
    result = certified(kind, REQUIREMENTS, seed=seed)
    others = {one.requirement_id: one.reason for one in result.outcomes if one.verdict != "pass"}
    assert others == {}
    assert len(result.outcomes) == len(REQUIREMENTS)


@pytest.mark.parametrize("canary", CANARIES, ids=[one.id for one in CANARIES])
def test_every_canary_fails_its_requirement(canary: Canary[ArrayTarget]) -> None:
    kind = canary.make(RedirectOnWriteArray)
    outcome = outcome_of(kind, canary.breaks, settings=dict(canary.settings))
    assert outcome.verdict is Verdict.FAIL
    assert outcome.reason
    assert "is no DriverError" not in outcome.reason


class Without(BrokenDriver):
    """Declares neither reading back nor clones, and has no methods for them."""

    @property
    def capabilities(self) -> ArrayCapabilities:
        """Less than the array can."""
        return replace(self.inner.capabilities, reads_back=False, clones=False)

    def __getattr__(self, name: str) -> Any:
        if name in ("read_back", "clone", "discard"):
            raise AttributeError(name)
        return getattr(self.inner, name)


class Refusing(Without):
    """Has the methods, and refuses."""

    async def read_back(self, ref: Any, *_: Any) -> bytes:
        """Refused."""
        raise NeverWillError("read_back", ref.tag, "not on this array")

    async def clone(self, ref: Any, *_: Any) -> Any:
        """Refused."""
        raise NeverWillError("clone", ref.tag, "not on this array")


@pytest.mark.parametrize("driver", [Without, Refusing])
@pytest.mark.parametrize("identifier", ["ARR-DCL-03", "ARR-DCL-04"])
def test_what_is_declared_absent_may_be_missing_or_refused(driver: Any, identifier: str) -> None:
    kind = with_driver(driver)(RedirectOnWriteArray)
    assert outcome_of(kind, identifier).verdict is Verdict.PASS


class Lacking(Without):
    """Declares what it has no methods for."""

    @property
    def capabilities(self) -> ArrayCapabilities:
        """More than the driver can."""
        return replace(self.inner.capabilities, reads_back=True, clones=True)


@pytest.mark.parametrize("identifier", ["ARR-DCL-03", "ARR-DCL-04"])
def test_what_is_declared_has_to_be_there(identifier: str) -> None:
    outcome = outcome_of(with_driver(Lacking)(RedirectOnWriteArray), identifier)
    assert outcome.verdict is Verdict.FAIL
    assert "is declared, and the driver has no" in outcome.reason


@pytest.mark.parametrize(
    ("identifier", "settings", "reason"),
    [
        ("ARR-EXH-07", {"snapshots_per_unit": 500}, "a unit carries 500 snapshots"),
        ("ARR-EXH-12", {"units_per_group": 9}, "a group takes 9 units, and there are 5"),
        ("ARR-EXH-13", {"units_per_group": 5}, "a group takes 5 units, and there are no more"),
    ],
)
def test_a_limit_that_is_not_reached_is_not_tested(
    identifier: str, settings: dict[str, Any], reason: str
) -> None:
    outcome = outcome_of(RedirectOnWriteArray, identifier, settings=settings)
    assert outcome.verdict is Verdict.NOT_TESTED
    assert outcome.reason.startswith(reason)


@pytest.mark.parametrize("identifier", ["ARR-EXH-07", "ARR-EXH-11", "ARR-EXH-12"])
def test_without_a_limit_many_are_asked_for(identifier: str) -> None:
    settings = {"snapshots_per_unit": None, "units_per_group": None}
    assert outcome_of(RedirectOnWriteArray, identifier, settings=settings).verdict is Verdict.PASS


@pytest.mark.parametrize("identifier", ["ARR-EXH-08", "ARR-EXH-10", "ARR-EXH-13"])
def test_a_limit_that_is_not_declared_is_absent(identifier: str) -> None:
    settings = {"snapshots_per_unit": None, "units_per_group": None}
    assert outcome_of(CopyOnWriteArray, identifier, settings=settings).verdict is Verdict.ABSENT


def test_the_end_comes_last() -> None:
    ids = [one.id for one in ARRAY_REQUIREMENTS]
    assert [one for one in ids if one.startswith("ARR-END")] == ids[-5:]


def test_what_a_dead_connection_leaves_is_taken_away_on_the_next_one() -> None:
    (canary,) = (one for one in CANARIES if one.id == "dead-after-restart")
    wanted = [one for one in REQUIREMENTS if one.id in ("ARR-FLT-21", "ARR-FLT-25", "ARR-END-01")]
    result = certified(canary.make(RedirectOnWriteArray), wanted)
    assert [one.verdict for one in result.outcomes] == [Verdict.FAIL, Verdict.PASS, Verdict.PASS]


class BusyTwice(BrokenDriver):
    """Refuses the first deletions of each snapshot as busy."""

    async def delete_snapshot(self, ref: Any) -> None:
        """Busy, busy, done."""
        asked = self.target.__dict__.setdefault("asked", Counter())
        asked[ref.tag] += 1
        if asked[ref.tag] < 3:
            raise BusyError("delete_snapshot", ref.tag, "it is in use")
        await self.inner.delete_snapshot(ref)


def test_what_is_busy_is_taken_away_later() -> None:
    kind = with_driver(BusyTwice)(RedirectOnWriteArray)
    assert outcome_of(kind, "ARR-END-01").verdict is Verdict.PASS
    result = certified(
        kind, [one for one in REQUIREMENTS if one.id in ("ARR-FLT-04", "ARR-END-01")]
    )
    assert {one.verdict for one in result.outcomes} == {Verdict.PASS}
