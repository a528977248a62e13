"""The dead man's switch: what a killed process held is let go, and only that."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_lab import needs_lab
from support_qemu_agent import FakeAgent

from stillframe.drivers import deadman_child
from stillframe.drivers.deadman import DeadMan
from stillframe.errors import StillframeError

FIFREEZE = 0xC0045877
PARENT = """
import asyncio, fcntl, json, os, signal, socket, sys
from stillframe.drivers.deadman import DeadMan

# Whoever runs the tests in the background may have this ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

async def main(kind, path):
    deadman = DeadMan()
    await deadman.start()
    deadman.hold(kind, path)
    if kind == "agent":
        agent = socket.socket(socket.AF_UNIX)
        agent.connect(path)
        agent.sendall(b'{"execute": "guest-fsfreeze-freeze"}\\n')
        agent.recv(100)
    else:
        fcntl.ioctl(os.open(path, os.O_RDONLY), 0xC0045877, 0)
    print(deadman.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


def killed(kind: str, path: Path, *, how: int = signal.SIGKILL) -> None:
    """Have a process freeze something, and kill its whole process group."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, kind, str(path)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        try:
            assert parent.stdout.readline().strip().isdigit()
            os.killpg(parent.pid, how)
            assert parent.wait(20) == -how
        finally:
            parent.kill()


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a Unix socket."""
    return tmp_path_factory.mktemp("a") / "agent.sock"


def test_a_guest_whose_freezer_is_killed_is_thawed(socket_path: Path) -> None:
    with FakeAgent(socket_path) as agent:
        killed("agent", socket_path)
        agent.wait_until("thaw")
        agent.wait_until_thawed()


def test_an_interrupt_from_the_terminal_does_not_end_the_switch_first(socket_path: Path) -> None:
    with FakeAgent(socket_path) as agent:
        killed("agent", socket_path, how=signal.SIGHUP)
        agent.wait_until_thawed()
        assert "thaw" in agent.heard


def test_a_freeze_that_still_runs_is_thawed_when_it_comes_back(socket_path: Path) -> None:
    with FakeAgent(socket_path, "hang") as agent:
        thawing = threading.Thread(
            target=lambda: deadman_child.let_go([("agent", str(socket_path))])
        )
        with socket.socket(socket.AF_UNIX) as dead:
            dead.connect(str(socket_path))
            dead.sendall(b'{"execute": "guest-fsfreeze-freeze"}\n')
            agent.wait_until("freeze")
        thawing.start()
        agent.wake()
        thawing.join(20)
        assert not thawing.is_alive()
        assert not agent.frozen


def test_what_was_released_is_not_touched(socket_path: Path) -> None:
    async def main() -> None:
        deadman = DeadMan()
        await deadman.start()
        deadman.hold("agent", socket_path)
        deadman.release("agent", socket_path)
        deadman.release("agent", socket_path)
        await deadman.close()

    with FakeAgent(socket_path) as agent:
        asyncio.run(main())
        assert agent.heard == []


def test_closing_lets_go_and_says_what_it_could_not(socket_path: Path) -> None:
    async def main(path: Path) -> None:
        deadman = DeadMan()
        await deadman.start()
        deadman.hold("mount", path)
        await deadman.close()
        await deadman.close()

    asyncio.run(main(socket_path.parent / "not-there"))
    socket_path.write_text("a file cannot be thawed")
    with pytest.raises(StillframeError, match=r"may still be frozen: .*agent\.sock"):
        asyncio.run(main(socket_path))


def test_a_guest_that_is_gone_is_not_frozen(socket_path: Path) -> None:
    assert deadman_child.thaw_agent(str(socket_path))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(socket_path))  # and nobody listens
        assert deadman_child.thaw_agent(str(socket_path))


@pytest.mark.parametrize("manner", ["silent", "stuck"])
def test_a_guest_that_does_not_thaw_is_given_up(socket_path: Path, manner: str) -> None:
    with FakeAgent(socket_path, manner):
        assert not deadman_child.thaw_agent(str(socket_path), patience_s=0.2)


def test_a_switch_that_died_is_replaced_and_told_what_is_held(socket_path: Path) -> None:
    async def main() -> None:
        deadman = DeadMan()
        with pytest.raises(StillframeError, match="not started"):
            deadman.hold("agent", socket_path)
        await deadman.start()
        deadman.hold("agent", socket_path)
        first = deadman.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, first, os.WEXITED | os.WNOWAIT)
        with pytest.raises(StillframeError, match="has ended"):
            deadman.hold("mount", socket_path)
        await deadman.start()
        assert deadman.pid != first
        await deadman.close()

    with FakeAgent(socket_path) as agent:
        asyncio.run(main())
        assert agent.heard == ["sync-delimited", "thaw"]


def test_a_start_that_is_cancelled_leaves_no_process(socket_path: Path) -> None:
    async def main() -> None:
        deadman = DeadMan()
        starting = asyncio.create_task(deadman.start())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert deadman.pid is None
        await deadman.start()
        deadman.hold("agent", socket_path)
        await deadman.close()

    asyncio.run(main())


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small file system that may be frozen."""
    image, at = tmp_path / "image", tmp_path / "mnt"
    at.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True)
    try:
        yield at
    finally:
        deadman_child.thaw_mount(str(at))
        subprocess.run(["umount", str(at)], check=True)


@needs_lab("root", "loop")
def test_a_file_system_whose_freezer_is_killed_is_thawed(mounted: Path) -> None:
    killed("mount", mounted)
    # Freezing waits for nobody here: it fails as long as the file system is frozen.
    folder = os.open(mounted, os.O_RDONLY)
    try:
        deadline = threading.Event()
        for _ in range(400):
            try:
                fcntl.ioctl(folder, FIFREEZE, 0)
            except OSError:
                deadline.wait(0.05)
            else:
                break
        else:
            pytest.fail("still frozen")
    finally:
        os.close(folder)
    assert deadman_child.thaw_mount(str(mounted))
    assert deadman_child.thaw_mount(str(mounted))
    (mounted / "file").write_text(json.dumps("written"))
