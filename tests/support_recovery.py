"""A job in the modelled world whose process is killed, and those that recover it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from support_world import FIXED, GIB, STEADY, disk, estate, vm

from stillframe.drivers.contracts import VmSnapshotState
from stillframe.drivers.records import Vm
from stillframe.orchestrator.discover import discover
from stillframe.orchestrator.events import EventLog, Row
from stillframe.orchestrator.job import Job
from stillframe.orchestrator.journal import JobRecord, Store
from stillframe.orchestrator.memory_store import MemoryStore
from stillframe.orchestrator.plan import make_plan
from stillframe.orchestrator.recover import Recovery, recover_all, recover_job
from stillframe.orchestrator.result import JobResult
from stillframe.orchestrator.spec import JobSpec
from stillframe.sim.config import WorldConfig
from stillframe.sim.crash import ProcessDeadError, go_on, kill, stand_still
from stillframe.sim.env import SimEnv
from stillframe.sim.loop import SimLoop, SimStepLimitError
from stillframe.sim.world import World
from stillframe.topology.graph import Topology

JOB = "j1"
SPEC = JobSpec.model_validate({"strategy": "per-component", "limits": {"groups": 2}})


class Fenced:
    """Something outside a process, as the process sees it: out of reach once that is dead."""

    def __init__(self, inner: Any, process: Process) -> None:
        self._inner = inner
        self._process = process

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            if self._process.dead:
                raise ProcessDeadError(name)
            answer = value(*args, **options)
            return Fenced(answer, self._process) if name in ("begin", "take_over") else answer

        return call


class Blind(Fenced):
    """A hypervisor that cannot tell whether something runs on a VM."""

    async def list_snapshots(self, vm_ids: Sequence[str] | None = None) -> list[VmSnapshotState]:
        states = await self.__getattr__("list_snapshots")(vm_ids)
        return [state._replace(operation_running=None) for state in states]


class Process:
    """One life of the orchestrator: a loop, and everything outside behind a fence."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.dead = False
        self.loop: SimLoop
        self.task: asyncio.Task[Any]
        fence = Blind if site.blind else Fenced
        self.hypervisors = {key: fence(one, self) for key, one in site.world.hypervisors.items()}
        self.arrays = {key: Fenced(one, self) for key, one in site.world.arrays.items()}

    def run(self, main: Callable[[], Coroutine[Any, Any, Any]], steps: int | None = None) -> Any:
        """Run to the end, or for so many steps of the loop; None when it was killed."""
        try:
            return self.task.result() if self.start(main, steps) else None
        finally:
            self.dead = True
            kill(self.loop)

    def start(self, main: Callable[[], Coroutine[Any, Any, Any]], steps: int | None) -> bool:
        """Run for so many steps of the loop; whether it has come to its end."""
        self.loop = loop = SimLoop(self.site.env)
        loop.step_limit = steps
        self.task = loop.create_task(main())
        try:
            loop.run_until_complete(asyncio.wait([self.task]))
        except SimStepLimitError:
            return self.task.done()
        return True


