"""What a report is made from: one run as tables, without the world that produced it.

Everything downstream (statistics, figures, pages, traces) reads :class:`RunData` and nothing else,
so that a live run, a modelled run and a folder read back from disk are reported alike. A quantity
that no driver could see is null in its table, never zero.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from ..drivers.contracts import Window
from ..orchestrator.result import (
    ArrayCall,
    CatalogueEntry,
    GroupOutcome,
    JobResult,
    VmOutcome,
    VmStatus,
)
from .tables import (
    CALLS,
    CATALOGUE,
    EVENTS,
    GROUPS,
    IMAGES,
    PLACEMENTS,
    SCHEMAS,
    SERIES,
    VMS,
    Rows,
    frame,
    table,
)

__all__ = [
    "SCHEMAS",
    "VMS",
    "Rows",
    "RunData",
    "from_result",
    "installed_versions",
    "plain",
    "table",
]


@dataclass(frozen=True, slots=True, eq=False)
class RunData:
    """One run: ``meta`` (plain JSON values) and the tables of :data:`SCHEMAS`.

    ``meta`` holds ``name``, ``title``, ``description``, ``seed``, ``command``, ``status``,
    ``strategy``, ``trace_hash``, ``versions`` (name to version), ``assumptions`` (sentences),
    ``orphans`` (sentences), ``limiters`` (rows: name, calls, waited, total_s, longest_s) and
    ``job`` (started_s, finished_s, makespan_s, skew_s, selected, protected, targeted_units,
    targeted_bytes, estate_units, estate_bytes, collateral, retries, fallbacks).
    """

    meta: dict[str, Any]
    vms: pl.DataFrame
    calls: pl.DataFrame
    groups: pl.DataFrame
    events: pl.DataFrame
    series: pl.DataFrame
    placements: pl.DataFrame
    catalogue: pl.DataFrame
    images: pl.DataFrame

    def tables(self) -> dict[str, pl.DataFrame]:
        """The frames by name, in the order of :data:`SCHEMAS`."""
        return {name: getattr(self, name) for name in SCHEMAS}

    def equals(self, other: RunData) -> bool:
        """Whether both hold the same values, nulls and types included."""
        mine, theirs = self.tables(), other.tables()
        return self.meta == other.meta and all(
            held.schema == theirs[name].schema and held.equals(theirs[name])
            for name, held in mine.items()
        )

    @property
    def job(self) -> dict[str, Any]:
        """The metrics of the job as a whole."""
        job: dict[str, Any] = self.meta["job"]
        return job

    @property
    def start_s(self) -> float:
        """When the job began, in seconds on the run's clock."""
        return float(self.job["started_s"])


def from_result(
    result: JobResult, placements: Rows, series: Rows, meta: Mapping[str, Any]
) -> RunData:
    """Turn what a job handed back into tables.

    Parameters
    ----------
    result:
        The job, its event log included.
    placements, series:
        Rows of :data:`PLACEMENTS` and :data:`SERIES`; both may be empty.
    meta:
        What the caller knows about the run (see :class:`RunData`); what the job itself knows
        (status, strategy, trace hash, limiters, orphans, metrics) is filled in here and wins.

    Raises
    ------
    StillframeError
        ``placements`` or ``series`` do not have their schema.
    """
    return RunData(
        meta=_meta(result, meta),
        vms=_vms(result.vms),
        calls=_calls(result.calls),
        groups=_groups(result.groups),
        events=table(result.events.rows, EVENTS),
        series=table(series, SERIES),
        placements=table(placements, PLACEMENTS),
        catalogue=_catalogue(result.catalogue),
        images=_images(result.vms),
    )


