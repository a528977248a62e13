"""A job over in-memory drivers, and what must hold after it whatever happened."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from support_memory import Faults, MemoryArray, MemoryHypervisor, small_estate

from stillframe.drivers.contracts import ArrayCapabilities
from stillframe.drivers.errors import DriverError
from stillframe.drivers.records import Estate
from stillframe.orchestrator.job import Job
from stillframe.orchestrator.journal import Journal
from stillframe.orchestrator.plan import Plan, make_plan
from stillframe.orchestrator.result import JobResult, VmOutcome
from stillframe.orchestrator.spec import JobSpec
from stillframe.orchestrator.strategies import Strategy
from stillframe.sim.loop import SimLoop
from stillframe.topology.graph import Topology

FOREIGN = "before-upgrade"


@dataclass
class Bench:
    """Drivers, plan and job; ``run`` runs it once in virtual time."""

    estate: Estate
    hypervisor: MemoryHypervisor
    array: MemoryArray
    faults: Faults
    plan: Plan
    job: Job
    steps: int = 0

    def run(
        self, *, cancel_at_s: float | None = None, cancel_at_step: int | None = None
    ) -> JobResult:
        """Run on a SimLoop, then let everything that still works finish."""
        loop = SimLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(self._main(loop, cancel_at_s, cancel_at_step))

    async def _main(
        self, loop: SimLoop, cancel_at_s: float | None, cancel_at_step: int | None
    ) -> JobResult:
        task = loop.create_task(self.job.run())
        if cancel_at_s is not None:
            loop.call_at(cancel_at_s, task.cancel)
        canceller = None
        if cancel_at_step is not None:
            canceller = loop.create_task(_cancel_after(task, cancel_at_step))
        try:
            await task
        except asyncio.CancelledError:
            assert task.cancelled()
        if canceller is not None:
            await canceller
        await self.hypervisor.worker.settle()
        await self.array.worker.settle()
        assert self.job.result is not None
        return self.job.result

    def vm(self, name: str) -> VmOutcome:
        """The outcome of a VM."""
        assert self.job.result is not None
        return next(vm for vm in self.job.result.vms if vm.name == name)


async def _cancel_after(task: asyncio.Task[JobResult], steps: int) -> None:
    for _ in range(steps):
        if task.done():
            return
        await asyncio.sleep(0)
    task.cancel()


def bench(
    spec: JobSpec | None = None,
    *,
    estate: Estate | None = None,
    strategy: Strategy | None = None,
    capabilities: ArrayCapabilities | None = None,
    seed: int = 1,
    change: Callable[[MemoryHypervisor], None] | None = None,
    journal: Journal | None = None,
) -> Bench:
    """A job over :func:`small_estate`; ``change`` alters the hypervisor after the plan is made."""
    spec = spec or JobSpec()
    estate = estate or small_estate(6, 3, [(0, 1)])
    faults = Faults()
    hypervisor = MemoryHypervisor(estate.inventory, faults, seed)
    array = MemoryArray("a1", estate.units, faults, capabilities, seed + 1)
    for vm_id in list(hypervisor.vms)[:2]:
        hypervisor.add_foreign(vm_id, FOREIGN)
    topology = Topology(estate)
    plan = make_plan(topology, spec, strategy)
    if change is not None:
        change(hypervisor)
    job = Job(
        "test",
        spec,
        plan,
        topology,
        {"vc": hypervisor},
        {"a1": array},
        random=random.Random(seed),
        journal=journal,
    )
    return Bench(estate, hypervisor, array, faults, plan, job)


def assert_clean(ran: Bench, *, orphans: Sequence[str] = ()) -> None:
    """Nothing of ours is left, nothing foreign was touched, the catalogue is the whole truth."""
    assert ran.job.result is not None
    left = [ref for refs in ran.hypervisor.snapshots.values() for ref in refs]
    assert [ref.tag for ref in left if ref.tag != FOREIGN] == list(orphans)
    assert sum(ref.tag == FOREIGN for ref in left) == 2
    assert FOREIGN not in ran.hypervisor.changed
    assert not ran.hypervisor.loose_deltas
    catalogued = {ref.tag for entry in ran.job.result.catalogue for ref in entry.cuts}
    assert {one.ref.tag for one in ran.array.snapshots} == catalogued


def assert_protected_where_cut(ran: Bench) -> None:
    """Every catalogued VM has all units of its entry in snapshots that the array holds."""
    assert ran.job.result is not None
    held = {one.ref.tag: set(one.unit_ids) for one in ran.array.snapshots}
    for entry in ran.job.result.catalogue:
        units = set().union(*(held[ref.tag] for ref in entry.cuts))
        assert set(entry.unit_ids) <= units


def error(kind: type[DriverError]) -> DriverError:
    return kind("op", "object", "ordered by the test")


def kinds(ran: Bench, kind: str) -> list[str]:
    """Subjects of the events of one kind."""
    assert ran.job.result is not None
    return [row[3] for row in ran.job.result.events.of(kind)]
