"""The files of QEMU disks: chains of overlays, and what is written down about snapshots.

The truth after any crash is in these files. The top of a disk's chain is the newest overlay whose
backing files lead to the disk. An overlay that was merged while it was on top is renamed to
``.merged`` at a moment at which the guest's writes are held and the file below holds the same
data, so that it is no member of any chain from then on.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

OVERLAY = ".qcow2"
MERGED = ".merged"
_QCOW2 = struct.Struct(">4sIQI")
"""Magic, version, offset and length of the backing file's name (QEMU, docs/interop/qcow2.txt)."""
_MAGIC = b"QFI\xfb"
_LONGEST_NAME_BYTES = 1023


def overlay_of(disk: Path, tag: str) -> Path:
    """Where the overlay of a snapshot lies: beside the disk."""
    return disk.with_name(f"{disk.stem}.{tag}{OVERLAY}")


def tag_of(disk: Path, overlay: Path) -> str:
    """The tag in an overlay's name; the whole name when it is not named like ours."""
    name, start = overlay.name, f"{disk.stem}."
    if name.startswith(start) and name.endswith(OVERLAY) and len(name) > len(start + OVERLAY):
        return name[len(start) : -len(OVERLAY)]
    return name


def backing_of(overlay: Path) -> Path | None:
    """The file under an overlay; None when this is no (complete) overlay."""
    try:
        with overlay.open("rb") as file:
            magic, _, offset, length = _QCOW2.unpack(file.read(_QCOW2.size))
            if magic != _MAGIC or not offset or not 0 < length <= _LONGEST_NAME_BYTES:
                return None
            file.seek(offset)
            name = file.read(length)
    except (OSError, struct.error):
        return None
    if len(name) < length:
        return None
    return Path(os.path.realpath(overlay.parent / os.fsdecode(name)))


def chains(disk: Path) -> list[list[Path]]:
    """All chains on a disk by its folder's overlays, base first; the one that counts is last."""
    base = Path(os.path.realpath(disk))
    below = {
        overlay: backing
        for overlay in base.parent.glob(f"*{OVERLAY}")
        if (backing := backing_of(overlay)) is not None
    }
    found = [
        chain
        for overlay in below.keys() - set(below.values())
        if (chain := _chain_to(base, overlay, below))
    ]
    # An overlay is made on top of the one that is written to, so chains fork only where one was
    # merged, and that one is not written to any more.
    found.sort(key=lambda chain: (chain[-1].stat().st_mtime_ns, chain[-1].name))
    return found or [[base]]


def _chain_to(base: Path, overlay: Path, below: dict[Path, Path]) -> list[Path]:
    chain, seen = [overlay], {overlay}
    while chain[-1] != base:
        backing = below.get(chain[-1])
        if backing is None or backing in seen:
            return []
        chain.append(backing)
        seen.add(backing)
    return chain[::-1]


async def chain_of(disk: Path) -> list[Path]:
    """A disk and its overlays as the files say, base first and top last.

    Only for a VM that does not run: QEMU may be about to change the files. Overlays are looked for
    in the disk's folder.
    """
    return (await asyncio.to_thread(chains, disk))[-1]


def sync_file(path: Path) -> None:
    """What was written to a file or folder is on its disk when this returns."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def retire(overlay: Path) -> Path:
    """Take a merged overlay out of its chain, durably; the new name. Repeating is fine."""
    aside = overlay.with_name(overlay.name + MERGED)
    if overlay.exists():
        overlay.rename(aside)
    sync_file(overlay.parent)
    return aside


def restore(overlay: Path) -> None:
    """Undo :func:`retire`."""
    aside = overlay.with_name(overlay.name + MERGED)
    if aside.exists():
        aside.rename(overlay)
        sync_file(overlay.parent)


def is_open(path: Path) -> bool:
    """Whether anybody has a file open; no on file systems that cannot tell.

    A write lease is only given for a file that nobody else has open (fcntl(2), F_SETLEASE).
    """
    number = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(number, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(number)
    return False


def delete(path: Path) -> None:
    """Delete what is no longer needed; that it is not there is fine."""
    path.unlink(missing_ok=True)


class Record(BaseModel):
    """What is written down of one snapshot of ours, before it is made and until it is gone.

    Attributes
    ----------
    overlays:
        All its overlays.
    removing:
        Its removal has begun.
    """

    model_config = ConfigDict(frozen=True)

    tag: str
    overlays: tuple[Path, ...]
    removing: bool = False

    @property
    def leftovers(self) -> tuple[Path, ...]:
        """Every name under which a file of it may lie."""
        aside = (one.with_name(one.name + MERGED) for one in self.overlays)
        return (*self.overlays, *aside)


class Records:
    """The records of one VM, a file each in its folder (all methods block shortly)."""

    def __init__(self, guest_folder: Path) -> None:
        self._folder = guest_folder / "snapshots"

    def all(self) -> list[Record]:
        """Those that can be read; one that was being written when the host died says nothing."""
        found = []
        for file in sorted(self._folder.glob("*.json")):
            try:
                found.append(Record.model_validate_json(file.read_bytes()))
            except (OSError, ValidationError):
                continue
        return found

    def get(self, tag: str) -> Record | None:
        """The record of a tag."""
        return next((one for one in self.all() if one.tag == tag), None)

    def put(self, record: Record) -> None:
        """Write it down durably, as a whole or not at all."""
        self._folder.mkdir(exist_ok=True)
        file = self._folder / f"{record.tag}.json"
        new = file.with_suffix(".new")
        new.write_text(record.model_dump_json(), encoding="utf-8")
        sync_file(new)
        new.replace(file)
        sync_file(self._folder)

    def drop(self, tag: str) -> None:
        """Forget a snapshot that is gone."""
        delete(self._folder / f"{tag}.json")


class Marker:
    """The file ``frozen`` of a VM: locked as long as the process lives that holds its guest.

    A marker whose lock can be taken was left by a process that died, and its guest may be frozen
    or have writes held. Use :meth:`take` and :meth:`drop`.
    """

    def __init__(self, guest_folder: Path) -> None:
        self._path = guest_folder / "frozen"
        self._file: Any = None

    def take(self) -> Self:
        """Make and lock it.

        Raises
        ------
        BlockingIOError
            Another process holds the guest.
        """
        file = self._path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        self._file = file
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid()}))
        file.flush()
        return self

    def drop(self) -> None:
        """The guest is held no more."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def leave(self) -> None:
        """Give the lock up, but let the file stay: the guest may still be held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def is_left(self) -> bool:
        """Whether a process that is no more has left it."""
        if not self._path.exists():
            return False
        try:
            with self._path.open("a", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def sizes(paths: Iterable[Path]) -> int:
    """Bytes that files take up on their file system; one that is not there takes none."""
    total = 0
    for path in paths:
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total
