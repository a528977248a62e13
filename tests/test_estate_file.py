"""The estate file: what it says, that it round-trips, and what bad ones are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_topology import GIB, estates, lun, machine, small_estate, vmfs

from stillframe.drivers.records import (
    Array,
    Cluster,
    Datastore,
    DatastoreKind,
    DeviceIdentity,
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
from stillframe.errors import InputError
from stillframe.topology.estate import (
    dump_estate,
    estate_from_data,
    estate_json_schema,
    load_estate,
)
from stillframe.topology.yamlfile import parse_yaml

EXAMPLE = """
vcenters:
- {name: vc-a, version: "8.0.2"}
clusters:
- name: prod
hosts:
- {name: esx-01, cluster: prod, version: "8.0.2"}
arrays:
- name: array-1
  vendor: Acme
  units:
  - {name: lun-01, capacity: 2 TiB, devices: [naa.6000A1, naa.6000A2]}
  - {name: vol-01, kind: nfs-volume, capacity: 500 GB, devices: ["NAS-1:/vol/vm01/"]}
datastores:
- {name: ds-01, extents: [naa.6000a1], capacity: 2 TiB, free: 512 GiB}
- {name: nfs-01, export: "nas-1:/vol/vm01"}
vms:
- name: web-01
  host: esx-01
  folder: /prod/web
  tags: [gold]
  guest_os: Some Linux
  can_quiesce: true
  snapshots: 2
  disks:
  - {datastore: ds-01, size: 40 GiB}
  - {datastore: nfs-01, size: 1 TiB, mode: independent-persistent}
- name: db-01
  power: off
  home: nfs-01
  template: true
  disks:
  - {datastore: ds-01, size: 1 GiB, key: 7, path: "[ds-01] db/db.vmdk",
     rdm: {device: naa.60FF, physical: true}}
