"""Do flow and block fidelity agree, and what does block fidelity cost?

    python -m benchmarks.evidence_fidelity [SCENARIOS]

Random small scenarios (one to six VMs, one or two disks, workloads drawn from wide ranges) run in
both fidelities with the same seed, so that every latency is the same draw and only the data
differs. Flow takes the mean of a random process, block one sample of it: differences are therefore
given in standard deviations of a Poisson count of the same mean, which the number of distinct
blocks never exceeds. Flow lets a guest write on while it waits for a fence or for the end of its
freeze, block does not; and a flush of another length moves what comes after it. The delta in flow
is therefore taken for the time for which the one in block was open, without those pauses.

What block fidelity counts differently on purpose is shown apart: with all writes durable the
guests' memory plays no part, and deltas must agree; with none durable all of it counts, and flushes
must.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from stillframe.orchestrator.result import VmOutcome
from stillframe.scenarios.schema import Scenario
from stillframe.simulation import Simulation, simulate

from .evidence import Figure, write_evidence

SCENARIOS = 300
SEED = 7
COST_RUNS = 50
MIB = 1024**2
# One in three thousand of a normal distribution lies beyond; Poisson counts are skewed a little.
WITHIN = 3.5


class Difference(NamedTuple):
    """Block minus flow, for one scenario."""

    delta_sigma: float
    delta_share: float
    quiesce_s: float
    quiesce_sigma: float
    merge_s: float
    create_s: float
    array_s: float
    makespan_share: float


def draw_scenario(rng: random.Random, durable_share: float) -> dict[str, Any]:
    """A small estate with a workload, as a scenario file would say it."""
    stores = [f"ds-{n}" for n in range(rng.randint(1, 3))]
    devices = {store: f"naa.6000000000000000000000000000{n:04}" for n, store in enumerate(stores)}
    vms = [
        {
            "name": f"vm-{n}",
            "host": "esx-1",
            "can_quiesce": True,
            "guest_os": rng.choice(["Debian GNU/Linux 12", "Microsoft Windows Server 2022"]),
            "disks": [
                {"datastore": rng.choice(stores), "size": f"{rng.randint(20, 200)} GiB"}
                for _ in range(rng.randint(1, 2))
            ],
        }
        for n in range(rng.randint(1, 6))
    ]
    guest = {
        "profile": {
            "rate": rng.uniform(0.2, 2.0) * MIB,
            "working_set": round(rng.uniform(50, 2000) * MIB),
            "locality": rng.uniform(0.5, 0.9),
            "write_size": rng.choice([4096, 8192, 16384]),
        },
        "scale_median": 1.0,
        "dirty_age": rng.uniform(2.0, 30.0),
    }
    arrays = {
        "default": {
            "method": rng.choice(["redirect-on-write", "copy-on-write"]),
            # Group snapshots of half a minute: deltas with something in them.
            "snapshot_base": rng.uniform(5.0, 40.0),
        }
    }
    return {
        "name": "random",
        "title": "A random small scenario",
        "estate": {
            "inline": {
                "vcenters": [{"name": "vc-1", "version": "8.0.2"}],
                "clusters": [{"name": "cluster-1"}],
                "hosts": [{"name": "esx-1", "cluster": "cluster-1", "version": "8.0.2"}],
                "arrays": [
                    {
                        "name": "array-1",
                        "units": [
                            {"name": f"lun-{n}", "capacity": "4 TiB", "devices": [devices[store]]}
                            for n, store in enumerate(stores)
                        ],
                    }
                ],
                "datastores": [
                    {"name": store, "extents": [devices[store]], "capacity": "4 TiB"}
                    for store in stores
                ],
                "vms": vms,
            }
        },
        "world": {
            "guests": [guest],
            "arrays": arrays,
            "hypervisor": {"merge": rng.choice(["mirror", "iterative"])},
            "block": {"durable_share": durable_share, "most_writes_per_s": 1e6},
        },
        "job": {"strategy": "per-component"},
    }


def run(data: dict[str, Any], fidelity: str, seed: int) -> Simulation:
    """The scenario in one fidelity."""
    world = {**data["world"], "fidelity": fidelity}
    return simulate(Scenario.model_validate({**data, "world": world}), seed=seed)


def compare(data: dict[str, Any], seed: int) -> Difference:
    """Both fidelities of one scenario."""
    flow, block = run(data, "flow", seed), run(data, "block", seed)
    pairs = list(zip(flow.result.vms, block.result.vms, strict=True))
    grain_bytes = max(4096, data["world"]["guests"][0]["profile"]["write_size"])
    flow_bytes = sum(_expected_bytes(flow, one, other, grain_bytes) for one, other in pairs)
    block_bytes = float(sum(other.delta_bytes or 0 for _, other in pairs))
    expected = max(1.0, flow_bytes / grain_bytes)
    quiesce_s = _mean([_length(b.quiesce) - _length(f.quiesce) for f, b in pairs])
    dirty_bytes = sum(map(flow.world.guests.dirty_bytes, range(len(pairs)), [0.0] * len(pairs)))
    flush_rate = flow.scenario.world.hypervisor.flush_rate
    noise_s = math.sqrt(dirty_bytes * grain_bytes) / flush_rate / len(pairs)
    return Difference(
        (block_bytes - flow_bytes) / grain_bytes / math.sqrt(expected),
        block_bytes / max(1.0, flow_bytes) - 1.0,
        quiesce_s,
        quiesce_s / noise_s if noise_s else 0.0,
        _mean([_merge_s(b) - _merge_s(f) for f, b in pairs]),
        _mean([_create_s(b) - _create_s(f) for f, b in pairs]),
        _mean([_array_s(block) - _array_s(flow)]),
        block.result.makespan_s / flow.result.makespan_s - 1.0,
    )


def _expected_bytes(
    simulation: Simulation, vm: VmOutcome, other: VmOutcome, size_bytes: int
) -> float:
    """What flow fidelity expects of a delta that is open as long as the one in block fidelity."""
    if not vm.delta_bytes or vm.opened_s is None or vm.removal_s is None:
        return 0.0
    fences = [
        call.fence
        for call in simulation.result.calls
        if call.fence is not None and set(call.unit_ids) & set(vm.unit_ids)
    ]
    guests = simulation.world.guests
    guest = [one.vm_id for one in simulation.result.vms].index(vm.vm_id)
    profile = guests.profiles[guests.profile_of[guest]]
    gap_s = size_bytes / (profile.rate_bytes_per_s * guests.scale[guest])
    # A fence stops a guest at its first write, which comes after an exponential time.
    paused_s = sum(_length(f) + gap_s * math.expm1(-_length(f) / gap_s) for f in fences)
    if vm.quiesce is not None:
        paused_s += vm.quiesce.end_s - vm.opened_s
    # Nobody says when the merge began, but the delta does: it grows while it is open.
    low_s, high_s = 0.0, 2.0 * (vm.removal_s - vm.opened_s) + 60.0
    for _ in range(60):
        middle_s = (low_s + high_s) / 2
        if guests.delta_bytes(guest, 0.0, middle_s) < vm.delta_bytes:
            low_s = middle_s
        else:
            high_s = middle_s
    longer_s = _open_s(other) - _open_s(vm)
    return guests.delta_bytes(guest, 0.0, max(0.0, high_s + longer_s - paused_s))


def _open_s(vm: VmOutcome) -> float:
    return 0.0 if vm.removal_s is None or vm.opened_s is None else vm.removal_s - vm.opened_s


def _length(window: Any) -> float:
    return 0.0 if window is None else float(window.duration_s)


def _merge_s(vm: VmOutcome) -> float:
    return 0.0 if vm.merged_s is None or vm.removal_s is None else vm.merged_s - vm.removal_s


def _create_s(vm: VmOutcome) -> float:
    return 0.0 if vm.opened_s is None or vm.requested_s is None else vm.opened_s - vm.requested_s


def _array_s(simulation: Simulation) -> float:
    calls = [c for c in simulation.result.calls if c.completed_s is not None]
    return _mean([(call.completed_s or 0.0) - call.requested_s for call in calls])


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _p95(values: Sequence[float]) -> float:
    ordered = sorted(abs(value) for value in values)
    return ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]


def _share_within(values: Sequence[float], limit: float) -> float:
    return 100.0 * sum(abs(value) <= limit for value in values) / len(values)


def differences(count: int, durable_share: float) -> list[Difference]:
    """All scenarios at one share of durable writes."""
    rng = random.Random(SEED)
    return [compare(draw_scenario(rng, durable_share), SEED + n) for n in range(count)]


def figures_of(durable: list[Difference], cached: list[Difference]) -> list[Figure]:
    """What is judged, and what is shown beside it."""
    deltas = [one.delta_sigma for one in durable]
    flushes = [one.quiesce_sigma for one in cached]
    times = [*durable, *cached]
    return [
        Figure(
            f"deltas, all writes durable: scenarios within {WITHIN} standard deviations",
            _share_within(deltas, WITHIN),
            "%",
            ">= 99 %",
        ),
        Figure(
            "deltas, all writes durable: mean, block against flow",
            100 * _mean([d.delta_share for d in durable]),
            "%",
        ),
        Figure(
            "deltas, all writes durable: p95 of the difference",
            100 * _p95([d.delta_share for d in durable]),
            "%",
        ),
        Figure(
            "deltas, no write durable: mean, block against flow",
            100 * _mean([d.delta_share for d in cached]),
            "%",
        ),
        Figure(
            f"quiesce windows, no write durable: scenarios within {WITHIN} standard deviations",
            _share_within(flushes, WITHIN),
            "%",
            ">= 99 %",
        ),
        Figure(
            "quiesce windows, no write durable: p95 of the difference",
            1e3 * _p95([d.quiesce_s for d in cached]),
            "ms",
        ),
        Figure(
            "quiesce windows, all writes durable: mean, block against flow",
            1e3 * _mean([d.quiesce_s for d in durable]),
            "ms",
        ),
        Figure(
            "merges, all writes durable: p95 of the difference",
            1e3 * _p95([d.merge_s for d in durable]),
            "ms",
            "<= 100 ms",
        ),
        Figure(
            "VM snapshots, no write durable: p95 of the difference",
            1e3 * _p95([d.create_s for d in cached]),
            "ms",
            "<= 100 ms",
        ),
        Figure(
            "group snapshots: largest difference",
            1e3 * max(abs(d.array_s) for d in times),
            "ms",
            "<= 1 ms",
        ),
        Figure(
            "makespan: p95 of the difference",
            100 * _p95([d.makespan_share for d in times]),
            "%",
            "<= 5 %",
        ),
    ]


def cost_figures() -> list[Figure]:
    """CPU time that block fidelity adds to a run of ten VMs, its verification left out."""
    rng = random.Random(SEED)
    data = draw_scenario(rng, 0.5)
    host = {"host": "esx-1", "can_quiesce": True, "guest_os": "Debian GNU/Linux 12"}
    store = data["estate"]["inline"]["datastores"][0]["name"]
    data["estate"]["inline"]["vms"] = [
        {"name": f"vm-{n}", **host, "disks": [{"datastore": store, "size": "60 GiB"}]}
        for n in range(10)
    ]
    cost_ms: list[float] = []
    for fidelity, most in (("flow", 20.0), ("block", 20.0), ("block", 2.0)):
        block = {**data["world"]["block"], "most_writes_per_s": most}
        world = {**data["world"], "fidelity": fidelity, "block": block}
        scenario = Scenario.model_validate({**data, "world": world})
        estate = scenario.build_estate()
        simulate(scenario, seed=0, estate=estate)
        start_s = time.process_time()
        for seed in range(COST_RUNS):
            simulate(scenario, seed=seed, estate=estate)
        cost_ms.append((time.process_time() - start_s) / COST_RUNS * 1e3)
    return [
        Figure(
            "CPU time that 20 writes/s per VM add to a job of ten VMs",
            cost_ms[1] - cost_ms[0],
            "ms",
        ),
        Figure(
            "CPU time that 2 writes/s per VM add to a job of ten VMs", cost_ms[2] - cost_ms[0], "ms"
        ),
    ]


def main() -> int:
    """Measure and write out/evidence/fidelity.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenarios", type=int, nargs="?", default=SCENARIOS)
    count = parser.parse_args().scenarios
    durable, cached = differences(count, 1.0), differences(count, 0.0)
    write_evidence(
        "fidelity",
        [*figures_of(durable, cached), *cost_figures()],
        {"seed": SEED, "scenarios": count},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
