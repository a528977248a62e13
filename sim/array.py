"""A modelled storage array behind the driver contract.

Every call is a chain of callbacks in virtual time with one future at its end. The future belongs to
the caller, the chain to the array: a caller that stops waiting changes nothing, and the operation
completes later all the same.

A group snapshot runs: wait for the management channel, check, prepare, hold the writes of the whole
group (the fence), cut all units at one instant, let the writes go, finish, answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..drivers.contracts import (
    ArrayCapabilities,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    Window,
)
from ..drivers.errors import DidNotHappenError, DriverError, PoolFullError
from ..drivers.records import Array, DeviceIdentity, StorageUnit
from ..orchestrator.events import EventLog
from ..quantity import format_seconds
from .array_admission import Admission
from .array_calls import (
    DELETE,
    SNAPSHOT,
    ArrayEvent,
    Channel,
    GroupOperation,
    Held,
    gone,
    lost,
    settle,
)
from .array_faults import ArrayFaults, array_faults
from .array_load import ArrayLoad
from .array_profiles import ArrayProfile
from .dataplane import ArrayPlane
from .draws import Draws, Uniforms, lognormal
from .env import SimEnv
from .faults import Site
from .faultsites import FaultSites
from .fluid import FluidServer
from .load import OverwriteModel
from .pool import SnapshotPool
from .series import Quantity, Series
from .writers import Writers

T = TypeVar("T")


class ModelArray:
    """One modelled array; implements ``ArrayDriver``.

    Parameters
    ----------
    env:
        The world's clock and queue of events.
    array:
        Which array of the estate it plays.
    units:
        The units that lie on it.
    profile:
        How it behaves.
    draws:
        Where its jitter comes from.
    log:
        Where it writes what really happened.
    overwritten:
        What guests write to its units.
    series:
        Where it writes the level of its pool and its load.
    faults:
        What goes wrong with it; None for nothing.
    plane:
        Who follows the data, in block fidelity.
    writers:
        How much its guests write; None for not at all.

    Attributes
    ----------
    io:
        The bandwidth that merges share; guest writes and copies are its background.
    pool:
        Its snapshot space.
    in_flight:
        Calls that it still works on, whether or not anybody waits for them.
    """

    def __init__(
        self,
        env: SimEnv,
        array: Array,
        units: Sequence[StorageUnit],
        profile: ArrayProfile,
        draws: Draws,
        log: EventLog,
        overwritten: OverwriteModel,
        series: Series,
        faults: FaultSites | ArrayFaults | None = None,
        plane: ArrayPlane | None = None,
        writers: Writers | None = None,
    ) -> None:
        self.id = array.id
        self.profile = profile
        self.io = FluidServer(env, profile.io_bandwidth, profile.flow_bandwidth)
        pool_bytes = profile.pool_bytes
        if pool_bytes is None:
            pool_bytes = round(profile.pool_reserve * sum(unit.capacity_bytes for unit in units))
        self.pool = SnapshotPool(env, pool_bytes, profile, units, overwritten, self)
        self.in_flight = 0
        self._env = env
        self._draws = draws
        self._log = log
        self._plane = plane
        self._writers = writers
        self._series = series
        self._capabilities = profile.capabilities()
        self._channel = Channel(env, profile.management_calls)
        self._devices = {device: unit for unit in units for device in unit.devices}
        self._unit_ids = {unit.id: None for unit in units}
        self._held: dict[int, Held] = {}
        self._faults = array_faults(array.id, env, faults, profile.retry_after)
        self._admission = Admission(array.id, profile, self.pool, self._unit_ids, self._faults)
        self._by_tag = self._admission.by_tag
        self._running = self._admission.running
        self._fencing = self._admission.fencing
        self._number = 0
        self._attempts: dict[tuple[str, str], int] = {}
        self._load = ArrayLoad(env, self.id, profile, self._unit_ids, overwritten, series, self.io)
        series.add(env.now, Quantity.POOL_CAPACITY_BYTES, array.id, float(pool_bytes))

    @property
    def capabilities(self) -> ArrayCapabilities:
        """What the profile says."""
        return self._capabilities

    async def resolve(
        self, devices: Sequence[DeviceIdentity]
    ) -> Mapping[DeviceIdentity, StorageUnit]:
        """The unit behind each device; devices that are not of this array are left out."""
        answer: asyncio.Future[Mapping[DeviceIdentity, StorageUnit]]
        answer = asyncio.get_running_loop().create_future()
        self._call("resolve", "", self._resolve, tuple(devices), answer)
        return await answer

    async def snapshot_group(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """Snapshot these units at one instant; see the contract.

        Raises
        ------
        NeverWillError
            A unit is unknown, there is none, a limit of the profile is exceeded, or the tag
            belongs to a snapshot of other units.
        BusyError
            A unit is part of a group snapshot that is running, or too many of them are.
        PoolFullError
            Too little snapshot space is free, or it ran out before the snapshot was complete.
        DidNotHappenError
            Writes would have been held for longer than allowed; they were released at the limit.
        UnknownOutcomeError
            The answer was lost.
        """
        answer: asyncio.Future[GroupSnapshot] = asyncio.get_running_loop().create_future()
        self._call(SNAPSHOT, request.tag, self._accept_snapshot, request, answer)
        return await answer

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        """Complete snapshots whose tag starts with this, oldest first."""
        answer: asyncio.Future[list[GroupSnapshot]] = asyncio.get_running_loop().create_future()
        self._call("list_snapshots", "", self._list, tag_prefix, answer)
        return await answer

    async def delete_snapshot(self, ref: GroupSnapshotRef) -> None:
        """Delete a group snapshot; its space becomes free afterwards, over time.

        Raises
        ------
        NotFoundError
            There is no such snapshot (any more).
        BusyError
            It is being deleted, or the array is busy otherwise.
        UnknownOutcomeError
            The answer was lost.
        """
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._call(DELETE, ref.tag, self._accept_delete, ref, answer)
        return await answer

    @property
    def writes_failing(self) -> bool:
        """Whether guest writes fail because the snapshot space has run out."""
        return self.pool.failing

    def refresh_load(self) -> None:
        """Bring the background of ``io`` up to date; nearly free when that was done lately.

        The array does it whenever its own state changes; call it before handing work to ``io``
        when nothing else may have happened on the array.
        """
        self._load.refresh(self.pool.growth_bytes_per_s)

    def pool_changed(self) -> None:
        """Called by the pool: sample it, and charge the copies that its growth costs."""
        self._series.add(self._env.now, Quantity.POOL_USED_BYTES, self.id, self.pool.used_bytes)
        self.refresh_load()

    def snapshot_invalidated(self, number: int) -> None:
        """Called by the pool: this snapshot was given up for its space."""
        held = self._held[number]
        held.valid = False
        self._forget(held)
        if self._plane is not None:
            self._plane.snapshot_deleted(self.id, number)
        self._tell(ArrayEvent.INVALIDATED, held.snapshot.ref.tag)

    def writes_failing_changed(self, failing: bool) -> None:
        """Called by the pool: guest writes fail from now on, or succeed again."""
        self._tell(ArrayEvent.WRITES_FAIL if failing else ArrayEvent.WRITES_RESUME, "")

    def _call(self, operation: str, tag: str, then: Callable[..., None], *args: Any) -> None:
        """Let ``then(noise, *args)`` run when the management channel has taken the call."""
        attempt = self._attempts.get((operation, tag), 0) + 1
        self._attempts[operation, tag] = attempt
        noise = self._draws.uniforms("array", self.id, operation, tag, attempt)
        profile = self.profile
        latency_s = lognormal(noise[0], profile.management_latency, profile.management_sigma)
        self.in_flight += 1
        self._channel.call(latency_s, then, noise, *args)

    def _reply(self, answer: asyncio.Future[T], outcome: T | DriverError) -> None:
        """End a call; nobody may be waiting for its answer any more."""
        self.in_flight -= 1
        settle(answer, outcome)

    def _silent(self, operation: str, answer: asyncio.Future[Any]) -> bool:
        """Whether a query stays without an answer: it fails now, or after a long silence."""
        silence_s = self._faults.silence_s(operation)
        if silence_s is None:
            return False
        self.in_flight -= 1
        self._env.after(silence_s, settle, answer, lost(operation, self.id))
        return True

    def _resolve(
        self,
        _: Uniforms,
        devices: tuple[DeviceIdentity, ...],
        answer: asyncio.Future[Mapping[DeviceIdentity, StorageUnit]],
    ) -> None:
        if self._silent("resolve", answer):
            return
        known = self._devices
        self._reply(answer, {device: known[device] for device in devices if device in known})

    def _list(self, _: Uniforms, prefix: str, answer: asyncio.Future[list[GroupSnapshot]]) -> None:
        if self._silent("list_snapshots", answer):
            return
        held = (held for held in self._held.values() if held.complete)
        found = [h.snapshot for h in held if h.snapshot.ref.tag.startswith(prefix)]
        self._reply(answer, found)

    def _accept_snapshot(
        self, noise: Uniforms, request: GroupSnapshotRequest, answer: asyncio.Future[GroupSnapshot]
    ) -> None:
        unit_ids = tuple(dict.fromkeys(request.unit_ids))
        held = self._by_tag.get(request.tag)
        if held is not None and not held.deleting and set(held.snapshot.unit_ids) == set(unit_ids):
            self._reply(answer, held.snapshot)
            return
        refusal = self._admission.refusal(request.tag, unit_ids)
        if refusal is not None:
            self._reply(answer, refusal)
            return
        self._number += 1
        operation = GroupOperation(request, unit_ids, self._number, noise, answer)
        self._running[request.tag] = operation
        self._fencing.update(unit_ids)
        profile = self.profile
        prepare_s = lognormal(noise[1], profile.snapshot_base, profile.snapshot_sigma)
        prepare_s *= self._slowed()
        prepare_s += self._faults.late_s(request.tag)
        self._env.after(prepare_s, self._fence, operation)

    def _fence(self, operation: GroupOperation) -> None:
        """Hold the writes of the group; decide at once how long that takes."""
        faults, tag = self._faults, operation.tag
        if not operation.answer.done() and faults.strikes(Site.LOST_ANSWER_GROUP, tag):
            settle(operation.answer, lost(SNAPSHOT, tag))
        profile, operation.fenced_s = self.profile, self._env.now
        self._tell(ArrayEvent.FENCED, operation.names)
        if self._plane is not None:
            self._plane.fence_begins(operation.unit_ids)
        jitter = lognormal(operation.noise[2], 1.0, profile.fence_sigma) * self._slowed()
        drain_s = profile.fence_base * jitter
        rest_s = profile.fence_per_unit * len(operation.unit_ids) * jitter
        limit_s = min(operation.request.fence_timeout_s, profile.fence_timeout_max)
        if drain_s + rest_s > limit_s or faults.strikes(Site.FENCE_TIMEOUT, tag):
            self._env.after(limit_s, self._abort, operation, limit_s)
        else:
            self._env.after(drain_s, self._cut, operation, rest_s)

    def _abort(self, operation: GroupOperation, limit_s: float) -> None:
        if self._plane is not None:
            self._plane.fence_ends(operation.unit_ids)
        self._tell(ArrayEvent.UNFENCED, operation.names)
        self._tell(ArrayEvent.ABORTED, operation.tag)
        reason = f"writes to the group were held for the limit of {format_seconds(limit_s)}"
        error = DidNotHappenError(SNAPSHOT, operation.tag, reason, "make smaller groups")
        self._finish(operation, error)

    def _cut(self, operation: GroupOperation, rest_s: float) -> None:
        now_s, number = self._env.now, operation.number
        unit_ids = self._faults.part_of(operation.tag, operation.unit_ids)
        self._tell(ArrayEvent.CUT, " ".join(unit_ids))
        ref = GroupSnapshotRef(self.id, f"{self.id}/group-snapshot-{number}", operation.tag)
        fence = Window(operation.fenced_s, now_s + rest_s)
        held = self._held[number] = Held(number, GroupSnapshot(ref, unit_ids, now_s, fence))
        if self._plane is not None:
            self._plane.cut(self.id, number, ref.snapshot_id, unit_ids)
        # Before the pool: a pool that is full already may give the new snapshot up at once.
        self.pool.cut(number, unit_ids)
        self._env.after(rest_s, self._unfence, operation, held)

    def _unfence(self, operation: GroupOperation, held: Held) -> None:
        if self._plane is not None:
            self._plane.fence_ends(operation.unit_ids)
        self._tell(ArrayEvent.UNFENCED, operation.names)
        profile = self.profile
        finish_s = profile.snapshot_per_unit * len(operation.unit_ids)
        finish_s *= lognormal(operation.noise[5], 1.0, profile.snapshot_sigma) * self._slowed()
        self._env.after(finish_s, self._complete, operation, held)

    def _slowed(self) -> float:
        """How many times its time a part of a group snapshot takes beside guests that write."""
        share, writers = self.profile.snapshot_per_writer, self._writers
        return 1.0 + share * writers.on_units(self._unit_ids) if share and writers else 1.0

    def _complete(self, operation: GroupOperation, held: Held) -> None:
        if not held.valid:
            reason = "the snapshot space ran out and the new snapshot was given up"
            self._finish(operation, PoolFullError(SNAPSHOT, operation.tag, reason))
            return
        held.complete = True
        self._by_tag[operation.tag] = held
        self._tell(ArrayEvent.COMPLETED, operation.tag)
        self._count()
        self._finish(operation, held.snapshot)

    def _finish(self, operation: GroupOperation, outcome: GroupSnapshot | DriverError) -> None:
        del self._running[operation.tag]
        self._fencing.difference_update(operation.unit_ids)
        self._reply(operation.answer, outcome)

    def _accept_delete(
        self, noise: Uniforms, ref: GroupSnapshotRef, answer: asyncio.Future[None]
    ) -> None:
        held = self._by_tag.get(ref.tag)
        if held is None or held.snapshot.ref != ref:
            self._reply(answer, gone(ref.tag))
            return
        refusal = self._admission.deletion_refusal(held)
        if refusal is not None:
            self._reply(answer, refusal)
            return
        held.deleting = True
        if self._faults.strikes(Site.LOST_ANSWER_DELETE, ref.tag):
            settle(answer, lost(DELETE, ref.tag))
        profile = self.profile
        delete_s = lognormal(noise[1], profile.delete_latency, profile.delete_sigma)
        self._env.after(delete_s, self._delete, held, answer)

    def _delete(self, held: Held, answer: asyncio.Future[None]) -> None:
        tag = held.snapshot.ref.tag
        if not held.valid:
            self._reply(answer, gone(tag))
            return
        self._forget(held)
        self.pool.drop(held.number)
        if self._plane is not None:
            self._plane.snapshot_deleted(self.id, held.number)
        self._tell(ArrayEvent.DELETED, tag)
        self._reply(answer, None)

    def _forget(self, held: Held) -> None:
        del self._held[held.number]
        if held.complete:
            del self._by_tag[held.snapshot.ref.tag]
            self._count()

    def _count(self) -> None:
        self._series.add(self._env.now, Quantity.ARRAY_SNAPSHOTS, self.id, float(len(self._by_tag)))

    def _tell(self, kind: str, detail: str) -> None:
        self._log.add(self._env.now, kind, "", self.id, detail)
