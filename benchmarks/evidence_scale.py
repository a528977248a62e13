"""``make evidence-scale``: what a run costs per VM at 100, 1,000, 10,000 and 50,000 VMs.

Times are CPU times, also given in units of a bare SimPy process timeout (among 1,000 processes)
that is measured in the same process just before and after each run: machines differ and are noisy,
the ratio much less. A run is everything from an estate in memory to a finished result: reading the
inventory through the drivers, the topology graph, the plan, and the job.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .evidence import Figure, write_evidence

SIZES = {100: 15, 1_000: 7, 10_000: 5, 50_000: 3}
"""VMs asked of the generator, and how often each size is run (the median counts)."""
AIMS = {10_000: "<= 60 units", 50_000: "<= 80 units"}
ROOT = Path(__file__).resolve().parents[1]
CONSOLE = Console(stderr=True)


def worker(*arguments: object) -> Any:
    """What a measuring process prints."""
    CONSOLE.print("measuring", *arguments)
    command = [sys.executable, "-m", "benchmarks.scale_worker", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def exponent(points: list[tuple[float, float]]) -> float:
    """Slope of the least-squares line through the logarithms: cost ~ size ** exponent."""
    xs = [math.log(x) for x, _ in points]
    ys = [math.log(y) for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return above / sum((x - mean_x) ** 2 for x in xs)


def figures_of(asked: int, run: dict[str, float]) -> list[Figure]:
    """The figures of one size."""
    at = f"{asked:,} VMs"
    return [
        Figure(f"{at}: CPU time of a run", run["cpu_s"], "s"),
        Figure(f"{at}: wall time of a run", run["wall_s"], "s"),
        Figure(f"{at}: CPU time per VM", run["cpu_s"] / run["vms"] * 1e6, "µs"),
        Figure(f"{at}: bare SimPy process timeout", run["unit_s"] * 1e6, "µs"),
        Figure(f"{at}: cost per VM", run["units_per_vm"], "units", AIMS.get(asked)),
        Figure(f"{at}: SimPy events per VM", run["events_per_vm"], "events"),
        Figure(f"{at}: loop callbacks per VM", run["callbacks_per_vm"], "callbacks"),
        Figure(f"{at}: peak memory", run["peak_bytes"] / 2**20, "MiB"),
    ]


def memory_figures(large: dict[str, float]) -> list[Figure]:
    """Memory per VM at the largest size, beyond what a run of 20 VMs needs."""
    beyond = (large["peak_bytes"] - large["fixed_bytes"]) / large["vms"] / 1024
    estate = large["estate_bytes"] / large["vms"] / 1024
    return [
        Figure("resident per VM beyond the fixed part, estate included", beyond, "KiB", "<= 4 KiB"),
        Figure("of which the estate, before any run", estate, "KiB"),
    ]


def main() -> None:
    """Measure every size, write the figures, print the profile."""
    runs = {size: worker(size, repeats) for size, repeats in SIZES.items()}
    figures = [figure for size, run in runs.items() for figure in figures_of(size, run)]
    points = [(run["vms"], run["cpu_s"]) for size, run in runs.items() if size >= 1_000]
    figures.append(Figure("growth exponent, 1,000 to 50,000 VMs", exponent(points), "", "<= 1.05"))
    figures.extend(memory_figures(runs[max(runs)]))
    top = worker(10_000, 1, "profile")
    write_evidence("scale", figures, {"profile_at_10000": top})
    table = Table(title="own time by function, one run of 10,000 VMs under the profiler")
    table.add_column("function")
    table.add_column("calls", justify="right")
    table.add_column("own time", justify="right")
    for row in top:
        table.add_row(row["function"], f"{row['calls']:,}", f"{row['own_share']:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
