"""Lifecycle, tags, listing: the reference passes within any limits, every canary fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support_certify_topics import KINDS, NAMES, expect_caught, outcomes, reasons

from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.canaries import array_lifecycle, array_listing, array_tags
from stillframe.certify.canaries.array_wrapping import LitteringDriver
from stillframe.certify.canary import BrokenDriver, Canary, with_driver
from stillframe.certify.effort import EFFORTS
from stillframe.certify.outcome import Verdict
from stillframe.certify.targets.modelled_array import RedirectOnWriteArray
from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest
from stillframe.drivers.errors import NeverWillError

TOPICS = ("ARR-LIF", "ARR-TAG", "ARR-LST")
CANARIES = (*array_lifecycle.CANARIES, *array_tags.CANARIES, *array_listing.CANARIES)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reference_meets_them_all(kind: type[ArrayTarget], seed: int) -> None:
    found = outcomes(kind, *TOPICS, seed=seed)
    assert len(found) == 27
    assert reasons(found, Verdict.PASS) == {}


@pytest.mark.parametrize("canary", CANARIES, ids=[one.id for one in CANARIES])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_every_canary_fails_its_requirement(
    kind: type[ArrayTarget], canary: Canary[ArrayTarget]
) -> None:
    expect_caught(kind, canary)


@pytest.mark.parametrize(
    "limits",
    [
        {"units_per_group": 1},
        {"units_per_group": 2},
        {"snapshots_per_unit": 1},
        {"snapshots_per_unit": 2},
        {"snapshots_per_unit": 3, "units_per_group": 3},
        {"units_per_group": None, "snapshots_per_unit": None},
        {"units": 3, "group_operations": 1},
    ],
    ids=str,
)
def test_an_array_of_any_limits_is_not_held_to_more(limits: dict[str, Any]) -> None:
    """Also the errors and the calls at once."""
    topics = ("ARR-ERR", "ARR-CON", "ARR-ASK", "ARR-MAP")
    found = outcomes(RedirectOnWriteArray, *TOPICS, *topics, settings=limits)
    assert reasons(found, Verdict.PASS, Verdict.NOT_TESTED) == {}
    assert sum(one.verdict is Verdict.PASS for one in found.values()) > len(found) / 2


def test_a_limit_below_the_effort_leaves_the_long_listing_untested() -> None:
    found = outcomes(RedirectOnWriteArray, "ARR-LST-07", settings={"snapshots_per_unit": 1})
    assert found["ARR-LST-07"].reason == (
        "the scratch units take 5 snapshots, too few for a second page"
    )
    more = outcomes(RedirectOnWriteArray, "ARR-LST-07", effort=EFFORTS["standard"])
    assert more["ARR-LST-07"].evidence["snapshots"] == 40  # of 5 units, each of which takes 8


def test_the_walk_is_repeated_by_its_seed_and_longer_with_more_effort() -> None:
    first, again = (outcomes(RedirectOnWriteArray, "ARR-LIF-15", seed=4) for _ in range(2))
    assert first == again
    longer = outcomes(RedirectOnWriteArray, "ARR-LIF-15", effort=EFFORTS["standard"])
    assert longer["ARR-LIF-15"].evidence["calls"] > 2 * first["ARR-LIF-15"].evidence["calls"]


def test_a_walk_that_goes_wrong_tells_its_steps() -> None:
    (canary,) = [one for one in CANARIES if one.breaks == "ARR-LIF-15"]
    steps = expect_caught(RedirectOnWriteArray, canary).evidence["steps"]
    assert steps[0].startswith("make ")
    lives = [step for step in steps if step == f"make {steps[-1][-1]}"]
    assert len(lives) >= 3 or "make" in steps[-1]


class ClearsLate(LitteringDriver):
    """The array needs some time to give up what is deleted."""

    takes_s = 10.0

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """As the driver does, and later for good."""
        held: list[GroupSnapshot] = await self.inner.list_snapshots(ref.tag)
        await self.inner.delete_snapshot(ref)
        _, tag = self.target.array.make_foreign(held[0].unit_ids[0])
        loop = asyncio.get_running_loop()
        loop.call_later(self.takes_s, self.target.array.delete_foreign, tag)


class ClearsTooLate(ClearsLate):
    """Far too much of it."""

    takes_s = 100.0


@pytest.mark.parametrize(("driver", "met"), [(ClearsLate, True), (ClearsTooLate, False)])
def test_an_array_may_take_some_time_to_clear_up(driver: Any, met: bool) -> None:
    found = outcomes(with_driver(driver)(RedirectOnWriteArray), "ARR-LIF-06")
    assert (found["ARR-LIF-06"].verdict is Verdict.PASS) is met


class TakesUnitsOnce(BrokenDriver):
    """A request that names a unit twice is refused."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """As the driver does, if every unit is named once."""
        if len(set(request.unit_ids)) < len(request.unit_ids):
            raise NeverWillError("snapshot_group", request.tag, "a unit is named twice")
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return made


def test_a_request_that_names_a_unit_twice_may_be_refused() -> None:
    found = outcomes(with_driver(TakesUnitsOnce)(RedirectOnWriteArray), "ARR-LIF-02")
    assert found["ARR-LIF-02"].verdict is Verdict.PASS
    assert found["ARR-LIF-02"].evidence == {"refused": "a unit is named twice"}


class TellsNoTimes(BrokenDriver):
    """A driver that sees neither cut nor fence."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """Without times."""
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return GroupSnapshot(made.ref, made.unit_ids)

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """Without times."""
        held: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return [GroupSnapshot(one.ref, one.unit_ids) for one in held]


def test_a_driver_that_tells_no_times_is_not_tested_on_them() -> None:
    found = outcomes(with_driver(TellsNoTimes)(RedirectOnWriteArray), *TOPICS)
    told = "the driver tells no times"
    assert reasons(found, Verdict.PASS) == {"ARR-LIF-04": told, "ARR-LST-02": told}
    assert not reasons(found, Verdict.PASS, Verdict.NOT_TESTED)


class ForgetsTimes(TellsNoTimes):
    """It knows them when it makes a snapshot, and not later."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """With times."""
        made: GroupSnapshot = await self.inner.snapshot_group(request)
        return made


def test_times_may_be_forgotten() -> None:
    found = outcomes(with_driver(ForgetsTimes)(RedirectOnWriteArray), *TOPICS)
    assert reasons(found, Verdict.PASS) == {}
