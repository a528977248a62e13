"""A run's outcome as tables for the terminal."""

from __future__ import annotations

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..quantity import format_seconds
from .rundata import RunData
from .sentences import (
    STATUS_WORDS,
    array_calls,
    blast_radius,
    caution,
    clearing,
    frozen,
    verdict,
    waiting,
)
from .stats import over_limits, summaries

FAILURES = 10
_COLOURS = {"protected": "green", "partly-protected": "yellow", "nothing-selected": "yellow"}


def print_summary(run: RunData, console: Console) -> None:
    """Print how the job ended: the verdict, the clocks, the guests' limits and the failures."""
    status = str(run.meta["status"])
    colour = _COLOURS.get(status, "red")
    words = STATUS_WORDS.get(status, status)
    console.print(f"[bold {colour}]{escape(words)}[/]  {escape(verdict(run))}")
    if caution(run):
        console.print(f"[bold yellow]{escape(caution(run))}[/]")
    if status == "nothing-selected":
        return
    console.print(f"{escape(upper_end(blast_radius(run)))} {escape(upper_end(array_calls(run)))}")
    console.print(_clocks(run))
    console.print(f"{escape(upper_end(frozen(run)))} {escape(upper_end(waiting(run)))}")
    over = [row for row in over_limits(run) if row.over]
    for row in over:
        console.print(
            f"[yellow]{row.over:,} of {row.measured:,} guests were frozen for more than "
            f"{row.limit.limit_s:.0f} s[/] ({escape(row.limit.name)}: {escape(row.limit.meaning)})"
        )
    _print_failures(run, console)


def upper_end(sentence: str) -> str:
    """The sentence with its full stop."""
    return sentence if sentence.endswith(".") else f"{sentence}."


def _clocks(run: RunData) -> Table:
    table = Table(title="Measured times", title_justify="left", title_style="bold")
    table.add_column("clock")
    for name in ("seen", "median", "p95", "p99", "longest"):
        table.add_column(name, justify="right")
    table.add_column("longest at")
    for row in summaries(run):
        if row.count == 0:
            table.add_row(row.clock.label, "0", *["–"] * 4, "[dim]nobody could see it[/]")
            continue
        bound = "≤ " if row.bounds else ""
        values = (row.p50_s, row.p95_s, row.p99_s, row.max_s)
        table.add_row(
            row.clock.label,
            f"{row.count:,}",
            *[f"{bound}{format_seconds(value)}" for value in values],
            escape(row.worst),
        )
    return table


def _print_failures(run: RunData, console: Console) -> None:
    failed = run.vms.filter((pl.col("status") != "protected") | pl.col("left_behind"))
    if failed.height:
        table = Table(title="Not protected, or left behind", title_justify="left",
                      title_style="bold")  # fmt: skip
        table.add_column("VM")
        table.add_column("group")
        table.add_column("reason")
        for name, group, reason in (
            failed.select("name", "group_id", "reason").head(FAILURES).rows()
        ):
            table.add_row(escape(name), escape(group), escape(reason))
        console.print(table)
        if failed.height > FAILURES:
            console.print(f"… and {failed.height - FAILURES:,} more, in the report")
    for orphan in run.meta["orphans"][:FAILURES]:
        console.print(f"[red]left behind:[/] {escape(str(orphan))}")
    if clearing(run):
        console.print(escape(clearing(run)), soft_wrap=True)