class Site:
    """The modelled systems, the store, and the processes that come and go."""

    def __init__(
        self,
        vms: Sequence[Vm] = (),
        *,
        store: Callable[[Callable[[], float]], Store] = MemoryStore,
        spec: JobSpec = SPEC,
        world: WorldConfig | None = None,
        lease_s: float = 30.0,
        blind: bool = False,
    ) -> None:
        self.env = SimEnv()
        self.log = EventLog()
        self.spec = spec
        self.lease_s = lease_s
        self.blind = blind
        self.estate = estate(*(vms or small_vms()))
        config = world or quick_world()
        self.world = World(self.env, self.estate, config, seed=1, log=self.log)
        self.store = store(lambda: self.env.now)
        self.steps = 0
        self.result: JobResult | None = None

    def job(self, steps: int | None = None) -> JobResult | None:
        """Run the job, killed after so many steps of its loop."""
        process = Process(self)
        self.result = process.run(self._main(process), steps)
        self.steps = process.loop.steps_run
        return self.result

    def stalled_job(self, steps: int, meanwhile: Callable[[], object]) -> Process:
        """Run the job; its process stands still after so many steps while something happens."""
        process = Process(self)
        if not process.start(self._main(process), steps):
            standstill = stand_still(process.loop)
            meanwhile()
            go_on(process.loop, standstill)
            process.loop.run_until_complete(asyncio.wait([process.task]))
        process.dead = True
        kill(process.loop)
        return process

    def _main(self, process: Process) -> Callable[[], Coroutine[Any, Any, JobResult]]:
        async def main() -> JobResult:
            found = await discover(process.hypervisors, process.arrays, self.estate.arrays)
            topology = Topology(found)
            journal = Fenced(self.store, process).begin(
                JOB, name="night", spec="{}", holder="one", lease_s=self.lease_s
            )
            return await Job(
                JOB,
                self.spec,
                make_plan(topology, self.spec),
                topology,
                process.hypervisors,
                process.arrays,
                random=random.Random(1),
                log=Fenced(self.log, process),  # type: ignore[arg-type]
                journal=journal,
                array_descriptions=self.estate.arrays,
            ).run()

        return main

    def recover(self, steps: int | None = None) -> list[Recovery] | None:
        """Recover every unfinished job when its lease has run out, killed after so many steps."""
        for record in self.store.jobs():
            self.pass_time(max(0.0, record.lease_until_s - self.env.now) + 1e-6)
        return self.recover_now(steps)

    def recover_now(self, steps: int | None = None) -> list[Recovery] | None:
        """Recover every unfinished job that is in nobody's hands."""
        process = Process(self)
        recoveries: list[Recovery] | None = process.run(
            lambda: recover_all(
                Fenced(self.store, process),  # type: ignore[arg-type]
                self.spec,
                process.hypervisors,
                process.arrays,
                holder="two",
                lease_s=self.lease_s,
                random=random.Random(2),
                log=Fenced(self.log, process),  # type: ignore[arg-type]
            ),
            steps,
        )
        self.steps = process.loop.steps_run
        return recoveries

    def recover_again(self) -> Recovery:
        """Recover the one job, whether or not there is anything to do."""
        process = Process(self)
        journal = self.store.take_over(JOB, holder="three", lease_s=self.lease_s)
        recovery = process.run(
            lambda: recover_job(
                journal,
                JOB,
                self.spec,
                process.hypervisors,
                process.arrays,
                random=random.Random(3),
                log=Fenced(self.log, process),  # type: ignore[arg-type]
            )
        )
        assert isinstance(recovery, Recovery)
        return recovery

    def pass_time(self, seconds: float) -> None:
        """Let the systems work on."""
        self.env.run(until=self.env.now + seconds)

    @property
    def record(self) -> JobRecord:
        """What the store says of the job."""
        (record,) = self.store.jobs()
        return record

    def orchestrator_events(self) -> list[Row]:
        """What processes have noted of what they did."""
        return [row for row in self.log.rows if not row[1].startswith("world.")]

    def array_tags(self) -> list[str]:
        """Tags of all complete snapshots that the arrays hold."""
        return sorted(
            held.snapshot.ref.tag
            for array in self.world.arrays.values()
            for held in array._held.values()
            if held.complete
        )

    def named_tags(self) -> list[str]:
        """Tags that the catalogue names."""
        return sorted({ref.tag for entry in self.store.entries() for ref in entry.cuts})

    def assert_clean(self) -> None:
        """Nothing of ours is left, nothing foreign is missing, the catalogue is the truth."""
        assert self.world.leftovers() == []
        assert self.array_tags() == self.named_tags()
        assert self.world.in_flight == 0


def small_vms() -> list[Vm]:
    """Five VMs in two components; one spans two arrays, two carry snapshots of others."""
    return [
        vm("a", disk(2000, "ds1", 10 * GIB), snapshot_count=1),
        vm("b", disk(2000, "ds1", 10 * GIB)),
        vm("c", disk(2000, "ds2", 10 * GIB), disk(2001, "ds3", 10 * GIB)),
        vm("d", disk(2000, "ds3", 10 * GIB), snapshot_count=2),
        vm("e", disk(2000, "ds-nfs", 10 * GIB)),
    ]


def quick_world(**hypervisor: Any) -> WorldConfig:
    """A world without jitter."""
    rule = {"profile": STEADY, "scale_median": 1, "scale_sigma": 0}
    return WorldConfig.model_validate({"hypervisor": {**FIXED, **hypervisor}, "guests": [rule]})
