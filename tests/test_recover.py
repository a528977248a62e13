"""Recovering a job of which only the journal is left: what goes, what stays, what is said."""

from __future__ import annotations

import asyncio

import pytest
from support_deadjob import JOB, OURS, Scene
from support_jobs import error
from support_memory import Fault

from stillframe.drivers.contracts import GroupSnapshotRef
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    UnknownOutcomeError,
)
from stillframe.errors import StillframeError
from stillframe.orchestrator.events import Kind
from stillframe.orchestrator.recover import RECOVERED, Recovery


def test_snapshots_of_open_intents_are_removed_and_the_catalogue_stays() -> None:
    scene = Scene()
    for number, vm_id in enumerate(["vc/vm0", "vc/vm1", "vc/vm1", "vc/vm5"]):
        scene.hypervisor.add_foreign(vm_id, scene.vm_intent(number, vm_id))
    scene.keep("vm0", scene.hold(f"{OURS}8"))
    scene.hold(scene.array_intent(9))
    recovery = scene.one()
    assert sorted(recovery.removed) == [
        f"deleted array snapshot {OURS}9 on a1",
        f"removed VM snapshot {OURS}0 of vm0 (vc/vm0)",
        f"removed VM snapshot {OURS}1 of vm1 (vc/vm1)",
        f"removed VM snapshot {OURS}2 of vm1 (vc/vm1)",
        f"removed VM snapshot {OURS}3 of vm5 (vc/vm5)",
    ]
    assert recovery.complete
    assert (recovery.kept, recovery.withdrawn, recovery.held) == (1, 0, "")
    assert scene.left() == [f"{OURS}8"]
    (record,) = scene.store.jobs()
    assert (record.status, record.open_intents, record.holder) == (RECOVERED, 0, "")
    assert scene.log.of(Kind.JOB_RECOVERED)[0][3:] == (JOB, "5 removed, 0 left")
    assert scene.ended_s < 10.0, "nothing had to be waited for"


def test_there_is_nothing_to_recover_of_a_job_that_has_ended_well() -> None:
    scene = Scene()
    scene.keep("vm0", scene.hold(f"{OURS}8"))
    scene.journal.finish("protected")
    assert scene.recover() == []
    assert scene.store.jobs()[0].status == "protected"


def test_a_job_that_has_ended_with_open_intents_is_recovered() -> None:
    scene = Scene()
    scene.hypervisor.add_foreign("vc/vm3", scene.vm_intent(1, "vc/vm3"))
    scene.journal.finish("partly-protected")
    assert scene.one().complete
    assert scene.left() == []


def test_an_entry_whose_cut_is_gone_is_withdrawn_and_its_other_cut_deleted() -> None:
    scene = Scene()
    gone, shared = GroupSnapshotRef("a1", "gs-x", f"{OURS}7"), scene.hold(f"{OURS}8")
    alone = scene.hold(f"{OURS}9")
    scene.keep("vm0", gone, shared)
    scene.keep("vm1", gone, alone)
    scene.keep("vm2", shared)
    recovery = scene.one()
    assert (recovery.kept, recovery.withdrawn) == (1, 2)
    assert recovery.complete
    assert recovery.removed == [f"deleted array snapshot {OURS}9 on a1"]
    assert scene.left() == [f"{OURS}8"]
    assert [entry.vm_name for entry in scene.store.entries()] == ["vm2"]
    assert scene.ended_s < 10.0, "what is gone is not waited for"
    refused = [row[3] for row in scene.log.of(Kind.CATALOGUE_REFUSED)]
    assert refused == ["vc/vm0", "vc/vm1"]


def test_an_array_snapshot_of_the_job_that_no_journal_knows_is_deleted() -> None:
    scene = Scene()
    scene.keep("vm0", scene.hold(f"{OURS}8"))
    scene.hold(f"{OURS}9")
    scene.faults.add("delete", "a1", *[Fault(error(NeverWillError))] * 999)
    recovery = scene.one()
    assert not recovery.complete
    assert scene.open() == 1, "it is not forgotten when it cannot be deleted"
    scene.faults.planned.clear()
    assert scene.one().removed == [f"deleted array snapshot {OURS}9 on a1"]
    assert scene.left() == [f"{OURS}8"]


