"""The folder of a qemu-storage-daemon array: which file is what, group records, and its lock.

=======================  ==========================================================================
file                     what it is
=======================  ==========================================================================
``UNIT.raw``             the first image of a unit
``UNIT.dev``             where the unit is exported: what a host reads and writes
``UNIT.TAG.N.qcow2``     takes the writes since group ``N``; what is under it is the snapshot
``groups/N.STAGE.json``  the record of group ``N``: its tag and units; how far it is, in its name
``clones/NAME.qcow2``    what was written to a clone; ``NAME.dev`` is where it is exported
``qmp.sock``             the driver's monitor; ``lab.sock`` is for somebody else, as may
                         ``qmp-1.sock``, ``qmp-2.sock``, … be
``nbd.sock``             where snapshots are read
``lock``                 held by whoever changes anything
=======================  ==========================================================================

A record says what a group *would* consist of, and how far its maker got. Whether the group exists
is decided by the chains of images alone: those of the daemon while it runs, those of the files when
it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote

from ..errors import StillframeError

CLUSTER_BYTES = 4096
"""Of every overlay: the least that a host can ask to be zeroed through an export.

QEMU answers a request to zero with a discard, and a discard of less than a cluster does nothing.
"""
NAME_BYTES = 255
"""Most that Linux allows for the name of a file."""
_LOCK_POLL_S = 0.01


class Stage(StrEnum):
    """How far the maker of a group got."""

    MAKING = "making"
    """Files may exist; whether the cut was made is to be seen from the chains."""
    MADE = "made"
    DELETED = "deleted"
    """Nobody sees it any more; its space is not free yet."""


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One group: its tag, its number (rising in a pool), the names of its units, its stage."""

    tag: str
    number: int
    units: tuple[str, ...]
    stage: Stage

    def at(self, stage: Stage) -> GroupRecord:
        """The same at another stage."""
        return replace(self, stage=stage)


class PoolError(StillframeError):
    """The pool's folder holds something that cannot be used."""


