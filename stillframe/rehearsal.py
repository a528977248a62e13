"""Rehearsing a live job on a modelled twin of its estate, and holding the prediction against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from .drivers.records import Estate
from .errors import InputError
from .orchestrator.plan import Plan
from .orchestrator.result import JobResult, JobStatus
from .orchestrator.spec import Count, Section
from .reports.rundata import RunData, from_result
from .reports.stats import CALL_CLOCKS, CLOCKS, Clock, Summary, summaries, summarise
from .scenarios.schema import Scenario
from .simulation import simulate
from .topology.graph import Topology
from .topology.yamlfile import validate

FORMAT = "stillframe-prediction"


class ClockSpread(Section):
    """One clock over all VMs (or array calls), in seconds; all None when nobody saw it."""

    clock: str
    label: str
    count: int
    absent: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    max_s: float | None


class Prediction(Section):
    """What a rehearsal expects of a live job.

    Attributes
    ----------
    replications:
        Modelled runs, with ``seed`` and the seeds after it. The clocks hold all of their VMs.
    protected, makespan_s, status:
        One value for each replication.
    """

    format: Literal["stillframe-prediction"] = "stillframe-prediction"
    version: Literal[1] = 1
    name: str
    title: str
    estate: str
    strategy: str
    seed: int
    replications: Count
    selected: int
    groups: int
    targeted_units: int
    protected: tuple[int, ...]
    makespan_s: tuple[float, ...]
    status: tuple[str, ...]
    clocks: tuple[ClockSpread, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The plan on the twin, and what its modelled runs lead to expect."""

    topology: Topology
    plan: Plan
    prediction: Prediction


def rehearse(
    scenario: Scenario,
    estate: Estate,
    estate_name: str,
    replications: int,
    tell: Callable[[str, float | None], None],
) -> Rehearsal:
    """Run a job on a modelled twin, several times with seeds of their own.

    Parameters
    ----------
    scenario:
        The twin; its seed is that of the first run.
    estate:
        What the scenario's estate is.
    replications:
        How many runs, 1 or more.
    tell:
        Hears which run is under way, and the share of all that is done.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C; what had been run so far is no sample of what was asked for.
    NothingSelectedError
        The job's selection matches no VM.
    InputError
        The twin's configuration does not fit the estate.
    """
    results: list[JobResult] = []
    for number in range(replications):
        tell(f"run {number + 1} of {replications}", number / replications)
        again = scenario.model_copy(update={"seed": scenario.seed + number})
        simulation = simulate(again, estate=estate)
        if simulation.result.status is JobStatus.CANCELLED:
            raise KeyboardInterrupt
        results.append(simulation.result)
    topology, plan = simulation.topology, simulation.plan
    prediction = Prediction(
        name=scenario.name,
        title=scenario.title,
        estate=estate_name,
        strategy=plan.strategy,
        seed=scenario.seed,
        replications=replications,
        selected=len(plan.selected),
        groups=len(plan.groups),
        targeted_units=plan.targeting.units,
        protected=tuple(result.protected for result in results),
        makespan_s=tuple(result.makespan_s for result in results),
        status=tuple(result.status.value for result in results),
        clocks=tuple(_pooled(results)),
    )
    return Rehearsal(topology, plan, prediction)


def _pooled(results: list[JobResult]) -> list[ClockSpread]:
    """Every clock over the VMs and calls of all runs."""
    runs = [from_result(result, (), (), {}) for result in results]
    vms = pl.concat([run.vms for run in runs])
    calls = pl.concat([run.calls for run in runs])
    found = [summarise(vms, clock, "name") for clock in CLOCKS]
    found += [summarise(calls, clock, "group_id") for clock in CALL_CLOCKS]
    return [_spread(summary) for summary in found]


def _spread(summary: Summary) -> ClockSpread:
    return ClockSpread(
        clock=summary.clock.column,
        label=summary.clock.label,
        count=summary.count,
        absent=summary.absent,
        p50_s=summary.p50_s,
        p95_s=summary.p95_s,
        p99_s=summary.p99_s,
        max_s=summary.max_s,
    )


def write_prediction(prediction: Prediction, path: Path) -> None:
    """Save a prediction as JSON."""
    text = json.dumps(prediction.model_dump(mode="json"), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def is_prediction(path: Path) -> bool:
    """Whether a file is an earlier prediction, which a new one may replace."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


def read_prediction(path: Path) -> Prediction:
    """Read a prediction back.

    Raises
    ------
    InputError
        The file cannot be read, is no prediction, or is damaged.
    """
    source = str(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(source, "", f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(source, "", f"is not a prediction: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        advice = "`stillframe rehearse CONFIG --estate FILE` makes one"
        raise InputError(source, "format", "this is not a prediction", advice)
    return validate(Prediction, data, source)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One clock as predicted and as measured; ``None`` where the prediction has no such clock."""

    clock: Clock
    predicted: ClockSpread | None
    measured: Summary


def compare(prediction: Prediction, run: RunData) -> list[Comparison]:
    """Prediction beside measurement, clock by clock."""
    predicted = {spread.clock: spread for spread in prediction.clocks}
    return [
        Comparison(summary.clock, predicted.get(summary.clock.column), summary)
        for summary in summaries(run)
    ]


def comparison_json(prediction: Prediction, run: RunData) -> dict[str, Any]:
    """The comparison as plain data; what nobody saw is null."""
    keys = ("count", "absent", "p50_s", "p95_s", "p99_s", "max_s")
    return {
        "name": prediction.name,
        "measured_on": "live systems" if "live" in run.meta else "a modelled world",
        "protected": {"predicted": list(prediction.protected), "measured": run.job["protected"]},
        "makespan_s": {
            "predicted": list(prediction.makespan_s),
            "measured": run.job["makespan_s"],
        },
        "clocks": [
            {
                "clock": row.clock.column,
                "label": row.clock.label,
                "predicted": None
                if row.predicted is None
                else {key: getattr(row.predicted, key) for key in keys},
                "measured": {
                    **{key: getattr(row.measured, key) for key in keys},
                    "upper_bounds": row.measured.bounds,
                },
            }
            for row in compare(prediction, run)
        ],
    }
