"""``run --live --clear``: which result it takes, what it tells, and what it costs the exit code."""

from __future__ import annotations

import html
import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support_live_front import World, config, invoke, refuse, send, world
from support_memory import Fault
from typer.testing import CliRunner

from stillframe.cli import app
from stillframe.drivers.errors import NeverWillError
from stillframe.reports.folder import read_folder

__all__ = ["world"]  # a fixture

JOB: dict[str, Any] = {
    "retry": {"attempts": 2, "first_pause": "1 ms"},
    "timeouts": {"settle": "20 ms"},
}


def never(operation: str) -> list[Fault]:
    """Refusals, more than anybody asks for."""
    return [Fault(error=NeverWillError(operation, "vm3", "out of reach")) for _ in range(40)]


def stranded(world: World, **changes: Any) -> Path:
    """The result of a run that could not remove vm3's snapshot, and whose journal is lost."""
    world.faults.add("remove", "vc/vm3", *never("remove_snapshot"))
    invoke("run", "--live", config(job=JOB, **changes), "--out", "first", code=1)
    world.faults.planned.clear()
    for journal in Path().glob("*.journal"):  # it would be recovered, without being asked
        journal.unlink()
    job_id = read_folder(Path("first")).meta["job_id"]
    (tag,) = world.left
    assert tag.startswith(f"stillframe-{job_id}-")
    world.hypervisor.add_foreign("vc/vm0", "stillframe-20200101t000000-aaaaaa-1")
    return Path("first")


def left_by_others(world: World) -> bool:
    """Whether that tag of another job is all there is, beside what people made."""
    return world.left == ["stillframe-20200101t000000-aaaaaa-1"]


def kept(folder: Path) -> set[str]:
    """Tags of the array snapshots that a result's catalogue names."""
    return {tag for tags in read_folder(folder).catalogue["tags"].to_list() for tag in tags}


def test_a_rerun_leaves_nothing_of_the_earlier_job(world: World) -> None:
    folder = stranded(world)
    seen: list[list[str]] = []
    world.hypervisor.on_inventory = lambda: seen.append(world.left)
    result = invoke("run", "--live", "live.yaml", "--clear", str(folder), "--out", "second")
    assert left_by_others(world)
    assert [len(tags) for tags in seen] == [2, 1], "the job runs on what there is after it"
    held = {one.ref.tag for one in world.array.snapshots}
    assert held == kept(folder) | kept(Path("second"))
    first, second = result.stderr.splitlines()
    assert first.startswith("stillframe: removed VM snapshot stillframe-")
    assert first.endswith("of vm3 (vc/vm3)")
    assert second.endswith("before this one had left: 1 removed")
    run = read_folder(Path("second"))
    assert run.vms["status"].to_list() == ["protected"] * 6
    assert any("had left: 1 removed." in one for one in run.meta["assumptions"])
    cleared = run.meta["live"]["cleared"]
    assert cleared["folder"] == "first"
    assert (len(cleared["removed"]), cleared["left"]) == (1, [])

    result = invoke("run", "--live", "live.yaml", "--clear", str(folder), "--out", "third")
    assert line_of_stderr(result).endswith("has left nothing behind")
    assert left_by_others(world)
    assert len(seen) == 3, "nothing was removed, so nothing has changed"


def line_of_stderr(result: Any) -> str:
    """The one line on stderr."""
    (line,) = result.stderr.splitlines()
    return str(line)


def test_without_clear_nothing_of_another_job_is_touched(world: World) -> None:
    stranded(world)
    before = world.left
    invoke("run", "--live", "live.yaml", "--out", "second")
    assert world.left == before
    assert read_folder(Path("second")).meta["live"]["cleared"] is None


def test_what_cannot_be_removed_is_said_the_job_runs_and_the_code_is_not_0(world: World) -> None:
    folder = stranded(world, name="n")
    # Of the earlier job's removal only: the new job leaves vm3 out.
    job = JOB | {"select": {"exclude": {"name": "vm3"}}}
    file = config(name="n", job=job)
    world.faults.add("remove", "vc/vm3", *never("remove_snapshot"))
    arguments = ("run", "--live", file, "--clear", str(folder), "--out", "second")
    result = invoke(*arguments, code=1)
    assert "on vm3 (vc/vm3) is not removed: out of reach" in result.stderr
    assert "had left: 0 removed, 1 not; --clear first tries again" in result.stderr
    run = read_folder(Path("second"))
    assert run.meta["status"] == "protected"
    assert any(one.startswith("Left: VM snapshot") for one in run.meta["assumptions"])
    world.faults.planned.clear()
    invoke("run", "--live", file, "--clear", str(folder), "--out", "third")
    assert left_by_others(world)


