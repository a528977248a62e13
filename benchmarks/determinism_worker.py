"""Runs a range of seeds and prints one line each: seed, trace hash, how the job ended.

It is started in processes of their own, under other interpreters and other hash seeds, by
``evidence_determinism``; so it imports nothing but the package.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

from stillframe.scenarios.schema import Scenario
from stillframe.simulation import simulate


def scenario_of(seed: int) -> Scenario:
    """A small job full of bad timing: jittered latencies, faults, and a cancellation in most.

    Parameters
    ----------
    seed:
        Decides when the job is cancelled (two in three are) and everything in the world.
    """
    source = random.Random(f"determinism/{seed}")
    events: list[dict[str, Any]] = []
    if seed % 3:
        events.append({"at": source.uniform(0.5, 25.0), "cancel_job": True})
    return Scenario.model_validate(
        {
            "name": "determinism",
            "title": "faults of timing",
            "seed": seed,
            "estate": {
                "generate": {"vms": 40, "datastores": 6, "arrays": 2, "hosts": 4, "seed": 11}
            },
            "world": {
                "faults": {
                    "sites": {
                        "quiesce-fails": 0.05,
                        "quiesce-hangs": 0.01,
                        "late-create": 0.02,
                        "late-remove": 0.02,
                        "lost-answer-create": 0.03,
                        "lost-answer-remove": 0.03,
                        "hypervisor-busy": 0.05,
                        "consolidation-needed": 0.03,
                    },
                    "slow_task": 400.0,
                }
            },
            "events": events,
            "job": {
                "quiesce": {"timeout": 60.0},
                "timeouts": {"create": 30.0},
                "on_vm_failure": "fail-group" if seed % 5 == 0 else "continue",
            },
        }
    )


def use_stock_tasks() -> None:
    """Let loops make asyncio's own tasks, whose hash is their address: the negative control."""
    from stillframe.sim.loop import SimLoop

    def create_task(self: SimLoop, coro: Any, *, name: Any = None, **options: Any) -> Any:
        return asyncio.Task(coro, loop=self, name=name, **options)

    SimLoop.create_task = create_task  # type: ignore[method-assign]


def main() -> None:
    """``determinism_worker FIRST LAST [stock-tasks]``: seeds FIRST to LAST - 1."""
    first, last = int(sys.argv[1]), int(sys.argv[2])
    if sys.argv[3:] == ["stock-tasks"]:
        use_stock_tasks()
    for seed in range(first, last):
        result = simulate(scenario_of(seed)).result
        print(seed, result.events.trace_hash(), result.status.value, flush=True)


if __name__ == "__main__":
    main()
