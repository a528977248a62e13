"""The driver for RBD images of a Ceph cluster: native group snapshots of any subset of images.

The point in time of a group is Ceph's own. For a group snapshot librbd takes the exclusive lock of
every image in it. Whoever held a lock and writes, such as a gateway, has to let go of it: it
finishes the writes that are under way, writes out what its cache holds, and every further write
waits until it gets the lock back. Once all locks are here, all images are snapshotted, and then the
locks are free again. So writes are held for the length of the call at most; exactly how long cannot
be seen from outside.

Ceph keeps the old data by copying: a RADOS object is cloned at the first write after a snapshot
(https://docs.ceph.com/en/pacific/dev/osd_internals/snaps/).
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import StillframeError
from .ceph_gateway import Gateway, fuse_files
from .ceph_link import CephLink
from .ceph_settings import CephSettings, parse_settings
from .contracts import (
    ArrayCapabilities,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    SnapshotMethod,
    Window,
)
from .errors import (
    BusyError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    UnknownOutcomeError,
)
from .records import (
    ArrayId,
    DeviceIdentity,
    DeviceKind,
    StorageUnit,
    UnitId,
    UnitKind,
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
"""What QEMU takes for the name of an export (util/id.c), and RBD for that of an image."""


class CephRbdDriver:
    """One pool of one cluster; implements :class:`~stillframe.drivers.contracts.ArrayDriver` and
    :class:`~stillframe.drivers.contracts.ReadableArrayDriver`.

    Made by :func:`open_ceph_rbd`. A unit's identifier is ``ARRAY/IMAGE``.
    """

    def __init__(
        self, array_id: ArrayId, settings: CephSettings, link: CephLink, gateway: Gateway
    ) -> None:
        self.id = array_id
        self._settings = settings
        self._link = link
        self._gateway = gateway
        self._making: set[str] = set()
        self._reading: dict[str, int] = {}

    @property
    def capabilities(self) -> ArrayCapabilities:
        """Copy-on-write, groups cut natively at one point in time, copies are full ones."""
        return ArrayCapabilities(
            method=SnapshotMethod.COPY_ON_WRITE,
            atomic_groups=True,
            group_operations=1,
            reads_back=True,
            clones=True,
        )

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        """The images whose exports by the gateway these files are.

        Raises
        ------
        DidNotHappenError
            The gateway or the cluster does not answer.
        """
        files = [one for one in devices if one.kind is DeviceKind.FILE]
        if not files:
            return {}
        exports, mounted = await self._gateway.exports(), fuse_files()
        found = {}
        for device in files:
            image = exports.get(Path(device.value).name)
            if image is not None and device.value in mounted:
                found[device] = await self._unit("resolve", image, device)
        return found

    async def _unit(self, operation: str, image: str, *devices: DeviceIdentity) -> StorageUnit:
        facts = await self._link.ask(operation, image, "image", changes=False, name=image)
        return StorageUnit(
            f"{self.id}/{image}", self.id, image, UnitKind.LUN, facts["size_bytes"], devices
        )

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """Snapshot these images as one group; see the module on how writes are held.

        Raises
        ------
        BusyError
            The tag is being made, or another process is changing groups of this pool.
        DidNotHappenError
            Writes were held for longer than the limit: the snapshot was deleted again.
        NeverWillError
            A unit is not of this array, is in a group of somebody else, or has no exclusive lock;
            or there is a snapshot of other units with this tag.
        UnknownOutcomeError
            The cluster does not answer (any more).
        """
        operation, tag = "snapshot_group", request.tag
        if not request.unit_ids:
            raise NeverWillError(operation, tag, "a group of no units")
        images = [self._image(operation, unit_id) for unit_id in dict.fromkeys(request.unit_ids)]
        with self._alone_on(tag):
            made = await self._link.ask(
                operation,
                tag,
                "snapshot",
                changes=True,
                # It waits for its turn, then for the writes, and cleans up after itself.
                limit_s=request.fence_timeout_s + self._settings.timeout,
                tag=tag,
                images=images,
                fence_s=request.fence_timeout_s,
            )
        held = None
        if made["end_s"] is not None:
            held = Window(made["begin_s"], made["end_s"], exact=False)
        return self._snapshot(tag, made["token"], made["images"], held)

    @contextmanager
    def _alone_on(self, tag: str) -> Iterator[None]:
        if tag in self._making:
            raise BusyError("snapshot_group", tag, "a snapshot with this tag is being made")
        self._making.add(tag)
        try:
            yield
        finally:
            self._making.discard(tag)

    def _snapshot(
        self, tag: str, token: str, images: Sequence[str], fence: Window | None = None
    ) -> GroupSnapshot:
        ref = GroupSnapshotRef(self.id, f"{self.id}/{tag}/{token}", tag)
        return GroupSnapshot(ref, tuple(f"{self.id}/{one}" for one in images), fence=fence)

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """The complete group snapshots that this driver, now or earlier, made under such tags."""
        found = await self._link.ask(
            "list_snapshots", self.id, "listed", changes=False, prefix=tag_prefix
        )
        return [self._snapshot(one["tag"], one["token"], one["images"]) for one in found]

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """Delete a group snapshot; the objects of the old data are trimmed in the background.

        Raises
        ------
        NotFoundError
            It is gone already.
        BusyError
            It is being read or copied, or another process is changing groups of this pool.
        UnknownOutcomeError
            The cluster does not answer.
        """
        if self._reading.get(ref.tag):
            raise BusyError("delete_snapshot", ref.tag, "it is being read or copied")
        await self._link.ask(
            "delete_snapshot",
            ref.tag,
            "delete",
            changes=True,
            limit_s=self._settings.timeout,
            tag=ref.tag,
            token=_token(ref),
        )

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """Bytes of a unit as the snapshot holds them.

        Raises
        ------
        NotFoundError
            There is no such snapshot, or it does not hold the unit.
        NeverWillError
            The bytes are not all within the unit.
        """
        with self._kept(ref.tag):
            text = await self._link.ask(
                "read_back",
                unit_id,
                "read",
                changes=False,
                tag=ref.tag,
                token=_token(ref),
                image=self._image("read_back", unit_id),
                offset=offset_bytes,
                length=length_bytes,
            )
        return base64.b64decode(text)

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        """A full copy of a unit as the snapshot holds it, exported by the gateway.

        Ceph 16 clones without copying from snapshots of a single image only. A copy takes the space
        of the objects that exist, and the time to read and write them; then it is independent of
        the snapshot.

        Raises
        ------
        NotFoundError
            There is no such snapshot, or it does not hold the unit.
        NeverWillError
            There is an image of that name, or it is no name for an image.
        HappenedError
            The copy is made but the gateway does not export it; ``discard`` removes it.
        UnknownOutcomeError
            The cluster does not answer.
        """
        image = self._image("clone", unit_id)
        if _NAME.fullmatch(name) is None:
            raise NeverWillError("clone", unit_id, f"{name!r} is no name for a copy")
        with self._kept(ref.tag):
            await self._link.ask(
                "clone",
                unit_id,
                "copy",
                changes=True,
                limit_s=self._settings.copy_timeout,
                tag=ref.tag,
                token=_token(ref),
                image=image,
                name=name,
            )
        try:
            file = await self._gateway.export(name)
        except (StillframeError, OSError) as error:
            reason = f"copy {self.id}/{name} is made but not exported: {error}"
            raise HappenedError("clone", unit_id, reason, "discard it") from error
        return await self._unit("clone", name, DeviceIdentity(DeviceKind.FILE, str(file)))

    async def discard(self, unit_id: UnitId) -> None:
        """Withdraw a copy from the gateway and delete its image.

        Raises
        ------
        NotFoundError
            There is no such image, or it is no copy.
        BusyError
            A loop device is on it, or somebody else has it open.
        """
        image = unit_id.removeprefix(f"{self.id}/")
        if image == unit_id:
            raise NotFoundError("discard", unit_id, f"array {self.id} has no such copy")
        facts = await self._link.ask("discard", unit_id, "image", changes=False, name=image)
        if not facts["copy_of"]:
            raise NotFoundError("discard", unit_id, "this is a unit, not a copy that clone made")
        await self._gateway.withdraw(image)
        await self._link.ask("discard", unit_id, "discard", changes=True, name=image)

    @contextmanager
    def _kept(self, tag: str) -> Iterator[None]:
        """Nobody deletes this snapshot through this driver meanwhile."""
        self._reading[tag] = self._reading.get(tag, 0) + 1
        try:
            yield
        finally:
            self._reading[tag] -= 1

    def _image(self, operation: str, unit_id: UnitId) -> str:
        prefix = f"{self.id}/"
        if not unit_id.startswith(prefix):
            raise NeverWillError(operation, unit_id, f"this is no unit of array {self.id}")
        return unit_id.removeprefix(prefix)


def _token(ref: GroupSnapshotRef) -> str:
    """What tells a snapshot from an earlier one with its tag."""
    return ref.snapshot_id.rpartition("/")[2]


@asynccontextmanager
async def open_ceph_rbd(
    system_id: str, settings: Mapping[str, Any]
) -> AsyncIterator[CephRbdDriver]:
    """Connect to a Ceph cluster, give the driver of one pool, disconnect at the end.

    What a process that died left half made or half deleted is removed first, unless another
    process is at work on the pool.

    Parameters
    ----------
    system_id:
        The array's identifier in the job; prefix of all identifiers.
    settings:
        See :class:`~stillframe.drivers.ceph_settings.CephSettings`.

    Raises
    ------
    InputError
        The settings cannot be used.
    StillframeError
        The cluster does not answer, or the interpreter lacks the modules.
    """
    checked = parse_settings(system_id, settings)
    seconds = checked.timeout
    link = CephLink(checked.python, checked.conf_file, checked.pool, seconds)
    gateway = Gateway(checked.gateway_socket, checked.conf_file, checked.pool, seconds)
    await link.start()
    try:
        # Somebody may be at work, or the locks of a dead one not have timed out: what it left is
        # listed by nobody, and waits for whoever comes into its way.
        with suppress(BusyError, UnknownOutcomeError):
            await link.ask("open", system_id, "sweep", changes=True, limit_s=seconds)
        yield CephRbdDriver(system_id, checked, link, gateway)
    finally:
        await link.close()
