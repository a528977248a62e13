"""A job on a real lab, and one of those that take part in it killed in the middle.

Whoever dies: after ``recover`` no guest is frozen, no overlay and no array snapshot is left that no
entry of the catalogue names, what the catalogue has is worth what it says, and a guest that is
turned off and on again has lost nothing that it had acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support_lab import needs_lab
from support_lab_kill import DIED, JOB_KILLS, QEMU_KILLS, Survived, array_kills, survive
from support_lab_run import NEEDS, standing_lab

from stillframe.lab.lab import Lab
from stillframe.lab.spec import LabSpec

pytestmark = needs_lab(*NEEDS["qsd"])
SPEC = LabSpec(array="qsd", guests=1, wide=1, datastores=2, units=2)
"""One guest with two disks on two units."""
CATALOGUED = {
    "guest-frozen": 0,
    "array-cut": 0,
    "catalogued": 1,
    "merging": 1,
    "merge-pending": 1,
}
"""Entries of a job that dies at a moment; `make evidence-lab` has all moments."""
QEMU_MOMENTS = ("overlays-made", "merge-pending")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing_lab(SPEC) as made:
        yield made


def assert_whole(survived: Survived) -> None:
    assert "Traceback" not in survived.said, survived.said
    assert survived.is_whole, survived


@pytest.mark.parametrize("moment", CATALOGUED)
def test_the_job_dies(lab: Lab, moment: str) -> None:
    survived = survive(lab, JOB_KILLS[moment])
    assert survived.code == DIED, survived.said
    assert_whole(survived)
    assert survived.entries == CATALOGUED[moment]


@pytest.mark.parametrize("moment", QEMU_MOMENTS)
def test_qemu_dies(lab: Lab, moment: str) -> None:
    survived = survive(lab, QEMU_KILLS[moment])
    assert survived.code in (0, 1, 3), survived.said
    assert_whole(survived)


def test_the_array_dies(lab: Lab) -> None:
    survived = survive(lab, array_kills("qsd")["after-the-cut"])
    assert survived.code in (1, 3), survived.said
    assert_whole(survived)
