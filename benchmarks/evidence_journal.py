"""``make evidence-journal``: what durable intents cost, and what a torn journal does.

A job of 1,000 VMs runs with a journal in memory and with one in a file, every intent of which is on
disk (SQLite, write-ahead log, synchronous FULL) before its create is sent: in the modelled world,
and against the vSphere test endpoint. By turns, several times; medians count. In the modelled world
time is virtual, so there the file's time stands beside the job's own makespan.

Then a job is killed in mid-run, and its journal is cut off at every byte of the last record, as a
loss of power in mid-write leaves it. From what is read back the job is recovered in the world that
it left.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.console import Console

from stillframe.drivers.vsphere_settings import PASSWORD_ENV
from stillframe.live_systems import open_systems, survey
from stillframe.orchestrator.events import EventLog
from stillframe.orchestrator.job import Job
from stillframe.orchestrator.journal import Store
from stillframe.orchestrator.memory_store import MemoryStore
from stillframe.orchestrator.plan import make_plan
from stillframe.orchestrator.result import JobResult
from stillframe.orchestrator.sqlite_store import SqliteStore
from stillframe.scenarios.live import load_live
from stillframe.scenarios.schema import Scenario, scenario_from_data
from stillframe.sim.env import SimEnv
from stillframe.sim.loop import SimLoop
from stillframe.sim.world import World
from tests.support_vsim import Vsim, lun, small_inventory

from .evidence import Figure, write_evidence
from .journal_damage import begin, damage, modelled_job

VMS = 1_000
ROUNDS = 5
LIVE_ROUNDS = 3
CONSOLE = Console(stderr=True)
TASK_MS = 500
METHODS = ("CreateSnapshot_Task", "CreateSnapshotEx_Task", "RemoveSnapshot_Task")

Clock = Callable[[], float]


@contextmanager
def store_of(kind: str, clock: Clock) -> Iterator[Store]:
    """A store in memory or in a file of the working directory's disk."""
    if kind == "memory":
        yield MemoryStore(clock)
        return
    here = Path("out")
    here.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="journal-", dir=here) as folder:
        store = SqliteStore(Path(folder) / "journal.db", clock=clock)
        yield store
        store.close()


class Cost(NamedTuple):
    """What one run took on this machine, and what it said of itself."""

    wall_s: float
    cpu_s: float
    makespan_s: float
    protected: int


def measured(run: Callable[[], JobResult]) -> Cost:
    """Time a run."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return Cost(
        time.perf_counter() - wall,
        time.process_time() - cpu,
        result.makespan_s,
        result.protected,
    )


# -- the modelled world -----------------------------------------------------------------------


def thousand() -> Scenario:
    """A generated estate of 1,000 VMs."""
    data = {
        "name": "thousand",
        "title": "A thousand VMs",
        "estate": {"generate": {"vms": VMS, "datastores": 20}},
    }
    return scenario_from_data(data, Path("thousand.yaml"))


def run_modelled(scenario: Scenario, kind: str) -> Cost:
    """One run of it with this kind of journal."""
    env = SimEnv()
    world = World(env, scenario.build_estate(), scenario.world, seed=1, log=EventLog())
    with store_of(kind, lambda: env.now) as store:

        def run() -> JobResult:
            with asyncio.Runner(loop_factory=lambda: SimLoop(env)) as runner:
                return runner.run(modelled_job(scenario, world, store, "evidence"))

        return measured(run)


# -- the endpoint -----------------------------------------------------------------------------


def live_config(vsim: Vsim, folder: Path, luns: int) -> Path:
    """A live configuration of the endpoint and a modelled array."""
    reach = {
        "driver": "vsphere",
        "host": vsim.host,
        "port": vsim.port,
        "ca_file": vsim.ca_file,
        "user": vsim.user,
    }
    units = [{"name": f"lun-{i}", "capacity": "10 TiB", "devices": [lun(i)]} for i in range(luns)]
    config = {
        "name": "evidence",
        "hypervisors": {"vc": reach},
        "arrays": {"array-1": {"driver": "modelled-array", "units": units}},
        "job": {"limits": {"groups": None, "create_per_host": None, "remove_per_host": None}},
    }
    path = folder / "live.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def run_live(config_file: Path, kind: str) -> Cost:
    """One run against the endpoint with this kind of journal; times are the job's alone."""
    config = load_live(config_file)
    cost: list[Cost] = []

    async def main() -> None:
        silent: Callable[[str, float | None], None] = lambda _what, _share: None  # noqa: E731
        async with open_systems(config, silent) as systems:
            topology = await survey(config, systems, silent)
            with store_of(kind, time.time) as store:
                job_id = f"evidence-{time.time_ns():x}"
                job = Job(
                    job_id,
                    config.job,
                    make_plan(topology, config.job),
                    topology,
                    systems.hypervisors,
                    systems.arrays,
                    random=random.Random(1),
                    log=EventLog(),
                    journal=begin(store, job_id),
                )
                wall, cpu = time.perf_counter(), time.process_time()
                result = await job.run()
                cost.append(
                    Cost(
                        time.perf_counter() - wall,
                        time.process_time() - cpu,
                        result.makespan_s,
                        result.protected,
                    )
                )

    asyncio.run(main())
    return cost[0]


