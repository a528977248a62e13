"""What the processes of a run do: a job, a recovery, a pruning, as the front door would do them."""

from __future__ import annotations

import asyncio
import random

from ..drivers.errors import DriverError
from ..drivers.records import Estate
from ..orchestrator.discover import discover
from ..orchestrator.job import Job
from ..orchestrator.plan import make_plan
from ..orchestrator.prune import prune
from ..orchestrator.recover import recover_all
from ..orchestrator.retention import Retention, RetentionPolicy
from ..orchestrator.strategies import Strategy
from ..sim.env import SimEnv
from ..topology.graph import Topology
from .evidence import JobStory
from .incarnation import Incarnation
from .options import RunOptions
from .setting import Setting
from .watch import WatchedLog

PLANNING_ATTEMPTS = 5
PLANNING_PAUSE_S = 30.0


class Duties:
    """The work of one run's processes.

    Parameters
    ----------
    name:
        Of the job, in the journal.
    strategy, retention:
        Functions that take the place of what the options name.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        options: RunOptions,
        setting: Setting,
        env: SimEnv,
        log: WatchedLog,
        strategy: Strategy | None,
        retention: RetentionPolicy | None,
    ) -> None:
        self._name = name
        self._seed = seed
        self._options = options
        self._setting = setting
        self._env = env
        self._log = log
        self._strategy = strategy
        self._retention = retention

    async def job(self, life: Incarnation, story: JobStory) -> None:
        """Read the estate, plan, wait, run; what is known of it goes into the story."""
        setting, options = self._setting, self._options
        spec = setting.second_spec if story.second else setting.spec
        topology = Topology(await self._discover(life))
        story.plan = make_plan(topology, spec, self._strategy)
        if setting.plan_age_s:
            await asyncio.sleep(setting.plan_age_s)
        story.began_s = self._env.now
        journal = life.store.begin(
            story.job_id,
            name=self._name,
            spec="{}",
            holder=life.name,
            lease_s=options.lease_s,
        )
        story.job = job = Job(
            story.job_id,
            spec,
            story.plan,
            topology,
            life.hypervisors,
            life.arrays,
            random=self._random(life),
            log=self._log,
            journal=journal,
            array_descriptions=setting.estate.arrays,
        )
        alarms = [life.loop.call_later(at_s, self._cancel, life, story) for at_s in self._cancels()]
        try:
            await job.run()
        finally:
            for alarm in alarms:
                alarm.cancel()

    async def recovery(self, life: Incarnation) -> None:
        """Recover every job that nobody holds."""
        await recover_all(
            life.store,
            self._setting.spec,
            life.hypervisors,
            life.arrays,
            holder=life.name,
            lease_s=self._options.lease_s,
            random=self._random(life),
            log=self._log,
            array_descriptions=self._setting.estate.arrays,
        )

    async def pruning(self, life: Incarnation) -> None:
        """Give up what the drawn rule does not keep."""
        keep = self._options.prune
        assert keep is not None, "only asked for when there is a rule"  # noqa: S101
        await prune(
            life.store,
            Retention.model_construct(
                keep_last=keep.keep_last,
                keep_within=keep.keep_within_s,
                snapshots_per_unit=keep.snapshots_per_unit,
            ),
            life.arrays,
            now_s=self._env.now,
            holder=life.name,
            lease_s=self._options.lease_s,
            random=self._random(life),
            spec=self._setting.spec,
            policy=self._retention,
            log=self._log,
        )

    async def _discover(self, life: Incarnation) -> Estate:
        """Read the estate; whoever plans a job tries again when a system does not answer."""
        described = self._setting.estate.arrays
        for _ in range(PLANNING_ATTEMPTS - 1):
            try:
                return await discover(life.hypervisors, life.arrays, described)
            except DriverError:
                await asyncio.sleep(PLANNING_PAUSE_S)
        return await discover(life.hypervisors, life.arrays, described)

    def _random(self, life: Incarnation) -> random.Random:
        return random.Random(f"{self._seed}/retry/{life.number}")

    def _cancels(self) -> list[float]:
        first_s, again_s = self._options.cancel_s, self._options.cancel_again_s
        if first_s is None:
            return []
        return [first_s] if again_s is None else [first_s, first_s + again_s]

    def _cancel(self, life: Incarnation, story: JobStory) -> None:
        story.cancelled = True
        life.cancel()
