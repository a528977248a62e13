"""One size of the scale measurement, in a process of its own; prints one JSON object.

``python -m benchmarks.scale_worker VMS REPEATS [profile]``
"""

from __future__ import annotations

import cProfile
import json
import pstats
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import simpy

from stillframe.drivers.records import Estate
from stillframe.scenarios.schema import Scenario
from stillframe.simulation import Simulation, simulate

UNIT_PROCESSES, UNIT_TIMEOUTS = 1_000, 50


def scenario_of(vms: int) -> Scenario:
    """A job over a whole estate: 100 VMs to a datastore, 50 to a host, one array per 25 units."""
    datastores = max(2, vms // 100)
    return Scenario.model_validate(
        {
            "name": "scale",
            "title": "scale",
            "estate": {
                "generate": {
                    "vms": vms,
                    "datastores": datastores,
                    "hosts": max(2, vms // 50),
                    "clusters": max(1, vms // 800),
                    "arrays": max(1, datastores // 25),
                    "seed": 7,
                }
            },
        }
    )


def bare_unit_s() -> float:
    """CPU seconds of one SimPy process timeout, among 1,000 processes."""

    def process(env: simpy.Environment) -> Any:
        for _ in range(UNIT_TIMEOUTS):
            yield env.timeout(1.0)

    env = simpy.Environment()
    for _ in range(UNIT_PROCESSES):
        env.process(process(env))
    begun_s = time.process_time()
    env.run()
    return (time.process_time() - begun_s) / (UNIT_PROCESSES * UNIT_TIMEOUTS)


def resident_bytes() -> int:
    """What the process has in memory now."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS line")


def measure(scenario: Scenario, estate: Estate) -> tuple[dict[str, float], Simulation]:
    """CPU and wall time of one run from an estate in memory to a finished result."""
    unit_before_s = bare_unit_s()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    ran = simulate(scenario, estate=estate)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    unit_s = (unit_before_s + bare_unit_s()) / 2
    return {"cpu_s": cpu_s, "wall_s": wall_s, "unit_s": unit_s}, ran


def main() -> None:
    """Measure one size."""
    vms, repeats = int(sys.argv[1]), int(sys.argv[2])
    simulate(scenario_of(20))  # imports, profiles: the fixed part
    fixed_bytes = resident_bytes()
    scenario = scenario_of(vms)
    estate = scenario.build_estate()
    with_estate_bytes = resident_bytes()
    if sys.argv[3:] == ["profile"]:
        print(json.dumps(profile(scenario, estate)))
        return
    runs = []
    for _ in range(repeats):
        figures, ran = measure(scenario, estate)
        runs.append(figures)
        counts = (ran.events_run, ran.callbacks_run, len(ran.result.vms), ran.result.protected)
        del ran
    events, callbacks, selected, protected = counts
    print(
        json.dumps(
            {
                "vms": selected,
                "protected": protected,
                "cpu_s": statistics.median(run["cpu_s"] for run in runs),
                "wall_s": statistics.median(run["wall_s"] for run in runs),
                "unit_s": statistics.median(run["unit_s"] for run in runs),
                "units_per_vm": statistics.median(
                    run["cpu_s"] / run["unit_s"] / selected for run in runs
                ),
                "events_per_vm": events / selected,
                "callbacks_per_vm": callbacks / selected,
                "fixed_bytes": fixed_bytes,
                "estate_bytes": with_estate_bytes - fixed_bytes,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


def profile(scenario: Scenario, estate: Estate) -> list[dict[str, Any]]:
    """The functions with the most own time."""
    profiler = cProfile.Profile()
    profiler.enable()
    simulate(scenario, estate=estate)
    profiler.disable()
    stats: Any = pstats.Stats(profiler)
    total_s = stats.total_tt
    rows = []
    for (file, _, name), (_, calls, own_s, _, _) in stats.stats.items():
        where = "/".join(Path(file).parts[-2:]) if file != "~" else "built-in"
        rows.append({"function": f"{where}: {name}", "calls": calls, "own_share": own_s / total_s})
    return sorted(rows, key=lambda row: -float(row["own_share"]))[:20]


if __name__ == "__main__":
    main()
