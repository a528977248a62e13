"""Flow and block fidelity agree: the one's expectation is what the other counts.

Both worlds get the same seed, so that every latency is the same draw. What is left is data: flow
takes the mean of a random process, block one sample of it. The number of distinct blocks varies
less than that of a Poisson process, so the sample lies within ``5 sqrt(n)`` blocks of a mean of n
(one in a million does not) plus one block for each VM, whose counts are whole. Beyond that:

* flow lets a guest write through freeze, stun and fence, block lets it stand still: flow counts up
  to the guest's rate times these pauses more;
* flow counts a write for the delta when the guest makes it, block when it is on the disk: flow
  counts up to what the guests' memory holds more;
* flow takes all late writes for dirty, block those that no application waits for.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_block import BlockBench
from support_world import Bench, config, disk, estate, request, vm

from stillframe.drivers.contracts import GroupSnapshotRequest

VMS = tuple(
    vm(name, disk(2000, store), disk(2001, "ds1"))
    for name, store in (("a", "ds1"), ("b", "ds2"), ("c", "ds-wide"), ("d", "ds-nfs"))
)
KIB = 1024
FLUSH_RATE, MERGE_RATE = 100e6, 50e6
LONGEST_PAUSE_S = 2.0
"""Thaw call, fence and stun of one VM take less."""


class Load(NamedTuple):
    """A drawn workload; sizes in bytes."""

    rate: float
    working_set: int
    locality: float
    write_size: int
    dirty_age: float
    durable_share: float
    open_s: float
    method: str
    merge: str

    @property
    def block_bytes(self) -> int:
        return max(4 * KIB, self.write_size)


LOADS = st.builds(
    Load,
    rate=st.floats(100e3, 1e6),
    working_set=st.integers(20_000_000, 400_000_000),
    locality=st.floats(0.5, 0.9),
    write_size=st.sampled_from([4 * KIB, 8 * KIB, 16 * KIB]),
    dirty_age=st.floats(0.0, 20.0),
    durable_share=st.sampled_from([0.0, 0.5, 1.0]),
    open_s=st.floats(5.0, 30.0),
    method=st.sampled_from(["redirect-on-write", "copy-on-write"]),
    merge=st.sampled_from(["mirror", "iterative"]),
)


class Seen(NamedTuple):
    """What one world did; sums over the VMs."""

    delta_bytes: float
    cached_bytes: float
    overwritten_bytes: float
    cached_on_unit_bytes: float
    quiesced_s: float
    created_s: float
    merged_s: list[float]
    array_s: float


def bench_of(load: Load, fidelity: str) -> Bench:
    hypervisor = {"task_latency": 0.0, "merge": load.merge, "merge_stun_below": 0.5}
    profile = {
        name: getattr(load, name) for name in ("rate", "working_set", "locality", "write_size")
    }
    rule = {"profile": profile, "dirty_age": load.dirty_age}
    more: dict[str, Any] = {"arrays": {"default": {"method": load.method}}}
    if fidelity == "flow":
        return Bench(estate(*VMS), config(hypervisor, rule, **more))
    block = {"durable_share": load.durable_share, "most_writes_per_s": 1e6}
    return BlockBench(*VMS, guest=rule, hypervisor=hypervisor, block=block, **more)


def run(load: Load, fidelity: str) -> Seen:
    bench = bench_of(load, fidelity)
    world = bench.world
    hypervisor, guests = world.hypervisors["vc"], world.guests

    async def main() -> Seen:
        now = asyncio.get_running_loop().time
        await asyncio.sleep(30.0)
        made, created_s = [], 0.0
        for one in VMS:
            start_s = now()
            made.append(await hypervisor.create_snapshot(request(one.name)))
            created_s += now() - start_s
        start_s = now()
        asked = GroupSnapshotRequest(("lun-1",), "t", 60.0)
        cut = await world.arrays["a1"].snapshot_group(asked)
        array_s = now() - start_s
        await asyncio.sleep(load.open_s)
        assert cut.cut_s is not None
        overwritten = guests.overwritten_bytes("lun-1", cut.cut_s, now(), 4 * KIB)
        dirty = [guests.dirty_bytes(guest, now()) for guest in range(len(VMS))]
        # VM a lies on the unit with both disks, the others with one of two alike.
        on_unit = dirty[0] + sum(dirty[1:]) / 2
        delta = cached = 0.0
        merged = []
        for guest, one in enumerate(made):
            cached += guests.dirty_bytes(guest, now())
            start_s = now()
            result = await hypervisor.remove_snapshot(one.ref)
            merged.append(now() - start_s)
            assert result.delta_bytes is not None
            delta += result.delta_bytes
        quiesced_s = sum(m.quiesce.duration_s for m in made if m.quiesce is not None)
        return Seen(delta, cached, overwritten, on_unit, quiesced_s, created_s, merged, array_s)

    seen: Seen = bench.go(main)
    return seen


def sampling_bytes(load: Load, mean_bytes: float) -> float:
    """How far a sample may lie from its mean: 5 standard deviations, and the rounding."""
    block = load.block_bytes
    return 5 * math.sqrt(mean_bytes * block) + len(VMS) * block


@given(load=LOADS)
@settings(max_examples=15, deadline=None)
def test_deltas_overwrites_windows_and_latencies_agree(load: Load) -> None:
    flow, block = run(load, "flow"), run(load, "block")
    paused_bytes = load.rate * len(VMS) * LONGEST_PAUSE_S

    near = sampling_bytes(load, flow.delta_bytes)
    assert block.delta_bytes <= flow.delta_bytes + near
    assert flow.delta_bytes <= block.delta_bytes + block.cached_bytes + paused_bytes + near
    slack_s = (near + block.cached_bytes + paused_bytes) / MERGE_RATE
    assert sum(block.merged_s) == pytest.approx(sum(flow.merged_s), abs=2 * slack_s)

    near = sampling_bytes(load, flow.overwritten_bytes)
    counted = block.overwritten_bytes + block.cached_on_unit_bytes
    assert block.overwritten_bytes <= flow.overwritten_bytes + near
    assert flow.overwritten_bytes <= counted + paused_bytes + 2 * near

    # What a freeze flushes is the only difference between the windows, and between the creates.
    dirty_bytes = steady_dirty_bytes(load)
    flush_s = load.durable_share * dirty_bytes / FLUSH_RATE
    near_s = sampling_bytes(load, dirty_bytes) / FLUSH_RATE
    assert flow.quiesced_s - block.quiesced_s == pytest.approx(flush_s, abs=near_s)
    assert flow.created_s - block.created_s == pytest.approx(flush_s, abs=near_s)
    assert block.array_s == pytest.approx(flow.array_s)


def steady_dirty_bytes(load: Load) -> float:
    """What flow takes the guests' memory to hold at any time, all VMs together."""
    guests = bench_of(load, "flow").world.guests
    return sum(guests.dirty_bytes(guest, 30.0) for guest in range(len(VMS)))
