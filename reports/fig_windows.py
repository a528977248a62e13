"""The four clocks of every VM over time: a Gantt chart, or what stays of it for many VMs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from .fig_style import (
    BLACK,
    CUT_COLOUR,
    GREY,
    INK,
    PHASE_COLOURS,
    empty,
    headline,
    legend_below,
    new_figure,
    panel,
    printable,
    tidy,
    time_unit,
)
from .rundata import RunData
from .sentences import count_of, opened
from .stats import Floats, occupancy, peak, values_of, worst

NAMED_ROWS = 40
"""Up to so many VMs each row carries the VM's name."""
GANTT_ROWS = 300
"""Up to so many VMs each has a row of its own."""
WORST_ROWS = 20
BINS = 400

_INTERVALS = {
    "create": ("requested_s", "opened_s"),
    "open": ("opened_s", "removal_s"),
    "merge": ("removal_s", "merged_s"),
}
_LABELS = {
    "create": "VM snapshot being made",
    "quiesce": "quiesce: guest frozen",
    "open": "open: delta grows",
    "merge": "merge",
}


@dataclass(frozen=True, slots=True)
class Clock:
    """From run time to an axis that starts with the job."""

    origin_s: float
    unit_s: float
    symbol: str

    def at(self, times_s: Floats) -> Floats:
        """Times on the axis."""
        scaled: Floats = (times_s - self.origin_s) / self.unit_s
        return scaled


def windows(run: RunData) -> Figure:
    """Gantt chart of the four clocks, grouped by group, with the array snapshots marked.

    Up to 300 VMs have a row each; for more, the VMs in each phase are counted over time and only
    the longest windows keep rows.
    """
    if run.vms.height == 0:
        return empty("No VM snapshot was made", "The job had no VM to work on.")
    unit_s, symbol = time_unit(run.job["makespan_s"])
    clock = Clock(run.start_s, unit_s, symbol)
    if run.vms.height <= GANTT_ROWS:
        return _every_vm(run, clock)
    return _many_vms(run, clock)


def _every_vm(run: RunData, clock: Clock) -> Figure:
    rows = _ordered(run)
    named = rows.height <= NAMED_ROWS
    height = 2.4 + (0.24 * rows.height if named else min(7.5, 2.5 + 0.028 * rows.height))
    figure = new_figure(max(3.4, height))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1))
    _bars(left, rows, clock)
    _cuts(left, run, rows, clock)
    _row_labels(left, rows, named)
    panel(left, "The whole job, one row per VM")
    _job_axis(left, run, clock)
    _freezes(right, rows)
    panel(right, "The frozen moment, enlarged")
    note = "Black ticks on the left: virtual CPUs stopped (stun), at the tick; too short to scale."
    headline(figure, opened(run))
    legend_below(
        figure, _legend(run, rows, rows), note=note if rows["stun_create_s"].count() else ""
    )
    return figure


def _many_vms(run: RunData, clock: Clock) -> Figure:
    figure = new_figure(9.4)
    grid = figure.add_gridspec(2, 2, height_ratios=(1.15, 1), width_ratios=(2.0, 1))
    _density(figure.add_subplot(grid[0, :]), run, clock)
    longest = _longest(run)
    left = figure.add_subplot(grid[1, 0])
    _bars(left, longest, clock)
    _names(left, longest)
    left.invert_yaxis()
    panel(left, f"The {longest.height} VMs whose snapshot lived longest")
    _zoom(left, longest, clock)
    frozen = worst(run, "quiesce_s", WORST_ROWS)
    right = figure.add_subplot(grid[1, 1])
    _freezes(right, frozen)
    _names(right, frozen)
    right.invert_yaxis()
    panel(right, f"The {frozen.height} longest freezes")
    headline(figure, opened(run))
    legend_below(figure, _legend(run, run.vms, longest))
    return figure


