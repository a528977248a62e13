"""Import of an RVTools export: an estate, and an honest account of what the export lacks.

An export is a picture of the vCenters without the arrays. What it does not say is either left
out, which makes VMs unprotectable with a stated reason, or assumed, which the report says. It is
never filled in silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..drivers.records import Estate, Inventory
from ..errors import InputError
from .counts import counts_of
from .graph import Topology
from .obstacles import protectability
from .rvtools_columns import TITLES
from .rvtools_compute import Compute
from .rvtools_read import Table, read_export
from .rvtools_report import Finding, Report, Severity, Tally, many
from .rvtools_storage import Storage
from .rvtools_topics import MISSING_COLUMNS, MISSING_TABS, STORAGE_TOPICS, VM_TOPICS
from .rvtools_vms import VmReader

__all__ = ["Finding", "RvtoolsImport", "Severity", "import_rvtools"]


@dataclass(frozen=True, slots=True)
class RvtoolsImport:
    """The result of an import.

    Attributes
    ----------
    estate:
        What the export holds, ready for a Topology.
    findings:
        What could not be known, what was assumed, what to look at; the severest first.
    statistics:
        Counts: ``vms``, ``templates``, ``disks``, ``hosts``, ``clusters``, ``vcenters``,
        ``datastores``, ``arrays``, ``units``, ``protectable_vms``, and ``rows <tab>`` per tab.
    """

    estate: Estate
    findings: tuple[Finding, ...]
    statistics: dict[str, int]


def import_rvtools(path: Path | str) -> RvtoolsImport:
    """An estate from an RVTools export.

    Parameters
    ----------
    path:
        The ``.xlsx`` workbook, or a folder of ``.csv`` files.

    Raises
    ------
    InputError
        It is not an RVTools export, is damaged, or lacks the vInfo tab or its VM column.
    """
    path = Path(path)
    tables = read_export(path)
    if "vInfo" not in tables:
        held = ", ".join(tables)
        raise InputError(str(path), "vInfo", f"tab missing: no VM is known (there is {held})")
    if "vm" not in tables["vInfo"].columns:
        raise InputError(str(path), "vInfo", "column VM missing: no VM is known")
    report = Report()
    _report_missing(tables, report)
    compute = Compute(tables, report)
    tally = Tally()
    storage = Storage(tables, compute, tally)
    reader = VmReader(tables, compute, storage, report, tally)
    vms = reader.vms()
    datastores, arrays, units = storage.records()
    vcenters, clusters, hosts = compute.records()
    inventory = Inventory(vcenters, clusters, hosts, datastores, vms)
    estate = Estate(inventory, arrays, units)
    _report_storage(tally, report)
    _report_vms(tables, tally, report)
    statistics = _statistics(tables, estate)
    _report_whole(statistics, report)
    return RvtoolsImport(estate, report.findings(), statistics)


def _report_missing(tables: Mapping[str, Table], report: Report) -> None:
    for tab, (severity, sentence) in MISSING_TABS.items():
        if tab not in tables:
            report.add(severity, tab, "", f"{tab} tab missing: {sentence}")
    if "vDatastore" in tables and "vMultiPath" not in tables:
        sentence = "datastores with one extent are known by their address in vDatastore"
        report.add(Severity.NOTE, "vMultiPath", "", sentence)
    if "vDatastore" not in tables and "vMultiPath" not in tables:
        sentence = "no device identities: array targeting is not possible"
        report.add(Severity.CANNOT, "vMultiPath", "Disk", sentence)
    for (tab, column), (severity, sentence) in MISSING_COLUMNS.items():
        if tab in tables and column not in tables[tab].columns:
            title = TITLES[tab][column]
            report.add(severity, tab, title, f"{tab} column {title} missing: {sentence}")


def _report_storage(tally: Tally, report: Report) -> None:
    for topic in STORAGE_TOPICS:
        title = TITLES[topic.tab][topic.column]
        names = tally.names(topic.key)
        report.about(topic.severity, topic.tab, title, names, topic.noun, topic.sentence)


def _report_vms(tables: Mapping[str, Table], tally: Tally, report: Report) -> None:
    for topic in VM_TOPICS:
        names = tally.names(topic.key)
        table = tables.get(topic.tab)
        if table is None:
            continue
        absent = topic.column in TITLES[topic.tab] and topic.column not in table.columns
        if absent and (topic.tab, topic.column) in MISSING_COLUMNS:
            continue
        title = TITLES[topic.tab].get(topic.column, "")
        sentence = f"column missing; {topic.sentence}" if absent else topic.sentence
        report.about(topic.severity, topic.tab, title, names, topic.noun, sentence)
    metadata = tables.get("vMetaData")
    if metadata and metadata.rows:
        row = metadata.rows[0]
        made = f"made by RVTools {row.get('version') or '?'} on {row.get('created') or '?'}"
        report.add(Severity.NOTE, "vMetaData", "", f"{made}; what changed since is not in it")


def _statistics(tables: Mapping[str, Table], estate: Estate) -> dict[str, int]:
    topology = Topology(estate)
    obstacles = protectability(topology, topology.vm_ids)
    protectable = sum(
        not any(obstacle.blocks for obstacle in found) for found in obstacles.values()
    )
    rows = {f"rows {tab}": len(tables[tab].rows) for tab in TITLES if tab in tables}
    return {**counts_of(estate, protectable), **rows}


def _report_whole(statistics: Mapping[str, int], report: Report) -> None:
    vms, protectable = statistics["vms"], statistics["protectable_vms"]
    sentence = f"{protectable} of {many(vms, 'VM')} can be protected by array snapshots"
    severity = Severity.NOTE if protectable else Severity.CANNOT
    report.add(severity, "vInfo", "", sentence, protectable)
    report.add(
        Severity.ASSUMED,
        "vInfo",
        "",
        "an export does not say how much its guests write; whoever models them chooses a profile",
    )
