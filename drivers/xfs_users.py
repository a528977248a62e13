"""Who can write to the units of a reflink array, and whose writes can be held.

Everything is read from ``/sys`` and ``/proc``: nothing here touches a file system other than the
pool's, because any other may hang (a FUSE daemon that is stopped, an NFS server that is gone).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from . import xfs_ioctl
from .hostfacts import HostFacts, Mount

DeviceNumber = str
"""``major:minor``."""


class Writer(NamedTuple):
    """A block device on a unit that can be written to, and where its file system is mounted."""

    name: str
    unit: Path
    device: DeviceNumber
    mounts: tuple[Path, ...]

    def __str__(self) -> str:
        return f"/dev/{self.name} on {self.unit.name}"


def device_number(number: int) -> DeviceNumber:
    """A device number as the mount table writes it."""
    return f"{os.major(number)}:{os.minor(number)}"


def mount_table() -> list[Mount]:
    """What is mounted in this mount name space, in the order of mounting."""
    return HostFacts().mounts()


def lies_on(path: Path, table: Sequence[Mount]) -> DeviceNumber:
    """The file system that an absolute path lies on, as far as the mount table says.

    The path is not followed, unlike in :func:`~stillframe.drivers.hostfacts.mount_of`.
    """
    # Of two at one place the later covers the earlier.
    mounted = {mount.point: mount.device for mount in table}
    above = (str(at) for at in (path, *path.parents))
    return next((mounted[at] for at in above if at in mounted), "")


def block_writers(units: Sequence[Path]) -> list[Writer]:
    """The loop devices on these unit files, or their partitions, that are not read-only.

    Parameters
    ----------
    units:
        Unit files, all in one pool.
    """
    table = mount_table()
    writers: list[Writer] = []
    for block, unit in _loops_on(units, table):
        with _may_vanish():
            if _text(block / "ro") == "0":
                writers += _devices(block, unit, table)
    return writers


def loops_on(file: Path) -> list[Path]:
    """The loop devices that have this file of the pool under them, read-only ones included."""
    return [Path("/dev") / block.name for block, _ in _loops_on([file], mount_table())]


def _loops_on(units: Sequence[Path], table: Sequence[Mount]) -> Iterator[tuple[Path, Path]]:
    """(entry in sysfs, unit) of each loop device on a unit."""
    wanted = {_identity(unit): unit for unit in units}
    pools = {device_number(device) for device, _ in wanted}
    for block in sorted(Path("/sys/block").glob("loop*")):
        unit = None
        with _may_vanish():  # has no file under it, or loses it just now
            backing = Path(_text(block / "loop/backing_file"))
            # Only then is it safe to look at the file: see above.
            if lies_on(backing, table) in pools:
                unit = wanted.get(_identity(backing))
        if unit is not None:
            yield block, unit


def _devices(block: Path, unit: Path, table: Sequence[Mount]) -> Iterator[Writer]:
    """The loop device itself where it is mounted or has no partitions, else its partitions."""
    parts = sorted(part.parent for part in block.glob(f"{block.name}p*/partition"))
    whole = _writer(block, unit, table)
    if whole.mounts or not parts:
        yield whole
    else:
        yield from (_writer(part, unit, table) for part in parts)


def _writer(block: Path, unit: Path, table: Sequence[Mount]) -> Writer:
    number = _text(block / "dev")
    holders = any((block / "holders").iterdir())  # device-mapper and the like write below us
    mounts = () if holders else tuple(Path(one.point) for one in table if one.device == number)
    return Writer(block.name, unit, number, mounts)


def raw_writers(units: Sequence[Path], looped: frozenset[Path]) -> list[str]:
    """What has a unit's file open for writing, in words.

    Parameters
    ----------
    units:
        Unit files.
    looped:
        Those of them with a loop device that writes: their files are always open for writing, so
        that only processes can be told there.
    """
    suspects = [unit for unit in units if unit in looped or xfs_ioctl.open_for_writing(unit)]
    if not suspects:
        return []
    found = _processes({_identity(unit): unit for unit in suspects})
    said = [f"process {pid} on {unit.name}" for unit, pid in found]
    named = looped | {unit for unit, _ in found}
    unknown = [unit.name for unit in suspects if unit not in named]
    return said + [f"something that is no process on {unit}" for unit in unknown]


def _processes(wanted: dict[tuple[int, int], Path]) -> list[tuple[Path, int]]:
    """(unit, process) for each that has such a file open for writing."""
    names = {unit.name for unit in wanted.values()}
    pools = {device_number(device) for device, _ in wanted}
    table = mount_table()
    found = set()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):  # ended, or another user's
            for link in folder.iterdir():
                file = link.readlink()
                if file.name not in names or lies_on(file, table) not in pools:
                    continue
                unit = wanted.get(_identity(link))
                if unit is not None and _writes(folder, link.name):
                    found.add((unit, int(folder.parent.name)))
    return sorted(found)


def _writes(folder: Path, number: str) -> bool:
    facts = (folder.parent / "fdinfo" / number).read_text(encoding="utf-8")
    flags = next(line.split()[1] for line in facts.splitlines() if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


def under(device: DeviceNumber) -> set[DeviceNumber]:
    """The file systems and devices that a file system lies on, itself included."""
    table = mount_table()
    found: set[DeviceNumber] = set()
    waiting = [device]
    while waiting:
        number = waiting.pop()
        if number in found:
            continue
        found.add(number)
        block = Path("/sys/dev/block") / number
        with _may_vanish():
            waiting.append(lies_on(Path(_text(block / "loop/backing_file")), table))
        with _may_vanish():
            waiting += [_text(slave / "dev") for slave in (block / "slaves").iterdir()]
        with _may_vanish():  # a partition lies on its disk
            (block / "partition").stat()
            waiting.append(_text(block.resolve().parent / "dev"))
    return found


@contextlib.contextmanager
def _may_vanish() -> Iterator[None]:
    """What is read may not be there, or go while it is read: sysfs says so in three ways."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise


def _identity(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").rstrip("\n")
