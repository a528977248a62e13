"""What a lab may consist of, and where its parts lie."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stillframe.lab.spec import LabSpec, Writes


def test_without_a_word_it_is_the_lab_of_the_evidence() -> None:
    spec = LabSpec()
    assert [(place.unit, place.offset_bytes) for place in spec.places()] == [(0, 0), (1, 0)]
    assert [(disk.label, disk.datastore) for disk in spec.disks()] == [
        ("vm-0/disk0", 0),
        ("vm-1/disk0", 1),
        ("vm-2/disk0", 0),
        ("vm-3/disk0", 1),
        ("vm-3/disk1", 0),
    ]


def test_datastores_share_units_in_slices_that_do_not_overlap() -> None:
    spec = LabSpec(guests=1, wide=0, datastores=5, units=2, unit_bytes=1 << 30)
    by_unit: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    for place in spec.places():
        by_unit[place.unit].append((place.offset_bytes, place.offset_bytes + place.size_bytes))
    assert [len(slices) for slices in by_unit.values()] == [3, 2]
    for slices in by_unit.values():
        ends = [0, *(end for _, end in slices)]
        assert all(start >= before for (start, _), before in zip(slices, ends, strict=False))
        assert slices[-1][1] <= spec.unit_bytes


def test_units_without_a_datastore_are_bystanders() -> None:
    spec = LabSpec(units=5, datastores=2)
    assert {place.unit for place in spec.places()} == {0, 1}


def test_independent_disks_are_named_by_globs() -> None:
    spec = LabSpec(guests=2, wide=1, independent=("vm-*/disk1",))
    assert [disk.label for disk in spec.disks() if disk.independent] == ["vm-1/disk1"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"guests": 0}, "guests"),
        ({"array": "nfs"}, "array"),
        ({"wide": 5}, "wide 5 is more than there are guests"),
        ({"disk_bytes": (128 << 20) + 1}, "no multiple of 1 MiB"),
        ({"disk_bytes": 1 << 30}, "do not fit on datastore 0"),
        ({"guests": 40, "wide": 0, "datastores": 4}, "do not fit on datastore 0"),
        ({"independent": ("vm-9/*",)}, "matches no disk"),
        ({"writer": {"file_bytes": 100 << 20}}, "more than half of a disk"),
        ({"name": "Lab"}, "name"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LabSpec.model_validate(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"record_bytes": 512},
        {"record_bytes": 5000},
        {"record_bytes": 8192, "file_bytes": 12288},
        {"file_bytes": 0},
        {"rate_per_s": 0},
    ],
)
def test_records_are_whole_blocks_and_the_ring_whole_records(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Writes.model_validate(wrong)
