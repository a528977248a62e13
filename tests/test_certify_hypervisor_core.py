"""Inventory, listing, lifecycle, location, errors, declarations, durations, end: of hypervisors.

The reference driver meets every requirement; each canary breaks its own; drivers that do otherwise
what the contract allows are not accused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support_certify import certified

from stillframe.certify.canaries import HYPERVISOR_CANARIES
from stillframe.certify.canary import BrokenDriver, Canary, with_driver
from stillframe.certify.checks import (
    hypervisor_declared,
    hypervisor_end,
    hypervisor_errors,
    hypervisor_inventory,
    hypervisor_lifecycle,
    hypervisor_listing,
    hypervisor_location,
    hypervisor_performance,
)
from stillframe.certify.checks.hypervisor_performance import LIMITS, percentile
from stillframe.certify.hypervisor_target import APART, PLAIN, ScratchVm
from stillframe.certify.outcome import SuiteResult, Verdict
from stillframe.certify.targets.modelled_hypervisor import ModelledHypervisor
from stillframe.drivers.contracts import HypervisorCapabilities
from stillframe.drivers.errors import NeverWillError

TOPICS = (
    hypervisor_inventory.TOPIC,
    hypervisor_listing.TOPIC,
    hypervisor_lifecycle.TOPIC,
    hypervisor_location.TOPIC,
    hypervisor_errors.TOPIC,
    hypervisor_declared.TOPIC,
    hypervisor_performance.TOPIC,
    hypervisor_end.TOPIC,
)
REQUIREMENTS = [one for topic in TOPICS for one in topic.requirements]
PREFIXES = tuple(topic.prefix for topic in TOPICS)
CANARIES = [one for one in HYPERVISOR_CANARIES if one.breaks.startswith(PREFIXES)]
SHALLOW = {"hypervisor": {"snapshot_depth": 6}}
"""Chains that are full within the quick effort."""
MEASURED = [one for one in REQUIREMENTS if one.id.startswith("HYP-PRF")]


def verdicts(result: SuiteResult) -> dict[str, Verdict]:
    """Those that are not a pass, by requirement."""
    return {
        one.requirement_id: one.verdict
        for one in result.outcomes
        if one.verdict is not Verdict.PASS
    }


def broken(wrap: Callable[[Any, Any], Any]) -> type[ModelledHypervisor]:
    """The reference with another driver."""
    return with_driver(wrap)(ModelledHypervisor)


def of(prefix: str) -> list[Any]:
    """The requirements of a topic, or one."""
    return [one for one in REQUIREMENTS if one.id.startswith(prefix)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reference_meets_everything_that_no_limit_is_needed_for(seed: int) -> None:
    result = certified(ModelledHypervisor, REQUIREMENTS, settings=SHALLOW, seed=seed)
    assert verdicts(result) == {one.id: Verdict.NOT_TESTED for one in MEASURED}


def test_the_reference_is_within_generous_limits() -> None:
    result = certified(ModelledHypervisor, MEASURED, limits=dict.fromkeys(LIMITS, 60.0))
    assert not verdicts(result)
    assert all(outcome.samples for outcome in result.outcomes)


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.id)
def test_a_canary_breaks_its_requirement(canary: Canary[Any]) -> None:
    wanted = [one for one in REQUIREMENTS if one.id == canary.breaks]
    result = certified(
        canary.make(ModelledHypervisor),
        wanted,
        settings=dict(canary.settings),
        limits=dict(canary.limits),
    )
    assert [one.verdict for one in result.outcomes] == [Verdict.FAIL], result.outcomes


def test_every_requirement_has_a_canary() -> None:
    assert {one.breaks for one in CANARIES} == {one.id for one in REQUIREMENTS}


# -- what the contract leaves open ---------------------------------------------------------------


class Modest(BrokenDriver):
    """Sees nothing, cannot consolidate, and says so."""

    @property
    def capabilities(self) -> HypervisorCapabilities:
        return HypervisorCapabilities()

    async def create_snapshot(self, request: Any) -> Any:
        made = await self.inner.create_snapshot(request)
        window = None if made.quiesce is None else made.quiesce._replace(exact=False)
        location = made.location._replace(moves=None)
        return made._replace(quiesce=window, stun=None, location=location)

    async def remove_snapshot(self, ref: Any) -> Any:
        return (await self.inner.remove_snapshot(ref))._replace(delta_bytes=None)

    async def list_snapshots(self, vm_ids: Any = None) -> Any:
        states = await self.inner.list_snapshots(vm_ids)
        return [
            state._replace(
                location=state.location._replace(moves=None),
                operation_running=None,
            )
            for state in states
        ]

    async def consolidate(self, vm_id: str) -> None:
        raise NeverWillError("consolidate", vm_id, "it is not supported")


class OneAtATime(BrokenDriver):
    """Lets the second operation wait instead of refusing it."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._lock = asyncio.Lock()

    async def create_snapshot(self, request: Any) -> Any:
        async with self._lock:
            return await self.inner.create_snapshot(request)

    async def remove_snapshot(self, ref: Any) -> Any:
        async with self._lock:
            return await self.inner.remove_snapshot(ref)