class TestLateCompletions:
    """Creates that the dead job asked for and that happen during its recovery."""

    def late_create(self, scene: Scene, tag: str, after_s: float) -> None:
        def begin() -> None:
            scene.faults.add("create", "vc/vm0", Fault(delay_s=after_s))
            create = scene.hypervisor.worker.carry_out(
                "create", "vc/vm0", lambda: scene.hypervisor.add_foreign("vc/vm0", tag)
            )
            scene.late = asyncio.get_running_loop().create_task(create)  # type: ignore[attr-defined]

        scene.before = begin

    @pytest.mark.parametrize("tells", [True, False])
    def test_a_vm_snapshot_is_waited_for(self, tells: bool) -> None:
        scene = Scene()
        scene.hypervisor.reports_running = tells
        self.late_create(scene, scene.vm_intent(7, "vc/vm0"), 700.0)
        recovery = scene.one()
        assert recovery.removed == [f"removed VM snapshot {OURS}7 of vm0 (vc/vm0)"]
        assert recovery.complete
        assert scene.left() == []

    def test_the_wait_is_bounded_and_the_intent_stays_open(self) -> None:
        scene = Scene()
        self.late_create(scene, scene.vm_intent(7, "vc/vm0"), 5000.0)
        recovery = scene.one()
        assert recovery.left == [
            "an operation on vc/vm0 goes on, and a snapshot may yet come of it"
        ]
        assert not recovery.complete
        assert 900.0 <= scene.ended_s < 910.0
        assert scene.open() == 1
        scene.before = lambda: None
        assert scene.one().removed == [f"removed VM snapshot {OURS}7 of vm0 (vc/vm0)"]
        assert scene.open() == 0

    def test_an_array_snapshot_is_waited_for(self) -> None:
        scene = Scene()
        tag = scene.array_intent(7)
        scene.before = lambda: asyncio.get_running_loop().call_later(890.0, lambda: scene.hold(tag))
        recovery = scene.one()
        assert recovery.removed == [f"deleted array snapshot {OURS}7 on a1"]
        assert scene.left() == []
        assert recovery.complete

    def test_what_nobody_lists_when_the_wait_is_over_never_happened(self) -> None:
        scene = Scene()
        scene.hypervisor.reports_running = False
        scene.array_intent(7)
        scene.vm_intent(8, "vc/vm0")
        recovery = scene.one()
        assert recovery == Recovery(JOB)
        assert 900.0 <= scene.ended_s < 910.0
        assert scene.open() == 0

    def test_where_nothing_runs_nothing_is_waited_for(self) -> None:
        scene = Scene()
        scene.vm_intent(8, "vc/vm0")
        assert scene.one() == Recovery(JOB)
        assert scene.ended_s < 10.0


class TestRemovals:
    @pytest.mark.parametrize("kind", [BusyError, UnknownOutcomeError, DidNotHappenError])
    @pytest.mark.parametrize("after", [False, True])
    def test_they_are_repeated_and_lost_answers_looked_for(
        self, kind: type[StillframeError], after: bool
    ) -> None:
        scene = Scene()
        scene.hypervisor.add_foreign("vc/vm2", scene.vm_intent(0, "vc/vm2"))
        scene.hold(scene.array_intent(1))
        fault = Fault(error(kind), after and kind is UnknownOutcomeError)  # type: ignore[arg-type]
        scene.faults.add("remove", "vc/vm2", *[fault] * 3)
        scene.faults.add("delete", "a1", *[fault] * 3)
        recovery = scene.one()
        assert recovery.complete
        assert scene.left() == []
        assert scene.open() == 0

    @pytest.mark.parametrize("answer", [HappenedError, NotFoundError, None])
    def test_a_removal_is_done_when_its_delta_is_merged(
        self, answer: type[DriverError] | None
    ) -> None:
        """Whether this one left it, that of the dead job, or a hypervisor that said it had not."""
        scene = Scene()
        tag = scene.vm_intent(0, "vc/vm2")
        scene.hypervisor.add_foreign("vc/vm2", tag)
        if answer is not None:
            scene.faults.add("remove", "vc/vm2", Fault(error(answer), after=True))
        scene.hypervisor.on_removed = lambda ref: scene.hypervisor.loose_deltas.update(
            {"vc/vm2": 1}
        )
        scene.faults.add("consolidate", "vc/vm2", *[Fault(error(NeverWillError))] * 999)
        recovery = scene.one()
        assert scene.open() == 1
        assert not recovery.complete
        scene.faults.planned.clear()
        assert scene.one().complete
        assert not scene.hypervisor.loose_deltas

    def test_loose_deltas_are_merged_where_the_job_may_have_left_them_only(self) -> None:
        scene = Scene()
        scene.vm_intent(0, "vc/vm2")
        scene.hypervisor.loose_deltas = {"vc/vm2": 1, "vc/vm3": 1}
        recovery = scene.one()
        assert recovery.removed == ["merged the delta left on vm2 (vc/vm2)"]
        assert scene.hypervisor.loose_deltas == {"vc/vm3": 1}

    def test_what_is_refused_is_said_and_the_rest_is_removed(self) -> None:
        scene = Scene()
        for number in range(3):
            vm_id = f"vc/vm{number}"
            scene.hypervisor.add_foreign(vm_id, scene.vm_intent(number, vm_id))
            scene.hold(scene.array_intent(number + 3))
        never = [Fault(error(NeverWillError))] * 999
        scene.faults.add("remove", "vc/vm1", *never)
        scene.faults.add("delete", "a1", *never)
        recovery = scene.one()
        assert sorted(recovery.left) == [
            f"VM snapshot {OURS}1 on vm1 (vc/vm1) is not removed: ordered by the test",
            *[
                f"array snapshot {OURS}{n} on a1 is not deleted: "
                "op on object failed: ordered by the test"
                for n in (3, 4, 5)
            ],
        ]
        assert len(recovery.removed) == 2
        assert scene.open() == 4
        scene.faults.planned.clear()
        assert scene.one().complete
        assert scene.left() == []

    def test_no_more_at_once_than_the_job_may(self) -> None:
        scene = Scene(limits={"remove_per_host": 2})
        for number in range(6):
            vm_id = f"vc/vm{number}"
            scene.hypervisor.add_foreign(vm_id, scene.vm_intent(number, vm_id))
            scene.faults.add("remove", vm_id, Fault(delay_s=10.0))
        assert len(scene.one().removed) == 6
        assert scene.hypervisor.worker.most_running == 2


