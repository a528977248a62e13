"""Block traces for tests: synthetic ones, records as bytes, and where the real one is."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from stillframe.sim.trace import BlockTrace

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(
    os.environ.get("STILLFRAME_TRACE", ROOT.parent / "shared" / "data" / "cloudphysics-hour1.vscsi")
)

GRAIN = 4096
EXTENT = 65536
WRITE, READ = 0x2A, 0x28


def record(
    time_us: int, lbn: int = 8, length: int = 4096, command: int = WRITE, version: int = 0x0100
) -> bytes:
    return struct.pack("<IIIHHQQ", 7, length, 1, command, version, lbn, time_us)


def synthetic(seed: int, records: int = 120, span_s: float = 40.0) -> BlockTrace:
    """A short trace with a hot spot, a burst, reads, unaligned and zero-length writes."""
    rng = np.random.default_rng(seed)
    times = np.sort(
        np.append(rng.uniform(0, span_s, records - 40), rng.uniform(17.0, 18.0, 40))
    ).round(6)
    hot = rng.random(records) < 0.5
    blocks = rng.integers(0, 200, records)
    blocks[::7] = 0
    lbn = np.where(hot, rng.integers(0, 64, records), rng.integers(0, 20_000, records))
    return BlockTrace(
        times - times[0],
        rng.random(records) < 0.8,
        lbn.astype(np.int64) * 512,
        blocks.astype(np.int64) * 512,
        f"synthetic {seed}",
    )


def replay(trace: BlockTrace, phase_s: float, duration_s: float, unit: int) -> int:
    """Distinct bytes by brute force: a set, over the records of three cycles."""
    seen: set[int] = set()
    for time_s, write, offset, length in zip(
        trace.times_s, trace.is_write, trace.offset_bytes, trace.length_bytes, strict=True
    ):
        for cycle in (0, 1, 2):
            when = time_s + cycle * trace.period_s
            if write and length and phase_s <= when < phase_s + duration_s:
                seen.update(range(offset // unit, (offset + length - 1) // unit + 1))
    return len(seen) * unit
