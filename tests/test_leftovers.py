"""Removing what one earlier job left: all of it, nothing else, and saying what stays."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_jobs import FOREIGN, error
from support_memory import Fault, Faults, MemoryArray, MemoryHypervisor, small_estate

from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRef
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    HappenedError,
    NeverWillError,
    UnknownOutcomeError,
)
from stillframe.orchestrator import reconcile
from stillframe.orchestrator.context import Context
from stillframe.orchestrator.events import EventLog
from stillframe.orchestrator.lease import Tenure
from stillframe.orchestrator.leftovers import Clearance, EarlierJob, clear_leftovers
from stillframe.orchestrator.memory_store import throwaway_journal
from stillframe.orchestrator.spec import JobSpec
from stillframe.sim.loop import SimLoop
from stillframe.topology.graph import Topology

JOB = "20260102t030405-abcdef"
OURS = f"stillframe-{JOB}-"
NOT_OURS = [
    FOREIGN,
    "",
    "stillframe-20260102t030405-abcdee-1",
    f"{OURS}2-1",
    f"{OURS}keep",
    f"{OURS}",
    f"{OURS}1 ",
    f"{OURS}\u0661",
    f"copy of {OURS}1",
    f"stillframe-{JOB}1-1",
    f"STILLFRAME-{JOB}-1",
]
"""Tags that a person, another job or an attentive reader of ours may have given."""


@dataclass
class Scene:
    """Six VMs that carry snapshots of others, and an array that does."""

    spec: JobSpec = field(
        default_factory=lambda: JobSpec.model_validate({"retry": {"attempts": 2}})
    )
    unsettled: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.estate = small_estate(6, 3)
        self.faults = Faults()
        self.hypervisor = MemoryHypervisor(self.estate.inventory, self.faults)
        self.array = MemoryArray("a1", self.estate.units, self.faults)
        for tag in NOT_OURS:
            self.hypervisor.add_foreign("vc/vm1", tag)
            self.hold(tag)
        self.told: list[str] = []
        self.ended_s = 0.0
        self.late: asyncio.Task[object] | None = None

    def hold(self, tag: str) -> None:
        """An array snapshot that exists."""
        ref = GroupSnapshotRef("a1", f"gs-{tag}", tag)
        self.array.snapshots.append(GroupSnapshot(ref, ("a1/lun0",)))

    def clear(self) -> Clearance:
        """Clear once, in virtual time."""

        async def main() -> Clearance:
            answer = await clear_leftovers(
                EarlierJob(JOB, self.kept, self.unsettled),
                self.spec,
                Topology(self.estate),
                {"vc": self.hypervisor},
                {"a1": self.array},
                random=random.Random(1),
                tell=self.told.append,
            )
            self.ended_s = asyncio.get_running_loop().time()
            for worker in (self.hypervisor.worker, self.array.worker):
                await worker.settle()
                worker.tasks.clear()
            return answer

        with asyncio.Runner(loop_factory=SimLoop) as runner:
            cleared = runner.run(main())
        assert sorted(self.told) == sorted([*cleared.removed, *cleared.left])
        self.told.clear()
        refs = [ref.tag for ref in self.hypervisor.snapshots["vc/vm1"] if ref.tag in NOT_OURS]
        assert refs == NOT_OURS
        assert not set(NOT_OURS) & set(self.hypervisor.changed)
        assert set(NOT_OURS) <= set(self.array_tags())
        return cleared

    def left(self) -> list[str]:
        """Tags of the job's VM snapshots that exist."""
        refs = [ref.tag for refs in self.hypervisor.snapshots.values() for ref in refs]
        return [tag for tag in refs if tag not in NOT_OURS]

    def array_tags(self) -> list[str]:
        """Tags of all array snapshots."""
        return [one.ref.tag for one in self.array.snapshots]


def test_all_of_the_job_is_removed_and_nothing_else() -> None:
    scene = Scene(kept=frozenset([f"{OURS}8"]))
    for number, vm_id in enumerate(["vc/vm0", "vc/vm1", "vc/vm1", "vc/vm5"]):
        scene.hypervisor.add_foreign(vm_id, f"{OURS}{number}")
    scene.hold(f"{OURS}8")
    scene.hold(f"{OURS}9")
    cleared = scene.clear()
    assert scene.left() == []
    assert f"{OURS}8" in scene.array_tags(), "the catalogue names it"
    assert f"{OURS}9" not in scene.array_tags()
    assert sorted(cleared.removed) == [
        f"deleted array snapshot {OURS}9 on a1",
        f"removed VM snapshot {OURS}0 of vm0 (vc/vm0)",
        f"removed VM snapshot {OURS}1 of vm1 (vc/vm1)",
        f"removed VM snapshot {OURS}2 of vm1 (vc/vm1)",
        f"removed VM snapshot {OURS}3 of vm5 (vc/vm5)",
    ]
    assert cleared.left == []
    changed = len(scene.hypervisor.changed)
    assert scene.clear() == Clearance()
    assert len(scene.hypervisor.changed) == changed


