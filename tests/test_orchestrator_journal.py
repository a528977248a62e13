"""The job and its journal: what is kept when, and what the loss of either does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from support_jobs import Bench, assert_clean, assert_protected_where_cut, bench, error, kinds
from support_memory import Fault

from stillframe.drivers.contracts import (
    ConsistencyLevel,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    VmSnapshot,
    VmSnapshotRef,
)
from stillframe.drivers.errors import NeverWillError, UnknownOutcomeError
from stillframe.errors import StillframeError
from stillframe.orchestrator.arraycalls import ArrayCutter, delete_array_snapshot
from stillframe.orchestrator.context import Context, VmWork, WorkFactory
from stillframe.orchestrator.events import EventLog, Kind
from stillframe.orchestrator.journal import RUNNING, LeaseLostError
from stillframe.orchestrator.lease import Tenure
from stillframe.orchestrator.memory_store import MemoryStore
from stillframe.orchestrator.result import CatalogueEntry, JobStatus, VmOutcome, VmStatus
from stillframe.orchestrator.spec import JobSpec
from stillframe.orchestrator.vmcalls import open_vm, release_vm, tidy_vm
from stillframe.sim.loop import SimLoop
from stillframe.topology.graph import Topology

ALL_AT_ONCE = JobSpec.model_validate({"strategy": "all-at-once"})


class Spy:
    """A journal that notes its calls, and fails where a test says so."""

    def __init__(self, store: MemoryStore, lease_s: float) -> None:
        self.inner = store.begin("test", name="test", spec="{}", holder="one", lease_s=lease_s)
        self.calls: list[tuple[str, Any]] = []
        self.failing: dict[str, StillframeError] = {}
        self.lost_at: int | None = None
        self.touched = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not callable(value):
            return value

        def call(*args: Any) -> Any:
            self.calls.append((name, args[0] if args else None))
            if name in self.failing:
                raise self.failing[name]
            try:
                return value(*args)
            except LeaseLostError:
                if self.lost_at is None:
                    self.lost_at = self.touched
                raise

        return call


class Held:
    """A job over in-memory drivers, with a store that outlives it."""

    def __init__(self, spec: JobSpec | None = None, *, lease_s: float = 30.0, seed: int = 1):
        self.ahead_s = 0.0
        self.store = MemoryStore(lambda: self.ahead_s)
        self.spy = Spy(self.store, lease_s)
        self.ran: Bench = bench(spec, journal=self.spy, seed=seed)  # type: ignore[arg-type]
        for driver, methods in (
            (self.ran.hypervisor, ("create_snapshot", "remove_snapshot", "consolidate")),
            (self.ran.array, ("snapshot_group", "delete_snapshot")),
        ):
            for name in methods:
                setattr(driver, name, self._counted(getattr(driver, name)))

    def _counted(self, method: Any) -> Any:
        async def call(*args: Any) -> Any:
            self.spy.touched += 1
            return await method(*args)

        return call

    def lose(self) -> None:
        """Another orchestrator takes the job."""
        self.ahead_s += 1e6
        self.store.take_over("test", holder="two", lease_s=30.0)


def test_a_finished_job_is_in_the_store_as_its_result_says() -> None:
    held = Held()
    result = held.ran.run()
    (record,) = held.store.jobs()
    assert record.status == result.status.value == "protected"
    assert not record.unfinished
    assert not record.holder
    kept = {entry.vm_id: (entry.cuts, entry.level) for entry in held.store.entries()}
    assert kept == {entry.vm_id: (entry.cuts, entry.level) for entry in result.catalogue}
    assert len(kept) == 6
    assert held.spy.calls[-1] == ("finish", "protected")


def test_each_group_is_kept_once_and_before_its_first_release() -> None:
    held = Held(JobSpec.model_validate({"limits": {"groups": 1}}))
    held.ran.hypervisor.on_removed = lambda ref: held.spy.calls.append(("removed", ref.vm_id))
    result = held.ran.run()
    kept: list[str] = []
    for name, what in held.spy.calls:
        if name == "keep":
            kept += [entry.vm_id for entry in what]
        if name == "removed":
            assert what in kept
    assert sum(name == "keep" for name, _ in held.spy.calls) == len(result.groups)
    assert len(kept) == 6


def test_a_group_without_a_cut_keeps_nothing() -> None:
    held = Held(ALL_AT_ONCE)
    held.ran.faults.add("cut", "a1", *[Fault(error(NeverWillError))] * 9)
    held.ran.run()
    assert "keep" not in [name for name, _ in held.spy.calls]
    assert not held.store.entries()


def test_what_the_array_no_longer_lists_at_the_end_is_withdrawn() -> None:
    held = Held(ALL_AT_ONCE)
    held.ran.hypervisor.on_removed = lambda ref: held.ran.array.snapshots.clear()
    result = held.ran.run()
    assert result.status is JobStatus.FAILED
    assert not held.store.entries()
    assert not held.store.jobs()[0].unfinished, "a cut that is gone is not looked for"


def test_what_an_array_that_is_silent_at_the_end_may_hold_is_not_forgotten() -> None:
    held = Held(ALL_AT_ONCE)
    never = [Fault(error(UnknownOutcomeError))] * 99
    held.ran.hypervisor.on_removed = lambda ref: held.ran.faults.planned.update(
        {("list", "a1"): list(never), ("delete", "a1"): list(never)}
    )
    result = held.ran.run()
    assert not held.store.entries()
    (tag,) = [one.ref.tag for one in held.ran.array.snapshots]
    assert result.orphans == [f"array snapshot {tag} on a1 is not deleted"]
    assert held.store.jobs()[0].unfinished


def test_a_deletion_whose_answers_were_lost_leaves_no_orphan_to_report() -> None:
    """It happened, and nobody said so: the array does not list the snapshot any more."""
    spec = JobSpec.model_validate({"strategy": "all-at-once", "retry": {"attempts": 1}})
    held = Held(spec)
    held.ran.faults.add("delete", "a1", Fault(error(UnknownOutcomeError), after=True))
    held.ran.array.on_cut = lambda request: [
        held.ran.hypervisor.snapshots[vm_id].clear() for vm_id in held.ran.hypervisor.vms
    ]
    result = held.ran.run()
    assert not held.ran.array.snapshots
    assert result.orphans == []
    assert result.makespan_s < 60.0
    assert not held.store.jobs()[0].unfinished


@pytest.mark.parametrize("site", [("create", "vc/vm3"), ("cut", "a1")])
def test_what_may_yet_appear_when_the_job_ends_is_reported_and_not_forgotten(
    site: tuple[str, str],
) -> None:
    held = Held(JobSpec.model_validate({"strategy": "all-at-once", "retry": {"attempts": 1}}))
    held.ran.hypervisor.reports_running = False
    held.ran.faults.add(*site, Fault(hang=True))
    (orphan,) = held.ran.run().orphans
    assert orphan.endswith(f"on {site[1]} may exist or may yet appear")
    assert held.store.jobs()[0].open_intents == 1


class TestPartialGroups:
    """An array that answers with less than it was asked for."""

    def partial(self, held: Held, *, lost: bool = False) -> None:
        array = held.ran.array
        whole = array.snapshot_group

        async def snapshot_group(request: GroupSnapshotRequest) -> GroupSnapshot:
            snapshot: GroupSnapshot = await whole(replace(request, unit_ids=request.unit_ids[:-1]))
            if lost:
                raise error(UnknownOutcomeError)
            return snapshot

        array.snapshot_group = snapshot_group  # type: ignore[method-assign]

    @pytest.mark.parametrize("lost", [False, True])
    def test_it_protects_nobody_and_is_deleted(self, lost: bool) -> None:
        held = Held(ALL_AT_ONCE)
        self.partial(held, lost=lost)
        result = held.ran.run()
        assert result.status is JobStatus.FAILED
        assert not result.catalogue
        assert not held.store.entries()
        assert "lacks 1 of 3 units, among them a1/lun2" in result.vms[0].reason
        assert result.calls[0].attempts == 1, "its tag would bring the same one again"
        assert not held.ran.array.snapshots
        assert not result.orphans
        assert_clean(held.ran)

    def test_groups_that_are_whole_are_protected(self) -> None:
        held = Held()
        whole = held.ran.array.snapshot_group

        async def snapshot_group(request: GroupSnapshotRequest) -> GroupSnapshot:
            if request.unit_ids == ("a1/lun2",):
                request = replace(request, unit_ids=("a1/lun1",))
            return await whole(request)

        held.ran.array.snapshot_group = snapshot_group  # type: ignore[method-assign]
        result = held.ran.run()
        assert result.status is JobStatus.PARTLY
        assert {vm.name for vm in result.vms if vm.status is VmStatus.PROTECTED} == {
            "vm0",
            "vm1",
            "vm3",
            "vm4",
        }
        assert_protected_where_cut(held.ran)
        assert_clean(held.ran)

    def test_an_answer_about_another_snapshot_is_neither_used_nor_deleted(self) -> None:
        held = Held(ALL_AT_ONCE)
        foreign = GroupSnapshot(
            GroupSnapshotRef("a1", "gs-9", "nightly"), ("a1/lun0", "a1/lun1", "a1/lun2"), 0.0
        )
        held.ran.array.snapshots.append(foreign)

        async def snapshot_group(request: GroupSnapshotRequest) -> GroupSnapshot:
            return foreign

        held.ran.array.snapshot_group = snapshot_group  # type: ignore[method-assign]
        result = held.ran.run()
        assert result.status is JobStatus.FAILED
        assert "answered with snapshot nightly" in result.vms[0].reason
        assert held.ran.array.snapshots == [foreign]


class TestLostLease:
    def lost_at(self, step: int, seed: int) -> Held:
        """A job that loses its lease at this step of its work."""
        held = Held(seed=seed)

        async def main() -> None:
            task = asyncio.get_running_loop().create_task(held.ran.job.run())
            for _ in range(step):
                await asyncio.sleep(0)
            if not task.done():
                held.lose()
            await asyncio.wait([task])
            assert isinstance(task.exception(), LeaseLostError) == (held.spy.lost_at is not None)
            await held.ran.hypervisor.worker.settle()
            await held.ran.array.worker.settle()
            await asyncio.sleep(1000.0)

        with asyncio.Runner(loop_factory=SimLoop) as runner:
            runner.run(main())
        return held

    def test_nothing_is_touched_once_it_is_known(self) -> None:
        lost = 0
        for step in range(0, 160, 2):
            held = self.lost_at(step, step % 5)
            if held.spy.lost_at is not None:
                lost += 1
                assert held.spy.touched == held.spy.lost_at
                assert held.store.jobs()[0].status == RUNNING
        assert lost > 20

    def test_a_removal_under_way_is_not_waited_for(self) -> None:
        held = Held()
        held.ran.faults.add("remove", "vc/vm3", Fault(delay_s=5000.0))
        ended: list[float] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(100.0, held.lose)
            task = loop.create_task(held.ran.job.run())
            loop.call_later(50.0, task.cancel)
            try:
                await task
            except LeaseLostError:
                ended.append(loop.time())
            await held.ran.hypervisor.worker.settle()

        with asyncio.Runner(loop_factory=SimLoop) as runner:
            runner.run(main())
        assert ended == [100.0], "at the renewal"


CALLS: dict[str, Callable[[Context, VmWork], Awaitable[object]]] = {
    "create": open_vm,
    "remove": release_vm,
    "consolidate": tidy_vm,
    "cut": lambda context, _: ArrayCutter(context).cut("g", "a1", ["a1/lun0"]),
    "delete": lambda context, _: delete_array_snapshot(
        context, "g", GroupSnapshotRef("a1", "gs-1", "stillframe-test-9")
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_asked_of_a_system_without_the_lease(name: str) -> None:
    """Also when the loss was noticed elsewhere, and this call has not been cancelled yet."""
    held = Held()
    ran = held.ran

    async def main() -> None:
        topology = Topology(ran.estate)
        tenure = Tenure(held.spy)  # type: ignore[arg-type]
        systems: Any = ({"vc": ran.hypervisor}, {"a1": ran.array})
        context = Context(
            "test", JobSpec(), *systems, topology, random.Random(1), EventLog(), tenure
        )
        context.now_s = asyncio.get_running_loop().time
        vm = topology.vm("vc/vm0")
        work = WorkFactory(context).work(vm, VmOutcome(vm.id, vm.name, "g"))
        ref = VmSnapshotRef(vm.id, "snap-1", "stillframe-test-1")
        location = ran.hypervisor.location(vm.id)
        work.snapshot = VmSnapshot(ref, ConsistencyLevel.CRASH, location, 0.0)
        held.lose()
        with pytest.raises(LeaseLostError):
            tenure.renew()
        with pytest.raises(LeaseLostError):
            await CALLS[name](context, work)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())
    assert held.spy.touched == 0


class TestFailingJournal:
    FULL = StillframeError("the journal cannot be written: the disk is full", "make room")

    def run(self, held: Held) -> StillframeError:
        with pytest.raises(StillframeError) as caught:
            held.ran.run()
        return caught.value

    @pytest.mark.parametrize("call", ["intend", "keep"])
    def test_everything_is_released_and_the_error_is_raised_as_itself(self, call: str) -> None:
        held = Held()
        held.spy.failing[call] = self.FULL
        assert self.run(held) is self.FULL
        left: Sequence[Any] = [
            ref.tag for refs in held.ran.hypervisor.snapshots.values() for ref in refs
        ]
        assert left == ["before-upgrade"] * 2
        assert not held.store.entries()

    def test_entries_that_were_not_written_are_not_claimed(self) -> None:
        held = Held(ALL_AT_ONCE)
        held.spy.failing["keep"] = self.FULL
        self.run(held)
        result = held.ran.job.result
        assert result is not None
        assert not result.catalogue
        assert not held.ran.array.snapshots
        assert {vm.status for vm in result.vms} == {VmStatus.UNPROTECTED}
        assert "its entry was not written" in result.vms[0].reason

    def test_an_outcome_that_cannot_be_noted_is_told_and_harms_nothing(self) -> None:
        held = Held()
        held.spy.failing["settle"] = self.FULL
        result = held.ran.run()
        assert result.protected == 6
        assert kinds(held.ran, Kind.JOURNAL_TROUBLE) == ["test"]


def test_entries_name_the_vm_for_people() -> None:
    held = Held(ALL_AT_ONCE)
    result = held.ran.run()
    assert all(isinstance(entry, CatalogueEntry) for entry in result.catalogue)
    assert [entry.vm_name for entry in result.catalogue] == [f"vm{n}" for n in range(6)]
