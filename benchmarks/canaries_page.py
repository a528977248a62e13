"""Renew docs/canaries.md from out/evidence, nothing typed by hand.

python -m benchmarks.canaries_page
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from .evidence import OUT
from .evidence_page import row as figure_row

PAGE = Path(__file__).resolve().parents[1] / "docs" / "canaries.md"
HEAD = """# Canaries

Drivers that are broken on purpose, one way each, and what of the conformance kit notices. Every
[requirement](requirements.md) has one at least. A canary has to fail its requirement; what else it
fails, it cannot help, and the reason is beside it. Written from what `make evidence-canaries`
measured, on the modelled targets.
"""
_TITLES = {"array": "Array drivers", "hypervisor": "Hypervisor drivers"}


def page(figures: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The whole document."""
    python = f"{about['implementation']} {about['python']}"
    lines = [
        HEAD,
        f"Measured {about['date']}, effort {about['effort']}, {python}.\n",
        "| figure | value | aim | met |",
        "|---|---|---|---|",
        *map(figure_row, figures),
    ]
    if about["without"]:
        lines.append(f"\nWithout a canary: {', '.join(about['without'])}.")
    for one in about["false"]:
        where = f"{one['target']}, seed {one['seed']}"
        lines.append(f"\nFalse failure of {one['requirement']} on {where}: {one['reason']}.")
    for kind, rows in groupby(about["table"], key=lambda row: row["kind"]):
        lines += [f"\n## {_TITLES[kind]}\n", *_table(list(rows))]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| requirement | canary | what is wrong with it | caught | also fails |"]
    lines += ["|---|---|---|---|---|"]
    for one in sorted(rows, key=lambda row: row["breaks"]):
        caught = "yes" if one["caught"] else f"**{one['verdict']}**"
        cells = (one["breaks"], one["canary"], one["sentence"], caught, _also(one))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def _also(one: dict[str, Any]) -> str:
    parts = []
    if one["declared"]:
        parts.append(f"{', '.join(one['declared'])}: {one['because']}")
    if one["undeclared"]:
        parts.append(f"**{', '.join(one['undeclared'])}**")
    return "; ".join(parts)


def main() -> None:
    """Write the page."""
    figures = json.loads((OUT / "canaries.json").read_text(encoding="utf-8"))
    about = json.loads((OUT / "canaries.machine.json").read_text(encoding="utf-8"))
    PAGE.write_text(page(figures, about), encoding="utf-8")
    print(PAGE.relative_to(PAGE.parents[1]))


if __name__ == "__main__":
    main()
