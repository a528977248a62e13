"""RVTools exports: what they say is read, what they lack is said, each known trap is avoided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_rvtools import (
    NAA_1,
    NAA_2,
    NAA_3,
    complete,
    disk,
    host,
    imported,
    of_vm,
    path,
    said,
    store,
    vm,
    write_csv,
    write_xlsx,
)

from stillframe.drivers.records import (
    Array,
    Cluster,
    Datastore,
    DatastoreKind,
    DeviceIdentity,
    DeviceKind,
    Disk,
    DiskMode,
    Estate,
    Host,
    Inventory,
    PowerState,
    StorageUnit,
    UnitKind,
    VCenter,
    Vm,
)
from stillframe.topology.estate import dump_estate, estate_from_data
from stillframe.topology.graph import Topology
from stillframe.topology.queries import protectability
from stillframe.topology.rvtools import RvtoolsImport, Severity, import_rvtools
from stillframe.topology.yamlfile import parse_yaml

SAMPLE = Path(__file__).parent / "data" / "rvtools-small-complete.xlsx"
GIB = 2**30


def device(text: str) -> DeviceIdentity:
    return DeviceIdentity.parse(text)


def one_vm(result: RvtoolsImport) -> Vm:
    (found,) = result.estate.inventory.vms
    return found


def one_disk(result: RvtoolsImport) -> Disk:
    (found,) = one_vm(result).disks
    return found


def texts(result: RvtoolsImport, severity: Severity) -> list[str]:
    return [finding.sentence for finding in result.findings if finding.severity is severity]


def test_a_complete_export_becomes_an_estate(tmp_path: Path) -> None:
    result = imported(tmp_path)
    unit = StorageUnit(
        f"NETAPP LUN C-Mode/{NAA_1}",
        "NETAPP LUN C-Mode",
        NAA_1,
        UnitKind.LUN,
        1024 * GIB,
        (device(NAA_1),),
    )
    cluster = Cluster("vc-a/dc-1/cl-1", "vc-a", "cl-1")
    assert result.estate == Estate(
        Inventory(
            (VCenter("vc-a", "vc-a"),),
            (cluster,),
            tuple(
                Host(f"vc-a/{name}", "vc-a", name, cluster.id, "8.0.2")
                for name in ("esx-1", "esx-2")
            ),
            (
                Datastore(
                    "vc-a/datastore-1",
                    "vc-a",
                    "ds-1",
                    DatastoreKind.VMFS,
                    (device(NAA_1),),
                    1024 * GIB,
                    512 * GIB,
                ),
            ),
            (
                Vm(
                    id="vc-a/vm-1",
                    vcenter_id="vc-a",
                    name="web",
                    host_id="vc-a/esx-1",
                    power_state=PowerState.ON,
                    home_datastore_id="vc-a/datastore-1",
                    disks=(Disk(2000, "[ds-1] web/web.vmdk", "vc-a/datastore-1", 40 * GIB),),
                    folder="/prod",
                    guest_os="Some Linux",
                    can_quiesce=True,
                ),
            ),
        ),
        (Array("NETAPP LUN C-Mode", "NETAPP LUN C-Mode", "NETAPP", "LUN C-Mode"),),
        (unit,),
    )
    assert texts(result, Severity.CANNOT) == []
    assert result.statistics["protectable_vms"] == 1
    assert result.statistics["rows vMultiPath"] == 2
    assert said(result, "count as one array").severity is Severity.ASSUMED
    assert said(result, "capacity taken from the datastore").severity is Severity.ASSUMED


FORMS = {
    "workbook": lambda d, s: write_xlsx(d / "export.xlsx", s),
    "semicolons": lambda d, s: write_csv(d / "x", s, delimiter=";"),
    "tabulators": lambda d, s: write_csv(d / "x", s, delimiter="\t"),
    "no byte order mark": lambda d, s: write_csv(d / "x", s, encoding="utf-8"),
    "utf-16": lambda d, s: write_csv(d / "x", s, encoding="utf-16"),
    "bare names": lambda d, s: write_csv(d / "x", s, pattern="{}.csv"),
    "tab names": lambda d, s: write_csv(d / "x", s, pattern="tab{}.CSV"),
    "dated names": lambda d, s: write_csv(d / "x", s, pattern="2024-01-31_RVTools_tab{}.csv"),
    "tab sheets": lambda d, s: write_xlsx(
        d / "export.xlsx", {f"tab{tab}": rows for tab, rows in s.items()}
    ),
    "long sheets": lambda d, s: write_xlsx(
        d / "export.xlsx", {f"RVTools_tab{tab}": rows for tab, rows in s.items()}
    ),
    "other sheets": lambda d, s: write_xlsx(d / "export.xlsx", {"Sheet1": [{"a": 1}], **s}),
    "blank lines": lambda d, s: write_xlsx(
        d / "export.xlsx", {tab: [*rows, {}, *rows[:0]] for tab, rows in s.items()}
    ),
    "megabytes": lambda d, s: write_csv(d / "x", renamed(s, lambda tab, c: c.replace("MiB", "MB"))),
    "prefixed": lambda d, s: write_csv(
        d / "x", renamed(s, lambda tab, c: tab + prefixed(c.replace("MiB", "MB")))
    ),
    "upper case": lambda d, s: write_csv(d / "x", renamed(s, lambda tab, c: f" {c.upper()} ")),
}


def prefixed(column: str) -> str:
    return "VMName" if column == "VM" else "".join(c for c in column if c.isalnum() or c == "#")


def renamed(sheets: dict[str, list], name: Any) -> dict[str, list]:
    # The empty vSnapshot tab keeps its header by carrying one row of another VM's.
    return {
        tab: [{name(tab, column): cell for column, cell in row.items()} for row in rows]
        for tab, rows in sheets.items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_export_reads_the_same(form: str, tmp_path: Path) -> None:
    sheets = complete(vSnapshot=[of_vm("web", 1)])
    plain = import_rvtools(write_csv(tmp_path / "plain", sheets))
    other = import_rvtools(FORMS[form](tmp_path, sheets))
    assert other.estate == plain.estate
    assert other.findings == plain.findings
    assert other.statistics == plain.statistics
    assert one_vm(plain).snapshot_count == 1


def test_the_shipped_incomplete_sample_is_imported_with_a_clear_report() -> None:
    result = import_rvtools(SAMPLE)
    names = [found.name for found in result.estate.inventory.vms]
    assert names == ["sample-web-01", "sample-db-01", "sample-archive-01"]
    assert [len(found.disks) for found in result.estate.inventory.vms] == [2, 2, 1]
    assert result.statistics["protectable_vms"] == 0
    assert result.estate.inventory.datastores == result.estate.units == ()
    assert result.estate.inventory.vms[1].snapshot_count == 1
    assert result.estate.inventory.vms[2].power_state is PowerState.OFF
    cannot = " | ".join(texts(result, Severity.CANNOT))
    for text in (
        "vDatastore tab missing: datastores are known only by name from paths",
        "vMultiPath tab missing",
        "no device identities: array targeting is not possible",
        "vInfo column Path missing: the home datastore of no VM is known",
        "vDisk column Path missing: the datastore of no disk is known (Disk Path is a path",
        "0 of 3 VMs can be protected",
    ):
        assert text in cannot
    topology = Topology(result.estate)
    found = protectability(topology, topology.vm_ids)
    assert all(any(obstacle.blocks for obstacle in obstacles) for obstacles in found.values())


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


def raw(lun: str | None, mode: str | None, **cells: Any) -> dict[str, Any]:
    return disk("web", 1, **{"Raw": "True", "Raw LUN ID": lun, "Raw Comp. Mode": mode, **cells})


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


def test_vms_of_one_name_are_told_apart(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        vInfo=[vm("twin", 1), vm("twin", 2, Powerstate="poweredOff")],
        vDisk=[disk("twin", 2), disk("twin", 1), disk("twin", 2, **{"Disk Key": 2001})],
        vTools=[of_vm("twin", 2, **{"Operation Ready": "True"})],
        vSnapshot=[of_vm("twin", 1), of_vm("twin", 1)],
    )
    first, second = result.estate.inventory.vms
    assert (first.id, len(first.disks), first.can_quiesce) == ("vc-a/vm-1", 1, None)
    assert (second.id, len(second.disks), second.can_quiesce) == ("vc-a/vm-2", 2, True)
    assert (first.snapshot_count, second.snapshot_count) == (2, 0)
    assert second.power_state is PowerState.OFF


def without_ids(rows: list[dict[str, Any]], *columns: str) -> list[dict[str, Any]]:
    return [{c: cell for c, cell in row.items() if c not in columns} for row in rows]


def test_the_uuid_stands_in_for_a_missing_vm_id(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        vInfo=without_ids([vm("twin", 1), vm("twin", 2)], "VM ID"),
        vDisk=[disk("twin", 2)],
    )
    first, second = result.estate.inventory.vms
    assert (first.id, len(first.disks)) == ("vc-a/50000000-0001", 0)
    assert len(second.disks) == 1


def test_without_any_id_vms_of_one_name_get_nobodys_disks(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        vInfo=without_ids([vm("twin", 1), vm("twin", 2), vm("web", 3)], "VM ID", "VM UUID"),
        vDisk=[disk("twin", 2), disk("web", 3)],
    )
    assert [len(found.disks) for found in result.estate.inventory.vms] == [0, 0, 1]
    assert len({found.id for found in result.estate.inventory.vms}) == 3
    lost = said(result, "belong to no VM of vInfo")
    assert (lost.tab, lost.count, lost.severity) == ("vDisk", 1, Severity.CANNOT)
    assert said(result, "identified by their name").count == 3


def test_a_row_with_a_foreign_id_does_not_fall_to_a_vm_of_the_same_name(tmp_path: Path) -> None:
    result = imported(tmp_path, vDisk=[disk("web", 7)])
    assert one_vm(result).disks == ()
    assert said(result, "belong to no VM of vInfo").count == 1
    assert said(result, "no disk is listed").count == 1


def test_one_vm_id_in_two_vcenters_is_two_vms(tmp_path: Path) -> None:
    other = {"VI SDK Server": "vc-b"}
    result = imported(
        tmp_path,
        vInfo=[vm("web", 1), vm("web", 1, **other)],
        vDisk=[disk("web", 1), disk("web", 1, **other)],
        vDatastore=[store(), store(**other)],
        vMultiPath=[path(), path(**other)],
        vHost=[host(), host(**other)],
    )
    assert [found.id for found in result.estate.inventory.vms] == ["vc-a/vm-1", "vc-b/vm-1"]
    assert [found.id for found in result.estate.inventory.vcenters] == ["vc-a", "vc-b"]
    # Both see one LUN, so it is one unit that carries both.
    (unit,) = result.estate.units
    assert Topology(result.estate).vms_of_unit(unit.id) == ("vc-a/vm-1", "vc-b/vm-1")


def test_placeholders_are_left_out_and_templates_marked(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        vInfo=[
            vm("web", 1),
            vm("gold", 2, Template="True"),
            vm("shadow", 3, **{"SRM Placeholder": "True"}),
        ],
        vDisk=[disk("web", 1), disk("gold", 2), disk("shadow", 3)],
    )
    assert [found.name for found in result.estate.inventory.vms] == ["web", "gold"]
    assert result.estate.inventory.vms[1].is_template
    assert said(result, "placeholder of a recovery plan").count == 1
    assert said(result, "template; cannot be snapshotted").count == 1
    assert not [f for f in result.findings if "belong to no VM" in f.sentence]
    assert result.statistics["templates"] == 1


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


@pytest.mark.parametrize(
    ("tools", "ready", "expected"),
    [
        ("toolsOk", "True", True),
        ("toolsOk", "False", False),
        ("toolsNotRunning", "True", False),
        ("toolsNotInstalled", None, False),
        ("toolsOld", None, None),
        (None, True, True),
    ],
)
def test_readiness_to_quiesce_is_read(
    tmp_path: Path, tools: str | None, ready: object, expected: bool | None
) -> None:
    row = of_vm("web", 1, Tools=tools, **{"Operation Ready": ready})
    assert one_vm(imported(tmp_path, vTools=[row])).can_quiesce is expected


def test_missing_tabs_are_each_said(tmp_path: Path) -> None:
    result = import_rvtools(write_csv(tmp_path / "x", {"vInfo": [vm("web", 1)]}))
    assert {finding.tab for finding in result.findings if finding.column == ""} >= {
        "vDisk",
        "vDatastore",
        "vMultiPath",
        "vSnapshot",
        "vTools",
    }
    assert "tab missing" in said(result, "merges snapshots is not known").sentence
    assert one_vm(result).host_id == "vc-a/esx-1"
    assert one_vm(result).can_quiesce is None


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


def test_what_matters_for_snapshots_is_noted(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        vInfo=[
            vm("web", 1, **{"Connection state": "inaccessible", "Consolidation Needed": "True"}),
            vm("web", 1),
            vm(None, 4),  # type: ignore[arg-type]
            vm("odd", 5, Powerstate="levitating"),
        ],
        vDisk=[disk("web", 1, **{"Sharing mode": "sharingMultiWriter"}), disk("odd", 5)],
        vDatastore=[store(), store()],
        vHost=[host(), host("esx-2", **{"ESX Version": None})],
    )
    assert len(result.estate.inventory.vms) == 2
    for text in (
        "not connected when the export was made",
        "disks need consolidation",
        "repeat a VM listed before",
        "no VM name; left out",
        "no known power state",
        "shared between VMs",
        "repeat a datastore that was listed before",
    ):
        assert said(result, text).count == 1
    assert "1 host (esx-2)" in said(result, "merges snapshots is not known").sentence


def test_the_age_of_the_export_is_told(tmp_path: Path) -> None:
    made = [{"RVTools version": "4.7.1", "xlsx creation datetime": "2024-01-31 07:00"}]
    result = imported(tmp_path, vMetaData=made)
    assert "made by RVTools 4.7.1 on 2024-01-31 07:00" in said(result, "made by").sentence


def test_rows_without_a_vcenter_belong_to_the_only_one(tmp_path: Path) -> None:
    result = imported(tmp_path, vInfo=[vm("web", 1, **{"VI SDK Server": None})])
    assert one_vm(result).vcenter_id == "vc-a"
    assert len(one_vm(result).disks) == 1
    bare = {tab: without_ids(rows, "VI SDK Server") for tab, rows in complete().items()}
    result = import_rvtools(write_csv(tmp_path / "y", bare))
    assert one_vm(result).vcenter_id == "vcenter"
    assert said(result, "rows that name no vCenter").severity is Severity.ASSUMED


def test_findings_are_sorted_by_severity(tmp_path: Path) -> None:
    delta = disk("web", 1, Path="[ds-1] web/web-000001.vmdk")
    result = imported(tmp_path, vDisk=[delta, disk("web", 7)])
    ranks = [list(Severity).index(finding.severity) for finding in result.findings]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 3


CELLS = st.none() | st.sampled_from(
    ["", "x", "True", "False", "1", "2000", "-1", "[ds-1] a/b.vmdk", "[ds-1] a/b-000001.vmdk", "[]",
     "[other] x", NAA_1, NAA_2, "mpx.x", "nas:/v", "NFS", "VMFS", "vsan", "esx-1", "esx-1, esx-2",
     "vc-a", "vc-b", "a/b", "web", "vm-1", "physicalMode", "é\x1f", "vml.02", "dc-1"]
)  # fmt: skip


@st.composite
def damaged_exports(draw: st.DrawFn) -> dict[str, list]:
    """A complete export with cells replaced, columns and tabs dropped, rows repeated."""
    sheets = complete(
        vInfo=[vm("web", 1), vm("db", 2, "ds-2")],
        vDisk=[disk("web", 1), disk("db", 2, "ds-2"), raw(NAA_3, "physicalMode")],
        vDatastore=[store(), store("ds-2", 2, Type="NFS", Address="nas:/v")],
        vSnapshot=[of_vm("web", 1)],
    )
    for tab in draw(st.lists(st.sampled_from(sorted(set(sheets) - {"vInfo"})), max_size=2)):
        sheets.pop(tab, None)
    for tab, rows in sheets.items():
        columns = sorted({column for row in rows for column in row} - {"VM"})
        dropped = draw(st.lists(st.sampled_from(columns), max_size=3))
        rows = [{c: v for c, v in row.items() if c not in dropped} for row in rows]
        rows += draw(st.lists(st.sampled_from(rows), max_size=2))
        changes = st.tuples(st.integers(0, len(rows) - 1), st.sampled_from(columns), CELLS)
        for number, column, cell in draw(st.lists(changes, max_size=5)):
            rows[number] = {**rows[number], column: cell}
        sheets[tab] = rows
    return sheets


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged_exports())
def test_no_export_crashes_the_import(tmp_path: Path, sheets: dict[str, list]) -> None:
    for old in (tmp_path / "fuzz").glob("*.csv"):
        old.unlink()
    result = import_rvtools(write_csv(tmp_path / "fuzz", sheets))
    estate = result.estate
    assert estate_from_data(parse_yaml(dump_estate(estate), "e"), "e") == estate
    assert all(finding.sentence and "\n" not in finding.sentence for finding in result.findings)
    blocked = len(estate.inventory.vms) - result.statistics["protectable_vms"]
    if blocked:
        # Whatever keeps a VM from being protected has been said.
        assert any(
            finding.severity is Severity.CANNOT or "template" in finding.sentence
            for finding in result.findings
        )


def test_the_order_of_rows_of_other_tabs_does_not_change_vms(tmp_path: Path) -> None:
    rows = [disk("web", 1), disk("db", 2)]
    info = [vm("web", 1), vm("db", 2)]
    forward = imported(tmp_path, vInfo=info, vDisk=rows)
    backward = imported(tmp_path, vInfo=info, vDisk=rows[::-1])
    assert forward.estate == backward.estate
    assert replace(forward, findings=()) == replace(backward, findings=())
