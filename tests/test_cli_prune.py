"""``catalog verify`` and ``prune``: what the arrays say, what goes, and why the rest stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support_crashed import DAY_S, JOURNAL, alive, array_tags, crashed, dead, entries, jobs, keep
from support_files import tree
from support_live_front import World, config, invoke, world
from support_memory import Fault

from stillframe.drivers.contracts import GroupSnapshot, GroupSnapshotRef
from stillframe.drivers.errors import DidNotHappenError, NeverWillError
from stillframe.live_journal import open_journal

__all__ = ["world"]  # a fixture

SHORT: dict[str, Any] = {"retry": {"attempts": 2, "first_pause": "1 ms"}}


def said(*args: str, code: int = 0) -> dict[str, Any]:
    """The JSON that a command answers with."""
    answer: dict[str, Any] = json.loads(invoke(*args, "--json", code=code).stdout)
    return answer


def kept_jobs() -> list[str]:
    """The jobs of the entries that are in the catalogue, each once."""
    return list(dict.fromkeys(one.job_id for one in entries()))


@pytest.fixture
def four(world: World) -> list[str]:
    """Four jobs that have catalogued vm1, the oldest vm2 too; oldest first."""
    made = [keep(world, 40 * DAY_S, "vc/vm1", "vc/vm2")]
    return made + [keep(world, days * DAY_S, "vc/vm1") for days in (20, 3, 1)]


# -- verify --------------------------------------------------------------------------------------


def test_arrays_that_agree(world: World, four: list[str]) -> None:
    config()
    before = tree(Path())
    text = invoke("catalog", "verify", "live.yaml").stdout
    assert text == "5 entries can be restored: the arrays list every snapshot of each.\n"
    assert said("catalog", "verify", "live.yaml")["agrees"] is True
    assert tree(Path()) == before
    assert [system for system, _ in world.opened] == ["a1", "a1"], "no hypervisor is needed"


def test_an_entry_whose_snapshot_is_gone(world: World, four: list[str]) -> None:
    config()
    del world.array.snapshots[0]
    answer = said("catalog", "verify", "live.yaml", code=1)
    assert [one["vm_name"] for one in answer["lost"]] == ["vm1", "vm2"]
    assert answer["lost"][0]["gone"] == [f"stillframe-{four[0]}-1"]
    assert (answer["good"], answer["unnamed"], answer["agrees"]) == (3, [], False)
    text = invoke("catalog", "verify", "live.yaml", code=1).stdout
    assert "Entries that cannot be restored" in text
    assert f"stillframe-{four[0]}-1 on a1" in text


def test_a_snapshot_of_ours_that_no_entry_names(world: World, four: list[str]) -> None:
    config()
    for tag in (f"stillframe-{four[0]}-7", "stillframe-of-nobody-1", "by-hand"):
        ref = GroupSnapshotRef("a1", tag, tag)
        world.array.snapshots.append(GroupSnapshot(ref, ("a1/lun0",)))
    answer = said("catalog", "verify", "live.yaml", code=1)
    assert [one["tag"] for one in answer["unnamed"]] == [f"stillframe-{four[0]}-7"]
    assert "in no entry" in invoke("catalog", "verify", "live.yaml", code=1).stdout


def test_a_silent_array_is_neither(world: World, four: list[str]) -> None:
    config(job=SHORT)
    silent = DidNotHappenError("list_snapshots", "a1", "no answer")
    world.faults.add("list", "a1", *(Fault(error=silent) for _ in range(4)))
    answer = said("catalog", "verify", "live.yaml", code=1)
    assert (answer["good"], answer["lost"], answer["silent"]) == (0, [], ["a1"])
    assert len(answer["unknown"]) == 5
    text = invoke("catalog", "verify", "live.yaml", code=1).stdout
    assert "Array a1 gave no answer" in text
    assert "5 entries may be" in text
    world.fail_to_open["a1"] = DidNotHappenError("connect", "a1", "connection refused")
    result = invoke("catalog", "verify", "live.yaml", code=3)
    assert result.stderr.endswith("connect on a1 failed: connection refused\n")


def test_a_job_that_crashed_does_not_agree(world: World, four: list[str]) -> None:
    config()
    job_id = crashed(world)
    assert said("catalog", "verify", "live.yaml", code=1)["unfinished"] == [job_id]
    text = invoke("catalog", "verify", "live.yaml", code=1).stdout
    assert f"Job {job_id} is not finished: stillframe recover live.yaml" in text


# -- prune ---------------------------------------------------------------------------------------


def test_what_is_neither_new_nor_young_goes_but_never_the_last(
    world: World, four: list[str]
) -> None:
    config(retention={"keep_last": 1, "keep_within": "10 d"})
    result = invoke("prune", "live.yaml")
    # vm2 has one entry, older than anything retention keeps; vm1 shares its snapshot.
    assert [(one.vm_name, one.job_id) for one in entries()] == [
        ("vm2", four[0]),
        ("vm1", four[2]),
        ("vm1", four[3]),
    ]
    assert array_tags(world) == [f"stillframe-{four[i]}-1" for i in (0, 2, 3)]
    assert "2 entries left the catalogue; 3 stay." in result.stdout
    assert f"deleted array snapshot stillframe-{four[1]}-1 on a1" in result.stderr
    assert not [job for job in jobs().values() if job.unfinished or job.holder]
    assert [system for system, _ in world.opened] == ["a1"]
    again = said("prune", "live.yaml")
    assert (again["removed"], again["left"], again["kept"]) == ([], [], 3)


def test_options_replace_the_configuration_for_once(world: World, four: list[str]) -> None:
    config(retention={"keep_last": 1, "keep_within": "10 d"})
    assert said("prune", "live.yaml", "--keep-last", "4")["withdrawn"] == 0
    assert said("prune", "live.yaml", "--keep-within", "30 d")["withdrawn"] == 1
    assert kept_jobs() == four
    assert len(entries()) == 4


def test_a_dry_run_says_why_and_touches_nothing(world: World, four: list[str]) -> None:
    config(retention={"keep_last": 1, "keep_within": "10 d"})
    before, on_array = tree(Path()), array_tags(world)
    answer = said("prune", "live.yaml", "--dry-run")
    why = {(one["vm_name"], one["job_id"]): (one["goes"], one["why"]) for one in answer["entries"]}
    assert why == {
        ("vm1", four[0]): (True, "not among the newest 1 of its VM, older than 10 d"),
        ("vm2", four[0]): (False, "among the newest 1 of its VM"),
        ("vm1", four[1]): (True, "not among the newest 1 of its VM, older than 10 d"),
        ("vm1", four[2]): (False, "younger than 10 d"),
        ("vm1", four[3]): (False, "among the newest 1 of its VM"),
    }
    assert [one["tag"] for one in answer["snapshots"]] == [f"stillframe-{four[1]}-1"]
    text = invoke("prune", "live.yaml", "--dry-run").stdout
    assert "2 entries would go, and 1 array snapshot with them; 3 would stay. Nothing" in text
    assert "younger than 10 d" in text
    assert (tree(Path()), array_tags(world)) == (before, on_array)
    invoke("prune", "live.yaml")
    assert len(entries()) == 3, "what was foreseen happens"


def test_the_last_good_one_stays_and_is_called_that(world: World) -> None:
    old = keep(world, 40 * DAY_S, "vc/vm1")
    gone = keep(world, 30 * DAY_S, "vc/vm1", there=False)
    config(retention={"keep_within": "1 d"})
    answer = said("prune", "live.yaml", "--dry-run")
    assert {one["job_id"]: (one["goes"], one["why"]) for one in answer["entries"]} == {
        gone: (True, "an array no longer lists a snapshot of it"),
        old: (False, "the last good one of its VM"),
    }
    text = invoke("prune", "live.yaml").stdout
    assert "1 entry left the catalogue, 1 of them lost on the arrays before; 1 stay." in text
    assert kept_jobs() == [old]


def test_what_is_lost_takes_no_place_among_the_newest(world: World) -> None:
    older, old = keep(world, 5 * DAY_S, "vc/vm1"), keep(world, 4 * DAY_S, "vc/vm1")
    lost = keep(world, 3 * DAY_S, "vc/vm1", there=False)
    config(retention={"keep_last": 2})
    answer = said("prune", "live.yaml", "--dry-run")
    assert {one["job_id"]: one["why"] for one in answer["entries"]} == {
        older: "among the newest 2 of its VM",
        old: "among the newest 2 of its VM",
        lost: "an array no longer lists a snapshot of it",
    }


def test_entries_of_a_job_that_died_stay_until_it_is_recovered(world: World) -> None:
    died = keep(world, 5 * DAY_S, "vc/vm1", finished=False)
    keep(world, 4 * DAY_S, "vc/vm1")
    config(retention={"keep_last": 1})
    answer = said("prune", "live.yaml", "--dry-run", code=1)
    assert {one["job_id"]: one["why"] for one in answer["entries"]}[died] == (
        "its job has not ended, or an array gave no answer"
    )
    assert said("prune", "live.yaml", code=1)["kept"] == 2
    invoke("recover", "live.yaml")
    assert said("prune", "live.yaml")["kept"] == 1


def test_one_array_of_two_that_is_away_is_told(world: World, four: list[str]) -> None:
    units = [{"name": "x", "capacity": "1 TiB", "devices": ["naa.6001"]}]
    arrays = {"a1": {"driver": "memory"}, "m": {"driver": "modelled-array", "units": units}}
    config(retention={"keep_last": 1}, arrays=arrays)
    world.fail_to_open["a1"] = DidNotHappenError("connect", "a1", "connection refused")
    for options in ((), ("--dry-run",)):
        answer = said("prune", "live.yaml", *options, code=1)
        assert answer["left"][0].startswith("a1 cannot be reached, what is there stays: connect")
        assert answer["kept"] == 5
    world.fail_to_open.clear()
    assert said("prune", "live.yaml")["kept"] == 2
    text = invoke("catalog", "verify", "live.yaml").stdout
    assert "But m is a model: it holds no data, nothing can be restored from it." in text
    assert said("catalog", "verify", "live.yaml")["models"] == ["m"]


def test_room_on_the_units_is_made(world: World, four: list[str]) -> None:
    config(retention={"snapshots_per_unit": 3, "reserve": 1})
    answer = said("prune", "live.yaml", "--dry-run")
    assert {one["why"] for one in answer["entries"] if one["goes"]} == {"a unit carries too many"}
    invoke("prune", "live.yaml")
    assert len(array_tags(world)) == 2
    assert "vm2" in {one.vm_name for one in entries()}


def test_what_cannot_be_deleted_is_left_and_tried_again(world: World, four: list[str]) -> None:
    config(retention={"keep_last": 1}, job=SHORT)
    refusals = [Fault(error=NeverWillError("delete", "a1", "locked")) for _ in range(20)]
    world.faults.add("delete", "a1", *refusals)
    answer = said("prune", "live.yaml", code=1)
    assert any("is not deleted" in one for one in answer["left"])
    assert len(array_tags(world)) == 4
    world.faults.planned.clear()
    assert said("prune", "live.yaml")["left"] == []
    assert len(array_tags(world)) == 2


def test_a_pruning_that_died_is_gone_on_with_at_once(world: World, four: list[str]) -> None:
    config(retention={"keep_last": 2})
    store = open_journal(JOURNAL)
    store.take_over(four[0], holder=dead(), lease_s=1000.0)
    store.take_over(four[1], holder=alive(), lease_s=1000.0)
    store.abandon()
    answer = said("prune", "live.yaml", code=1)
    assert (answer["withdrawn"], answer["kept"]) == (1, 4)
    assert [four[1] in one for one in answer["left"]] == [True], "a process holds it"
    store = open_journal(JOURNAL)
    store.take_over(four[1], holder="", lease_s=0.0, breaking=jobs()[four[1]].holder).finish("x")
    store.close()
    assert said("prune", "live.yaml")["kept"] == 3
    assert kept_jobs() == [four[0], four[2], four[3]]


def test_an_array_that_is_away_keeps_everything(world: World, four: list[str]) -> None:
    config(retention={"keep_last": 1})
    world.fail_to_open["a1"] = DidNotHappenError("connect", "a1", "connection refused")
    assert "connection refused" in invoke("prune", "live.yaml", code=3).stderr
    assert len(entries()) == 5


def test_jobs_of_another_configuration_and_jobs_at_work_stay(world: World, four: list[str]) -> None:
    config(name="weekly", journal_file=str(JOURNAL), retention={"keep_last": 1})
    assert said("prune", "live.yaml")["kept"] == 0
    assert len(entries()) == 5
    config(retention={"keep_last": 1})
    job_id = crashed(world)
    answer = said("prune", "live.yaml", code=1)
    assert any(job_id in one for one in answer["left"])
    assert jobs()[job_id].open_intents == 2
    assert len(world.left) == 1
