"""A lab leaves nothing behind: taken down, broken off, killed half way, or found in pieces."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_lab import lab_leftovers, needs_lab, short_folder
from support_lab_up_child import STEPS

from stillframe.errors import InputError, StillframeError
from stillframe.lab import lab as lab_module
from stillframe.lab import teardown
from stillframe.lab.host import attach_loop, loops, mount, mounts, run
from stillframe.lab.lab import Lab, bring_up, lab_up, take_down
from stillframe.lab.labfile import LabFile, create_lab_file
from stillframe.lab.spec import LabArray, LabSpec

pytestmark = needs_lab("root", "qemu", "loop")
CHILD = Path(__file__).with_name("support_lab_up_child.py")
SMALL = LabSpec(array="xfs", guests=1, wide=0, datastores=1, units=1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a lab can be made; whatever a failed test leaves there goes."""
    with short_folder("down") as made:
        try:
            yield made / "lab"
        finally:
            asyncio.run(take_down(made / "lab"))


def brought_up_until(folder: Path, step: str, number: signal.Signals, array: str = "qsd") -> int:
    """How a process ended that was sent a signal in the middle of bringing up a lab."""
    argv = [sys.executable, CHILD, folder, array, step, str(int(number))]
    return subprocess.run(argv, capture_output=True, check=False, timeout=120).returncode


@needs_lab("fuse")
@pytest.mark.parametrize("step", STEPS)
def test_killed_in_the_middle_of_a_step_it_can_be_taken_down(folder: Path, step: str) -> None:
    ended = brought_up_until(folder, step, signal.SIGKILL)
    assert ended in (-signal.SIGKILL, 0)  # a step that takes no time is over when the signal comes
    assert lab_leftovers(folder)
    asyncio.run(take_down(folder))
    assert lab_leftovers(folder) == []


@needs_lab("xfs")
def test_killed_while_guests_start_on_a_pool_in_a_loop_device(folder: Path) -> None:
    brought_up_until(folder, "guests", signal.SIGKILL, array="xfs")
    asyncio.run(take_down(folder))
    assert lab_leftovers(folder) == []


@needs_lab("ceph", "fuse")
def test_killed_while_a_cluster_comes_up(folder: Path) -> None:
    brought_up_until(folder, "array", signal.SIGKILL, array="ceph")
    asyncio.run(take_down(folder))
    assert lab_leftovers(folder) == []


@needs_lab("fuse")
@pytest.mark.parametrize("step", ["array", "guests"])
def test_interrupted_it_takes_itself_down(folder: Path, step: str) -> None:
    brought_up_until(folder, step, signal.SIGINT)
    assert lab_leftovers(folder) == []


@needs_lab("xfs")
def test_a_step_that_fails_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_arguments: object) -> None:
        raise StillframeError("the disk is full")

    monkeypatch.setattr(lab_module, "make_disks", fail)

    async def main() -> None:
        async with lab_up(SMALL, folder):
            raise AssertionError

    with pytest.raises(StillframeError, match="the disk is full"):
        asyncio.run(main())
    assert lab_leftovers(folder) == []


@needs_lab("xfs")
def test_the_context_takes_it_down_whatever_happens_in_it(folder: Path) -> None:
    async def main() -> None:
        async with lab_up(SMALL.model_copy(update={"writer": None}), folder) as lab:
            assert lab_leftovers(folder)
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
            await lab.run_in_guest("vm-0", "sleep 60")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert lab_leftovers(folder) == []


def _claimed(folder: Path) -> Path:
    """A folder that is a lab's, with nothing in it."""
    folder.mkdir()
    create_lab_file(folder, LabFile(SMALL))
    return folder


async def _pieces(folder: Path, *, freeze: bool) -> None:
    """A datastore on a unit, mounted twice, once outside of the lab; and frozen."""
    image = _claimed(folder) / "unit"
    await run("truncate", "--size", "64M", image)
    device = await attach_loop(image, read_only=False, direct_io=False)
    await run("mkfs.ext4", "-q", device)
    await mount(device, folder / "ds0")
    await mount(device, folder.parent / "elsewhere")
    if freeze:
        await run("fsfreeze", "--freeze", folder / "ds0")


def test_pieces_are_found_without_a_word_of_them(folder: Path) -> None:
    asyncio.run(_pieces(folder, freeze=True))
    asyncio.run(take_down(folder))
    assert lab_leftovers(folder) == []
    table = Path("/proc/self/mounts").read_text(encoding="utf-8")
    assert str(folder.parent / "elsewhere") not in table


