"""What a reflink array keeps in its pool: units, group snapshots, clones, and how they come and go.

Everything but the units lies in the hidden folder ``.stillframe`` of the pool::

    snapshots/TAG/manifest.json, snapshots/TAG/units/UNIT    complete group snapshots
    staging/TAG/…                                            those being made, locked by the maker
    trash/ID/…                                               those being deleted
    clones/NAME                                              writable copies
    locks/UNIT                                               who is snapshotting a unit
    frozen/ID                                                see xfs_markers

One rename makes a snapshot visible and one makes it go; what is not under ``snapshots`` does not
count, and is swept when its maker is dead.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from ..errors import StillframeError
from . import xfs_ioctl
from .contracts import Window
from .xfs_locks import Lock, try_lock
from .xfs_markers import boot_id

CLONES = "clones/"
"""What the name of a clone as a unit begins with; a file in the pool has no slash in its name."""
_LONGEST_NAME = 255
"""Bytes in a file name (linux/limits.h, NAME_MAX)."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is kept of a group snapshot beside its data.

    ``cut_s`` and ``fence`` are on the monotonic clock of the boot in ``boot``; ``made_ns`` is the
    wall clock's, and puts snapshots in order.
    """

    snapshot_id: str
    tag: str
    units: tuple[str, ...]
    cut_s: float
    fence: tuple[float, float] | None
    boot: str
    made_ns: int

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a snapshot's folder.

        Raises
        ------
        FileNotFoundError
            There is no such folder.
        StillframeError
            It is damaged.
        """
        path = folder / "manifest.json"
        text = path.read_text(encoding="utf-8")
        try:
            facts = json.loads(text)
            facts["units"] = tuple(facts["units"])
            facts["fence"] = facts["fence"] and tuple(facts["fence"])
            return cls(**facts)
        except (ValueError, KeyError, TypeError) as error:
            raise StillframeError(f"{path} is damaged: {error}") from error

    def clock(self) -> tuple[float | None, Window | None]:
        """When it was cut and for how long writes were held; None for another boot's clock."""
        if self.boot != boot_id():
            return None, None
        # A freeze begins to hold writes at some point within the kernel's call, not at its start.
        return self.cut_s, None if self.fence is None else Window(*self.fence, exact=False)


