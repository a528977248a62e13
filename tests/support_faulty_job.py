"""A small job in a world in which chosen faults happen: a VM on two units, quick to give up."""

from __future__ import annotations

from typing import Any

from stillframe.scenarios.schema import Scenario
from stillframe.simulation import Simulation, simulate

GIVES_UP = {"create": 60.0, "remove": 100.0, "array": 60.0, "query": 20.0, "settle": 900.0}
PATIENCE = {"slow_task": 300.0, "late_group": 300.0, "silence": 100.0}
"""Late enough that a caller has gone, not so late that nobody looks any more."""
NAA = [f"naa.6000000000000000000000000000a00{n}" for n in range(1, 3)]


def scenario(faults: dict[str, Any], seed: int = 1, **more: Any) -> Scenario:
    """Six VMs on two hosts and two units; one VM lies on both, so that all are one group.

    The faults begin when the job has been planned.
    """
    stores = [[1], [1], [1, 2], [2], [2], [1]]
    vms = [
        {
            "name": f"vm-{number}",
            "host": f"esx-{number % 2 + 1}",
            "guest_os": "Microsoft Windows Server 2022" if number == 1 else "Debian GNU/Linux 12",
            "disks": [{"datastore": f"ds-{store}", "size": "20 GiB"} for store in on],
        }
        for number, on in enumerate(stores)
    ]
    inline = {
        "vcenters": [{"name": "vc-1"}],
        "clusters": [{"name": "one"}],
        "hosts": [{"name": f"esx-{n}", "cluster": "one", "version": "8.0.2"} for n in (1, 2)],
        "arrays": [
            {
                "name": "array-a",
                "units": [
                    {"name": f"lun-{n}", "capacity": "2 TiB", "devices": [NAA[n - 1]]}
                    for n in (1, 2)
                ],
            }
        ],
        "datastores": [{"name": f"ds-{n}", "extents": [NAA[n - 1]]} for n in (1, 2)],
        "vms": vms,
    }
    return Scenario.model_validate(
        {
            "name": "faulty",
            "title": "A small job in a world with faults",
            "seed": seed,
            "estate": {"inline": inline},
            "plan_age": 10.0,
            "world": {"faults": {"since": 10.0, **PATIENCE, **faults}},
            "job": {"quiesce": {"timeout": 30.0}, "timeouts": GIVES_UP},
            **more,
        }
    )


def run(faults: dict[str, Any], seed: int = 1, **more: Any) -> Simulation:
    """The job of :func:`scenario`, run to its end."""
    return simulate(scenario(faults, seed, **more))
