"""The processes of a lab: found by what their command lines name, ended, waited for.

A lab's processes are not our children: they outlive the command that started them. They are held by
file descriptors (pidfd), so that a number that is used again is never mistaken for one of them.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import StillframeError
from .host import within

_END_S = 30.0


@dataclass(frozen=True, slots=True)
class Process:
    """A process and its command line, as it was when we looked."""

    pid: int
    argv: tuple[str, ...]

    @property
    def program(self) -> str:
        """The program's name without its folder."""
        return Path(self.argv[0]).name

    def names(self, folder: Path) -> bool:
        """Whether the command line names a folder or something below it."""
        path = re.compile(rf"(?:^|[\s=,:]){re.escape(str(folder))}(?:/|[\s,]|$)")
        return any(path.search(word) for word in self.argv)


def processes() -> list[Process]:
    """All processes that have a command line; zombies and kernel threads have none."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            # Processes come and go while we look.
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                if words[0]:
                    argv = tuple(os.fsdecode(word) for word in words)
                    found.append(Process(int(entry.name), argv))
    return found


def process_of(pid_file: Path, folder: Path) -> Process | None:
    """The process that a file says the number of, if it lives and its command line names folder."""
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return next((one for one in processes() if one.pid == pid and one.names(folder)), None)


def users_of(folder: Path) -> list[Process]:
    """The processes that work in a folder or have something in it open."""
    return [one for one in processes() if any(within(at, folder) for at in _held_by(one.pid))]


def _held_by(pid: int) -> Iterator[Path]:
    for link in (Path(f"/proc/{pid}/cwd"), *Path(f"/proc/{pid}/fd").glob("*")):
        # It may end, or close a file, while we look.
        with suppress(OSError):
            yield link.readlink()


async def end(process: Process, number: signal.Signals, limit_s: float = _END_S) -> None:
    """Send a signal and wait until the process has ended; one that has ended is fine.

    Raises
    ------
    StillframeError
        It did not end within ``limit_s`` seconds.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if process not in processes():  # the number belongs to another one by now
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        await _ended(handle, limit_s)
    except TimeoutError:
        raise StillframeError(
            f"process {process.pid} ({process.program}) did not end within {limit_s:g} s of "
            f"{number.name}"
        ) from None
    finally:
        os.close(handle)


async def _ended(handle: int, limit_s: float) -> None:
    """A pidfd can be read from when its process has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), limit_s)
    finally:
        loop.remove_reader(handle)
