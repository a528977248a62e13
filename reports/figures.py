"""The figures of a report: their order, their captions, and how they become files."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from . import fig_array, fig_delta, fig_ecdf, fig_topology, fig_waits, fig_windows
from .fig_style import DPI
from .rundata import RunData


@dataclass(frozen=True, slots=True)
class FigureSpec:
    """One figure: its file name without ending, what it shows, and what draws it.

    ``draw`` gives None when the run has nothing of the kind (a live run has no series).
    """

    name: str
    heading: str
    caption: str
    draw: Callable[[RunData], Figure | None]


FIGURES = (
    FigureSpec(
        "windows",
        "The four clocks of every VM",
        "Each VM's way through the job. Orange-red: the guest is frozen and its applications wait. "
        "Light blue: the VM snapshot is open and the guest writes to a delta that grows. Dark "
        "blue: the delta is merged into the base disk. Green lines: the array cut the group's "
        "units. In large estates VMs are counted by phase, and only the longest windows keep rows.",
        fig_windows.windows,
    ),
    FigureSpec(
        "quiesce-ecdf",
        "How long guests were frozen",
        "The share of guests that were frozen for no longer than a time. The dashed lines are "
        "limits of the guests: past 10 s the Windows volume shadow copy service releases held "
        "writes, past 20 s Exchange gives up, past 60 s VSS writers do.",
        fig_ecdf.quiesce_ecdf,
    ),
    FigureSpec(
        "clocks-ecdf",
        "All clocks side by side",
        "The same view for every clock. Where curves are far apart, one phase dominates; a long "
        "flat end to the right means that a few VMs take much longer than the others.",
        fig_ecdf.clocks_ecdf,
    ),
    FigureSpec(
        "delta",
        "Delta growth and merge",
        "What guests wrote while their snapshots were open has to be stored and merged. Below, "
        "each dot (or cell) is a VM: how large its delta grew in its open time, and how long the "
        "merge took.",
        fig_delta.delta_growth,
    ),
    FigureSpec(
        "array-calls",
        "Array latency and fence",
        "One mark per group call. Latency is what the orchestrator waits for; the fence is what "
        "guests feel: writes to all units of the group are held so that they are cut at one point.",
        fig_array.calls,
    ),
    FigureSpec(
        "topology",
        "What was touched",
        "VMs, the datastores they lie on, the storage units under these, and the arrays. A colour "
        "is a component: units that selected VMs tie together and that are therefore snapshotted "
        "together. Collateral VMs share a targeted unit although nobody selected them.",
        fig_topology.topology,
    ),
    FigureSpec(
        "pools",
        "Pools against their capacity",
        "Snapshots take space from the array's pool while guests go on writing. At 100 % the array "
        "invalidates snapshots or refuses writes.",
        fig_array.pools,
    ),
    FigureSpec(
        "array-load",
        "Load on the arrays",
        "Guest writes and copies of old data share the array with merges and slow them down.",
        fig_array.load,
    ),
    FigureSpec(
        "waits",
        "Waiting for limits",
        "How long calls waited for a free place in each limit, all calls together. A limit that "
        "costs much waiting paces the job; it may also be what protects hosts and datastores.",
        fig_waits.waits,
    ),
)


def draw_all(run: RunData) -> dict[str, Figure]:
    """Every figure that this run has data for, by name, in the order of :data:`FIGURES`."""
    drawn = ((spec.name, spec.draw(run)) for spec in FIGURES)
    return {name: figure for name, figure in drawn if figure is not None}


def png(figure: Figure) -> bytes:
    """The figure as PNG: the same bytes for the same run and the same matplotlib."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
