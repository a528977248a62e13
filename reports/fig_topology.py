"""VM | datastore | storage unit | array, coloured by component, with collateral VMs marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .fig_style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    empty,
    headline,
    legend_below,
    new_figure,
    printable,
)
from .rundata import RunData
from .sentences import blast_radius, count_of
from .topology_view import View, VmNode, build_view

COMPONENT_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
"""Without vermillion, which marks collateral VMs."""
COLUMNS = {"vm": 0.0, "datastore": 1.0, "unit": 2.0, "array": 3.0}
BAR = 0.55
"""Length of the bar of the node with the most VMs, in columns."""

LETTER = 0.028
"""Room for a letter of a label, in columns: text does not scale with the axes."""

Heights = dict[str, float]


def topology(run: RunData) -> Figure:
    """The layered picture of what is targeted; large estates are collapsed into counts."""
    if run.placements.height == 0:
        return empty(blast_radius(run), "Where the VMs lie was not recorded.")
    view = build_view(run)
    rows = max(len(view.vms), len(view.datastores), len(view.units))
    figure = new_figure(min(12.5, 2.6 + 0.26 * rows))
    axes = figure.add_subplot()
    colour = _colours(view)
    vm_y = {str(index): float(index) for index in range(len(view.vms))}
    store_y = _placed(
        [(store, [float(i) for i, t in view.vm_edges if t == store]) for store in view.datastores],
        len(view.vms),
    )
    unit_y = _placed([(unit, _above(view, unit, store_y)) for unit in view.units], len(view.vms))
    array_y = _spread(
        [
            (array, [unit_y[unit] for unit in view.units if view.unit_array[unit] == array])
            for array in view.arrays
        ],
        len(view.vms),
    )
    _edges(axes, view, colour, (vm_y, store_y, unit_y, array_y))
    (_single_vms if view.single else _counted_vms)(axes, view, colour)
    _boxes(axes, view, colour, store_y, unit_y, array_y)
    _columns(axes, view, len(view.vms))
    headline(figure, blast_radius(run))
    legend_below(figure, _legend(view), note=_note(view))
    return figure


def _colours(view: View) -> dict[int | None, str]:
    """A colour per component, in the order in which they are drawn, so that neighbours differ."""
    order = dict.fromkeys(node.component for node in view.vms if node.component is not None)
    colours: dict[int | None, str] = {
        number: COMPONENT_COLOURS[index % len(COMPONENT_COLOURS)]
        for index, number in enumerate(order)
    }
    colours[None] = GREY
    return colours


def _above(view: View, unit: str, store_y: Heights) -> list[float]:
    through = [store_y[store] for store, below in view.unit_edges if below == unit]
    raw = [float(index) for index, target in view.vm_edges if target == unit]
    return through + raw


def _placed(wanted: Sequence[tuple[str, list[float]]], rows: int) -> Heights:
    """Heights near the mean of the neighbours, in the same order, at least one gap apart."""
    if not wanted:
        return {}
    items = sorted(
        ((float(np.mean(near)) if near else 0.0, position, name)
         for position, (name, near) in enumerate(wanted))
    )  # fmt: skip
    gap = min(1.0, max(0.0, rows - 1) / max(1, len(items) - 1))
    heights: list[float] = []
    for mean, _, _ in items:
        heights.append(max(mean, heights[-1] + gap) if heights else mean)
    overflow = max(0.0, heights[-1] - (rows - 1))
    top = len(heights) - 1
    # Push back what ran over the lower edge, from the last one up.
    for index in range(top, -1, -1):
        ceiling = (rows - 1) if index == top else heights[index + 1] - gap
        heights[index] = min(heights[index], ceiling) if overflow else heights[index]
    return {name: height for (_, _, name), height in zip(items, heights, strict=True)}


def _spread(wanted: Sequence[tuple[str, list[float]]], rows: int) -> Heights:
    """Heights evenly over all rows, in the order of the mean of the neighbours."""
    order = sorted((float(np.mean(near)), name) for name, near in wanted)
    step = rows / max(1, len(order))
    return {name: (index + 0.5) * step - 0.5 for index, (_, name) in enumerate(order)}


def _edges(
    axes: Axes,
    view: View,
    colour: dict[int | None, str],
    heights: tuple[Heights, Heights, Heights, Heights],
) -> None:
    vm_y, store_y, unit_y, array_y = heights
    # Level up to where the label of the node ends, so that no line crosses another one's label.
    lines: list[tuple[list[tuple[float, float]], str]] = []
    for index, target in view.vm_edges:
        column, y = (1.0, store_y[target]) if target in store_y else (2.0, unit_y[target])
        own = colour[view.vms[index].component]
        lines.append(([(0.0, vm_y[str(index)]), (column, y)], own))
    for store, unit in view.unit_edges:
        own = colour[view.component.get(unit)]
        y = store_y[store]
        lines.append(([(1.0, y), (1.5, y), (2.0, unit_y[unit])], own))
    for unit in view.units:
        own = colour[view.component.get(unit)]
        y = unit_y[unit]
        lines.append(([(2.0, y), (2.62, y), (3.0, array_y[view.unit_array[unit]])], own))
    axes.add_collection(
        LineCollection(
            [points for points, _ in lines],
            colors=[own for _, own in lines],
            linewidths=1.1,
            alpha=0.75,
            zorder=1,
        )
    )


def _single_vms(axes: Axes, view: View, colour: dict[int | None, str]) -> None:
    for role, marker in (("selected", "o"), ("collateral", "D"), ("other", "o")):
        at = [index for index, node in enumerate(view.vms) if node.counts[role]]
        if not at:
            continue
        hollow = role != "selected"
        edge = VERMILLION if role == "collateral" else GREY
        own = [colour[view.vms[index].component] for index in at]
        axes.scatter(
            [0.0] * len(at),
            at,
            marker=marker,
            s=42,
            color="white" if hollow else own,
            edgecolors=edge if hollow else own,
            linewidths=1.8 if role == "collateral" else 1.0,
            zorder=3,
        )
    for index, node in enumerate(view.vms):
        mark = VERMILLION if node.counts["collateral"] else INK
        _label(axes, -0.05, index, _vm_label(view, node), "right", mark)


def _vm_label(view: View, node: VmNode) -> str:
    if view.single:
        return printable(node.names[0], 30) + (" (collateral)" if node.counts["collateral"] else "")
    return " + ".join(f"{count:,} {role}" for role, count in node.counts.items() if count)


def _counted_vms(axes: Axes, view: View, colour: dict[int | None, str]) -> None:
    """One bar per node: selected in the component's colour, collateral hatched, others hollow."""
    scale = BAR / _largest(view)
    selected = np.array([node.counts["selected"] for node in view.vms]) * scale
    collateral = np.array([node.counts["collateral"] for node in view.vms]) * scale
    others = np.array([node.counts["other"] for node in view.vms]) * scale
    others = np.minimum(others, BAR - np.minimum(BAR, selected + collateral))
    rows = np.arange(len(view.vms))
    own = [colour[node.component] for node in view.vms]
    axes.barh(rows, -selected, height=0.62, color=own, zorder=3)
    hatched = collateral > 0
    axes.barh(
        rows[hatched],
        -collateral[hatched],
        left=-selected[hatched],
        height=0.62,
        color="white",
        edgecolor=VERMILLION,
        hatch="/////",
        linewidth=1.0,
        zorder=3,
    )
    axes.barh(rows, -others, left=-selected - collateral, height=0.62, color=LIGHT, zorder=3)
    for index, node in enumerate(view.vms):
        end = -float(selected[index] + collateral[index] + others[index]) - 0.03
        mark = VERMILLION if node.counts["collateral"] else INK
        _label(axes, end, index, _vm_label(view, node), "right", mark)


