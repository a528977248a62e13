"""Does a write profile say what its trace did? Against a replay of the trace itself.

    python -m benchmarks.evidence_trace [--pictures docs/images]

The replay shares no code with the product: it unpacks the records by itself and, for every
window, puts the blocks of its writes into a set. The trace is the file named by the environment
variable STILLFRAME_TRACE, or ../shared/data/cloudphysics-hour1.vscsi beside the repository.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stillframe.sim.calibrate import build_profile
from stillframe.sim.profilefile import load_profile
from stillframe.sim.trace import read_vscsi
from stillframe.sim.traceprofile import TraceProfile

from .evidence import Figure, write_evidence
from .trace_pictures import draw_bursts

ROOT = Path(__file__).resolve().parents[1]
TRACE = Path(
    os.environ.get("STILLFRAME_TRACE", ROOT.parent / "shared" / "data" / "cloudphysics-hour1.vscsi")
)

DURATIONS_S = (7.0, 45.0, 200.0, 1500.0)
PHASES = 500
SEED = 20_240_607
OTHER_SEEDS = 4  # one draw of phases can be lucky
EDGE_DRAWS = 200
BLOCK_BYTES = 4096
AIM = "<= 10 %"
STATISTICS = ("mean", "p50", "p95", "p99")

Sizes = NDArray[np.float64]


@dataclass(frozen=True)
class Replay:
    """The writes of a trace, replayed window by window around a cycle of ``period_s``."""

    times_s: list[float]
    blocks: list[range]
    period_s: float

    @classmethod
    def read(cls, path: Path) -> Replay:
        """Every write of a ``.vscsi`` file; the period is the span and one mean gap."""
        records = list(struct.iter_unpack("<IIIHHQQ", path.read_bytes()))
        begin_us, end_us = records[0][6], records[-1][6]
        period_s = (end_us - begin_us) / 1e6 * len(records) / (len(records) - 1)
        times_s, blocks = [], []
        for _, length, _, command, _, lbn, time_us in records:
            if command == 0x2A:
                first = lbn * 512 // BLOCK_BYTES
                last = (lbn * 512 + length - 1) // BLOCK_BYTES
                times_s.append((time_us - begin_us) / 1e6)
                blocks.append(range(first, last + 1))
        return cls(times_s, blocks, period_s)

    def part(self, start_s: float, end_s: float) -> Replay:
        """The writes of one stretch of the trace, as a cycle of its own."""
        first, last = bisect_left(self.times_s, start_s), bisect_left(self.times_s, end_s)
        times_s = [time_s - start_s for time_s in self.times_s[first:last]]
        return Replay(times_s, self.blocks[first:last], end_s - start_s)

    def distinct_bytes(self, phase_s: float, duration_s: float) -> int:
        """Bytes of the distinct blocks written in ``[phase_s, phase_s + duration_s)``."""
        end_s = phase_s + duration_s
        seen: set[int] = set()
        for begin_s, stop_s in ((phase_s, end_s), (0.0, end_s - self.period_s)):
            first, last = bisect_left(self.times_s, begin_s), bisect_left(self.times_s, stop_s)
            for blocks in self.blocks[first:last]:
                seen.update(blocks)
        return len(seen) * BLOCK_BYTES

    def sizes(self, phases_s: Sequence[float], duration_s: float) -> Sizes:
        """:meth:`distinct_bytes` for every phase."""
        return np.array([float(self.distinct_bytes(phase, duration_s)) for phase in phases_s])


def statistics(sizes: Sizes) -> tuple[float, ...]:
    """Mean, p50, p95 and p99."""
    return (float(sizes.mean()), *(float(p) for p in np.percentile(sizes, (50, 95, 99))))


def errors_percent(modelled: Sizes, replayed: Sizes) -> tuple[float, ...]:
    """The signed error of each of the statistics."""
    pairs = zip(statistics(modelled), statistics(replayed), strict=True)
    return tuple((model / real - 1.0) * 100.0 for model, real in pairs)


def draw_phases(seed: int, period_s: float) -> list[float]:
    """Random moments of the cycle."""
    rng = random.Random(seed)
    return [rng.uniform(0.0, period_s) for _ in range(PHASES)]


def fidelity(profile: TraceProfile, replay: Replay) -> tuple[list[Figure], dict[str, object]]:
    """The profile against its own trace, at durations that it does not tabulate."""
    figures: list[Figure] = []
    signed: dict[str, object] = {}
    worst = 0.0
    for offset in range(1 + OTHER_SEEDS):
        for duration_s in DURATIONS_S:
            phases_s = draw_phases(SEED + offset, replay.period_s)
            modelled = np.array([profile.delta_bytes(phase, duration_s) for phase in phases_s])
            errors = errors_percent(modelled, replay.sizes(phases_s, duration_s))
            worst = max(worst, *(abs(error) for error in errors))
            if offset:
                continue
            for statistic, error in zip(STATISTICS, errors, strict=True):
                name = f"{duration_s:g} s windows: error of the {statistic}"
                figures.append(Figure(name, abs(error), "%", AIM))
                signed[name] = error
    figures.append(
        Figure(f"largest of these errors over {1 + OTHER_SEEDS} sets of phases", worst, "%")
    )
    figures.append(edge_draws(profile, replay))
    nearest = min(
        abs(known / duration_s - 1.0) for known in profile.durations_s for duration_s in DURATIONS_S
    )
    figures.append(Figure("distance to the nearest tabulated duration", nearest * 100.0, "%"))
    return figures, signed


def edge_draws(profile: TraceProfile, replay: Replay) -> Figure:
    """How often 500 phases are too few for the statistic that lies on the edge of the burst.

    The busiest three minutes meet 5.2 % of all 7 s windows, so their p95 is decided by the few
    that just miss or just catch it, and a draw with a handful more of either moves it far.
    """
    beyond = 0
    for draw in range(EDGE_DRAWS):
        phases_s = draw_phases(SEED + 1000 + draw, replay.period_s)
        modelled = np.array([profile.delta_bytes(phase, 7.0) for phase in phases_s])
        beyond += abs(errors_percent(modelled, replay.sizes(phases_s, 7.0))[2]) > 10.0
    share = 100.0 * beyond / EDGE_DRAWS
    return Figure(f"7 s windows: share of {EDGE_DRAWS} draws with p95 off by > 10 %", share, "%")


def foresight(path: Path, replay: Replay) -> tuple[list[Figure], dict[str, object]]:
    """What a profile of the first part of the trace says about the rest: ratios, sizes in MB."""
    trace = read_vscsi(path)
    figures: list[Figure] = []
    sizes_mb: dict[str, object] = {}
    for cut_s, label in (
        (replay.period_s / 2.0, "first half hour for the second"),
        (1600.0, "first 1,600 s, before the burst, for the rest"),
    ):
        profile = build_profile(trace.window(0.0, cut_s), granularities=(BLOCK_BYTES,))
        future = replay.part(cut_s, replay.period_s)
        for duration_s in DURATIONS_S:
            (row,) = profile.summary((duration_s,))
            predicted = (row.mean_bytes, row.p50_bytes, row.p95_bytes, row.p99_bytes)
            replayed = statistics(future.sizes(draw_phases(SEED, future.period_s), duration_s))
            for statistic, model, real in zip(STATISTICS, predicted, replayed, strict=True):
                name = f"{label}: {duration_s:g} s windows, {statistic}"
                figures.append(Figure(f"{name}, predicted ÷ replayed", model / real))
                sizes_mb[name] = {"predicted": model / 1e6, "replayed": real / 1e6}
    return figures, sizes_mb


def main() -> int:
    """Measure, write out/evidence/trace.json, and draw the pictures if asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=Path, help="folder for the pictures of the docs")
    arguments = parser.parse_args()
    if not TRACE.is_file():
        print(
            f"{TRACE}: does not exist (set STILLFRAME_TRACE to the .vscsi trace)", file=sys.stderr
        )
        return 2
    profile = load_profile()
    replay = Replay.read(TRACE)
    figures, signed = fidelity(profile, replay)
    foreseen, sizes_mb = foresight(TRACE, replay)
    write_evidence(
        "trace",
        [*figures, *foreseen],
        {"seed": SEED, "signed_errors_percent": signed, "foresight_mb": sizes_mb},
    )
    if arguments.pictures:
        print(f"picture: {draw_bursts(profile, arguments.pictures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
