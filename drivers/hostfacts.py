"""What a driver asks of the host it runs on: tools, mounts, and the devices under them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import StillframeError
from .records import DeviceIdentity, DeviceKind

TOOL_TIMEOUT_S = 600.0
_NETWORK = ("nfs", "nfs4")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_DELETED = " (deleted)"


async def run_tool(*argv: str | Path, timeout_s: float = TOOL_TIMEOUT_S) -> str:
    """Run a program to its end; its output.

    A caller who is cancelled takes the program with him.

    Raises
    ------
    StillframeError
        It is not there, ended with an error (in its own words) or did not end in ``timeout_s``
        seconds.
    """
    words = [str(word) for word in argv]
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise StillframeError(f"{words[0]} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise StillframeError(f"{words[0]} did not end in {timeout_s:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = output.decode(errors="replace").strip()
    if process.returncode:
        last = "; ".join(said.splitlines()[-2:]) or f"code {process.returncode}"
        raise StillframeError(f"{' '.join(words[:2])} failed: {last}")
    return said


class Mount(NamedTuple):
    """One line of the mount table.

    Attributes
    ----------
    device:
        ``major:minor`` of the file system.
    kind:
        Type of the file system.
    source:
        What was mounted: a device's path, an export, or any word.
    """

    point: str
    device: str
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Reads mounts and block devices.

    Attributes
    ----------
    mount_table:
        In the form of ``/proc/self/mountinfo`` (proc(5)).
    sys_root:
        Where sysfs is mounted.
    """

    mount_table: Path = Path("/proc/self/mountinfo")
    sys_root: Path = Path("/sys")

    def mounts(self) -> list[Mount]:
        """All mounts, in the order in which they were made."""
        lines = self.mount_table.read_text(encoding="utf-8", errors="surrogateescape")
        return [mount for line in lines.splitlines() if (mount := _mount(line)) is not None]

    def devices_under(self, mount: Mount) -> tuple[DeviceIdentity, ...]:
        """The devices or the export under a mounted file system, each once.

        A file system without a device of its own gets a local identity that no array answers to.
        """
        if mount.kind in _NETWORK:
            return (DeviceIdentity.parse(mount.source),)
        device = self._block_device(mount)
        if device is None:
            return (DeviceIdentity(DeviceKind.LOCAL, f"{mount.kind}-{mount.device}"),)
        return tuple(dict.fromkeys(self._identities(device)))

    def _block_device(self, mount: Mount) -> Path | None:
        """Its folder in sysfs; some file systems do not stand under their device's own number."""
        numbers = [mount.device]
        if mount.source.startswith("/dev/"):
            try:
                number = os.stat(mount.source).st_rdev  # noqa: PTH116
            except OSError:
                number = 0
            numbers.append(f"{os.major(number)}:{os.minor(number)}")
        for one in numbers:
            found = self.sys_root / "dev" / "block" / one
            if found.exists():
                return found.resolve()
        return None

    def _identities(self, device: Path) -> Iterator[DeviceIdentity]:
        backing = _read(device / "loop" / "backing_file")
        if backing:
            # The kernel's own path, and so without links; looking at the file itself would wait
            # for ever where a daemon serves it that hangs.
            yield DeviceIdentity(DeviceKind.FILE, backing.removesuffix(_DELETED))
            return
        slaves = sorted((device / "slaves").glob("*"))
        if slaves:
            for slave in slaves:
                yield from self._identities(slave.resolve())
            return
        if (device / "partition").exists():
            yield from self._identities(device.parent)
            return
        yield _own_identity(device)


def mount_of(path: Path | str, mounts: Iterable[Mount]) -> Mount:
    """The mount on which a file lies: the deepest one, and of several on one point the last.

    The path must be absolute and free of links: the file is not looked at, since its file system
    may be held.

    Raises
    ------
    StillframeError
        None is; a mount table always has one for ``/``.
    """
    real = str(path)
    best: Mount | None = None
    for mount in mounts:
        inside = real == mount.point or real.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    if best is None:
        raise StillframeError(f"{real} lies on no mounted file system")
    return best


def _mount(line: str) -> Mount | None:
    before, separator, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not separator or len(fields) < 6 or len(rest) < 2:
        return None
    return Mount(_plain(fields[4]), fields[2], rest[0], _plain(rest[1]))


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _own_identity(device: Path) -> DeviceIdentity:
    """SCSI disks keep their page-83 identifier in ``device/wwid``, NVMe in ``wwid``."""
    for place in ("device/wwid", "wwid"):
        wwid = _read(device / place)
        if wwid.startswith(("naa.", "eui.", "t10.", "uuid.")):
            # Padding of T10 identifiers is written as underscores, as hypervisors show them.
            return DeviceIdentity.parse(wwid.replace(" ", "_"))
        if wwid:
            return DeviceIdentity(DeviceKind.SERIAL, wwid)
    serial = _read(device / "serial")
    if serial:
        return DeviceIdentity(DeviceKind.SERIAL, serial)
    return DeviceIdentity(DeviceKind.LOCAL, device.name)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
