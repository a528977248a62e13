"""Files that are mounted for a while, and clones of units that exist for a while."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from ..drivers.contracts import ArrayDriver, GroupSnapshotRef, ReadableArrayDriver
from ..drivers.records import ArrayId, DatastoreId, DeviceKind, StorageUnit, UnitId
from ..errors import StillframeError
from .host import Loop, attach_loop, detach_loop, loops, mount, mounts, unmount
from .verify_claims import DiskClaim, Slice, mount_point

_BUSY_S = 10.0
_LOOK_S = 0.02


@asynccontextmanager
async def mounted(
    file: Path, at: Path, *, offset_bytes: int = 0, size_bytes: int = 0
) -> AsyncIterator[Path]:
    """Mount the file system in a file, through a loop device; both are undone at the end.

    Parameters
    ----------
    file:
        What holds the file system. Its journal is replayed: the file changes.
    at:
        The folder to mount it on; it is made, and removed at the end.
    offset_bytes, size_bytes:
        The part of the file that it lies in; a size of 0 reaches to the end.

    Raises
    ------
    StillframeError
        It cannot be mounted, or not be let go.
    """
    # With its file: a number that is free again may be given to us.
    before = set(loops())
    async with AsyncExitStack() as undo:
        # Undone by what there is, not by what was answered: a cancelled call answers nothing.
        undo.push_async_callback(_let_go, file, at, before)
        device = await attach_loop(
            file, read_only=False, direct_io=False, offset=offset_bytes, size=size_bytes
        )
        await mount(device, at, "noatime")
        yield at


async def _let_go(file: Path, at: Path, before: Collection[Loop]) -> None:
    give_up_s = time.monotonic() + _BUSY_S
    while any(one.at == at for one in mounts()):
        try:
            await unmount(at)
        except StillframeError:
            # A loop device that was on one of its files lets go a moment after its own unmount.
            if time.monotonic() > give_up_s:
                raise
            await asyncio.sleep(_LOOK_S)
    for loop in loops():
        if loop.backing == file and loop not in before:
            await detach_loop(loop.device)
    _remove(at)


def _remove(folder: Path) -> None:
    """Only when it is empty: what is still mounted is not to be removed file by file."""
    if folder.exists():
        folder.rmdir()


class Clones:
    """Writable clones of units as array snapshots hold them, made when they are asked for.

    Use it as an asynchronous context manager; every clone is discarded at its end.
    """

    def __init__(self, arrays: Mapping[ArrayId, ArrayDriver]) -> None:
        self._arrays = arrays
        self._made: dict[tuple[str, UnitId], StorageUnit] = {}
        self._undo = AsyncExitStack()

    async def __aenter__(self) -> Clones:
        await self._undo.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._undo.__aexit__(*raised)  # type: ignore[arg-type]  # the same three as here

    async def file_of(self, ref: GroupSnapshotRef, unit_id: UnitId) -> Path:
        """The file on this host that stands for a clone of the unit.

        Raises
        ------
        StillframeError
            The array is not there, its driver has no clones, or the clone is no file here.
        DriverError
            The array could not make it.
        """
        key = (ref.tag, unit_id)
        if key not in self._made:
            self._made[key] = await self._cloned(ref, unit_id)
        for device in self._made[key].devices:
            if device.kind is DeviceKind.FILE:
                return Path(device.value)
        raise StillframeError(f"the clone of {unit_id} is no file on this host")

    async def _cloned(self, ref: GroupSnapshotRef, unit_id: UnitId) -> StorageUnit:
        array = self._arrays.get(ref.array_id)
        if array is None:
            raise StillframeError(f"array {ref.array_id} is not in this configuration")
        if not array.capabilities.clones or not isinstance(array, ReadableArrayDriver):
            raise StillframeError(f"the driver of array {ref.array_id} makes no clones")
        clone = await array.clone(ref, unit_id, f"verify-{secrets.token_hex(4)}")
        self._undo.push_async_callback(array.discard, clone.id)
        return clone


class MountedImages:
    """The images of a run's snapshots as files on this host, on clones that are mounted.

    Use it as an asynchronous context manager: at its end every mount and loop device is undone and
    every clone is discarded. The images may be changed meanwhile, and the snapshots do not.

    Parameters
    ----------
    arrays:
        The opened drivers.
    folder:
        Where the mount points are made, in a folder of their own.
    slices:
        By mount point, the datastores that do not have a unit to themselves.
    """

    def __init__(
        self,
        arrays: Mapping[ArrayId, ArrayDriver],
        folder: Path,
        slices: Mapping[Path, Slice],
    ) -> None:
        self._clones = Clones(arrays)
        self._folder = folder
        self._slices = slices
        self._work = Path()
        self._stores: dict[tuple[str, DatastoreId], Path | str] = {}
        self._undo = AsyncExitStack()

    async def __aenter__(self) -> MountedImages:
        self._work = Path(tempfile.mkdtemp(prefix="verify-", dir=self._folder))
        await self._undo.__aenter__()
        self._undo.callback(_remove, self._work)
        await self._undo.enter_async_context(self._clones)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._undo.__aexit__(*raised)  # type: ignore[arg-type]  # the same three as here

    async def open(self, disk: DiskClaim) -> None:
        """Have the datastore of a disk mounted; what prevents it is what :meth:`find` tells."""
        key = (disk.ref.tag, disk.datastore_id)
        if key in self._stores or disk.problem:
            return
        where = self._slices.get(mount_point(disk.datastore_id), Slice())
        try:
            file = await self._clones.file_of(disk.ref, disk.unit_id)
            self._stores[key] = await self._undo.enter_async_context(
                mounted(
                    file,
                    self._work / f"store-{len(self._stores)}",
                    offset_bytes=where.offset_bytes,
                    size_bytes=where.size_bytes,
                )
            )
        except StillframeError as error:
            self._stores[key] = f"its datastore cannot be read: {error}"

    def find(self, disk: DiskClaim) -> Path | str:
        """The file with a disk's image, or the sentence that says why there is none."""
        if disk.problem:
            return disk.problem
        store = self._stores[disk.ref.tag, disk.datastore_id]
        if isinstance(store, str):
            return store
        image = store / disk.path
        return image if image.is_file() else f"there is no file {disk.path} in the snapshot"

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """An empty folder for copies of one image."""
        with tempfile.TemporaryDirectory(dir=self._work) as name:
            yield Path(name)
