"""``stillframe run --live``, ``plan --live`` and ``estate pull``: jobs on real systems."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_common import (
    ExitCode,
    console,
    count,
    emit_json,
    may_hold_results,
    may_write,
    notice,
    print_table,
    progress,
    say,
    table,
    write_and_show,
)
from .cli_job import EXIT_CODES, strategy_named
from .cli_plan import plan_json, print_plan
from .errors import InputError
from .orchestrator.plan import NothingSelectedError
from .orchestrator.spec import JobSpec
from .scenarios.live import LiveConfig, load_live

if TYPE_CHECKING:
    from .live import LiveRun
    from .topology.pulled import PulledEstate

VCENTER_DRIVER = "vsphere"


@dataclass(frozen=True, slots=True)
class AskedLive:
    """A live configuration as what a plan is made for; it has no seed."""

    name: str
    title: str
    job: JobSpec
    seed: int | None = None


def run_live_command(
    config_path: Path,
    strategy: str | None,
    out: Path | None,
    clear: Path | None,
    *,
    recover: bool,
    as_json: bool,
) -> int:
    """Run the job on its systems, write the result folder, show the summary.

    ``clear`` is the result of an earlier job, of which what is left is removed first; with
    ``recover``, so is what the journal knows of unfinished jobs.
    """
    from .live import new_job_id, run_live
    from .live_clear import earlier_job

    config = _config(config_path, strategy)
    job_id = new_job_id()
    folder = out if out is not None else Path("out") / f"{config.name}-{job_id}"
    may_hold_results(folder)
    earlier = None
    if clear is not None:
        _must_differ(folder, clear)
        earlier = earlier_job(clear, config)
    try:
        with progress("Running") as show:
            run = run_live(config, job_id, show, notice, earlier, recover_first=recover)
    except NothingSelectedError:
        raise nothing_selected(config) from None
    _report(run, folder, _command(config_path, strategy), as_json=as_json)
    if run.failure is not None:
        raise run.failure
    if run.interrupted:
        # Not by returning it: that would say that the command did not finish, and it did.
        notice("interrupted; the job was cancelled, the report says what it did")
        raise SystemExit(int(ExitCode.INTERRUPTED))
    code = EXIT_CODES[run.result.status]
    return code if run.clean_before else max(code, ExitCode.PARTLY)


def _must_differ(out: Path, clear: Path) -> None:
    """The only record of what an earlier job left must outlive a clearing that does not succeed."""
    if out.resolve() == clear.resolve():
        problem = f"{str(out)!r} is the result that --clear works from"
        raise InputError("--out", "", problem, "name another folder")


def _report(run: LiveRun, folder: Path, command: str, *, as_json: bool) -> None:
    data = run.run_data(command, f"{command} --clear {shlex.quote(str(folder))}")
    write_and_show(data, folder, as_json=as_json)
    for trouble in run.troubles:
        notice(" ".join(trouble.split()))


def plan_live_command(config_path: Path, strategy: str | None, *, as_json: bool) -> int:
    """Plan on what there is now; 1 when the plan leaves selected VMs out."""
    from .live_systems import plan_live

    config = _config(config_path, strategy)
    try:
        with progress("Planning") as show:
            topology, plan = plan_live(config, show)
    except NothingSelectedError:
        raise nothing_selected(config) from None
    asked = AskedLive(config.name, config.label, config.job)
    if as_json:
        emit_json(plan_json(asked, topology, plan, None))
    else:
        print_plan(asked, topology, plan, None)
    if not plan.groups:
        return ExitCode.FAILED
    return ExitCode.PARTLY if plan.unprotectable else ExitCode.PROTECTED


def _config(path: Path, strategy: str | None) -> LiveConfig:
    config = load_live(path)
    return config if strategy is None else config.with_strategy(strategy_named(strategy))


def _command(path: Path, strategy: str | None) -> str:
    words = ["stillframe", "run", "--live", str(path)]
    return shlex.join(words if strategy is None else [*words, "--strategy", strategy])


def nothing_selected(config: LiveConfig) -> InputError:
    """An empty selection is the configuration's fault, and says in which file."""
    return InputError(
        config.source,
        "job.select",
        "the selection matches no VM",
        "read the estate with `stillframe estate pull` and look at it with `estate show`",
    )


def pull_command(
    vcenters: Sequence[str],
    login: Mapping[str, str | None],
    out: Path | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Read what vCenters hold, say what they do not tell, and keep the estate if asked.

    ``login`` are settings of the driver that are the same for all of them; None is not given.
    """
    from .live_systems import pull_estate
    from .topology.estate import dump_estate

    if out is not None:
        may_write(out, force=force)
    given = {key: value for key, value in login.items() if value is not None}
    targets: dict[str, dict[str, Any]] = {}
    for text in vcenters:
        host, settings = _target(text)
        if host in targets:
            raise InputError("--vcenter", "", f"{host!r} is named twice")
        targets[host] = settings | given
    with progress("Pulling") as show:
        found = pull_estate(targets, VCENTER_DRIVER, show)
    if out is not None:
        out.write_text(dump_estate(found.estate), encoding="utf-8")
    if as_json:
        emit_json(_pulled_json(list(targets), found, out))
        return
    _print_pulled(found)
    if out is not None:
        say(f"Estate: {out}")


def _target(text: str) -> tuple[str, dict[str, Any]]:
    """The identifier and the driver's settings for ``HOST`` or ``HOST:PORT``."""
    if "@" in text or "/" in text:
        # Not quoted: what stands before an @ may be a password.
        advice = "give HOST or HOST:PORT; the user with --user"
        raise InputError("--vcenter", "", "this is not the name of a host", advice)
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, ""
    if port and not port.isdecimal():
        raise InputError("--vcenter", "", f"{port!r} in {text!r} is not a port")
    host = host.strip("[]")
    if not host:
        raise InputError("--vcenter", "", f"{text!r} names no host")
    settings: dict[str, Any] = {"host": host}
    if port:
        settings["port"] = int(port)
    return host, settings


def _pulled_json(vcenters: Sequence[str], found: PulledEstate, out: Path | None) -> dict[str, Any]:
    return {
        "vcenters": list(vcenters),
        "estate": None if out is None else str(out),
        "statistics": found.statistics,
        "findings": [
            {
                "severity": finding.severity.value,
                "about": finding.tab,
                "count": finding.count,
                "sentence": finding.sentence,
            }
            for finding in found.findings
        ],
    }


def _print_pulled(found: PulledEstate) -> None:
    numbers = found.statistics
    console().print(
        f"{count(numbers['vms'], 'VM')} with {count(numbers['disks'], 'disk')} on "
        f"{count(numbers['datastores'], 'datastore')}; {count(numbers['units'], 'unit')} on "
        f"{count(numbers['arrays'], 'array')}; {numbers['protectable_vms']:,} VMs can be protected "
        "by array snapshots.",
        style="bold",
    )
    rows = table("What a vCenter does not say, and what to know", ("severity", "about", "finding"))
    for finding in found.findings:
        rows.add_row(finding.severity.value, finding.tab, finding.sentence)
    print_table(rows)
