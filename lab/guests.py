"""The guests of a lab: started, stopped and killed; what they do and what they acknowledge."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shlex
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..drivers.qemu_files import chain_of
from ..errors import StillframeError
from .agent import LabAgent, agent
from .cache import Cache
from .guest_build import guest_files
from .labfile import LabGuest
from .machine import ACK_PORT, GuestDisk, start_machine
from .monitor import monitor
from .pattern import PatternReport
from .processes import Process, end, process_of
from .saved import saved_state
from .spec import Writes
from .storage import MOUNT_OPTIONS

_SHELL_S = 60.0
_FIRST_ACK_S = 30.0
_CHECK_S = 120.0
_LOOK_S = 0.02
_WRITER_RUNS = 75
_STOP_WRITER = (
    "killall -TERM writer 2>/dev/null; while pidof writer >/dev/null; do usleep 20000; done"
)


@dataclass(frozen=True, slots=True)
class Ack:
    """A record that a guest acknowledged.

    Attributes
    ----------
    t_s:
        When that was received: CLOCK_MONOTONIC, which is the ``loop.time()`` of asyncio.
    seq:
        The record's number.
    latency_s:
        How long the guest's write took.
    """

    t_s: float
    seq: int
    latency_s: float


def running(guest: LabGuest) -> Process | None:
    """The process of a guest's QEMU, if it runs."""
    return process_of(guest.pid_file, guest.folder)


async def start(guest: LabGuest, cache: Cache, *, cold: bool) -> None:
    """Start a guest on the newest file of each disk's chain, and mount its disks in it.

    Parameters
    ----------
    cold:
        Boot it instead of restoring a saved state.

    Raises
    ------
    StillframeError
        It runs already, does not start, or one of its file systems cannot be mounted.
    """
    if running(guest) is not None:
        raise StillframeError(f"{guest.name} runs already")
    files = await guest_files(cache)
    saved = None
    if not cold:
        saved = await saved_state(cache, files, len(guest.disks), guest.disks[0].size_bytes)
    _forget_freeze(guest.frozen_marker)
    words: list[str] = []
    for disk in guest.disks:
        words += GuestDisk(disk.node, tuple(await chain_of(disk.file))).arguments()
    await start_machine(guest.name, guest.folder, files, words, guest.sockets, saved)
    await _mount_disks(guest)


def _forget_freeze(marker: Path) -> None:
    """A guest that starts is not frozen; a marker that nobody holds is of its life before."""
    with suppress(FileNotFoundError, BlockingIOError), marker.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        marker.unlink()


async def _mount_disks(guest: LabGuest) -> None:
    lines = ["set -e", f"date -s @{int(time.time())} >/dev/null"]
    for number, at in enumerate(guest.mount_points):
        device = f"/dev/vd{chr(ord('a') + number)}"
        # The saved state was made with other disks: what it remembers of them goes first.
        lines += [
            f"blockdev --flushbufs {device}",
            f"mkdir -p {at}",
            f"mount -t ext4 -o {','.join(MOUNT_OPTIONS)} {device} {at}",
        ]
    code, said = await run_shell(guest, "\n".join(lines))
    if code:
        raise StillframeError(f"{guest.name} cannot mount its disks: {' '.join(said.split())}")


async def stop(guest: LabGuest) -> None:
    """Stop a guest in good order: its writer, its file systems, its QEMU. Fine if it is off."""
    process = running(guest)
    if process is None:
        return
    unmounting = "; ".join(f"umount {at} || exit 1" for at in guest.mount_points)
    code, said = await run_shell(guest, f"{_STOP_WRITER}; {unmounting}")
    if code:
        raise StillframeError(f"{guest.name} cannot unmount its disks: {' '.join(said.split())}")
    async with monitor(guest.sockets.lab) as talk:
        await talk.quit()
    await end(process, signal.SIGTERM)


async def kill(guest: LabGuest) -> None:
    """End a guest's QEMU as a power failure of its host would. Fine if it is off."""
    process = running(guest)
    if process is not None:
        await end(process, signal.SIGKILL)


async def run_shell(guest: LabGuest, script: str, limit_s: float = _SHELL_S) -> tuple[int, str]:
    """Run a shell script in a guest; its exit code, and what it wrote."""
    async with agent(guest.sockets.agent) as inside:
        return await inside.run("/bin/sh", "-c", script, limit_s=limit_s)


async def start_writer(guest: LabGuest, writes: Writes, log: Path) -> None:
    """Start the writer in a guest; returns when its first record is acknowledged.

    Raises
    ------
    StillframeError
        One runs already, it ended (its own words are in the error), or nothing was acknowledged.
    """
    argv = (
        *("/bin/writer", "write", str(writes.record_bytes), repr(float(writes.rate_per_s))),
        *(str(writes.file_bytes), f"/dev/virtio-ports/{ACK_PORT}", *guest.mount_points),
    )
    noted_bytes = _size(log)
    async with agent(guest.sockets.agent) as inside:
        code, _ = await inside.run("/bin/pidof", "writer")
        if code == 0:
            raise StillframeError(f"the writer of {guest.name} runs already")
        pid = await inside.start(*argv)
        await _first_ack(guest.name, inside, pid, lambda: _size(log) > noted_bytes)


async def _first_ack(name: str, inside: LabAgent, pid: int, noted: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(_FIRST_ACK_S):
            while not noted():
                done = await inside.ended(pid)
                if done is not None:
                    raise StillframeError(
                        f"the writer of {name} ended: {' '.join(done[1].split())}"
                    )
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise StillframeError(
            f"{name} acknowledged no record within {_FIRST_ACK_S:g} s", "does the recorder run?"
        ) from None


async def stop_writer(guest: LabGuest) -> None:
    """Stop the writer in a guest after a whole record. Fine if none runs."""
    await run_shell(guest, _STOP_WRITER)


async def check(guest: LabGuest, writes: Writes) -> list[PatternReport]:
    """What a guest itself finds in the pattern file of each of its disks, read from the disks.

    Raises
    ------
    StillframeError
        Its writer runs, or a file cannot be read.
    """
    words = ["writer", "check", str(writes.record_bytes), str(writes.file_bytes)]
    checking = shlex.join([*words, *guest.mount_points])
    script = (
        f"pidof writer >/dev/null && exit {_WRITER_RUNS}\n"
        f"sync; echo 3 > /proc/sys/vm/drop_caches\n{checking}"
    )
    code, said = await run_shell(guest, script, _CHECK_S)
    if code == _WRITER_RUNS:
        raise StillframeError(f"the writer of {guest.name} runs", "stop it before the check")
    if code:
        raise StillframeError(f"{guest.name} cannot be checked: {' '.join(said.split())}")
    return [PatternReport(**found) for found in json.loads(said)]


def read_acks(log: Path) -> list[Ack]:
    """What a guest has acknowledged since the lab came up, oldest first."""
    try:
        text = log.read_text(encoding="ascii")
    except FileNotFoundError:
        return []
    # The recorder may be writing the last line just now.
    rows = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
    return [Ack(float(row[0]), int(row[1]), float(row[2]) * 1e-3) for row in rows]


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0
