"""Taking a snapshot of a QEMU VM: freeze, one transaction over all its disks, thaw."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import NamedTuple

from ..errors import StillframeError
from .contracts import ConsistencyLevel, VmSnapshot, VmSnapshotRequest, Window
from .deadman import DeadMan
from .errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from .qemu_agent import AgentLostError, AgentRefusedError
from .qemu_blocks import Chain
from .qemu_files import Record, delete, overlay_of
from .qemu_hold import Frozen, HeldElsewhereError, to_the_end
from .qemu_monitor import MonitorHeldError, MonitorLostError, RefusedError, VmOffError
from .qemu_offline import create_overlays, is_locked
from .qemu_remove import remove_overlays
from .qemu_settings import QemuSettings
from .qemu_vm import Look, QemuVm

CREATE = "create_snapshot"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,150}")
"""What can be part of a file's name."""


class Taken(NamedTuple):
    """What a snapshot cost the guest."""

    stun: Window | None = None
    quiesce: Window | None = None


class Creation:
    """One create call on one VM; its lock is held.

    Raises, already when it is made, as :meth:`HypervisorDriver.create_snapshot`.
    """

    def __init__(
        self, vm: QemuVm, request: VmSnapshotRequest, deadman: DeadMan, settings: QemuSettings
    ) -> None:
        self._vm = vm
        self._request = request
        self._deadman = deadman
        self._settings = settings
        if not _TAG.fullmatch(request.tag):
            reason = f"the tag {request.tag!r} cannot be part of a file's name"
            raise NeverWillError(CREATE, vm.id, reason)
        overlays = tuple(overlay_of(disk.file, request.tag) for disk in vm.guest.held)
        self._record = Record(tag=request.tag, overlays=overlays)
        self._sent = False

    async def run(self) -> VmSnapshot:
        """Take the snapshot."""
        vm, request = self._vm, self._request
        look = await self._checked_look()
        await asyncio.to_thread(vm.records.put, self._record)
        try:
            taken = await self._take(look)
        except DidNotHappenError:
            await to_the_end(asyncio.to_thread(self._forget))
            raise
        except asyncio.CancelledError:
            if not self._sent:
                await to_the_end(asyncio.to_thread(self._forget))
            raise
        created_s = asyncio.get_running_loop().time()
        try:
            location = vm.location((await vm.look()).chains)
        except (MonitorLostError, StillframeError) as error:
            reason = f"the snapshot exists, but where the VM lies could not be read: {error}"
            raise HappenedError(CREATE, vm.id, reason) from error
        return VmSnapshot(
            vm.ref(request.tag),
            ConsistencyLevel.CRASH if taken.quiesce is None else ConsistencyLevel.FILESYSTEM,
            location,
            created_s if taken.stun is None else taken.stun.end_s,
            quiesce=taken.quiesce,
            stun=taken.stun,
        )

    async def _checked_look(self) -> Look:
        """What the VM looks like, if it can be snapshotted as it is."""
        vm, tag = self._vm, self._request.tag
        if not vm.guest.held:
            raise NeverWillError(CREATE, vm.id, "all its disks are independent")
        try:
            look = await vm.look()
        except MonitorLostError as error:
            raise DidNotHappenError(CREATE, vm.id, str(error)) from error
        if look.is_on is None:
            raise DidNotHappenError(CREATE, vm.id, "QEMU runs, but does not answer as expected")
        if look.jobs:
            raise BusyError(CREATE, vm.id, "a block job is under way on it")
        if vm.overlays_of(tag, look) or any(one.exists() for one in self._record.leftovers):
            raise NeverWillError(CREATE, vm.id, f"there is a snapshot {tag} already")
        return look

    async def _take(self, look: Look) -> Taken:
        if not look.is_on:
            await self._offline(look)
            return Taken()
        if not self._request.quiesce:
            return Taken(await self._transaction(look.chains))
        if self._vm.guest.agent is None:
            raise QuiesceFailedError(CREATE, self._vm.id, "the guest has no agent")
        frozen = Frozen(self._vm.guest, self._deadman, self._settings, self._vm.thawing)
        return await self._quiesced(look, frozen)

    # -- files of a VM that is off --------------------------------------------------------------

    async def _offline(self, look: Look) -> None:
        try:
            for chain in look.chains:
                if await is_locked(chain[-1].path):
                    reason = f"some QEMU that does not answer has {chain[-1].path} open"
                    raise DidNotHappenError(CREATE, self._vm.id, reason)
            self._sent = True
            await create_overlays(self._vm.guest, self._request.tag)
        except StillframeError as error:
            if isinstance(error, DriverError):
                raise
            raise DidNotHappenError(CREATE, self._vm.id, str(error)) from error

    # -- a running VM ---------------------------------------------------------------------------

    async def _transaction(self, chains: list[Chain]) -> Window:
        """Overlays on all disks at one point in time; QEMU drains and holds their I/O for it."""
        vm, loop = self._vm, asyncio.get_running_loop()
        tops = {chain[0].path: chain[-1].node for chain in chains}
        actions = [
            {
                "type": "blockdev-snapshot-sync",
                "data": {
                    "node-name": tops[disk.file],
                    "snapshot-file": str(overlay),
                    "snapshot-node-name": f"sf-{uuid.uuid4().hex[:16]}",
                    "format": "qcow2",
                },
            }
            for disk, overlay in zip(vm.guest.held, self._record.overlays, strict=True)
        ]
        start_s = loop.time()
        self._sent = True
        try:
            await vm.monitor.execute("transaction", actions=actions)
        except RefusedError as error:
            kind = BusyError if "busy" in str(error) else DidNotHappenError
            raise kind(CREATE, vm.id, f"QEMU refuses: {error}") from error
        except (VmOffError, MonitorHeldError) as error:
            raise DidNotHappenError(CREATE, vm.id, f"QEMU went away: {error}") from error
        except MonitorLostError as error:
            raise UnknownOutcomeError(CREATE, vm.id, str(error)) from error
        return Window(start_s, loop.time(), exact=False)

    async def _quiesced(self, look: Look, frozen: Frozen) -> Taken:
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + self._request.quiesce_timeout_s
        count = await self._freeze(frozen, give_up_s)
        work = asyncio.create_task(self._transaction(look.chains))
        self._vm.follow(work)
        try:
            await asyncio.wait([work], timeout=max(0.0, give_up_s - loop.time()))
        except asyncio.CancelledError:
            await frozen.thaw()
            raise
        in_time = work.done()
        thawed = await frozen.thaw()
        thawed_s = loop.time()
        stun = await work
        if thawed is None:
            reason = "the snapshot exists, but the guest has not said that it is thawed"
            raise UnknownOutcomeError(CREATE, self._vm.id, reason)
        if not in_time:
            limit_s = self._request.quiesce_timeout_s
            reason = f"the guest was thawed after {limit_s:g} s, before QEMU had its overlays"
            await self._roll_back(reason)
            raise QuiesceTimeoutError(CREATE, self._vm.id, reason)
        if thawed < count:
            reason = "the guest had thawed by itself before the snapshot was taken"
            await self._roll_back(reason)
            raise QuiesceFailedError(CREATE, self._vm.id, reason)
        assert frozen.sent_s is not None  # noqa: S101  it was frozen
        return Taken(stun, Window(frozen.sent_s, thawed_s))

    async def _freeze(self, frozen: Frozen, give_up_s: float) -> int:
        """The number of file systems that stand; in every other case none does any more."""
        vm_id = self._vm.id
        try:
            async with asyncio.timeout_at(give_up_s):
                count = await frozen.freeze()
            if not count:
                raise AgentRefusedError("it has frozen no file system")
        except TimeoutError as error:
            reason = f"the guest did not freeze in {self._request.quiesce_timeout_s:g} s"
            if await frozen.thaw() is None:
                reason += ", and has not answered to a thaw yet, which is tried on"
            raise QuiesceTimeoutError(CREATE, vm_id, reason) from error
        except AgentRefusedError as error:
            await frozen.thaw()  # a freeze that fails on one file system leaves others frozen
            raise QuiesceFailedError(CREATE, vm_id, f"the guest agent says: {error}") from error
        except AgentLostError as error:
            await frozen.thaw()
            advice = "start qemu-guest-agent in the guest"
            raise QuiesceFailedError(CREATE, vm_id, str(error), advice) from error
        except HeldElsewhereError as error:
            await frozen.thaw()
            raise BusyError(CREATE, vm_id, str(error)) from error
        except StillframeError as error:
            await frozen.thaw()
            raise DidNotHappenError(CREATE, vm_id, str(error)) from error
        except asyncio.CancelledError:
            await frozen.thaw()
            raise
        return count

    async def _roll_back(self, why: str) -> None:
        try:
            await remove_overlays(self._vm, self._request.tag, self._deadman)
        except DriverError as error:
            reason = f"{why}, and the snapshot could not be rolled back: {error.reason}"
            raise UnknownOutcomeError(CREATE, self._vm.id, reason) from error

    def _forget(self) -> None:
        """Leave nothing of a snapshot that was not taken: QEMU makes files before it may fail.

        What cannot be deleted now is found by its record when the VM is looked at.
        """
        try:
            for overlay in self._record.overlays:
                delete(overlay)
        except OSError:
            return
        self._vm.records.drop(self._record.tag)