def test_a_driver_that_declares_nothing_is_held_to_what_it_has() -> None:
    wanted = [one for one in REQUIREMENTS if not one.id.startswith("HYP-PRF")]
    found = verdicts(certified(broken(Modest), wanted, settings=SHALLOW))
    assert found == {
        "HYP-LOC-16": Verdict.NOT_TESTED,  # moves
        "HYP-LOC-17": Verdict.NOT_TESTED,
        "HYP-ERR-05": Verdict.ABSENT,
        "HYP-DCL-04": Verdict.ABSENT,
    }


def test_a_driver_may_let_the_second_of_two_operations_wait() -> None:
    found = verdicts(certified(broken(OneAtATime), of("HYP-ERR"), settings=SHALLOW))
    assert found == {"HYP-ERR-09": Verdict.NOT_TESTED}


class NoVmApart(ModelledHypervisor):
    """A system on which deltas always lie beside their disks, and that shows no devices."""

    async def vms(self) -> Any:
        found = dict(await super().vms())
        del found[APART]
        return {
            role: ScratchVm(vm.name, vm.datastores, foreign_snapshot=vm.foreign_snapshot)
            for role, vm in found.items()
        }


def test_what_the_target_lacks_is_not_tested() -> None:
    result = certified(NoVmApart, [*of("HYP-LOC-05"), *of("HYP-INV-06"), *of("HYP-INV-14")])
    assert verdicts(result) == {
        "HYP-LOC-05": Verdict.NOT_TESTED,
        "HYP-INV-06": Verdict.NOT_TESTED,
    }
    assert result.outcomes[0].reason == "the target has no VM of role apart"


# -- durations -----------------------------------------------------------------------------------


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0
    assert percentile([7.0], 0.95) == 7.0


def test_without_a_limit_durations_are_reported_and_not_judged() -> None:
    (outcome,) = certified(ModelledHypervisor, of("HYP-PRF-03")).outcomes
    assert outcome.verdict is Verdict.NOT_TESTED
    assert outcome.reason == "measured, not judged: no limit remove_p95_s is stated"
    assert [one.labels for one in outcome.samples] == [{"load": "idle"}, {"load": "guest writes"}]
    assert all(len(one.values_s) == 5 for one in outcome.samples)
    assert outcome.evidence["remove_p95_s"] == pytest.approx(
        max(max(one.values_s) for one in outcome.samples), abs=1e-6
    )


def test_a_slow_system_is_measured_less_often_and_not_refused_for_it() -> None:
    class Slow(BrokenDriver):
        async def create_snapshot(self, request: Any) -> Any:
            await asyncio.sleep(50)
            return await self.inner.create_snapshot(request)

    (outcome,) = certified(broken(Slow), of("HYP-PRF-01")).outcomes
    assert outcome.verdict is Verdict.NOT_TESTED
    assert [len(one.values_s) for one in outcome.samples] == [2, 4]


def test_a_limit_holds_for_every_circumstance() -> None:
    class SlowTogether(BrokenDriver):
        async def create_snapshot(self, request: Any) -> Any:
            if not request.vm_id.endswith(PLAIN):
                await asyncio.sleep(30)
            return await self.inner.create_snapshot(request)

    (outcome,) = certified(
        broken(SlowTogether), of("HYP-PRF-01"), limits={"create_p95_s": 20.0}
    ).outcomes
    assert outcome.verdict is Verdict.FAIL
    assert "above the limit of 20 s" in outcome.reason


def test_every_limit_is_one_that_a_check_looks_up() -> None:
    judged = set()
    for outcome in certified(ModelledHypervisor, MEASURED).outcomes:
        judged |= set(outcome.evidence) & set(LIMITS)
    assert judged == set(LIMITS)
