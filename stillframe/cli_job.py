"""``stillframe plan``, ``run`` and ``report``: jobs in the modelled world."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_common import (
    ExitCode,
    emit_json,
    may_hold_results,
    progress,
    write_and_show,
)
from .cli_plan import plan_json, print_plan
from .errors import InputError
from .orchestrator.plan import NothingSelectedError, Plan, make_plan
from .orchestrator.result import JobStatus
from .orchestrator.spec import StrategyName
from .scenarios.schema import Scenario, load_scenario
from .topology.graph import Topology

if TYPE_CHECKING:
    from .drivers.records import Estate
    from .simulation import Simulation

EXIT_CODES = {
    JobStatus.PROTECTED: ExitCode.PROTECTED,
    JobStatus.PARTLY: ExitCode.PARTLY,
    JobStatus.NOTHING_SELECTED: ExitCode.BAD_INPUT,
    JobStatus.FAILED: ExitCode.FAILED,
    JobStatus.CANCELLED: ExitCode.FAILED,
}


def plan_command(
    source: str, seed: int | None, strategy: str | None, *, predict: bool, as_json: bool
) -> int:
    """Plan, predict, show; 1 when the plan leaves selected VMs out."""
    scenario = _scenario(source, seed, strategy)
    estate = scenario.build_estate()
    topology = Topology(estate)
    plan = _plan(scenario, topology)
    predicted = _simulate(scenario, estate).result if predict else None
    if as_json:
        emit_json(plan_json(scenario, topology, plan, predicted))
    else:
        print_plan(scenario, topology, plan, predicted)
    if not plan.groups:
        return ExitCode.FAILED
    return ExitCode.PARTLY if plan.unprotectable else ExitCode.PROTECTED


def run_command(
    source: str, seed: int | None, strategy: str | None, out: Path | None, *, as_json: bool
) -> int:
    """Run, write the result folder, show the summary; the exit code is the job's."""
    scenario = _scenario(source, seed, strategy)
    folder = out if out is not None else Path("out") / scenario.name
    may_hold_results(folder)
    simulation = _simulate(scenario)
    data = simulation.run_data(_command(source, scenario, strategy))
    write_and_show(data, folder, as_json=as_json)
    return EXIT_CODES[simulation.result.status]


def report_command(folder: Path, *, as_json: bool) -> int:
    """Render a result folder again; the exit code is that of the job it holds."""
    from .reports.folder import read_folder

    data = read_folder(folder)
    write_and_show(data, folder, as_json=as_json)
    return EXIT_CODES[JobStatus(data.meta["status"])]


def _scenario(source: str, seed: int | None, strategy: str | None) -> Scenario:
    scenario = load_scenario(source)
    if seed is not None:
        scenario = scenario.model_copy(update={"seed": seed})
    if strategy is not None:
        scenario = scenario.with_strategy(strategy_named(strategy))
    return scenario


def strategy_named(name: str) -> StrategyName:
    """The strategy that the option --strategy names.

    Raises
    ------
    InputError
        There is none of this name.
    """
    names = [known.value for known in StrategyName]
    if name not in names:
        raise InputError("--strategy", "", f"{name!r} is not known", f"one of {', '.join(names)}")
    return StrategyName(name)


def _simulate(scenario: Scenario, estate: Estate | None = None) -> Simulation:
    """One modelled run; an empty selection is an error, not a result."""
    from .simulation import simulate

    try:
        with progress("Simulating") as show:
            simulation = simulate(
                scenario,
                estate=estate,
                progress=lambda done, total: show(f"{done} of {total} VMs", done / max(total, 1)),
            )
    except InputError as error:
        raise _blamed(error, scenario) from None
    except NothingSelectedError:
        raise _nothing_selected(scenario) from None
    if simulation.result.status is JobStatus.CANCELLED and scenario.cancel_s is None:
        # Ctrl-C cancels the job, which then ends in good order. But when it came is not in the
        # scenario, so the seed would not repeat this run, and it is no result.
        raise KeyboardInterrupt
    return simulation


def _plan(scenario: Scenario, topology: Topology) -> Plan:
    try:
        return make_plan(topology, scenario.job)
    except NothingSelectedError:
        raise _nothing_selected(scenario) from None


def _nothing_selected(scenario: Scenario) -> InputError:
    """An empty selection is the scenario's fault, and says in which file."""
    return InputError(
        scenario.source,
        "job.select",
        "the selection matches no VM",
        f"look at the estate with `stillframe estate show {scenario.source}`",
    )


def _blamed(error: InputError, scenario: Scenario) -> InputError:
    """What the modelled world refuses stands in the scenario: name the file and the place in it."""
    if error.source != "world":
        return error
    field = f"world.{error.field}" if error.field.startswith("arrays") else error.field
    number = re.match(r"events\[(\d+)\]", field)
    if number is not None:
        # The world counts its own events only, the user counts all of them.
        event = scenario.world_events[int(number[1])]
        place = next(i for i, one in enumerate(scenario.events) if one is event)
        field = f"events[{place}]{field[number.end() :]}"
    return InputError(scenario.source, field, error.problem, error.advice)


def _command(source: str, scenario: Scenario, strategy: str | None) -> str:
    """The command that repeats this run."""
    words = ["stillframe", "run", source, "--seed", str(scenario.seed)]
    if strategy is not None:
        words += ["--strategy", strategy]
    return shlex.join(words)
