"""An earlier live job as its result folder tells of it, and what was removed of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from .errors import InputError
from .orchestrator.leftovers import Clearance, EarlierJob
from .reports.folder import read_folder
from .reports.rundata import RunData
from .scenarios.live import LiveConfig

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier job, and the folder with its result."""

    folder: Path
    job: EarlierJob


@dataclass(frozen=True, slots=True)
class Cleared:
    """What became of the leftovers of an earlier job."""

    earlier: Earlier
    clearance: Clearance

    @property
    def complete(self) -> bool:
        """Nothing of the earlier job is left, as far as anybody can tell."""
        return not self.clearance.left

    def summary(self) -> str:
        """One sentence, without its full stop."""
        done = self.clearance
        text = (
            f"job {self.earlier.job.job_id} before this one had left: {len(done.removed)} removed"
        )
        if done.left:
            again = shlex.quote(str(self.earlier.folder))
            text += f", {len(done.left)} not; --clear {again} tries again"
        elif not done.removed:
            text = f"job {self.earlier.job.job_id} before this one has left nothing behind"
        return text

    def notes(self) -> list[str]:
        """What a reader of the report has to know."""
        return [f"Cleared: {self.summary()}.", *(f"Left: {one}." for one in self.clearance.left)]

    def meta(self) -> dict[str, Any]:
        """All of it, for the result."""
        return {
            "job_id": self.earlier.job.job_id,
            "folder": str(self.earlier.folder),
            "removed": self.clearance.removed,
            "left": self.clearance.left,
        }


def earlier_job(folder: Path, config: LiveConfig) -> Earlier:
    """The job whose result is in a folder, to be cleared before a job of this configuration.

    Raises
    ------
    InputError
        The folder is no result or damaged, not that of a live run, or of another configuration.
    """
    run = read_folder(folder)
    _of_this_configuration(run, folder, config)
    job_id = run.meta.get("job_id")
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        raise InputError(str(folder), "meta.job_id", f"{job_id!r} is not the name of a job")
    tags = run.catalogue["tags"].explode().drop_nulls().to_list()
    unsettled = run.vms.filter(
        pl.col("requested_s").is_not_null() & (pl.col("merged_s").is_null() | pl.col("left_behind"))
    )["vm_id"].to_list()
    return Earlier(folder, EarlierJob(job_id, frozenset(tags), frozenset(unsettled)))


def _of_this_configuration(run: RunData, folder: Path, config: LiveConfig) -> None:
    live = run.meta.get("live")
    if not isinstance(live, Mapping):
        advice = "name the result of a `stillframe run --live`"
        raise InputError(str(folder), "meta.live", "this is not the result of a live run", advice)
    name = run.meta["name"]
    if name != config.name:
        problem = f"this is a result of {name!r}, and {config.source} is {config.name!r}"
        raise InputError(str(folder), "meta.name", problem, "name the configuration of that job")
    for section, known in (("hypervisors", config.hypervisors), ("arrays", config.arrays)):
        used = live.get(section)
        if not isinstance(used, Mapping):
            raise InputError(str(folder), f"meta.live.{section}", f"{used!r} names no systems")
        for system_id, driver in used.items():
            entry = known.get(system_id)
            if entry is None or entry.driver != driver:
                problem = f"{system_id!r}, driver {driver!r}, is not in {config.source}"
                raise InputError(str(folder), f"meta.live.{section}", problem)
