"""One scenario, run: the real orchestrator in the modelled world."""

from __future__ import annotations

import asyncio
import hashlib
import random
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
from .sim.assumptions import assumptions
from .sim.collecting import few_collections
from .sim.env import SimEnv
from .sim.loop import SimLoop
from .sim.series import Quantity
from .sim.world import World
from .topology.graph import Topology

DELTA_SAMPLES = 200
"""Points in time, over the job, at which the size of open deltas is noted."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """A finished run: what was planned, what came of it, and the world it left behind.

    Attributes
    ----------
    env:
        The world's clock and queue; another loop may go on with them.
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
    env: SimEnv
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
            "assumptions": assumptions(
                self.scenario.world, self.topology.estate, self.scenario.job.timeouts
            ),
        }
        if not any(row[1] == Quantity.DELTA_OPEN_BYTES for row in self.world.series.rows):
            self.world.sample_deltas(max(self.result.makespan_s, 1.0) / DELTA_SAMPLES)
        placements = placement_rows(self.topology, self.plan)
        return from_result(self.result, placements, self.world.series.rows, meta)


def simulate(
    scenario: Scenario,
    *,
    seed: int | None = None,
    strategy: Strategy | None = None,
    progress: Progress | None = None,
    estate: Estate | None = None,
    once: bool = True,
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
    once:
        This is not one of many short runs, and may collect garbage first: see
        :func:`~.sim.collecting.few_collections`.

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
    with few_collections(freeze=once), asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run.main())
    return run.simulation(loop)


def job_id_of(scenario: str, seed: int) -> str:
    """A job identifier that a replay of the same scenario and seed gets again."""
    return hashlib.blake2b(f"{scenario}\x1f{seed}".encode(), digest_size=5).hexdigest()


class _Run:
    """What the run's coroutine works with, and what it leaves.

    The coroutine returns nothing: asyncio's Runner formats the main task when it puts the signal
    handler back, and a result with it.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        estate: Estate,
        world: World,
        log: EventLog,
        strategy: Strategy | None,
        progress: Progress | None,
    ) -> None:
        self._scenario = scenario
        self._seed = seed
        self._estate = estate
        self._world = world
        self._log = log
        self._strategy = strategy
        self._progress = progress

    async def main(self) -> None:
        """Plan at t=0, run the job, let the world go on for a while."""
        spec = self._scenario.job
        world = self._world
        found = await discover(world.hypervisors, world.arrays, self._estate.arrays)
        self._topology = Topology(found)
        self._plan = make_plan(self._topology, spec, self._strategy)
        await asyncio.sleep(self._scenario.plan_age)
        self._job = Job(
            job_id_of(self._scenario.name, self._seed),
            spec,
            self._plan,
            self._topology,
            world.hypervisors,
            world.arrays,
            random=random.Random(f"{self._seed}/retry"),
            log=self._log,
            progress=self._progress,
            array_descriptions=self._estate.arrays,
        )
        await self._run_job()
        await asyncio.sleep(self._scenario.observe)

    async def _run_job(self) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._job.run())
        cancel_s = self._scenario.cancel_s
        alarm = loop.call_at(cancel_s, task.cancel) if cancel_s is not None else None
        try:
            await task
        except asyncio.CancelledError:
            if self._job.result is None or not task.cancelled():
                raise
        finally:
            if alarm is not None:
                alarm.cancel()

    def simulation(self, loop: SimLoop) -> Simulation:
        """The finished run."""
        assert self._job.result is not None  # noqa: S101  main() has returned
        return Simulation(
            scenario=self._scenario,
            seed=self._seed,
            topology=self._topology,
            plan=self._plan,
            result=self._job.result,
            world=self._world,
            env=loop.env,
            events_run=loop.events_run,
            callbacks_run=loop.callbacks_run,
            limit_peaks=self._job.limiter.peaks(),
        )
