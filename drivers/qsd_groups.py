"""Group snapshots of a qemu-storage-daemon array: made in one transaction, deleted by merging."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..quantity import format_bytes
from .contracts import GroupSnapshot, GroupSnapshotRef, GroupSnapshotRequest, Window
from .errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    UnknownOutcomeError,
)
from .qsd_daemon import MERGE_JOB, Daemon, being_made, not_ours
from .qsd_graph import Graph
from .qsd_monitor import RefusedError
from .qsd_pool import GroupRecord, Stage, node_name
from .records import UnitId

SNAPSHOT = "snapshot_group"
LIST = "list_snapshots"
DELETE = "delete_snapshot"
MOST_SNAPSHOTS = 100
"""Of one unit; a read of what was never written since goes down the whole chain."""


class Groups:
    """The group snapshots of one array.

    Parameters
    ----------
    least_free_bytes:
        What has to be free in the pool before a group is made.
    """

    def __init__(self, daemon: Daemon, least_free_bytes: float) -> None:
        self._daemon = daemon
        self._least_free_bytes = least_free_bytes
        self._making: set[str] = set()
        self._made: dict[int, GroupSnapshot] = {}

    async def make(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        """See :meth:`QsdDriver.snapshot_group`."""
        tag = request.tag
        if tag in self._making:
            raise being_made(SNAPSHOT, tag)
        self._making.add(tag)
        try:
            async with self._daemon.alone(SNAPSHOT, tag, tag):
                return await self._make_alone(request)
        finally:
            self._making.discard(tag)

    async def _make_alone(self, request: GroupSnapshotRequest) -> GroupSnapshot:
        daemon, tag = self._daemon, request.tag
        unit_ids = tuple(dict.fromkeys(request.unit_ids))
        graph = await daemon.graph(SNAPSHOT)
        known = daemon.pool.record(tag)
        if known is not None:
            return self._known(graph, known, unit_ids)
        units = self._admitted(graph, tag, unit_ids)
        await self._check_space(tag)
        number = await asyncio.to_thread(daemon.pool.next_number)
        record = GroupRecord(tag, number, units, Stage.MAKING)
        if not daemon.pool.can_name(units, record):
            reason = f"the tag is too long for the name of a file ({len(tag)} characters)"
            raise NeverWillError(SNAPSHOT, tag, reason)
        await daemon.keep(record)
        try:
            await self._prepare(graph, record)
            await asyncio.to_thread(daemon.pool.sync)
            fence = await self._cut(graph, record)
        except (RefusedError, OSError):
            await daemon.give_up(SNAPSHOT, record)
            raise
        try:
            await daemon.keep(record.at(Stage.MADE))
        except OSError as error:
            reason = f"it is made, but that cannot be written down: {error.strerror}"
            raise HappenedError(SNAPSHOT, tag, reason) from error
        middle_s = (fence.start_s + fence.end_s) / 2
        snapshot = GroupSnapshot(self._ref(record), unit_ids, middle_s, fence)
        self._made[number] = snapshot
        return snapshot

    def _known(
        self, graph: Graph, record: GroupRecord, unit_ids: tuple[UnitId, ...]
    ) -> GroupSnapshot:
        held = self.described(record)
        if set(held.unit_ids) != set(unit_ids):
            reason = f"the tag belongs to a snapshot of {', '.join(held.unit_ids)}"
            raise NeverWillError(SNAPSHOT, record.tag, reason)
        if not self._daemon.complete(graph, record):
            reason = "it was made, but the daemon does not have all of it open"
            raise NeverWillError(SNAPSHOT, record.tag, reason, "start the daemon on the whole pool")
        return held

    def _admitted(self, graph: Graph, tag: str, unit_ids: tuple[UnitId, ...]) -> tuple[str, ...]:
        if not unit_ids:
            raise NeverWillError(SNAPSHOT, tag, "a group needs at least one unit")
        names = set(self._daemon.units(graph))
        for unit_id in unit_ids:
            name = self._daemon.unit_name(unit_id)
            if name not in names:
                raise not_ours(SNAPSHOT, unit_id, self._daemon.array_id)
            if len(graph.exports[name].images) > MOST_SNAPSHOTS:
                reason = f"{unit_id} has {MOST_SNAPSHOTS} snapshots"
                raise NeverWillError(SNAPSHOT, tag, reason, "delete some of them")
        return tuple(map(self._daemon.unit_name, unit_ids))

    async def _check_space(self, tag: str) -> None:
        free = await asyncio.to_thread(self._daemon.pool.free_bytes)
        least = self._least_free_bytes
        if free < least:
            reason = f"{format_bytes(free)} are free in the pool, {format_bytes(least)} are needed"
            raise PoolFullError(SNAPSHOT, tag, reason, "delete snapshots, or enlarge the pool")

    async def _prepare(self, graph: Graph, record: GroupRecord) -> None:
        """Make the overlays, which takes most of the time, while nobody is held."""
        made = await asyncio.gather(
            *(self._prepare_one(graph, record, unit) for unit in record.units),
            return_exceptions=True,
        )
        for outcome in made:
            if isinstance(outcome, UnknownOutcomeError):  # of an overlay; the cut is still to come
                raise DidNotHappenError(SNAPSHOT, record.tag, outcome.reason) from outcome
            if outcome is not None:
                raise outcome

    async def _prepare_one(self, graph: Graph, record: GroupRecord, unit: str) -> None:
        chain, overlay = graph.exports[unit], self._daemon.pool.overlay(unit, record)
        await self._daemon.make_image(
            SNAPSHOT, overlay, chain.images[0], chain.capacity_bytes, backing=None
        )

    async def _cut(self, graph: Graph, record: GroupRecord) -> Window:
        """One transaction: the daemon stops all writes, puts the overlays on top, and goes on."""
        actions = [
            {
                "type": "blockdev-snapshot",
                "data": {
                    "node": graph.exports[unit].node,
                    "overlay": node_name(self._daemon.pool.overlay(unit, record)),
                },
            }
            for unit in record.units
        ]
        clock = asyncio.get_running_loop().time
        sent_s = clock()
        await self._daemon.monitor.change(SNAPSHOT, "transaction", {"actions": actions})
        return Window(sent_s, clock(), exact=False)

    async def listed(self, tag_prefix: str) -> list[GroupSnapshot]:
        """Those that stand in the chains of all their units, oldest first."""
        records = self._records(tag_prefix)
        if any(record.stage is Stage.MAKING for record in records):
            # It is being made, and is waited for; or its maker has ended, and it is decided now.
            # What is told once stays true: what is not there will not come, and what is there
            # survives the daemon.
            async with self._daemon.alone(LIST, tag_prefix):
                records = self._records(tag_prefix)
        graph = await self._daemon.graph(LIST)
        return [self.described(one) for one in records if self._daemon.complete(graph, one)]

    def _records(self, tag_prefix: str) -> list[GroupRecord]:
        return [
            record
            for record in self._daemon.pool.records()
            if record.stage is not Stage.DELETED and record.tag.startswith(tag_prefix)
        ]

    def described(self, record: GroupRecord) -> GroupSnapshot:
        """The answer for a group that exists; when it was cut is known to its maker only."""
        units = tuple(map(self._daemon.unit_id, record.units))
        return self._made.get(record.number) or GroupSnapshot(self._ref(record), units)

    def _ref(self, record: GroupRecord) -> GroupSnapshotRef:
        array_id = self._daemon.array_id
        return GroupSnapshotRef(array_id, f"{array_id}/group-{record.number}", record.tag)

    def found(self, operation: str, ref: GroupSnapshotRef) -> GroupRecord:
        """The record behind a handle; call it with the pool locked.

        Raises
        ------
        NotFoundError
            There is none (any more).
        """
        record = self._daemon.pool.record(ref.tag)
        if record is None or self._ref(record) != ref:
            raise NotFoundError(operation, ref.tag, "there is no such snapshot")
        return record

    def image(self, operation: str, graph: Graph, record: GroupRecord, unit_id: UnitId) -> Path:
        """The image that shows a unit as a group holds it.

        Raises
        ------
        NotFoundError
            The unit is not in the group.
        """
        unit = self._daemon.unit_name(unit_id)
        if unit not in record.units or not self._daemon.complete(graph, record):
            raise NotFoundError(operation, record.tag, f"it holds no unit {unit_id}")
        return graph.exports[unit].under(self._daemon.pool.overlay(unit, record))

    async def delete(self, ref: GroupSnapshotRef) -> None:
        """See :meth:`QsdDriver.delete_snapshot`."""
        daemon = self._daemon
        async with daemon.alone(DELETE, ref.tag):
            record = self.found(DELETE, ref)
            graph = await daemon.graph(DELETE)
            images = {self.image(DELETE, graph, record, daemon.unit_id(u)) for u in record.units}
            for chain in graph.exports.values():
                if daemon.is_clone(chain) and chain.images[1] in images:
                    reason = f"clone {daemon.clone_name(chain)} lies on it"
                    raise BusyError(DELETE, ref.tag, reason, "discard the clone")
            await daemon.keep(record.at(Stage.DELETED))
            self._made.pop(record.number, None)
            await self.reclaim(DELETE, ref.tag)

    async def reclaim(self, operation: str, subject: str) -> None:
        """Free the space of deleted groups as far as that is possible; with the pool locked.

        Raises
        ------
        HappenedError
            Something went wrong on the way; the next call goes on from there.
        """
        try:
            for record in self._daemon.pool.records():
                if record.stage is Stage.DELETED:
                    freed = [await self._free(operation, record, unit) for unit in record.units]
                    if all(freed):
                        self._daemon.pool.forget(record)
        except (RefusedError, OSError, DriverError) as error:
            said = error.reason if isinstance(error, DriverError) else str(error)
            reason = f"done, but the space of deleted snapshots is not free yet: {said}"
            raise HappenedError(operation, subject, reason) from error

    async def _free(self, operation: str, record: GroupRecord, unit: str) -> bool:
        """Merge one overlay into the image under it; False when that has to wait."""
        daemon = self._daemon
        overlay = daemon.pool.overlay(unit, record)
        if not overlay.exists():
            return True
        graph = await daemon.graph(operation)
        chain = graph.exports.get(unit)
        if chain is None:
            return False
        if overlay == chain.images[0]:
            return False  # it takes the unit's writes; an export forbids merging that one
        clones = [one for one in graph.exports.values() if daemon.is_clone(one)]
        if any(overlay in clone.images for clone in clones):
            return False
        if overlay in chain.images:
            job = MERGE_JOB + node_name(overlay)
            options = {
                "job-id": job,
                "device": chain.node,
                "top-node": graph.nodes[overlay],
                "base-node": graph.nodes[chain.under(overlay)],
                "auto-dismiss": False,
            }
            await daemon.monitor.run_job(operation, job, "block-commit", options)
        # The image under it was flushed when the job ended, so nothing needs the overlay any more.
        if not await daemon.close_image(operation, overlay):
            return False
        await asyncio.to_thread(overlay.unlink)
        return True