class Pool:
    """The files of one pool.

    Parameters
    ----------
    folder:
        Where it lies; absolute.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.groups = folder / "groups"
        self.clones = folder / "clones"
        self.qmp_socket = folder / "qmp.sock"
        self.lab_socket = folder / "lab.sock"
        self.nbd_socket = folder / "nbd.sock"

    def base(self, unit: str) -> Path:
        """The first image of a unit."""
        return self.folder / f"{unit}.raw"

    def monitor(self, number: int) -> Path:
        """The socket of a further monitor, counted from 1."""
        return self.folder / f"qmp-{number}.sock"

    def device(self, unit: str) -> Path:
        """Where a unit is exported."""
        return self.folder / f"{unit}.dev"

    def overlay(self, unit: str, record: GroupRecord) -> Path:
        """The image that takes a unit's writes after this group was cut."""
        return self.folder / f"{unit}.{quote(record.tag, safe='')}.{record.number}.qcow2"

    def can_name(self, units: Iterable[str], record: GroupRecord) -> bool:
        """Whether the file system has room for the names of a group's overlays."""
        names = (self.overlay(unit, record).name for unit in units)
        return all(len(os.fsencode(name)) <= NAME_BYTES for name in names)

    def free_bytes(self) -> int:
        """Bytes that are free in the pool's file system."""
        facts = os.statvfs(self.folder)
        return facts.f_bavail * facts.f_frsize

    def sync(self) -> None:
        """Make sure that files which were made survive a loss of power under their names."""
        _sync_folder(self.folder)

    def clone(self, name: str) -> Path:
        """The image that takes the writes to a clone."""
        return self.clones / f"{quote(name, safe='')}.qcow2"

    def clone_device(self, name: str) -> Path:
        """Where a clone is exported."""
        return self.clones / f"{quote(name, safe='')}.dev"

    def units(self) -> list[str]:
        """The units for which there is a first image."""
        return sorted(path.stem for path in self.folder.glob("*.raw"))

    def records(self) -> list[GroupRecord]:
        """All records, oldest group first.

        Raises
        ------
        PoolError
            One of them cannot be read.
        """
        found = []
        for path in self.groups.glob("*.json"):
            # One that is deleted while we look is gone, which is an answer.
            with contextlib.suppress(FileNotFoundError):
                found.append(_read(path))
        return sorted(found, key=lambda record: record.number)

    def record(self, tag: str) -> GroupRecord | None:
        """The record of this tag, if there is one; not that of a group that is deleted."""
        alive = (record for record in self.records() if record.stage is not Stage.DELETED)
        return next((record for record in alive if record.tag == tag), None)

    def write(self, record: GroupRecord) -> None:
        """Keep a record; when this returns it survives a loss of power.

        To change its stage needs no space: a pool that is full could not be emptied otherwise.
        """
        path = self._record(record)
        for stage in Stage:
            before = self._record(record.at(stage))
            if stage is not record.stage and before.exists():
                before.replace(path)
                _sync_folder(self.groups)
                return
        text = json.dumps({"tag": record.tag, "number": record.number, "units": record.units})
        _write_durably(path, text)

    def next_number(self) -> int:
        """A number that no group of this pool has had; call it with the lock held.

        After a loss of power it may be one that had been used, but none that is in use.
        """
        last = self.folder / "last-number"
        text = last.read_text(encoding="ascii") if last.exists() else ""
        used = max([int(text) if text.isdecimal() else 0, *(one.number for one in self.records())])
        new = last.with_suffix(".new")
        new.write_text(str(used + 1), encoding="ascii")
        new.replace(last)
        return used + 1

    def forget(self, record: GroupRecord) -> None:
        """Remove a record."""
        for stage in Stage:
            self._record(record.at(stage)).unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def locked(self, limit_s: float) -> AsyncIterator[None]:
        """Be the only one that changes anything; ends with the process at the latest.

        Raises
        ------
        BlockingIOError
            Somebody else held it for all of ``limit_s`` seconds.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + limit_s
        handle = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while not _try_lock(handle):
                if loop.time() >= deadline_s:
                    raise BlockingIOError(errno.EWOULDBLOCK, "the pool is locked")
                await asyncio.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(handle)

    def _record(self, record: GroupRecord) -> Path:
        return self.groups / f"{record.number}.{record.stage}.json"


def image_format(path: Path) -> str:
    """``raw`` or ``qcow2``."""
    return "raw" if path.suffix == ".raw" else "qcow2"


def node_name(path: Path) -> str:
    """The daemon's name for an image; its own limit is 31 characters."""
    return "i" + hashlib.blake2b(os.fsencode(path), digest_size=12).hexdigest()


def file_node_name(path: Path) -> str:
    """The daemon's name for the file under an image."""
    return "f" + node_name(path)


def file_options(path: Path) -> dict[str, object]:
    """How the daemon opens the file under an image.

    Discards reach the file: without that the daemon says that it has zeroed what it has not.
    """
    return {
        "driver": "file",
        "node-name": file_node_name(path),
        "filename": str(path),
        "discard": "unmap",
    }


def image_options(path: Path, backing: str | None, *, read_only: bool = False) -> dict[str, object]:
    """How the daemon opens an image, over the node ``backing`` or over nothing.

    One that stands still is read-only over a file that is not, as after a snapshot: a merge makes
    it writable for its time, and flushes it when it makes it read-only again.
    """
    options: dict[str, object] = {
        "driver": image_format(path),
        "node-name": node_name(path),
        "file": file_node_name(path),
        "discard": "unmap",
        "read-only": read_only,
    }
    return options if path.suffix == ".raw" else options | {"backing": backing}


def _read(path: Path) -> GroupRecord:
    text = path.read_text(encoding="utf-8")
    try:
        held = json.loads(text)
        stage = Stage(path.suffixes[0].removeprefix("."))
        return GroupRecord(held["tag"], held["number"], tuple(held["units"]), stage)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise PoolError(f"{path} is no record of a group snapshot: {error}") from error


def _write_durably(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
