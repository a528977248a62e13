"""The vSphere driver under the kit, on the test endpoint."""

from __future__ import annotations

import pytest
from support_certify import certified
from support_certify_vsim import VsphereEndpoint
from support_vsim import ROOT

from stillframe.certify.hypervisor_requirements import HYPERVISOR_REQUIREMENTS
from stillframe.certify.hypervisor_target import HypervisorTarget
from stillframe.certify.outcome import SuiteResult, Verdict
from stillframe.certify.target import hooks_of

TRIED = (
    *("HYP-INV", "HYP-LIF", "HYP-LOC", "HYP-LST", "HYP-ERR", "HYP-DCL", "HYP-MOV", "HYP-END"),
    *("HYP-QUI", "HYP-DAT", "HYP-CNS-0", "HYP-FRZ-0", "HYP-FLT-04", "HYP-FLT-06"),
    *("HYP-FLT-07", "HYP-FLT-08", "HYP-FLT-01", "HYP-ABD-03"),
)


@pytest.fixture(scope="module")
def result() -> SuiteResult:
    """What a suite says of the driver."""
    return certified(
        VsphereEndpoint, [one for one in HYPERVISOR_REQUIREMENTS if one.id.startswith(TRIED)]
    )


def test_the_driver_is_conformant(result: SuiteResult) -> None:
    bad = [*result.of(Verdict.FAIL), *result.of(Verdict.BLOCKED)]
    assert not [(one.requirement_id, one.reason) for one in bad]
    assert len(result.of(Verdict.PASS)) > 70


def test_what_needs_a_guest_or_data_is_not_tested_and_said_in_the_documentation(
    result: SuiteResult,
) -> None:
    missing = set(hooks_of(HypervisorTarget)) - set(result.hooks)
    assert missing == {
        *("write", "read", "frozen_spans", "digest_of", "hung_agent", "skewed_clock"),
    }
    text = (ROOT / "docs" / "vsphere-endpoint.md").read_text(encoding="utf-8")
    assert all(f"`{hook}`" in text for hook in missing)
    data = [one for one in result.outcomes if one.requirement_id.startswith("HYP-DAT")]
    assert data
    assert {one.verdict for one in data} == {Verdict.NOT_TESTED}