def median(costs: Sequence[Cost], what: str) -> float:
    """The middle run's figure."""
    return statistics.median(getattr(cost, what) for cost in costs)


def modelled() -> list[Figure]:
    """The 1,000-VM job in the modelled world, by turns with both journals."""
    scenario = thousand()
    costs: dict[str, list[Cost]] = {"memory": [], "file": []}
    for number in range(ROUNDS):
        CONSOLE.print(f"modelled world, round {number + 1} of {ROUNDS}", highlight=False)
        for kind, found in costs.items():
            found.append(run_modelled(scenario, kind))
    file, memory = costs["file"], costs["memory"]
    more_s = median(file, "wall_s") - median(memory, "wall_s")
    makespan_s = median(file, "makespan_s")
    return [
        Figure("modelled: VMs protected", median(file, "protected"), "VMs"),
        Figure("modelled: wall time with a file, of that in memory", ratio(costs, "wall_s")),
        Figure("modelled: CPU time with a file, of that in memory", ratio(costs, "cpu_s")),
        Figure("modelled: durable journal, per VM", 1e3 * more_s / VMS, "ms"),
        Figure("modelled: durable journal, of the job's makespan", 100 * more_s / makespan_s, "%"),
    ]


def ratio(costs: dict[str, list[Cost]], what: str) -> float:
    """The file's median of the memory's."""
    return median(costs["file"], what) / median(costs["memory"], what)


def endpoint() -> list[Figure]:
    """The 1,000-VM job against the test endpoint, by turns with both journals."""
    costs: dict[str, list[Cost]] = {"memory": [], "file": []}
    with Vsim(small_inventory(VMS, 20, 10, hosts=8)) as vsim, tempfile.TemporaryDirectory() as here:
        os.environ[PASSWORD_ENV] = vsim.password
        config = live_config(vsim, Path(here), 10)
        vsim.rules([{"method": method, "delayMs": TASK_MS} for method in METHODS])
        for number in range(LIVE_ROUNDS):
            for kind, found in costs.items():
                CONSOLE.print(f"endpoint, round {number + 1} of {LIVE_ROUNDS}, {kind}")
                found.append(run_live(config, kind))
    return [
        Figure("endpoint: VMs protected", median(costs["file"], "protected"), "VMs"),
        Figure("endpoint: wall time of the job with a file", median(costs["file"], "wall_s"), "s"),
        Figure("endpoint: wall time with a file, of that in memory", ratio(costs, "wall_s")),
        Figure("endpoint: CPU time with a file, of that in memory", ratio(costs, "cpu_s")),
    ]


def main() -> None:
    """Measure and write the figures."""
    write_evidence("journal", [*modelled(), *endpoint(), *damage()])


if __name__ == "__main__":
    main()
