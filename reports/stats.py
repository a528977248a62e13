"""Statistics of a run: percentiles, empirical distributions, counts over the guests' limits.

Percentiles are by nearest rank: the p-th percentile is the smallest observed value that at least
p per cent of the values do not exceed. It is always a value that some VM had, and the 99th
percentile of 20 values is their maximum rather than an interpolation towards it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .rundata import RunData

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clock:
    """One of the measured times: its column, its name for people, and what it is exactly."""

    column: str
    label: str
    definition: str
    seen_by: str


CLOCKS = (
    Clock(
        "quiesce_s",
        "quiesce",
        "guest file systems frozen → thawed; applications wait with their writes",
        "modelled worlds and guest agents exactly; vSphere as an upper bound (run time of the "
        "create task)",
    ),
    Clock(
        "stun_create_s",
        "stun at create",
        "virtual CPUs stopped → running, while the VM snapshot is made",
        "modelled worlds; QEMU, which holds the guest's I/O and not its CPUs, as an upper bound; "
        "vSphere not",
    ),
    Clock(
        "open_s",
        "open",
        "VM snapshot exists → its removal begins; guest writes go to a delta that grows meanwhile",
        "every driver",
    ),
    Clock(
        "merge_s",
        "merge",
        "removal begins → delta merged into the base disk and gone",
        "every driver",
    ),
    Clock(
        "stun_remove_s",
        "stun at remove",
        "virtual CPUs stopped → running, while the last of the delta is merged",
        "modelled worlds; QEMU, which holds the guest's I/O and not its CPUs, as an upper bound; "
        "vSphere not",
    ),
)

CALL_CLOCKS = (
    Clock(
        "snapshot_s",
        "array snapshot",
        "group call sent → array says that the snapshot is complete, retries included",
        "every driver",
    ),
    Clock(
        "fence_s",
        "fence",
        "the array holds writes to all units of the group, so that they are cut at one point",
        "modelled worlds exactly; the open arrays as an upper bound; few others report it",
    ),
)


@dataclass(frozen=True, slots=True)
class GuestLimit:
    """How long a guest tolerates being frozen."""

    limit_s: float
    name: str
    meaning: str
    source: str


GUEST_LIMITS = (
    GuestLimit(
        10.0,
        "VSS I/O hold",
        "the Windows volume shadow copy service releases held writes by itself after 10 s",
        "kubevirt pull request 16653; HP 3PAR Recovery Manager for Exchange manual, p. 65",
    ),
    GuestLimit(
        20.0,
        "Exchange",
        "Microsoft Exchange leaves its frozen state after 20 s",
        "Veeam KB1377",
    ),
    GuestLimit(
        60.0,
        "VSS freeze",
        "the time that VSS writers have between freeze and thaw by default",
        "Veeam KB1377",
    ),
)


@dataclass(frozen=True, slots=True)
class Summary:
    """One clock over all VMs (or calls): nearest-rank percentiles in seconds.

    ``absent`` counts those for which nobody could see the clock, or that never came so far;
    ``bounds`` those of ``count`` whose value is an upper bound. With ``count`` 0 all values are
    None.
    """

    clock: Clock
    count: int
    absent: int
    bounds: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    max_s: float | None
    worst: str


@dataclass(frozen=True, slots=True)
class LimitCount:
    """How many of the ``measured`` guests were frozen for longer than a limit allows."""

    limit: GuestLimit
    over: int
    measured: int


def values_of(frame: pl.DataFrame, column: str) -> Floats:
    """The values of a column that are there, ascending."""
    return np.sort(frame[column].drop_nulls().cast(pl.Float64).to_numpy())


def percentile(ascending: Floats, percent: float) -> float | None:
    """The nearest-rank percentile of values in ascending order; None of no values.

    Raises
    ------
    ValueError
        ``percent`` is not between 0 and 100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent!r} is not between 0 and 100")
    if len(ascending) == 0:
        return None
    # Multiply before dividing: 0.07 * 100 exceeds 7 in floating point, and its ceiling is 8.
    rank = max(1, int(np.ceil(percent * len(ascending) / 100)))
    return float(ascending[rank - 1])


def ecdf(values: Floats) -> tuple[Floats, Floats]:
    """Steps of the empirical distribution: each value, and the share of values not above it."""
    ascending = np.sort(values)
    shares = np.arange(1, len(ascending) + 1, dtype=np.float64) / max(1, len(ascending))
    return ascending, shares


def summarise(frame: pl.DataFrame, clock: Clock, name: str, exact: str | None = None) -> Summary:
    """Percentiles of one clock; ``name`` is the column that names the worst, ``exact`` the column
    that is false where a value is an upper bound."""
    seen = frame.filter(pl.col(clock.column).is_not_null())
    values = values_of(seen, clock.column)
    worst = ""
    if len(values):
        worst = str(seen[name][int(seen[clock.column].arg_max() or 0)])
    bounds = 0 if exact is None else int((~seen[exact].fill_null(True)).sum())
    return Summary(
        clock=clock,
        count=len(values),
        absent=frame.height - len(values),
        bounds=bounds,
        p50_s=percentile(values, 50),
        p95_s=percentile(values, 95),
        p99_s=percentile(values, 99),
        max_s=percentile(values, 100),
        worst=worst,
    )


def summaries(run: RunData) -> list[Summary]:
    """One row per clock: those of the VMs, then those of the array calls."""
    rows = [
        summarise(run.vms, clock, "name", "quiesce_exact" if clock.column == "quiesce_s" else None)
        for clock in CLOCKS
    ]
    return rows + [summarise(run.calls, clock, "group_id") for clock in CALL_CLOCKS]


def over_limits(run: RunData) -> list[LimitCount]:
    """How many guests were frozen for longer than each limit."""
    values = values_of(run.vms, "quiesce_s")
    return [
        LimitCount(limit, int(np.count_nonzero(values > limit.limit_s)), len(values))
        for limit in GUEST_LIMITS
    ]


def worst(run: RunData, column: str, count: int = 20) -> pl.DataFrame:
    """The VMs with the largest values in this column, largest first, equal ones by identifier."""
    seen = run.vms.filter(pl.col(column).is_not_null())
    return seen.sort([column, "vm_id"], descending=[True, False]).head(count)


def occupancy(starts: Floats, ends: Floats, edges: Floats) -> Floats:
    """Mean number of intervals that are open in each bin between ``edges``, all in seconds.

    The integral of the count is exact, so that a window much shorter than a bin still shows with
    its weight instead of falling between two samples.
    """
    return np.diff(_elapsed(starts, edges) - _elapsed(ends, edges)) / np.diff(edges)


def _elapsed(times: Floats, at: Floats) -> Floats:
    """For each point of ``at``, the sum over earlier ``times`` of the time since then."""
    ascending = np.sort(times)
    sums = np.concatenate([np.zeros(1), np.cumsum(ascending)])
    before = np.searchsorted(ascending, at, side="right")
    elapsed: Floats = before * at - sums[before]
    return elapsed


def peak(starts: Floats, ends: Floats) -> int:
    """The most intervals that are open at the same time; one that ends lets the next begin."""
    if len(starts) == 0:
        return 0
    times = np.concatenate([ends, starts])
    change = np.concatenate([np.full(len(ends), -1), np.ones(len(starts), dtype=np.int64)])
    order = np.argsort(times, kind="stable")
    return int(np.cumsum(change[order]).max())
