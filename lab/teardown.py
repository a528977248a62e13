"""Ends a lab whatever state it is in: by what its file says, and by what is found."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import InputError, StillframeError
from .host import Mount, detach_loop, loops, mounts, run, thaw, within
from .labfile import LabFile, Layout, load_lab_file
from .processes import Process, end, processes, users_of
from .storage import backend_of

Tell = Callable[[str], None]
"""Takes what is being done."""

_ROUNDS = 5
_UNMOUNT_S = 10.0
_BUSY_S = 5.0
_LOOK_S = 0.1
_KILLED_S = 5.0
_ARRAY_PROGRAMS = ("qemu-storage-daemon", "ceph-mon", "ceph-osd")
_PROGRAMS = ("qemu-system-", *_ARRAY_PROGRAMS)
_TOOLS = ("losetup", "mkfs.", "mount", "umount", "qemu-img", "monmaptool", "ceph_setup.py")
"""What a bring-up that was killed leaves running for a moment: each may still make something."""
_RECORDER = "recorder.py"
_FREEZABLE = ("ext4", "xfs")


async def take_down(folder: Path, tell: Tell = lambda _step: None) -> None:
    """End all that belongs to a lab, and remove its folder. Repeating is fine.

    Guests are killed first, then the recorder; frozen file systems are thawed, datastores
    unmounted, loop devices detached; then the array goes, and whatever else is found: mounts in
    the folder, loop devices on files in it, processes that name it.

    Raises
    ------
    InputError
        The folder holds something and is not a lab's.
    StillframeError
        Something could not be ended; the error names it, and the folder stays.
    """
    folder, made = _what_is_there(folder)
    tell("guests")
    _thaw_all(folder)
    await _end_guests(folder, tell)
    tell("datastores")
    await _free_loops(folder, tell)
    if made is not None:
        tell("array")
        await backend_of(made.spec, Layout(folder).array).down()
    # What a bring-up that was killed had just begun may come to be after we have looked.
    for _ in range(_ROUNDS):
        left = _leftovers(folder)
        if not left:
            break
        _thaw_all(folder)
        await _kill(_ours(folder, (*_PROGRAMS, _RECORDER, *_TOOLS)), _KILLED_S)
        await _free_loops(folder, tell)
        await _unmount_all(_mounts_in(folder), tell)
    else:
        raise StillframeError(f"the lab in {folder} could not be ended: {'; '.join(left)} left")
    shutil.rmtree(folder, ignore_errors=made is None)


def _what_is_there(folder: Path) -> tuple[Path, LabFile | None]:
    """The absolute path, and what the lab's file says; None where nothing is in the folder."""
    folder = folder.resolve()
    if not folder.exists():
        return folder, None
    if not folder.is_dir():
        raise InputError(str(folder), "", "is not a folder")
    # Of a bring-up that was killed before it wrote anything.
    if not any(folder.iterdir()):
        return folder, None
    return folder, load_lab_file(folder)


def _leftovers(folder: Path) -> list[str]:
    """What there still is of a lab, in words."""
    found = [
        f"process {one.pid} ({one.program})"
        for one in _ours(folder, (*_PROGRAMS, _RECORDER, *_TOOLS))
    ]
    found += [f"mount {one.at}" for one in _mounts_in(folder) + _mounts_on_loops(folder)]
    return found + [f"loop device {device}" for device in _loops_in(folder)]


def _ours(folder: Path, programs: Iterable[str]) -> list[Process]:
    """Processes of these programs whose command lines name the folder; no editor, no shell."""
    return [
        one
        for one in processes()
        if one.names(folder)
        and any(
            one.program.startswith(program)
            or any(word.endswith(f"/{program}") for word in one.argv)
            for program in programs
        )
    ]


async def _end_guests(folder: Path, tell: Tell) -> None:
    """Kill the guests and the recorder, if need be after the array."""
    try:
        await _kill(_ours(folder, ("qemu-system-", _RECORDER)), _KILLED_S)
    except StillframeError:
        # Not even a killed process ends while a write of its waits for a device.
        tell("the array does not answer: it is killed before its guests")
        await _kill(_ours(folder, _ARRAY_PROGRAMS), _KILLED_S)
        await _kill(_ours(folder, ("qemu-system-", _RECORDER)), _KILLED_S)


async def _kill(found: Iterable[Process], limit_s: float) -> None:
    """Kill them all, then wait; raises the first StillframeError of those that do not end."""
    ends = (end(one, signal.SIGKILL, limit_s) for one in found)
    for error in await asyncio.gather(*ends, return_exceptions=True):
        if isinstance(error, BaseException):
            raise error


def _loops_in(folder: Path) -> list[Path]:
    """The loop devices on files in the folder, or mounted there: a dead unit has no path."""
    sources = {one.source for one in _mounts_in(folder)}
    return [
        loop.device
        for loop in loops()
        if not loop.going and (within(loop.backing, folder) or str(loop.device) in sources)
    ]


def _mounts_in(folder: Path) -> list[Mount]:
    """What is mounted in the folder, newest first."""
    return [one for one in reversed(mounts()) if within(one.at, folder)]


def _mounts_on_loops(folder: Path) -> list[Mount]:
    """What is mounted, wherever, from loop devices on files in the folder; newest first."""
    sources = {str(device) for device in _loops_in(folder)}
    return [one for one in reversed(mounts()) if one.source in sources]


def _thaw_all(folder: Path) -> None:
    """Nothing frozen can be unmounted, nor can a process that waits to write to it end."""
    for one in _mounts_in(folder) + _mounts_on_loops(folder):
        if one.fs_type in _FREEZABLE:
            with suppress(OSError):  # its device is dead: then it cannot be frozen either
                thaw(one.at)


async def _free_loops(folder: Path, tell: Tell) -> None:
    """Unmount and detach the loop devices on files in the folder, wherever they are mounted.

    One may lie in a file system on another: what is in use now may not be after the next round.
    """
    until_s = time.monotonic() + _BUSY_S
    while found := _loops_in(folder):
        freed = [device for device in reversed(found) if await _freed(device)]
        if not freed:
            if time.monotonic() > until_s:
                break
            await asyncio.sleep(_LOOK_S)
    for one in _mounts_on_loops(folder):
        await _unmount_all([one], tell)
        # At once: what is mounted in one that was taken out of the way has no path any more.
        await detach_loop(Path(one.source))
    for device in _loops_in(folder):
        await detach_loop(device)


async def _freed(device: Path) -> bool:
    """Unmount and detach a loop device, unless it is in use."""
    try:
        for one in reversed([one for one in mounts() if one.source == str(device)]):
            await run("umount", one.at, limit_s=_UNMOUNT_S)
        await detach_loop(device)
    except StillframeError:
        return False
    return all(loop.device != device or loop.going for loop in loops())


async def _unmount_all(found: Iterable[Mount], tell: Tell) -> None:
    """Unmount; a file system that stays in use, or does not answer, is taken out of the way."""
    for one in found:
        try:
            await run("umount", one.at, limit_s=_UNMOUNT_S)
        except StillframeError:
            if one not in mounts():
                continue
            users = ", ".join(f"{user.program} ({user.pid})" for user in users_of(one.at))
            tell(f"{one.at} stays in use{users and f' by {users}'}: unmounted lazily")
            await run("umount", "--lazy", one.at, limit_s=_UNMOUNT_S)