def _job_axis(axes: Axes, run: RunData, clock: Clock) -> None:
    """The whole job and nothing before it, whatever was drawn."""
    axes.set_xlim(0, max(1e-9, run.job["makespan_s"] / clock.unit_s) * 1.01)
    axes.set_xlabel(f"time since the job began [{clock.symbol}]")


def _zoom(axes: Axes, rows: pl.DataFrame, clock: Clock) -> None:
    """Only the time in which these VMs were worked on."""
    times = rows.select(
        first=pl.min_horizontal("requested_s", "opened_s"),
        last=pl.max_horizontal("opened_s", "removal_s", "merged_s"),
    )
    first, last = clock.at(values_of(times, "first")), clock.at(values_of(times, "last"))
    if len(first) and len(last) and last[-1] > first[0]:
        margin = 0.02 * float(last[-1] - first[0])
        axes.set_xlim(float(first[0]) - margin, float(last[-1]) + margin)
    axes.set_xlabel(f"time since the job began [{clock.symbol}]")


def _ordered(run: RunData) -> pl.DataFrame:
    """VMs by the start of their group, then by when their snapshot was asked for."""
    begun = run.groups.select("group_id", begun="started_s")
    joined = run.vms.join(begun, on="group_id", how="left")
    return joined.sort(["begun", "group_id", "requested_s", "vm_id"], nulls_last=True)


def _longest(run: RunData) -> pl.DataFrame:
    end = pl.coalesce("merged_s", pl.lit(run.job["finished_s"]))
    lived = run.vms.with_columns(lived=end - pl.col("opened_s"))
    return (
        lived.filter(pl.col("lived").is_not_null())
        .sort(["lived", "vm_id"], descending=[True, False])
        .head(WORST_ROWS)
    )


def _rectangles(lefts: Floats, rights: Floats, rows: Floats, half: float) -> Floats:
    """Corners of one bar per row, shaped (bars, 4, 2)."""
    low, high = rows - half, rows + half
    corners = [(lefts, low), (rights, low), (rights, high), (lefts, high)]
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)


def _bars(axes: Axes, rows: pl.DataFrame, clock: Clock) -> None:
    indexed = rows.with_row_index("row")
    for phase, (begin, end) in _INTERVALS.items():
        half = 0.2 if phase == "create" else 0.38
        _bar(axes, indexed, pl.col(begin), pl.col(end), phase, half, clock)
    thaw = pl.col("quiesce_start_s") + pl.col("quiesce_s")
    _bar(axes, indexed, pl.col("quiesce_start_s"), thaw, "quiesce", 0.38, clock)
    for column in ("stun_create_start_s", "stun_remove_start_s"):
        _ticks(axes, indexed, column, clock)
    _crosses(axes, indexed, clock)
    axes.set_ylim(-0.7, rows.height - 0.3)
    tidy(axes, "x")


def _bar(
    axes: Axes,
    indexed: pl.DataFrame,
    begin: pl.Expr,
    end: pl.Expr,
    phase: str,
    half: float,
    clock: Clock,
) -> None:
    spans = indexed.select("row", begin=begin, end=end).drop_nulls()
    if spans.height == 0:
        return
    lefts, rights = clock.at(spans["begin"].to_numpy()), clock.at(spans["end"].to_numpy())
    verts = _rectangles(lefts, rights, spans["row"].cast(pl.Float64).to_numpy(), half)
    colour = PHASE_COLOURS[phase]
    # An edge of its own colour keeps a window shorter than a pixel visible.
    width = 0.8 if phase in ("quiesce", "merge") else 0.0
    bars = PolyCollection(
        list(verts), facecolor=colour, edgecolor=colour, linewidth=width, zorder=2
    )
    bars.set_label(phase)
    axes.add_collection(bars)


