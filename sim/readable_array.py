"""A modelled array that holds data: snapshots can be read and cloned, and faults staged by hand.

What is staged is for those who test drivers: a unit that fails, space that is taken, a snapshot
that somebody else made, a restart. Nothing of it happens by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from ..drivers.contracts import GroupSnapshot, GroupSnapshotRef, Window
from ..drivers.errors import BusyError, DidNotHappenError, NeverWillError, NotFoundError
from ..drivers.records import Array, DeviceIdentity, DeviceKind, StorageUnit, UnitId, UnitKind
from ..orchestrator.events import EventLog
from .array import ModelArray
from .array_calls import DELETE, SNAPSHOT, ArrayEvent, Channel, GroupOperation, Held
from .array_faults import ArrayFaults
from .array_profiles import ArrayProfile
from .byteplane import BytePlane
from .draws import Draws, Uniforms
from .env import SimEnv
from .series import Series

READ, CLONE, DISCARD = "read_back", "clone", "discard"


class StagedFaults(ArrayFaults):
    """Faults that somebody turns on and off.

    Attributes
    ----------
    late_by_s:
        For so long a group snapshot or a deletion that was accepted waits, by operation.
    failing:
        Units that cannot be cut.
    """

    __slots__ = ("failing", "late_by_s")

    def __init__(self, array: Array, env: SimEnv, profile: ArrayProfile) -> None:
        super().__init__(array.id, env, None, profile.retry_after)
        self.late_by_s: dict[str, float] = {}
        self.failing: set[UnitId] = set()

    def late_s(self, tag: str) -> float:  # noqa: ARG002
        """How many seconds a group snapshot waits before its work begins."""
        return self.late_by_s.get(SNAPSHOT, 0.0)


class ReadableArray(ModelArray):
    """A modelled array with data; implements ``ReadableArrayDriver``.

    Parameters
    ----------
    env, array, units, profile, draws, log:
        See :class:`ModelArray`.
    latency_s:
        Median time of a host's read or write in seconds.

    Attributes
    ----------
    data:
        The bytes, and the host's port.
    staged:
        The faults that can be turned on.
    """

    def __init__(
        self,
        env: SimEnv,
        array: Array,
        units: Sequence[StorageUnit],
        profile: ArrayProfile,
        draws: Draws,
        log: EventLog,
        latency_s: float,
    ) -> None:
        self.data = data = BytePlane(env, units, profile, draws, latency_s)
        self.staged = faults = StagedFaults(array, env, profile)
        super().__init__(
            env, array, units, profile, draws, log, data.overwritten, Series(), faults, data
        )
        self._capabilities = replace(self._capabilities, reads_back=True, clones=True)
        self._units = {unit.id: unit for unit in units}
        self._clones_made = 0

    # -- the optional part of the contract -------------------------------------------------------

    async def read_back(
        self, ref: GroupSnapshotRef, unit_id: UnitId, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """Bytes of a unit as the snapshot holds them.

        Raises
        ------
        NotFoundError
            There is no such snapshot (any more).
        NeverWillError
            The unit is not in it, or the range is not within the unit.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._call(READ, ref.tag, self._read, ref, unit_id, offset_bytes, length_bytes, answer)
        return await answer

    async def clone(self, ref: GroupSnapshotRef, unit_id: UnitId, name: str) -> StorageUnit:
        """A writable copy of a unit as the snapshot holds it.

        Raises
        ------
        NotFoundError
            There is no such snapshot (any more).
        NeverWillError
            The unit is not in it, or there is a clone of this name.
        """
        answer: asyncio.Future[StorageUnit] = asyncio.get_running_loop().create_future()
        self._call(CLONE, name, self._clone, ref, unit_id, name, answer)
        return await answer

    async def discard(self, unit_id: UnitId) -> None:
        """Delete a copy; raises NotFoundError when there is none."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._call(DISCARD, unit_id, self._discard, unit_id, answer)
        return await answer

    def _member(
        self, operation: str, ref: GroupSnapshotRef, unit_id: UnitId
    ) -> Held | NotFoundError | NeverWillError:
        held = self._by_tag.get(ref.tag)
        if held is None or held.deleting or held.snapshot.ref != ref:
            return NotFoundError(operation, ref.tag, "there is no such group snapshot")
        if unit_id not in held.snapshot.unit_ids:
            return NeverWillError(operation, ref.tag, f"{unit_id} is not in this snapshot")
        return held

    def _read(
        self,
        _: Uniforms,
        ref: GroupSnapshotRef,
        unit_id: UnitId,
        offset_bytes: int,
        length_bytes: int,
        answer: asyncio.Future[bytes],
    ) -> None:
        held = self._member(READ, ref, unit_id)
        if not isinstance(held, Held):
            self._reply(answer, held)
            return
        size = self.data.size_bytes(unit_id)
        if offset_bytes < 0 or length_bytes < 0 or offset_bytes + length_bytes > size:
            reason = f"{length_bytes} bytes at {offset_bytes} are not within {size}"
            self._reply(answer, NeverWillError(READ, unit_id, reason))
            return
        self._reply(answer, self.data.held(held.number, unit_id, offset_bytes, length_bytes))

    def _clone(
        self,
        _: Uniforms,
        ref: GroupSnapshotRef,
        unit_id: UnitId,
        name: str,
        answer: asyncio.Future[StorageUnit],
    ) -> None:
        held = self._member(CLONE, ref, unit_id)
        if not isinstance(held, Held):
            self._reply(answer, held)
            return
        clone_id = f"{self.id}/clone-{name}"
        if clone_id in self._units:
            self._reply(answer, NeverWillError(CLONE, name, "there is a clone of this name"))
            return
        self._clones_made += 1
        device = DeviceIdentity(DeviceKind.NAA, f"6c10e{self._clones_made:027x}")
        size = self.data.size_bytes(unit_id)
        made = StorageUnit(clone_id, self.id, name, UnitKind.LUN, size, (device,))
        self.data.clone(held.number, unit_id, clone_id)
        self._units[clone_id] = self._devices[device] = made
        self._reply(answer, made)

    def _discard(self, _: Uniforms, unit_id: UnitId, answer: asyncio.Future[None]) -> None:
        clone = self._units.get(unit_id)
        if clone is None or unit_id in self._unit_ids:
            self._reply(answer, NotFoundError(DISCARD, unit_id, "there is no such clone"))
            return
        self.data.discard(unit_id)
        del self._units[unit_id]
        for device in clone.devices:
            del self._devices[device]
        self._reply(answer, None)

    def _accept_delete(
        self, noise: Uniforms, ref: GroupSnapshotRef, answer: asyncio.Future[None]
    ) -> None:
        held = self._by_tag.get(ref.tag)
        if held is not None and self.data.clones_need(held.number):
            reason = "a clone reads through it"
            self._reply(answer, BusyError(DELETE, ref.tag, reason, "discard the clone"))
            return
        super()._accept_delete(noise, ref, answer)

    # -- what can be staged ----------------------------------------------------------------------

    def number_of(self, ref: GroupSnapshotRef) -> int:
        """The number under which the data of a snapshot is kept. Raises KeyError for none."""
        return self._by_tag[ref.tag].number

    def holds(self, tag: str) -> bool:
        """Whether there is a complete snapshot of this tag."""
        return tag in self._by_tag

    def in_the_making(self) -> dict[str, tuple[UnitId, ...]]:
        """The units of the group snapshots that are on their way, by tag."""
        return {tag: operation.unit_ids for tag, operation in self._running.items()}

    def being_deleted(self) -> list[tuple[UnitId, ...]]:
        """The units of the group snapshots that are being deleted."""
        return [held.snapshot.unit_ids for held in self._held.values() if held.deleting]

    def unit_behind(self, devices: Sequence[DeviceIdentity]) -> UnitId:
        """The unit or clone that a host finds under these; empty when there is none."""
        found = (self._devices[device].id for device in devices if device in self._devices)
        return next(found, "")

    def make_foreign(self, unit_id: UnitId) -> tuple[str, str]:
        """Somebody else snapshots a unit; its name on the device, and its tag."""
        self._number += 1
        number, now_s = self._number, self._env.now
        tag = f"nightly-{number}"
        ref = GroupSnapshotRef(self.id, f"{self.id}/scheduled-{number}", tag)
        made = GroupSnapshot(ref, (unit_id,), now_s, Window(now_s, now_s))
        held = self._held[number] = Held(number, made)
        self.data.cut(self.id, number, ref.snapshot_id, made.unit_ids)
        self.pool.cut(number, made.unit_ids)
        held.complete = True
        self._by_tag[tag] = held
        return f"{ref.snapshot_id}/{unit_id}", tag

    def delete_foreign(self, tag: str) -> None:
        """Somebody else deletes a snapshot; nothing happens when it is gone."""
        held = self._by_tag.get(tag)
        if held is not None:
            self._drop(held)

    def leave_on_device(self, unit_id: UnitId) -> str:
        """A snapshot of a unit that no list shows; its name on the device."""
        name, tag = self.make_foreign(unit_id)
        self._by_tag.pop(tag).complete = False
        return name

    def remove_on_device(self, name: str) -> None:
        """Delete the snapshot that has this name on the device, with all members."""
        for held in list(self._held.values()):
            if name.startswith(f"{held.snapshot.ref.snapshot_id}/"):
                self._drop(held)

    def crash(self) -> None:
        """The serving side dies: nobody gets an answer, and what was begun stands still."""
        mine = (self, self._channel)
        self._env.drop_calls(lambda call, _: getattr(call, "__self__", None) in mine)
        self._channel = Channel(self._env, self.profile.management_calls)
        self.in_flight = 0
        self.data.stop()

    def recover(self) -> None:
        """It serves again: groups that were cut are complete, others never were.

        Deletions that had begun are finished.
        """
        cut = {operation.number for operation in self._running.values()}
        self._running.clear()
        self._fencing.clear()
        self.data.release()
        for held in list(self._held.values()):
            if held.deleting or not held.valid:
                self._drop(held)
            elif held.number in cut:
                held.complete = True
                self._by_tag[held.snapshot.ref.tag] = held
        self.data.go()

    def _drop(self, held: Held) -> None:
        if held.number not in self._held:
            return
        self._forget(held)
        self.pool.drop(held.number)
        self.data.snapshot_deleted(self.id, held.number)
        self._tell(ArrayEvent.DELETED, held.snapshot.ref.tag)

    def _delete(self, held: Held, answer: asyncio.Future[None]) -> None:
        late_s = self.staged.late_by_s.get(DELETE, 0.0)
        self._env.after(late_s, super()._delete, held, answer)

    def _cut(self, operation: GroupOperation, rest_s: float) -> None:
        broken = next((one for one in operation.unit_ids if one in self.staged.failing), None)
        if broken is None:
            super()._cut(operation, rest_s)
            return
        self.data.fence_ends(operation.unit_ids)
        self._tell(ArrayEvent.ABORTED, operation.tag)
        reason = f"{broken} cannot be snapshotted, and no other unit was"
        self._finish(operation, DidNotHappenError(SNAPSHOT, operation.tag, reason))
