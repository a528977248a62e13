"""One QEMU VM: what it looks like, and its snapshots as the files and QEMU tell of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .contracts import FileLocation, FileRole, VmLocation, VmSnapshotRef, VmSnapshotState, Window
from .hostfacts import HostFacts, Mount, mount_of
from .qemu_blocks import Chain, DiskMissingError, read_chains
from .qemu_files import Record, Records, tag_of
from .qemu_monitor import Monitor, MonitorHeldError, MonitorLostError, VmOffError
from .qemu_offline import read_files
from .qemu_settings import GUEST_FILE, Guest, QemuSettings
from .records import DatastoreId, VmId

_ENDED = ("concluded", "null")


class Look(NamedTuple):
    """What a VM looks like at one moment.

    Attributes
    ----------
    is_on:
        Whether QEMU runs; None when it does and does not answer.
    chains:
        By disk, in the order of the description.
    records:
        What is written down of our snapshots.
    jobs:
        Whether QEMU has a block job under way; None when nobody can tell.
    """

    is_on: bool | None
    chains: list[Chain]
    records: list[Record]
    jobs: bool | None

    @property
    def in_chains(self) -> set[Path]:
        """All overlays that are part of a chain."""
        return {link.path for chain in self.chains for link in chain[1:]}


class QemuVm:
    """A VM of one host.

    Attributes
    ----------
    lock:
        Held by whoever changes its snapshots.
    under_way:
        Calls of ours on it, thaws in the background included.
    """

    def __init__(self, vm_id: VmId, guest: Guest, settings: QemuSettings, facts: HostFacts) -> None:
        self.id = vm_id
        self.guest = guest
        self.monitor = Monitor(guest.qmp, settings.connect_timeout, settings.answer_timeout)
        self.records = Records(guest.folder)
        self.lock = asyncio.Lock()
        self.under_way: Counter[str] = Counter()
        self.thawing: set[asyncio.Task[int]] = set()
        self._facts = facts
        self._system_id = vm_id.partition("/")[0]

    @property
    def is_busy(self) -> bool:
        """Whether something of ours is under way on it."""
        return bool(self.thawing) or any(self.under_way.values())

    def follow(self, work: asyncio.Task[Window]) -> None:
        """A command to QEMU that goes on although nobody may wait for it any more."""
        self.under_way["command"] += 1
        self.monitor.take()
        work.add_done_callback(self._followed)

    def _followed(self, work: asyncio.Task[Window]) -> None:
        self.under_way["command"] -= 1
        self.monitor.give_back()
        if not work.cancelled():
            work.exception()  # whoever waits hears of it; without one, nobody has to

    async def close(self) -> None:
        """Disconnect from QEMU."""
        await self.monitor.close()

    async def look(self) -> Look:
        """What it looks like now; a QEMU that does not answer leaves its files to look at.

        Raises
        ------
        MonitorLostError
            QEMU comes and goes: look again later.
        """
        with self.monitor.used():
            try:
                return await self._look()
            except MonitorLostError:  # of a QEMU that is no more: look at what is
                return await self._look()

    async def _look(self) -> Look:
        records = self.records.all()
        try:
            jobs = await self.monitor.execute("query-jobs")
            chains = await read_chains(self.monitor, self.guest)
        except VmOffError:
            return Look(False, await read_files(self.guest), records, jobs=False)
        except (MonitorHeldError, DiskMissingError):
            return Look(None, await read_files(self.guest), records, jobs=None)
        return Look(True, chains, records, any(job["status"] not in _ENDED for job in jobs))

    async def state(self) -> VmSnapshotState:
        """What :meth:`HypervisorDriver.list_snapshots` says of it. Raises as :meth:`look`."""
        busy = self.is_busy
        look = await self.look()
        running = True if busy or self.is_busy else look.jobs
        return VmSnapshotState(
            self.id,
            self.location(look.chains),
            self.snapshots(look),
            needs_consolidation=running is False and bool(leftovers(look)),
            operation_running=running,
        )

    def snapshots(self, look: Look) -> tuple[VmSnapshotRef, ...]:
        """All snapshots, oldest first; one whose removal is half done is none any more."""
        half_done = {record.tag for record in look.records if is_half_removed(record, look)}
        tags: dict[str, int] = {}
        for chain in look.chains:
            for place, link in enumerate(chain[1:]):
                tag = self.tag_of(chain, link.path, look.records)
                tags[tag] = max(tags.get(tag, 0), place)
        ordered = sorted(tags, key=lambda tag: tags[tag])
        return tuple(self.ref(tag) for tag in ordered if tag not in half_done)

    def ref(self, tag: str) -> VmSnapshotRef:
        """The handle of one of its snapshots."""
        return VmSnapshotRef(self.id, f"{self.id}/{tag}", tag)

    def tag_of(self, chain: Chain, overlay: Path, records: Sequence[Record]) -> str:
        """The tag of an overlay of a chain."""
        for record in records:
            if overlay in record.overlays:
                return record.tag
        return tag_of(chain[0].path, overlay)

    def overlays_of(self, tag: str, look: Look) -> tuple[Path, ...]:
        """The overlays of a snapshot that are in a chain."""
        return tuple(
            link.path
            for chain in look.chains
            for link in chain[1:]
            if self.tag_of(chain, link.path, look.records) == tag
        )

    def location(self, chains: Sequence[Chain]) -> VmLocation:
        """Where it lies, by the mounts of the host as they are now.

        The folder with its description counts where it shares a file system with a disk: only
        there is it part of what an array keeps of the VM.
        """
        mounts = self._facts.mounts()
        files: list[FileLocation] = []
        for number, (disk, chain) in enumerate(zip(self.guest.disks, chains, strict=True)):
            for link in chain:
                role = FileRole.BASE
                if disk.independent:
                    role = FileRole.LIVE
                elif link is chain[-1] and len(chain) > 1:
                    role = FileRole.DELTA
                store = self.datastore_of(link.path, mounts)
                key = self.guest.key_of(number)
                files.append(FileLocation(str(link.path), store, role, key))
        home = self.home(mounts)
        if home is not None:
            described = self.guest.folder / GUEST_FILE
            files.append(FileLocation(str(described), home, FileRole.CONFIG))
        return VmLocation(tuple(files))

    def home(self, mounts: Sequence[Mount]) -> DatastoreId | None:
        """The datastore of the folder that describes it; None where no disk of it lies there."""
        home = self.datastore_of(self.guest.folder / GUEST_FILE, mounts)
        on = {self.datastore_of(disk.file, mounts) for disk in self.guest.disks}
        return home if home in on else None

    def datastore_of(self, path: Path, mounts: Sequence[Mount]) -> DatastoreId:
        """The datastore of a file: the file system that it lies on."""
        return f"{self._system_id}{mount_of(path, mounts).point}"


def is_half_removed(record: Record, look: Look) -> bool:
    """Whether a removal has taken some of its overlays out of their chains, and not all."""
    there = look.in_chains.intersection(record.overlays)
    return record.removing and bool(there) and len(there) < len(record.overlays)


def leftovers(look: Look) -> list[Record]:
    """Records of snapshots that are gone, and have left an overlay or a file."""
    left = []
    for record in look.records:
        gone = look.in_chains.isdisjoint(record.overlays)
        lies_about = any(path.exists() for path in record.leftovers)
        if is_half_removed(record, look) or (gone and lies_about):
            left.append(record)
    return left
