"""Does a model that was fitted on some loads predict others?

    python -m benchmarks.evidence_validation [--records FILE.json]

Labs with each array and 1, 2 and 4 guests run the same job under three write loads (see
:mod:`.validation_lab`). For each array the model is fitted on four of the nine cells: 1 and 4
guests, low and high load. The other five (2 guests under any load, the middle load with any number)
are predicted by modelled runs in which nothing measured in them is used: not the rate that the
writers achieved either, but the one that they were told.

Beside the errors on the predicted cells stand four others, without an aim: on the cells of the fit;
of the shipped profile, which was fitted on nothing here; of no model at all (the cells of the fit,
pooled, taken for every cell); and of the measurement itself (one half of the session taken for the
other), below which no model can be expected to get.

With ``--records`` the figures are computed again from what an earlier session measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stillframe.lab.fit import fit
from stillframe.lab.fit_load import guest_rule
from stillframe.lab.fit_record import RunRecord, WriteLoad
from stillframe.orchestrator.spec import JobSpec
from stillframe.scenarios.schema import EstateSource, Scenario
from stillframe.sim.config import WorldConfig
from stillframe.sim.profiles import hypervisor_profile
from stillframe.validation import JUDGED, ClockCheck, check
from stillframe.validation_runs import run_modelled

from .evidence import OUT, Figure, write_evidence

RECORDS = OUT / "validation-runs.json"
FORMAT = "stillframe-validation-runs"
FITTED_GUESTS = (1, 4)
FITTED_LOADS = ("low", "high")
AIMS = {50: "<= 15 %", 95: "<= 30 %"}
MODELLED = 200
SEED = 1
CONTRASTS = {
    "fitted": "on the cells of the fit",
    "shipped": "with the shipped profile",
    "pooled": "without a model",
    "repeated": "of one half of the session for the other",
}


@dataclass(frozen=True)
class Cell:
    """One array, number of guests and load, with what was measured of it."""

    array: str
    guests: int
    load: str
    runs: tuple[RunRecord, ...]
    rounds: tuple[int, ...]
    estate: str
    job: dict[str, Any]
    nominal: WriteLoad

    @property
    def in_fit(self) -> bool:
        """Whether the model is fitted on it."""
        return self.guests in FITTED_GUESTS and self.load in FITTED_LOADS

    def of_rounds(self, wanted: Callable[[int], bool]) -> list[RunRecord]:
        """The runs of some rounds of the session."""
        return [run for run, number in zip(self.runs, self.rounds, strict=True) if wanted(number)]

    def twin(self, world: WorldConfig) -> Scenario:
        """The cell's job on its estate in a modelled world."""
        return Scenario(
            name=f"{self.array}-{self.guests}-{self.load}",
            title=f"{self.array}, {self.guests} guests, {self.load} load",
            seed=SEED,
            estate=EstateSource(inline=yaml.safe_load(self.estate)),
            world=world,
            job=JobSpec.model_validate(self.job),
        )


def cells_of(document: dict[str, Any]) -> list[Cell]:
    """The cells of a session, warm-up runs left out."""
    found = []
    for array, guests, load in dict.fromkeys(_key(run) for run in document["runs"]):
        runs = [one for one in document["runs"] if _key(one) == (array, guests, load)]
        runs = [one for one in runs if not one["warm_up"]]
        lab = next(
            one for one in document["labs"] if (one["array"], one["guests"]) == (array, guests)
        )
        writes = document["loads"][load]
        nominal = WriteLoad(
            record_bytes=writes["record_bytes"],
            rate_per_s=writes["rate_per_s"],
            nominal_per_s=writes["rate_per_s"],
            file_bytes=writes["file_bytes"],
        )
        found.append(
            Cell(
                array,
                guests,
                load,
                tuple(RunRecord.model_validate(one["record"]) for one in runs),
                tuple(one["round"] for one in runs),
                lab["estate"],
                lab["job"],
                nominal,
            )
        )
    return sorted(
        found, key=lambda cell: (cell.array, cell.guests, list(document["loads"]).index(cell.load))
    )


def _key(run: dict[str, Any]) -> tuple[str, int, str]:
    return run["array"], run["guests"], run["load"]


Rows = list[dict[str, Any]]


def rows_of(cells: Sequence[Cell], modelled: int = MODELLED) -> Rows:
    """Every cell, clock and percentile: measured, predicted, and the errors of the contrasts.

    An array of which a cell of the fit is missing is left out.
    """
    rows: Rows = []
    for array in dict.fromkeys(cell.array for cell in cells):
        here = [cell for cell in cells if cell.array == array]
        if sum(cell.in_fit for cell in here) < len(FITTED_GUESTS) * len(FITTED_LOADS):
            continue
        pooled = [run for cell in here if cell.in_fit for run in cell.runs]
        profile = fit(pooled)
        for cell in here:
            guests = (guest_rule(cell.nominal),)
            world = profile.world(WorldConfig(guests=guests))
            shipped = WorldConfig(hypervisor=hypervisor_profile("lab-qemu"), guests=guests)
            checks = {
                "model": check(cell.runs, _modelled(cell, world, modelled)),
                "shipped": check(cell.runs, _modelled(cell, shipped, modelled)),
                "pooled": check(cell.runs, pooled),
                "repeated": check(
                    cell.of_rounds(lambda n: n % 2 == 0), cell.of_rounds(lambda n: n % 2 == 1)
                ),
            }
            rows += _rows(cell, checks)
    return rows


