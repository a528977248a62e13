"""What the tests of verification stand on: an array of plain files, file systems, claims."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from support_pattern import ring

from stillframe.drivers.contracts import (
    ArrayCapabilities,
    ConsistencyLevel,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
)
from stillframe.drivers.errors import NotFoundError
from stillframe.drivers.records import DeviceIdentity, DeviceKind, StorageUnit, UnitKind
from stillframe.lab.host import loops, mounts
from stillframe.lab.pattern import PATTERN_FILE
from stillframe.lab.spec import Writes
from stillframe.lab.verify_claims import DiskClaim, ImageClaim

ARRAY = "files"
STORE = "host/stores/ds0"
WRITES = Writes(record_bytes=4096, file_bytes=64 << 10)
SLOTS = WRITES.file_bytes // WRITES.record_bytes


class Ack(NamedTuple):
    """An acknowledgement, as a lab keeps it."""

    t_s: float
    seq: int


def tool(*argv: str | Path) -> str:
    """Run a program that has to succeed."""
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout


@contextmanager
def mounted_image(image: Path, at: Path) -> Iterator[Path]:
    """Mount a file system in a file."""
    at.mkdir()
    tool("mount", "-o", "loop", image, at)
    try:
        yield at
    finally:
        tool("umount", at)
        at.rmdir()


def guest_image(path: Path, records: int, *, state: str = "clean") -> Path:
    """A guest's disk with so many records, ``clean``, ``frozen`` or ``running`` when copied."""
    live = path.with_suffix(".live")
    live.touch()
    with live.open("r+b") as file:
        file.truncate(16 << 20)
    tool("mkfs.ext4", "-q", "-F", live)
    at = path.with_suffix(".at")
    with mounted_image(live, at):
        (at / PATTERN_FILE).write_bytes(ring(records, SLOTS, WRITES.record_bytes))
        tool("sync", at / PATTERN_FILE)
        if state == "running":
            shutil.copyfile(live, path)
        if state == "frozen":
            tool("fsfreeze", "-f", at)
            try:
                shutil.copyfile(live, path)
            finally:
                tool("fsfreeze", "-u", at)
    if state == "clean":
        shutil.copyfile(live, path)
    live.unlink()
    return path


def store_with(path: Path, images: Mapping[str, Path]) -> Path:
    """A datastore in a file, with these images on it."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(200 << 20)
    tool("mkfs.ext4", "-q", "-F", path)
    at = path.with_suffix(".at")
    with mounted_image(path, at):
        for name, image in images.items():
            place = at / name
            place.parent.mkdir(parents=True, exist_ok=True)
            tool("cp", "--sparse=always", image, place)
    return path


@dataclass
class FileArray:
    """An array whose snapshots are files; implements ``ReadableArrayDriver``."""

    folder: Path
    clones: dict[str, Path] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    cloned: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def capabilities(self) -> ArrayCapabilities:
        return ArrayCapabilities(clones=True)

    async def clone(self, ref: GroupSnapshotRef, unit_id: str, name: str) -> StorageUnit:
        source = self.folder / f"{unit_id.partition('/')[2]}.{ref.tag}"
        if not source.exists():
            raise NotFoundError("clone", unit_id, "there is no such snapshot")
        copy = self.folder / f"{name}.clone"
        tool("cp", "--sparse=always", source, copy)
        clone_id = f"{ARRAY}/{name}"
        self.clones[clone_id] = copy
        self.made.append(clone_id)
        self.cloned.set()
        device = DeviceIdentity(DeviceKind.FILE, str(copy))
        return StorageUnit(clone_id, ARRAY, name, UnitKind.LUN, copy.stat().st_size, (device,))

    async def discard(self, unit_id: str) -> None:
        self.clones.pop(unit_id).unlink()

    async def resolve(self, devices: Sequence[DeviceIdentity]) -> dict[DeviceIdentity, StorageUnit]:
        raise NotImplementedError

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        raise NotImplementedError

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        raise NotImplementedError

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        raise NotImplementedError

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: str, offset_bytes: int, length_bytes: int
    ) -> bytes:
        raise NotImplementedError


def claim(
    *paths: str,
    level: ConsistencyLevel = ConsistencyLevel.FILESYSTEM,
    tag: str = "t",
    vm: str = "host/vm-0",
) -> ImageClaim:
    """A VM whose disks are these files of the one datastore; it stood still from 1 s to 2 s."""
    ref = GroupSnapshotRef(ARRAY, tag, tag)
    disks = [
        DiskClaim(2000 + number, PurePosixPath(path), STORE, f"{ARRAY}/lun0", ref)
        for number, path in enumerate(paths)
    ]
    return ImageClaim(vm, level, tuple(disks), 1.0, 2.0)


def left_below(folder: Path) -> list[str]:
    """Mounts and loop devices on anything in a folder."""
    found = [str(one.at) for one in mounts() if one.at.is_relative_to(folder)]
    return found + [str(one.device) for one in loops() if one.backing.is_relative_to(folder)]
