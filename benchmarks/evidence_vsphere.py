"""``make evidence-vsphere``: the driver against a straightforward pyvmomi script, in one run.

Both create and remove a snapshot of each VM on the test endpoint, whose tasks take 1.5 s. The
script has 32 threads, each of which looks at its task every 100 ms; one that looked less often
would send fewer requests and take longer. The driver runs twice: with as
many VMs in flight as a job's default limit for a vCenter, and with the script's 32. Client and
endpoint share the machine's CPUs.

Then ``estate pull`` of 1,000 VMs beside a read of the whole ``config`` of the same VMs.

The endpoint is a simulator: figures compare clients, and say nothing about a vCenter's own speed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from stillframe.drivers.vsphere_settings import PASSWORD_ENV
from stillframe.orchestrator.spec import Limits
from tests.support_vsim import Vsim, small_inventory

from .evidence import Figure, write_evidence

TASK_MS = 1500
METHODS = ("CreateSnapshot_Task", "CreateSnapshotEx_Task", "RemoveSnapshot_Task")
SCRIPT_THREADS = 32
SIZES = {100: 3, 400: 1}
"""VMs, and how often each side is measured; the median counts."""
PULLED_VMS = 1_000
PULLS = 5
ROOT = Path(__file__).resolve().parents[1]
CONSOLE = Console(stderr=True)


def measured(vsim: Vsim, mode: str, **settings: Any) -> dict[str, float]:
    """What one client spends, and how many requests it sends while it is measured."""
    CONSOLE.print(f"measuring {mode} {settings}", highlight=False)
    where = {"host": vsim.host, "port": vsim.port, "ca_file": vsim.ca_file, "user": vsim.user}
    command = [sys.executable, "-m", "benchmarks.vsphere_worker", mode]
    with subprocess.Popen(
        [*command, json.dumps({**where, **settings})],
        cwd=ROOT,
        env={**os.environ, PASSWORD_ENV: vsim.password},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the client {mode} did not start")
        vsim.reset_calls()
        answer: dict[str, float] = json.loads(process.communicate("go\n")[0])
    answer["requests"] = float(sum(vsim.calls().values()))
    return answer


def median(runs: list[dict[str, float]], what: str) -> float:
    """The middle run's figure."""
    return statistics.median(run[what] for run in runs)


def cycles(vms: int, repeats: int) -> list[Figure]:
    """Creates and removes of so many VMs: script, driver, driver with the script's concurrency."""
    default = Limits().create_per_vcenter or vms
    sides: dict[str, tuple[str, int]] = {
        "script": ("script", SCRIPT_THREADS),
        "driver": ("driver", default),
        "same": ("driver", SCRIPT_THREADS),
    }
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(repeats):  # by turns, so that a busy machine troubles all alike
        for side, (mode, in_flight) in sides.items():
            with Vsim(small_inventory(vms, 10, 6, hosts=4)) as vsim:
                vsim.rules([{"method": method, "delayMs": TASK_MS} for method in METHODS])
                runs[side].append(measured(vsim, mode, vms=vms, in_flight=in_flight))
    script, driver, same = runs["script"], runs["driver"], runs["same"]
    labels = {
        "script": f"script, {SCRIPT_THREADS} threads",
        "driver": f"driver, {default} in flight",
        "same": f"driver, {SCRIPT_THREADS} in flight",
    }
    at = f"{vms} VMs"
    figures = []
    for what, unit in (("wall_s", "s"), ("cpu_s", "s"), ("requests", "requests")):
        word = {"wall_s": "wall time", "cpu_s": "client CPU", "requests": "requests"}[what]
        figures += [
            Figure(f"{at}: {word}, {labels[side]}", median(found, what), unit)
            for side, found in runs.items()
        ]
    figures += [
        Figure(f"{at}: requests per VM, {labels[side]}", median(found, "requests") / vms)
        for side, found in runs.items()
    ]
    aims = (("wall_s", "wall time", "<= 1"), ("cpu_s", "client CPU", "<= 0.5"))
    for what, word, aim in (*aims, ("requests", "requests", "<= 0.1")):
        base = median(script, what)
        figures += [
            Figure(f"{at}: {word}, driver to script", median(driver, what) / base, "", aim),
            Figure(
                f"{at}: {word}, driver to script, both {SCRIPT_THREADS} in flight",
                median(same, what) / base,
            ),
        ]
    return figures


def pulls() -> list[Figure]:
    """The estate of many VMs, and a full read of the same."""
    runs: dict[str, list[dict[str, float]]] = {"pull": [], "config": []}
    inventory = small_inventory(PULLED_VMS, 20, 20, hosts=16)
    for vm in inventory["vms"]:
        vm["disks"] = vm["disks"] * 2
    with Vsim(inventory) as vsim:
        for _ in range(PULLS):
            for mode, found in runs.items():
                found.append(measured(vsim, mode, vms=PULLED_VMS))
    pulled, config = runs["pull"], runs["config"]
    at = f"{PULLED_VMS:,} VMs"
    figures = []
    for name, found in ((f"{at}: estate pull", pulled), (f"{at}: read of config", config)):
        figures += [
            Figure(f"{name}, time", median(found, "wall_s"), "s"),
            Figure(f"{name}, client CPU", median(found, "cpu_s"), "s"),
            Figure(f"{name}, requests", median(found, "requests"), "requests"),
            Figure(f"{name}, peak memory", median(found, "peak_bytes") / 2**20, "MiB"),
            Figure(f"{name}, of that for the work", median(found, "grown_bytes") / 2**20, "MiB"),
        ]
    ratio = median(pulled, "wall_s") / median(config, "wall_s")
    memory = median(pulled, "grown_bytes") / median(config, "grown_bytes")
    return [
        *figures,
        Figure(f"{at}: time, pull to config", ratio, "", "<= 0.3333"),
        Figure(f"{at}: memory for the work, pull to config", memory),
    ]


def main() -> None:
    """Measure everything, write the figures."""
    build = subprocess.run(
        [str(ROOT / "scripts" / "build-vsim.sh")], check=True, capture_output=True, text=True
    )
    os.environ["STILLFRAME_VSIM"] = build.stdout.strip().splitlines()[-1]
    figures = [figure for vms, repeats in SIZES.items() for figure in cycles(vms, repeats)]
    write_evidence("vsphere", [*figures, *pulls()], {"task_ms": TASK_MS})


if __name__ == "__main__":
    main()
