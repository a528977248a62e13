"""How every figure looks: colours, units on axes, headlines; no global matplotlib state.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), which readers with any
form of colour blindness tell apart; those that appear together also differ in lightness, so that
a black-and-white print stays readable.
"""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ..quantity import format_bytes

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#8A8A8A"
GREY_AREA = "#BDBDBD"
LIGHT = "#D9D9D9"
INK = "#222222"
NOTE = "#555555"

CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW)
DASHES = ("-", "--", "-.", ":")

PHASE_COLOURS = {"create": LIGHT, "quiesce": VERMILLION, "open": SKY, "merge": BLUE}
CUT_COLOUR = GREEN

WIDTH_IN = 11.0
DPI = 120


def new_figure(height_in: float) -> Figure:
    """An empty figure of the common width; its layout keeps labels and legends apart."""
    return Figure(figsize=(WIDTH_IN, height_in), layout="constrained", facecolor="white")


def headline(figure: Figure, sentence: str, note: str = "") -> None:
    """The finding as a title, and under the figure in small type how to read it.

    A figure with a legend takes its note there (:func:`legend_below`).
    """
    title = _balanced(printable(sentence), 98)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    if note:
        figure.supxlabel(
            _balanced(printable(note), 150), x=0.01, ha="left", fontsize=8.5, color=NOTE
        )


_NUMBER_AND_UNIT = re.compile(r"(\d) (?=(?:µs|ms|s|min|h|B|[KMGTP]iB)\b|%)")


def _balanced(text: str, widest: int) -> str:
    """Lines of about equal length, none much longer than ``widest`` characters.

    A number stays on the line of its unit.
    """
    text = _NUMBER_AND_UNIT.sub("\\1\u00a0", text)
    lines = -(-len(text) // widest)
    return "\n".join(textwrap.wrap(text, len(text) // lines + 10)) if lines > 1 else text


def tidy(axes: Axes, grid: str = "both") -> None:
    """Light grid behind the data, no box around it; ``grid`` is "x", "y", "both" or "none"."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    if grid in ("both", "x", "y"):
        axes.grid(True, axis=grid, color="#E6E6E6", linewidth=0.8)  # type: ignore[arg-type]


def panel(axes: Axes, title: str) -> None:
    """A panel's own short title, flush left."""
    axes.set_title(printable(title), loc="left", fontsize=10, color=INK)


def legend_below(
    figure: Figure, handles: Sequence[object], columns: int = 7, note: str = ""
) -> None:
    """A legend under the axes, where it covers no data, with a note on how to read the figure."""
    if not handles:
        return
    legend = figure.legend(
        handles=list(handles),
        loc="outside lower left",
        ncols=min(columns, len(handles)),
        fontsize=8.5,
        frameon=False,
        handlelength=1.5,
        columnspacing=1.3,
        title=_balanced(printable(note), 150) or None,
        title_fontsize=8.5,
        alignment="left",
    )
    legend.get_title().set_color(NOTE)


def time_unit(span_s: float) -> tuple[float, str]:
    """Seconds per unit, and the unit's symbol, for an axis that spans ``span_s`` seconds."""
    if span_s <= 300:
        return 1.0, "s"
    return (60.0, "min") if span_s <= 3 * 3600 else (3600.0, "h")


def byte_unit(peak_bytes: float) -> tuple[float, str]:
    """Bytes per unit, and the unit's symbol, for an axis that goes up to ``peak_bytes``."""
    for name, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if peak_bytes >= size:
            return float(size), name
    return 1.0, "B"


def log_seconds(axes: Axes, low: float, high: float, which: str = "x") -> None:
    """A logarithmic axis of seconds from ``low`` to ``high`` whose ticks are plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    decades = np.log10(high / low)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if decades < 0.8 else (1, 2, 5) if decades < 3 else (1,)
    ticks = [step * 10.0**power for power in range(-5, 8) for step in steps]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def log_bytes(axes: Axes, low: float, high: float, which: str = "x") -> None:
    """A logarithmic axis of bytes with ticks at 1, 10 and 100 of each binary unit."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    ticks = [step * 1024.0**power for power in range(6) for step in (1, 10, 100)]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_major_locator(FixedLocator(shown))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))


def printable(text: str, longest: int = 0) -> str:
    """Text as the figures' font can draw it: no mathematics, no glyphs that are missing.

    ``longest`` is the number of characters after which an ellipsis follows; 0 for no limit.
    """
    known = _glyphs()
    clean = "".join(letter if ord(letter) in known else "?" for letter in text if letter != "\r")
    if longest and len(clean) > longest:
        clean = clean[: longest - 1] + "…"
    return clean.replace("$", r"\$")


@functools.cache
def _glyphs() -> frozenset[int]:
    font = FT2Font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap()) | {10}


def empty(sentence: str, reason: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = new_figure(1.6)
    headline(figure, sentence)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.0, 0.5, printable(reason), fontsize=10, color=NOTE, transform=axes.transAxes)
    return figure


def thin(count: int, most: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of at most ``most`` of ``count`` points, evenly spread, first and last included."""
    if count <= most:
        return np.arange(count, dtype=np.int64)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
