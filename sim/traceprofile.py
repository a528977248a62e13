"""A write profile tabulated from a block trace, and its fast look-up.

The trace is taken as a cycle of ``period_s``, so every phase begins a window of any length up to
the period: D(φ, t) is the number of distinct units written in [φ, φ + t), wrapping at the end,
times the size of a unit. It is tabulated exactly at equally spaced phases and at durations of
whole phase steps that grow by about a constant factor (``calibrate.py`` builds the tables).

Between the tabulated points:

* **phase**: the nearest tabulated one. Averaging two neighbours would turn the edge of a burst,
  where D jumps by hundreds of megabytes, into a ramp that no guest ever showed; every answer is
  one that the trace gives at some moment at most half a step away.
* **duration**: what a window gains between two tabulated durations a and b are units that had
  not been touched for at least a. The profile knows how many such touches fall into each phase
  step, and lets the gain appear in proportion to them. In proportion to time, or to all bytes
  written, a burst near the window's end would leak into it.
* **beyond the period** a trace cannot know whether the next cycle writes to new places. Averaged
  over phases D(t) = Σ min(gap, t) / period, with a gap for every touch of a unit back to the one
  before it; of units written at only one moment it is known only that the gap is at least one
  period. Taking it as infinite continues D along its last slope; taking it as one period holds D
  flat. D is concave, so these are the bounds; the profile uses the upper one, the cautious one
  for space and merge time. :meth:`TraceProfile.extrapolates` tells.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import StillframeError
from .writeprofile import DELTA_GRAIN_BYTES, FloatArray, require_duration

SUMMARY_DURATIONS_S = (1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)


@dataclass(frozen=True)
class TraceTotals:
    """Counts over the whole trace, for checking a profile against its source."""

    records: int
    reads: int
    writes: int
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True)
class SummaryRow:
    """The distribution of D over all phases, for one duration and granularity; sizes in bytes."""

    duration_s: float
    granularity_bytes: int
    mean_bytes: float
    sd_bytes: float
    p50_bytes: float
    p95_bytes: float
    p99_bytes: float
    max_bytes: float


@dataclass(frozen=True)
class UnitCounts:
    """What a trace does to units of one size; phases in rows where both have them.

    Parameters
    ----------
    distinct:
        Distinct units in the window of each phase and duration, uint32, shape (phases,
        durations).
    touches:
        Touches in each phase step, sorted by the gap back to the touch of the same unit before
        (around the cycle): uint32, shape (durations + 1, phases). Row 0 holds gaps below the
        first duration, the last row gaps of a whole period: units touched at only one moment.
    """

    distinct: NDArray[np.uint32]
    touches: NDArray[np.uint32]


class _Table:
    """One granularity, laid out for look-up: plain arrays answer faster than NumPy's one by one."""

    __slots__ = (
        "counts",
        "fresh",
        "fresh_row",
        "fresh_view",
        "tail_bytes_per_s",
        "total_bytes",
        "unit_bytes",
        "view",
    )

    def __init__(self, unit_bytes: int, given: UnitCounts, period_s: float) -> None:
        phases, durations = given.distinct.shape
        padded = np.zeros((phases, durations + 1), dtype=np.uint32)
        padded[:, 1:] = given.distinct
        self.unit_bytes = float(unit_bytes)
        self.counts: array[int] = array("I", padded.tobytes())
        self.view: NDArray[np.uint32] = np.frombuffer(self.counts, dtype=np.uint32)
        # Per duration the touches with at least that gap, summed up over two cycles, so that no
        # window has to wrap.
        by_gap = np.cumsum(given.touches[::-1], axis=0, dtype=np.uint32)[::-1]
        self.fresh_row: int = 2 * phases + 1
        sums = np.zeros((durations + 1, self.fresh_row), dtype=np.uint32)
        np.cumsum(np.tile(by_gap, 2), axis=1, out=sums[:, 1:])
        self.fresh: array[int] = array("I", sums.tobytes())
        self.fresh_view: NDArray[np.uint32] = np.frombuffer(self.fresh, dtype=np.uint32)
        self.fresh_view = self.fresh_view.reshape(sums.shape)
        self.total_bytes = float(given.distinct[0, -1]) * unit_bytes
        self.tail_bytes_per_s = float(given.touches[-1].sum()) * unit_bytes / period_s


