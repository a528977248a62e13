"""Renew the tables of docs/validation.md from out/evidence, nothing typed by hand.

python -m benchmarks.validation_page
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from stillframe.quantity import format_seconds

from .evidence import OUT
from .evidence_page import row as figure_row

PAGE = Path(__file__).resolve().parents[1] / "docs" / "validation.md"
BEGIN = "<!-- tables: begin (python -m benchmarks.validation_page) -->"
END = "<!-- tables: end -->"


def tables(figures: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The figures, then each array and clock with its cells."""
    python = f"{about['implementation']} {about['python']}"
    lines = [
        (
            f"Measured {about['date']} on {about['cpus']} CPUs, {about['platform']}, {python}; "
            f"{about['modelled_runs']} modelled runs for each cell."
        ),
        "",
        "| figure | value | aim | met |",
        "|---|---|---|---|",
        *map(figure_row, figures),
    ]
    rows = about["table"]
    for array, label in dict.fromkeys((row["array"], row["label"]) for row in rows):
        cells = [row for row in rows if (row["array"], row["label"]) == (array, label)]
        lines += ["", f"### {array}: {label}", "", *_table(cells)]
    lines += [f"\nNot measured: {failure}." for failure in about["failures"]]
    return "\n".join(lines)


def _table(cells: list[dict[str, Any]]) -> list[str]:
    lines = [
        (
            "| guests | load | used in the fit | runs | values "
            "| p50 measured | predicted | error | p95 measured | predicted | error |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in cells:
        if one["percent"] != 50:
            continue
        other = next(
            row
            for row in cells
            if row["percent"] == 95 and (row["guests"], row["load"]) == (one["guests"], one["load"])
        )
        start = [str(one["guests"]), one["load"], "yes" if one["in_fit"] else "", str(one["runs"])]
        columns = [*start, str(one["values"]), *_percentile(one), *_percentile(other)]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def _percentile(row: dict[str, Any]) -> list[str]:
    ends = row["range_s"]
    around = "" if ends is None else f" ({' to '.join(format_seconds(end) for end in ends)})"
    error = "–" if row["error"] is None else f"{100 * row['error']:+.0f} %"
    return [format_seconds(row["measured_s"]) + around, format_seconds(row["predicted_s"]), error]


def renewed(page: str, made: str) -> str:
    """The page with what stands between the marks replaced.

    Raises
    ------
    ValueError
        The page does not have both marks, once each and in order.
    """
    before, found, rest = page.partition(BEGIN)
    _, also, after = rest.partition(END)
    if not found or not also or BEGIN in rest:
        raise ValueError(f"{PAGE.name} does not have {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def main() -> None:
    """Renew the page; the evidence must have been measured."""
    files = [OUT / "validation.json", OUT / "validation.machine.json"]
    if not all(file.is_file() for file in files):
        sys.exit("measure first: make evidence-validation")
    figures, about = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(renewed(page, tables(figures, about)), encoding="utf-8")
    print(PAGE.relative_to(PAGE.parents[1]))


if __name__ == "__main__":
    main()
