"""Each invariant is silent on a sound run, and speaks when the world was otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support_explorer import PLAIN, PRUNED, broken, doctored, evidence, with_rows

from stillframe.drivers.contracts import ConsistencyLevel, GroupSnapshotRef, VmSnapshotRef
from stillframe.drivers.records import DiskMode
from stillframe.explorer.calls import LIST_ARRAY, Call
from stillframe.explorer.evidence import Evidence
from stillframe.explorer.invariants import (
    INVARIANTS,
    check_all,
    i1_frozen,
    i2_orphans,
    i3_foreign,
    i4_targeted,
    i5_honest,
    i6_writes,
    i7_limits,
    i8_catalogue,
    i9_terminates,
    sentences,
)
from stillframe.explorer.journals import Hand
from stillframe.explorer.options import RunOptions
from stillframe.orchestrator.result import VmStatus
from stillframe.sim.vmstate import Snapshot

BLOCK = PLAIN.model_copy(update={"fidelity": "block"})


@pytest.mark.parametrize("options", [PLAIN, PRUNED, BLOCK], ids=["plain", "pruned", "block"])
def test_nothing_is_said_of_a_sound_run(options: RunOptions) -> None:
    found = evidence(options)
    assert found.entries
    assert found.cuts
    assert found.planted or options is PRUNED
    assert check_all(found) == []


def test_each_has_a_sentence_and_a_name_of_its_own() -> None:
    assert [one.ID.split()[0] for one in INVARIANTS] == [f"I{n}" for n in range(1, 10)]
    assert len(sentences()) == 9


# -- I1 --------------------------------------------------------------------------------------


def test_i1_a_guest_that_is_frozen_for_too_long() -> None:
    found = evidence()
    limit_s = found.spec.quiesce.timeout
    rows = [
        (5000.0, "world.vm.frozen", "", "vc-1/web-1", ""),
        (5000.0 + limit_s + 1, "world.vm.thawed", "", "vc-1/web-1", ""),
    ]
    (violation,) = broken(i1_frozen, with_rows(found, *rows))
    assert violation.subject == "vc-1/web-1"
    excused = (5000.0, "world.fault", "", "vc-1/web-1", "thaw-lost")
    assert not broken(i1_frozen, with_rows(found, *rows, excused))


def test_i1_a_guest_that_never_thaws() -> None:
    found = evidence()
    found.states["vc-1/db-1"].frozen = True
    assert [one.subject for one in broken(i1_frozen, found)] == ["vc-1/db-1"]


# -- I2 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loose", [False, True])
def test_i2_a_vm_snapshot_or_delta_that_stays(loose: bool) -> None:
    found = evidence()
    snapshot = Snapshot(VmSnapshotRef("vc-1/web-2", "x", "stillframe-e1-99"), 0.0, foreign=False)
    snapshot.loose = loose
    found.states["vc-1/web-2"].chain.append(snapshot)
    (violation,) = broken(i2_orphans, found)
    assert "stillframe-e1-99" in violation.sentence


def test_i2_an_array_snapshot_that_no_entry_names() -> None:
    found = evidence()
    named = [one for one in found.held if found.job_of(one.snapshot.ref.tag)]
    assert {one.array_id for one in broken_refs(found)} == set()
    bare = doctored(found, entries=[])
    told = broken(i2_orphans, bare)
    assert len(told) == len(named)


def broken_refs(found: Evidence) -> list[GroupSnapshotRef]:
    """Array snapshots of ours that no entry names."""
    kept = {ref for entry in found.entries for ref in entry.cuts}
    refs = [one.snapshot.ref for one in found.held if found.job_of(one.snapshot.ref.tag)]
    return [ref for ref in refs if ref not in kept]


def test_i2_a_job_that_does_not_tell_what_it_leaves() -> None:
    found = evidence()
    found.jobs[0].truth_at_end.append(("vc-1/web-1 has stillframe-e1-7", "stillframe-e1-7"))
    (violation,) = broken(i2_orphans, found)
    assert "did not tell" in violation.sentence
    assert found.jobs[0].result is not None
    found.jobs[0].result.orphans.append("VM snapshot stillframe-e1-7 may exist")
    assert not broken(i2_orphans, found)


def test_i2_a_snapshot_that_outlives_its_group() -> None:
    found = evidence()
    late = [call for call in found.calls if call.operation != "remove_snapshot"]
    assert broken(i2_orphans, doctored(found, calls=late))


# -- I3 --------------------------------------------------------------------------------------


def test_i3_a_snapshot_of_others_that_is_gone() -> None:
    found = evidence()
    del found.states["vc-1/web-1"].chain[0]
    (violation,) = broken(i3_foreign, found)
    assert "found-1" in violation.sentence


def test_i3_an_array_snapshot_of_others_that_is_gone() -> None:
    found = evidence()
    other = GroupSnapshotRef("array-a", "array-a/group-snapshot-77", "nightly")
    gone = doctored(found, planted=[*found.planted, other])
    assert len(broken(i3_foreign, gone)) == 1
    given_up = (9.0, "world.array.invalidated", "", "array-a", "nightly")
    assert not broken(i3_foreign, with_rows(gone, given_up))


def test_i3_a_removal_that_was_asked_for_by_a_tag_of_others() -> None:
    found = evidence()
    ref = VmSnapshotRef("vc-1/web-1", "vc-1/web-1/found-1", "stillframe-e1x-1")
    call = Call(1, "remove_snapshot", "vc-1/web-1", ref, 3.0)
    assert len(broken(i3_foreign, doctored(found, calls=[*found.calls, call]))) == 1


def test_i3_a_merge_where_nothing_was_ours() -> None:
    found = evidence()
    call = Call(1, "consolidate", "vc-1/nobody", None, 3.0)
    assert len(broken(i3_foreign, doctored(found, calls=[*found.calls, call]))) == 1


# -- I4 --------------------------------------------------------------------------------------


def test_i4_a_unit_that_held_no_selected_vm() -> None:
    found = evidence(
        RunOptions(independent_disks=False, excluded=tuple(f"vc-1/{one}" for one in ON_LUN))
    )
    cut = found.cuts[0]
    assert not broken(i4_targeted, found)
    wider = cut._replace(unit_ids=("array-a/lun-1", "array-b/vol-1"))
    (violation,) = broken(i4_targeted, doctored(found, cuts=[wider]))
    assert violation.subject == "array-a/lun-1"


def test_i4_the_pointer_file_of_a_physical_mapping_is_a_file_of_its_vm() -> None:
    found = evidence(
        RunOptions(independent_disks=False, excluded=tuple(f"vc-1/{one}" for one in ON_LUN))
    )
    cut = found.cuts[0]
    lying = next(one for one in cut.vms if one.vm.id in found.selected)
    pointer = replace(
        lying.vm.disks[0],
        key=2009,
        datastore_id="vc-1/ds-lun",
        mode=DiskMode.INDEPENDENT_PERSISTENT,
        raw_is_physical=True,
    )
    mapped = lying._replace(vm=replace(lying.vm, disks=(*lying.vm.disks, pointer)))
    wider = cut._replace(
        unit_ids=("array-a/lun-1", "array-b/vol-1"),
        vms=tuple(mapped if one is lying else one for one in cut.vms),
    )
    assert not broken(i4_targeted, doctored(found, cuts=[wider]))


ON_LUN = ("web-1", "web-2", "web-3", "db-1", "ci-1")


def test_i4_a_protected_vm_whose_unit_is_in_no_cut() -> None:
    found = evidence()
    without = [
        entry._replace(cuts=entry.cuts[:1]) if len(entry.cuts) > 1 else entry
        for entry in found.entries
    ]
    assert without != list(found.entries)
    (violation,) = broken(i4_targeted, doctored(found, entries=without))
    assert violation.subject == "vc-1/db-1"


# -- I5 --------------------------------------------------------------------------------------


def test_i5_a_level_that_was_not_reached() -> None:
    found = evidence()
    stronger = [entry._replace(level=ConsistencyLevel.APPLICATION) for entry in found.entries]
    subjects = {one.subject for one in broken(i5_honest, doctored(found, entries=stronger))}
    assert subjects == {
        entry.vm_id for entry in found.entries if entry.level is not ConsistencyLevel.APPLICATION
    }


def test_i5_a_cut_outside_of_the_open_window() -> None:
    found = evidence()
    early = []
    for call in found.calls:
        moved = Call(call.life, call.operation, call.subject, call.asked, call.begun_s)
        moved.ended_s, moved.answer = call.ended_s, call.answer
        if call.operation == "remove_snapshot":
            moved.begun_s = 0.0
        early.append(moved)
    told = broken(i5_honest, doctored(found, calls=early))
    assert {one.subject for one in told} == {entry.vm_id for entry in found.entries}


def test_i5_a_vm_that_moved_between_its_cuts() -> None:
    found = evidence()
    spanning = next(entry for entry in found.entries if len(entry.cuts) > 1)
    first = found.cuts[0]
    moved = [
        one._replace(vm=elsewhere(one.vm)) if one.vm.id == spanning.vm_id else one
        for one in first.vms
    ]
    cuts = [first._replace(vms=tuple(moved)), *found.cuts[1:]]
    told = broken(i5_honest, doctored(found, cuts=cuts))
    assert any("moved" in one.sentence for one in told)


def elsewhere(vm):  # type: ignore[no-untyped-def]
    """The VM with its first disk on another datastore."""
    from dataclasses import replace

    first = replace(vm.disks[0], datastore_id="vc-1/ds-archive")
    return replace(vm, disks=(first, *vm.disks[1:]))


def test_i5_what_is_read_back_decides() -> None:
    found = evidence(BLOCK)
    linux = next(one for one in found.entries if one.level is ConsistencyLevel.FILESYSTEM)
    story = found.jobs[0]
    assert story.result is not None
    story.result.vms.clear()
    told = i5_honest._by_data(found, linux._replace(level=ConsistencyLevel.APPLICATION))
    assert "claimed application" in told
    assert not i5_honest._by_data(found, linux)


# -- I6 --------------------------------------------------------------------------------------


def test_i6_a_guest_that_lost_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    found = evidence(BLOCK)
    assert not broken(i6_writes, found)
    monkeypatch.setattr(found.world, "lost_writes", lambda: ["vc-1/web-1 lost write 7"])
    assert len(broken(i6_writes, found)) == 1


# -- I7 --------------------------------------------------------------------------------------


def test_i7_more_calls_at_once_than_a_limit_allows() -> None:
    options = RunOptions(limits=(("create_per_host", 2), ("groups", 1)))
    found = evidence(options)
    assert not broken(i7_limits, found)
    (create,) = [one for one in found.calls if one.subject == "vc-1/ci-1"][:1]
    more = []
    for vm in ("web-1", "web-3"):
        call = Call(1, "create_snapshot", f"vc-1/{vm}", create.asked, create.begun_s)
        call.ended_s = create.ended_s
        more.append(call)
    told = broken(i7_limits, doctored(found, calls=[*found.calls, *more]))
    assert any("create_per_host" in one.sentence for one in told)


def test_i7_more_groups_at_once_than_allowed() -> None:
    found = evidence(RunOptions(limits=(("groups", 1),)))
    at_s = next(row[0] for row in found.rows if row[1] == "group.started")
    rows = [(at_s, "group.started", "g9", "g9", "1")] * 2
    assert len(broken(i7_limits, with_rows(found, *rows))) == 1


def test_i7_a_place_that_is_given_back_can_be_taken_at_once() -> None:
    found = evidence(RunOptions(limits=(("create_per_vcenter", 1),)))
    assert sum(one.operation == "create_snapshot" for one in found.calls) > 5
    assert not broken(i7_limits, found)


# -- I8 --------------------------------------------------------------------------------------


def test_i8_an_entry_whose_snapshot_is_gone() -> None:
    found = evidence()
    gone = GroupSnapshotRef("array-a", "array-a/group-snapshot-88", "stillframe-e1-88")
    entries = [found.entries[0]._replace(cuts=(gone,)), *found.entries[1:]]
    assert len(broken(i8_catalogue, doctored(found, entries=entries))) >= 1


@pytest.mark.parametrize("late_s", [-0.001, 0.001])
def test_i8_a_snapshot_given_up_after_the_job_looked_is_nobodys_fault(late_s: float) -> None:
    """The look is the one that the catalogue was written from, not a later one of the sweep."""
    found = evidence()
    entry = found.entries[0]
    (ref, *_) = entry.cuts
    written_s = max(row[0] for row in found.of("catalogue.added") if ref.tag in row[4].split())
    looks = [one for one in found.calls_of(LIST_ARRAY) if one.subject == ref.array_id]
    looked_s = max(one.begun_s for one in looks if one.begun_s <= written_s)
    given_up = (looked_s + late_s, "world.array.invalidated", "", ref.array_id, ref.tag)
    held = [one for one in found.held if one.snapshot.ref != ref]
    last = looks[-1]
    later = Call(last.life, last.operation, last.subject, last.asked, written_s + 5.0)
    later.answer = []
    lost = doctored(with_rows(found, given_up), calls=[*found.calls, later])
    lost.__dict__["held"] = held
    told = broken(i8_catalogue, lost)
    assert bool(told) is (late_s < 0.0)


def test_i8_an_entry_that_claims_more_than_was_reported() -> None:
    found = evidence()
    entries = [one._replace(level=ConsistencyLevel.APPLICATION) for one in found.entries]
    told = broken(i8_catalogue, doctored(found, entries=entries))
    assert {one.subject for one in told} >= {"vc-1/web-1"}
    assert "vc-1/db-1" not in {one.subject for one in told}


def test_i8_pruning_that_takes_the_last_good_entry() -> None:
    found = evidence(PRUNED)
    (story,) = found.prunes
    assert len(story.before) > len(story.after)
    story.after.clear()
    assert {one.subject for one in broken(i8_catalogue, found)} == {
        entry.vm_id for entry in story.before
    }


def test_i8_a_result_that_tells_otherwise() -> None:
    found = evidence()
    found.jobs[0].kept_at_end.pop()
    assert len(broken(i8_catalogue, found)) == 1
    assert found.jobs[0].result is not None
    found.jobs[0].result.catalogue.clear()
    told = broken(i8_catalogue, found)
    assert all("did not tell" in one.sentence for one in told)


def test_i8_a_process_that_writes_after_another_has_the_job() -> None:
    found = evidence()
    more = [*found.hands, Hand(2, "e1", True), Hand(1, "e1", False)]
    assert len(broken(i8_catalogue, doctored(found, hands=more))) == 1


# -- I9 --------------------------------------------------------------------------------------


def test_i9_trouble_and_what_never_ends() -> None:
    found = evidence()
    found = doctored(found, trouble=["a deadlock"], unfinished=["e1"])
    assert len(broken(i9_terminates, found)) == 2


def test_i9_a_result_that_does_not_add_up() -> None:
    found = evidence()
    result = found.jobs[0].result
    assert result is not None
    result.vms[0].status = VmStatus.PENDING
    told = broken(i9_terminates, found)
    assert len(told) == 2
    result.vms.pop(0)
    assert any("does not name" in one.sentence for one in broken(i9_terminates, found))