def _ticks(axes: Axes, indexed: pl.DataFrame, column: str, clock: Clock) -> None:
    seen = indexed.select("row", column).drop_nulls()
    if seen.height == 0:
        return
    x = clock.at(seen[column].to_numpy())
    y = seen["row"].cast(pl.Float64).to_numpy()
    segments = np.stack([np.stack([x, y - 0.38], -1), np.stack([x, y + 0.38], -1)], axis=1)
    width = 1.2 if indexed.height <= NAMED_ROWS else 0.7
    ticks = LineCollection(list(segments), colors=BLACK, linewidths=width, zorder=4)
    ticks.set_label(column)
    axes.add_collection(ticks)


def _crosses(axes: Axes, indexed: pl.DataFrame, clock: Clock) -> None:
    """A cross where a VM got no snapshot, or where its delta was left behind."""
    failed = indexed.filter(pl.col("opened_s").is_null() | pl.col("left_behind"))
    at = failed.select("row", at=pl.coalesce("removal_s", "opened_s", "requested_s")).drop_nulls()
    if at.height:
        x, y = clock.at(at["at"].to_numpy()), at["row"].to_numpy()
        size = 30 if indexed.height <= NAMED_ROWS else 16
        axes.scatter(x, y, marker="x", s=size, color=BLACK, linewidths=1.4, zorder=5)


def _cuts(axes: Axes, run: RunData, rows: pl.DataFrame, clock: Clock) -> None:
    """A vertical mark through the rows of a group where the array cut its units."""
    extent = (
        rows.with_row_index("row")
        .group_by("group_id")
        .agg(low=pl.col("row").min(), high=pl.col("row").max())
    )
    at = run.calls.select("group_id", at=pl.coalesce("cut_s", "completed_s")).drop_nulls()
    marks = at.join(extent, on="group_id").sort("at")
    if marks.height == 0:
        return
    x = clock.at(marks["at"].to_numpy())
    low = marks["low"].cast(pl.Float64).to_numpy() - 0.5
    high = marks["high"].cast(pl.Float64).to_numpy() + 0.5
    segments = np.stack([np.stack([x, low], -1), np.stack([x, high], -1)], axis=1)
    cuts = LineCollection(list(segments), colors=CUT_COLOUR, linewidths=2.2, zorder=6)
    cuts.set_label("array snapshot")
    axes.add_collection(cuts)


def _row_labels(axes: Axes, rows: pl.DataFrame, named: bool) -> None:
    indexed = rows.with_row_index("row")
    groups = indexed.group_by("group_id", maintain_order=True).agg(
        middle=pl.col("row").mean(), last=pl.col("row").max(), size=pl.len()
    )
    borders = [float(last) + 0.5 for last in groups["last"].to_list()[:-1]]
    axes.hlines(borders, 0, 1, transform=axes.get_yaxis_transform(), color=GREY, linewidth=0.5)
    if named:
        _names(axes, rows)
    else:
        shown = groups.filter(pl.col("size") >= rows.height / 40)
        axes.set_yticks(shown["middle"].to_list())
        axes.set_yticklabels(
            [f"{printable(g, 24)}\n{n} VMs" for g, n in shown.select("group_id", "size").rows()],
            fontsize=8,
        )
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()


def _names(axes: Axes, rows: pl.DataFrame) -> None:
    axes.set_yticks(range(rows.height))
    axes.set_yticklabels([printable(name, 26) for name in rows["name"].to_list()], fontsize=8)
    axes.tick_params(axis="y", length=0)


