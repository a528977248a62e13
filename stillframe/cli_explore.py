"""``stillframe explore`` and ``stillframe replay``: many runs, and one of them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .cli_common import (
    ExitCode,
    console,
    count,
    emit_json,
    may_write,
    print_table,
    progress,
    say,
    table,
    usage_error,
)
from .errors import InputError
from .explorer.campaign import Account, Failure, explore, loaded, map_runs
from .explorer.replayfile import read_replay, run_again, running_versions, write_replay
from .explorer.run import explore_one
from .scenarios.schema import list_scenarios

if TYPE_CHECKING:
    from .explorer.exhaust import Death, Exhausted, Place
    from .explorer.report import RunReport
    from .scenarios.schema import Scenario

PAIRS = 200
"""Runs of ``--exhaustive-crash`` with a second death."""
_PLACES_AT_ONCE = 50

Fidelity = Literal["flow", "block", "both"]


def explore_command(
    scenarios: Sequence[str],
    *,
    seeds: int,
    first_seed: int,
    jobs: int,
    fidelity: Fidelity,
    out: Path | None,
    fail_fast: bool,
    as_json: bool,
    every: bool,
    shrink: bool,
    exhaustive_crash: bool,
) -> int:
    """Explore, print what came of it, and return the exit code.

    Parameters
    ----------
    scenarios:
        Shipped names or files; with ``every`` all shipped ones beside them.
    out:
        Where a file goes that repeats the first run with a violation; none is written without.
    shrink:
        Make that run small first.
    exhaustive_crash:
        Instead of drawing, kill the job of ``first_seed`` everywhere.

    Raises
    ------
    InputError
        A scenario or the file cannot be used.
    """
    names = list(dict.fromkeys([*scenarios, *(_shipped() if every else ())]))
    if not names:
        raise usage_error("name a scenario, or ask for --all")
    if out is not None:
        may_write(out, force=True, suffix=".json")
    if exhaustive_crash:
        return _everywhere(names, first_seed, jobs, as_json=as_json)
    account = _explored(names, range(first_seed, first_seed + seeds), jobs, fidelity, fail_fast)
    notes = _first_failure(account, names, fidelity, out, shrink=shrink)
    if as_json:
        emit_json(_account_json(account, fidelity, notes))
    else:
        _print_account(account, fidelity, notes)
    return ExitCode.FAILED if account.failed else ExitCode.PROTECTED


def replay_command(
    target: str, *, seed: int | None, events: bool, expect: str | None, as_json: bool
) -> int:
    """Run one seed of a scenario, or a file that ``explore`` wrote, and print what came of it.

    Parameters
    ----------
    expect:
        A trace hash; the exit code is 3 unless the run has it.

    Raises
    ------
    InputError
        The scenario or file cannot be used, or a scenario comes without a seed.
    """
    fidelity, name = _fidelity_of(target)
    differs = ""
    if name.endswith(".json"):
        if seed is not None:
            raise usage_error("a file has its seed: leave --seed out")
        again = run_again(read_replay(Path(name)), keep_events=events)
        report, differs = again.report, again.differs
    else:
        if seed is None:
            raise usage_error("a scenario needs --seed")
        report = explore_one(loaded(name), seed, keep_events=events, fidelity=fidelity)
    if expect is not None and expect != report.trace_hash:
        differs = f"the trace hash is {report.trace_hash}, not {expect}"
    if as_json:
        emit_json(_report_json(report, differs))
    else:
        _print_report(report, differs)
    return ExitCode.FAILED if report.failed or differs else ExitCode.PROTECTED


def _fidelity_of(target: str) -> tuple[Fidelity, str]:
    """``NAME@flow`` replays a run that was drawn with ``--fidelity flow``."""
    name, separator, kind = target.rpartition("@")
    for fidelity in ("flow", "block"):
        if separator and kind == fidelity:
            return ("flow" if kind == "flow" else "block"), name
    return "both", target


def _shipped() -> list[str]:
    return [one.name for one in list_scenarios()]


def _explored(
    names: Sequence[str], seeds: range, jobs: int, fidelity: Fidelity, fail_fast: bool
) -> Account:
    with progress("Exploring") as show:

        def heard(done: int, total: int, failed: int) -> None:
            show(f"{done:,} of {total:,} runs, {failed:,} with a violation", done / total)

        return explore(
            names, seeds, jobs=jobs, fidelity=fidelity, fail_fast=fail_fast, on_progress=heard
        )


def _first_failure(
    account: Account, names: Sequence[str], fidelity: Fidelity, out: Path | None, *, shrink: bool
) -> list[str]:
    """Shrink and write the first run with a violation, as asked; sentences about it."""
    if not account.failed or (out is None and not shrink):
        return []
    failure = next(iter(account.failures.values()))
    name = next(one for one in names if loaded(one).name == failure.scenario)
    scenario: Scenario = loaded(name)
    report = explore_one(scenario, failure.first_seed, fidelity=fidelity)
    notes = []
    if shrink and report.failed:
        from .explorer.shrink import shrink as make_small

        with progress("Shrinking") as show:
            small = make_small(
                report,
                scenario,
                progress=lambda done, most: show(f"run {done} of at most {most}", done / most),
            )
        scenario, report = small.scenario, small.report
        notes.append(small.sentence())
        if small.passing is not None:
            from .explorer.contrast import contrast

            notes.append(contrast(small))
    if out is not None:
        write_replay(out, report, scenario)
        notes.append(f"stillframe replay {out} repeats it")
    return notes


def replay_line(failure: Failure, fidelity: Fidelity) -> str:
    """The command that repeats a failure."""
    chosen = "" if fidelity == "both" else f"@{fidelity}"
    return (
        f"stillframe replay {failure.scenario}{chosen} --seed {failure.first_seed} "
        f"--expect {failure.trace_hash}"
    )


def _print_account(account: Account, fidelity: Fidelity, notes: Sequence[str]) -> None:
    say(
        f"{count(account.runs, 'run')}, {account.crashes:,} processes killed, "
        f"{account.recoveries:,} recoveries, {account.twice:,} run twice and compared, "
        f"{sum(account.fired.values()):,} faults"
    )
    fired = table("Faults", ("site", "fires"), right=(1,))
    for site, fires in sorted(account.fired.items()):
        fired.add_row(site, f"{fires:,}")
    print_table(fired)
    if not account.failed:
        say("Every invariant held in every run.")
        return
    broken = table("Violations", ("invariant", "scenario", "runs", "first seed"), right=(2, 3))
    for failure in account.failures.values():
        broken.add_row(
            failure.invariant, failure.scenario, f"{failure.runs:,}", str(failure.first_seed)
        )
    print_table(broken)
    for failure in account.failures.values():
        say(f"{failure.invariant}: {failure.violation.sentence}")
        say(f"  {replay_line(failure, fidelity)}")
    for note in notes:
        say(note)
    say(_versions())


def _versions() -> str:
    return ", ".join(f"{name} {number}" for name, number in running_versions().items())


def _account_json(account: Account, fidelity: Fidelity, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "runs": account.runs,
        "runs_with_violation": account.failed_runs,
        "run_twice": account.twice,
        "crashes": account.crashes,
        "recoveries": account.recoveries,
        "steps": account.steps,
        "virtual_s": account.virtual_s,
        "journals": account.by_journal,
        "fidelities": account.by_fidelity,
        "fired": dict(sorted(account.fired.items())),
        "violations": [
            {
                "invariant": failure.invariant,
                "scenario": failure.scenario,
                "runs": failure.runs,
                "first_seed": failure.first_seed,
                "sentence": failure.violation.sentence,
                "trace_hash": failure.trace_hash,
                "replay": replay_line(failure, fidelity),
            }
            for failure in account.failures.values()
        ],
        "notes": list(notes),
        "versions": running_versions(),
    }


def _print_report(report: RunReport, differs: str) -> None:
    for row in report.rows or ():
        at_s, kind, group, subject, detail = row
        say(f"{at_s:12.6f}  {kind:28} {group:8} {subject:24} {detail}".rstrip())
    say(f"{report.scenario}, seed {report.seed}, trace hash {report.trace_hash}")
    out = console()
    for name, value in report.options.to_data().items():
        out.print(f"  {name}: {value}")
    say(f"Processes: {'; '.join(report.outcomes)}")
    fired = ", ".join(f"{site} {fires}" for site, fires in sorted(report.fired.items()))
    say(f"Faults: {fired or 'none'}")
    for violation in report.violations:
        at = "" if violation.at_s is None else f" (t = {violation.at_s:.6f} s)"
        say(f"{violation.invariant}: {violation.sentence}{at}")
    if not report.violations:
        say("Every invariant held.")
    if differs:
        say(differs)
    say(_versions())


def _report_json(report: RunReport, differs: str) -> dict[str, Any]:
    return {
        "scenario": report.scenario,
        "seed": report.seed,
        "trace_hash": report.trace_hash,
        "differs": differs,
        "options": report.options.to_data(),
        "outcomes": list(report.outcomes),
        "crashes": report.crashes,
        "recoveries": report.recoveries,
        "steps": list(report.steps_by_incarnation),
        "virtual_s": report.virtual_s,
        "fired": dict(sorted(report.fired.items())),
        "violations": [violation._asdict() for violation in report.violations],
        "events": None if report.rows is None else [list(row) for row in report.rows],
        "versions": running_versions(),
    }


# -- killing everywhere ------------------------------------------------------------------------


def _everywhere(names: Sequence[str], seed: int, jobs: int, *, as_json: bool) -> int:
    from .explorer.exhaust import exhaust

    found = []
    for name in names:
        with progress(f"Killing in {name}") as show:
            found.append(
                exhaust(
                    _small_enough(name),
                    seed,
                    pairs=PAIRS,
                    run_all=partial(_spread, jobs),
                    progress=lambda done, most, show=show: show(  # type: ignore[misc]
                        f"{done} of {most}", done / most
                    ),
                )
            )
    if as_json:
        emit_json([_exhausted_json(one) for one in found])
    else:
        for one in found:
            _print_exhausted(one)
    return ExitCode.FAILED if any(one.failures for one in found) else ExitCode.PROTECTED


_MOST_EXHAUSTIBLE = 60


def _small_enough(name: str) -> Scenario:
    scenario = loaded(name)
    vms = len(scenario.build_estate().inventory.vms)
    if vms > _MOST_EXHAUSTIBLE:
        raise InputError(
            scenario.source,
            "estate",
            f"{vms} VMs make too many places to die at",
            f"use a scenario of at most {_MOST_EXHAUSTIBLE}",
        )
    return scenario


def _spread(jobs: int, kill: Callable[[Place], Death], places: Sequence[Place]) -> Iterator[Death]:
    if jobs <= 1:
        yield from map(kill, places)
        return
    parts = [
        places[start : start + _PLACES_AT_ONCE] for start in range(0, len(places), _PLACES_AT_ONCE)
    ]
    for deaths in map_runs(partial(_each, kill), parts, jobs):
        yield from deaths


def _each(kill: Callable[[Place], Death], places: Iterable[Place]) -> list[Death]:
    return [kill(place) for place in places]


def _print_exhausted(found: Exhausted) -> None:
    say(
        f"{found.scenario}, seed {found.seed}: killed at each of {found.steps:,} steps and "
        f"{found.events:,} events, twice in {found.pairs:,} runs; {found.deaths:,} deaths, "
        f"{count(len(found.failures), 'run')} with a violation"
    )
    for death in found.failures[:10]:
        first = death.violations[0]
        say(f"  {death.place}: {first.invariant}: {first.sentence}")


def _exhausted_json(found: Exhausted) -> dict[str, Any]:
    return {
        "scenario": found.scenario,
        "seed": found.seed,
        "steps": found.steps,
        "events": found.events,
        "pairs": found.pairs,
        "runs": found.runs,
        "deaths": found.deaths,
        "violations": [
            {
                "place": str(death.place),
                "invariant": violation.invariant,
                "sentence": violation.sentence,
            }
            for death in found.failures
            for violation in death.violations
        ],
    }
