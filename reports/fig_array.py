"""What the arrays did: latency and fence of each group call, pools, load beside the guests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..quantity import format_bytes
from .fig_delta import held
from .fig_style import (
    BLACK,
    CYCLE,
    DASHES,
    GREY,
    INK,
    NOTE,
    byte_unit,
    empty,
    headline,
    legend_below,
    new_figure,
    panel,
    printable,
    thin,
    tidy,
    time_unit,
)
from .rundata import RunData
from .sentences import array_calls, count_of, upper_first
from .stats import Floats, values_of

LINES = 8
"""So many arrays at most get a line of their own in one figure."""
MARKERS = "osD^vPX*"
POINTS = 600
RECORDS = 20_000
"""Up to so many records are drawn at their own times."""


def calls(run: RunData) -> Figure:
    """Latency and fence of each group call against the number of units in it, by array."""
    done = run.calls.filter(pl.col("snapshot_s").is_not_null())
    if run.calls.height == 0:
        return empty(array_calls(run), "The job made no call to an array.")
    fenced = done.filter(pl.col("fence_s").is_not_null())
    figure = new_figure(4.8)
    axes = figure.subplots(1, 2 if fenced.height else 1, squeeze=False)[0]
    arrays = run.calls["array_id"].unique().sort().to_list()
    _by_size(axes[0], done, "snapshot_s", arrays)
    axes[0].set_ylabel("call → complete [s]")
    panel(axes[0], "Latency of the group snapshot")
    _failed(axes[0], run)
    if fenced.height:
        _by_size(axes[1], fenced, "fence_s", arrays)
        axes[1].set_ylabel("writes held [s]")
        panel(axes[1], "Fence: writes to the whole group held")
    headline(figure, array_calls(run))
    note = "At each group size the arrays are drawn side by side." if len(arrays) > 1 else ""
    legend_below(figure, _call_legend(run, arrays), note=note)
    return figure


def _by_size(axes: Axes, seen: pl.DataFrame, column: str, arrays: list[str]) -> None:
    for index, array in enumerate(arrays[:LINES]):
        own = seen.filter(pl.col("array_id") == array)
        # Side by side, or calls of equal size would hide each other.
        aside = (index - (min(len(arrays), LINES) - 1) / 2) * 0.6 / min(len(arrays), LINES)
        _dots(axes, own, column, CYCLE[index % len(CYCLE)], MARKERS[index], aside)
    others = seen.filter(pl.col("array_id").is_in(arrays[LINES:]))
    _dots(axes, others, column, INK, ".", 0.36)
    values = values_of(seen, column)
    axes.set_ylim(0, float(values[-1]) * 1.12 if len(values) else 1.0)
    largest = int(seen["units"].list.len().max() or 1)  # type: ignore[arg-type]
    axes.set_xlim(0.4, largest + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("units in the group call [count]")
    tidy(axes)


def _dots(
    axes: Axes, own: pl.DataFrame, column: str, colour: str, marker: str, aside: float
) -> None:
    if own.height:
        sizes = own["units"].list.len().cast(pl.Float64).to_numpy()
        axes.scatter(
            sizes + aside,
            own[column].to_numpy(),
            s=42,
            marker=marker,
            color=colour,
            alpha=0.7,
            edgecolor="white",
            linewidths=0.6,
        )


def _failed(axes: Axes, run: RunData) -> None:
    """Calls that never completed have no latency: they are marked on the upper edge."""
    failed = run.calls.filter(pl.col("snapshot_s").is_null())
    if failed.height:
        sizes = failed["units"].list.len().cast(pl.Float64).to_numpy()
        axes.set_xlim(0.4, max(axes.get_xlim()[1], float(sizes.max()) + 0.6))
        top = np.full(len(sizes), 0.97)
        transform = axes.get_xaxis_transform()
        axes.scatter(sizes, top, marker="x", s=50, color=BLACK, transform=transform, zorder=4)


def _call_legend(run: RunData, arrays: list[str]) -> list[Line2D]:
    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[i], color=CYCLE[i % len(CYCLE)],
               label=printable(name, 24))
        for i, name in enumerate(arrays[:LINES])
    ]  # fmt: skip
    if len(arrays) > LINES:
        label = f"{len(arrays) - LINES:,} other arrays"
        handles.append(Line2D([], [], linestyle="", marker=".", color=INK, label=label))
    if run.calls["snapshot_s"].null_count():
        label = "did not complete"
        handles.append(Line2D([], [], linestyle="", marker="x", color=BLACK, label=label))
    return handles


def _lines(run: RunData, quantity: str, grid: Floats) -> Iterator[tuple[str, Floats]]:
    """Per subject in order of name, the value that holds at each time; NaN before the first."""
    rows = run.series.filter(pl.col("quantity") == quantity).sort("t_s", maintain_order=True)
    for subject in rows["subject"].unique().sort().to_list():
        own = rows.filter(pl.col("subject") == subject)
        values = own["value"].to_numpy()
        level = held(own["t_s"].to_numpy(), values, grid)
        level[grid < float(own["t_s"][0])] = np.nan
        yield str(subject), level


def _grid(run: RunData) -> Floats:
    """Even steps from the start of the job to the last record, and every record's own time.

    With the records' times no peak falls between two steps, unless there are very many.
    """
    wanted = pl.col("quantity").str.starts_with("delta.").not_()
    times = run.series.filter(wanted)["t_s"].unique().sort().to_numpy()
    end = max([float(run.job["finished_s"]), run.start_s + 1e-6, *times[-1:]])
    even = np.linspace(run.start_s, end, POINTS)
    kept = times[times >= run.start_s]
    return np.union1d(even, kept[thin(len(kept), RECORDS)])


def _style(index: int) -> dict[str, Any]:
    """Colour and dashes of the n-th line: both, so that a print without colour still tells."""
    return {"color": CYCLE[index % len(CYCLE)], "linestyle": DASHES[index % len(DASHES)]}


def pools(run: RunData) -> Figure | None:
    """Pool used against capacity over time, and its growth since the job began; None without."""
    grid = _grid(run)
    used = dict(_lines(run, "pool.used_bytes", grid))
    capacity = dict(_lines(run, "pool.capacity_bytes", grid))
    if not used:
        return None
    fullest = {
        name: float(_ramp(run, name)[1].max() / np.nanmin(capacity[name]))
        for name in used
        if name in capacity and np.nanmin(capacity[name]) > 0
    }
    shown = sorted(used, key=lambda name: (-fullest.get(name, 0.0), name))[:LINES]
    figure = new_figure(4.8)
    left, right = figure.subplots(1, 2)
    unit_s, symbol = time_unit(float(grid[-1] - grid[0]))
    x = (grid - run.start_s) / unit_s
    growth = {name: _grown(used[name]) for name in shown}
    size, unit = byte_unit(max(float(np.nanmax(np.abs(level))) for level in growth.values()))
    handles = []
    for index, name in enumerate(shown):
        style = _style(index)
        times, level = _ramp(run, name)
        times = (times - run.start_s) / unit_s
        if name in fullest:
            share = level / float(np.nanmin(capacity[name])) * 100
            left.plot(times, share, linewidth=1.8, **style)
        right.plot(times, (level - level[0]) / size, linewidth=1.8, **style)
        handles.append(Line2D([], [], linewidth=1.8, label=printable(name, 24), **style))
    left.axhline(100, color=INK, linewidth=1.4)
    left.annotate("capacity", (0.0, 100), xycoords=("axes fraction", "data"), xytext=(4, 3),
                  textcoords="offset points", fontsize=8.5, color=INK)  # fmt: skip
    left.set_ylim(0, max(110.0, max(fullest.values(), default=0.0) * 108))
    left.set_ylabel("pool used [% of capacity]")
    right.set_ylabel(f"growth since the job began [{unit}]")
    panel(left, "How full the pools are")
    panel(right, "What the job and its snapshots added")
    for axes in (left, right):
        _job_time(axes, run, unit_s, symbol, float(x[-1]))
    headline(figure, _pool_sentence(used, fullest))
    legend_below(figure, handles)
    return figure


def _ramp(run: RunData, name: str) -> tuple[Floats, Floats]:
    """The records of one pool's level from the job's start on: between two of them it is linear.

    Two records at one time are a level and what it fell to.
    """
    mine = (pl.col("quantity") == "pool.used_bytes") & (pl.col("subject") == name)
    rows = run.series.filter(mine).sort("t_s", maintain_order=True)
    times, values = rows["t_s"].to_numpy(), rows["value"].to_numpy()
    first = max(run.start_s, float(times[0]))
    before = held(times, values, np.array([first]))
    later = np.flatnonzero(times > first)[thin(int(np.count_nonzero(times > first)), RECORDS)]
    return np.append(first, times[later]), np.append(before, values[later])


def _grown(level: Floats) -> Floats:
    """The level above what it was when it was first seen."""
    seen = level[~np.isnan(level)]
    above: Floats = level - seen[0]
    return above


def _job_time(axes: Axes, run: RunData, unit_s: float, symbol: str, end: float) -> None:
    """The time axis, with the end of the job marked when the world was watched for longer."""
    axes.set_xlim(0, end)
    axes.set_xlabel(f"time since the job began [{symbol}]")
    finished = run.job["makespan_s"] / unit_s
    tidy(axes)
    if finished < 0.95 * end:
        axes.axvline(finished, color=GREY, linewidth=1.0, linestyle=(0, (2, 2)))
        axes.annotate(
            "job ends",
            (finished, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -10),
            textcoords="offset points",
            fontsize=8,
            color=NOTE,
        )


def _pool_sentence(used: dict[str, Floats], fullest: dict[str, float]) -> str:
    together = np.sum([np.nan_to_num(_grown(level)) for level in used.values()], axis=0)
    grown = format_bytes(max(0.0, float(together.max())))
    whose = "the pool" if len(used) == 1 else f"all {len(used):,} pools together"
    if not fullest:
        return f"{upper_first(whose)} grew by at most {grown}; the capacity is not known"
    name = max(sorted(fullest), key=lambda key: fullest[key])
    first = f"The pool of {name}" if len(used) == 1 else f"The fullest pool, of {name},"
    whose = "it" if len(used) == 1 else whose
    return (
        f"{first} reached {fullest[name] * 100:.3g} % of its capacity; "
        f"{whose} grew by at most {grown}"
    )


@dataclass(frozen=True, slots=True)
class _Panel:
    quantity: str
    title: str
    label: str
    divisor: float


_LOAD_PANELS = (
    _Panel("array.background_bytes_per_s", "Guest writes and copies", "data rate [MiB/s]", 2.0**20),
    _Panel("array.copy_bytes_per_s", "Copy-on-write copies", "data rate [MiB/s]", 2.0**20),
    _Panel("array.snapshots", "Snapshots that the array holds", "snapshots [count]", 1.0),
)


def load(run: RunData) -> Figure | None:
    """Guest writes, copies and snapshots of each array over time; None without any of them."""
    grid = _grid(run)
    lines = {item.quantity: dict(_lines(run, item.quantity, grid)) for item in _LOAD_PANELS}
    kept = [
        item
        for item in _LOAD_PANELS
        if any(float(np.nanmax(level)) > 0 for level in lines[item.quantity].values())
    ]
    if not kept:
        return None
    figure = new_figure(4.4)
    unit_s, symbol = time_unit(float(grid[-1] - grid[0]))
    x = (grid - run.start_s) / unit_s
    names = sorted({name for by_name in lines.values() for name in by_name})[:LINES]
    styles = {name: _style(index) for index, name in enumerate(names)}
    for axes, item in zip(figure.subplots(1, len(kept), squeeze=False)[0], kept, strict=True):
        for name, level in lines[item.quantity].items():
            if name in styles:
                axes.step(x, level / item.divisor, where="post", linewidth=1.6, **styles[name])
        axes.set_ylim(bottom=0)
        axes.set_ylabel(item.label)
        panel(axes, item.title)
        _job_time(axes, run, unit_s, symbol, float(x[-1]))
    headline(figure, _load_sentence(lines))
    legend_below(
        figure, [Line2D([], [], label=printable(name, 24), **styles[name]) for name in names]
    )
    return figure


def _load_sentence(lines: dict[str, dict[str, Floats]]) -> str:
    copies = [float(np.nanmax(level)) for level in lines["array.copy_bytes_per_s"].values()]
    if copies and max(copies) > 0:
        return f"Copy-on-write copies reached {format_bytes(max(copies))}/s on one array"
    loads = [float(np.nanmax(level)) for level in lines["array.background_bytes_per_s"].values()]
    if loads and max(loads) > 0:
        return f"Guest writes and copies reached {format_bytes(max(loads))}/s on one array"
    held_most = max(float(np.nanmax(level)) for level in lines["array.snapshots"].values())
    return f"No array held more than {count_of(int(held_most), 'group snapshot')}"
