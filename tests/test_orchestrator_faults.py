"""What the job does when calls fail, hang, lie about it or come back late."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support_jobs import assert_clean, bench, error, kinds
from support_memory import Fault, MemoryHypervisor, small_estate

from stillframe.drivers.contracts import ConsistencyLevel, VmSnapshotRef
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from stillframe.drivers.records import Datastore, DatastoreKind, DeviceIdentity
from stillframe.orchestrator.events import Kind
from stillframe.orchestrator.result import JobStatus, VmStatus
from stillframe.orchestrator.spec import JobSpec


class TestCreate:
    def test_busy_is_repeated_after_the_drivers_own_estimate(self) -> None:
        ran = bench()
        hint = BusyError("op", "vm", "backup running", retry_after_s=500.0)
        ran.faults.add("create", "vc/vm3", Fault(hint))
        result = ran.run()
        assert result.status is JobStatus.PROTECTED
        assert result.retries == 1
        assert ran.vm("vm3").opened_s is not None
        assert ran.vm("vm3").opened_s >= 500.0
        assert_clean(ran)

    def test_repeating_ends(self) -> None:
        ran = bench()
        ran.faults.add("create", "vc/vm3", *[Fault(error(DidNotHappenError))] * 10)
        result = ran.run()
        assert ran.vm("vm3").attempts == 4
        assert "gave up after 4 attempts" in ran.vm("vm3").reason
        assert result.status is JobStatus.PARTLY
        assert_clean(ran)

    @pytest.mark.parametrize("kind", [NeverWillError, NotFoundError])
    def test_what_cannot_help_is_not_repeated(self, kind: type[DriverError]) -> None:
        ran = bench()
        ran.faults.add("create", "vc/vm3", Fault(error(kind)))
        ran.run()
        assert ran.vm("vm3").attempts == 1
        assert ran.vm("vm3").status is VmStatus.UNPROTECTED

    def test_a_create_that_certainly_failed_is_not_searched_for(self) -> None:
        """Not even where the driver cannot say whether something still runs."""
        ran = bench()
        ran.hypervisor.reports_running = False
        ran.faults.add("create", "vc/vm3", Fault(error(NeverWillError)))
        result = ran.run()
        assert not result.orphans
        assert result.makespan_s < 60.0

    @pytest.mark.parametrize("kind", [QuiesceFailedError, QuiesceTimeoutError])
    def test_degrade_takes_the_vm_crash_consistent(self, kind: type[DriverError]) -> None:
        ran = bench()
        ran.faults.add("create", "vc/vm3", Fault(error(kind)))
        result = ran.run()
        assert result.status is JobStatus.PROTECTED
        assert ran.vm("vm3").degraded
        assert ran.vm("vm3").level is ConsistencyLevel.CRASH
        assert result.fallbacks == 1

    def test_require_leaves_the_vm_unprotected_and_its_group_goes_on(self) -> None:
        ran = bench(JobSpec.model_validate({"quiesce": {"policy": "require"}}))
        ran.faults.add("create", "vc/vm2", Fault(error(QuiesceFailedError)))
        result = ran.run()
        assert ran.vm("vm2").status is VmStatus.UNPROTECTED
        assert ran.vm("vm5").status is VmStatus.PROTECTED  # the same datastore and group
        assert result.status is JobStatus.PARTLY
        assert_clean(ran)

    def test_fail_group_cuts_nothing_and_releases_all(self) -> None:
        ran = bench(JobSpec.model_validate({"on_vm_failure": "fail-group"}))
        ran.faults.add("create", "vc/vm2", Fault(error(NeverWillError)))
        ran.run()
        assert ran.vm("vm5").reason == "another VM of its group could not be snapshotted"
        assert "a1/lun2" not in ran.array.touched
        assert_clean(ran)

    def test_a_lost_answer_is_found_by_its_tag_and_kept_at_crash_level(self) -> None:
        ran = bench()
        ran.faults.add("create", "vc/vm3", Fault(error(UnknownOutcomeError), after=True))
        result = ran.run()
        assert result.status is JobStatus.PROTECTED
        assert ran.vm("vm3").level is ConsistencyLevel.CRASH
        assert kinds(ran, Kind.LATE_SUCCESS) == ["vc/vm3"]
        assert_clean(ran)

    @pytest.mark.parametrize("reports_running", [True, False])
    def test_an_answer_lost_while_the_work_goes_on_is_waited_for(
        self, reports_running: bool
    ) -> None:
        ran = bench()
        ran.hypervisor.reports_running = reports_running
        lost = Fault(error(UnknownOutcomeError), lost=True, delay_s=20.0)
        ran.faults.add("create", "vc/vm3", lost)
        result = ran.run()
        assert result.status is JobStatus.PROTECTED
        assert ran.vm("vm3").level is ConsistencyLevel.CRASH
        assert kinds(ran, Kind.LATE_SUCCESS) == ["vc/vm3"]
        assert_clean(ran)

    def test_a_lost_call_that_never_arrived_is_not_waited_for(self) -> None:
        ran = bench()
        ran.faults.add("create", "vc/vm3", Fault(error(UnknownOutcomeError)))
        result = ran.run()
        assert ran.vm("vm3").status is VmStatus.UNPROTECTED
        assert result.makespan_s < 5.0
        assert_clean(ran)

    def test_a_lost_answer_is_not_enough_where_quiescing_is_required(self) -> None:
        ran = bench(JobSpec.model_validate({"quiesce": {"policy": "require"}}))
        ran.faults.add("create", "vc/vm3", Fault(error(UnknownOutcomeError), after=True))
        ran.run()
        assert ran.vm("vm3").status is VmStatus.UNPROTECTED
        assert_clean(ran)

    @pytest.mark.parametrize("reports_running", [True, False])
    def test_a_create_that_completes_after_its_time_limit_is_swept(
        self, reports_running: bool
    ) -> None:
        ran = bench()
        ran.hypervisor.reports_running = reports_running
        ran.faults.add("create", "vc/vm3", Fault(delay_s=1300.0))  # the limit is 1,200 s
        result = ran.run()
        assert ran.vm("vm3").status is VmStatus.UNPROTECTED
        assert kinds(ran, Kind.SWEPT) == ["vc/vm3"]
        assert not result.orphans
        assert_clean(ran)

    def test_a_create_that_never_ends_is_reported_as_a_possible_orphan(self) -> None:
        ran = bench()
        ran.faults.add("create", "vc/vm3", Fault(hang=True))
        result = ran.run()
        assert len(result.orphans) == 1
        assert "vc/vm3 may exist or may yet appear" in result.orphans[0]
        assert result.status is JobStatus.PARTLY
        assert result.makespan_s < 1200 + 900 + 120  # its time limit, the settle time, pauses


class TestArray:
    def test_busy_is_repeated(self) -> None:
        ran = bench()
        ran.faults.add("cut", "a1", Fault(error(BusyError)))
        assert ran.run().status is JobStatus.PROTECTED
        assert_clean(ran)

    def test_pool_full_fails_the_group_at_once_and_releases_it(self) -> None:
        ran = bench(JobSpec.model_validate({"strategy": "all-at-once"}))
        ran.faults.add("cut", "a1", Fault(error(PoolFullError)))
        result = ran.run()
        assert result.status is JobStatus.FAILED
        assert result.calls[0].attempts == 1
        assert all("took no snapshot" in vm.reason for vm in result.vms)
        assert {vm.level for vm in result.vms} == {ConsistencyLevel.UNKNOWN}
        assert_clean(ran)

    def test_a_lost_answer_is_found_by_its_tag(self) -> None:
        ran = bench()
        ran.faults.add("cut", "a1", Fault(error(UnknownOutcomeError), after=True))
        result = ran.run()
        assert result.status is JobStatus.PROTECTED
        assert kinds(ran, Kind.LATE_SUCCESS) == ["a1"]
        assert_clean(ran)

    def test_a_lost_answer_without_effect_is_repeated_under_the_same_tag(self) -> None:
        ran = bench(JobSpec.model_validate({"strategy": "all-at-once"}))
        ran.faults.add("cut", "a1", Fault(error(UnknownOutcomeError)))
        result = ran.run()
        assert result.status is JobStatus.PROTECTED
        assert len(ran.array.snapshots) == 1
        assert result.calls[0].attempts == 2

    def test_a_late_array_snapshot_that_nobody_needs_is_deleted(self) -> None:
        spec = JobSpec.model_validate({"strategy": "all-at-once", "retry": {"attempts": 1}})
        ran = bench(spec)
        ran.faults.add("cut", "a1", Fault(delay_s=700.0))  # the limit is 600 s
        result = ran.run()
        assert result.status is JobStatus.FAILED
        assert not ran.array.snapshots
        assert not result.orphans
        assert_clean(ran)

    def test_a_snapshot_that_the_array_dropped_protects_nobody(self) -> None:
        ran = bench(JobSpec.model_validate({"strategy": "all-at-once"}))
        ran.array.on_cut = lambda request: ran.array.snapshots.clear()
        result = ran.run()
        assert result.status is JobStatus.FAILED
        assert all("no longer lists" in vm.reason for vm in result.vms)
        assert not result.catalogue
        assert not result.orphans  # its handle is known, so nobody has to search for it


class TestRelease:
    def test_a_failed_removal_is_repeated(self) -> None:
        ran = bench()
        ran.faults.add("remove", "vc/vm3", Fault(error(DidNotHappenError)))
        assert ran.run().status is JobStatus.PROTECTED
        assert_clean(ran)

    def test_gone_already_counts_as_removed(self) -> None:
        ran = bench()
        ran.faults.add("remove", "vc/vm3", Fault(error(NotFoundError), after=True))
        ran.run()
        assert ran.vm("vm3").merged_s is not None
        assert_clean(ran)

    def test_an_unmerged_delta_is_consolidated(self) -> None:
        ran = bench()
        ran.faults.add("remove", "vc/vm3", Fault(error(HappenedError), after=True))
        ran.hypervisor.loose_deltas["vc/vm3"] = 1
        result = ran.run()
        assert result.fallbacks >= 1
        assert_clean(ran)

    def test_a_delta_found_loose_after_the_release_is_consolidated(self) -> None:
        """vSphere may report a removal as done whose delta is not merged."""
        ran = bench()

        def loosen() -> None:
            ran.hypervisor.loose_deltas["vc/vm4"] = 1

        ran.hypervisor.on_removed = lambda ref: loosen() if ref.vm_id == "vc/vm4" else None
        ran.run()
        assert_clean(ran)

    def test_a_delta_that_was_loose_before_is_not_ours_to_merge(self) -> None:
        ran = bench()
        ran.hypervisor.loose_deltas["vc/vm4"] = 1
        ran.run()
        assert ran.hypervisor.loose_deltas == {"vc/vm4": 1}
        ran.hypervisor.loose_deltas.clear()
        assert_clean(ran)

    def test_a_removal_in_doubt_is_not_done_before_its_delta_is_merged(self) -> None:
        """The snapshot is gone with the first attempt, and the second does not find it."""
        ran = bench()
        ran.faults.add("remove", "vc/vm3", Fault(error(HappenedError), after=True))
        ran.faults.add("consolidate", "vc/vm3", Fault(error(BusyError)))

        def loosen(ref: VmSnapshotRef) -> None:
            if ref.vm_id == "vc/vm3":
                ran.hypervisor.loose_deltas["vc/vm3"] = 1

        ran.hypervisor.on_removed = loosen
        result = ran.run()
        assert not result.orphans
        done = result.events.of(Kind.VM_RELEASE_COMPLETED)
        assert [row[3] for row in done].count("vc/vm3") == 1, "not when it was not found"
        assert_clean(ran)

    def test_a_lost_answer_is_looked_up(self) -> None:
        ran = bench()
        ran.faults.add("remove", "vc/vm3", Fault(error(UnknownOutcomeError), after=True))
        result = ran.run()
        assert result.status is JobStatus.PROTECTED
        assert kinds(ran, Kind.LATE_SUCCESS) == ["vc/vm3"]
        assert_clean(ran)

    def test_what_removal_gave_up_on_the_sweep_tries_again(self) -> None:
        ran = bench()
        ran.faults.add("remove", "vc/vm3", *[Fault(error(DidNotHappenError))] * 4)
        result = ran.run()
        assert kinds(ran, Kind.SWEPT) == ["vc/vm3"]
        assert not result.orphans
        assert_clean(ran)

    def test_a_delta_that_the_release_gave_up_on_is_merged_by_the_sweep(self) -> None:
        ran = bench()
        ran.faults.add("remove", "vc/vm3", Fault(error(HappenedError), after=True))
        ran.faults.add("consolidate", "vc/vm3", *[Fault(error(BusyError))] * 5)

        def loosen(ref: VmSnapshotRef) -> None:
            if ref.vm_id == "vc/vm3":
                ran.hypervisor.loose_deltas["vc/vm3"] = 1

        ran.hypervisor.on_removed = loosen
        result = ran.run()
        assert kinds(ran, Kind.SWEPT) == ["vc/vm3"]
        assert not ran.vm("vm3").left_behind
        assert result.status is JobStatus.PROTECTED
        assert_clean(ran)

    def test_what_cannot_be_removed_at_all_is_named(self) -> None:
        ran = bench()
        ran.faults.add("remove", "vc/vm3", *[Fault(error(NeverWillError))] * 100)
        result = ran.run()
        assert len(result.orphans) == 1
        assert ran.vm("vm3").left_behind
        assert result.status is JobStatus.PARTLY

    def test_every_vm_is_released_when_the_array_fails(self) -> None:
        ran = bench()
        ran.faults.add("cut", "a1", *[Fault(error(NeverWillError))] * 10)
        assert ran.run().status is JobStatus.FAILED
        assert len(ran.hypervisor.changed) == 6
        assert_clean(ran)


class TestMoves:
    def test_a_vm_that_moved_after_the_plan_is_protected_where_it_is(self) -> None:
        spec = JobSpec.model_validate({"select": {"include": {"name": "vm2"}}})
        ran = bench(spec, change=lambda hypervisor: hypervisor.move("vc/vm2", "vc/ds1"))
        result = ran.run()
        assert ran.array.touched == ["a1/lun1"]
        assert ran.vm("vm2").moved
        assert result.catalogue[0].unit_ids == ("a1/lun1",)

    def test_a_vm_that_moves_while_the_array_cuts_is_cut_again(self) -> None:
        spec = JobSpec.model_validate({"select": {"include": {"name": "vm2"}}})
        ran = bench(spec)

        def move_once(request: object) -> None:
            ran.hypervisor.move("vc/vm2", "vc/ds0")
            ran.array.on_cut = lambda request: None

        ran.array.on_cut = move_once
        result = ran.run()
        assert ran.array.touched == ["a1/lun2", "a1/lun0"]
        assert result.catalogue[0].unit_ids == ("a1/lun0",)
        assert kinds(ran, Kind.VM_MOVED_DURING_CUT) == ["vc/vm2"]
        assert_clean(ran)  # the first cut is deleted again

    def test_a_vm_that_moves_at_every_cut_is_not_called_protected(self) -> None:
        spec = JobSpec.model_validate({"select": {"include": {"name": "vm2"}}})
        ran = bench(spec)
        places = iter([f"vc/ds{i % 2}" for i in range(10)])
        ran.array.on_cut = lambda request: ran.hypervisor.move("vc/vm2", next(places))
        result = ran.run()
        assert ran.vm("vm2").reason == "it moved to other units during every cut"
        assert result.status is JobStatus.FAILED
        assert_clean(ran)

    def test_a_snapshot_that_vanished_before_the_cut_protects_nobody(self) -> None:
        spec = JobSpec.model_validate({"select": {"include": {"name": "vm2"}}})
        ran = bench(spec)
        ran.array.on_cut = lambda request: ran.hypervisor.snapshots["vc/vm2"].clear()
        ran.run()
        assert "its snapshot was gone" in ran.vm("vm2").reason

    def test_no_answer_after_the_cut_protects_nobody(self) -> None:
        spec = JobSpec.model_validate({"select": {"include": {"name": "vm2"}}})
        ran = bench(spec)
        ran.array.on_cut = lambda request: ran.faults.add(
            "list", "", *[Fault(error(UnknownOutcomeError))] * 4
        )
        result = ran.run()
        assert "nobody could say where it lay" in ran.vm("vm2").reason
        assert not result.catalogue
        assert_clean(ran)

    def test_a_listing_that_never_answers_is_given_up_and_asked_for_again(self) -> None:
        ran = bench()
        ran.faults.add("list", "", Fault(delay_s=1e6))
        result = ran.run()
        assert result.status is JobStatus.PROTECTED
        assert result.retries == 1
        assert result.makespan_s < 100.0  # the limit on a query is 60 s

    def test_a_datastore_made_after_the_plan_is_looked_up(self) -> None:
        estate = small_estate(3, 2)
        planned = replace(
            estate, inventory=replace(estate.inventory, datastores=estate.inventory.datastores)
        )
        new = Datastore(
            "vc/new", "vc", "new", DatastoreKind.VMFS, (DeviceIdentity.parse(f"naa.60{1:030x}"),)
        )

        def add(hypervisor: MemoryHypervisor) -> None:
            stores = (*hypervisor.contents.datastores, new)
            hypervisor.contents = replace(hypervisor.contents, datastores=stores)
            hypervisor.move("vc/vm0", "vc/new")

        ran = bench(estate=planned, change=add)
        result = ran.run()
        assert result.status is JobStatus.PROTECTED
        assert ran.vm("vm0").unit_ids == ("a1/lun1",)