def installed_versions() -> dict[str, str]:
    """The versions that a run's outcome depends on: ours, Python's, SimPy's, and the platform."""
    return {
        "stillframe": importlib.metadata.version("stillframe"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "simpy": importlib.metadata.version("simpy"),
        "platform": platform.platform(),
    }


def plain(value: Any) -> Any:
    """``value`` as JSON would give it back: lists for tuples, text keys, no NaN or infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def _meta(result: JobResult, given: Mapping[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "name": result.job_id,
        "title": result.job_id,
        "description": "",
        "seed": None,
        "command": "",
        "assumptions": [],
        "versions": installed_versions(),
    }
    own = {
        "job_id": result.job_id,
        "status": result.status.value,
        "strategy": result.strategy,
        "trace_hash": result.events.trace_hash(),
        "orphans": result.orphans,
        "limiters": [
            {
                "name": wait.name,
                "calls": wait.calls,
                "waited": wait.waited,
                "total_s": wait.total_s,
                "longest_s": wait.longest_s,
            }
            for wait in result.waits
        ],
        "job": _job(result),
    }
    cleaned: dict[str, Any] = plain({**defaults, **given, **own})
    return cleaned


def _job(result: JobResult) -> dict[str, Any]:
    return {
        "started_s": result.started_s,
        "finished_s": result.finished_s,
        "makespan_s": result.makespan_s,
        "skew_s": result.skew_s,
        "selected": len(result.vms),
        "protected": result.protected,
        "targeted_units": result.targeted_units,
        "targeted_bytes": result.targeted_bytes,
        "estate_units": result.estate_units,
        "estate_bytes": result.estate_bytes,
        "collateral": len(result.collateral),
        "retries": result.retries,
        "fallbacks": result.fallbacks,
    }


def _starts(windows: list[Window | None]) -> list[float | None]:
    return [None if window is None else window.start_s for window in windows]


def _lengths(windows: list[Window | None]) -> list[float | None]:
    return [None if window is None else window.end_s - window.start_s for window in windows]


def _vms(vms: list[VmOutcome]) -> pl.DataFrame:
    quiesce = [vm.quiesce for vm in vms]
    created = [vm.stun_create for vm in vms]
    removed = [vm.stun_remove for vm in vms]
    columns: dict[str, list[Any]] = {
        "status": [vm.status.value for vm in vms],
        "level": [vm.level.value for vm in vms],
        "quiesce_start_s": _starts(quiesce),
        "quiesce_s": _lengths(quiesce),
        "quiesce_exact": [None if window is None else window.exact for window in quiesce],
        "stun_create_start_s": _starts(created),
        "stun_create_s": _lengths(created),
        "stun_remove_start_s": _starts(removed),
        "stun_remove_s": _lengths(removed),
        "units": [list(vm.unit_ids) for vm in vms],
        "datastores": [list(vm.datastore_ids) for vm in vms],
        "disk_levels": [
            [{"key": key, "level": level.value} for key, level in vm.disk_levels] for vm in vms
        ],
        "excluded_disks": [list(vm.excluded_disks) for vm in vms],
    }
    derived = ("open_s", "merge_s")
    for name in VMS:
        if name not in columns and name not in derived:
            columns[name] = [getattr(vm, name) for vm in vms]
    return (
        frame(columns, VMS)
        .with_columns(
            open_s=pl.col("removal_s") - pl.col("opened_s"),
            merge_s=pl.col("merged_s") - pl.col("removal_s"),
        )
        .select(list(VMS))
    )


def _calls(calls: list[ArrayCall]) -> pl.DataFrame:
    fences = [call.fence for call in calls]
    columns: dict[str, list[Any]] = {
        "units": [list(call.unit_ids) for call in calls],
        "fence_start_s": _starts(fences),
        "fence_s": _lengths(fences),
    }
    for name in CALLS:
        if name not in columns and name != "snapshot_s":
            columns[name] = [getattr(call, name) for call in calls]
    return (
        frame(columns, CALLS)
        .with_columns(snapshot_s=pl.col("completed_s") - pl.col("requested_s"))
        .select(list(CALLS))
    )


def _groups(groups: list[GroupOutcome]) -> pl.DataFrame:
    rows = [
        (group.group_id, list(group.vm_ids), group.started_s, group.finished_s, group.error)
        for group in groups
    ]
    return table(rows, GROUPS)


def _catalogue(entries: list[CatalogueEntry]) -> pl.DataFrame:
    rows = [
        (
            entry.vm_id,
            entry.level.value,
            entry.point_in_time_s,
            [cut.array_id for cut in entry.cuts],
            [cut.snapshot_id for cut in entry.cuts],
            [cut.tag for cut in entry.cuts],
            list(entry.unit_ids),
        )
        for entry in entries
    ]
    return table(rows, CATALOGUE)


def _images(vms: list[VmOutcome]) -> pl.DataFrame:
    rows = [
        (vm.vm_id, file.disk_key, file.path, file.datastore_id, file.role.value)
        for vm in vms
        if vm.status is VmStatus.PROTECTED
        for file in vm.image_files
    ]
    return table(rows, IMAGES)
