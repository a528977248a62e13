"""What guests wrote into open deltas, and what it took to merge them."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..quantity import format_bytes
from .fig_style import (
    BLUE,
    CYCLE,
    GREY_AREA,
    SKY,
    byte_unit,
    empty,
    headline,
    log_bytes,
    log_seconds,
    new_figure,
    panel,
    printable,
    tidy,
    time_unit,
)
from .rundata import RunData
from .sentences import deltas
from .stats import Floats

DATASTORES = 6
"""So many datastores get a colour of their own; the others are drawn as one."""
POINTS = 600
"""Points in time at which the stack is drawn."""
CHUNK = 2000
"""VMs that are summed up at once, to bound memory."""
DOTS = 1500
"""Up to so many VMs are drawn as dots, more as a density."""


def delta_growth(run: RunData) -> Figure:
    """Open delta bytes over time per datastore; per VM, delta against open and merge time."""
    series = run.series.filter(pl.col("quantity") == "delta.open_bytes")
    dots = run.vms.filter(pl.col("delta_bytes") > 0)
    if series.height == 0 and dots.height == 0:
        return empty(deltas(run), "No driver in this run sees how large a delta is.")
    rows = 1 + (dots.height > 0)
    figure = new_figure(4.1 * rows + 0.4)
    outer = figure.add_gridspec(rows, 1)
    if series.height:
        # The stack's legend has a place of its own beside it.
        top = outer[0].subgridspec(1, 2, width_ratios=(6, 1))
        _over_time(figure.add_subplot(top[0]), figure.add_subplot(top[1]), run, series)
    else:
        _interpolated(figure.add_subplot(outer[0]), run, dots)
    if dots.height:
        pair = outer[rows - 1].subgridspec(1, 2)
        left, right = figure.add_subplot(pair[0]), figure.add_subplot(pair[1])
        _against(left, dots, "open_s", "open time [s], logarithmic")
        panel(left, "How large a delta grew while it was open")
        _against(right, dots, "merge_s", "merge time [s], logarithmic")
        panel(right, "How long it took to merge")
    headline(figure, deltas(run))
    return figure


def _over_time(axes: Axes, beside: Axes, run: RunData, series: pl.DataFrame) -> None:
    unit_s, symbol = time_unit(run.job["makespan_s"])
    grid = np.linspace(run.start_s, float(run.job["finished_s"]), POINTS)
    total = np.zeros(POINTS)
    levels: list[tuple[float, str, Floats]] = []
    for (subject,), rows in series.sort("t_s", maintain_order=True).group_by(
        "subject", maintain_order=True
    ):
        level = held(rows["t_s"].to_numpy(), rows["value"].to_numpy(), grid)
        total += level
        levels.append((float(rows["value"].max() or 0.0), str(subject), level))  # type: ignore[arg-type]
    levels.sort(key=lambda item: (-item[0], item[1]))
    shown = levels[:DATASTORES]
    others = total - sum((level for _, _, level in shown), np.zeros(POINTS))
    names = [printable(name, 24) for _, name, _ in shown]
    stack, colours = [level for _, _, level in shown], list(CYCLE[: len(shown)])
    if len(levels) > DATASTORES:
        names.append(f"{len(levels) - DATASTORES:,} other datastores")
        stack.append(others)
        colours.append(GREY_AREA)
    size, name = byte_unit(float(total.max()))
    axes.stackplot(
        (grid - run.start_s) / unit_s,
        [level / size for level in stack],
        colors=colours,
        labels=names,
        edgecolor="white",
        linewidth=0.3,
    )
    axes.set_xlim(0, float((grid[-1] - grid[0]) / unit_s))
    axes.set_ylim(0, float(total.max()) / size * 1.05 or 1.0)
    axes.set_xlabel(f"time since the job began [{symbol}]")
    axes.set_ylabel(f"open deltas [{name}]")
    panel(axes, f"All open deltas together, by datastore: at most {format_bytes(total.max())}")
    tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    beside.set_axis_off()
    # From the top of the stack down.
    beside.legend(handles[::-1], labels[::-1], loc="upper left", fontsize=8.5, frameon=False)


def _interpolated(axes: Axes, run: RunData, dots: pl.DataFrame) -> None:
    """All deltas together when nobody sampled them: each grows evenly to the size it reached."""
    unit_s, symbol = time_unit(run.job["makespan_s"])
    grid = np.linspace(run.start_s, float(run.job["finished_s"]), POINTS)
    total = grown_evenly(run, dots, grid)
    size, name = byte_unit(float(total.max()))
    axes.fill_between((grid - run.start_s) / unit_s, total / size, color=SKY, linewidth=0)
    axes.set_xlim(0, max(1e-9, float((grid[-1] - grid[0]) / unit_s)))
    axes.set_ylim(0, float(total.max()) / size * 1.05 or 1.0)
    axes.set_xlabel(f"time since the job began [{symbol}]")
    axes.set_ylabel(f"open deltas [{name}]")
    panel(
        axes,
        f"All open deltas together, about {format_bytes(total.max())} at most (interpolated: "
        "each grows evenly until its removal)",
    )
    tidy(axes)


def grown_evenly(run: RunData, dots: pl.DataFrame, grid_s: Floats) -> Floats:
    """Bytes in all deltas at each time: even growth while open, full size until merged."""
    spans = dots.select(
        "opened_s", "removal_s", pl.col("merged_s").fill_null(run.job["finished_s"]), "delta_bytes"
    ).drop_nulls()
    total = np.zeros(len(grid_s))
    for part in spans.iter_slices(CHUNK):
        opened, removal, merged, size = (
            part[name].cast(pl.Float64).to_numpy()[:, None] for name in spans.columns
        )
        share = np.clip((grid_s - opened) / np.maximum(removal - opened, 1e-9), 0.0, 1.0)
        total += np.where(grid_s < merged, share * size, 0.0).sum(axis=0)
    return total


def held(times_s: Floats, values: Floats, at_s: Floats) -> Floats:
    """The value that holds at each time of ``at_s``: the last one before it, else zero."""
    index = np.searchsorted(times_s, at_s, side="right")
    level: Floats = np.concatenate([np.zeros(1), values])[index]
    return level


def _against(axes: Axes, dots: pl.DataFrame, column: str, label: str) -> None:
    seen = dots.filter(pl.col(column) > 0)
    x = seen[column].to_numpy()
    y = seen["delta_bytes"].cast(pl.Float64).to_numpy()
    if len(x) > DOTS:
        density = axes.hexbin(
            x, y, xscale="log", yscale="log", gridsize=38, cmap="cividis_r", mincnt=1, bins="log"
        )
        bar = axes.figure.colorbar(density, ax=axes, pad=0.02)
        bar.set_label("VMs per cell, logarithmic", fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    else:
        axes.scatter(x, y, s=16, color=BLUE, alpha=0.65, linewidths=0)
    # After drawing: a hexagonal density sets scales of its own.
    if len(x):
        log_seconds(axes, float(x.min()) / 1.15, float(x.max()) * 1.15)
        log_bytes(axes, float(y.min()) / 1.5, float(y.max()) * 1.5, "y")
    axes.set_xlabel(label)
    axes.set_ylabel("delta at its removal [bytes, logarithmic]")
    tidy(axes)
