"""Whether an array takes a call: its limits, its space, and what it is doing already."""

from __future__ import annotations

from collections.abc import Collection

from ..drivers.errors import BusyError, DriverError, NeverWillError, PoolFullError
from ..drivers.records import ArrayId, UnitId
from ..quantity import format_bytes
from .array_calls import DELETE, SNAPSHOT, GroupOperation, Held
from .array_faults import ArrayFaults
from .array_profiles import ArrayProfile
from .pool import SnapshotPool


class Admission:
    """Decides over group snapshots and deletions of one array before any work is done.

    Parameters
    ----------
    array_id, profile, pool:
        The array, its numbers and its snapshot space.
    unit_ids:
        The units that lie on it.
    faults:
        What goes wrong with the array.

    Attributes
    ----------
    by_tag:
        Complete snapshots that are not deleted yet, by tag.
    running:
        Group snapshots on their way, by tag.
    fencing:
        Units that are part of one of those.
    """

    __slots__ = (
        "_array_id",
        "_faults",
        "_pool",
        "_profile",
        "_unit_ids",
        "by_tag",
        "fencing",
        "running",
    )

    def __init__(
        self,
        array_id: ArrayId,
        profile: ArrayProfile,
        pool: SnapshotPool,
        unit_ids: Collection[UnitId],
        faults: ArrayFaults,
    ) -> None:
        self._array_id = array_id
        self._profile = profile
        self._pool = pool
        self._unit_ids = unit_ids
        self._faults = faults
        self.by_tag: dict[str, Held] = {}
        self.running: dict[str, GroupOperation] = {}
        self.fencing: set[UnitId] = set()

    def refusal(self, tag: str, unit_ids: tuple[UnitId, ...]) -> DriverError | None:
        """Why a group snapshot of these units cannot start; None when it can."""
        profile, pool, array_id = self._profile, self._pool, self._array_id
        unknown = [unit_id for unit_id in unit_ids if unit_id not in self._unit_ids]
        if unknown or not unit_ids:
            reason = f"{array_id} has no unit {unknown[0]}" if unknown else "it names no unit"
            return NeverWillError(SNAPSHOT, tag, reason)
        if profile.units_per_group is not None and len(unit_ids) > profile.units_per_group:
            reason = (
                f"{len(unit_ids)} units, and {array_id} takes {profile.units_per_group} a group"
            )
            return NeverWillError(SNAPSHOT, tag, reason, "make smaller groups")
        held = self.by_tag.get(tag)
        if held is not None and not held.deleting:
            return NeverWillError(SNAPSHOT, tag, "a snapshot of other units has this tag")
        busy = self._why_busy(tag, unit_ids)
        if busy:
            return self.busy(SNAPSHOT, tag, busy)
        limit = profile.snapshots_per_unit
        if limit is not None:
            full = next((u for u in unit_ids if pool.snapshots_of(u) >= limit), None)
            if full is not None:
                reason = f"{full} carries {limit} snapshots, as many as it can"
                return NeverWillError(SNAPSHOT, tag, reason, "delete old snapshots")
        if pool.failing or pool.free_bytes < profile.pool_minimum_free * pool.capacity_bytes:
            reason = f"only {format_bytes(pool.free_bytes)} of snapshot space are free"
            return PoolFullError(SNAPSHOT, tag, reason, "delete old snapshots")
        return self._faults.refusal(tag, unit_ids)

    def deletion_refusal(self, held: Held) -> DriverError | None:
        """Why a snapshot that there is cannot be deleted now; None when it can."""
        tag = held.snapshot.ref.tag
        if held.deleting:
            return self.busy(DELETE, tag, "it is being deleted")
        return self._faults.deletion_refusal(tag)

    def busy(self, operation: str, tag: str, reason: str) -> BusyError:
        """The error of a call that may be repeated later."""
        return BusyError(operation, tag, reason, retry_after_s=self._profile.retry_after)

    def _why_busy(self, tag: str, unit_ids: tuple[UnitId, ...]) -> str:
        if tag in self.running or tag in self.by_tag:
            return "a snapshot with this tag is being made or deleted"
        fenced = next((unit_id for unit_id in unit_ids if unit_id in self.fencing), None)
        if fenced is not None:
            return f"{fenced} is part of a group snapshot that is running"
        if len(self.running) >= self._profile.group_operations:
            return f"{len(self.running)} group snapshots are running"
        return ""
