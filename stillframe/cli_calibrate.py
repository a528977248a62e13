"""``stillframe calibrate``: model inputs from recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .cli_common import console, count, emit_json, may_write, print_table, progress, say, table
from .quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from .sim.calibrate import TraceSummary
    from .sim.fitted_profile import FittedProfile


def trace_command(file: Path, out: Path | None, *, force: bool, as_json: bool) -> None:
    """Measure a write profile, show it, and keep it if asked."""
    from .sim.calibrate import calibrate_trace
    from .sim.profilefile import save_profile

    if out is not None:
        may_write(out, force=force, suffix=".npz")
    with progress("Calibrating") as show:
        profile, summary = calibrate_trace(file, progress=show)
    if out is not None:
        save_profile(profile, out)
    if as_json:
        emit_json(
            {
                "name": profile.name,
                "source": summary.source,
                "period_s": summary.period_s,
                "totals": asdict(summary.totals),
                "distinct_bytes": summary.distinct_bytes,
                "rows": [asdict(row) for row in summary.rows],
                "profile": None if out is None else str(out),
            }
        )
        return
    _print_summary(summary)
    if out is not None:
        say(f"Write profile: {out}")


def _print_summary(summary: TraceSummary) -> None:
    out, totals = console(), summary.totals
    out.print(
        f"{totals.records:,} records over {format_seconds(summary.period_s)}: "
        f"{totals.writes:,} writes of {format_bytes(totals.written_bytes)}, "
        f"{totals.reads:,} reads of {format_bytes(totals.read_bytes)}"
    )
    rows = table(
        "Distinct bytes written in a window, over all moments at which it may begin",
        ("granularity", "window", "mean", "sd", "p50", "p95", "p99", "most"),
        right=(0, 1, 2, 3, 4, 5, 6, 7),
    )
    for row in summary.rows:
        rows.add_row(
            format_bytes(row.granularity_bytes),
            format_seconds(row.duration_s),
            *(
                format_bytes(value)
                for value in (
                    row.mean_bytes,
                    row.sd_bytes,
                    row.p50_bytes,
                    row.p95_bytes,
                    row.p99_bytes,
                    row.max_bytes,
                )
            ),
        )
    print_table(rows)


def lab_command(runs: Sequence[Path], out: Path | None, *, force: bool, as_json: bool) -> None:
    """Fit the model to live runs, show what came out, and keep it if asked."""
    from .lab.fit import fit, save_fitted
    from .lab.fit_record import records_of

    if out is not None:
        may_write(out, force=force, suffix=".yaml")
    with progress("Calibrating") as show:
        show(f"reading {count(len(runs), 'run')}", None)
        records = records_of(runs)
        show("fitting", None)
        profile = fit(records)
    if out is not None:
        save_fitted(profile, out)
    if as_json:
        emit_json({"file": None if out is None else str(out), **profile.document()})
        return
    _print_fitted(profile)
    if out is not None:
        say(f"Profile: {out}")


def _print_fitted(profile: FittedProfile) -> None:
    rows = table(
        f"Fitted to {count(len(profile.runs), 'run')} with driver {profile.driver} on array "
        f"{profile.array}",
        ("number", "value", "fitted to", "spread left"),
        right=(1, 2, 3),
    )
    for one in profile.numbers:
        spread = "" if one.spread is None else f"{one.spread:.2g}"
        rows.add_row(one.number, one.value, f"{one.observations:,}", spread)
    print_table(rows)
    for note in profile.notes:
        say(note)