def test_a_failed_job_stays_failed_whatever_was_cleared(world: World) -> None:
    folder = stranded(world)
    for vm_id in world.hypervisor.vms:
        world.faults.add("create", vm_id, *never("create_snapshot"))
    world.faults.add("remove", "vc/vm3", *never("remove_snapshot"))
    invoke("run", "--live", "live.yaml", "--clear", str(folder), "--out", "second", code=3)


def test_the_report_names_the_command_that_clears(world: World) -> None:
    world.faults.add("remove", "vc/vm3", *never("remove_snapshot"))
    text = invoke("run", "--live", config(job=JOB), "--out", "my first", code=1).stdout
    run = read_folder(Path("my first"))
    assert len(run.meta["orphans"]) == 1
    command = "stillframe run --live live.yaml --clear 'my first'"
    assert "the next run of this configuration recovers it from the journal" in text
    assert f"should the journal be lost, this removes it first: {command}" in text
    page = (Path("my first") / "report.html").read_text(encoding="utf-8")
    assert "The next run of this configuration recovers it" in page
    assert command in html.unescape(page)
    world.faults.planned.clear()
    invoke(*shlex.split(command)[1:])
    assert not world.left


def test_a_job_without_leftovers_names_no_such_command(world: World) -> None:
    text = invoke("run", "--live", config(), "--out", "first").stdout
    assert "--clear" not in text
    assert "--clear" not in (Path("first") / "report.html").read_text(encoding="utf-8")


def test_ctrl_c_while_clearing_starts_no_job(world: World) -> None:
    folder = stranded(world)
    world.hypervisor.on_remove = send(signal.SIGINT)
    result = invoke("run", "--live", "live.yaml", "--clear", str(folder), code=130)
    assert "interrupted" in result.stderr
    assert not Path("out").exists()
    assert world.closed[-2:] == ["a1", "vc"]


def edited(change: Callable[[dict[str, Any]], None]) -> None:
    """Change the meta of the result in ``first``."""
    file = Path("first/run.json")
    head = json.loads(file.read_text(encoding="utf-8"))
    change(head["meta"])
    file.write_text(json.dumps(head), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda meta: meta.pop("live"), "first: meta.live: this is not the result of a live run"),
        (lambda meta: meta.update(live=7), "first: meta.live: this is not the result of a live"),
        (lambda meta: meta.update(name="other"), "is a result of 'other', and live.yaml is"),
        (lambda meta: meta.pop("job_id"), "first: meta.job_id: None is not the name of a job"),
        (lambda meta: meta.update(job_id=""), "first: meta.job_id: '' is not the name of a job"),
        (lambda meta: meta.update(job_id="*"), "first: meta.job_id: '*' is not the name"),
        (
            lambda meta: meta["live"].update(hypervisors={"vc-9": "memory"}),
            "first: meta.live.hypervisors: 'vc-9', driver 'memory', is not in live.yaml",
        ),
        (
            lambda meta: meta["live"].update(arrays={"a1": "other"}),
            "first: meta.live.arrays: 'a1', driver 'other', is not in live.yaml",
        ),
        (
            lambda meta: meta["live"].update(arrays=["a1"]),
            "first: meta.live.arrays: ['a1'] names no systems",
        ),
    ],
)
def test_a_result_of_something_else_is_refused(
    world: World, change: Callable[[dict[str, Any]], None], told: str
) -> None:
    stranded(world)
    edited(change)
    opened, left = len(world.opened), world.left
    line = refuse("run", "--live", "live.yaml", "--clear", "first")
    assert told in line
    assert (len(world.opened), world.left) == (opened, left)


def test_a_damaged_result_is_refused(world: World) -> None:
    stranded(world)
    Path("first/catalogue.parquet").write_bytes(b"PAR1")
    opened = len(world.opened)
    assert "catalogue.parquet" in refuse("run", "--live", "live.yaml", "--clear", "first")
    assert len(world.opened) == opened


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("run", "demo", "--clear", "first"), "--clear has no meaning without --live"),
        (("run", "--live", "live.yaml", "--clear", "nowhere"), "nowhere: there is no such folder"),
        (("run", "--live", "live.yaml", "--clear", "."), "run.json: cannot be read"),
        (("run", "--live", "live.yaml", "--clear"), "--clear"),
        (
            ("run", "--live", "live.yaml", "--clear", "x/../first", "--out", "first"),
            "--out: 'first' is the result that --clear works from",
        ),
    ],
)
def test_bad_input_is_one_line_and_touches_nothing(
    world: World, args: tuple[str, ...], told: str
) -> None:
    config()
    assert told in refuse(*args)
    assert world.opened == []


def test_a_modelled_result_is_refused(world: World) -> None:
    arguments = ["run", "one-disk-ties", "--out", "modelled"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    config(name="one-disk-ties")
    line = refuse("run", "--live", "live.yaml", "--clear", "modelled")
    assert "modelled: meta.live: this is not the result of a live run" in line
