"""VMs in RVTools exports: told apart, left out, marked, and ready to be quiesced or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_rvtools import (
    complete,
    disk,
    host,
    imported,
    of_vm,
    one_vm,
    path,
    said,
    store,
    vm,
    without_ids,
    write_csv,
)

from stillframe.drivers.records import PowerState
from stillframe.topology.graph import Topology
from stillframe.topology.rvtools import Severity, import_rvtools


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


def test_rows_without_a_vcenter_belong_to_the_only_one(tmp_path: Path) -> None:
    result = imported(tmp_path, vInfo=[vm("web", 1, **{"VI SDK Server": None})])
    assert one_vm(result).vcenter_id == "vc-a"
    assert len(one_vm(result).disks) == 1
    bare = {tab: without_ids(rows, "VI SDK Server") for tab, rows in complete().items()}
    result = import_rvtools(write_csv(tmp_path / "y", bare))
    assert one_vm(result).vcenter_id == "vcenter"
    assert said(result, "rows that name no vCenter").severity is Severity.ASSUMED


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
