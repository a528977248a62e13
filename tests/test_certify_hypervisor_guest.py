"""Quiescing, data, and what may go wrong: the checks of hypervisor drivers that touch the guest.

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
    hypervisor_abandoned,
    hypervisor_consolidation,
    hypervisor_data,
    hypervisor_faults,
    hypervisor_freezing,
    hypervisor_moves,
    hypervisor_quiesce,
)
from stillframe.certify.checks.guest_load import BLOCKS, GuestLoad
from stillframe.certify.hypervisor_bench import HypervisorBench
from stillframe.certify.hypervisor_target import PLAIN, ScratchVm
from stillframe.certify.outcome import SuiteResult, Verdict
from stillframe.certify.requirement import Level, Requirement
from stillframe.certify.targets.modelled_hypervisor import ModelledHypervisor
from stillframe.drivers.contracts import HypervisorCapabilities, VmSnapshot
from stillframe.drivers.errors import NotFoundError, QuiesceFailedError, UnknownOutcomeError
from stillframe.errors import StillframeError

TOPICS = (
    hypervisor_quiesce.TOPIC,
    hypervisor_freezing.TOPIC,
    hypervisor_data.TOPIC,
    hypervisor_consolidation.TOPIC,
    hypervisor_abandoned.TOPIC,
    hypervisor_faults.TOPIC,
    hypervisor_moves.TOPIC,
)
REQUIREMENTS = [one for topic in TOPICS for one in topic.requirements]
PREFIXES = tuple(topic.prefix for topic in TOPICS)
CANARIES = [one for one in HYPERVISOR_CANARIES if one.breaks.startswith(PREFIXES)]


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


def of(*prefixes: str) -> list[Any]:
    """The requirements of topics, or single ones."""
    return [one for one in REQUIREMENTS if one.id.startswith(prefixes)]


@pytest.mark.parametrize(("seed", "merge"), [(1, "mirror"), (2, "iterative")])
def test_the_reference_meets_everything(seed: int, merge: str) -> None:
    settings = {"hypervisor": {"merge": merge}}
    result = certified(ModelledHypervisor, REQUIREMENTS, settings, seed=seed)
    assert verdicts(result) == {}
    data = [one for one in REQUIREMENTS if one.id.startswith("HYP-DAT")]
    compared = {one.requirement_id for one in result.outcomes if one.compared_bytes}
    assert {one.id for one in data} - compared == {"HYP-DAT-10"}  # it looks for files


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.id)
def test_a_canary_breaks_its_requirement(canary: Canary[Any]) -> None:
    wanted = [one for one in REQUIREMENTS if one.id == canary.breaks]
    kind = canary.make(ModelledHypervisor)
    result = certified(kind, wanted, settings=dict(canary.settings))
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
        start_s = asyncio.get_running_loop().time()
        made = await self.inner.create_snapshot(request)
        window = None
        if made.quiesce is not None:
            end_s = asyncio.get_running_loop().time()
            window = made.quiesce._replace(start_s=start_s, end_s=end_s, exact=False)
        return made._replace(quiesce=window, stun=None)

    async def list_snapshots(self, vm_ids: Any = None) -> Any:
        states = await self.inner.list_snapshots(vm_ids)
        return [state._replace(operation_running=None) for state in states]


def test_a_driver_that_declares_nothing_is_held_to_what_it_has() -> None:
    found = verdicts(certified(broken(Modest), REQUIREMENTS))
    absent = {one.id for one in REQUIREMENTS if one.capability is not None}
    assert found == dict.fromkeys(absent, Verdict.ABSENT)


class FindsOut(BrokenDriver):
    """Looks for its tag when an answer is lost, and answers with what it finds."""

    async def create_snapshot(self, request: Any) -> Any:
        try:
            return await self.inner.create_snapshot(request)
        except UnknownOutcomeError:
            (state,) = await self.inner.list_snapshots([request.vm_id])
            for ref in state.snapshots:
                if ref.tag == request.tag:
                    now_s = asyncio.get_running_loop().time()
                    return VmSnapshot(ref, "unknown", state.location, now_s)  # type: ignore[arg-type]
            raise

    async def remove_snapshot(self, ref: Any) -> Any:
        try:
            return await self.inner.remove_snapshot(ref)
        except UnknownOutcomeError:
            (state,) = await self.inner.list_snapshots([ref.vm_id])
            if ref in state.snapshots:
                raise
            raise NotFoundError("remove_snapshot", ref.vm_id, "it is gone by now") from None


def test_a_driver_may_find_out_what_came_of_a_lost_answer() -> None:
    result = certified(broken(FindsOut), of("HYP-FLT-01", "HYP-FLT-02", "HYP-FLT-03", "HYP-FLT-12"))
    assert verdicts(result) == {}
    assert result.outcomes[0].evidence == {"error": "none: it has found out by itself"}
    assert NotFoundError.__name__ in result.outcomes[2].evidence["error"]


class Waits(BrokenDriver):
    """Lets an operation wait for a move instead of refusing it."""

    async def _free(self, vm_id: str) -> None:
        while self.target.model.busy_with(vm_id) == "storage-vmotion":  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def create_snapshot(self, request: Any) -> Any:
        await self._free(request.vm_id)
        return await self.inner.create_snapshot(request)


class NeverMovesForLong(ModelledHypervisor):
    """A system whose moves end by themselves."""

    def migrating(self, vm: ScratchVm) -> Any:
        context = super().migrating(vm)
        model = self.model
        begin_move = model.begin_move

        def ends(vm_id: str, datastore: str) -> Any:
            end = begin_move(vm_id, datastore)
            asyncio.get_running_loop().call_later(3.0, end)
            return lambda: None

        model.begin_move = ends  # type: ignore[method-assign]
        return context


def test_a_create_may_wait_for_a_move() -> None:
    result = certified(with_driver(Waits)(NeverMovesForLong), of("HYP-MOV-02"))
    assert verdicts(result) == {}
    assert result.outcomes[0].evidence["said"] == "success"


class NotQuiesced(BrokenDriver):
    """Cannot quiesce what it should."""

    async def create_snapshot(self, request: Any) -> Any:
        if request.quiesce:
            raise QuiesceFailedError("create_snapshot", request.vm_id, "no agent")
        return await self.inner.create_snapshot(request)


def test_what_rests_on_another_requirement_is_blocked_and_not_failed() -> None:
    found = verdicts(certified(broken(NotQuiesced), of("HYP-QUI-07", "HYP-DAT-01", "HYP-DAT-02")))
    assert found == {"HYP-QUI-07": Verdict.BLOCKED, "HYP-DAT-01": Verdict.BLOCKED}


class Bare(ModelledHypervisor):
    """A target without hooks."""

    def offers(self, hook: str) -> bool:
        return False


def test_without_hooks_only_what_the_driver_shows_is_tested() -> None:
    result = certified(Bare, REQUIREMENTS)
    passed = {one.requirement_id for one in result.of(Verdict.PASS)}
    assert passed == {one.id for one in REQUIREMENTS if not one.hooks}
    assert len(result.of(Verdict.NOT_TESTED)) == len(REQUIREMENTS) - len(passed)


# -- a guest that writes -------------------------------------------------------------------------


def tried(check: Callable[[HypervisorBench], Any], kind: Any = ModelledHypervisor) -> Any:
    """The outcome of one check."""
    made: Requirement[HypervisorBench] = Requirement("HYP-TRY-01", "", "", Level.DATA, check)
    (outcome,) = certified(kind, [made]).outcomes
    return outcome


def test_a_load_knows_what_was_acknowledged_and_checks_it() -> None:
    async def check(bench: HypervisorBench) -> None:
        async with GuestLoad(bench, PLAIN) as load:
            await load.more(30)
            await load.end()
            await load.check("nothing was lost")
            assert load.count >= BLOCKS + 30
            assert load.under_way is None
            assert len(load.acknowledged) > BLOCKS
        load.acknowledged[0, 0] = bytes(4096)
        await load.check("one is gone")

    outcome = tried(check)
    assert outcome.verdict is Verdict.FAIL
    assert outcome.reason == "one is gone (disk 0, block 0)"
    assert outcome.compared_bytes > BLOCKS * 4096


def test_a_load_ends_with_its_guest_and_forgives_the_write_under_way() -> None:
    async def check(bench: HypervisorBench) -> None:
        async with GuestLoad(bench, PLAIN) as load:
            await load.more()
            await bench.target.power_off(bench.vms[PLAIN])
            await load.end()
            assert "off" in load.problem
            assert load.under_way is not None
            disk, block, data = load.under_way
            await bench.target.power_on(bench.vms[PLAIN])
            await load.check("nothing acknowledged was lost")
            await bench.target.write(bench.vms[PLAIN], disk, block, data)
            await load.check("nor what may have been written")

    assert tried(check).verdict is Verdict.PASS


def test_a_load_that_cannot_write_blocks_the_check() -> None:
    class Broken(ModelledHypervisor):
        async def write(self, vm: ScratchVm, disk: int, block: int, data: bytes) -> None:
            raise StillframeError("no channel")

    async def check(bench: HypervisorBench) -> None:
        async with GuestLoad(bench, PLAIN):
            raise AssertionError

    outcome = tried(check, Broken)
    assert outcome.verdict is Verdict.BLOCKED
    assert "no channel" in outcome.reason


def test_a_write_that_is_never_acknowledged_ends_the_load() -> None:
    class Stuck(ModelledHypervisor):
        written = 0

        async def write(self, vm: ScratchVm, disk: int, block: int, data: bytes) -> None:
            self.written += 1
            if self.written > BLOCKS + 5:
                await asyncio.sleep(3600)
            await super().write(vm, disk, block, data)

    async def check(bench: HypervisorBench) -> None:
        async with GuestLoad(bench, PLAIN) as load:
            await asyncio.sleep(1.0)
            await load.end()
            assert "not acknowledged" in load.problem

    assert tried(check, Stuck).verdict is Verdict.PASS
