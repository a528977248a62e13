"""``make evidence-ablation``: each safeguard taken out of the source, and what notices.

The whole first: no run may break an invariant. Then, one after the other, a copy of the package
without one safeguard is explored over the same scenarios and seeds. A removal that nothing notices
is a gap in the harness, or a safeguard that does nothing. What is noticed ten times in the first
3,000 runs is explored no further; the others go on to 10,000.

``--quick`` explores a tenth of it; ``--only NAME`` some removals, and writes no evidence.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from rich.console import Console

from stillframe.scenarios.schema import list_scenarios

from .ablate import Removal, explore_without
from .evidence import Figure, write_evidence
from .safeguards import REMOVALS

WHOLE_RUNS = 100_000
RUNS_WITHOUT = 10_000
FIRST_LOOK_RUNS = 3_000
ENOUGH_FAILURES = 10
"""Seen so often in the first look, a removal's rate is known well enough."""
CONSOLE = Console(stderr=True)


def explored(removal: Removal | None, runs: int, first_seed: int = 0) -> dict[str, Any]:
    """What exploring all shipped scenarios finds; rounded up to whole scenarios."""
    seeds = -(-runs // len(list_scenarios()))
    name = "nothing" if removal is None else removal.safeguard
    CONSOLE.print(f"without {name}: {seeds:,} seeds of each scenario", highlight=False)
    began = time.monotonic()
    arguments = ["--all", "--from", str(first_seed), "--seeds", str(seeds)]
    found = explore_without(removal, [*arguments, "--jobs", str(os.cpu_count() or 1)])
    found["wall_s"] = time.monotonic() - began
    found["next_seed"] = first_seed + seeds
    failed, all_runs = found["runs_with_violation"], found["runs"]
    CONSOLE.print(f"  {failed:,} of {all_runs:,} runs, {found['wall_s']:.0f} s", highlight=False)
    return found


def explored_enough(removal: Removal, runs: int) -> dict[str, Any]:
    """A first look, and where it shows little the rest of the runs."""
    look = explored(removal, min(runs, FIRST_LOOK_RUNS))
    if look["runs"] >= runs or look["runs_with_violation"] >= ENOUGH_FAILURES:
        return look
    rest = explored(removal, runs - look["runs"], look["next_seed"])
    return {
        "violations": [*look["violations"], *rest["violations"]],
        "runs": look["runs"] + rest["runs"],
        "runs_with_violation": look["runs_with_violation"] + rest["runs_with_violation"],
    }


def row(removal: Removal, found: dict[str, Any]) -> dict[str, Any]:
    """One line of the table: what breaks first, and how often."""
    violations = found["violations"]
    first = min(violations, key=lambda one: (one["first_seed"], one["scenario"]), default=None)
    return {
        "safeguard": removal.safeguard,
        "purpose": removal.purpose,
        "breaks": sorted({one["invariant"] for one in violations}),
        "first": None if first is None else f"{first['scenario']} --seed {first['first_seed']}",
        "sentence": None if first is None else first["sentence"],
        "per_10000": 1e4 * found["runs_with_violation"] / found["runs"],
        "runs": found["runs"],
    }


def main() -> None:
    """Explore and write the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--runs", type=int)
    arguments = parser.parse_args()
    scale = 0.1 if arguments.quick else 1.0
    chosen = [one for one in REMOVALS if not arguments.only or one.safeguard in arguments.only]
    runs = arguments.runs or round(RUNS_WITHOUT * scale)
    rows = []
    for removal in chosen:
        rows.append(row(removal, explored_enough(removal, runs)))
        CONSOLE.print_json(data=rows[-1])
    if arguments.only or arguments.runs:
        return
    whole = explored(None, round(WHOLE_RUNS * scale))
    unnoticed = [one["safeguard"] for one in rows if not one["breaks"]]
    figures = [
        Figure(
            "whole: seeded runs over all shipped scenarios",
            whole["runs"],
            "runs",
            f">= {WHOLE_RUNS} runs",
        ),
        Figure(
            "whole: runs that break an invariant", whole["runs_with_violation"], "runs", "== 0 runs"
        ),
        Figure("whole: processes killed in them", whole["crashes"], "processes"),
        Figure("whole: faults fired in them", sum(whole["fired"].values()), "faults"),
        Figure("safeguards removed, one at a time", len(rows), "safeguards", ">= 15 safeguards"),
        Figure("removals that nothing notices", len(unnoticed), "safeguards", "== 0 safeguards"),
    ]
    figures += [
        Figure(
            f"without: {one['safeguard']}", one["per_10000"], "runs in 10,000", "> 0 runs in 10,000"
        )
        for one in rows
    ]
    write_evidence("ablation", figures, {"table": rows, "whole": whole})


if __name__ == "__main__":
    main()
