"""The QEMU driver under the kit: real guests, and broken drivers that have to be found out."""

from __future__ import annotations

import pytest
from support_certify import certified
from support_lab import needs_lab

from stillframe.certify.canary import BrokenDriver, with_driver
from stillframe.certify.hypervisor_requirements import HYPERVISOR_REQUIREMENTS
from stillframe.certify.hypervisor_target import ROLES, HypervisorTarget
from stillframe.certify.outcome import SuiteResult, Verdict
from stillframe.certify.target import hooks_of
from stillframe.certify.targets.qemu import QemuTarget
from stillframe.drivers.contracts import (
    ConsistencyLevel,
    VmSnapshot,
    VmSnapshotRequest,
    Window,
)
from stillframe.drivers.errors import QuiesceFailedError, QuiesceTimeoutError

pytestmark = needs_lab("root", "qemu", "loop", "xfs")

TRIED = ("HYP-INV", "HYP-LIF", "HYP-CNS")
"""Topics that are tried in full; of the others, requirements that need each of the hooks."""
SOME = {
    *("HYP-QUI-01", "HYP-QUI-02", "HYP-QUI-07"),
    *("HYP-FRZ-01", "HYP-FRZ-03", "HYP-FRZ-05", "HYP-FRZ-10", "HYP-FRZ-11"),
    *("HYP-DAT-01", "HYP-DAT-03", "HYP-DAT-05", "HYP-DAT-07", "HYP-DAT-12", "HYP-DAT-14"),
    *(
        "HYP-LOC-02",
        "HYP-LOC-06",
        "HYP-LST-01",
        "HYP-ABD-01",
        "HYP-FLT-01",
        "HYP-FLT-03",
        "HYP-FLT-10",
        "HYP-MOV-06",
        "HYP-END-02",
    ),
}
NOT_OFFERED = {"expire_sessions", "skewed_clock", "migrate", "migrating"}


@pytest.fixture(scope="module")
def result() -> SuiteResult:
    """What a suite says of the driver as it is."""
    chosen = [one for one in HYPERVISOR_REQUIREMENTS if one.id in SOME or one.id[:7] in TRIED]
    return certified(QemuTarget, chosen)


def test_the_driver_is_conformant(result: SuiteResult) -> None:
    bad = [*result.of(Verdict.FAIL), *result.of(Verdict.BLOCKED)]
    assert not [(one.requirement_id, one.reason) for one in bad]
    assert len(result.of(Verdict.PASS)) > 45
    assert sum(one.compared_bytes for one in result.outcomes) > 1 << 20


def test_nothing_is_left_untried_for_another_reason_than_is_declared(result: SuiteResult) -> None:
    for one in result.of(Verdict.NOT_TESTED):
        named = [hook for hook in NOT_OFFERED if hook in one.reason]
        assert (
            named
            or "role raw" in one.reason
            or "role apart" in one.reason
            or ("does not count moves" in one.reason)
        ), (one.requirement_id, one.reason)


def test_every_hook_is_offered_but_those_that_qemu_does_not_have(result: SuiteResult) -> None:
    assert set(hooks_of(HypervisorTarget)) - set(result.hooks) == NOT_OFFERED
    assert {"raw", "apart"} < set(ROLES)


class ClaimsQuiescing(BrokenDriver):
    """Takes crash-consistent images, and says that the guest was frozen."""

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        """See the class."""
        made: VmSnapshot = await self.inner.create_snapshot(request._replace(quiesce=False))
        span = made.stun or Window(made.created_s, made.created_s)
        return made._replace(
            level=ConsistencyLevel.FILESYSTEM, quiesce=Window(span.start_s, made.created_s)
        )


class LetsGoOfTheBase(BrokenDriver):
    """Merges the snapshot at once, and answers as if it were there."""

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        """See the class."""
        made: VmSnapshot = await self.inner.create_snapshot(request)
        await self.inner.remove_snapshot(made.ref)
        return made


class SnapshotsAllTheSame(BrokenDriver):
    """Snapshots guests that did not freeze, although it was asked to quiesce them."""

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        """See the class."""
        try:
            return await self.inner.create_snapshot(request)  # type: ignore[no-any-return]
        except (QuiesceFailedError, QuiesceTimeoutError):
            return await self.inner.create_snapshot(  # type: ignore[no-any-return]
                request._replace(quiesce=False)
            )


BROKEN = {
    ClaimsQuiescing: {"HYP-QUI-01"},
    LetsGoOfTheBase: {"HYP-DAT-01"},
    SnapshotsAllTheSame: {"HYP-FRZ-01", "HYP-FRZ-05"},
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_driver_is_found_out_on_real_guests(kind: type[BrokenDriver]) -> None:
    target = with_driver(lambda driver, target: kind(driver, target))(QemuTarget)
    chosen = [one for one in HYPERVISOR_REQUIREMENTS if one.id in BROKEN[kind]]
    outcomes = certified(target, chosen).outcomes
    assert {one.requirement_id for one in outcomes if one.verdict is Verdict.FAIL} == BROKEN[
        kind
    ], [(one.requirement_id, one.verdict, one.reason) for one in outcomes]
