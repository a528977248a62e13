"""One scenario, run: the real orchestrator in the modelled world."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .drivers.records import Estate
from .orchestrator.discover import discover
from .orchestrator.events import EventLog
from .orchestrator.job import Job, Progress
from .orchestrator.plan import Plan, make_plan
from .orchestrator.result import JobResult
from .orchestrator.strategies import Strategy
from .placements import placement_rows
from .reports.rundata import RunData, from_result
from .scenarios.schema import Scenario
from .sim.env import SimEnv
from .sim.loop import SimLoop
from .sim.world import World
from .topology.graph import Topology


@dataclass(frozen=True, slots=True)
class Simulation:
    """A finished run: what was planned, what came of it, and the world it left behind.

    Attributes
    ----------
    events_run, callbacks_run:
        SimPy events and loop callbacks that the run took.
    limit_peaks:
        For each limit on each object the most operations at once, and its capacity.
    """

    scenario: Scenario
    seed: int
    topology: Topology
    plan: Plan
    result: JobResult
    world: World
    events_run: int
    callbacks_run: int
    limit_peaks: dict[str, tuple[int, int]]

    def run_data(self, command: str = "") -> RunData:
        """The run as tables for reports; ``command`` is what reproduces it."""
        meta: dict[str, Any] = {
            "name": self.scenario.name,
            "title": self.scenario.title,
            "description": self.scenario.description,
            "seed": self.seed,
            "command": command,
            "assumptions": self.world.assumptions(),
        }
        placements = placement_rows(self.topology, self.plan)
        return from_result(self.result, placements, self.world.series.rows, meta)


def simulate(
    scenario: Scenario,
    *,
    seed: int | None = None,
    strategy: Strategy | None = None,
    progress: Progress | None = None,
    estate: Estate | None = None,
) -> Simulation:
    """Plan and run the scenario's job in its modelled world.

    Parameters
    ----------
    seed:
        Takes the place of the scenario's own seed.
    strategy:
        A grouping function that takes the place of the scenario's strategy.
    progress:
        Called as groups end.
    estate:
        The scenario's estate, where the caller has built it already.

    Raises
    ------
    NothingSelectedError
        The job's selection matches no VM.
    InputError
        The scenario's estate or a profile it names cannot be used.
    """
    chosen = scenario.seed if seed is None else seed
    env = SimEnv()
    log = EventLog()
    built = scenario.build_estate() if estate is None else estate
    world = World(env, built, scenario.world, seed=chosen, log=log)
    world.schedule(scenario.world_events)
    run = _Run(scenario, chosen, built, world, log, strategy, progress)
    loop = SimLoop(env)
    with few_collections(), asyncio.Runner(loop_factory=lambda: loop) as runner:
        topology, plan, job, result = runner.run(run.main())
    return Simulation(
        scenario=scenario,
        seed=chosen,
        topology=topology,
        plan=plan,
        result=result,
        world=world,
        events_run=loop.events_run,
        callbacks_run=loop.callbacks_run,
        limit_peaks=job.limiter.peaks(),
    )


@contextmanager
def few_collections() -> Iterator[None]:
    """Have the cyclic garbage collector look rarely, and not at what exists already.

    A run allocates much and leaves few cycles; with the default thresholds a fifth of a large
    run's time goes to searching for them.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def job_id_of(scenario: str, seed: int) -> str:
    """A job identifier that a replay of the same scenario and seed gets again."""
    return hashlib.blake2b(f"{scenario}\x1f{seed}".encode(), digest_size=5).hexdigest()


@dataclass(slots=True)
class _Run:
    scenario: Scenario
    seed: int
    estate: Estate
    world: World
    log: EventLog
    strategy: Strategy | None
    progress: Progress | None

    async def main(self) -> tuple[Topology, Plan, Job, JobResult]:
        spec = self.scenario.job
        world = self.world
        found = await discover(world.hypervisors, world.arrays, self.estate.arrays)
        topology = Topology(found)
        plan = make_plan(topology, spec, self.strategy)
        await asyncio.sleep(self.scenario.plan_age)
        job = Job(
            job_id_of(self.scenario.name, self.seed),
            spec,
            plan,
            topology,
            world.hypervisors,
            world.arrays,
            random=random.Random(f"{self.seed}/retry"),
            log=self.log,
            progress=self.progress,
            array_descriptions=self.estate.arrays,
        )
        result = await self._job_with_cancel(job)
        await asyncio.sleep(self.scenario.observe)
        return topology, plan, job, result

    async def _job_with_cancel(self, job: Job) -> JobResult:
        loop = asyncio.get_running_loop()
        task = loop.create_task(job.run())
        cancel_s = self.scenario.cancel_s
        alarm = loop.call_at(cancel_s, task.cancel) if cancel_s is not None else None
        try:
            return await task
        except asyncio.CancelledError:
            if job.result is None or not task.cancelled():
                raise
            return job.result
        finally:
            if alarm is not None:
                alarm.cancel()
