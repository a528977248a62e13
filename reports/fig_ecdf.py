"""How the measured times are distributed, with the limits that guests put on them."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..quantity import format_seconds
from .fig_style import (
    BLACK,
    BLUE,
    GREY,
    INK,
    PURPLE,
    SKY,
    VERMILLION,
    empty,
    headline,
    legend_below,
    log_seconds,
    new_figure,
    tidy,
)
from .rundata import RunData
from .sentences import frozen, has_bounds
from .stats import CLOCKS, ecdf, over_limits, percentile, values_of

FLOOR_S = 1e-4
"""A window of no measurable length is drawn here: a logarithmic axis has no zero."""

_STYLES = {
    "quiesce_s": (VERMILLION, "-"),
    "stun_create_s": (BLACK, "-"),
    "open_s": (SKY, "-"),
    "merge_s": (BLUE, "-"),
    "stun_remove_s": (PURPLE, "--"),
}


def quiesce_ecdf(run: RunData) -> Figure:
    """Share of guests frozen for no longer than a time, with the 10 s, 20 s and 60 s limits."""
    seen = run.vms.filter(pl.col("quiesce_s").is_not_null())
    if seen.height == 0:
        return empty(frozen(run), "Either no guest was quiesced, or the driver cannot see it.")
    figure = new_figure(5.0)
    axes = figure.add_subplot()
    values = values_of(seen, "quiesce_s").clip(min=FLOOR_S)
    bounds = has_bounds(run)
    x, y = ecdf(values)
    axes.step(
        np.concatenate([[x[0]], x]),
        np.concatenate([[0.0], y * 100]),
        where="post",
        color=VERMILLION,
        linewidth=2,
        linestyle="--" if bounds else "-",
    )
    log_seconds(axes, float(x[0]) / 1.6, max(100.0, float(x[-1]) * 1.6))
    axes.set_ylim(0, 102)
    _limits(axes, run)
    _median(axes, float(percentile(values, 50) or FLOOR_S))
    axes.set_xlabel("quiesce window: guest frozen → thawed [s], logarithmic")
    axes.set_ylabel("share of guests [%]")
    tidy(axes)
    note = (
        "Dashed: some windows are upper bounds (run time of the whole create task)."
        if bounds
        else "Read: at height y, y per cent of the guests were frozen for no longer than x."
    )
    headline(figure, frozen(run), note)
    return figure


def _limits(axes: Axes, run: RunData) -> None:
    for row in over_limits(run):
        limit = row.limit
        axes.axvline(limit.limit_s, color=INK, linewidth=1.3, linestyle=(0, (5, 3)))
        axes.annotate(
            f"{limit.limit_s:.0f} s\n{limit.name}\n{row.over or 'none'} over",
            (limit.limit_s, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            fontweight="bold" if row.over else "normal",
            color=VERMILLION if row.over else INK,
        )


def _median(axes: Axes, median_s: float) -> None:
    axes.plot([median_s], [50], marker="o", color=VERMILLION, markersize=6)
    axes.annotate(
        f"median {format_seconds(median_s)}",
        (median_s, 50),
        xytext=(10, -4),
        textcoords="offset points",
        fontsize=9,
        color=INK,
    )


def clocks_ecdf(run: RunData) -> Figure:
    """Every clock's distribution on one logarithmic axis."""
    lines: list[Line2D] = []
    figure = new_figure(4.8)
    axes = figure.add_subplot()
    words = []
    for clock in CLOCKS:
        values = values_of(run.vms, clock.column)
        if len(values) == 0:
            continue
        colour, dashes = _STYLES[clock.column]
        x, y = ecdf(values.clip(min=FLOOR_S))
        median = format_seconds(percentile(values, 50))
        (line,) = axes.step(
            np.concatenate([[x[0]], x]),
            np.concatenate([[0.0], y * 100]),
            where="post",
            color=colour,
            linestyle=dashes,
            linewidth=2,
            label=f"{clock.label} (median {median})",
        )
        lines.append(line)
        words.append(f"{clock.label} {median}")
    if not lines:
        return empty("No clock was seen in this run", "No VM snapshot was made.")
    limits = np.concatenate([line.get_xdata() for line in lines])
    log_seconds(axes, float(limits.min()) / 1.3, float(limits.max()) * 1.3)
    axes.axhline(50, color=GREY, linewidth=0.8)
    axes.set_ylim(0, 102)
    axes.set_xlabel("duration [s], logarithmic")
    axes.set_ylabel("share of VMs [%]")
    tidy(axes)
    headline(figure, f"Median of each clock: {', '.join(words)}")
    legend_below(figure, lines, 3)
    return figure
