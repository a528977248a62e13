"""``stillframe rehearse``: tonight's job on a modelled twin, then beside what happened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_common import ExitCode, console, emit_json, print_table, progress, say, table
from .cli_plan import plan_json, print_plan
from .errors import InputError
from .orchestrator.plan import NothingSelectedError
from .quantity import format_seconds
from .scenarios.live import LiveConfig, load_live
from .scenarios.schema import EstateSource, Scenario

if TYPE_CHECKING:
    from .rehearsal import Comparison, Prediction, Rehearsal

_SHARES = ("p50_s", "p95_s", "p99_s", "max_s")


def rehearse_command(
    config_path: Path,
    estate: Path,
    seed: int,
    replications: int,
    out: Path | None,
    *,
    as_json: bool,
) -> int:
    """Plan and run the job on the twin, show what to expect, and save it."""
    from .rehearsal import rehearse, write_prediction

    config = load_live(config_path)
    scenario = _twin(config, estate, seed)
    file = out if out is not None else Path("out") / f"{config.name}.prediction.json"
    _may_hold_prediction(file, make_folder=out is None)
    held = scenario.build_estate()
    try:
        with progress("Rehearsing") as show:
            found = rehearse(scenario, held, str(estate), replications, show)
    except NothingSelectedError:
        advice = f"look at the estate with `stillframe estate show {estate}`"
        problem = f"the selection matches no VM of {estate}"
        raise InputError(config.source, "job.select", problem, advice) from None
    except InputError as error:
        raise _blamed(error, config) from None
    file.parent.mkdir(parents=True, exist_ok=True)
    write_prediction(found.prediction, file)
    if as_json:
        plan = plan_json(scenario, found.topology, found.plan, None)
        document = {"file": str(file), "plan": plan}
        emit_json({**document, "prediction": found.prediction.model_dump(mode="json")})
    else:
        _print_rehearsal(scenario, found)
        say(f"Prediction: {file}")
    if not found.plan.groups:
        return ExitCode.FAILED
    return ExitCode.PARTLY if found.plan.unprotectable else ExitCode.PROTECTED


def _twin(config: LiveConfig, estate: Path, seed: int) -> Scenario:
    place = str(estate.absolute())
    export = estate.suffix.lower() == ".xlsx" or estate.is_dir()
    source = EstateSource(rvtools=place) if export else EstateSource(file=place)
    return config.twin(source, seed)


def _blamed(error: InputError, config: LiveConfig) -> InputError:
    """What the modelled world refuses stands in the configuration's section ``world``."""
    if error.source != "world":
        return error
    return InputError(config.source, f"world.{error.field}", error.problem, error.advice)


def _may_hold_prediction(file: Path, *, make_folder: bool) -> None:
    from .rehearsal import is_prediction

    if file.is_dir():
        raise InputError("--out", "", f"{file} is a folder, not a file")
    if file.exists() and not is_prediction(file):
        advice = "name a new file or one that holds an earlier prediction"
        raise InputError("--out", "", f"{file} holds something else than a prediction", advice)
    if not make_folder and not file.parent.is_dir():
        raise InputError("--out", "", f"folder {file.parent} does not exist")


def _print_rehearsal(scenario: Scenario, found: Rehearsal) -> None:
    print_plan(scenario, found.topology, found.plan, None)
    prediction = found.prediction
    last = prediction.seed + prediction.replications - 1
    seeds = (
        f"seed {prediction.seed}"
        if last == prediction.seed
        else f"seeds {prediction.seed} to {last}"
    )
    runs = "one modelled run" if prediction.replications == 1 else (
        f"{prediction.replications} modelled runs"
    )  # fmt: skip
    rows = table(
        f"Predicted by {runs}, {seeds}",
        ("clock", "seen", "median", "p95", "p99", "longest"),
        right=(1, 2, 3, 4, 5),
    )
    for clock in prediction.clocks:
        rows.add_row(clock.label, f"{clock.count:,}", *_times(clock))
    print_table(rows)
    console().print(
        f"The modelled job takes {_range(prediction.makespan_s)} and protects "
        f"{_numbers(prediction)} of {prediction.selected} VMs."
    )


def _times(spread: Any) -> list[str]:
    return [format_seconds(getattr(spread, key)) for key in _SHARES]


def _range(values: tuple[float, ...]) -> str:
    low, high = format_seconds(min(values)), format_seconds(max(values))
    return low if low == high else f"{low} to {high}"


def _numbers(prediction: Prediction) -> str:
    low, high = min(prediction.protected), max(prediction.protected)
    return str(low) if low == high else f"{low} to {high}"


def compare_command(prediction_file: Path, folder: Path, *, as_json: bool) -> int:
    """Show a prediction beside what a run measured, clock by clock."""
    from .rehearsal import compare, comparison_json, read_prediction
    from .reports.folder import read_folder

    prediction = read_prediction(prediction_file)
    run = read_folder(folder)
    if as_json:
        emit_json(comparison_json(prediction, run))
        return ExitCode.PROTECTED
    out = console()
    where = "live systems" if "live" in run.meta else "a modelled world"
    out.print(f"{prediction.title}, beside {folder} (measured on {where})", style="bold")
    rows = table(
        "Predicted and measured",
        ("clock", "", "seen", "median", "p95", "p99", "longest"),
        right=(2, 3, 4, 5, 6),
    )
    for row in compare(prediction, run):
        _add_rows(rows, row)
    print_table(rows)
    out.print(
        f"The job was predicted to take {_range(prediction.makespan_s)} and took "
        f"{format_seconds(run.job['makespan_s'])}; predicted to protect {_numbers(prediction)} of "
        f"{prediction.selected} VMs, and protected {run.job['protected']} of "
        f"{run.job['selected']}."
    )
    return ExitCode.PROTECTED


def _add_rows(rows: Any, row: Comparison) -> None:
    predicted, measured = row.predicted, row.measured
    if predicted is None or not predicted.count:
        rows.add_row(row.clock.label, "predicted", "0", *["absent"] * 4)
    else:
        rows.add_row(row.clock.label, "predicted", f"{predicted.count:,}", *_times(predicted))
    if not measured.count:
        rows.add_row("", "measured", "0", *["absent"] * 4)
        return
    bound = "≤ " if measured.bounds else ""
    times = [f"{bound}{text}" for text in _times(measured)]
    rows.add_row("", "measured", f"{measured.count:,}", *times)