class TestSystemsThatAreNotThere:
    SILENT = [Fault(error(UnknownOutcomeError))] * 999

    def scene(self) -> Scene:
        scene = Scene()
        scene.hypervisor.add_foreign("vc/vm2", scene.vm_intent(0, "vc/vm2"))
        scene.hold(scene.array_intent(1))
        scene.keep("vm0", scene.hold(f"{OURS}8"))
        return scene

    def check(self, scene: Scene, sentence: str, left: list[str]) -> None:
        """What cannot be reached is left; the rest is removed; later all of it is."""
        recovery = scene.one()
        assert recovery.left == [sentence]
        assert not recovery.complete
        assert (recovery.kept, recovery.withdrawn) == (1, 0)
        assert scene.left() == left
        assert scene.open() == 1
        scene.faults.planned.clear()
        scene.hypervisors, scene.arrays = {"vc": scene.hypervisor}, {"a1": scene.array}
        assert scene.one().complete
        assert scene.left() == [f"{OURS}8"]
        assert scene.open() == 0

    def test_a_silent_vcenter(self) -> None:
        scene = self.scene()
        scene.faults.add("list", "", *self.SILENT)
        sentence = "vc does not list its snapshots; what is left there is left"
        self.check(scene, sentence, [f"{OURS}0", f"{OURS}8"])

    def test_a_vcenter_without_an_inventory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = self.scene()
        with monkeypatch.context() as patch:

            async def inventory() -> None:
                raise error(UnknownOutcomeError)

            patch.setattr(scene.hypervisor, "inventory", inventory)
            recovery = scene.one()
        assert recovery.left == ["vc does not list its VMs; what is left there is left"]
        assert scene.open() == 1
        assert scene.one().complete

    def test_a_silent_array(self) -> None:
        scene = self.scene()
        scene.faults.add("list", "a1", *self.SILENT)
        sentence = "array a1 does not list its snapshots; what is left there is left"
        self.check(scene, sentence, [f"{OURS}1", f"{OURS}8"])

    def test_a_vcenter_that_is_not_configured(self) -> None:
        scene = self.scene()
        scene.hypervisors = {}
        sentence = "vc is not in the configuration; what is left there is left"
        self.check(scene, sentence, [f"{OURS}0", f"{OURS}8"])

    def test_an_array_that_is_not_configured(self) -> None:
        scene = self.scene()
        scene.arrays = {}
        sentence = "array a1 is not in the configuration; what is left there is left"
        self.check(scene, sentence, [f"{OURS}1", f"{OURS}8"])

    def test_entries_on_an_array_that_cannot_be_asked_stay_and_are_said(self) -> None:
        scene = Scene()
        scene.keep("vm0", scene.hold(f"{OURS}8"))
        scene.arrays = {}
        recovery = scene.one()
        assert recovery.kept == 1
        assert recovery.left == ["array a1 is not in the configuration; what is left there is left"]
        assert scene.ended_s < 10.0, "there is nothing to wait for"

    def test_a_system_that_answers_again_in_time_is_cleared(self) -> None:
        scene = self.scene()
        scene.faults.add("list", "", *self.SILENT[:9])
        scene.faults.add("list", "a1", *self.SILENT[:9])
        assert scene.one().complete
        assert scene.left() == [f"{OURS}8"]

    def test_a_vm_that_is_gone_has_taken_its_snapshots_along(self) -> None:
        scene = Scene()
        scene.vm_intent(0, "vc/vm2")
        del scene.hypervisor.vms["vc/vm2"]
        recovery = scene.one()
        assert recovery.removed == ["VM vc/vm2 is not there any more, nor is a snapshot of it"]
        assert recovery.complete
        assert scene.open() == 0
