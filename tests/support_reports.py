"""Invented but plausible runs for the tests of the reports: no simulator involved."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from stillframe.drivers.contracts import ConsistencyLevel, GroupSnapshotRef, Window
from stillframe.orchestrator.events import EventLog, Kind
from stillframe.orchestrator.result import (
    ArrayCall,
    CatalogueEntry,
    GroupOutcome,
    JobResult,
    JobStatus,
    LimiterWaits,
    VmOutcome,
    VmStatus,
)
from stillframe.reports.rundata import RunData, from_result

MIB = 2**20


@dataclass
class Inputs:
    """The four things that :func:`stillframe.reports.rundata.from_result` takes."""

    result: JobResult
    placements: list[tuple[Any, ...]] = field(default_factory=list)
    series: list[tuple[Any, ...]] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    def run(self) -> RunData:
        return from_result(self.result, self.placements, self.series, self.meta)


def build_run(
    vms: int, seed: int = 1, *, sees_all: bool = True, with_series: bool = True
) -> RunData:
    """A run of ``vms`` selected VMs; ``sees_all`` false is a live driver that measures little."""
    return build_inputs(vms, seed, sees_all=sees_all, with_series=with_series).run()


def build_inputs(
    vms: int, seed: int = 1, *, sees_all: bool = True, with_series: bool = True
) -> Inputs:
    """About 16 VMs per datastore and 6 datastores per group, some VMs on two datastores."""
    return _Builder(vms, random.Random(seed), sees_all, with_series).build()


class _Builder:
    def __init__(self, vms: int, rng: random.Random, sees_all: bool, with_series: bool) -> None:
        self.rng = rng
        self.count = vms
        self.sees_all = sees_all
        self.with_series = with_series
        self.log = EventLog()
        self.datastores = max(3, vms // 16)
        self.arrays = 2 if vms < 1000 else 6
        self.inputs = Inputs(
            JobResult(
                "",
                "",
                JobStatus.PARTLY,
                0,
                0,
                [],
                [],
                [],
                [],
                (),
                0,
                0,
                0,
                0,
                0,
                0,
                [],
                [],
                self.log,
            )
        )

    def unit(self, store: int) -> str:
        return f"{self.array(store)}/lun-{store:03d}"

    def array(self, store: int) -> str:
        return f"array-{store * self.arrays // self.datastores + 1}"

    def build(self) -> Inputs:
        start = 100.0
        self.log.add(start, Kind.JOB_STARTED, "", "job", "")
        per_group = 1 if self.count < 50 else 6
        stores = list(range(self.datastores))
        targeted = stores[: max(2, self.datastores * 3 // 4)]
        components = [targeted[i : i + per_group] for i in range(0, len(targeted), per_group)]
        number, begin, ends = 0, start, []
        for c, members in enumerate(components):
            size = self.count // len(components) + (c < self.count % len(components))
            names = range(number, number + size)
            number += size
            ends.append(self.group(c, members, list(names), begin + self.rng.uniform(0.0, 4.0)))
            if c % 5 == 4:
                begin = min(ends[-5:])
        self.strangers(targeted, components)
        self.finish(start, max(ends), len(targeted))
        return self.inputs

    def group(self, c: int, stores: list[int], numbers: list[int], begin: float) -> float:
        rng, group_id = self.rng, f"group-{c + 1:02d}"
        outcomes = [self.create(n, group_id, stores, begin, i) for i, n in enumerate(numbers)]
        created = [vm.opened_s for vm in outcomes if vm.opened_s is not None]
        ready = max(created, default=begin) + 0.4
        calls = self.cut(c, group_id, stores, ready)
        cut_end = max(call.completed_s or 0.0 for call in calls)
        end = cut_end
        for i, vm in enumerate(v for v in outcomes if v.opened_s is not None):
            end = max(end, self.release(vm, cut_end + (i // 8) * rng.uniform(0.5, 2.0), calls))
        result = self.inputs.result
        result.vms += outcomes
        result.calls += calls
        result.groups.append(GroupOutcome(group_id, tuple(v.vm_id for v in outcomes), begin, end))
        return end

    def create(self, n: int, group_id: str, stores: list[int], begin: float, i: int) -> VmOutcome:
        rng = self.rng
        kind = ("app", "db", "web", "mail")[n % 4]
        vm = VmOutcome(f"vc-a/vm-{1000 + n}", f"{kind}-{n:03d}", group_id, attempts=1)
        mine = stores if n % 11 == 3 else [stores[i % len(stores)]]
        mine = mine[:3]
        vm.datastore_ids = tuple(f"ds-{s:03d}" for s in mine)
        vm.unit_ids = tuple(self.unit(s) for s in mine)
        component = int(group_id.split("-")[1])
        for key, s in enumerate(mine):
            self.place(vm.vm_id, vm.name, s, 2000 + key, component, "selected")
        vm.wait_s = (i // 8) * rng.uniform(1.0, 2.5)
        vm.requested_s = begin + vm.wait_s
        self.log.add(vm.requested_s, Kind.VM_SNAPSHOT_REQUESTED, group_id, vm.vm_id, "")
        if n % 67 == 19:
            vm.status, vm.reason = VmStatus.UNPROTECTED, "the guest did not freeze within 15 min"
            vm.attempts = 4
            return vm
        freeze = vm.requested_s + rng.uniform(0.2, 0.9)
        frozen = rng.lognormvariate(-0.3, 0.75) * (6 if n % 97 == 50 else 1)
        stun_at = freeze + frozen * 0.6
        stun = min(frozen * 0.35, rng.lognormvariate(-1.7, 0.4))
        vm.opened_s = stun_at + stun
        vm.degraded = n % 41 == 7
        vm.level = ConsistencyLevel.CRASH if vm.degraded else ConsistencyLevel.APPLICATION
        if self.sees_all:
            vm.stun_create = Window(stun_at, stun_at + stun)
        if not vm.degraded:
            vm.quiesce = Window(freeze, freeze + frozen, self.sees_all)
        self.log.add(vm.opened_s, Kind.VM_SNAPSHOT_CREATED, group_id, vm.vm_id, "")
        return vm

    def cut(self, c: int, group_id: str, stores: list[int], ready: float) -> list[ArrayCall]:
        calls = []
        for array in sorted({self.array(s) for s in stores}):
            units = tuple(self.unit(s) for s in stores if self.array(s) == array)
            call = ArrayCall(array, group_id, f"sf-{c}-{array}", units, ready, attempts=1)
            hold = 0.12 + 0.05 * len(units) * self.rng.uniform(0.7, 1.6)
            latency = 0.5 + hold + self.rng.expovariate(1 / 0.4)
            call.completed_s, call.cut_s = ready + latency, ready + latency - 0.2
            if self.sees_all:
                call.fence = Window(call.cut_s - hold * 0.7, call.cut_s + hold * 0.3)
            call.ref = GroupSnapshotRef(array, f"snap-{c}", call.tag)
            self.log.add(ready, Kind.ARRAY_SNAPSHOT_REQUESTED, group_id, array, "")
            self.log.add(call.completed_s, Kind.ARRAY_SNAPSHOT_COMPLETED, group_id, array, "")
            calls.append(call)
        return calls

    def release(self, vm: VmOutcome, at: float, calls: list[ArrayCall]) -> float:
        assert vm.opened_s is not None
        vm.removal_s = at
        delta = int((at - vm.opened_s) * self.rng.lognormvariate(0.5, 1.3) * MIB)
        took = 0.3 + delta / (60 * MIB) * self.rng.uniform(0.8, 2.5)
        vm.merged_s = at + took
        vm.status = VmStatus.PROTECTED
        if self.sees_all:
            vm.delta_bytes, vm.merged_bytes, vm.passes = delta, int(delta * 1.1), 1
            vm.stun_remove = Window(vm.merged_s - 0.15, vm.merged_s)
        refs = tuple(call.ref for call in calls if call.ref is not None)
        self.inputs.result.catalogue.append(
            CatalogueEntry(vm.vm_id, vm.level, calls[0].cut_s or 0.0, refs, vm.unit_ids)
        )
        self.log.add(vm.merged_s, Kind.VM_RELEASE_COMPLETED, vm.group_id, vm.vm_id, "")
        if self.with_series:
            store = vm.datastore_ids[0]
            self.inputs.series.append((vm.opened_s, "delta.open_bytes", store, float(delta)))
            self.inputs.series.append((vm.merged_s, "delta.open_bytes", store, -float(delta)))
        return vm.merged_s

    def place(
        self, vm_id: str, name: str, store: int, key: int | None, component: int | None, role: str
    ) -> None:
        kind = "nfs" if store % 3 == 2 else "vmfs"
        row = (vm_id, name, f"ds-{store:03d}", kind, self.unit(store), self.array(store), key)
        self.inputs.placements.append((*row, component, role))

    def strangers(self, targeted: list[int], components: list[list[int]]) -> None:
        of = {s: c + 1 for c, members in enumerate(components) for s in members}
        collateral = []
        for n in range(max(2, self.count // 12)):
            store = targeted[(n * 5) % len(targeted)]
            collateral.append(f"vc-a/vm-{70000 + n}")
            self.place(collateral[-1], f"guest-{n:03d}", store, 2000, of[store], "collateral")
        untouched = [s for s in range(self.datastores) if s not in of]
        for n in range(max(3, self.count // 5) if untouched else 0):
            store = untouched[n % len(untouched)]
            self.place(f"vc-a/vm-{90000 + n}", f"other-{n:03d}", store, 2000, None, "other")
        self.inputs.result.collateral = tuple(collateral)

    def finish(self, start: float, end: float, targeted: int) -> None:
        result = self.inputs.result
        result.job_id, result.strategy = "job-1", "per-component"
        result.started_s, result.finished_s = start, end + 1.0
        result.targeted_units, result.estate_units = targeted, self.datastores
        result.targeted_bytes, result.estate_bytes = targeted * 4 * 2**40, self.datastores * 2**42
        result.retries, result.fallbacks = 5, sum(vm.degraded for vm in result.vms)
        if all(vm.status is VmStatus.PROTECTED for vm in result.vms):
            result.status = JobStatus.PROTECTED
        waited = [vm.wait_s for vm in result.vms if vm.wait_s > 0]
        result.waits = [
            LimiterWaits(
                "create per host", self.count, len(waited), sum(waited), max(waited, default=0.0)
            ),
            LimiterWaits("create per datastore", self.count, 3, 4.5, 2.0),
            LimiterWaits("remove per host", self.count, self.count // 3, self.count * 0.8, 9.0),
            LimiterWaits("groups", len(result.groups), 0, 0.0, 0.0),
        ]
        self.log.add(result.finished_s, Kind.JOB_FINISHED, "", "job", "")
        self.inputs.meta = {
            "name": "demo",
            "title": "A mixed estate, about half of it selected",
            "seed": 7,
            "description": "Two arrays, VMFS and NFS, VMs that span several storage units.",
            "command": "stillframe run demo --seed 7 --out out/demo",
            "assumptions": [
                "Guest writes follow a block trace, scaled per VM (cloudphysics-hour1).",
                "The array keeps old data by redirect-on-write (profile row-midrange).",
            ],
        }
        if self.with_series:
            self.inputs.series = _cumulate(self.inputs.series) + self.pools(start, end)

    def pools(self, start: float, end: float) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for a in range(1, self.arrays + 1):
            name, capacity, used = f"array-{a}", 60.0 * 2**40, (20.0 + 4 * a) * 2**40
            rows.append((start, "pool.capacity_bytes", name, capacity))
            for step in range(60):
                t = start + (end - start) * step / 60
                used += self.rng.expovariate(1 / (2.0 * 2**30))
                rows.append((t, "pool.used_bytes", name, used))
                merge = 180e6 * max(0.0, 1 - abs(step - 35) / 20) * self.rng.uniform(0.7, 1.2)
                rows.append((t, "array.background_bytes_per_s", name, merge))
                rows.append((t, "array.copy_bytes_per_s", name, merge * 0.3 if a == 2 else 0.0))
                rows.append((t, "array.snapshots", name, float(step // 10)))
        return rows


def _cumulate(changes: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    level: dict[str, float] = {}
    rows = []
    for t, quantity, subject, change in sorted(changes):
        level[subject] = max(0.0, level.get(subject, 0.0) + change)
        rows.append((t, quantity, subject, level[subject]))
    return rows
