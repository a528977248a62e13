"""What one live run says about the speed of its systems: the input of a fit, as plain records.

A record holds the clocks of a run and nothing else, so that it can be kept as a line of JSON long
after the run's folder is gone. All times are seconds on one clock of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ..errors import InputError
from ..orchestrator.spec import Section
from ..reports.folder import read_folder
from ..reports.rundata import RunData
from ..sim.guest_rules import GuestRule
from ..topology.yamlfile import validate

MODELLED = "modelled"
"""In place of a driver's name, for records of runs in the modelled world."""


class WriteLoad(Section):
    """How the guests of a run wrote: records of one size at one rate, round and round a file.

    Attributes
    ----------
    record_bytes, file_bytes:
        Size of a record and of the file that is written over and over.
    rate_per_s:
        Records per second that each guest reached.
    nominal_per_s:
        Records per second that it was told to write.
    """

    record_bytes: Annotated[int, Field(gt=0)]
    rate_per_s: Annotated[float, Field(ge=0)]
    nominal_per_s: Annotated[float, Field(ge=0)]
    file_bytes: Annotated[int, Field(gt=0)]


class VmRecord(Section):
    """The clocks of one VM; what no driver could see, or did not happen, is None.

    ``disks`` counts those that its VM snapshot held.
    """

    name: str
    disks: int
    units: int
    requested_s: float | None
    opened_s: float | None
    removal_s: float | None
    merged_s: float | None
    quiesce_start_s: float | None
    quiesce_s: float | None
    stun_create_start_s: float | None = None
    stun_create_s: float | None
    stun_remove_start_s: float | None = None
    stun_remove_s: float | None
    delta_bytes: int | None

    @property
    def merge_s(self) -> float | None:
        """From the request to remove the VM snapshot to its answer."""
        if self.removal_s is None or self.merged_s is None:
            return None
        return self.merged_s - self.removal_s

    @property
    def open_s(self) -> float | None:
        """For which the delta took the guest's writes before its merge began."""
        if self.opened_s is None or self.removal_s is None:
            return None
        return self.removal_s - self.opened_s


class CallRecord(Section):
    """One group call to an array."""

    units: int
    requested_s: float
    completed_s: float
    fence_s: float | None
    error: str

    @property
    def latency_s(self) -> float:
        """From the call to its answer."""
        return self.completed_s - self.requested_s


class RunRecord(Section):
    """One live run.

    Attributes
    ----------
    name:
        The job's identifier.
    date:
        When it began, ISO 8601.
    array, hypervisor:
        Names of the drivers; several of one kind are joined with ``+``.
    machine:
        What it ran on, as far as the run noted it.
    writes:
        How its guests wrote; None where nobody said.
    """

    name: str
    date: str
    array: str
    hypervisor: str
    machine: str = ""
    writes: WriteLoad | None
    vms: tuple[VmRecord, ...]
    calls: tuple[CallRecord, ...]


def record_of(data: RunData, writes: WriteLoad | None) -> RunRecord:
    """The record of a run, live or modelled.

    Parameters
    ----------
    data:
        The run, as :meth:`LiveRun.run_data` or :func:`~..reports.folder.read_folder` gives it.
    writes:
        How its guests wrote, if that is known.
    """
    live: dict[str, Any] = data.meta.get("live") or {}
    return RunRecord(
        name=str(data.meta.get("job_id", "")),
        date=str(live.get("started_at", "")),
        array=_drivers(live.get("arrays")),
        hypervisor=_drivers(live.get("hypervisors")),
        machine=str((data.meta.get("versions") or {}).get("platform", "")),
        writes=writes,
        vms=tuple(_vm(row) for row in data.vms.to_dicts()),
        calls=tuple(
            CallRecord(
                units=len(row["units"]),
                requested_s=row["requested_s"],
                completed_s=row["completed_s"],
                fence_s=row["fence_s"],
                error=row["error"] or "",
            )
            for row in data.calls.to_dicts()
            if row["completed_s"] is not None
        ),
    )


def records_of(folders: Sequence[Path]) -> list[RunRecord]:
    """The records of result folders, in their order.

    Raises
    ------
    InputError
        A folder holds no result, that of a modelled run, or one of them is named twice.
    """
    records: list[RunRecord] = []
    seen: dict[str, Path] = {}
    for folder in folders:
        data = read_folder(folder)
        if "live" not in data.meta:
            problem = "is the result of a modelled run, from which nothing can be learnt"
            raise InputError(str(folder), "", problem, "name results of `stillframe run --live`")
        record = record_of(data, _declared(data.meta["live"].get("guests") or [], str(folder)))
        if record.name in seen:
            raise InputError(str(folder), "", f"is the same run as {seen[record.name]}")
        seen[record.name] = folder
        records.append(record)
    return records


def _declared(guests: Sequence[Any], source: str) -> WriteLoad | None:
    """How the guests wrote, as the live configuration told the modelled twin, if all wrote alike.

    A lab's configuration says what its writers do; what they reached is not in a run's result.
    """
    if len(guests) != 1:
        return None
    rule = validate(GuestRule, guests[0], source, units_required=False)
    writer = rule.profile
    if rule.match != "*" or rule.scale_sigma or isinstance(writer, str):
        return None
    rate_per_s = writer.rate * rule.scale_median / writer.write_size
    return WriteLoad(
        record_bytes=writer.write_size,
        rate_per_s=rate_per_s,
        nominal_per_s=rate_per_s,
        file_bytes=writer.working_set,
    )


def _drivers(by_system: Any) -> str:
    if not isinstance(by_system, dict) or not by_system:
        return MODELLED
    return "+".join(sorted({str(driver) for driver in by_system.values()}))


def _vm(row: dict[str, Any]) -> VmRecord:
    exact = row["quiesce_exact"] is not False
    excluded = set(row["excluded_disks"])
    return VmRecord(
        name=row["name"],
        disks=sum(disk["key"] not in excluded for disk in row["disk_levels"]),
        units=len(row["units"]),
        requested_s=row["requested_s"],
        opened_s=row["opened_s"],
        removal_s=row["removal_s"],
        merged_s=row["merged_s"],
        quiesce_start_s=row["quiesce_start_s"] if exact else None,
        quiesce_s=row["quiesce_s"] if exact else None,
        stun_create_start_s=row["stun_create_start_s"],
        stun_create_s=row["stun_create_s"],
        stun_remove_start_s=row["stun_remove_start_s"],
        stun_remove_s=row["stun_remove_s"],
        delta_bytes=row["delta_bytes"],
    )
