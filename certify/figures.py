"""What was measured, as pictures: one for each kind of operation, one row for each circumstance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..quantity import format_seconds
from ..reports.fig_style import (
    BLUE,
    INK,
    VERMILLION,
    headline,
    log_seconds,
    new_figure,
    printable,
    tidy,
)
from ..reports.figures import png
from ..reports.stats import percentile
from .certificate import Body
from .page import Picture

MOST_ROWS = 40
"""Circumstances in one picture; what else was measured is in the certificate."""
_SPREAD = 0.28
"""How far dots stand off the middle of their row, so that they do not hide one another."""


@dataclass(frozen=True, slots=True)
class Row:
    """All durations of one operation under one set of circumstances, sorted."""

    label: str
    values_s: tuple[float, ...]

    def at(self, per_cent: float) -> float:
        """A percentile, by nearest rank."""
        return float(percentile(np.array(self.values_s), per_cent) or 0.0)


def pictures(body: Body) -> list[Picture]:
    """One picture for each kind of operation that was measured, in the order of the checks."""
    made = []
    for name, rows in _measured(body).items():
        limits = {key: limit for key, limit in body.limits.items() if _is_limit_of(key, name)}
        drawn = png(latency(name, rows, limits))
        made.append(Picture(name, _words(name), _caption(name, body, limits), drawn))
    return made


def latency(name: str, rows: Sequence[Row], limits: Mapping[str, float]) -> Figure:
    """Every measurement as a dot, with medians and 95th percentiles, on one logarithmic axis.

    Parameters
    ----------
    rows:
        The circumstances, from the top down.
    limits:
        What the vendor states of this operation, in seconds by name.
    """
    shown = rows[:MOST_ROWS]
    figure = new_figure(1.5 + 0.42 * len(shown))
    axes = figure.add_subplot()
    every = [value for row in shown for value in row.values_s]
    edges = [value for value in (*every, *limits.values()) if value > 0] or [1e-3]
    low, high = min(edges) / 1.5, max(edges) * 1.5
    for place, row in enumerate(shown):
        _draw(axes, place, row, low)
    for key, limit_s in limits.items():
        _limit(axes, key.removesuffix("_s").rpartition("_")[2], limit_s)
    log_seconds(axes, low, high)
    axes.set_yticks(range(len(shown)), [_label(row) for row in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("duration [s], logarithmic")
    tidy(axes, "x")
    note = f"Left out: {len(rows) - len(shown)} more." if len(rows) > len(shown) else ""
    headline(figure, _finding(name, shown), note)
    return figure


def _draw(axes: Axes, place: int, row: Row, low: float) -> None:
    values = np.clip(np.array(row.values_s), low, None)
    # Spread evenly by rank: the same picture each time, and no dot right behind another.
    offsets = ((np.arange(len(values)) * 0.618034) % 1.0 - 0.5) * 2 * _SPREAD
    axes.scatter(values, place + offsets, s=24, color=BLUE, alpha=0.6, linewidths=0)
    p50, p95 = max(row.at(50), low), max(row.at(95), low)
    axes.plot([p50, p50], [place - 0.38, place + 0.38], color=INK, linewidth=2)
    axes.plot([p95], [place - 0.34], marker="v", color=INK, markersize=6, linestyle="none")


def _limit(axes: Axes, what: str, limit_s: float) -> None:
    axes.axvline(limit_s, color=VERMILLION, linewidth=1.4, linestyle=(0, (5, 3)))
    axes.annotate(
        printable(f"stated {what}: {format_seconds(limit_s)}"),
        (limit_s, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=VERMILLION,
    )


def _label(row: Row) -> str:
    times = f"median {format_seconds(row.at(50))}, p95 {format_seconds(row.at(95))}"
    return printable(f"{row.label}\n{times} ({len(row.values_s)})")


def _finding(name: str, rows: Sequence[Row]) -> str:
    medians = sorted(row.at(50) for row in rows)
    longest = max(row.values_s[-1] for row in rows)
    between = format_seconds(medians[0])
    if len(rows) > 1:
        between = f"{between} to {format_seconds(medians[-1])}"
    return f"{_words(name)}: median {between}, longest {format_seconds(longest)}"


def _measured(body: Body) -> dict[str, list[Row]]:
    gathered: dict[str, dict[str, list[float]]] = {}
    for result in body.requirements:
        for sample in result.samples:
            words = ", ".join(f"{key.replace('_', ' ')} {v}" for key, v in sample.labels.items())
            rows = gathered.setdefault(sample.name, {})
            rows.setdefault(words or "all", []).extend(sample.values_s)
    return {
        name: [Row(label, tuple(sorted(values))) for label, values in rows.items() if values]
        for name, rows in gathered.items()
        if any(rows.values())
    }


def _is_limit_of(limit: str, name: str) -> bool:
    return limit.removeprefix(f"{name.replace(' ', '_')}_") in ("p50_s", "p95_s", "p99_s", "max_s")


def _words(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _caption(name: str, body: Body, limits: Mapping[str, float]) -> str:
    sources = sorted(
        {row.id for row in body.requirements if any(one.name == name for one in row.samples)}
    )
    judged = " The dashed line is what the vendor states." if limits else ""
    return (
        f"Each dot is one measurement of {', '.join(sources)}, on the suite's clock; the bar is "
        "the median of a row, the triangle its 95th percentile (nearest rank), and in brackets "
        f"stands how many there are.{judged}"
    )
