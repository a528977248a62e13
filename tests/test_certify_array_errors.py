"""Errors: the reference passes, every canary fails, and only what an error says is looked at."""

from __future__ import annotations

from typing import Any

import pytest
from support_certify_topics import KINDS, NAMES, expect_caught, outcomes, reasons

from stillframe.certify.array_target import ArrayTarget
from stillframe.certify.canaries.array_errors import CANARIES
from stillframe.certify.canary import BrokenDriver, Canary, with_driver
from stillframe.certify.outcome import Verdict
from stillframe.certify.targets.modelled_array import RedirectOnWriteArray
from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_reference_refuses_as_it_shall(kind: type[ArrayTarget], seed: int) -> None:
    found = outcomes(kind, "ARR-ERR", seed=seed)
    assert len(found) == 14
    assert reasons(found, Verdict.PASS) == {}
    assert found["ARR-ERR-08"].compared_bytes == 4096
    assert "cannot be snapshotted" in found["ARR-ERR-04"].evidence["told"]
    assert all(told > 0 for told in found["ARR-ERR-14"].evidence["retry_after_s"])


@pytest.mark.parametrize("canary", CANARIES, ids=[one.id for one in CANARIES])
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_every_canary_fails_its_requirement(
    kind: type[ArrayTarget], canary: Canary[ArrayTarget]
) -> None:
    expect_caught(kind, canary)


class KeyErrors(BrokenDriver):
    """What it does not know raises the error of a dictionary."""

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """As the driver does, if there is one."""
        known = {one.ref: one for one in await self.inner.list_snapshots("")}
        await self.inner.delete_snapshot(known[ref].ref)


def test_an_error_of_python_is_no_refusal() -> None:
    found = outcomes(with_driver(KeyErrors)(RedirectOnWriteArray), "ARR-LIF-07", "ARR-ERR-10")
    for one in found.values():
        assert one.verdict is Verdict.FAIL
        assert one.reason.startswith("KeyError is no DriverError: ")


class RefusesNothing(BrokenDriver):
    """It says that it has done whatever it is asked."""

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """As the driver does, or says so."""
        own = {unit.unit_id for unit in await self.target.units()}
        if request.unit_ids and own.issuperset(request.unit_ids):
            made: GroupSnapshot = await self.inner.snapshot_group(request)
            return made
        return GroupSnapshot(GroupSnapshotRef("modelled", "x", request.tag), request.unit_ids)


def test_who_refuses_nothing_fails_what_asks_for_it_and_no_other() -> None:
    found = outcomes(with_driver(RefusesNothing)(RedirectOnWriteArray), "ARR-ERR", "ARR-LIF")
    failed = reasons(found, Verdict.PASS)
    wanted = ["ARR-ERR-01", "ARR-ERR-02", "ARR-ERR-03", "ARR-LIF-10", "ARR-LIF-11"]
    assert sorted(failed) == wanted
    assert all("succeeded instead of raising" in reason for reason in failed.values())


class OneLine(BrokenDriver):
    """Its reasons are longer, and still one line."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """As the driver does, with more to say."""
        try:
            await self.inner.delete_snapshot(ref)
        except Exception as error:
            error.advice = "list what there is"  # type: ignore[attr-defined]
            raise


def test_advice_may_follow_the_reason() -> None:
    found = outcomes(with_driver(OneLine)(RedirectOnWriteArray), "ARR-ERR-12")
    assert reasons(found, Verdict.PASS) == {}
