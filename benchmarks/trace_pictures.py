"""The picture of docs/write-profiles.md: when the shipped trace writes, and what windows touch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from stillframe.sim.traceprofile import TraceProfile

INK, BURST, QUIET, BAND = "#22313f", "#c0392b", "#2471a3", "#aab7b8"
BIN_S = 10.0
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")

# The same look on every machine, whatever its own settings are.
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "stillframe",
}


def draw_bursts(profile: TraceProfile, folder: Path) -> Path:
    """Write ``write-profile-bursts.png`` into a folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "write-profile-bursts.png"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12.0, 5.0), layout="constrained")
        rate, sizes = figure.subplots(1, 2, gridspec_kw={"wspace": 0.08})
        _draw_rate(rate, profile)
        _draw_sizes(sizes, profile)
        figure.savefig(path, dpi=130, metadata={"Software": None})
    return path


def _draw_rate(axes: Axes, profile: TraceProfile) -> None:
    bins = round(profile.period_s / BIN_S)
    edges_s = np.linspace(0.0, profile.period_s, bins + 1)
    written = [
        profile.written_bytes(float(begin), float(end - begin)) for begin, end in pairwise(edges_s)
    ]
    rate = np.array(written) / np.diff(edges_s) / 1e6
    mean = profile.rate_bytes_per_s / 1e6
    axes.stairs(rate, edges_s / 60.0, color=BURST, fill=True, baseline=1e-3)
    axes.axhline(mean, color=INK, linewidth=1.0, linestyle="--")
    axes.text(33.0, mean * 1.1, f"mean {mean:.2f} MB/s", va="bottom")
    axes.set_yscale("log")
    axes.set_ylim(3e-3, 1e2)
    axes.yaxis.set_major_formatter(PLAIN)
    axes.set_xlim(0.0, profile.period_s / 60.0)
    axes.set_xlabel("minute of the trace")
    axes.set_ylabel(f"written, MB/s over {BIN_S:g} s")
    share = _busiest_share(profile, 180.0) * 100.0
    axes.set_title(f"The busiest 3 minutes write {share:.0f} % of the hour's bytes", loc="left")


def _busiest_share(profile: TraceProfile, window_s: float) -> float:
    busiest = max(profile.written_bytes(float(start), window_s) for start in profile.phases_s)
    return busiest / profile.totals.written_bytes


def _draw_sizes(axes: Axes, profile: TraceProfile) -> None:
    phases_s = profile.phases_s
    durations_s = np.geomspace(1.0, profile.period_s, 120)
    columns: list[NDArray[np.float64]] = []
    for duration_s in durations_s:
        sizes = profile.delta_bytes_many(phases_s, float(duration_s)) / 1e6
        columns.append(np.array([sizes.mean(), *np.percentile(sizes, (5, 50, 95, 99, 100))]))
    mean, p5, p50, p95, p99, most = np.array(columns).T
    floor = 4096 / 1e6
    axes.fill_between(
        durations_s, np.maximum(p5, floor), np.maximum(p95, floor), color=BAND, alpha=0.45
    )
    lines = (
        (most, "largest", BURST, ":"),
        (p99, "p99", BURST, "-"),
        (mean, "mean", INK, "--"),
        (p50, "p50", QUIET, "-"),
    )
    for values, label, colour, style in lines:
        axes.plot(durations_s, np.maximum(values, floor), style, color=colour, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1.0, profile.period_s)
    axes.set_ylim(floor, 2e3)
    axes.yaxis.set_major_formatter(PLAIN)
    ticks = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h"}
    axes.set_xticks([min(tick, profile.period_s) for tick in ticks], labels=list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel("how long the VM snapshot is open")
    axes.set_ylabel("delta size, MB (distinct 4 KiB grains)")
    axes.set_title("One guest: the delta depends on the moment", loc="left")
    axes.plot([], [], color=BAND, linewidth=8, alpha=0.45, label="p5 to p95")
    axes.legend(frameon=False, loc="lower right")
