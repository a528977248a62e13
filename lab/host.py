"""The host's own tools that a lab is made with: processes, loop devices, mounts.

Usable by whatever is above the drivers. Every tool runs in a session of its own, so that a Ctrl-C
at the terminal reaches only us, and a cancelled call waits for its tool: nothing is made behind the
back of a teardown that follows.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StillframeError

_FITHAW = 0xC0045878
"""linux/fs.h: _IOWR('X', 120, int)."""
_TOOL_S = 120.0
_KILLED_S = 2.0
_OCTAL = re.compile(r"\\([0-7]{3})")


async def all_of(calls: Iterable[Coroutine[None, None, None]]) -> None:
    """Make calls side by side; the first that fails ends the others, and is what is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def run(*argv: str | Path, limit_s: float = _TOOL_S, ok: Sequence[int] = (0,)) -> str:
    """What a program wrote to stdout.

    Parameters
    ----------
    argv:
        The program and its arguments.
    limit_s:
        After so many seconds it is killed.
    ok:
        The exit codes that count as success.

    Raises
    ------
    StillframeError
        It is not installed, ended with another code (its own words are in the error), or did not
        end in time.
    """
    words = [str(word) for word in argv]
    started: list[asyncio.subprocess.Process] = []
    going = asyncio.ensure_future(_to_the_end(words, started))
    try:
        code, out, err = await asyncio.wait_for(asyncio.shield(going), limit_s)
    except FileNotFoundError:
        raise StillframeError(
            f"there is no program {words[0]}", "scripts/install-lab.sh installs what a lab needs"
        ) from None
    except TimeoutError:
        for process in started:
            process.kill()
        # It may wait for a device that does not answer; then nobody can end it.
        await asyncio.wait([going], timeout=_KILLED_S)
        going.cancel()
        raise StillframeError(f"`{' '.join(words)}` did not end within {limit_s:g} s") from None
    except asyncio.CancelledError:
        await asyncio.wait([going], timeout=limit_s)
        raise
    if code not in ok:
        said = (err or out).decode(errors="replace").strip() or f"exit code {code}"
        raise StillframeError(f"`{' '.join(words)}` failed: {' '.join(said.split())}")
    return out.decode(errors="replace")


async def _to_the_end(
    words: Sequence[str], started: list[asyncio.subprocess.Process]
) -> tuple[int | None, bytes, bytes]:
    """Exit code, stdout and stderr; the process is put into ``started`` when it runs."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    started.append(process)
    out, err = await process.communicate()
    return process.returncode, out, err


async def attach_loop(
    path: Path, *, read_only: bool, direct_io: bool, offset: int = 0, size: int = 0
) -> Path:
    """A loop device on a file, or on a part of it.

    Parameters
    ----------
    path:
        The file that backs it.
    read_only:
        Refuse writes.
    direct_io:
        Bypass the page cache of the file system that holds ``path``. Never on a FUSE export:
        there, direct writes of 512 KiB and more have been seen to arrive in the wrong places.
    offset, size:
        The part of the file in bytes; a size of 0 reaches to its end.
    """
    options = [
        *(["--read-only"] if read_only else []),
        *(["--direct-io=on"] if direct_io else []),
        *(["--offset", str(offset)] if offset else []),
        *(["--sizelimit", str(size)] if size else []),
    ]
    return Path((await run("losetup", "--find", "--show", *options, path)).strip())


async def detach_loop(device: Path) -> None:
    """Take a loop device off its file. One that is in use goes when its last user does.

    One that is off its file already is fine.
    """
    try:
        await run("losetup", "--detach", device)
    except StillframeError:
        if any(loop.device == device for loop in loops()):
            raise


async def mount(device: Path, at: Path, *options: str) -> None:
    """Mount a device on a folder, which is made; ``options`` are those of ``mount -o``."""
    _make_folder(at)
    chosen = ["-o", ",".join(options)] if options else []
    await run("mount", *chosen, device, at)


async def unmount(at: Path) -> None:
    """Unmount what is mounted at a folder or file."""
    await run("umount", at)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table."""

    source: str
    at: Path
    fs_type: str


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device and the file under it.

    ``deleted`` when that file has been unlinked; ``going`` when the device has been detached and
    is only kept by who still uses it.
    """

    device: Path
    backing: Path
    deleted: bool
    going: bool


def mounts() -> list[Mount]:
    """The mount table, oldest first."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    parts = [line.split(" ") for line in lines]
    return [Mount(_plain(one[0]), Path(_plain(one[1])), one[2]) for one in parts]


def loops() -> list[Loop]:
    """All loop devices that have a file under them."""
    found = []
    for entry in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        # One that is being detached just now has no file any more.
        with contextlib.suppress(OSError):
            text = entry.read_text(encoding="utf-8").rstrip("\n")
            backing = text.removesuffix(" (deleted)")
            going = entry.with_name("autoclear").read_text(encoding="ascii").strip() == "1"
            device = Path("/dev") / entry.parts[3]
            found.append(Loop(device, Path(backing), deleted=backing != text, going=going))
    return found


def within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies below it; nothing is followed or opened."""
    return path == folder or folder in path.parents


def thaw(at: Path) -> bool:
    """Let writes to a frozen file system go on; whether it was frozen.

    Raises
    ------
    OSError
        It cannot be opened, or has no such call.
    """
    folder = os.open(at, os.O_RDONLY)
    try:
        fcntl.ioctl(folder, _FITHAW, 0)
    except OSError as error:
        if error.errno == errno.EINVAL:  # it is not frozen
            return False
        raise
    finally:
        os.close(folder)
    return True


def _make_folder(at: Path) -> None:
    at.mkdir(parents=True, exist_ok=True)


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
