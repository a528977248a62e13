"""What guests and copy-on-write take of an array's bandwidth before merges get any."""

from __future__ import annotations

from collections.abc import Iterable

from ..drivers.contracts import SnapshotMethod
from ..drivers.records import ArrayId, UnitId
from .array_profiles import ArrayProfile
from .env import SimEnv
from .fluid import FluidServer
from .load import OverwriteModel
from .series import Quantity, Series

COPY_BYTES_PER_KEPT_BYTE = 2.0
"""A first overwrite on copy-on-write reads the old extent and writes it elsewhere before the new
data is written: three I/Os instead of one (dcig.com 2011/03, storageswiss.com 2016/04). The third
is the guest's own write and is counted as such."""


class ArrayLoad:
    """Keeps the background of an array's bandwidth up to date, and samples it.

    The background is the guests' mean write rate over the coming load interval and, on
    copy-on-write, the copies; redirect-on-write leaves old data where it is.
    """

    def __init__(
        self,
        env: SimEnv,
        array_id: ArrayId,
        profile: ArrayProfile,
        unit_ids: Iterable[UnitId],
        overwritten: OverwriteModel,
        series: Series,
        io: FluidServer,
    ) -> None:
        self._env = env
        self._array_id = array_id
        self._interval_s = profile.load_interval
        self._copies = profile.method is SnapshotMethod.COPY_ON_WRITE
        self._unit_ids = tuple(unit_ids)
        self._overwritten = overwritten
        self._series = series
        self._io = io
        self._guests_bytes_per_s = 0.0
        self._until_s = -1.0

    def refresh(self, growth_bytes_per_s: float) -> None:
        """Set the background for a pool that grows at this rate."""
        now_s = self._env.now
        if now_s >= self._until_s:
            self._until_s = until_s = now_s + self._interval_s
            rate = self._overwritten.write_rate_bytes_per_s
            self._guests_bytes_per_s = sum(rate(unit, now_s, until_s) for unit in self._unit_ids)
        copy = COPY_BYTES_PER_KEPT_BYTE * growth_bytes_per_s if self._copies else 0.0
        background = self._guests_bytes_per_s + copy
        if background != self._io.background_bytes_per_s:
            self._io.set_background(background)
            add = self._series.add
            add(now_s, Quantity.ARRAY_BACKGROUND_BYTES_PER_S, self._array_id, background)
            add(now_s, Quantity.ARRAY_COPY_BYTES_PER_S, self._array_id, copy)