class TraceProfile:
    """D(phase, duration) tabulated from a trace; a :class:`~.writeprofile.WriteProfile`.

    Parameters
    ----------
    name, source:
        What users call it, and where the trace came from.
    period_s:
        The length of the cycle.
    duration_steps:
        The tabulated durations in phase steps, rising; the last one is the number of phases.
    units:
        The tables per granularity in bytes.
    step_bytes:
        Bytes written in each of the phase steps, shape (phases,).
    totals:
        Counts over the trace.

    Attributes
    ----------
    granularities_bytes:
        The tabulated unit sizes, rising.

    Raises
    ------
    StillframeError
        Shapes disagree, durations do not rise to the period, or a table falls with duration.
    """

    def __init__(
        self,
        name: str,
        source: str,
        period_s: float,
        duration_steps: Sequence[int],
        units: Mapping[int, UnitCounts],
        step_bytes: NDArray[np.uint64],
        totals: TraceTotals,
    ) -> None:
        self.name = name
        self.source = source
        self.period_s = period_s
        self.totals = totals
        self.duration_steps = tuple(duration_steps)
        self.step_bytes = step_bytes
        self.units = dict(units)
        self.granularities_bytes = tuple(sorted(units))
        self._phases = len(step_bytes)
        self._check()
        self._steps_per_s = self._phases / period_s
        self._grid = (0, *self.duration_steps)
        sums = np.zeros(2 * self._phases + 1, dtype=np.float64)
        np.cumsum(np.tile(step_bytes.astype(np.float64), 2), out=sums[1:])
        self._written: array[float] = array("d", sums.tobytes())
        # Made when first asked for: a run needs two or three of the granularities.
        self._tables: dict[int, _Table] = {}

    def _check(self) -> None:
        def refuse(problem: str) -> None:
            raise StillframeError(f"write profile {self.name!r} is inconsistent: {problem}")

        if not 0.0 < self.period_s < math.inf:
            refuse(f"its period is {self.period_s!r} s")
        grid = (0, *self.duration_steps)
        if any(not shorter < longer for shorter, longer in pairwise(grid)):
            refuse("its durations do not rise")
        if not self._phases or grid[-1] != self._phases:
            refuse(f"its last duration is {grid[-1]} of {self._phases} steps, not the period")
        if not self.units:
            refuse("it has no table")
        for unit, given in self.units.items():
            self._check_table(refuse, unit, given)

    def _check_table(self, refuse: Callable[[str], None], unit: int, given: UnitCounts) -> None:
        distinct, touches = given.distinct, given.touches
        durations = len(self.duration_steps)
        if distinct.dtype != np.uint32 or distinct.shape != (self._phases, durations):
            refuse(f"the table at {unit} bytes is {distinct.dtype} of shape {distinct.shape}")
        if touches.dtype != np.uint32 or touches.shape != (durations + 1, self._phases):
            refuse(f"the touches at {unit} bytes are {touches.dtype} of shape {touches.shape}")
        if (distinct[:, 1:] < distinct[:, :-1]).any():
            refuse(f"the table at {unit} bytes falls with duration")
        if (distinct[:, -1] != distinct[0, -1]).any():
            refuse(f"the table at {unit} bytes depends on the phase over a whole period")
        if touches.sum(dtype=np.uint64) >= 2**31:
            refuse(f"the touches at {unit} bytes are more than 31 bits can count")

    @property
    def phases(self) -> int:
        """The number of tabulated phases."""
        return self._phases

    @property
    def phase_step_s(self) -> float:
        """The distance of two tabulated phases."""
        return self.period_s / self._phases

    @property
    def phases_s(self) -> FloatArray:
        """The tabulated phases, from 0 on."""
        step_s = np.float64(self.phase_step_s)
        return np.arange(self._phases, dtype=np.float64) * step_s

    @property
    def durations_s(self) -> tuple[float, ...]:
        """The tabulated durations, rising; the last one is the period."""
        return tuple(steps * self.phase_step_s for steps in self.duration_steps)

    @property
    def rate_bytes_per_s(self) -> float:
        """The mean write rate of the trace, repeated bytes included."""
        return self.totals.written_bytes / self.period_s

    def distinct_bytes(self, granularity_bytes: int = DELTA_GRAIN_BYTES) -> float:
        """Bytes in the distinct units written over the whole cycle."""
        return self._table(granularity_bytes).total_bytes

    def granularity_at_least(self, size_bytes: int) -> int:
        """The smallest tabulated granularity that is not below ``size_bytes``.

        Larger units never hold fewer bytes, so this is the cautious choice for a size between.

        Raises
        ------
        StillframeError
            All of them are smaller.
        """
        for unit in self.granularities_bytes:
            if unit >= size_bytes:
                return unit
        raise self._unknown(size_bytes)

    def extrapolates(self, duration_s: float) -> bool:
        """Whether an answer for this duration lies beyond what the trace shows."""
        return duration_s > self.period_s

    def delta_bytes(
        self, phase_s: float, duration_s: float, granularity_bytes: int = DELTA_GRAIN_BYTES
    ) -> float:
        """See :meth:`~.writeprofile.WriteProfile.delta_bytes`."""
        table = self._tables.get(granularity_bytes)
        if table is None:
            table = self._table(granularity_bytes)
        phases = self._phases
        steps_per_s = self._steps_per_s
        steps = duration_s * steps_per_s
        if not 0.0 < steps < phases:
            require_duration(duration_s)
            if steps == 0.0:
                return 0.0
            return table.total_bytes + table.tail_bytes_per_s * max(0.0, duration_s - self.period_s)
        row = math.floor(phase_s * steps_per_s + 0.5) % phases
        grid = self._grid
        left = bisect_right(grid, steps) - 1
        at = row * len(grid) + left
        lower = table.counts[at]
        upper = table.counts[at + 1]
        if lower == upper:
            return lower * table.unit_bytes
        fresh = table.fresh
        first = left * table.fresh_row + row
        start = fresh[first + grid[left]]
        span = fresh[first + grid[left + 1]] - start
        if span:
            position = row + steps
            index = int(position)
            at = first - row + index
            now = fresh[at]
            share = (now - start + (fresh[at + 1] - now) * (position - index)) / span
        else:  # only rounding, or a file not built by calibrate.py, can leave a gain without touch
            share = (steps - grid[left]) / (grid[left + 1] - grid[left])
        return (lower + (upper - lower) * share) * table.unit_bytes

    def delta_bytes_many(
        self,
        phases_s: FloatArray,
        durations_s: FloatArray | float,
        granularity_bytes: int = DELTA_GRAIN_BYTES,
    ) -> FloatArray:
        """See :meth:`~.writeprofile.WriteProfile.delta_bytes_many`; the same, bit by bit."""
        table = self._table(granularity_bytes)
        phases, durations = np.broadcast_arrays(
            np.asarray(phases_s, dtype=np.float64), np.asarray(durations_s, dtype=np.float64)
        )
        if not durations.size:
            return np.zeros(durations.shape, dtype=np.float64)
        require_duration(float(durations.min()))
        steps = durations * self._steps_per_s
        beyond = steps >= self._phases
        steps = np.where(beyond, 0.0, steps)
        rows = np.floor(phases * self._steps_per_s + 0.5).astype(np.int64) % self._phases
        grid = np.array(self._grid)
        left = np.searchsorted(grid, steps, side="right") - 1
        at = rows * len(grid) + left
        lower = table.view[at].astype(np.float64)
        gain = table.view[at + 1] - lower
        fresh = table.fresh_view
        start = fresh[left, rows + grid[left]].astype(np.float64)
        span = fresh[left, rows + grid[left + 1]] - start
        position = rows + steps
        index = position.astype(np.int64)
        now = fresh[left, index].astype(np.float64)
        gone = now - start + (fresh[left, index + 1] - now) * (position - index)
        by_time = (steps - grid[left]) / (grid[left + 1] - grid[left])
        share = np.where(span > 0.0, gone / np.where(span > 0.0, span, 1.0), by_time)
        answer = (lower + gain * share) * table.unit_bytes
        over_s = np.maximum(0.0, durations - self.period_s)
        tail = table.total_bytes + table.tail_bytes_per_s * over_s
        return np.asarray(np.where(beyond, tail, answer), dtype=np.float64)

    def written_bytes(self, phase_s: float, duration_s: float) -> float:
        """See :meth:`~.writeprofile.WriteProfile.written_bytes`; even within a phase step."""
        require_duration(duration_s)
        cycles, rest_s = divmod(duration_s, self.period_s)
        start = phase_s * self._steps_per_s % self._phases
        window = self._written_at(start + rest_s * self._steps_per_s) - self._written_at(start)
        return cycles * self._written[self._phases] + window

    def _written_at(self, position: float) -> float:
        """Bytes written from phase 0 to a position in steps, below two cycles."""
        index = int(position)
        before = self._written[index]
        return before + (self._written[index + 1] - before) * (position - index)

    def summary(
        self,
        durations_s: Sequence[float] = SUMMARY_DURATIONS_S,
        granularities_bytes: Sequence[int] | None = None,
    ) -> tuple[SummaryRow, ...]:
        """The distribution over all tabulated phases, per granularity and duration.

        Durations beyond the period are left out: there the trace has nothing to say.
        """
        phases = self.phases_s
        return tuple(
            _row(self.delta_bytes_many(phases, duration, unit), duration, unit)
            for unit in granularities_bytes or self.granularities_bytes
            for duration in durations_s
            if not self.extrapolates(duration)
        )

    def _table(self, granularity_bytes: int) -> _Table:
        table = self._tables.get(granularity_bytes)
        if table is None:
            given = self.units.get(granularity_bytes)
            if given is None:
                raise self._unknown(granularity_bytes)
            table = self._tables[granularity_bytes] = _Table(
                granularity_bytes, given, self.period_s
            )
        return table

    def _unknown(self, granularity_bytes: int) -> StillframeError:
        known = ", ".join(str(unit) for unit in self.granularities_bytes)
        return StillframeError(
            f"write profile {self.name!r} has no table at {granularity_bytes!r} bytes",
            f"it has {known}",
        )


def _row(values: FloatArray, duration_s: float, unit_bytes: int) -> SummaryRow:
    p50, p95, p99 = (float(value) for value in np.percentile(values, (50, 95, 99)))
    return SummaryRow(
        duration_s,
        unit_bytes,
        float(values.mean()),
        float(values.std()),
        p50,
        p95,
        p99,
        float(values.max()),
    )
