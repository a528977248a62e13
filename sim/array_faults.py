"""The faults of one modelled array, in the terms of its calls."""

from __future__ import annotations

from ..drivers.errors import BusyError, DriverError, NeverWillError, PoolFullError
from ..drivers.records import ArrayId, UnitId
from .array_calls import DELETE, SNAPSHOT
from .env import SimEnv
from .faults import Site
from .faultsites import FaultSites


class ArrayFaults:
    """What goes wrong with an array; every question has the answer "nothing" without sites.

    Parameters
    ----------
    array_id:
        The array.
    env:
        The world's clock.
    sites:
        Where faults happen; None when none can.
    retry_after_s:
        The estimate that a busy array gives.
    """

    __slots__ = ("_array_id", "_env", "_in_use_until_s", "_retry_after_s", "_sites")

    def __init__(
        self, array_id: ArrayId, env: SimEnv, sites: FaultSites | None, retry_after_s: float
    ) -> None:
        self._array_id = array_id
        self._env = env
        self._sites = None if sites is None else sites.if_any()
        self._retry_after_s = retry_after_s
        self._in_use_until_s: dict[str, float] = {}

    def strikes(self, site: Site, *key: str) -> bool:
        """Whether this fault happens to the array now."""
        return self._sites is not None and self._sites.strikes(site, self._array_id, *key)

    def silence_s(self, operation: str) -> float | None:
        """After how many seconds a query fails unanswered; None when it is answered."""
        sites, site = self._sites, Site.ARRAY_QUERY_LOST
        if sites is None or not sites.strikes(site, self._array_id, operation):
            return None
        hangs = sites.share(site, self._array_id, operation) < 0.5
        return sites.faults.silence if hangs else 0.0

    def late_s(self, tag: str) -> float:
        """How many seconds a group snapshot waits before its work begins."""
        sites = self._sites
        if sites is None or not sites.strikes(Site.LATE_GROUP, self._array_id, tag):
            return 0.0
        return sites.faults.late_group

    def part_of(self, tag: str, unit_ids: tuple[UnitId, ...]) -> tuple[UnitId, ...]:
        """The units that are really cut: all, unless the array breaks its promise."""
        sites, site = self._sites, Site.PARTIAL_GROUP
        if sites is None or len(unit_ids) < 2 or not sites.strikes(site, self._array_id, tag):
            return unit_ids
        place = int(sites.share(site, self._array_id, tag) * len(unit_ids))
        return unit_ids[:place] + unit_ids[place + 1 :]

    def refusal(self, tag: str, unit_ids: tuple[UnitId, ...]) -> DriverError | None:
        """Why a group snapshot is refused that the array could take."""
        if self._sites is None:
            return None
        if self.strikes(Site.ARRAY_BUSY, SNAPSHOT, tag):
            return self._busy(SNAPSHOT, tag, "the array is busy")
        if self.strikes(Site.SNAPSHOT_LIMIT, tag):
            reason = f"{unit_ids[0]} carries as many snapshots as it can"
            return NeverWillError(SNAPSHOT, tag, reason, "delete old snapshots")
        if self.strikes(Site.POOL_FULL, tag):
            return PoolFullError(SNAPSHOT, tag, "no snapshot space is free", "delete old snapshots")
        return None

    def deletion_refusal(self, tag: str) -> DriverError | None:
        """Why a deletion is refused that the array could do."""
        sites = self._sites
        if sites is None:
            return None
        if self.strikes(Site.ARRAY_BUSY, DELETE, tag):
            return self._busy(DELETE, tag, "the array is busy")
        now_s = self._env.now
        until_s = self._in_use_until_s.get(tag, now_s)
        if until_s <= now_s and self.strikes(Site.DELETE_REFUSED, tag):
            until_s = self._in_use_until_s[tag] = now_s + sites.faults.in_use
        return self._busy(DELETE, tag, "it is in use") if now_s < until_s else None

    def _busy(self, operation: str, tag: str, reason: str) -> BusyError:
        return BusyError(operation, tag, reason, retry_after_s=self._retry_after_s)


def array_faults(
    array_id: ArrayId, env: SimEnv, given: FaultSites | ArrayFaults | None, retry_after_s: float
) -> ArrayFaults:
    """The faults of an array: as given, or those that the sites of its world let happen."""
    if isinstance(given, ArrayFaults):
        return given
    return ArrayFaults(array_id, env, given, retry_after_s)
