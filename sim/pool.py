"""Snapshot space of an array: what its snapshots hold, how it grows, and what happens when it ends.

A unit's snapshots cut its history into intervals. Each interval keeps the extents that guests
overwrote in it, once each; the space of the unit is the sum over its intervals. Deleting a snapshot
joins the two intervals beside it, and what both of them kept is then kept once: the union, not the
sum. Deleting the oldest frees its interval whole. This holds for redirect-on-write and for
copy-on-write alike; they differ in who moves the data, not in how much of it there is.

Between two looks at a unit its space grows linearly to what :class:`OverwriteModel` expects at the
second. So the level of the pool is piecewise linear, known ahead without stepping, and the moment
at which it reaches the end is computed, not found by sampling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from ..drivers.records import StorageUnit, UnitId
from .array_profiles import ArrayProfile, PoolFullPolicy
from .env import SimEnv
from .load import OverwriteModel
from .timers import Alarm

_RESOLUTION_S = 1e-6
"""Computed moments are met this closely: the clock itself rounds, the more the later it is."""


class PoolListener(Protocol):
    """Whoever has to know what becomes of the pool."""

    def pool_changed(self) -> None:
        """Level or growth changed other than by the growth announced last."""
        ...

    def snapshot_invalidated(self, number: int) -> None:
        """The pool gave this snapshot up; its space is free already."""
        ...

    def writes_failing_changed(self, failing: bool) -> None:
        """Guest writes that need space fail from now on, or succeed again."""
        ...


class _UnitSpace:
    """The intervals of one unit; ``closed[i]`` is kept between the cuts ``i`` and ``i + 1``."""

    __slots__ = (
        "capacity",
        "closed",
        "cuts",
        "id",
        "kept",
        "looked_s",
        "next_s",
        "sampler",
        "slope",
    )

    def __init__(self, unit: StorageUnit) -> None:
        self.id = unit.id
        self.capacity = float(unit.capacity_bytes)
        self.cuts: list[tuple[float, int]] = []
        self.closed: list[float] = []
        self.kept = 0.0
        """Bytes kept at ``looked_s`` by the interval since the newest cut."""
        self.slope = 0.0
        self.looked_s = 0.0
        self.next_s = 0.0
        self.sampler = -1

    def kept_at(self, now_s: float) -> float:
        return self.kept + self.slope * (now_s - self.looked_s)


class SnapshotPool:
    """The space that the snapshots of one array share.

    Parameters
    ----------
    env:
        The world's clock and queue of events.
    capacity_bytes:
        Size of the pool, greater than 0.
    profile:
        Extent size, policy, reclaim rate and the rhythm of looking.
    units:
        The units that can have snapshots.
    overwritten:
        What guests write.
    listener:
        Told of every change.
    """

    def __init__(
        self,
        env: SimEnv,
        capacity_bytes: float,
        profile: ArrayProfile,
        units: Iterable[StorageUnit],
        overwritten: OverwriteModel,
        listener: PoolListener,
    ) -> None:
        self.capacity_bytes = float(capacity_bytes)
        self._env = env
        self._profile = profile
        self._units = {unit.id: _UnitSpace(unit) for unit in units}
        self._overwritten = overwritten
        self._listener = listener
        self._members: dict[int, tuple[UnitId, ...]] = {}
        self._live = 0.0
        self._slope = 0.0
        self._reclaiming = 0.0
        self._settled_s: float = env.now
        self._failing = False
        self._reserved = 0.0
        self._alarm: Alarm | None = None

    @property
    def used_bytes(self) -> float:
        """What is taken now, space of deleted snapshots that is not reclaimed yet included."""
        self._settle()
        return min(self.capacity_bytes, max(0.0, self._live + self._reclaiming + self._reserved))

    def reserve(self, reserved_bytes: float) -> None:
        """From now on so much of the space is somebody else's; 0 gives it back."""
        self._settle()
        self._reserved = reserved_bytes
        self._announce()

    @property
    def free_bytes(self) -> float:
        """What is left now."""
        return self.capacity_bytes - self.used_bytes

    @property
    def growth_bytes_per_s(self) -> float:
        """Old data that has to be kept per second now: extents overwritten for the first time."""
        return 0.0 if self._failing else max(0.0, self._slope)

    @property
    def failing(self) -> bool:
        """Whether guest writes fail for want of space."""
        return self._failing

    @property
    def snapshots(self) -> int:
        """Group snapshots that hold space."""
        return len(self._members)

    def snapshots_of(self, unit_id: UnitId) -> int:
        """Snapshots that a unit carries."""
        return len(self._units[unit_id].cuts)

    def cut(self, number: int, unit_ids: tuple[UnitId, ...]) -> None:
        """Snapshot these units at this instant, as snapshot ``number`` (greater than all before).

        Costs one or two questions to the overwrite model per unit, and one more at each look.
        """
        self._settle()
        now_s = self._env.now
        self._members[number] = unit_ids
        step_s = self._profile.sample_first
        for unit_id in unit_ids:
            space = self._units[unit_id]
            if space.cuts:
                kept = self._between(space, space.cuts[-1][0], now_s)
                self._live += kept - space.kept_at(now_s)
                space.closed.append(kept)
            space.cuts.append((now_s, number))
            space.sampler = number
            self._restart(space, 0.0, step_s)
        self._env.after(step_s, self._look, number, unit_ids, now_s, step_s)
        self._announce()

    def drop(self, number: int) -> None:
        """Delete a snapshot; what only it kept becomes free at the profile's reclaim rate.

        Raises
        ------
        KeyError
            There is no snapshot of this number.
        """
        self._settle()
        self._reclaiming += self._remove(number)
        self._announce()

    def _remove(self, number: int) -> float:
        freed = 0.0
        for unit_id in self._members.pop(number):
            freed += self._join(self._units[unit_id], number)
        self._live -= freed
        if not self._members:
            # Sums of differences leave dust behind; an empty pool is empty.
            self._live = self._slope = 0.0
        return freed

    def _join(self, space: _UnitSpace, number: int) -> float:
        """Take a cut out of a unit, join the intervals beside it, and say what that frees."""
        now_s = self._env.now
        at = next(i for i, cut in enumerate(space.cuts) if cut[1] == number)
        newest = at == len(space.cuts) - 1
        after = space.kept_at(now_s) if newest else space.closed[at]
        del space.cuts[at]
        if at == 0:
            if newest:
                self._restart(space, 0.0, 0.0)
            else:
                del space.closed[0]
            return after
        before = space.closed[at - 1]
        end_s = now_s if newest else space.cuts[at][0]
        union = self._between(space, space.cuts[at - 1][0], end_s)
        # The answers of a model come from tables; a union is no smaller than its parts.
        union = min(max(union, before, after), before + after)
        if newest:
            del space.closed[at - 1]
            self._restart(space, union, max(0.0, space.next_s - now_s))
        else:
            space.closed[at - 1 : at + 1] = [union]
        return before + after - union

    def _look(self, sampler: int, ids: tuple[UnitId, ...], cut_s: float, step_s: float) -> None:
        """Look again at those units whose newest cut is still the one that this rhythm is of."""
        spaces = [self._units[unit_id] for unit_id in ids]
        spaces = [space for space in spaces if space.cuts and space.sampler == sampler]
        if not spaces:
            return
        self._settle()
        now_s = self._env.now
        profile = self._profile
        age_s = now_s - cut_s
        longest_s = max(profile.sample_interval, age_s / 8, step_s)
        step_s = min(step_s * profile.sample_factor, longest_s)
        over = age_s >= profile.sample_horizon
        for space in spaces:
            self._restart(space, space.kept_at(now_s), 0.0 if over else step_s)
        if not over:
            self._env.after(step_s, self._look, sampler, ids, cut_s, step_s)
        self._announce()

    def _restart(self, space: _UnitSpace, kept: float, step_s: float) -> None:
        """Let the open interval grow from ``kept`` to what is expected of it in ``step_s``."""
        now_s = self._env.now
        slope = 0.0
        if space.cuts and step_s > 0:
            expected = self._between(space, space.cuts[-1][0], now_s + step_s)
            slope = max(0.0, expected - kept) / step_s
        self._slope += slope - space.slope
        space.kept, space.slope = kept, slope
        space.looked_s, space.next_s = now_s, now_s + step_s

    def _between(self, space: _UnitSpace, since_s: float, now_s: float) -> float:
        extent = self._profile.snapshot_extent
        overwritten = self._overwritten.overwritten_bytes(space.id, since_s, now_s, extent)
        return min(max(0.0, overwritten), space.capacity)

    def _settle(self) -> None:
        """Bring the level up to now; growth was constant since the last time."""
        now_s = self._env.now
        passed_s = now_s - self._settled_s
        if passed_s > 0:
            self._live += max(0.0, self._slope) * passed_s
            reclaim = self._profile.reclaim_bandwidth
            left = self._reclaiming - reclaim * passed_s
            self._reclaiming = left if left > reclaim * _RESOLUTION_S else 0.0
            self._settled_s = now_s

    def _announce(self) -> None:
        self._police()
        self._watch()
        self._listener.pool_changed()

    def _police(self) -> None:
        """Apply the policy when the pool is full; lift it when it no longer is."""
        full = self._is_full()
        if self._profile.on_pool_full is PoolFullPolicy.FAIL_WRITES:
            # Writes that failed are repeated by the guests: what they would have taken still
            # counts, so that space which is freed is not free until it covers them too.
            if full is not self._failing:
                self._failing = full
                self._listener.writes_failing_changed(full)
            return
        if full and self._members:
            self._listener.pool_changed()  # the level that the oldest had to go for
        while full and self._members:
            oldest = min(self._members)
            self._remove(oldest)
            self._listener.snapshot_invalidated(oldest)
            full = self._is_full()

    def _is_full(self) -> bool:
        # A write that has to keep an old extent needs room for all of it.
        free = self.capacity_bytes - self._live - self._reclaiming - self._reserved
        return free < self._profile.snapshot_extent

    def _watch(self) -> None:
        """Set the alarm for the next moment at which something changes by itself."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        delay_s = self._next_change_s()
        if math.isfinite(delay_s):
            # Never at this same instant again: the clock has to move for the level to move.
            self._alarm = self._env.after(max(delay_s, _RESOLUTION_S), self._on_alarm)

    def _next_change_s(self) -> float:
        """Seconds until reclaiming ends, or until the level reaches or leaves the end."""
        growth = max(0.0, self._slope)
        reclaim = self._profile.reclaim_bandwidth
        free = self.capacity_bytes - self._live - self._reclaiming - self._reserved
        reclaimed_s = self._reclaiming / reclaim if self._reclaiming > 0 else math.inf
        net = growth - reclaim if self._reclaiming > 0 else growth
        if net == 0:
            return reclaimed_s
        # On the way out a little past the mark, so that the alarm finds the pool not full.
        reach_s = free / net if net > 0 else (free - 1.5 * self._profile.snapshot_extent) / net
        if self._failing is (net > 0) or reach_s < 0:
            return reclaimed_s
        return min(reach_s, reclaimed_s)

    def _on_alarm(self) -> None:
        self._alarm = None
        self._settle()
        self._announce()