def test_removals_are_repeated_and_lost_answers_looked_for() -> None:
    scene = Scene()
    kinds = [BusyError, UnknownOutcomeError, DidNotHappenError]
    for number, kind in enumerate(kinds):
        scene.hypervisor.add_foreign(f"vc/vm{number}", f"{OURS}{number}")
        scene.faults.add("remove", f"vc/vm{number}", Fault(error=error(kind)))
    scene.hypervisor.add_foreign("vc/vm3", f"{OURS}3")
    scene.faults.add("remove", "vc/vm3", Fault(error=error(UnknownOutcomeError), after=True))
    scene.hold(f"{OURS}4")
    scene.faults.add("delete", "a1", Fault(error=error(BusyError)))
    scene.faults.add("list", "a1", Fault(error=error(BusyError)))
    scene.faults.add("list", "", Fault(error=error(BusyError)))
    cleared = scene.clear()
    assert len(cleared.removed) == 5
    assert cleared.left == []
    assert scene.left() == []


def test_what_cannot_be_removed_is_said_and_the_rest_is_removed() -> None:
    scene = Scene()
    for number in range(3):
        scene.hypervisor.add_foreign(f"vc/vm{number}", f"{OURS}{number}")
        scene.hold(f"{OURS}{number + 3}")
    never = [Fault(error=error(NeverWillError)) for _ in range(9)]
    scene.faults.add("remove", "vc/vm1", *never)
    scene.faults.add("delete", "a1", never[0])
    cleared = scene.clear()
    assert sorted(cleared.left) == [
        f"VM snapshot {OURS}1 on vm1 (vc/vm1) is not removed: ordered by the test",
        f"array snapshot {OURS}3 on a1 is not deleted: op on object failed: ordered by the test",
    ]
    assert scene.left() == [f"{OURS}1"]
    assert len(cleared.removed) == 4
    assert len(scene.faults.planned["remove", "vc/vm1"]) == 7, "two attempts, as the job says"

    scene.faults.planned.clear()
    again = scene.clear()
    assert (len(again.removed), again.left) == (2, [])
    assert scene.left() == []


def test_a_system_that_gives_no_answer_is_named_once_and_the_others_are_cleared() -> None:
    scene = Scene(unsettled=frozenset(["vc/vm0"]))
    scene.hypervisor.add_foreign("vc/vm0", f"{OURS}0")
    scene.hold(f"{OURS}1")
    silent = [Fault(error=error(UnknownOutcomeError)) for _ in range(9)]
    scene.faults.add("list", "", *silent)
    cleared = scene.clear()
    assert cleared.left == ["vc does not list its snapshots; what is left there is left"]
    assert cleared.removed == [f"deleted array snapshot {OURS}1 on a1"]
    scene.faults.planned.clear()
    scene.faults.add("list", "a1", *silent)
    cleared = scene.clear()
    assert cleared.left == ["array a1 does not list its snapshots; what is left there is left"]
    assert scene.left() == []


def test_deltas_of_the_job_are_merged_and_those_of_others_are_not() -> None:
    scene = Scene(unsettled=frozenset(["vc/vm2", "vc/gone"]))
    scene.hypervisor.add_foreign("vc/vm0", f"{OURS}0")
    loose = {"vc/vm0": 1, "vc/vm2": 1, "vc/vm3": 1}
    scene.hypervisor.loose_deltas = dict(loose)
    cleared = scene.clear()
    assert scene.hypervisor.loose_deltas == {"vc/vm3": 1}
    assert "merged the delta left on vm2 (vc/vm2)" in cleared.removed
    assert cleared.left == []


def test_a_removal_that_leaves_its_delta_is_finished_or_said() -> None:
    scene = Scene()
    scene.hypervisor.add_foreign("vc/vm0", f"{OURS}0")
    scene.faults.add("remove", "vc/vm0", Fault(error=error(HappenedError), after=True))
    scene.hypervisor.loose_deltas = {"vc/vm0": 1}
    refused = [Fault(error=error(NeverWillError)) for _ in range(9)]
    scene.faults.add("consolidate", "vc/vm0", *refused)
    cleared = scene.clear()
    assert scene.left() == []
    assert scene.hypervisor.loose_deltas == {"vc/vm0": 1}
    (told,) = cleared.left
    assert told.startswith(
        f"VM snapshot {OURS}0 on vm0 (vc/vm0) is not removed: its delta is not merged: op"
    )