"""


def estate_of(text: str) -> Estate:
    return estate_from_data(parse_yaml(text, "e.yaml"), "e.yaml")


def test_an_example_is_read_as_it_is_meant() -> None:
    web = Vm(
        id="vc-a/web-01",
        vcenter_id="vc-a",
        name="web-01",
        host_id="vc-a/esx-01",
        power_state=PowerState.ON,
        home_datastore_id="vc-a/ds-01",
        disks=(
            Disk(2000, "[ds-01] web-01/web-01.vmdk", "vc-a/ds-01", 40 * GIB),
            Disk(
                2001,
                "[nfs-01] web-01/web-01_1.vmdk",
                "vc-a/nfs-01",
                1024 * GIB,
                DiskMode.INDEPENDENT_PERSISTENT,
            ),
        ),
        folder="/prod/web",
        tags=("gold",),
        guest_os="Some Linux",
        can_quiesce=True,
        snapshot_count=2,
    )
    raw = DeviceIdentity.parse("naa.60ff")
    database = Vm(
        id="vc-a/db-01",
        vcenter_id="vc-a",
        name="db-01",
        host_id=None,
        power_state=PowerState.OFF,
        home_datastore_id="vc-a/nfs-01",
        disks=(
            Disk(7, "[ds-01] db/db.vmdk", "vc-a/ds-01", GIB, raw_device=raw, raw_is_physical=True),
        ),
        is_template=True,
    )
    first = tuple(DeviceIdentity.parse(f"naa.6000a{number}") for number in (1, 2))
    export = DeviceIdentity.parse("nas-1:/vol/vm01")
    assert estate_of(EXAMPLE) == Estate(
        Inventory(
            (VCenter("vc-a", "vc-a", "8.0.2"),),
            (Cluster("vc-a/prod", "vc-a", "prod"),),
            (Host("vc-a/esx-01", "vc-a", "esx-01", "vc-a/prod", "8.0.2"),),
            (
                Datastore(
                    "vc-a/ds-01",
                    "vc-a",
                    "ds-01",
                    DatastoreKind.VMFS,
                    first[:1],
                    2**41,
                    512 * GIB,
                ),
                Datastore("vc-a/nfs-01", "vc-a", "nfs-01", DatastoreKind.NFS, (export,)),
            ),
            (web, database),
        ),
        (Array("array-1", "array-1", "Acme"),),
        (
            StorageUnit("array-1/lun-01", "array-1", "lun-01", UnitKind.LUN, 2**41, first),
            StorageUnit(
                "array-1/vol-01", "array-1", "vol-01", UnitKind.NFS_VOLUME, 500 * 10**9, (export,)
            ),
        ),
    )


@given(estates())
def test_every_estate_survives_writing_and_reading(estate: Estate) -> None:
    assert estate_of(dump_estate(estate)) == estate


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_survives_as_a_name(name: str) -> None:
    estate = small_estate([], [machine(name, None, folder=name, tags=(name,))], [])
    assert estate_of(dump_estate(estate)) == estate


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 2**40 + 1, 2**53 - 1, 3 * 2**60])
def test_sizes_survive_to_the_byte(size: int) -> None:
    estate = small_estate([], [], [lun(1, size=size)])
    assert estate_of(dump_estate(estate)) == estate


def test_a_file_is_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "estate.yaml"
    path.write_text(EXAMPLE, encoding="utf-8")
    assert load_estate(path) == load_estate(str(path)) == estate_of(EXAMPLE)


def test_what_is_written_is_short_and_uses_names() -> None:
    estate = estate_of(EXAMPLE)
    text = dump_estate(estate)
    assert "vc-a/" not in text
    assert "- {datastore: ds-01, size: 40 GiB}" in text
    assert "export: 'nas-1:/vol/vm01'" in text


def test_an_ambiguous_name_is_written_as_its_id() -> None:
    twins = [vmfs("ds", 1), replace(vmfs("ds", 2), id="vc/second")]
    estate = small_estate(twins, [replace(machine("a", None), home_datastore_id="vc/ds")], [])
    text = dump_estate(estate)
    assert "home: vc/ds" in text
    assert estate_of(text) == estate


def test_units_of_several_arrays_keep_their_order() -> None:
    estate = small_estate([], [], [lun(1), lun(2, "array-2"), lun(3)])
    assert estate_of(dump_estate(estate)) == estate


def test_an_unknown_home_is_not_taken_for_the_first_disks() -> None:
    text = "vcenters: [{name: v}]\ndatastores: [{name: d}]\nvms:\n- name: a\n"
    disks = "  disks: [{datastore: d, size: 1 GiB}]\n"
    assert estate_of(f"{text}  home: null\n{disks}").inventory.vms[0].home_datastore_id is None
    assert estate_of(f"{text}{disks}").inventory.vms[0].home_datastore_id == "v/d"


def test_a_name_means_the_one_in_the_same_vcenter() -> None:
    estate = estate_of(
        "vcenters: [{name: v}, {name: w}]\n"
        "datastores: [{name: d, vcenter: v}, {name: d, vcenter: w}]\n"
        "vms: [{name: a, vcenter: w, home: d}]\n"
    )
    assert estate.inventory.vms[0].home_datastore_id == "w/d"
    assert estate_of(dump_estate(estate)) == estate


HEAD = "vcenters: [{name: v}]\n"
BAD = {
    "vmz: []": ("vmz", "unknown key", "did you mean 'vms'?"),
    "vms: [{name: a, dsiks: []}]": ("vms[0].dsiks", "unknown key", "did you mean 'disks'?"),
    HEAD + "vms: [{name: a, disks: [{size: 1 GiB, xyzzy: 3}]}]": (
        "vms[0].disks[0].xyzzy",
        "unknown key with value 3",
        "known keys: datastore, key, mode",
    ),
    HEAD + "vms: [{name: a, disks: [{size: 1 GiB, rdm: {phsical: true}}]}]": (
        "vms[0].disks[0].rdm.phsical",
        "unknown key",
        "did you mean 'physical'?",
    ),
    HEAD + "vms: [{}]": ("vms[0].name", "is missing", ""),
    HEAD + "vms: [{name: ''}]": ("vms[0].name", "''", ""),
    HEAD + "vms: [{name: 5}]": ("vms[0].name", "5 is not text", "put it in quotes"),
    HEAD + "hosts: [{name: h, version: 8.0}]": (
        "hosts[0].version",
        "8.0 is not text",
        "put it in quotes",
    ),
    HEAD + "vms: [{name: a, disks: [{size: 40}]}]": (
        "vms[0].disks[0].size",
        "40 has no unit",
        "",
    ),
    HEAD + "vms: [{name: a, disks: [{size: 40 GHz}]}]": ("vms[0].disks[0].size", "'40 GHz'", ""),
    HEAD + "datastores: [{name: d, capacity: -1 GiB}]": ("datastores[0].capacity", "-1 GiB", ""),
    HEAD + "vms: [{name: a, power: maybe}]": ("vms[0].power", "'maybe'", ""),
    HEAD + "vms: [{name: a, snapshots: -1}]": ("vms[0].snapshots", "-1", ""),
    HEAD + "vms: [{name: a, template: 'yes'}]": ("vms[0].template", "'yes'", ""),
    HEAD + "datastores: [{name: d, extents: [disk1]}]": (
        "datastores[0].extents[0]",
        "'disk1'",
        "",
    ),
    HEAD + "datastores: [{name: d, extents: [17]}]": ("datastores[0].extents[0]", "17", ""),
    HEAD + "datastores: [{name: d, export: naa.60}]": (
        "datastores[0].export",
        "'naa.60' is not an NFS export",
        "",
    ),
    HEAD + "datastores: [{name: d, export: 's:/p', extents: [naa.60]}]": (
        "datastores[0].export",
        "has extents as well",
        "",
    ),
    HEAD + "datastores: [{name: d, extents: [naa.60, naa.60]}]": (
        "datastores[0].extents[1]",
        "'naa.60' is listed twice",
        "",
    ),
    HEAD + "datastores: [{name: d}]\nvms: [{name: a}, {name: b, home: e}]": (
        "vms[1].home",
        "there is no datastore 'e'",
        "",
    ),
    HEAD + "datastores: [{name: gold-01}]\n"
    "vms: [{name: a, disks: [{size: 1 GiB, datastore: gold-1}]}]": (
        "vms[0].disks[0].datastore",
        "there is no datastore 'gold-1'",
        "did you mean 'gold-01'?",
    ),
    HEAD + "vms: [{name: a, host: h}]": ("vms[0].host", "there is no host 'h'", ""),
    HEAD + "hosts: [{name: h, cluster: c}]": ("hosts[0].cluster", "there is no cluster 'c'", ""),
    HEAD + "vms: [{name: a, vcenter: w}]": ("vms[0].vcenter", "there is no vCenter 'w'", ""),
    "vms: [{name: a}]": ("vms[0].vcenter", "is missing", "but there are 0"),
    "vcenters: [{name: v}, {name: w}]\nclusters: [{name: c}]": (
        "clusters[0].vcenter",
        "is missing",
        "but there are 2",
    ),
    HEAD + "vms: [{name: a}, {name: b}, {name: a}]": (
        "vms[2].name",
        "id 'v/a' is that of vms[0] already",
        "id of its own",
    ),
    HEAD + "vms: [{name: a}, {name: b, id: v/a}]": ("vms[1].id", "id 'v/a' is that of vms[0]", ""),
    "vcenters: [{name: v}, {name: v}]": ("vcenters[1].name", "id 'v'", ""),
    "arrays: [{name: x, units: [{name: u, capacity: 1 GB}, {name: u, capacity: 1 GB}]}]": (
        "arrays[0].units[1].name",
        "id 'x/u' is that of arrays[0].units[0] already",
        "",
    ),
    "arrays: [{name: x}]\nunits: [{name: u, array: y, capacity: 1 GB}]": (
        "units[0].array",
        "there is no array 'y'",
        "",
    ),
    "arrays:\n- name: x\n  units:\n"
    "  - {name: u, capacity: 1 GB, devices: [naa.60]}\n"
    "  - {name: w, capacity: 1 GB, devices: [naa.61, naa.60]}": (
        "arrays[0].units[1].devices[1]",
        "'naa.60' is claimed by unit 'x/u' at arrays[0].units[0].devices[0] already",
        "",
    ),
    HEAD + "vms: [{name: a, disks: [{size: 1 GB}, {size: 1 GB, key: 2000}]}]": (
        "vms[0].disks[1].key",
        "2000 is used twice",
        "",
    ),
    HEAD + "vms: [{name: a, disks: [{size: 1 GB, rdm: {}}]}]": (
        "vms[0].disks[0].rdm",
        "names no device",
        "",
    ),
    HEAD + "datastores: [{name: d, id: x}, {name: d, id: y}]\nvms: [{name: a, home: d}]": (
        "vms[0].home",
        "datastore 'd' is ambiguous: 2 have this name",
        "'x', 'y'",
    ),
    "vcenters: [{name: v}, {name: w}]\ndatastores: [{name: d, vcenter: w}]\n"
    "vms: [{name: a, vcenter: v, home: d}]": (
        "",
        "VM 'v/a' of vCenter 'v' names datastore 'w/d' of vCenter 'w'",
        "",
    ),
    "vcenters: 3": ("vcenters", "3", ""),
    "vcenters: [v]": ("vcenters[0]", "'v'", ""),
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_file_is_refused_by_field_and_value(text: str) -> None:
    field, problem, advice = BAD[text]
    with pytest.raises(InputError) as error:
        estate_of(text)
    assert error.value.source == "e.yaml"
    assert error.value.field == field
    assert problem in error.value.problem
    assert advice in error.value.advice
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("e.yaml: ")


def test_the_number_of_further_errors_is_told() -> None:
    with pytest.raises(InputError, match="and 2 more errors in this file"):
        estate_of("vcenters: [{name: 1}, {name: 2}, {name: 3}]")
    with pytest.raises(InputError, match="and 1 more error in this file"):
        estate_of("vcenters: [{name: 1}, {name: 2}]")


def test_the_schema_describes_the_file() -> None:
    schema = estate_json_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == {
        "vcenters",
        "clusters",
        "hosts",
        "arrays",
        "units",
        "datastores",
        "vms",
    }
    assert schema["additionalProperties"] is False
    disk = schema["$defs"]["DiskEntry"]
    assert disk["required"] == ["size"]
    assert disk["properties"]["size"]["type"] == "string"
