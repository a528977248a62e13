"""RVTools exports: every form reads the same, gaps are said, and none crashes the import."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_rvtools import (
    GIB,
    NAA_1,
    NAA_2,
    NAA_3,
    complete,
    device,
    disk,
    imported,
    of_vm,
    one_vm,
    raw,
    said,
    store,
    texts,
    vm,
    write_csv,
    write_xlsx,
)

from stillframe.drivers.records import (
    Array,
    Cluster,
    Datastore,
    DatastoreKind,
    Disk,
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
from stillframe.topology.rvtools import Severity, import_rvtools
from stillframe.topology.yamlfile import parse_yaml

SAMPLE = Path(__file__).parent / "data" / "rvtools-small-complete.xlsx"


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


def test_the_age_of_the_export_is_told(tmp_path: Path) -> None:
    made = [{"RVTools version": "4.7.1", "xlsx creation datetime": "2024-01-31 07:00"}]
    result = imported(tmp_path, vMetaData=made)
    assert "made by RVTools 4.7.1 on 2024-01-31 07:00" in said(result, "made by").sentence


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
