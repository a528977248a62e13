"""What the guests of a lab write: how the model is told, and what it means for a fit."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..quantity import dump_bytes
from ..sim.guest_rules import GuestRule
from .fit_record import RunRecord, WriteLoad


def guest_entry(record_bytes: int, rate_per_s: float, file_bytes: int) -> dict[str, Any]:
    """The entry of ``world.guests`` for a guest that writes as the lab's writer does.

    Records follow one another through a file and start over at its end, each durable before the
    next. So nothing of the file is dirty when the guest freezes; what else a freeze writes out is
    part of the freeze as it was measured.

    Parameters
    ----------
    record_bytes, file_bytes:
        Size of a record, and of the file that is written over and over.
    rate_per_s:
        Records per second.
    """
    return {
        "match": "*",
        "profile": {
            "rate": f"{record_bytes * rate_per_s!r} B/s",
            "working_set": dump_bytes(file_bytes),
            "write_size": dump_bytes(record_bytes),
            "order": "sequential",
        },
        "scale_median": 1.0,
        "scale_sigma": 0.0,
        "dirty_limit": "0 B",
    }


def guest_rule(load: WriteLoad) -> GuestRule:
    """The modelled guest that writes as these did; the rate that counts is ``rate_per_s``."""
    entry = guest_entry(load.record_bytes, load.rate_per_s, load.file_bytes)
    return GuestRule.model_validate(entry)


@dataclass(frozen=True, slots=True)
class Load:
    """What the writes of runs mean for a fit.

    Attributes
    ----------
    full_bytes_per_s:
        See :class:`~..sim.writers.Writers`.
    base_bytes:
        What the delta of one disk holds before anything is written.
    known:
        Every run says how its guests wrote, and they did not all write alike.
    """

    full_bytes_per_s: float
    base_bytes: int
    known: bool

    def writers(self, run: RunRecord) -> float:
        """The writing guests of a run, each as a share of one that writes all the time."""
        if not self.known:
            return 0.0
        return len(run.vms) * -math.expm1(-_rate_of(run) / self.full_bytes_per_s)


def load_of(runs: Sequence[RunRecord]) -> Load:
    """What the writes of these runs mean.

    Writes that come at random fall into a phase of length T with chance ``1 - exp(-r T / b)``, r
    being the rate and b the bytes of one; and one that does is enough to hold the phase up. So a
    guest counts fully at the rate b / T, with the median merge as T.

    The base of a delta is the median of what deltas hold beyond what their guests wrote while they
    were open; where nobody said how guests wrote, it is the smallest delta.
    """
    full = [
        run.writes.record_bytes / vm.merge_s
        for run in runs
        for vm in run.vms
        if run.writes is not None and vm.merge_s
    ]
    known = all(run.writes is not None for run in runs) and len({_rate_of(run) for run in runs}) > 1
    return Load(statistics.median(full) if full else math.inf, _base_bytes(runs), known)


def _base_bytes(runs: Sequence[RunRecord]) -> int:
    bases = [
        (vm.delta_bytes - _rate_of(run) * vm.open_s) / vm.disks
        for run in runs
        for vm in run.vms
        if vm.delta_bytes is not None and vm.open_s is not None and vm.disks
    ]
    if not bases:
        return 0
    told = all(run.writes is not None for run in runs)
    return max(0, round(statistics.median(bases) if told else min(bases)))


def _rate_of(run: RunRecord) -> float:
    return run.writes.record_bytes * run.writes.rate_per_s if run.writes else 0.0
