"""``run --live``: what it protects, reports and closes, and what ends it early."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from support_files import tree
from support_live_front import (
    QUICK,
    Hypervisor,
    World,
    config,
    invoke,
    line_of,
    only_result,
    send,
    world,
)
from support_memory import Fault

from stillframe import live
from stillframe.drivers.contracts import VmSnapshotRequest
from stillframe.drivers.errors import DidNotHappenError, NeverWillError
from stillframe.reports import folder
from stillframe.reports.figures import draw_all
from stillframe.reports.folder import read_folder

__all__ = ["world"]  # a fixture


def test_a_live_run_protects_releases_reports_and_closes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "draw_all", draw_all)
    result = invoke("run", "--live", config())
    assert result.stderr == ""
    assert "Report: out/tonight-" in result.stdout
    run = read_folder(only_result())
    assert run.vms["status"].to_list() == ["protected"] * 6
    assert run.meta["live"]["hypervisors"] == {"vc": "memory"}
    assert run.meta["live"]["arrays"] == {"a1": "memory"}
    assert run.meta["live"]["started_at"].endswith("+00:00")
    assert (run.meta["title"], run.meta["seed"]) == ("Everything", None)
    assert run.meta["command"] == "stillframe run --live live.yaml"
    assert only_result().name == f"tonight-{run.meta['job_id']}"
    assert not world.left
    assert {one.ref.tag for one in world.array.snapshots} == {
        tag for tags in run.catalogue["tags"].to_list() for tag in tags
    }
    assert all(
        one.ref.tag.startswith(f"stillframe-{run.meta['job_id']}-") for one in world.array.snapshots
    )
    assert world.opened == [("vc", {"host": "vc.example.com"}), ("a1", {})]
    assert world.closed == ["a1", "vc"]
    assert len(list((only_result() / "figures").glob("*.png"))) > 3
    page = (only_result() / "report.html").read_text(encoding="utf-8")
    began = run.meta["live"]["started_at"]
    assert f"begun at {began}; vc by driver <code>memory</code>; a1" in page


def test_what_a_driver_cannot_see_is_null_and_said(world: World) -> None:
    invoke("run", "--live", config())
    run = read_folder(only_result())
    assert run.vms["stun_create_s"].null_count() == 6
    assert run.vms["stun_remove_s"].null_count() == 6
    assert run.vms["quiesce_s"].null_count() == 0
    assert run.calls["fence_s"].null_count() == run.calls.height
    said = " ".join(run.meta["assumptions"])
    assert "Hypervisor vc, driver memory: cannot see when virtual CPUs stopped" in said
    assert "froze" not in said
    assert "model" not in said


def test_a_modelled_array_works_beside_a_live_hypervisor_and_says_what_it_is(world: World) -> None:
    units = [
        {"name": unit.name, "capacity": "100 GiB", "devices": [str(unit.devices[0])]}
        for unit in world.estate.units
    ]
    arrays = {"a1": {"driver": "modelled-array", "profile": QUICK, "units": units}}
    invoke("run", "--live", config(arrays=arrays))
    run = read_folder(only_result())
    assert run.vms["status"].to_list() == ["protected"] * 6
    assert run.calls["fence_s"].null_count() == 0
    assert any("a1, driver modelled-array" in one for one in run.meta["assumptions"])
    assert any("nothing can be restored" in one for one in run.meta["assumptions"])
    assert run.meta["live"]["models"] == ["a1"]
    assert "a1 is a model beside live systems" in (
        (only_result() / "report.html").read_text(encoding="utf-8")
    )
    assert not world.left


def test_two_runs_keep_both_results(world: World) -> None:
    file = config()
    invoke("run", "--live", file)
    invoke("run", "--live", file)
    assert len(list(Path("out").iterdir())) == 2


def test_json_is_one_document_with_the_folder(world: World) -> None:
    result = invoke("run", "--live", config(), "--out", "here", "--json", "--strategy", "chunks")
    document = json.loads(result.stdout)
    assert document["folder"] == "here"
    assert document["strategy"] == "chunks"
    assert len(document["vms"]) == 6
    assert read_folder(Path("here")).meta["command"].endswith("--strategy chunks")


def test_exit_codes_follow_the_job(world: World) -> None:
    never = NeverWillError("create_snapshot", "vc/vm3", "a shared bus")
    world.faults.add("create", "vc/vm3", Fault(error=never))
    invoke("run", "--live", config(), "--out", "one", code=1)
    failed = read_folder(Path("one")).vms.filter(pl.col("status") != "protected")
    assert failed["name"].to_list() == ["vm3"]
    for vm_id in world.hypervisor.vms:
        world.faults.add("create", vm_id, Fault(error=never))
    invoke("run", "--live", config(), "--out", "none", code=3)
    assert read_folder(Path("none")).meta["status"] == "failed"
    assert not world.left


def test_ctrl_c_cancels_the_job_releases_everything_and_still_reports(world: World) -> None:
    once = [send(signal.SIGINT)]
    world.hypervisor.on_created = lambda _: once.pop()() if once else None
    result = invoke("run", "--live", config(), code=130)
    first, last = result.stderr.splitlines()
    assert "stopping: the job is cancelled and releases its VMs" in first
    assert last.startswith("stillframe: interrupted; the job was cancelled, the report says")
    assert read_folder(only_result()).meta["status"] == "cancelled"
    assert not once
    assert not world.left
    assert world.closed == ["a1", "vc"]


def test_a_second_ctrl_c_does_not_leave_snapshots_behind(world: World) -> None:
    once, twice = [send(signal.SIGINT)], [send(signal.SIGINT)]
    world.hypervisor.on_created = lambda _: once.pop()() if once else None
    world.hypervisor.on_remove = lambda: twice.pop()() if twice else None
    result = invoke("run", "--live", config(), code=130)
    assert "once more Ctrl-C gives up" in result.stderr
    assert not twice
    assert not world.left
    assert read_folder(only_result()).meta["status"] == "cancelled"


def test_sigterm_ends_the_job_in_good_order(world: World) -> None:
    once = [send(signal.SIGTERM)]
    world.hypervisor.on_created = lambda _: once.pop()() if once else None
    result = invoke("run", "--live", config(), code=3)
    assert "interrupted" not in result.stderr
    assert read_folder(only_result()).meta["status"] == "cancelled"
    assert not world.left
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ctrl_c_before_the_job_leaves_no_result(world: World) -> None:
    world.hypervisor.on_inventory = send(signal.SIGINT)
    before = tree(Path())
    file = config()
    result = invoke("run", "--live", file, code=130)
    assert line_of(result) == "stillframe: interrupted; the command did not finish"
    assert set(tree(Path())) - set(before) == {"live.yaml"}
    assert not world.array.snapshots
    assert world.closed == ["a1", "vc"]


def test_a_system_that_does_not_close_well_does_not_cost_the_report(world: World) -> None:
    world.fail_to_close["vc"] = DidNotHappenError("logout", "vc", "the session was gone")
    result = invoke("run", "--live", config())
    assert "logout on vc failed: the session was gone" in result.stderr
    run = read_folder(only_result())
    assert run.meta["status"] == "protected"
    assert any("could not be closed" in one for one in run.meta["assumptions"])


def test_a_defect_in_a_driver_is_reported_after_the_releases(world: World) -> None:
    class Broken(Hypervisor):
        async def create_snapshot(self, request: VmSnapshotRequest) -> Any:
            if request.vm_id == "vc/vm5":
                raise ZeroDivisionError("a defect")
            return await super().create_snapshot(request)

    world.hypervisor.__class__ = Broken
    result = invoke("run", "--live", config(), code=3)
    assert "ZeroDivisionError: a defect" in result.stderr
    assert "internal error" in result.stderr
    assert read_folder(only_result()).meta["job"]["selected"] == 6
    assert not world.left


def test_job_ids_differ_and_sort_by_time() -> None:
    ids = [live.new_job_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(one.replace("-", "").isalnum() for one in ids)
