"""Runs for the fit, made by the model under a profile that is known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support_world import GIB, disk, estate, vm

from stillframe.lab.fit_load import guest_entry
from stillframe.lab.fit_record import RunRecord, VmRecord, WriteLoad, record_of
from stillframe.reports.folder import FORMAT, RUN, VERSION
from stillframe.reports.rundata import RunData
from stillframe.scenarios.schema import Scenario
from stillframe.sim.config import WorldConfig
from stillframe.sim.guest_rules import ParametricGuest
from stillframe.simulation import simulate

RECORD_BYTES, RING_BYTES = 16384, 64 * 1024**2
USUAL_MERGE_S = 0.17

KNOWN: dict[str, Any] = {
    "profile": "lab-qemu",
    "query_latency": 0.002,
    "task_latency": 0.0,
    "create_start": 0.1,
    "task_latency_sigma": 0.2,
    "linux_freeze": 0.06,
    "freeze_sigma": 0.25,
    "stun_create": 0.012,
    "stun_create_sigma": 0.25,
    "thaw_call": 0.017,
    "thaw_sigma": 0.25,
    "merge_start": 0.03,
    "merge_rate": 60e6,
    "merge_sigma": 0.2,
    "stun_remove": 0.012,
    "stun_remove_sigma": 0.25,
    "delta_base": 300_000,
    "under_load": {
        "per_operation": {
            "freeze": 0.5,
            "stun_create": 0.9,
            "thaw": 0.7,
            "merge": 0.6,
            "stun_remove": 0.8,
        },
        "per_writer": {
            "freeze": 0.1,
            "stun_create": 0.2,
            "thaw": 0.2,
            "merge": 0.5,
            "stun_remove": 0.9,
        },
        "full_write_rate": RECORD_BYTES / USUAL_MERGE_S,
    },
}
"""A hypervisor like a small lab's."""

KNOWN_ARRAY: dict[str, Any] = {
    "management_latency": 0.0,
    "snapshot_base": 0.02,
    "snapshot_per_unit": 0.01,
    "snapshot_sigma": 0.2,
    "snapshot_per_writer": 0.6,
    "fence_base": 0.0,
    "fence_per_unit": 0.0,
    "io_bandwidth": 1e12,
    "flow_bandwidth": None,
}


def world(
    rate_per_s: float = 25.0,
    hypervisor: dict[str, Any] | None = None,
    array: dict[str, Any] | None = None,
) -> WorldConfig:
    """The known world, with guests that write so many records of 16 KiB per second."""
    return WorldConfig.model_validate(
        {
            "hypervisor": {**KNOWN, **(hypervisor or {})},
            "arrays": {"default": {**KNOWN_ARRAY, **(array or {})}},
            "guests": [guest_entry(RECORD_BYTES, rate_per_s, RING_BYTES)],
        }
    )


def modelled_job(guests: int, how: WorldConfig, seed: int, *, wide: int = 0) -> RunData:
    """One modelled job on guests that lie on two units in turn; ``wide`` of them have two disks."""
    vms = [
        vm(
            f"vm-{number}",
            *(
                disk(2000 + extra, ("ds1", "ds2")[(number + extra) % 2], GIB)
                for extra in range(2 if number < wide else 1)
            ),
        )
        for number in range(guests)
    ]
    scenario = Scenario(
        name="fit",
        title="Fit",
        estate={"inline": {}},
        world=how,
        job={"strategy": "all-at-once"},
        seed=seed,
    )
    return simulate(scenario, estate=estate(*vms)).run_data()


def modelled_run(guests: int, how: WorldConfig, seed: int, *, wide: int = 0) -> RunRecord:
    """The record of a modelled job."""
    writer = how.guests[0].profile
    assert isinstance(writer, ParametricGuest)
    rate_per_s = writer.rate / RECORD_BYTES
    writes = WriteLoad(
        record_bytes=RECORD_BYTES,
        rate_per_s=rate_per_s,
        nominal_per_s=rate_per_s,
        file_bytes=RING_BYTES,
    )
    record = record_of(modelled_job(guests, how, seed, wide=wide), writes)
    return record.model_copy(update={"name": f"run-{guests}-{seed}", "date": "2026-11-23T10:00:00"})


def modelled_runs(
    guests: Iterable[int], rates_per_s: Iterable[float], each: int, **how: Any
) -> list[RunRecord]:
    """So many runs of every number of guests at every rate."""
    sizes = list(guests)
    return [
        modelled_run(size, world(rate, **how), seed + each * number)
        for number, rate in enumerate(rates_per_s)
        for size in sizes
        for seed in range(each)
    ]


def live_folder(
    folder: Path, data: RunData, job_id: str, array: str = "qsd", rate_per_s: float = 0.0
) -> Path:
    """A result folder as a run of drivers ``qemu`` and ``array`` leaves it, without figures."""
    live = {
        "started_at": "2026-11-23T10:00:00+00:00",
        "hypervisors": {"host": "qemu"},
        "arrays": {"array": array},
        "guests": [rule.model_dump(mode="json") for rule in world(rate_per_s).guests],
    }
    folder.mkdir()
    for name, frame in data.tables().items():
        frame.write_parquet(folder / f"{name}.parquet")
    head = {"format": FORMAT, "version": VERSION}
    meta = {**data.meta, "job_id": job_id, "live": live}
    (folder / RUN).write_text(json.dumps({**head, "meta": meta}), encoding="utf-8")
    return folder


def without(run: RunRecord, **unseen: Any) -> RunRecord:
    """The run as a driver that sees less would have reported it."""
    vms: tuple[VmRecord, ...] = tuple(vm.model_copy(update=unseen) for vm in run.vms)
    return run.model_copy(update={"vms": vms})
