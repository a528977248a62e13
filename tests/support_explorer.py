"""Evidence of runs, to be doctored: every test of an invariant begins with a run that is sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

from stillframe.explorer.course import Course
from stillframe.explorer.evidence import Evidence
from stillframe.explorer.options import Keep, PlantedSnapshot, RunOptions
from stillframe.explorer.report import Violation
from stillframe.orchestrator.events import Row
from stillframe.scenarios.schema import Scenario, load_scenario

PLAIN = RunOptions(
    independent_disks=False,
    foreign=(("vc-1/web-1", 2),),
    planted=(
        PlantedSnapshot(array_id="array-a", unit_ids=("array-a/lun-1",), tag="stillframe-{job}x-1"),
    ),
)


@cache
def ten_vms() -> Scenario:
    """The scenario that exploration is measured by."""
    return load_scenario("ten-vms")


def course(options: RunOptions = PLAIN, seed: int = 1) -> Course:
    """A run that is over."""
    run = Course(ten_vms(), seed, options, None)
    run.run()
    return run


def evidence(options: RunOptions = PLAIN, seed: int = 1) -> Evidence:
    """Fresh evidence of a sound run: whoever doctors it spoils it for nobody else."""
    run = course(options, seed)
    try:
        return run.evidence()
    finally:
        run.close()


def with_rows(found: Evidence, *rows: Row) -> Evidence:
    """The same with more events, put where their times belong."""
    return doctored(found, rows=sorted([*found.rows, *rows], key=lambda row: row[0]))


def doctored(found: Evidence, **changes: Any) -> Evidence:
    """The same with other fields; what was worked out from the old ones is forgotten."""
    return replace(found, **changes)


def broken(invariant: ModuleType, found: Evidence) -> Sequence[Violation]:
    """What the invariant says, all of it in its own name."""
    violations: Sequence[Violation] = invariant.check(found)
    assert all(one.invariant == invariant.ID for one in violations)
    return violations


PRUNED = RunOptions(independent_disks=False, second_job=True, prune=Keep(keep_last=1))
