"""Builds RVTools exports for tests, as workbooks and CSV folders, and picks from their import."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openpyxl

from stillframe.drivers.records import DeviceIdentity, Disk, Vm
from stillframe.topology.rvtools import RvtoolsImport, Severity, import_rvtools

Sheet = list[dict[str, Any]]
GIB = 2**30
NAA_1 = "naa.600a0980383043595a2b506b67777031"
NAA_2 = "naa.600a0980383043595a2b506b67777032"
NAA_3 = "naa.60002ac0000000000000628200021f6b"
SERVER = {"VI SDK Server": "vc-a"}


def vm(name: str, number: int, datastore: str = "ds-1", **cells: Any) -> dict[str, Any]:
    """A row of vInfo as a current RVTools writes it."""
    return {
        "VM": name,
        "Powerstate": "poweredOn",
        "Template": "False",
        "SRM Placeholder": "False",
        "Connection state": "connected",
        "Consolidation Needed": "False",
        "Path": f"[{datastore}] {name}/{name}.vmx",
        "Folder": "/prod",
        "Datacenter": "dc-1",
        "Cluster": "cl-1",
        "Host": "esx-1",
        "OS according to the configuration file": "Other Linux",
        "OS according to the VMware Tools": "Some Linux",
        "VM ID": f"vm-{number}",
        "VM UUID": f"50000000-{number:04d}",
        **SERVER,
        **cells,
    }


def disk(name: str, number: int, datastore: str = "ds-1", **cells: Any) -> dict[str, Any]:
    """A row of vDisk."""
    return {
        "VM": name,
        "Disk": "Hard disk 1",
        "Disk Key": 2000,
        "Disk Path": "C:\\",
        "Capacity MiB": 40960,
        "Raw": "False",
        "Disk Mode": "persistent",
        "Sharing mode": "sharingNone",
        "Shared Bus": "noSharing",
        "Path": f"[{datastore}] {name}/{name}.vmdk",
        "Raw LUN ID": None,
        "Raw Comp. Mode": None,
        "VM ID": f"vm-{number}",
        "VM UUID": f"50000000-{number:04d}",
        **SERVER,
        **cells,
    }


def raw(lun: str | None, mode: str | None, **cells: Any) -> dict[str, Any]:
    return disk("web", 1, **{"Raw": "True", "Raw LUN ID": lun, "Raw Comp. Mode": mode, **cells})


def store(name: str = "ds-1", number: int = 1, **cells: Any) -> dict[str, Any]:
    """A row of vDatastore."""
    return {
        "Name": name,
        "Address": NAA_1,
        "Accessible": "True",
        "Type": "VMFS",
        "Capacity MiB": 1048576,
        "Free MiB": 524288,
        "# Hosts": 1,
        "Hosts": "esx-1, esx-2",
        "# Extents": 1,
        "URL": f"ds:///vmfs/volumes/{number}/",
        "Object ID": f"datastore-{number}",
        **SERVER,
        **cells,
    }


def path(datastore: str | None = "ds-1", device: str = NAA_1, **cells: Any) -> dict[str, Any]:
    """A row of vMultiPath."""
    return {
        "Host": "esx-1",
        "Cluster": "cl-1",
        "Datacenter": "dc-1",
        "Datastore": datastore,
        "Disk": device,
        "Display name": f"NETAPP Fibre Channel Disk ({device})",
        "Vendor": "NETAPP",
        "Model": "LUN C-Mode",
        **SERVER,
        **cells,
    }


def host(name: str = "esx-1", **cells: Any) -> dict[str, Any]:
    """A row of vHost."""
    return {
        "Host": name,
        "Datacenter": "dc-1",
        "Cluster": "cl-1",
        "ESX Version": "VMware ESXi 8.0.2 build-22380479",
        **SERVER,
        **cells,
    }


def of_vm(name: str, number: int, **cells: Any) -> dict[str, Any]:
    """A row of vSnapshot or vTools."""
    return {
        "VM": name,
        "VM ID": f"vm-{number}",
        "VM UUID": f"50000000-{number:04d}",
        **SERVER,
        **cells,
    }


def without_ids(rows: list[dict[str, Any]], *columns: str) -> list[dict[str, Any]]:
    return [{c: cell for c, cell in row.items() if c not in columns} for row in rows]


def complete(**sheets: Sheet) -> dict[str, Sheet]:
    """An export that lacks nothing: one VM with one disk on one LUN."""
    tabs = {
        "vInfo": [vm("web", 1)],
        "vDisk": [disk("web", 1)],
        "vDatastore": [store()],
        "vMultiPath": [path(), path(Host="esx-2")],
        "vSnapshot": [],
        "vTools": [of_vm("web", 1, Tools="toolsOk", **{"Operation Ready": "True"})],
        "vHost": [host(), host("esx-2")],
    }
    return {**tabs, **sheets}


_EMPTY = {"vSnapshot": ["VM", "VM ID", "VM UUID", "VI SDK Server"]}


def table(tab: str, rows: Sheet) -> list[list[Any]]:
    """Header and cells; columns in order of first appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row)) or _EMPTY.get(tab, [])
    return [columns, *([row.get(column) for column in columns] for row in rows)]


def write_xlsx(file: Path, sheets: Mapping[str, Sheet]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for tab, rows in sheets.items():
        sheet = book.create_sheet(tab)
        for cells in table(tab, rows):
            sheet.append(cells)
    book.save(file)
    return file


def write_csv(
    folder: Path,
    sheets: Mapping[str, Sheet],
    pattern: str = "RVTools_tab{}.csv",
    delimiter: str = ",",
    encoding: str = "utf-8-sig",
) -> Path:
    folder.mkdir(exist_ok=True)
    for tab, rows in sheets.items():
        with (folder / pattern.format(tab)).open("w", newline="", encoding=encoding) as file:
            csv.writer(file, delimiter=delimiter).writerows(table(tab, rows))
    return folder


def imported(folder: Path, **sheets: Sheet) -> RvtoolsImport:
    """The import of a complete export in which these tabs are replaced."""
    return import_rvtools(write_csv(folder / "export", complete(**sheets)))


def said(result: RvtoolsImport, text: str) -> Any:
    """The one finding whose sentence contains a text."""
    (found,) = [finding for finding in result.findings if text in finding.sentence]
    return found


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