def _largest(view: View) -> int:
    """VMs in the largest node that is targeted: what is not touched must not dwarf the rest."""
    targeted = [node.size for node in view.vms if node.component is not None]
    return max(targeted or [node.size for node in view.vms])


def _boxes(
    axes: Axes,
    view: View,
    colour: dict[int | None, str],
    store_y: Heights,
    unit_y: Heights,
    array_y: Heights,
) -> None:
    for column, heights, marker in ((1.0, store_y, "s"), (2.0, unit_y, "o")):
        own = [colour[view.component.get(name)] for name in heights]
        face = [
            "white" if view.component.get(name) is None else shade
            for name, shade in zip(heights, own, strict=True)
        ]
        axes.scatter(
            [column] * len(heights), list(heights.values()), marker=marker, s=48,
            color=face, edgecolors=own, linewidths=1.3, zorder=3,
        )  # fmt: skip
    for name, y in store_y.items():
        kind = view.datastores[name].upper()
        _label(axes, 1.04, y, f"{printable(name, 24)} {kind}".rstrip(), "left", INK)
    for name, y in unit_y.items():
        number = view.component.get(name)
        text = printable(name, 26) + (
            f"  C{number}" if number is not None and not view.collapsed else ""
        )
        _label(axes, 2.04, y, text, "left", GREY if number is None else INK)
    axes.scatter([3.0] * len(array_y), list(array_y.values()), marker="s", s=80, color=INK,
                 zorder=3)  # fmt: skip
    for name, y in array_y.items():
        _label(axes, 3.05, y, printable(name, 24), "left", INK)


def _label(axes: Axes, x: float, y: float, text: str, align: str, colour: str) -> None:
    axes.text(
        x,
        y,
        text,
        ha=align,
        va="center",
        fontsize=7.5,
        color=colour,
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
    )


def _columns(axes: Axes, view: View, rows: int) -> None:
    axes.set_axis_off()
    widest = max(len(_vm_label(view, node)) for node in view.vms)
    array = max(len(printable(name, 24)) for name in view.arrays)
    left = (0.0 if view.single else BAR) + 0.08 + LETTER * widest
    axes.set_xlim(-left, 3.1 + LETTER * max(array, len("arrays")))
    axes.set_ylim(max(rows, 2) - 0.3, -1.6)
    titles = ("VMs", "datastores", "storage units", "arrays")
    for title, column in zip(titles, COLUMNS.values(), strict=True):
        align = "right" if column == 0 else "left"
        axes.text(column, -1.2, title, ha=align, fontsize=9.5, fontweight="bold", color=INK)


def _legend(view: View) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = []
    roles = {role for node in view.vms for role, count in node.counts.items() if count}
    if "selected" in roles:
        label = "selected (colour: component)"
        handles.append(Patch(facecolor=BLUE, label=label))
    if "collateral" in roles:
        label = "collateral: not selected, but on a targeted unit"
        handles.append(
            Patch(facecolor="white", edgecolor=VERMILLION, hatch="" if view.single else "/////",
                  label=label)
        )  # fmt: skip
    if "other" in roles:
        handles.append(Patch(facecolor=LIGHT, label="not touched"))
    return handles


def _note(view: View) -> str:
    note = "" if view.single else "VMs on the same datastores are drawn as one bar. "
    if view.collapsed:
        note = "One row per component: its VMs, datastores and units, counted. "
    if not view.single and any(node.size > _largest(view) for node in view.vms):
        note += "The longest bars of VMs that are not touched are shortened. "
    if view.hidden_vms:
        note += (
            f"Not drawn: {count_of(view.hidden_vms, 'VM')} in {view.hidden_nodes:,} "
            "further rows; the components with the most storage units are shown."
        )
    return note
