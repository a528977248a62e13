"""The report as one HTML file that needs nothing else: no network, no script, no manual."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..quantity import format_bytes, format_seconds
from .figures import FIGURES
from .rundata import RunData
from .sentences import STATUS_WORDS, caution, count_of, steps, verdict
from .stats import CALL_CLOCKS, CLOCKS, GUEST_LIMITS, over_limits, summaries, values_of, worst

ROWS = 50
"""Most rows of a table; how many more there are is said under it."""
WORST = 20


@dataclass(frozen=True, slots=True)
class Tile:
    """One number at the top of the page, with what it means."""

    value: str
    label: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table ready to print: ``numeric`` are the columns that are set flush right."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    hidden: int = 0
    numeric: frozenset[int] = frozenset()


def render(run: RunData, images: Mapping[str, bytes]) -> str:
    """The page.

    Parameters
    ----------
    run:
        The run.
    images:
        PNG files by figure name (see :data:`.figures.FIGURES`); those that are absent are left
        out.
    """
    page = _environment().get_template("report.html.j2")
    return page.render(
        meta=run.meta,
        status=STATUS_WORDS.get(run.meta["status"], str(run.meta["status"])),
        tone=_TONES.get(run.meta["status"], "bad"),
        verdict=verdict(run),
        caution=caution(run),
        tiles=_tiles(run),
        steps=steps(run),
        clocks=CLOCKS,
        call_clocks=CALL_CLOCKS,
        summary=_summary(run),
        limits=_limits(run),
        limit_sources=GUEST_LIMITS,
        figures=[
            (spec, base64.b64encode(images[spec.name]).decode())
            for spec in FIGURES
            if spec.name in images
        ],
        worst=[(clock, _worst(run, clock.column)) for clock in CLOCKS],
        failures=_failures(run),
        degraded=_degraded(run),
        groups=_groups(run),
        calls=_calls(run),
        limiters=_limiters(run),
        catalogue=_catalogue(run),
        seed="none" if run.meta["seed"] is None else str(run.meta["seed"]),
    )


_TONES = {"protected": "good", "partly-protected": "fair", "nothing-selected": "fair"}


@functools.cache
def _environment() -> Environment:
    # Names of VMs, reasons and titles come from outside: everything is escaped, always.
    environment = Environment(
        loader=PackageLoader("stillframe.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = format_seconds
    environment.filters["bytes"] = format_bytes
    environment.filters["thousands"] = lambda value: f"{value:,}"
    return environment


def _tiles(run: RunData) -> list[Tile]:
    job = run.job
    quiesce = values_of(run.vms, "quiesce_s")
    opens = values_of(run.vms, "open_s")
    fences = values_of(run.calls, "fence_s")
    over = over_limits(run)[0].over
    lost = job["selected"] - job["protected"]
    tiles = [
        Tile(
            f"{job['protected']:,} of {job['selected']:,}",
            "selected VMs protected",
            f"{lost:,} not protected" if lost else "",
            "bad" if lost else "good" if job["selected"] else "",
        ),
        Tile(
            f"{job['targeted_units']:,} of {job['estate_units']:,}",
            "storage units snapshotted",
            f"{format_bytes(job['targeted_bytes'])} of {format_bytes(job['estate_bytes'])}",
        ),
        Tile(
            format_seconds(job["makespan_s"]),
            "from start to end",
            "releases and merges included",
        ),
        Tile(
            _longest(quiesce),
            "longest freeze of a guest",
            f"{over:,} over 10 s" if len(quiesce) else "nobody could see it",
            "bad" if over else "",
        ),
        Tile(_longest(opens), "longest open VM snapshot", "guest writes went to a delta"),
        Tile(
            _longest(fences),
            "longest fence on an array",
            "writes held" if len(fences) else "no array reported it",
        ),
        Tile(f"{job['collateral']:,}", "collateral VMs", "on a targeted unit, not selected"),
        Tile(f"{job['retries']:,}", "calls repeated", f"{job['fallbacks']:,} fallbacks"),
    ]
    if run.meta["orphans"]:
        count = len(run.meta["orphans"])
        tiles.append(Tile(f"{count:,}", "left behind", "snapshots or deltas of ours", "bad"))
    return tiles


def _longest(values: Any) -> str:
    return format_seconds(float(values[-1])) if len(values) else "–"


def _summary(run: RunData) -> Grid:
    rows = []
    for row in summaries(run):
        bound = "≤ " if row.bounds else ""
        times = [
            f"{bound}{format_seconds(value)}" if value is not None else "–"
            for value in (row.p50_s, row.p95_s, row.p99_s, row.max_s)
        ]
        rows.append((row.clock.label, f"{row.count:,}", f"{row.absent:,}", *times, row.worst))
    heads = ("clock", "seen", "absent", "median", "p95", "p99", "longest", "longest at")
    return Grid(heads, rows, numeric=frozenset(range(1, 7)))


def _limits(run: RunData) -> Grid:
    rows = [
        (
            f"{row.limit.limit_s:.0f} s",
            row.limit.name,
            row.limit.meaning,
            f"{row.over:,} of {row.measured:,}",
        )
        for row in over_limits(run)
    ]
    return Grid(("limit", "of", "what happens", "guests over it"), rows, numeric=frozenset({0, 3}))


def _worst(run: RunData, column: str) -> Grid:
    rows = [
        (
            vm["name"],
            vm["group_id"],
            *[format_seconds(vm[clock.column]) for clock in CLOCKS],
            format_bytes(vm["delta_bytes"]),
            f"{vm['attempts']:,}",
            vm["level"],
        )
        for vm in worst(run, column, WORST).iter_rows(named=True)
    ]
    clocks = tuple(clock.label for clock in CLOCKS)
    heads = ("VM", "group", *clocks, "delta", "attempts", "level")
    return Grid(heads, rows, numeric=frozenset(range(2, len(heads) - 1)))


def _cut(frame: pl.DataFrame) -> tuple[list[dict[str, Any]], int]:
    return list(frame.head(ROWS).iter_rows(named=True)), max(0, frame.height - ROWS)


def _failures(run: RunData) -> Grid:
    failed = run.vms.filter((pl.col("status") != "protected") | pl.col("left_behind"))
    shown, hidden = _cut(failed)
    rows = [
        (
            vm["name"],
            vm["group_id"],
            vm["status"] + (", left behind" if vm["left_behind"] else ""),
            vm["reason"] or "no reason was recorded",
            f"{vm['attempts']:,}",
        )
        for vm in shown
    ]
    return Grid(("VM", "group", "outcome", "reason", "attempts"), rows, hidden, frozenset({4}))


_MARKS = {"degraded": "taken without a freeze", "moved": "moved since the plan"}


def _degraded(run: RunData) -> Grid:
    shown, hidden = _cut(run.vms.filter(pl.col("degraded") | pl.col("moved")))
    rows = []
    for vm in shown:
        marks = [text for column, text in _MARKS.items() if vm[column]]
        rows.append((vm["name"], vm["group_id"], ", ".join(marks), vm["level"]))
    return Grid(("VM", "group", "what happened", "level"), rows, hidden)


def _groups(run: RunData) -> Grid:
    ordered = run.groups.sort("started_s", nulls_last=True, maintain_order=True)
    shown, hidden = _cut(ordered)
    calls = dict(run.calls.group_by("group_id").agg(pl.col("units").list.len().sum()).rows())
    rows = []
    for group in shown:
        begin, end = group["started_s"], group["finished_s"]
        took = None if begin is None or end is None else end - begin
        rows.append(
            (
                group["group_id"],
                f"{len(group['vms']):,}",
                f"{calls.get(group['group_id'], 0):,}",
                format_seconds(None if begin is None else begin - run.start_s),
                format_seconds(took),
                group["error"] or "–",
            )
        )
    heads = ("group", "VMs", "units cut", "began after", "took", "error")
    return Grid(heads, rows, hidden, frozenset({1, 2, 3, 4}))


def _calls(run: RunData) -> Grid:
    shown, hidden = _cut(run.calls.sort("requested_s", maintain_order=True))
    rows = [
        (
            call["array_id"],
            call["group_id"],
            f"{len(call['units']):,}",
            format_seconds(call["requested_s"] - run.start_s),
            format_seconds(call["snapshot_s"]),
            format_seconds(call["fence_s"]),
            format_seconds(call["wait_s"]),
            f"{call['attempts']:,}",
            call["error"] or "–",
        )
        for call in shown
    ]
    heads = ("array", "group", "units", "sent after", "latency", "fence", "waited", "attempts",
             "error")  # fmt: skip
    return Grid(heads, rows, hidden, frozenset(range(2, 8)))


def _limiters(run: RunData) -> Grid:
    rows = []
    for wait in sorted(run.meta["limiters"], key=lambda row: (-row["total_s"], row["name"])):
        mean = wait["total_s"] / wait["waited"] if wait["waited"] else None
        rows.append(
            (
                wait["name"],
                f"{wait['calls']:,}",
                f"{wait['waited']:,}",
                format_seconds(wait["total_s"]),
                format_seconds(mean),
                format_seconds(wait["longest_s"]),
            )
        )
    heads = ("limit", "calls", "waited", "waiting together", "mean of those", "longest")
    return Grid(heads[:6], rows[:ROWS], max(0, len(rows) - ROWS), frozenset(range(1, 6)))


def _catalogue(run: RunData) -> Grid:
    levels = run.catalogue.group_by("level").agg(
        vms=pl.len(),
        snapshots=pl.col("tags").explode().n_unique(),
        units=pl.col("units").explode().n_unique(),
        first=pl.col("point_in_time_s").min(),
        last=pl.col("point_in_time_s").max(),
    )
    rows = [
        (
            row["level"],
            f"{row['vms']:,}",
            count_of(row["snapshots"], "group snapshot"),
            f"{row['units']:,}",
            format_seconds(row["first"] - run.start_s),
            format_seconds(row["last"] - run.start_s),
        )
        for row in levels.sort("vms", "level", descending=[True, False]).iter_rows(named=True)
    ]
    heads = ("level", "VMs", "held in", "units", "first cut after", "last cut after")
    return Grid(heads, rows, numeric=frozenset({1, 3, 4, 5}))