class Staged:
    """A group snapshot in the making; nobody else makes one of that tag meanwhile."""

    def __init__(self, folder: Path, lock: Lock) -> None:
        self.folder = folder
        self._lock = lock
        self._files = ExitStack()
        self._copies: list[tuple[int, int]] = []
        self.published = False

    def open(self, units: Mapping[str, Path]) -> list[int]:
        """Open the units and make empty files for their copies; the units' descriptors."""
        (self.folder / "units").mkdir()
        for name, path in units.items():
            source = self._files.enter_context(path.open("rb")).fileno()
            target = self.folder / "units" / _plain(name)
            copy = self._files.enter_context(target.open("xb")).fileno()
            self._copies.append((source, copy))
        return [source for source, _ in self._copies]

    def copy(self) -> None:
        """Let every copy share what its unit holds now."""
        for source, copy in self._copies:
            xfs_ioctl.share(source, copy)

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest and make all of it durable."""
        for _, copy in self._copies:
            os.fchmod(copy, stat.S_IRUSR)
            os.fsync(copy)
        path = self.folder / "manifest.json"
        with path.open("x", encoding="utf-8") as file:
            json.dump(asdict(manifest), file)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self.folder / "units")
        _sync_folder(self.folder)

    def close(self) -> None:
        """Remove what has not been published, and let others try."""
        try:
            self._files.close()
            if not self.published:
                # It does not count; if the pool fails it is swept later, and what went wrong
                # before is what has to be told.
                shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            self._lock.release()


class Store:
    """The folders of one pool.

    Parameters
    ----------
    pool:
        The pool's folder, its real path.
    """

    def __init__(self, pool: Path) -> None:
        self.pool = pool
        hidden = pool / ".stillframe"
        self.snapshots = hidden / "snapshots"
        self.clones = hidden / "clones"
        self.frozen = hidden / "frozen"
        self._staging = hidden / "staging"
        self._trash = hidden / "trash"
        self._locks = hidden / "locks"

    def prepare(self) -> None:
        """Make the folders that are missing and sweep what the dead left half done."""
        folders = (self._staging, self._trash, self._locks)
        for folder in (self.snapshots, self.clones, self.frozen, *folders):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self._staging, self._trash):
            for path in folder.iterdir():
                _sweep(path)

    def units(self) -> dict[str, Path]:
        """The unit files by name: regular files of the pool that are not hidden, and clones."""
        found = _files_in(self.pool)
        return found | {CLONES + name: path for name, path in _files_in(self.clones).items()}

    def free_bytes(self) -> int:
        """Bytes that are free in the pool."""
        facts = os.statvfs(self.pool)
        return facts.f_bavail * facts.f_frsize

    def lock_units(self, names: Sequence[str]) -> list[Lock] | None:
        """Locks on these units, or None if one is being snapshotted by somebody else."""
        locks: list[Lock] = []
        for name in names:
            lock = try_lock(self._locks / _plain(name), create=True)
            if lock is None:
                release_all(locks)
                return None
            locks.append(lock)
        return locks

    def stage(self, tag: str) -> Staged | None:
        """Begin a snapshot, or None while somebody else makes one of that tag.

        Raises
        ------
        StillframeError
            The tag cannot be kept.
        """
        folder = self._staging / _folder_name(tag)
        while True:
            folder.mkdir(exist_ok=True, mode=0o700)
            try:
                lock = try_lock(folder)
            except FileNotFoundError:  # whoever made it has just published or removed it
                continue
            if lock is None:
                return None
            try:
                for left in folder.iterdir():  # of one who died
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            except BaseException:
                lock.release()
                raise
            return Staged(folder, lock)

    def publish(self, staged: Staged) -> None:
        """Make a finished snapshot visible, for good.

        Raises
        ------
        OSError
            It may be visible or not.
        """
        staged.folder.rename(self.snapshots / staged.folder.name)
        staged.published = True
        _sync_folder(self.snapshots)
        _sync_folder(self._staging)

    def find(self, tag: str) -> Manifest | None:
        """The snapshot of that tag."""
        try:
            return Manifest.read(self.snapshots / _folder_name(tag))
        except FileNotFoundError:
            return None

    def manifests(self) -> list[Manifest]:
        """All complete snapshots, oldest first."""
        found = []
        for folder in self.snapshots.iterdir():
            try:
                found.append(Manifest.read(folder))
            except FileNotFoundError:  # deleted in the meantime
                continue
        return sorted(found, key=lambda one: (one.made_ns, one.tag))

    def unit_file(self, tag: str, name: str) -> Path:
        """The file that holds a unit of a snapshot."""
        return self.snapshots / _folder_name(tag) / "units" / _plain(name)

    def delete(self, tag: str, snapshot_id: str) -> bool:
        """Delete a snapshot; False when it is not there.

        Raises
        ------
        BlockingIOError
            Somebody else deletes it, or has not quite finished making it.
        """
        folder = self.snapshots / _folder_name(tag)
        try:
            lock = try_lock(folder)
        except FileNotFoundError:
            return False
        if lock is None:
            raise BlockingIOError
        grave = self._trash / secrets.token_hex(8)
        try:
            if Manifest.read(folder).snapshot_id != snapshot_id:
                return False
            folder.rename(grave)
            _sync_folder(self.snapshots)
            shutil.rmtree(grave)
        finally:
            lock.release()
        return True

    def clone(self, source: Path, name: str) -> Path:
        """A writable copy of a file under that name; it appears whole or not at all.

        Raises
        ------
        FileExistsError
            There is a clone of that name.
        FileNotFoundError
            There is no such file to copy.
        """
        path = self.clones / name
        with source.open("rb") as original:
            copy = os.open(self.clones, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                xfs_ioctl.share(original.fileno(), copy)
                os.fsync(copy)
                # Only with a descriptor to start from does Python make the call that follows links.
                os.link(f"/proc/self/fd/{copy}", path, src_dir_fd=copy, follow_symlinks=True)
            finally:
                os.close(copy)
        _sync_folder(self.clones)
        return path


def new_manifest(tag: str, units: Sequence[str], cut_s: float, fence: Window | None) -> Manifest:
    """The manifest of a snapshot that was cut just now."""
    held = None if fence is None else (fence.start_s, fence.end_s)
    return Manifest(secrets.token_hex(8), tag, tuple(units), cut_s, held, boot_id(), time.time_ns())


def release_all(locks: Sequence[Lock]) -> None:
    """Give back all of them."""
    for lock in locks:
        lock.release()


def _folder_name(tag: str) -> str:
    # With something in front, the tags "." and ".." are names like any other.
    name = "tag-" + quote(tag, safe="")
    if len(name) > _LONGEST_NAME:
        raise StillframeError(f"tag {tag!r} is too long for the name of a folder")
    return name


def _plain(name: str) -> str:
    """A unit's name as that of a file: a clone's has a slash in it."""
    return quote(name, safe="")


def _files_in(folder: Path) -> dict[str, Path]:
    with os.scandir(folder) as entries:
        return {
            entry.name: Path(entry.path)
            for entry in entries
            if not entry.name.startswith(".") and entry.is_file(follow_symlinks=False)
        }


def _sweep(folder: Path) -> None:
    """Remove what a dead process left half made or half deleted."""
    try:
        lock = try_lock(folder)
    except FileNotFoundError:  # its process has just finished
        return
    if lock is not None:
        try:
            shutil.rmtree(folder)
        finally:
            lock.release()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
