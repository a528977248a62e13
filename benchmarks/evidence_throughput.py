"""``make evidence-throughput``: complete seeded runs per second on one core.

A run is everything from drawn options to judged invariants, with faults, deaths and recoveries, of
all ten VMs of the scenario ``ten-vms`` (three datastores, two units). The same seeds run with each
journal and in both fidelities, by turns in one process; CPU time counts. Beside it stands what the
bare event loop of a run costs. The garbage collector looks rarely, as in the workers of
``stillframe explore``; one figure says what it costs by default.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable

from rich.console import Console

from stillframe.explorer.draw import draw_options
from stillframe.explorer.options import JournalKind, RunOptions
from stillframe.explorer.run import explore_one
from stillframe.scenarios.schema import load_scenario
from stillframe.sim.collecting import few_collections
from stillframe.sim.loop import SimLoop

from .evidence import Figure, write_evidence

SEEDS = 300
ROUNDS = 5
LOOPS = 2_000
CONSOLE = Console(stderr=True)

MEMORY = "journal in memory"
ARMS = {
    MEMORY: (JournalKind.MEMORY, "flow", ">= 300 runs/s"),
    "journal in SQLite in memory": (JournalKind.SQLITE_MEMORY, "flow", None),
    "journal in a WAL file": (JournalKind.SQLITE_FILE, "flow", ">= 120 runs/s"),
    "block fidelity, journal in memory": (JournalKind.MEMORY, "block", ">= 100 runs/s"),
}


def options_of(kind: JournalKind, fidelity: str) -> list[RunOptions]:
    """What each seed draws, over all ten VMs, with this journal and fidelity."""
    scenario = load_scenario("ten-vms")
    return [
        draw_options(
            scenario, seed, fidelity="block" if fidelity == "block" else "flow"
        ).model_copy(update={"vms": None, "journal": kind})
        for seed in range(SEEDS)
    ]


def cpu_s(work: Callable[[], object]) -> float:
    """The CPU time of some work, in seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Measure and write the figures."""
    scenario = load_scenario("ten-vms")
    drawn = {name: options_of(kind, fidelity) for name, (kind, fidelity, _) in ARMS.items()}
    reports = [explore_one(scenario, seed, options) for seed, options in enumerate(drawn[MEMORY])]
    took: dict[str, list[float]] = {name: [] for name in ARMS}
    loops: list[float] = []
    by_default: list[float] = []
    for number in range(ROUNDS):
        CONSOLE.print(f"round {number + 1} of {ROUNDS}", highlight=False)
        for name, all_options in drawn.items():

            def work(all_options: list[RunOptions] = all_options) -> None:
                for seed, options in enumerate(all_options):
                    explore_one(scenario, seed, options)

            with few_collections():
                took[name].append(cpu_s(work) / SEEDS)
            if name == MEMORY:
                by_default.append(cpu_s(work) / SEEDS)
        loops.append(cpu_s(_loops) / LOOPS)
    figures = [
        Figure(
            f"runs per second and core, {name}", 1 / statistics.median(took[name]), "runs/s", aim
        )
        for name, (_, _, aim) in ARMS.items()
    ]
    figures.append(
        Figure(
            f"runs per second and core, {MEMORY}, garbage collection by default",
            1 / statistics.median(by_default),
            "runs/s",
        )
    )
    bare_s = statistics.median(loops)
    figures += [
        Figure("a bare event loop, begun and closed", 1e6 * bare_s, "µs"),
        Figure(
            "one run, of bare event loops",
            statistics.median(took[MEMORY]) / bare_s,
            "loops",
        ),
        Figure("events and callbacks in a run", _mean([one.steps for one in reports]), "steps"),
        Figure("processes killed in a run", _mean([one.crashes for one in reports]), "processes"),
        Figure("recoveries in a run", _mean([one.recoveries for one in reports]), "recoveries"),
        Figure("faults in a run", _mean([sum(one.fired.values()) for one in reports]), "faults"),
        Figure(
            "runs that break an invariant", sum(one.failed for one in reports), "runs", "== 0 runs"
        ),
    ]
    write_evidence("throughput", figures)


def _loops() -> None:
    for _ in range(LOOPS):
        with asyncio.Runner(loop_factory=SimLoop) as runner:
            runner.run(asyncio.sleep(0))


def _mean(values: list[int]) -> float:
    return statistics.fmean(values)


if __name__ == "__main__":
    main()
