"""Making one group snapshot of a reflink array: lock, check, flush, hold, copy, let go, publish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from ..quantity import format_bytes
from . import xfs_users
from .deadman import DeadMan
from .errors import (
    BusyError,
    DidNotHappenError,
    NeverWillError,
    PoolFullError,
    UnknownOutcomeError,
)
from .xfs_fence import SNAPSHOT, Fence
from .xfs_markers import thaw_what_the_dead_froze
from .xfs_settings import XfsSettings
from .xfs_store import Manifest, Staged, Store, new_manifest, release_all
from .xfs_users import Writer

_RETRY_S = 0.5


class SnapshotMaker:
    """Makes the group snapshots of one pool; every call blocks.

    Parameters
    ----------
    switch:
        Has to be started before each call.
    """

    def __init__(self, store: Store, settings: XfsSettings, switch: DeadMan) -> None:
        self._store = store
        self._settings = settings
        self._switch = switch
        self._ending: list[Thread] = []

    def make(self, tag: str, names: Sequence[str], fence_timeout_s: float) -> Manifest:
        """A snapshot of these units under this tag, the one there is already included.

        Raises
        ------
        DriverError
            As in :meth:`XfsReflinkDriver.snapshot_group`.
        """
        units = self._known(tag, names)
        existing = self._existing(tag, names)
        if existing is not None:
            return existing
        with ExitStack() as kept:
            staged = self._store.stage(tag)
            if staged is None:
                raise BusyError(SNAPSHOT, tag, "it is being made", retry_after_s=_RETRY_S)
            kept.callback(staged.close)
            existing = self._existing(tag, names)  # it was published just before we got the lock
            if existing is not None:
                return existing
            locks = self._store.lock_units(names)
            if locks is None:
                reason = "one of its units is being snapshotted"
                raise BusyError(SNAPSHOT, tag, reason, retry_after_s=_RETRY_S)
            kept.callback(release_all, locks)
            return self._cut(tag, units, fence_timeout_s, staged, kept)

    def join(self) -> None:
        """Wait until what the kernel was still freezing has been thawed."""
        for thread in self._ending:
            thread.join()

    def _cut(
        self,
        tag: str,
        units: Mapping[str, Path],
        fence_timeout_s: float,
        staged: Staged,
        kept: ExitStack,
    ) -> Manifest:
        self._check_space(tag)
        thaw_what_the_dead_froze(self._store.frozen)
        sources = staged.open(units)
        writers = self._writers(tag, units)
        paths = tuple(units.values())

        def copy() -> None:
            staged.copy()
            if writers and xfs_users.block_writers(paths) != list(writers):
                reason = "a loop device or mount on its units came or went meanwhile"
                raise DidNotHappenError(SNAPSHOT, tag, reason)

        devices = [one.device for one in writers if one.mounts]
        fence = Fence(tag, list(dict.fromkeys(devices)), self._store.frozen, self._switch)
        try:
            fence.flush(self._settings.flush_timeout, *sources)
            held = fence.hold_while(copy, fence_timeout_s)
            manifest = new_manifest(tag, tuple(units), held.started_s, held.fence)
            staged.finish(manifest)
            self._publish(tag, staged)
            return manifest
        finally:
            # Locks and folders stay as long as a thread may still be at work in them.
            ending = fence.when_over(kept.pop_all().close)
            if ending is not None:
                self._ending.append(ending)

    def _writers(self, tag: str, units: Mapping[str, Path]) -> Sequence[Writer]:
        """What is to be held; NeverWillError when that is not enough or not to be done."""
        alone = len(units) == 1
        if alone and self._settings.hold == "groups":
            return ()
        paths = list(units.values())
        writers = xfs_users.block_writers(paths)
        if not alone and self._settings.unheld == "refuse":
            self._refuse_unheld(tag, writers, paths)
        pool = xfs_users.device_number(self._store.pool.stat().st_dev)
        below = xfs_users.under(pool)
        for writer in writers:
            if writer.mounts and writer.device in below:
                # A reflink copy on a frozen pool waits for the thaw, which waits for the copy.
                reason = f"{writer} holds the pool itself, which cannot be frozen"
                raise NeverWillError(SNAPSHOT, tag, reason)
        return writers

    def _refuse_unheld(self, tag: str, writers: Sequence[Writer], paths: Sequence[Path]) -> None:
        said = [f"{one}, not mounted here" for one in writers if not one.mounts]
        said += xfs_users.raw_writers(paths, frozenset(one.unit for one in writers))
        if said:
            raise NeverWillError(
                SNAPSHOT,
                tag,
                f"writes could not be held of {'; '.join(said)}",
                "detach or mount it, snapshot its unit alone, or set unheld: allow",
            )

    def _check_space(self, tag: str) -> None:
        free, least = self._store.free_bytes(), self._settings.least_free
        if free < least:
            reason = f"{format_bytes(free)} are free in the pool, {format_bytes(least)} are needed"
            raise PoolFullError(SNAPSHOT, tag, reason, "delete snapshots, or enlarge the pool")

    def _publish(self, tag: str, staged: Staged) -> None:
        try:
            self._store.publish(staged)
        except OSError as error:
            raise UnknownOutcomeError(SNAPSHOT, tag, f"the pool failed: {error}") from error

    def _known(self, tag: str, names: Sequence[str]) -> dict[str, Path]:
        files = self._store.units()
        unknown = [name for name in names if name not in files]
        if unknown or not names:
            reason = f"there is no unit {unknown[0]!r}" if unknown else "it has no units"
            raise NeverWillError(SNAPSHOT, tag, reason)
        return {name: files[name] for name in names}

    def _existing(self, tag: str, names: Sequence[str]) -> Manifest | None:
        manifest = self._store.find(tag)
        if manifest is not None and set(manifest.units) != set(names):
            raise NeverWillError(SNAPSHOT, tag, "the tag is that of a snapshot of other units")
        return manifest
