"""What a guest writes, in order, as far as it has ever been asked for.

A script depends on the seed, the VM and its write profile, and on nothing that happens in the run:
write n goes to the same block at the same moment of the guest's own clock whatever becomes of it.
Writes are made in pieces that double in size, so that short runs pay for few and long ones little
for each.

Applications write *durably*: they go on when the disk has the data, and count on it from then on.
Everything else is *cached*: it reaches the disk when the guest's memory lets go of it, and nobody
may count on it before. A block is written in one of the two ways for good, as files are: the blocks
of a database are not those of a log that nobody waits for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .draws import Draws

_FIRST_PIECE = 128
_LARGEST_PIECE = 8192
_MIX = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: multiples of it are spread evenly."""


@dataclass(frozen=True)
class Workload:
    """How a guest writes, in whole blocks.

    Attributes
    ----------
    writes_per_s:
        Mean rate on the guest's clock; gaps are exponential, so that writes are a Poisson process.
    block_bytes:
        What one write writes.
    hot_blocks, cold_blocks:
        Per disk the blocks that are written often and rarely, each at least 1.
    disk_shares:
        Per disk the share of the writes, in sum 1.
    locality:
        Share of a disk's writes that go to its hot blocks.
    durable_share:
        Share of the blocks that are written durably.
    """

    writes_per_s: float
    block_bytes: int
    hot_blocks: tuple[int, ...]
    cold_blocks: tuple[int, ...]
    disk_shares: tuple[float, ...]
    locality: float
    durable_share: float


class WriteStream:
    """Writes of one kind, by time: parallel lists of guest time, block and sequence number."""

    __slots__ = ("blocks", "stamps", "times_s")

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.blocks: list[int] = []
        self.stamps: list[int] = []

    def extend(
        self, times_s: Sequence[float], blocks: Sequence[int], stamps: Sequence[int]
    ) -> None:
        self.times_s += times_s
        self.blocks += blocks
        self.stamps += stamps


class WriteScript:
    """The writes of one guest; the stamp of a write is its sequence number over all its disks.

    Parameters
    ----------
    workload:
        How it writes.
    draws, vm_id:
        Where the randomness comes from.

    Attributes
    ----------
    durable, cached:
        What has been made of the two kinds, to the moment ``until_s``.
    first_block:
        Per disk the number of its first block; numbers go through all disks.
    """

    __slots__ = (
        "_chances",
        "_counts",
        "_cumulative",
        "_draws",
        "_durable_below",
        "_last",
        "_made",
        "_piece",
        "_rate",
        "_starts",
        "_vm_id",
        "cached",
        "durable",
        "first_block",
        "until_s",
    )

    def __init__(self, workload: Workload, draws: Draws, vm_id: str) -> None:
        self._rate = workload.writes_per_s
        self._draws = draws
        self._vm_id = vm_id
        self._made = self._piece = 0
        self.durable = WriteStream()
        self.cached = WriteStream()
        self.until_s = 0.0 if self._rate > 0.0 and workload.disk_shares else math.inf
        self._durable_below = np.uint64(min(2.0**64 - 1025.0, workload.durable_share * 2.0**64))
        starts: list[int] = []
        counts: list[int] = []
        chances: list[float] = []
        self.first_block: list[int] = []
        at = 0
        for hot, cold, share in zip(
            workload.hot_blocks, workload.cold_blocks, workload.disk_shares, strict=True
        ):
            self.first_block.append(at)
            for count, part in ((hot, workload.locality), (cold, 1.0 - workload.locality)):
                starts.append(at)
                counts.append(count)
                chances.append(share * part)
                at += count
        self._starts = np.array(starts, dtype=np.int64)
        self._counts = np.array(counts, dtype=np.float64)
        self._last = np.array(counts, dtype=np.int64) - 1
        self._cumulative: NDArray[np.float64] = np.concatenate(([0.0], np.cumsum(chances)))
        self._chances: NDArray[np.float64] = self._cumulative[1:] - self._cumulative[:-1]

    def reach(self, guest_s: float) -> None:
        """Make all writes up to a moment of the guest's clock."""
        while self.until_s <= guest_s:
            self._make()

    def acknowledged(self, stamps: Sequence[int]) -> list[int]:
        """Those of the stamps that belong to durable writes."""
        durable = set(self.durable.stamps)
        return [stamp for stamp in stamps if stamp in durable]

    def _make(self) -> None:
        count = min(_FIRST_PIECE << self._piece, _LARGEST_PIECE)
        words = np.frombuffer(
            self._draws.stream(16 * count, "writes", self._vm_id, self._piece), dtype="<u8"
        )
        self._piece += 1
        uniforms = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        times = self.until_s - np.cumsum(np.log(uniforms[:count])) / self._rate
        cumulative = self._cumulative
        where = uniforms[count:] * cumulative[-1]
        region = np.searchsorted(cumulative, where, side="right") - 1
        region = np.minimum(region, len(self._counts) - 1)
        inside = (where - cumulative[region]) / self._chances[region] * self._counts[region]
        blocks = self._starts[region] + np.minimum(inside.astype(np.int64), self._last[region])
        mixed = blocks.astype(np.uint64) * np.uint64(_MIX)
        durable = mixed < self._durable_below
        stamps = np.arange(self._made, self._made + count)
        for stream, chosen in ((self.durable, durable), (self.cached, ~durable)):
            stream.extend(times[chosen].tolist(), blocks[chosen].tolist(), stamps[chosen].tolist())
        self._made += count
        self.until_s = float(times[-1])
