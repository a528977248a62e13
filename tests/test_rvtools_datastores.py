"""Datastores in RVTools exports: which devices they lie on, and which of one name is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_rvtools import (
    GIB,
    NAA_1,
    NAA_2,
    complete,
    device,
    disk,
    host,
    imported,
    one_disk,
    one_vm,
    path,
    said,
    store,
    vm,
    without_ids,
    write_csv,
)

from stillframe.drivers.records import DatastoreKind, DeviceKind, UnitKind
from stillframe.topology.graph import Topology
from stillframe.topology.rvtools import Severity, import_rvtools


def test_several_extents_are_the_distinct_disks_of_all_hosts(tmp_path: Path) -> None:
    rows = [
        path(device=name, Host=esx) for esx in ("esx-1", "esx-2") for name in (NAA_2, NAA_1, NAA_2)
    ]
    result = imported(tmp_path, vDatastore=[store(**{"# Extents": 2})], vMultiPath=rows)
    (datastore,) = result.estate.inventory.datastores
    assert datastore.extents == (device(NAA_2), device(NAA_1))
    assert [unit.capacity_bytes for unit in result.estate.units] == [512 * GIB, 512 * GIB]
    assert len(Topology(result.estate).units_of_vm("vc-a/vm-1")) == 2


def test_a_datastore_with_a_missing_extent_is_not_half_protected(tmp_path: Path) -> None:
    wide = [store(**{"# Extents": 2})]
    for result in (
        imported(tmp_path, vDatastore=wide),
        imported(tmp_path, vDatastore=wide, vMultiPath=[path(), path(device="what is this")]),
        imported(tmp_path, vDatastore=wide, vMultiPath=[path("other", NAA_2)]),
    ):
        assert result.estate.inventory.datastores[0].extents == ()
        assert said(result, "not all extents have a known device").count == 1
        assert result.statistics["protectable_vms"] == 0


def test_a_device_whose_name_cannot_be_read_makes_its_datastore_unknown(tmp_path: Path) -> None:
    rows = without_ids([store()], "# Extents")
    both = [path(), path(device="what is this")]
    result = imported(tmp_path, vDatastore=rows, vMultiPath=both)
    assert result.estate.inventory.datastores[0].extents == ()
    assert said(result, "not all extents have a known device").count == 1


def test_more_devices_than_extents_all_count(tmp_path: Path) -> None:
    result = imported(tmp_path, vMultiPath=[path(), path(device=NAA_2)])
    assert len(result.estate.inventory.datastores[0].extents) == 2
    assert said(result, "more devices than extents").severity is Severity.ASSUMED


def test_the_address_stands_in_for_a_missing_multipath_tab(tmp_path: Path) -> None:
    sheets = complete()
    del sheets["vMultiPath"]
    result = import_rvtools(write_csv(tmp_path / "a", sheets))
    assert result.estate.inventory.datastores[0].extents == (device(NAA_1),)
    assert result.estate.units[0].array_id == "unknown array"
    assert said(result, "vMultiPath tab missing").severity is Severity.CANNOT
    assert said(result, "one unknown array").severity is Severity.ASSUMED
    assert result.statistics["protectable_vms"] == 1
    del sheets["vDatastore"][0]["# Extents"]
    result = import_rvtools(write_csv(tmp_path / "b", sheets))
    assert said(result, "counts as the only one").severity is Severity.ASSUMED


NFS = {
    "nas-1:/vol/vm01": "nas-1:/vol/vm01",
    "NAS-1:/vol/vm01/": "nas-1:/vol/vm01",
    "nas-1: /vol/vm01": "nas-1:/vol/vm01",
    "10.0.0.7 /vol/vm01": "10.0.0.7:/vol/vm01",
    "10.0.0.7/vol/vm01": "10.0.0.7:/vol/vm01",
    "netfs://nas-1//vol/vm01/": "nas-1:/vol/vm01",
    "nas-1,nas-2:/vol/vm01": "nas-1:/vol/vm01",
    "[fd00::7]:/vol/vm01": "[fd00::7]:/vol/vm01",
}


@pytest.mark.parametrize("address", NFS)
@pytest.mark.parametrize("column", ["Address", "URL"])
def test_nfs_exports_are_found(tmp_path: Path, address: str, column: str) -> None:
    cells = {"Type": "NFS", "Address": None, "# Extents": 0, column: address}
    result = imported(tmp_path, vDatastore=[store(**cells)], vMultiPath=[path(None)])
    (datastore,) = result.estate.inventory.datastores
    assert datastore.kind is DatastoreKind.NFS
    assert [str(found) for found in datastore.extents] == [NFS[address]]
    (unit,) = result.estate.units
    assert (unit.kind, unit.capacity_bytes) == (UnitKind.NFS_VOLUME, 1024 * GIB)
    assert unit.devices[0].kind is DeviceKind.NFS
    assert result.estate.arrays[0].name == NFS[address].split(":/")[0]
    assert said(result, "each counts as an array of its own").severity is Severity.ASSUMED
    assert result.statistics["protectable_vms"] == 1


@pytest.mark.parametrize(
    "address", [None, "nas-1", "/vol/vm01", "ds:///vmfs/volumes/1234/", NAA_1, "nas-1:/"]
)
def test_an_nfs_datastore_without_its_export_is_said(tmp_path: Path, address: str | None) -> None:
    rows = [store(Type="NFS41", Address=address)]
    result = imported(tmp_path, vDatastore=rows, vMultiPath=[path(None)])
    assert result.estate.inventory.datastores[0].extents == ()
    assert said(result, "neither Address nor URL names server and export").count == 1
    assert result.statistics["protectable_vms"] == 0


@pytest.mark.parametrize(
    ("written", "kind"), [("vsan", DatastoreKind.VSAN), ("VVOL", DatastoreKind.VVOL)]
)
def test_vsan_and_vvol_have_no_unit(tmp_path: Path, written: str, kind: DatastoreKind) -> None:
    result = imported(tmp_path, vDatastore=[store(Type=written)])
    assert result.estate.inventory.datastores[0].kind is kind
    assert result.estate.units == ()
    assert said(result, "no array unit below").count == 1


@pytest.mark.parametrize(
    "cells",
    [
        {"device": "mpx.vmhba0:C0:T0:L0"},
        {"device": NAA_1, "Display name": f"Local DELL Disk ({NAA_1})"},
        {"device": "t10.ATA_____DISK", "Vendor": "ATA     "},
    ],
)
def test_disks_of_a_host_are_no_array_units(tmp_path: Path, cells: dict[str, str]) -> None:
    result = imported(tmp_path, vMultiPath=[path(**cells)])
    assert result.estate.units == ()
    assert said(result, "on disks of a host itself").count == 1
    assert result.statistics["protectable_vms"] == 0


def test_devices_that_nothing_uses_are_left_out(tmp_path: Path) -> None:
    result = imported(tmp_path, vMultiPath=[path(), path(None, NAA_2)])
    assert len(result.estate.units) == 1
    assert NAA_2 in said(result, "neither under a datastore nor under a raw").sentence


def twins(**cells: Any) -> dict[str, list]:
    return {
        "vHost": [host(), host("esx-9", Datacenter="dc-2", Cluster="cl-2")],
        "vDatastore": [
            store(Hosts="esx-1", **cells),
            store(number=2, Hosts="esx-9", Address=NAA_2, **cells),
        ],
        "vMultiPath": [path(), path(device=NAA_2, Host="esx-9", Datacenter="dc-2")],
    }


def test_datastores_of_one_name_are_told_apart_by_host_or_datacenter(tmp_path: Path) -> None:
    # esx-2 is in dc-1, but the list of hosts does not name it.
    sheets = twins()
    sheets["vHost"].append(host("esx-2"))
    result = imported(
        tmp_path,
        **sheets,
        vInfo=[
            vm("near", 1),
            vm("far", 2, Host="esx-9", Datacenter="dc-2"),
            vm("also", 3, Host="esx-2"),
        ],
        vDisk=[disk("near", 1), disk("far", 2), disk("also", 3)],
    )
    topology = Topology(result.estate)
    units = [topology.units_of_vm(found.id) for found in result.estate.inventory.vms]
    near, far = (f"NETAPP LUN C-Mode/{name}" for name in (NAA_1, NAA_2))
    assert units == [(near,), (far,), (near,)]


def test_an_ambiguous_datastore_name_is_not_guessed(tmp_path: Path) -> None:
    sheets = twins()
    for row in sheets["vDatastore"]:
        del row["Hosts"]
    result = imported(tmp_path, **sheets)
    assert one_vm(result).home_datastore_id is None
    assert one_disk(result).datastore_id is None
    assert said(result, "several datastores have the name in the home's path").count == 1
    assert said(result, "several datastores have the name in the path").count == 1
    assert said(result, "their devices are not known").count == 2
    assert result.statistics["protectable_vms"] == 0


def test_without_vdatastore_a_name_is_one_datastore_per_datacenter(tmp_path: Path) -> None:
    sheets = complete(
        **{tab: rows for tab, rows in twins().items() if tab != "vDatastore"},
        vInfo=[vm("near", 1), vm("far", 2, Host="esx-9", Datacenter="dc-2")],
        vDisk=[disk("near", 1), disk("far", 2)],
    )
    del sheets["vDatastore"]
    result = import_rvtools(write_csv(tmp_path / "x", sheets))
    stores = result.estate.inventory.datastores
    assert [found.id for found in stores] == ["vc-a/dc-1/ds-1", "vc-a/dc-2/ds-1"]
    assert [str(found.extents[0]) for found in stores] == [NAA_1, NAA_2]
    assert {found.kind for found in stores} == {DatastoreKind.VMFS}
    assert said(result, "vDatastore tab missing").severity is Severity.CANNOT
    assert said(result, "capacity not known and counted as 0").count == 2
    assert result.statistics["protectable_vms"] == 2


def test_a_datastore_that_is_not_listed_is_known_by_name_only(tmp_path: Path) -> None:
    result = imported(tmp_path, vDisk=[disk("web", 1, "gone")])
    assert result.estate.inventory.datastores[1].name == "gone"
    assert said(result, "named in paths but not listed").count == 1
    assert result.statistics["protectable_vms"] == 0
