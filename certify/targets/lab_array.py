"""What the arrays of the lab have in common as targets: small, and in the target's folder."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from ...drivers.records import DeviceIdentity, DeviceKind
from ...lab.host import attach_loop, detach_loop, mount, mounts, run, unmount
from ...lab.processes import Process
from ...orchestrator.spec import Section
from ...quantity import Bytes
from ..array_target import BLOCK_BYTES, ArrayTarget, ScratchUnit

SYSTEM_ID = "lab"
"""Under which name the driver knows the array; prefix of its identifiers."""
CALL_TIMEOUT_S = 5.0
"""For drivers that have such a limit: what the kit leaves unanswered is given up soon."""
MIB = 1 << 20


class LabArraySettings(Section):
    """What may be said of an array of the lab.

    Attributes
    ----------
    units:
        How many scratch units it has.
    unit_size:
        The size of each.
    """

    units: Annotated[int, Field(ge=3, le=16)] = 4
    unit_size: Annotated[Bytes, Field(ge=16 * MIB, le=1024 * MIB)] = 16 * MIB


class LabArray(ArrayTarget):
    """An array that is brought up for the suite and taken down after it."""

    settings_model = LabArraySettings
    settings: LabArraySettings
    programs: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """By name in the certificate, the command that tells a version in its first line."""

    @property
    def unit_bytes(self) -> int:
        """The size of a unit, in whole blocks."""
        return int(self.settings.unit_size) // BLOCK_BYTES * BLOCK_BYTES

    async def environment(self) -> Mapping[str, str]:
        """The kernel, and what else of the array has a version."""
        told = {"kernel": f"{platform.system()} {platform.release()}"}
        for name, words in self.programs.items():
            told[name] = (await run(*words)).splitlines()[0].strip()
        return told


def file_device(file: Path) -> DeviceIdentity:
    """The identity of a unit that hosts know by a file."""
    return DeviceIdentity(DeviceKind.FILE, str(file))


def scratch_units(files: Sequence[Path], size_bytes: int) -> list[ScratchUnit]:
    """Units that are files named as their units, read and written as a whole."""
    return [
        ScratchUnit((file_device(file),), size_bytes, file, f"{SYSTEM_ID}/{file.stem}")
        for file in files
    ]


@contextmanager
def stopped(processes: Iterable[Process | None]) -> Iterator[None]:
    """Meanwhile these processes do nothing at all."""
    living = [process.pid for process in processes if process is not None]
    for pid in living:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in living:
            os.kill(pid, signal.SIGCONT)


class Disk:
    """A file system of its own on a sparse file, that can be filled without harm to anybody.

    Parameters
    ----------
    folder:
        Where the file lies, and where it is mounted: ``disk.img``, ``disk``.
    """

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.img"
        self._loop: Path | None = None
        self.at = folder / "disk"

    async def up(self, size_bytes: int) -> None:
        """Make it and mount it."""
        with self._image.open("xb") as file:
            file.truncate(size_bytes)
        await run("mkfs.xfs", "-q", self._image)
        self._loop = await attach_loop(self._image, read_only=False, direct_io=True)
        await mount(self._loop, self.at)

    async def down(self) -> None:
        """Unmount it; repeating is fine."""
        if self._loop is not None:
            if any(entry.at == self.at for entry in mounts()):
                await unmount(self.at)
            await detach_loop(self._loop)
            self._loop = None
        self._image.unlink(missing_ok=True)


@asynccontextmanager
async def filled(folder: Path, leaving_bytes: int) -> AsyncIterator[None]:
    """Meanwhile only so much is free in a folder's file system."""
    filler = folder / ".filler"
    await run("sync", "--file-system", folder)  # what was deleted is given back in the background
    facts = os.statvfs(folder)
    size_bytes = facts.f_bavail * facts.f_frsize - leaving_bytes
    with filler.open("xb") as file:
        try:
            if size_bytes > 0:
                await asyncio.to_thread(os.posix_fallocate, file.fileno(), 0, size_bytes)
            yield
        finally:
            # What a deleted file took is given back some time later, what is cut off at once.
            file.truncate(0)
            filler.unlink()
