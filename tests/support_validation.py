"""Sessions without a lab: the model, with numbers of its own, plays the live side."""

from __future__ import annotations

from typing import Any

import yaml

from benchmarks.evidence_validation import FORMAT
from stillframe.lab.fit_load import guest_rule
from stillframe.lab.fit_record import RunRecord, WriteLoad
from stillframe.lab.spec import Writes
from stillframe.orchestrator.spec import JobSpec
from stillframe.scenarios.schema import EstateSource, Scenario
from stillframe.sim.config import WorldConfig
from stillframe.validation_runs import run_modelled

LOADS = {
    "low": Writes(record_bytes=4096, rate_per_s=20),
    "middle": Writes(record_bytes=32768, rate_per_s=20),
    "high": Writes(record_bytes=131072, rate_per_s=20),
}
LAB: dict[str, Any] = {
    "hypervisor": {"profile": "lab-qemu"},
    "arrays": {
        "default": {
            "management_latency": "2 ms",
            "snapshot_base": "3 ms",
            "snapshot_per_unit": "5 ms",
            "fence_base": "1 ms",
            "fence_per_unit": "1 ms",
        }
    },
}
"""A world as quick as a lab."""


def world(**hypervisor: Any) -> WorldConfig:
    """The lab's world, numbers of its hypervisor replaced."""
    changed = {**LAB["hypervisor"], **hypervisor}
    return WorldConfig.model_validate({**LAB, "hypervisor": changed})


def load_of(name: str) -> WriteLoad:
    """What the writers of this load reach: all that they were told."""
    writes = LOADS[name]
    return WriteLoad(
        record_bytes=writes.record_bytes,
        rate_per_s=writes.rate_per_s,
        nominal_per_s=writes.rate_per_s,
        file_bytes=writes.file_bytes,
    )


def estate(guests: int) -> dict[str, Any]:
    """An estate of this many guests, on two datastores on a unit each."""
    return {
        "vcenters": [{"name": "host"}],
        "hosts": [{"name": "machine", "vcenter": "host"}],
        "arrays": [
            {
                "name": "array",
                "units": [
                    {"name": f"unit-{n}", "capacity": "1 GiB", "devices": [f"file./unit-{n}.dev"]}
                    for n in range(2)
                ],
            }
        ],
        "datastores": [
            {
                "name": f"ds-{n}",
                "kind": "other",
                "vcenter": "host",
                "extents": [f"file./unit-{n}.dev"],
            }
            for n in range(2)
        ],
        "vms": [
            {
                "name": f"vm-{n}",
                "host": "machine",
                "can_quiesce": True,
                "guest_os": "Debian GNU/Linux 12",
                "disks": [{"datastore": f"ds-{n % 2}", "size": "128 MiB"}],
            }
            for n in range(guests)
        ],
    }


def scenario(guests: int, load: str, config: WorldConfig, seed: int = 1) -> Scenario:
    """The job on these guests under a load."""
    return Scenario(
        name="played",
        title="Played",
        seed=seed,
        estate=EstateSource(inline=estate(guests)),
        world=config.model_copy(update={"guests": (guest_rule(load_of(load)),)}),
    )


def played(
    guests: int, load: str, config: WorldConfig, count: int, seed: int = 1000
) -> list[RunRecord]:
    """Runs that the model makes, as if a live lab with drivers qemu and qsd had."""
    runs = run_modelled(scenario(guests, load, config, seed), count, lambda _label, _share: None)
    return [
        run.model_copy(
            update={
                "name": f"{guests}-{load}-{number}",
                "date": "2026-01-05T21:00:00+00:00",
                "array": "qsd",
                "hypervisor": "qemu",
                "writes": load_of(load),
            }
        )
        for number, run in enumerate(runs)
    ]


def session(config: WorldConfig, runs: int = 20) -> dict[str, Any]:
    """What a session on labs would have written, with one warm-up run that is far off."""
    labs, entries = [], []
    for guests in (1, 2, 4):
        where = {"array": "qsd", "guests": guests, "round": 0}
        job = JobSpec().model_dump(mode="json", by_alias=True)
        labs.append({**where, "estate": yaml.safe_dump(estate(guests)), "job": job})
        for load in LOADS:
            for number, record in enumerate(played(guests, load, config, runs + 1)):
                entries.append(
                    {
                        **where,
                        "round": number % 2,
                        "load": load,
                        "warm_up": number == 0,
                        "record": record.model_dump(mode="json"),
                    }
                )
    return {
        "format": FORMAT,
        "version": 1,
        "seed": 1,
        "arrays": ["qsd"],
        "loads": {name: writes.model_dump(mode="json") for name, writes in LOADS.items()},
        "labs": labs,
        "runs": entries,
        "failures": [],
    }
