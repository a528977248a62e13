"""Disks in RVTools exports: paths, modes, sizes, keys and raw mappings."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_rvtools import (
    GIB,
    NAA_1,
    NAA_3,
    device,
    disk,
    imported,
    of_vm,
    one_disk,
    one_vm,
    path,
    raw,
    said,
)

from stillframe.drivers.records import DiskMode
from stillframe.topology.rvtools import Severity


def test_the_guest_path_is_never_taken_for_the_datastore_path(tmp_path: Path) -> None:
    row = disk("web", 1, **{"Disk Path": "[ds-1] not/this.vmdk", "Path": None})
    result = imported(tmp_path, vDisk=[row])
    assert one_disk(result).datastore_id is None
    assert said(result, "the path names no datastore").column == "Path"
    del row["Path"]
    result = imported(tmp_path, vDisk=[row])
    assert one_disk(result).datastore_id is None
    assert said(result, "Disk Path is a path inside the guest").severity is Severity.CANNOT


def test_disks_running_on_a_delta_are_noted(tmp_path: Path) -> None:
    row = disk("web", 1, Path="[ds-1] web/web-000002.vmdk")
    result = imported(tmp_path, vDisk=[row], vSnapshot=[of_vm("web", 1)])
    assert one_disk(result).path == "[ds-1] web/web-000002.vmdk"
    assert said(result, "running on a delta file of an earlier snapshot").count == 1
    assert not [f for f in result.findings if "yet no snapshot is listed" in f.sentence]
    result = imported(tmp_path, vDisk=[row])
    assert said(result, "yet no snapshot is listed").severity is Severity.NOTE


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("persistent", DiskMode.PERSISTENT),
        ("independent_persistent", DiskMode.INDEPENDENT_PERSISTENT),
        ("independent_nonpersistent", DiskMode.INDEPENDENT_NONPERSISTENT),
        ("Independent-Persistent", DiskMode.INDEPENDENT_PERSISTENT),
    ],
)
def test_disk_modes_are_read(tmp_path: Path, written: str, mode: DiskMode) -> None:
    result = imported(tmp_path, vDisk=[disk("web", 1, **{"Disk Mode": written})])
    assert one_disk(result).mode is mode
    assert not [f for f in result.findings if "no known disk mode" in f.sentence]


def test_an_unknown_disk_mode_is_an_assumption(tmp_path: Path) -> None:
    result = imported(tmp_path, vDisk=[disk("web", 1, **{"Disk Mode": "append"})])
    assert one_disk(result).mode is DiskMode.PERSISTENT
    assert "web: append" in said(result, "no known disk mode").sentence


def test_raw_mappings_find_their_device(tmp_path: Path) -> None:
    vml = f"vml.0200020000{NAA_3.removeprefix('naa.')}565620202020"
    other = [path(), path(None, NAA_3, Vendor="3PARdata", Model="VV")]
    for lun in (NAA_3, NAA_3.upper(), vml, vml.removeprefix("vml.")):
        result = imported(tmp_path, vDisk=[raw(lun, "physicalMode")], vMultiPath=other)
        found = one_disk(result)
        assert found.raw_device == device(NAA_3)
        assert found.raw_is_physical
        unit = result.estate.units[1]
        assert (unit.array_id, unit.capacity_bytes) == ("3PARdata VV", 40 * GIB)
        assert result.statistics["protectable_vms"] == 1
    result = imported(tmp_path, vDisk=[raw(NAA_3, "virtualMode")], vMultiPath=other)
    assert not one_disk(result).raw_is_physical


def test_a_device_guessed_from_a_vml_name_needs_a_confirmation(tmp_path: Path) -> None:
    vml = f"vml.0200020000{NAA_3.removeprefix('naa.')}565620202020"
    result = imported(tmp_path, vDisk=[raw(vml, "physicalMode")])
    assert len(result.estate.units) == 1
    assert result.statistics["protectable_vms"] == 0
    assert said(result, "vMultiPath does not list the device").count == 1


def test_a_raw_mapping_of_an_unknown_device_blocks_its_vm(tmp_path: Path) -> None:
    for mode in ("physicalMode", "virtualMode"):
        result = imported(tmp_path, vDisk=[raw(None, mode, Path=None)])
        assert said(result, "the device is not known").count == 1
        assert said(result, "pointer file names no datastore").severity is Severity.NOTE
        assert result.statistics["protectable_vms"] == 0
    # Even with a pointer on a good datastore a virtual mapping is not a disk that lies there.
    result = imported(tmp_path, vDisk=[raw("gibberish", "virtualMode")])
    assert one_disk(result).datastore_id is None
    assert result.statistics["protectable_vms"] == 0


def test_a_raw_mapping_of_unknown_compatibility_counts_as_physical(tmp_path: Path) -> None:
    result = imported(tmp_path, vDisk=[raw(NAA_1, None)])
    assert one_disk(result).raw_is_physical
    assert said(result, "no known compatibility mode").severity is Severity.ASSUMED


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (40960, 40 * GIB),
        ("40960", 40 * GIB),
        ("40,960", 40 * GIB),
        ("40.960", 40 * GIB),
        ("40\u00a0960", 40 * GIB),
        ("1,048,576", 1024 * GIB),
        ("0.5", 2**19),
        (1.5, 3 * 2**19),
    ],
)
def test_sizes_are_mebibytes_however_they_are_grouped(
    tmp_path: Path, written: object, expected: int
) -> None:
    result = imported(tmp_path, vDisk=[disk("web", 1, **{"Capacity MiB": written})])
    assert one_disk(result).capacity_bytes == expected


@pytest.mark.parametrize("written", ["many", "-1", "nan", "1e999", None, "1,04,8"])
def test_a_size_that_is_no_number_is_said(tmp_path: Path, written: object) -> None:
    result = imported(tmp_path, vDisk=[disk("web", 1, **{"Capacity MiB": written})])
    assert one_disk(result).capacity_bytes == 0
    assert said(result, "the size is no number").count == 1


def test_disk_keys_that_are_missing_or_repeated_are_numbered(tmp_path: Path) -> None:
    rows = [disk("web", 1, **{"Disk Key": key}) for key in (2001, None, 2001, "x")]
    result = imported(tmp_path, vDisk=rows)
    keys = [found.key for found in one_vm(result).disks]
    assert keys[0] == 2001
    assert len(set(keys)) == 4
    assert said(result, "the key is missing or not unique").count == 3
