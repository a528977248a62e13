"""In-memory systems with what a dead job has left on them, and its journal."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from support_jobs import FOREIGN
from support_memory import Faults, MemoryArray, MemoryHypervisor, small_estate

from stillframe.drivers.contracts import ConsistencyLevel, GroupSnapshot, GroupSnapshotRef
from stillframe.orchestrator.events import EventLog
from stillframe.orchestrator.journal import Intent, IntentKind, Journal
from stillframe.orchestrator.memory_store import MemoryStore
from stillframe.orchestrator.recover import Recovery, recover_all
from stillframe.orchestrator.result import CatalogueEntry
from stillframe.orchestrator.spec import JobSpec
from stillframe.sim.loop import SimLoop

JOB = "20260102t030405-abcdef"
OURS = f"stillframe-{JOB}-"
OTHER = "stillframe-20260102t030405-abcdee-1"


class Scene:
    """Six VMs on one array, snapshots of others among them, and the journal of a dead job."""

    def __init__(self, **spec: Any) -> None:
        self.spec = JobSpec.model_validate({"retry": {"attempts": 2}, **spec})
        estate = small_estate(6, 3)
        self.faults = Faults()
        self.hypervisor = MemoryHypervisor(estate.inventory, self.faults)
        self.array = MemoryArray("a1", estate.units, self.faults)
        self.hypervisors: dict[str, Any] = {"vc": self.hypervisor}
        self.arrays: dict[str, Any] = {"a1": self.array}
        for tag in (FOREIGN, OTHER):
            self.hypervisor.add_foreign("vc/vm1", tag)
            self.hold(tag)
        self.now_s = 0.0
        self.store = MemoryStore(lambda: self.now_s)
        self.journal = self.begin(JOB)
        self.told: list[str] = []
        self.log = EventLog()
        self.ended_s = 0.0
        self.before: Callable[[], Any] = lambda: None

    def begin(self, job_id: str, name: str = "night") -> Journal:
        return self.store.begin(job_id, name=name, spec="{}", holder="dead", lease_s=30.0)

    def vm_intent(self, number: int, vm_id: str, vcenter_id: str = "vc") -> str:
        """A create of the dead job, of which nobody knows what came."""
        tag = f"{OURS}{number}"
        self.journal.intend(Intent(tag, IntentKind.VM_SNAPSHOT, vcenter_id, vm_id, 0.0))
        return tag

    def array_intent(self, number: int, array_id: str = "a1") -> str:
        """A group snapshot of the dead job, of which nobody knows what came."""
        tag = f"{OURS}{number}"
        self.journal.intend(Intent(tag, IntentKind.ARRAY_SNAPSHOT, array_id, array_id, 0.0))
        return tag

    def hold(self, tag: str) -> GroupSnapshotRef:
        """An array snapshot that exists."""
        ref = GroupSnapshotRef("a1", f"gs-{tag}", tag)
        self.array.snapshots.append(GroupSnapshot(ref, ("a1/lun0",)))
        return ref

    def keep(self, vm: str, *cuts: GroupSnapshotRef) -> None:
        """A catalogue entry of the dead job."""
        entry = CatalogueEntry(f"vc/{vm}", ConsistencyLevel.CRASH, 0.0, cuts, ("a1/lun0",), vm)
        self.journal.keep([entry], 0.0)

    def recover(self, **options: Any) -> list[Recovery]:
        """Recover once, in virtual time, after the lease has run out."""
        self.now_s += 60.0

        async def main() -> list[Recovery]:
            self.before()
            answer = await recover_all(
                self.store,
                self.spec,
                self.hypervisors,
                self.arrays,
                holder="alive",
                lease_s=30.0,
                random=random.Random(1),
                log=self.log,
                tell=self.told.append,
                **options,
            )
            self.ended_s = asyncio.get_running_loop().time()
            for worker in (self.hypervisor.worker, self.array.worker):
                await worker.settle()
                worker.tasks.clear()
            return answer

        with asyncio.Runner(loop_factory=SimLoop) as runner:
            recoveries = runner.run(main())
        refs = [ref.tag for ref in self.hypervisor.snapshots.get("vc/vm1", [])]
        assert [tag for tag in refs if tag in (FOREIGN, OTHER)] == [FOREIGN, OTHER]
        assert {FOREIGN, OTHER} <= {one.ref.tag for one in self.array.snapshots}
        return recoveries

    def one(self, **options: Any) -> Recovery:
        (recovery,) = self.recover(**options)
        assert sorted([*recovery.removed, *recovery.left]) == sorted(
            one for one in self.told if "cannot be restored" not in one
        )
        self.told.clear()
        return recovery

    def left(self) -> list[str]:
        """Tags of the job that are anywhere."""
        refs = [ref.tag for refs in self.hypervisor.snapshots.values() for ref in refs]
        refs += [one.ref.tag for one in self.array.snapshots]
        return sorted(tag for tag in refs if tag.startswith(OURS))

    def open(self) -> int:
        return sum(record.open_intents for record in self.store.jobs())
