"""The fixture that runs a job: no faults but those of the scenario, everything to look at after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .orchestrator.events import Row
from .orchestrator.plan import Plan
from .orchestrator.result import JobResult
from .orchestrator.spec import JobSpec
from .orchestrator.strategies import Strategy
from .pytest_worlds import Where, make_scenario
from .sim.config import WorldConfig
from .sim.world import World
from .simulation import Simulation, simulate
from .topology.graph import Topology


@dataclass(frozen=True, slots=True)
class JobRun:
    """A job that ran in a modelled world, which it left as clean as it found it."""

    simulation: Simulation

    @property
    def result(self) -> JobResult:
        """What the job did and measured."""
        return self.simulation.result

    @property
    def plan(self) -> Plan:
        """What was planned: groups, components, units, collateral VMs."""
        return self.simulation.plan

    @property
    def topology(self) -> Topology:
        """The estate as a graph."""
        return self.simulation.topology

    @property
    def world(self) -> World:
        """The modelled world after the run."""
        return self.simulation.world

    @property
    def rows(self) -> list[Row]:
        """The event trace: time in seconds, kind, group, subject, detail."""
        return self.result.events.rows

    @property
    def seed(self) -> int:
        """What the world's draws came from."""
        return self.simulation.seed


class JobMaker:
    """Called by a test: plans and runs a job, and checks what it left behind.

    Parameters
    ----------
    seed:
        The test's seed.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(
        self,
        where: Where,
        *,
        strategy: Strategy | None = None,
        spec: JobSpec | Mapping[str, Any] | None = None,
        world: WorldConfig | Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> JobRun:
        """Run the real orchestrator in the modelled world.

        Parameters
        ----------
        where:
            A scenario, an estate, the name of a shipped scenario, or a file of either kind.
        strategy:
            A grouping function instead of the scenario's strategy.
        spec, world:
            Instead of the scenario's ``job`` and ``world``; a mapping, as in a file, instead of
            the entries that it names.
        seed:
            Instead of the test's.

        Raises
        ------
        AssertionError
            The job left something behind, or went over a limit.
        StillframeError
            The scenario cannot be used, nothing is selected, or the strategy's groups do not fit
            the selection.
        """
        __tracebackhide__ = True
        scenario = make_scenario(where, spec=spec, world=world)
        chosen = self._seed if seed is None else seed
        run = simulate(scenario, seed=chosen, strategy=strategy)
        problems = [*_problems(run)]
        if problems:
            listed = "".join(f"\n  {problem}" for problem in problems)
            raise AssertionError(f"after job {run.result.job_id} (seed {chosen}):{listed}")
        return JobRun(run)


def _problems(run: Simulation) -> list[str]:
    over = [
        f"{name} had {peak} operations at once, allowed are {capacity}"
        for name, (peak, capacity) in run.limit_peaks.items()
        if peak > capacity
    ]
    return [*run.world.leftovers(), *run.result.orphans, *over]