def _freezes(axes: Axes, rows: pl.DataFrame) -> None:
    """Each VM's freeze from its own start, with the stun inside it, in seconds."""
    indexed = rows.with_row_index("row")
    own = Clock(0.0, 1.0, "s")
    freeze = pl.col("quiesce_start_s")
    _bar(axes, indexed, freeze - freeze, pl.col("quiesce_s"), "quiesce", 0.38, own)
    stun = pl.col("stun_create_start_s") - freeze
    spans = indexed.select("row", begin=stun, end=stun + pl.col("stun_create_s")).drop_nulls()
    if spans.height:
        verts = _rectangles(
            spans["begin"].to_numpy(),
            spans["end"].to_numpy(),
            spans["row"].cast(pl.Float64).to_numpy(),
            0.2,
        )
        inside = PolyCollection(list(verts), facecolor=BLACK, linewidth=0, zorder=3)
        inside.set_label("stun")
        axes.add_collection(inside)
    longest = values_of(rows, "quiesce_s")
    axes.set_xlim(0, float(longest[-1]) * 1.04 if len(longest) else 1.0)
    axes.set_ylim(axes.get_ylim() if axes.yaxis_inverted() else (-0.7, rows.height - 0.3))
    axes.set_xlabel("time since the guest froze [s]")
    axes.tick_params(axis="y", length=0)
    tidy(axes, "x")


def _density(axes: Axes, run: RunData, clock: Clock) -> None:
    finished = float(run.job["finished_s"])
    edges = np.linspace(run.start_s, max(finished, run.start_s + 1e-6), BINS + 1)
    counts = []
    for phase, (begin, end) in _INTERVALS.items():
        # What was never released is open to the end; what was never made was never being made.
        last = pl.col(end) if phase == "create" else pl.col(end).fill_null(finished)
        spans = run.vms.select(begin=begin, end=last).drop_nulls()
        counts.append(occupancy(spans["begin"].to_numpy(), spans["end"].to_numpy(), edges))
    axes.stackplot(
        clock.at(edges),
        [np.append(count, count[-1]) for count in counts],
        colors=[PHASE_COLOURS[phase] for phase in _INTERVALS],
        step="post",
        linewidth=0,
    )
    _job_axis(axes, run, clock)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("VMs in this phase [count]")
    tidy(axes)
    spans = run.vms.select(
        begin="quiesce_start_s", end=pl.col("quiesce_start_s") + pl.col("quiesce_s")
    ).drop_nulls()
    together = peak(spans["begin"].to_numpy(), spans["end"].to_numpy())
    open_spans = run.vms.select(
        begin="opened_s", end=pl.coalesce("merged_s", pl.lit(finished))
    ).drop_nulls()
    live = peak(open_spans["begin"].to_numpy(), open_spans["end"].to_numpy())
    panel(
        axes,
        f"VMs in each phase. At most {count_of(live, 'VM snapshot')} existed at the same time, "
        f"and {count_of(together, 'guest')} were frozen at the same time",
    )
    _frozen_line(axes, spans, edges, clock)


def _frozen_line(axes: Axes, spans: pl.DataFrame, edges: Floats, clock: Clock) -> None:
    if spans.height == 0:
        return
    frozen = occupancy(spans["begin"].to_numpy(), spans["end"].to_numpy(), edges)
    axes.step(
        clock.at(edges),
        np.append(frozen, frozen[-1]),
        where="post",
        color=PHASE_COLOURS["quiesce"],
        linewidth=1.3,
    )


def _legend(run: RunData, counted: pl.DataFrame, drawn: pl.DataFrame) -> list[Patch | Line2D]:
    """Entries for what there is in the ``counted`` VMs and in those with a row of their own."""
    handles: list[Patch | Line2D] = []
    for phase, label in _LABELS.items():
        column = "quiesce_s" if phase == "quiesce" else _INTERVALS[phase][1]
        if counted[column].count():
            handles.append(Patch(facecolor=PHASE_COLOURS[phase], label=label))
    if drawn["stun_create_s"].count():
        handles.append(Line2D([], [], color=BLACK, linewidth=2, label="stun: vCPUs stopped"))
    if counted.height <= GANTT_ROWS and run.calls["completed_s"].count():
        handles.append(Line2D([], [], color=CUT_COLOUR, linewidth=2.2, label="array snapshot"))
    if drawn["opened_s"].null_count() or drawn["left_behind"].any():
        label = "failed or left behind"
        handles.append(Line2D([], [], color=INK, marker="x", linestyle="", label=label))
    return handles