def _modelled(cell: Cell, world: WorldConfig, count: int) -> list[RunRecord]:
    return run_modelled(cell.twin(world), count, lambda _label, _share: None)


def _rows(cell: Cell, checks: dict[str, list[ClockCheck]]) -> Rows:
    rows: Rows = []
    for number, judged in enumerate(JUDGED):
        model = checks["model"][number]
        for found in model.percentiles:
            others = {
                name: checks[name][number].at(found.percent).error
                for name in ("shipped", "pooled", "repeated")
            }
            rows.append(
                {
                    "array": cell.array,
                    "guests": cell.guests,
                    "load": cell.load,
                    "in_fit": cell.in_fit,
                    "runs": len(cell.runs),
                    "clock": judged.clock.column,
                    "label": judged.clock.label,
                    "values": model.measured,
                    **found.model_dump(mode="json"),
                    "error": found.error,
                    "within_range": found.within_range,
                    "others": others,
                }
            )
    return rows


def figures_of(rows: Rows, arrays: Sequence[str]) -> list[Figure]:
    """What is judged, and the contrasts beside it; an array without cells misses its aims."""
    figures: list[Figure] = []
    for array in arrays:
        here = [row for row in rows if row["array"] == array]
        if not here:
            figures += [
                Figure(f"{array}: error of the predicted p{percent}, not measured", None, "%", aim)
                for percent, aim in AIMS.items()
            ]
            continue
        runs = {(row["guests"], row["load"]): row["runs"] for row in here}
        figures.append(Figure(f"{array}: live runs", sum(runs.values())))
        for clock in dict.fromkeys(row["clock"] for row in here):
            for percent in AIMS:
                figures += _judged(array, _only(here, clock, percent), percent)
        for percent in AIMS:
            figures += _contrasts(
                array, [row for row in here if row["percent"] == percent], percent
            )
    return figures


def _only(rows: Rows, clock: str, percent: int) -> Rows:
    return [row for row in rows if row["clock"] == clock and row["percent"] == percent]


def _judged(array: str, rows: Rows, percent: int) -> list[Figure]:
    errors = _sizes(row["error"] for row in rows if not row["in_fit"])
    name = f"{array}: error of the predicted p{percent} of {rows[0]['label']}"
    return [
        Figure(f"{name}, median of {len(errors)} cells", _median(errors), "%", AIMS[percent]),
        Figure(f"{name}, worst cell", max(errors, default=None), "%", AIMS[percent]),
    ]


def _contrasts(array: str, rows: Rows, percent: int) -> list[Figure]:
    held_out = [row for row in rows if not row["in_fit"]]
    in_fit = [row for row in rows if row["in_fit"]]
    errors = {
        "fitted": _sizes(row["error"] for row in in_fit),
        **{
            name: _sizes(row["others"][name] for row in held_out)
            for name in ("shipped", "pooled", "repeated")
        },
    }
    within = [row["within_range"] for row in held_out if row["within_range"] is not None]
    return [
        *(
            Figure(f"{array}: error of p{percent} {CONTRASTS[name]}, median", _median(sizes), "%")
            for name, sizes in errors.items()
        ),
        Figure(
            f"{array}: predicted p{percent} within the 95 % range of the measured",
            100.0 * sum(within) / len(within) if within else None,
            "%",
        ),
    ]


def _sizes(errors: Iterable[float | None]) -> list[float]:
    """How large the errors are, in per cent, whichever way they point."""
    return [100.0 * abs(error) for error in errors if error is not None]


def _median(sizes: Sequence[float]) -> float | None:
    return statistics.median(sizes) if sizes else None


def read_records(file: Path) -> dict[str, Any]:
    """The records of an earlier session.

    Raises
    ------
    SystemExit
        The file holds none.
    """
    try:
        document: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"{file}: cannot be read: {error}")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        sys.exit(f"{file}: holds no records; `make evidence-validation` writes some")
    return document


def main() -> int:
    """Measure, unless there are records, and write out/evidence/validation.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=Path, help="compute again from these")
    parser.add_argument("--modelled", type=int, default=MODELLED, help="modelled runs of a cell")
    # Only a new session needs labs, and what they need.
    measuring = not any(word.split("=")[0] == "--records" for word in sys.argv[1:])
    if measuring:
        from . import validation_lab as live

        live.add_plan(parser)
    options = parser.parse_args()
    if measuring:
        plan = live.plan_of(options)
        session = live.Session(options.seed, RECORDS, plan.arrays)
        live.measure(plan, options.folder, session)
    document = read_records(RECORDS if measuring else options.records)
    rows = rows_of(cells_of(document), options.modelled)
    extra = {"modelled_runs": options.modelled, "failures": document["failures"], "table": rows}
    write_evidence("validation", figures_of(rows, document["arrays"]), extra)
    return 0


if __name__ == "__main__":
    sys.exit(main())
