"""The host's tools as a lab uses them: their errors, cancellation, and what the tables say."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import support_lab
from support_lab import needs_lab, short_folder

from stillframe.errors import InputError, StillframeError
from stillframe.lab.host import (
    all_of,
    attach_loop,
    detach_loop,
    loops,
    mount,
    mounts,
    run,
    thaw,
    unmount,
)
from stillframe.lab.labfile import LabFile, create_lab_file, load_lab_file, save_lab_file
from stillframe.lab.processes import Process, end, process_of, processes
from stillframe.lab.spec import LabSpec


def test_a_tool_that_fails_is_quoted() -> None:
    with pytest.raises(StillframeError, match="No such file or directory"):
        asyncio.run(run("cat", "/nowhere/at/all"))
    with pytest.raises(StillframeError, match="there is no program no-such-tool"):
        asyncio.run(run("no-such-tool"))
    assert asyncio.run(run("sh", "-c", "echo out; exit 3", ok=(0, 3))) == "out\n"


def test_a_tool_that_hangs_is_killed() -> None:
    with pytest.raises(StillframeError, match=r"did not end within 0\.05 s"):
        asyncio.run(run("sleep", "300", limit_s=0.05))


def test_of_calls_side_by_side_the_first_failure_is_told_as_it_is() -> None:
    """Not as a group of exceptions, which nobody who reads the command line can use."""
    ended = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("hang")

    async def fail() -> None:
        raise StillframeError("no space")

    with pytest.raises(StillframeError, match="no space"):
        asyncio.run(all_of([hang(), fail()]))
    assert ended == ["hang"]


def test_a_cancelled_call_waits_for_its_tool(tmp_path: Path) -> None:
    """Else a loop device could be made after the teardown has looked for loop devices."""
    begun, made = tmp_path / "begun", tmp_path / "made"

    async def main() -> None:
        script = f"echo > {begun}; cat {begun}; touch {made}"
        call = asyncio.create_task(run("sh", "-c", script))
        await asyncio.to_thread(begun.read_bytes)
        call.cancel()
        await asyncio.to_thread(begun.write_text, "go on")
        with pytest.raises(asyncio.CancelledError):
            await call

    os.mkfifo(begun)
    asyncio.run(main())
    assert made.exists()


@needs_lab("root", "loop")
def test_loops_mounts_and_thawing() -> None:
    async def main(folder: Path) -> None:
        image, at = folder / "image", folder / "a b"
        await run("truncate", "--size", "64M", image)
        device = await attach_loop(image, read_only=False, direct_io=True, offset=8 << 20)
        (found,) = [loop for loop in loops() if loop.device == device]
        assert (found.backing, found.deleted, found.going) == (image, False, False)
        facts = await run("losetup", "--noheadings", "--output", "OFFSET,DIO", device)
        assert facts.split() == [str(8 << 20), "1"]
        await run("mkfs.ext4", "-q", device)
        await mount(device, at, "noatime")
        assert [one.fs_type for one in mounts() if one.at == at] == ["ext4"]
        assert not thaw(at)
        await run("fsfreeze", "--freeze", at)
        assert thaw(at)
        await unmount(at)
        await detach_loop(device)
        await detach_loop(device)  # another teardown was first
        assert all(loop.device != device for loop in loops())

    with short_folder("host") as folder:
        asyncio.run(main(folder))


@contextmanager
def child(*argv: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], Process]]:
    """A process that the process table shows with its command line; killed at the end."""
    with subprocess.Popen(argv) as popen:
        try:
            deadline_s = time.monotonic() + 60
            # For a moment after its start a process has no command line.
            while not (found := [one for one in processes() if one.pid == popen.pid]):
                assert time.monotonic() < deadline_s
            yield popen, found[0]
        finally:
            popen.kill()


def test_a_process_is_ended_unless_its_number_is_another_s_now() -> None:
    with child("sleep", "300") as (popen, process):
        asyncio.run(end(Process(popen.pid, ("qemu-system-x86_64",)), signal.SIGKILL))
        assert popen.poll() is None
        asyncio.run(end(process, signal.SIGTERM))
        assert popen.wait() == -signal.SIGTERM
    asyncio.run(end(process, signal.SIGTERM))


def test_a_process_that_does_not_end_is_said() -> None:
    with child("sleep", "300") as (popen, process):
        os.kill(popen.pid, signal.SIGSTOP)
        with pytest.raises(StillframeError, match=r"did not end within 0\.05 s of SIGTERM"):
            asyncio.run(end(process, signal.SIGTERM, limit_s=0.05))


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("/x/lab", True),
        ("/x/lab/guests/vm-0", True),
        ("driver=file,filename=/x/lab/ds0/a.raw", True),
        ("unix:/x/lab/qmp.sock,server=on", True),
        ("/x/lab2/guests", False),
        ("/y/x/lab/guests", False),
    ],
)
def test_a_command_line_names_a_folder(word: str, names: bool) -> None:
    assert Process(1, ("qemu", word)).names(Path("/x/lab")) is names


def test_a_pid_file_is_believed_only_if_the_process_is_of_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    assert process_of(file, tmp_path) is None
    file.write_text("not a number")
    assert process_of(file, tmp_path) is None
    with child("tail", "-f", file) as (popen, process):
        file.write_text(f"{popen.pid}\n")
        assert process_of(file, tmp_path) == process
        assert process_of(file, tmp_path / "guest") is None


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    made = LabFile(LabSpec(guests=2), units=(Path("/x/unit-0"),))
    create_lab_file(tmp_path, made)
    with pytest.raises(InputError, match="a lab is being made there"):
        create_lab_file(tmp_path, made)
    assert load_lab_file(tmp_path) == made
    save_lab_file(tmp_path, LabFile(LabSpec(), ready=True, took_s={"array": 0.5}))
    assert load_lab_file(tmp_path).took_s == {"array": 0.5}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stillframe_lab": 0}', '{"stillframe_lab": 1}'])
def test_a_file_of_somebody_else_is_no_lab(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.json").write_text(text)
    with pytest.raises(InputError, match="is not the file of a lab"):
        load_lab_file(tmp_path)


def test_what_is_missing_is_skipped_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(support_lab._TOOLS, "xfs", ("no-such-tool",))
    support_lab._missing.cache_clear()
    monkeypatch.setattr(support_lab, "_lacking", [])
    monkeypatch.delenv("CI", raising=False)
    assert needs_lab("xfs").name == "skip"
    monkeypatch.setenv("CI", "true")
    assert needs_lab("xfs").args == ("lab_is_lacking",)
    assert "no-such-tool" in support_lab._lacking[0]
    support_lab._missing.cache_clear()
