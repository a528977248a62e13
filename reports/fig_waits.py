"""How long calls waited, limit by limit."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from ..quantity import format_seconds
from .fig_style import BLUE, INK, empty, headline, new_figure, printable, tidy, time_unit
from .rundata import RunData
from .sentences import waiting

ROWS = 15


def waits(run: RunData) -> Figure:
    """Total waiting per limit, longest first, with how many calls waited and for how long."""
    rows: list[dict[str, Any]] = [row for row in run.meta["limiters"] if row["total_s"] > 0]
    if not rows:
        return empty(waiting(run), "Every call found a free place in each of its limits.")
    rows.sort(key=lambda row: (-row["total_s"], row["name"]))
    hidden = len(rows) - ROWS
    rows = rows[:ROWS]
    figure = new_figure(1.7 + 0.42 * len(rows))
    axes = figure.add_subplot()
    unit_s, symbol = time_unit(rows[0]["total_s"])
    lengths = [row["total_s"] / unit_s for row in rows]
    axes.barh(range(len(rows)), lengths, color=BLUE, height=0.62)
    for index, row in enumerate(rows):
        axes.annotate(
            f"{row['waited']:,} of {row['calls']:,} calls waited, longest "
            f"{format_seconds(row['longest_s'])}",
            (lengths[index], index),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=INK,
        )
    axes.set_yticks(range(len(rows)))
    axes.set_yticklabels([printable(row["name"], 34) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, lengths[0] * 1.55)
    axes.set_xlabel(f"waiting of all calls together [{symbol}]")
    tidy(axes, "x")
    note = f"{hidden} limits with less waiting are not drawn." if hidden > 0 else ""
    headline(figure, waiting(run), note)
    return figure
