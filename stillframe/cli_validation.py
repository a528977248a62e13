"""What ``stillframe validate`` does: run, model, compare, show, save."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_common import ExitCode, console, emit_json, notice, print_table, progress, say, table
from .errors import InputError
from .orchestrator.plan import NothingSelectedError
from .quantity import format_seconds
from .scenarios.live import LiveConfig, load_live

if TYPE_CHECKING:
    from .sim.fitted_profile import FittedProfile
    from .validation import ClockCheck, PercentileCheck
    from .validation_runs import LiveRuns

FORMAT = "stillframe-validation"


def validate_command(
    config_path: Path,
    profile_path: Path,
    runs: int,
    modelled: int,
    seed: int,
    out: Path | None,
    *,
    prune: bool,
    as_json: bool,
) -> int:
    """Run the job live and on its twin, show the errors, and save both sides' runs."""
    from .sim.fitted_profile import load_fitted
    from .validation import check
    from .validation_runs import FEWEST_RUNS, blamed_on, must_fit, run_modelled, run_often, twin_of

    config = load_live(config_path)
    profile = load_fitted(profile_path)
    drivers = [entry.driver for entry in config.arrays.values()]
    must_fit(profile.array, drivers, str(profile_path), config.source)
    for option, number in (("--runs", runs), ("--modelled", modelled)):
        if number < FEWEST_RUNS:
            problem = f"{number} is too few: one run does not say what the next would be like"
            raise InputError(option, "", problem, f"give {FEWEST_RUNS} or more")
    if prune:
        _must_keep_something(config)
    file = out if out is not None else Path("out") / f"{config.name}.validation.json"
    _may_hold_validation(file, make_folder=out is None)
    try:
        with progress("Validating") as show:
            live = run_often(config, runs, show, notice, prune=prune)
            model = config.model_copy(update={"world": profile.world(config.world)})
            with blamed_on(config):
                predicted = run_modelled(twin_of(model, live.estate, seed), modelled, show)
    except NothingSelectedError:
        problem = "the selection matches no VM of these systems"
        raise InputError(config.source, "job.select", problem) from None
    checks = check(live.records, predicted, seed)
    document = _document(config, profile, profile_path, live, checks, seed, modelled)
    _write(document, file)
    if as_json:
        emit_json({"file": str(file), **document})
    else:
        _print(config, profile, profile_path, live, checks, modelled)
        say(f"Validation: {file}")
    return ExitCode.PARTLY if live.partly else ExitCode.PROTECTED


def _must_keep_something(config: LiveConfig) -> None:
    kept = config.retention
    if kept.keep_last is kept.keep_within is kept.snapshots_per_unit is None:
        advice = "write keep_last, keep_within or snapshots_per_unit there, or leave --prune out"
        raise InputError(config.source, "retention", "nothing says what --prune keeps", advice)


def _may_hold_validation(file: Path, *, make_folder: bool) -> None:
    if file.is_dir():
        raise InputError("--out", "", f"{file} is a folder, not a file")
    if file.exists() and not _is_validation(file):
        advice = "name a new file or one that holds an earlier validation"
        raise InputError("--out", "", f"{file} holds something else than a validation", advice)
    if not make_folder and not file.parent.is_dir():
        raise InputError("--out", "", f"folder {file.parent} does not exist")


def _is_validation(file: Path) -> bool:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("format") == FORMAT


def _document(
    config: LiveConfig,
    profile: FittedProfile,
    profile_path: Path,
    live: LiveRuns,
    checks: list[ClockCheck],
    seed: int,
    modelled: int,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": 1,
        "name": config.name,
        "profile": str(profile_path),
        "fitted_on": _fitted_on(profile),
        "array": profile.array,
        "seed": seed,
        "runs": len(live.records),
        "runs_not_whole": live.partly,
        "modelled_runs": modelled,
        "clocks": [
            one.model_dump(mode="json", exclude={"percentiles"})
            | {"percentiles": [_percentile_json(p) for p in one.percentiles]}
            for one in checks
        ],
        "records": [record.model_dump(mode="json") for record in live.records],
    }


def _fitted_on(profile: FittedProfile) -> str:
    days = dict.fromkeys(date[:10] for date in profile.dates)
    return f"{len(profile.runs)} runs on {profile.array}, {' to '.join(days)}"


def _percentile_json(one: PercentileCheck) -> dict[str, Any]:
    return {
        **one.model_dump(mode="json"),
        "error": one.error,
        "within_range": one.within_range,
    }


def _write(document: dict[str, Any], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    file.write_text(f"{text}\n", encoding="utf-8")


def _print(
    config: LiveConfig,
    profile: FittedProfile,
    profile_path: Path,
    live: LiveRuns,
    checks: list[ClockCheck],
    modelled: int,
) -> None:
    console().print(
        f"{config.label}: {len(live.records)} live runs, {modelled} modelled", style="bold"
    )
    say(f"Profile {profile_path}, fitted on {_fitted_on(profile)}.")
    rows = table(
        "Predicted against measured",
        ("clock", "percentile", "measured", "95 % range", "predicted", "error", "seen"),
        right=(2, 3, 4, 5, 6),
    )
    for one in checks:
        for percentile in one.percentiles:
            rows.add_row(*_row(one, percentile))
    print_table(rows)
    if live.partly:
        say(f"{live.partly} of {len(live.records)} runs did not protect every VM.")


def _row(one: ClockCheck, found: PercentileCheck) -> list[str]:
    ends = found.range_s
    return [
        one.label if found is one.percentiles[0] else "",
        f"p{found.percent}",
        _time(found.measured_s),
        "" if ends is None else f"{format_seconds(ends[0])} to {format_seconds(ends[1])}",
        _time(found.predicted_s),
        "–" if found.error is None else f"{100 * found.error:+.0f} %",
        f"{one.measured:,}" if found is one.percentiles[0] else "",
    ]


def _time(seconds: float | None) -> str:
    return "absent" if seconds is None else format_seconds(seconds)
