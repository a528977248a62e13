"""``recover``, and what ``run --live`` does about jobs that died: who is told what, which code."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from support_crashed import alive, array_tags, crashed, dead, entries, jobs
from support_files import tree
from support_live_front import World, config, invoke, line_of, refuse, send, world
from support_memory import Fault

from stillframe.drivers.errors import DidNotHappenError, NeverWillError
from stillframe.errors import StillframeError
from stillframe.live_journal import Holder, open_journal, read_journal
from stillframe.live_recover import RunJournal
from stillframe.orchestrator.journal import RUNNING
from stillframe.orchestrator.sqlite_journal import SqliteJournal
from stillframe.reports.folder import read_folder
from stillframe.scenarios.live import load_live

__all__ = ["world"]  # a fixture

SHORT: dict[str, Any] = {"retry": {"attempts": 2, "first_pause": "1 ms"},
                         "timeouts": {"settle": "10 ms"}}  # fmt: skip


def recovered(*options: str, code: int = 0) -> dict[str, Any]:
    """What ``recover`` answers."""
    answer = invoke("recover", "live.yaml", "--json", *options, code=code)
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def test_what_a_dead_job_left_is_removed_once(world: World) -> None:
    job_id = crashed(world)
    config()
    result = invoke("recover", "live.yaml")
    assert not world.left
    assert array_tags(world) == []
    assert f"recovered job {job_id}: 2 removed, 0 kept" in result.stderr
    assert f"stillframe-{job_id}-1" in result.stderr
    assert "1 unfinished job" in result.stdout
    assert job_id in result.stdout
    assert (jobs()[job_id].status, jobs()[job_id].unfinished) == ("recovered", False)

    opened = len(world.opened)
    again = invoke("recover", "live.yaml")
    assert again.stdout.startswith("Nothing to recover: every job of tonight in tonight.journal")
    assert again.stderr == ""
    assert len(world.opened) == opened, "no system is needed for nothing"


def test_the_answer_for_programs_has_all_of_it(world: World) -> None:
    first, second = crashed(world), crashed(world, "20260103t030405-cccccc")
    config()
    answer = recovered()
    assert (answer["journal"], answer["complete"]) == ("tonight.journal", True)
    one, other = answer["jobs"]
    assert (one["job_id"], other["job_id"]) == (first, second)
    assert (len(one["removed"]), one["kept"], one["left"], one["complete"]) == (2, 0, [], True)
    assert one["begun_at"].endswith("+00:00")
    assert recovered() == {"journal": "tonight.journal", "jobs": [], "complete": True}


def test_only_the_job_that_is_named(world: World) -> None:
    first, second = crashed(world), crashed(world, "20260103t030405-cccccc")
    config()
    assert [one["job_id"] for one in recovered("--job", second)["jobs"]] == [second]
    assert [tag for tag in world.left if first in tag]
    assert not [tag for tag in world.left if second in tag]
    assert recovered("--job", second)["jobs"] == []


def test_jobs_of_another_configuration_are_not_touched(world: World) -> None:
    other = crashed(world, name="weekly")
    config()
    before = world.left
    assert recovered()["jobs"] == []
    assert world.left == before
    line = refuse("recover", "live.yaml", "--job", other)
    assert f"--job: job '{other}' is one of 'weekly', and live.yaml is 'tonight'" in line
    invoke("run", "--live", "live.yaml")
    assert world.left == before


def test_a_job_in_the_hands_of_a_live_process_is_left_alone(world: World) -> None:
    job_id = crashed(world, holder=alive())
    config()
    before, opened = world.left, len(world.opened)
    result = invoke("recover", "live.yaml", code=1)
    who = str(Holder.here()).partition(" (")[0]
    assert f"Left alone: job {job_id}, in the hands of {who}" in result.stdout
    assert "held until 20" in result.stdout
    assert world.left == before
    assert len(world.opened) == opened
    answer = recovered(code=1)
    assert answer["complete"] is False
    assert answer["jobs"][0]["held_by"].startswith(who)
    assert answer["jobs"][0]["lease_until"].endswith("+00:00")


def test_take_over_fences_the_holder_and_says_so(world: World) -> None:
    job_id = crashed(world, holder=alive())
    config()
    token = jobs()[job_id].token
    result = invoke("recover", "live.yaml", "--take-over")
    assert f"taking job {job_id} from process" in result.stderr
    assert "it stops at its next step" in result.stderr
    assert not world.left
    assert jobs()[job_id].token > token


def test_a_process_elsewhere_is_believed_until_its_lease_ends(world: World) -> None:
    holder = Holder.parse(dead())
    assert holder is not None
    crashed(world, "j1", holder=str(holder._replace(host="elsewhere")))
    config()
    assert recovered(code=1)["jobs"][0]["complete"] is False
    crashed(world, "j2", holder=str(holder._replace(host="elsewhere")), settle_s=-70.0)
    with contextlib.closing(read_journal(Path("tonight.journal"))) as store:
        (record,) = [job for job in store.jobs() if job.job_id == "j2"]
    assert record.holder.startswith("process")


def test_a_run_recovers_first_and_the_report_tells(world: World) -> None:
    job_id = crashed(world)
    seen: list[list[str]] = []
    world.hypervisor.on_inventory = lambda: seen.append(world.left)
    result = invoke("run", "--live", config(), "--out", "second")
    assert seen[-1] == [], "the job runs on what there is after it"
    assert f"recovered first (like `stillframe recover live.yaml`): {job_id}" in result.stderr
    run = read_folder(Path("second"))
    assert run.vms["status"].to_list() == ["protected"] * 6
    assert f"Recovered job {job_id}: 2 removed, 0 kept." in run.meta["assumptions"]
    (told,) = run.meta["live"]["recovered"]
    assert (told["job_id"], told["complete"]) == (job_id, True)
    assert run.meta["live"]["journal"] == "tonight.journal"
    assert not [job for job in jobs().values() if job.unfinished]
    assert {one.vm_name for one in entries()} == {f"vm{i}" for i in range(6)}


def test_a_run_says_what_it_does_not_recover(world: World) -> None:
    job_id = crashed(world)
    before = world.left
    result = invoke("run", "--live", config(), "--no-recover")
    assert (
        f"not finished by earlier runs: {job_id}; this recovers them: stillframe recover live.yaml"
        in result.stderr
    )
    assert world.left == before
    assert jobs()[job_id].status == RUNNING


def test_what_cannot_be_recovered_costs_the_run_its_exit_code_only(world: World) -> None:
    job_id = crashed(world)
    refusals = [Fault(error=NeverWillError("remove", "vm3", "out of reach")) for _ in range(40)]
    world.faults.add("remove", "vc/vm3", *refusals)
    # The new job leaves vm3 out: its removal would be refused as well.
    job = SHORT | {"select": {"exclude": {"name": "vm3"}}}
    result = invoke("run", "--live", config(job=job), "--out", "second", code=1)
    assert f"recovered job {job_id}: 1 removed, 0 kept, 1 left" in result.stderr
    run = read_folder(Path("second"))
    assert run.meta["status"] == "protected"
    assert any(one.startswith("Left: ") for one in run.meta["assumptions"])
    assert jobs()[job_id].open_intents == 1
    world.faults.planned.clear()
    assert recovered()["complete"] is True
    assert not world.left


def test_a_run_does_not_start_beside_a_live_one(world: World) -> None:
    job_id = crashed(world, holder=alive())
    file = config()
    before, opened = tree(Path()), len(world.opened)
    line = line_of(invoke("run", "--live", file, code=3))
    assert f"job {job_id} of 'tonight' is at work, nothing was touched: it is in the hands" in line
    assert f"stillframe recover live.yaml --job {job_id} --take-over" in line
    assert tree(Path()) == before
    assert len(world.opened) == opened


def test_of_two_runs_that_begin_at_once_the_first_goes_on(world: World) -> None:
    file = load_live(config())
    first, second = (RunJournal(file, recover_first=True) for _ in range(2))
    with contextlib.closing(first), contextlib.closing(second):
        held = first.begin("one")
        with pytest.raises(StillframeError, match="job one of 'tonight' is at work"):
            second.begin("two")
        held.renew()
        held.finish("protected")
    assert [job.unfinished for job in jobs().values()] == [False, False]


def test_ctrl_c_leaves_what_the_next_recovery_finishes(world: World) -> None:
    crashed(world)
    config()
    world.hypervisor.on_remove = send(signal.SIGINT)
    result = invoke("recover", "live.yaml", code=130)
    assert result.stderr.endswith("interrupted; the command did not finish\n")
    assert world.closed == ["a1", "vc"]
    world.hypervisor.on_remove = lambda: None
    assert recovered()["complete"] is True
    assert not world.left
    assert array_tags(world) == []


def test_a_system_that_is_away_keeps_what_is_there_for_the_next_time(world: World) -> None:
    job_id = crashed(world)
    config(job=SHORT)
    away = DidNotHappenError("connect", "vc", "connection refused")
    world.fail_to_open["vc"] = away
    result = invoke("recover", "live.yaml", code=1)
    assert "vc cannot be reached, what is left there is left: connect on vc failed" in result.stderr
    assert "To go on later: stillframe recover live.yaml" in result.stdout
    assert len(world.left) == 1
    assert array_tags(world) == []
    assert jobs()[job_id].open_intents == 1

    world.fail_to_open["a1"] = away
    line = invoke("recover", "live.yaml", code=3).stderr.splitlines()[-1]
    assert "connection refused" in line

    world.fail_to_open.clear()
    assert recovered()["complete"] is True
    assert not world.left


def test_a_job_that_could_not_remove_all_is_recovered_by_the_next_run(world: World) -> None:
    refusals = [Fault(error=NeverWillError("remove", "vm3", "out of reach")) for _ in range(40)]
    world.faults.add("remove", "vc/vm3", *refusals)
    invoke("run", "--live", config(job=SHORT), "--out", "first", code=1)
    assert len(world.left) == 1
    world.faults.planned.clear()
    invoke("run", "--live", "live.yaml", "--out", "second")
    assert not world.left
    assert read_folder(Path("second")).meta["live"]["recovered"][0]["complete"] is True


def test_the_journal_holds_no_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLFRAME_VSPHERE_PASSWORD", "correct horse")
    hypervisors = {"vc": {"driver": "memory", "host": "vc.example.com", "password_env": "PW"}}
    invoke("run", "--live", config(hypervisors=hypervisors))
    content = b"".join(path.read_bytes() for path in Path().glob("*.journal*"))
    assert b"vm3" in content
    for secret in (b"correct horse", b"password", b"vc.example.com"):
        assert secret not in content


def test_a_journal_that_fails_to_note_an_end_costs_one_more_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: SqliteJournal, tag: str) -> None:
        raise StillframeError("the store tonight.journal cannot be used: disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteJournal, "settle", fail)
        result = invoke("run", "--live", config(job=SHORT), "--out", "first", code=1)
    assert "The journal could not be kept up to date: the store tonight" in result.stderr
    assert not world.left
    assert len(recovered()["jobs"]) == 1
    assert recovered()["jobs"] == []
    assert len(entries()) == 6


def test_a_rehearsal_and_a_plan_make_no_journal(world: World) -> None:
    file = config()
    invoke("plan", "--live", file)
    invoke("estate", "pull", "--vcenter", "vc", "--out", "estate.yaml")
    invoke("rehearse", file, "--estate", "estate.yaml")
    assert not list(Path().rglob("*.journal*"))


def test_the_journal_lies_where_the_configuration_says(world: World) -> None:
    Path("states").mkdir()
    invoke("run", "--live", config(journal_file="states/tonight.db"))
    assert [one.name for one in Path("states").iterdir()] == ["tonight.db"]
    assert not list(Path().glob("*.journal*"))
    with contextlib.closing(open_journal(Path("states/tonight.db"))) as store:
        assert len(store.entries()) == 6
