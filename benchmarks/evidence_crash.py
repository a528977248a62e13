"""``make evidence-crash``: killed everywhere in the modelled world, and for real against vCenter.

First the claim scenario and one in which a VM spans two arrays: the process is killed at every step
of its event loop, at every event, and in pairs with a second death during recovery; in both
fidelities. Then a live process is killed with SIGKILL at random moments of a run against the
vSphere test endpoint, and ``stillframe recover`` is run.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from stillframe.explorer.exhaust import DOWNTIME_S, LEASE_S, Exhausted, exhaust
from stillframe.explorer.options import RunOptions
from stillframe.scenarios.schema import load_scenario

from .evidence import Figure, write_evidence

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = ("first-claim", "one-disk-ties")
PAIRS = 400
KILLS = 50
VMS, STORES, FOREIGN = 12, 3, 2
OPERATION_MS = 150
SPAN_S = 1.4
"""A run of the live job takes about so long after its first intent."""
CONSOLE = Console(stderr=True)


def everywhere() -> list[Figure]:
    """Kill the modelled job at every place."""
    found: list[Exhausted] = []
    for name in SCENARIOS:
        for fidelity in ("flow", "block"):
            CONSOLE.print(f"killing everywhere in {name}, {fidelity} fidelity", highlight=False)
            options = RunOptions(lease_s=LEASE_S, downtime_s=DOWNTIME_S, fidelity=fidelity)
            found.append(exhaust(load_scenario(name), 1, options=options, pairs=PAIRS))
            CONSOLE.print(f"  {found[-1].runs:,} runs, {len(found[-1].failures)} with a violation")
    figures = []
    for name in SCENARIOS:
        mine = [one for one in found if one.scenario == name]
        figures += [
            Figure(f"{name}: steps of the job, killed at each", mine[0].steps, "steps"),
            Figure(f"{name}: events of the job, killed at each", mine[0].events, "events"),
            Figure(f"{name}: runs, both fidelities", sum(one.runs for one in mine), "runs"),
            Figure(
                f"{name}: runs with a violation after recovery",
                sum(len(one.failures) for one in mine),
                "runs",
                "== 0 runs",
            ),
        ]
    return figures


def for_real() -> list[Figure]:
    """Kill the live process at random moments."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support_kill import CREATE, REMOVE, AfterFirstIntent, durable_config, kill_and_recover
    from support_vsim import Vsim, small_inventory

    source = random.Random(4)
    found: list[dict[str, Any]] = []
    with Vsim(small_inventory(VMS, STORES, 3, foreign=FOREIGN), keep=True) as vsim:
        slow = [
            {"method": method, "delayMs": OPERATION_MS, "times": 0} for method in (CREATE, REMOVE)
        ]
        vsim.rules(slow)
        while sum(one["killed"] for one in found) < KILLS:
            moment = AfterFirstIntent(round(source.uniform(0.0, SPAN_S), 3))
            with tempfile.TemporaryDirectory() as folder:
                config = durable_config(vsim, Path(folder))
                found.append(kill_and_recover(vsim, config, moment))
            CONSOLE.print(f"of {KILLS} kills, run {len(found)}: {found[-1]}", highlight=False)

    def total(what: str) -> int:
        return sum(one[what] for one in found)

    return [
        Figure("live: runs against the endpoint", len(found), "runs"),
        Figure(
            "live: processes killed in mid-run",
            total("killed"),
            "processes",
            f">= {KILLS} processes",
        ),
        Figure("live: VM snapshots open at the kills", total("interrupted_snapshots"), "snapshots"),
        Figure(
            "live: VM snapshots of ours afterwards", total("orphans"), "snapshots", "== 0 snapshots"
        ),
        Figure(
            "live: array snapshots that no entry names",
            total("array_orphans"),
            "snapshots",
            "== 0 snapshots",
        ),
        Figure("live: entries without their snapshots", total("lies"), "entries", "== 0 entries"),
        Figure(
            "live: snapshots of others lost", total("foreign_lost"), "snapshots", "== 0 snapshots"
        ),
        Figure(
            "live: journals that are whole", total("journal_ok"), "journals", f"== {KILLS} journals"
        ),
    ]


def main() -> None:
    """Kill, recover, and write the figures."""
    write_evidence("crash", [*everywhere(), *for_real()])


if __name__ == "__main__":
    main()
