"""From a block trace to a write profile: exact tables in one pass per duration.

Every touch of a unit at time x has a gap back to the touch of the same unit before it, around
the cycle. It is the first one in a window [φ, φ + t), and so adds a distinct unit, exactly if φ
lies in (x − min(gap, t), x]. Adding these intervals up for all touches gives D(φ, t) at every
phase at once, by counting where they begin and end: no window is ever replayed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .trace import BlockTrace, read_vscsi
from .traceprofile import SummaryRow, TraceProfile, TraceTotals, UnitCounts
from .writeprofile import DELTA_GRAIN_BYTES, FloatArray

# The delta's grain and common copy units of arrays.
GRANULARITIES_BYTES = (DELTA_GRAIN_BYTES, 64 * 1024, 256 * 1024, 1024 * 1024)

# An eighth of a second resolves the edges of bursts well enough for the p95 of windows of a few
# seconds. Both were chosen with benchmarks/evidence_trace.py.
PHASE_STEP_S = 0.125
MAX_PHASES = 30_000
SHORTEST_STEPS = 2
DURATION_FACTOR = 1.5

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class TraceSummary:
    """What a trace holds, for showing beside the profile made from it.

    ``rate_times_s`` are the starts of equal bins of ``rate_bin_s``; ``write_rate_bytes_per_s``
    and ``read_rate_bytes_per_s`` are the mean rates in them. ``distinct_bytes`` is per
    granularity; ``rows`` are :meth:`~.traceprofile.TraceProfile.summary`.
    """

    source: str
    period_s: float
    totals: TraceTotals
    distinct_bytes: dict[int, float]
    rate_bin_s: float
    rate_times_s: FloatArray
    write_rate_bytes_per_s: FloatArray
    read_rate_bytes_per_s: FloatArray
    rows: tuple[SummaryRow, ...]


def calibrate_trace(
    path: str | Path,
    *,
    granularities: Sequence[int] = GRANULARITIES_BYTES,
    name: str = "",
    source: str = "",
    progress: Progress | None = None,
) -> tuple[TraceProfile, TraceSummary]:
    """Read a ``.vscsi`` trace and measure its write profile.

    Parameters
    ----------
    path:
        The trace.
    granularities:
        Unit sizes in bytes, each a multiple of 512.
    name:
        What the profile is called; the file's name without its ending if empty.
    source:
        Where the trace comes from; the file's name if empty. Its SHA-256 is added.
    progress:
        Called with what is being done and the share of all the work that is behind it.

    Raises
    ------
    InputError
        The trace is damaged (see :func:`~.trace.read_vscsi`), writes nothing or covers no time;
        or a granularity is not a positive multiple of 512.
    """
    path = Path(path)
    report = progress or _silent
    report("reading the trace", 0.0)
    trace = read_vscsi(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    profile = build_profile(
        trace,
        granularities=granularities,
        name=name or path.stem,
        source=f"{source or path.name} (SHA-256 {digest})",
        progress=report,
    )
    return profile, summarise_trace(trace, profile)


def build_profile(
    trace: BlockTrace,
    *,
    granularities: Sequence[int] = GRANULARITIES_BYTES,
    name: str = "trace",
    source: str = "",
    progress: Progress | None = None,
) -> TraceProfile:
    """Measure the write profile of a trace that is already in memory.

    Phases are :data:`PHASE_STEP_S` apart, or further so that there are at most
    :data:`MAX_PHASES`; durations grow from :data:`SHORTEST_STEPS` of them by
    :data:`DURATION_FACTOR` up to the period. Parameters and errors as for :func:`calibrate_trace`.
    """
    report = progress or _silent
    writes = trace.is_write
    _check(trace, granularities)
    period_s = trace.period_s
    phases = min(MAX_PHASES, max(1, round(period_s / PHASE_STEP_S)))
    duration_steps = duration_grid(phases)
    units: dict[int, UnitCounts] = {}
    sizes = sorted(set(granularities))
    for done, unit in enumerate(sizes):
        report(f"counting units of {unit} bytes", done / len(sizes))
        units[unit] = count_units(touches(trace, unit), period_s, duration_steps)
    report("done", 1.0)
    lengths = trace.length_bytes
    return TraceProfile(
        name=name,
        source=source or trace.source,
        period_s=period_s,
        duration_steps=duration_steps,
        units=units,
        step_bytes=_binned(trace.times_s[writes], lengths[writes], period_s, phases),
        totals=TraceTotals(
            records=len(trace),
            reads=int(np.count_nonzero(~writes)),
            writes=int(np.count_nonzero(writes)),
            read_bytes=int(lengths[~writes].sum()),
            written_bytes=int(lengths[writes].sum()),
        ),
    )


def duration_grid(phases: int) -> tuple[int, ...]:
    """The tabulated durations in phase steps: about geometric, ending with the whole period."""
    grid = []
    steps = float(SHORTEST_STEPS)
    while round(steps) < phases:
        grid.append(round(steps))
        steps *= DURATION_FACTOR
    return (*grid, phases)


class Touches(NamedTuple):
    """Every time a write touches a unit, in no particular order, one entry per unit and write.

    ``previous_s`` is the touch of the same unit before that; where the cycle has to be gone around
    to find it (``around``), it is the unit's last touch, which is later than ``times_s``.
    """

    times_s: FloatArray
    previous_s: FloatArray
    around: NDArray[np.bool_]

    def gaps_s(self, period_s: float) -> FloatArray:
        """The time back to the touch before, ``period_s`` for a unit touched once."""
        gaps_s: FloatArray = self.times_s - self.previous_s + np.where(self.around, period_s, 0.0)
        return gaps_s


def touches(trace: BlockTrace, unit_bytes: int) -> Touches:
    """The touches of a trace at one granularity."""
    use = trace.is_write & (trace.length_bytes > 0)
    offsets, lengths = trace.offset_bytes[use], trace.length_bytes[use]
    first = offsets // unit_bytes
    spans = (offsets + lengths - 1) // unit_bytes - first + 1
    # Spread each write over its units: 0, 1, 2, … from the first unit on.
    steps = np.arange(int(spans.sum())) - np.repeat(np.cumsum(spans) - spans, spans)
    unit = np.repeat(first, spans) + steps
    times_s = np.repeat(trace.times_s[use], spans)
    order = np.argsort(unit, kind="stable")  # stable keeps time order within a unit
    unit, times_s = unit[order], times_s[order]
    around = np.diff(unit, prepend=-1) != 0
    starts = np.flatnonzero(around)
    previous_s = np.concatenate(([0.0], times_s[:-1]))
    previous_s[starts] = times_s[np.append(starts[1:], len(unit)) - 1]
    return Touches(times_s, previous_s, around)


def count_units(touched: Touches, period_s: float, duration_steps: Sequence[int]) -> UnitCounts:
    """The tables of one granularity from its touches; see the module's docstring.

    A window of n steps that begins at phase k counts a touch at step p whose predecessor is at
    step q if and only if ``max(q + 1, p - n + 1) <= k <= p``. Everything is in whole steps: with
    times subtracted instead, a touch on the border of two steps may count in both or in neither.
    """
    phases = duration_steps[-1]
    step_s = period_s / phases
    step = _step_of(touched.times_s, step_s, phases)
    previous = _step_of(touched.previous_s, step_s, phases) - np.where(touched.around, phases, 0)
    gaps_s = touched.gaps_s(period_s)
    gap_steps = np.where(gaps_s >= period_s, float(phases), gaps_s / step_s)
    gap_class = np.searchsorted(duration_steps, gap_steps, side="right")
    rows = len(duration_steps) + 1
    by_class = np.bincount(gap_class * phases + step, minlength=rows * phases)
    distinct = np.empty((phases, len(duration_steps)), dtype=np.uint32)
    # One entry more than two cycles: a window that begins before phase 0 is counted on the left.
    size = 2 * phases + 1
    ends = np.bincount(step + 1 + phases, minlength=size)
    for column, steps in enumerate(duration_steps):
        begins = np.maximum(previous, step - steps) + 1
        covered = np.cumsum(np.bincount(begins + phases, minlength=size) - ends)
        distinct[:, column] = covered[:phases] + covered[phases : 2 * phases]
    return UnitCounts(distinct, by_class.reshape(rows, phases).astype(np.uint32))


def _step_of(times_s: FloatArray, step_s: float, phases: int) -> NDArray[np.int64]:
    return np.minimum((times_s / step_s).astype(np.int64), phases - 1)


def _binned(
    times_s: FloatArray, lengths: NDArray[np.int64], period_s: float, bins: int
) -> NDArray[np.uint64]:
    """Bytes per equal bin of the period."""
    index = np.minimum((times_s / (period_s / bins)).astype(np.int64), bins - 1)
    # Float weights are exact: the bytes of one bin stay far below 2^53.
    return np.bincount(index, weights=lengths, minlength=bins).astype(np.uint64)


def summarise_trace(
    trace: BlockTrace, profile: TraceProfile, rate_bin_s: float = 10.0
) -> TraceSummary:
    """Totals, rates over time in bins of about ``rate_bin_s``, and the profile's statistics."""
    bins = max(1, round(profile.period_s / rate_bin_s))
    bin_s = profile.period_s / bins
    rates = [
        _binned(trace.times_s[use], trace.length_bytes[use], profile.period_s, bins) / bin_s
        for use in (trace.is_write, ~trace.is_write)
    ]
    return TraceSummary(
        source=profile.source,
        period_s=profile.period_s,
        totals=profile.totals,
        distinct_bytes={unit: profile.distinct_bytes(unit) for unit in profile.granularities_bytes},
        rate_bin_s=bin_s,
        rate_times_s=np.arange(bins, dtype=np.float64) * np.float64(bin_s),
        write_rate_bytes_per_s=rates[0],
        read_rate_bytes_per_s=rates[1],
        rows=profile.summary(),
    )


def _check(trace: BlockTrace, granularities: Sequence[int]) -> None:
    if not granularities:
        raise InputError("--granularity", "", "names no size", "give at least one")
    for unit in granularities:
        if unit <= 0 or unit % 512:
            raise InputError("--granularity", "", f"{unit} bytes is not a multiple of 512 bytes")
    if not (trace.length_bytes[trace.is_write] > 0).any():
        raise InputError(trace.source, "", f"holds no writes in {len(trace)} records")
    if not trace.period_s > 0.0:
        raise InputError(trace.source, "", f"covers no time: {len(trace)} records at one moment")


def _silent(what: str, share: float) -> None:
    """Progress for callers that do not want it."""