def test_a_tool_that_a_killed_bring_up_left_running_is_ended(folder: Path) -> None:
    """It would go on making something behind the back of whoever takes the lab down."""
    _claimed(folder)
    words = ["losetup", "-c", "import time; time.sleep(600)", str(folder / "unit")]
    with subprocess.Popen(words, executable=sys.executable) as tool:
        try:
            asyncio.run(take_down(folder))
            assert tool.wait(20) == -signal.SIGKILL
        finally:
            tool.kill()


def test_a_file_system_in_use_is_unmounted_lazily_and_that_is_said(folder: Path) -> None:
    async def main() -> list[str]:
        _claimed(folder)
        await run("mount", "-t", "tmpfs", "tmpfs", folder)
        create_lab_file(folder, LabFile(SMALL))
        said: list[str] = []
        with (folder / "open").open("w"):
            await take_down(folder, said.append)
        return said

    said = asyncio.run(main())
    assert any("stays in use: unmounted lazily" in line for line in said)
    assert lab_leftovers(folder) == []


def test_who_works_in_a_datastore_does_not_hold_the_lab(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teardown, "_BUSY_S", 0.2)
    asyncio.run(_pieces(folder, freeze=False))
    said: list[str] = []
    with subprocess.Popen(["sleep", "300"], cwd=folder / "ds0") as shell:
        asyncio.run(take_down(folder, said.append))
        kept = [loop for loop in loops() if folder in loop.backing.parents]
        shell.kill()
    assert not folder.exists()
    assert any(f"ds0 stays in use by sleep ({shell.pid})" in line for line in said)
    assert [loop.going for loop in kept] == [True]


def _wait_until_stuck(pid: int) -> None:
    """Until a thread of a process waits for a device, from which no signal wakes it."""
    deadline_s = time.monotonic() + 60
    while not any(
        task.read_text().rpartition(")")[2].split()[0] == "D"
        for task in Path(f"/proc/{pid}/task").glob("*/stat")
    ):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@needs_lab("fuse")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_array_that_is_dead_or_hangs_does_not_hold_the_lab(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A guest that writes to a daemon that does not answer outlives its own SIGKILL."""
    monkeypatch.setattr(teardown, "_KILLED_S", 0.5)
    asyncio.run(bring_up(SMALL.model_copy(update={"array": LabArray.QSD}), folder))
    os.kill(int((folder / "array" / "daemon.pid").read_text()), number)
    if number == signal.SIGSTOP:
        _wait_until_stuck(int((folder / "guests" / "vm-0" / "pid").read_text()))
    asyncio.run(take_down(folder))
    assert lab_leftovers(folder) == []


@needs_lab("fuse")
def test_the_loop_devices_of_dead_units_go_too(folder: Path) -> None:
    """Where the exports of a killed array are gone, only mounts tell whose they are."""

    async def main() -> set[str]:
        lab = await bring_up(SMALL.model_copy(update={"array": LabArray.QSD}), folder)
        devices = {one.source for one in mounts() if one.at in lab.datastores}
        await lab.kill_array()
        await take_down(folder)
        return devices

    devices = asyncio.run(main())
    assert not devices & {str(loop.device) for loop in loops() if len(loop.backing.parts) <= 2}
    assert lab_leftovers(folder) == []


def test_a_folder_of_somebody_else_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").write_text("important")
    with pytest.raises(InputError, match="there is no lab here"):
        asyncio.run(take_down(folder))
    assert (folder / "thesis.tex").read_text() == "important"
    (folder / "lab.json").write_text("{}")
    with pytest.raises(InputError, match="not the file of a lab"):
        asyncio.run(take_down(folder))
    assert (folder / "thesis.tex").exists()
    for path in folder.iterdir():
        path.unlink()


def test_taking_down_may_be_repeated(folder: Path) -> None:
    asyncio.run(take_down(folder))
    folder.mkdir()
    asyncio.run(take_down(folder))
    asyncio.run(take_down(folder))
    assert not folder.exists()


@needs_lab("xfs", "fuse")
def test_two_labs_side_by_side(folder: Path) -> None:
    """One whose path begins with the other's: taking one down leaves the other whole."""
    longer = folder.with_name(f"{folder.name}2")

    async def main() -> None:
        other = LabSpec(array="qsd", guests=1, wide=0, datastores=1, units=1)
        async with lab_up(SMALL, folder), lab_up(other, longer):
            await take_down(folder)
            assert lab_leftovers(folder / "x") == []
            alive = Lab.open(longer)
            await alive.stop_writer("vm-0")
            (found,) = await alive.check_in_guest("vm-0")
            assert (found.bad, found.missing) == (0, 0)
            assert found.max_seq >= 0

    asyncio.run(main())
    assert lab_leftovers(folder) == []
