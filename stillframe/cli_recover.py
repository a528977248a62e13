"""``stillframe recover``: jobs whose process died, finished by another."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from .cli_common import ExitCode, count, emit_json, notice, print_table, progress, say, table
from .errors import InputError
from .live_journal import is_held, open_journal, unfinished, who
from .live_recover import Recovered, in_zone, recover_live
from .orchestrator.journal import JobRecord, Store
from .scenarios.live import LiveConfig, load_live


def recover_command(
    config_path: Path, job_id: str | None, *, take_over: bool, as_json: bool
) -> int:
    """Recover unfinished jobs of a configuration; 0 when nothing is left open."""
    config = load_live(config_path)
    with contextlib.closing(open_journal(config.journal)) as store:
        jobs = _wanted(store, config, job_id)
        free = [job for job in jobs if take_over or not is_held(job)]
        done = {job.job_id: Recovered(job, None) for job in jobs}
        for job in free:
            if is_held(job):
                notice(
                    f"taking job {job.job_id} from {who(job.holder)}: if that is still at work, it "
                    "stops at its next step, and this fails what it was doing"
                )
        if free:  # else no system is needed
            with progress("Recovering") as show:
                recovered = recover_live(
                    config, store, free, take_over=take_over, tell=show, notice=notice
                )
            done.update((one.job.job_id, one) for one in recovered)
    _tell(config, list(done.values()), as_json=as_json)
    complete = all(one.complete for one in done.values())
    return ExitCode.PROTECTED if complete else ExitCode.PARTLY


def _wanted(store: Store, config: LiveConfig, job_id: str | None) -> list[JobRecord]:
    """The unfinished jobs that are asked for, oldest first."""
    found = unfinished(store, config.name)
    jobs = [job for job in store.jobs() if job in found.free or job in found.held]
    if job_id is None:
        return jobs
    known = {job.job_id: job for job in store.jobs()}
    if job_id not in known:
        problem = f"{config.journal} knows no job {job_id!r}"
        raise InputError("--job", "", problem, "without --job all that need it are recovered")
    name = known[job_id].name
    if name != config.name:
        problem = f"job {job_id!r} is one of {name!r}, and {config.source} is {config.name!r}"
        raise InputError("--job", "", problem, "name the configuration of that job")
    return [job for job in jobs if job.job_id == job_id]


def _tell(config: LiveConfig, done: Sequence[Recovered], *, as_json: bool) -> None:
    complete = all(one.complete for one in done)
    if as_json:
        jobs = [one.document() for one in done]
        emit_json({"journal": str(config.journal), "jobs": jobs, "complete": complete})
        return
    if not done:
        say(f"Nothing to recover: every job of {config.name} in {config.journal} has ended.")
        return
    rows = table(
        count(len(done), "unfinished job"),
        ("job", "begun", "removed", "kept", "withdrawn", "left", "state"),
        right=(2, 3, 4, 5),
    )
    for one in done:
        rows.add_row(one.job.job_id, in_zone(one.job.begun_s), *_numbers(one))
    print_table(rows)
    for one in done:
        for sentence in one.recovery.left if one.recovery is not None else ():
            say(f"Left of {one.job.job_id}: {sentence}.")
        if one.recovery is None:
            say(f"Left alone: job {one.job.job_id}, in the hands of {who(one.job.holder)}.")
    if any(one.recovery is None for one in done):
        say("A job that is at work needs no recovery; --take-over is for a process that hangs.")
    if not complete:
        say(f"To go on later: stillframe recover {config.source}")


def _numbers(one: Recovered) -> tuple[str, ...]:
    if one.recovery is None:
        return "", "", "", "", f"held until {in_zone(one.job.lease_until_s)}"
    done = one.recovery
    numbers = (len(done.removed), done.kept, done.withdrawn, len(done.left))
    return (*map(str, numbers), "recovered" if one.complete else "partly")