def test_a_vm_whose_snapshot_stays_is_said_once_and_not_waited_for() -> None:
    scene = Scene(unsettled=frozenset(["vc/vm0"]))
    scene.hypervisor.add_foreign("vc/vm0", f"{OURS}0")
    scene.hypervisor.loose_deltas = {"vc/vm0": 1}
    scene.faults.add("remove", "vc/vm0", *[Fault(error=error(NeverWillError)) for _ in range(9)])
    cleared = scene.clear()
    assert cleared == Clearance(
        left=[f"VM snapshot {OURS}0 on vm0 (vc/vm0) is not removed: ordered by the test"]
    )
    assert len(scene.faults.planned["remove", "vc/vm0"]) == 7
    assert scene.hypervisor.loose_deltas == {"vc/vm0": 1}
    assert scene.ended_s < 10


def late_create(scene: Scene, after_s: float) -> None:
    """A create of the job that is still under way on vm0, and lasts this long."""

    def effect() -> None:
        scene.hypervisor.add_foreign("vc/vm0", f"{OURS}7")

    begun = False

    async def listing(vm_ids: object = None) -> object:
        nonlocal begun
        if not begun:
            begun = True
            scene.faults.add("create", "vc/vm0", Fault(delay_s=after_s))
            worker = scene.hypervisor.worker
            create = worker.carry_out("create", "vc/vm0", effect)
            scene.late = asyncio.get_running_loop().create_task(create)
            await asyncio.sleep(0.01)
        return await MemoryHypervisor.list_snapshots(scene.hypervisor, vm_ids)  # type: ignore[arg-type]

    scene.hypervisor.list_snapshots = listing  # type: ignore[method-assign, assignment]


def test_a_create_that_is_still_under_way_is_waited_for() -> None:
    scene = Scene(unsettled=frozenset(["vc/vm0"]))
    late_create(scene, 100.0)
    cleared = scene.clear()
    assert cleared.removed == [f"removed VM snapshot {OURS}7 of vm0 (vc/vm0)"]
    assert cleared.left == []
    assert scene.left() == []


def test_the_wait_is_bounded_and_only_for_the_jobs_own_vms() -> None:
    scene = Scene(unsettled=frozenset(["vc/vm0"]))
    late_create(scene, 5000.0)
    cleared = scene.clear()
    assert cleared.left == ["an operation on vc/vm0 goes on, and a snapshot may yet come of it"]
    assert 900 <= scene.ended_s < 960

    other = Scene()
    late_create(other, 5000.0)
    assert other.clear() == Clearance()
    assert other.ended_s < 10


def test_no_more_at_once_than_the_job_may() -> None:
    limits = {"remove_per_vcenter": 2}
    scene = Scene(JobSpec.model_validate({"limits": limits}))
    for number in range(6):
        scene.hypervisor.add_foreign(f"vc/vm{number}", f"{OURS}{number}")
        scene.faults.add("remove", f"vc/vm{number}", Fault(delay_s=10.0))
    assert len(scene.clear().removed) == 6
    assert scene.hypervisor.worker.most_running == 2
    assert 30 <= scene.ended_s < 40


def test_a_large_estate_is_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "LISTED_AT_ONCE", 4)
    scene = Scene()
    asked: list[int] = []
    original = scene.hypervisor.list_snapshots

    async def listing(vm_ids: object = None) -> object:
        asked.append(len(vm_ids))  # type: ignore[arg-type]
        return await original(vm_ids)  # type: ignore[arg-type]

    scene.hypervisor.list_snapshots = listing  # type: ignore[method-assign, assignment]
    scene.hypervisor.add_foreign("vc/vm5", f"{OURS}1")
    scene.clear()
    assert scene.left() == []
    assert asked == [4, 2, 1]


def context_of(job_id: str) -> Context:
    """What a job with this identifier would work with."""
    estate = small_estate(1, 1)
    source = random.Random(1)
    return Context(
        job_id,
        JobSpec(),
        {},
        {},
        Topology(estate),
        source,
        EventLog(),
        Tenure(throwaway_journal(job_id, lambda: 0.0)),
    )


@given(
    st.lists(st.lists(st.sampled_from(["1", "2", "a", "12"]), min_size=1, max_size=4), min_size=2),
    st.integers(0, 2000),
)
def test_a_tag_belongs_to_one_job(parts: list[list[str]], number: int) -> None:
    job_ids = dict.fromkeys("-".join(words) for words in parts)
    contexts = [context_of(job_id) for job_id in job_ids]
    for one in contexts:
        one.tags = number
        tag = one.new_tag()
        assert [other.owns(tag) for other in contexts] == [other is one for other in contexts]
