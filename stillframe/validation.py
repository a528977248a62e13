"""How well a model predicts: the same job measured live and modelled, clock by clock.

Both sides are samples of runs, pooled over the VMs (or array calls) of all runs of a side. Their
percentiles are by nearest rank, as everywhere in reports. The error of a percentile is how far the
prediction is from the measurement, as a share of the measurement.

Few live runs say little about a 95th percentile. Next to each measured percentile stands the range
in which it would lie in 95 of 100 repetitions, by resampling whole runs: the VMs of one run share
the machine's mood, so they are not independent (Efron, "Bootstrap methods", Annals of Statistics
7(1), 1979; the percentile method). It cannot reach beyond the largest value that was seen, so for a
95th percentile of few runs its upper end is too low. A prediction within the range is not refuted,
which is less than confirmed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .lab.fit_record import RunRecord
from .orchestrator.spec import Section
from .reports.stats import CALL_CLOCKS, CLOCKS, Clock, percentile

PERCENTS = (50, 95)
"""The percentiles that are predicted."""

RESAMPLES = 1_000
COVERED = 95.0
"""Share of the resampled percentiles that lie in the range, in per cent."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one clock, in seconds, by run; a run in which nobody saw it has none."""

    runs: tuple[tuple[float, ...], ...]

    @property
    def count(self) -> int:
        """How many values there are."""
        return sum(map(len, self.runs))

    def percentile_s(self, percent: float) -> float | None:
        """The nearest-rank percentile over all runs; None of no values."""
        return percentile(np.sort(_flat(self.runs)), percent)

    def range_s(self, percent: float, chance: random.Random) -> tuple[float, float] | None:
        """Between which values the percentile of so many runs lies in 95 of 100 repetitions.

        None of fewer than two runs with values: resampling one run says nothing.
        """
        runs = [run for run in self.runs if run]
        if len(runs) < 2:
            return None
        drawn = np.sort(
            [
                percentile(np.sort(_flat(chance.choices(runs, k=len(runs)))), percent)
                for _ in range(RESAMPLES)
            ]
        ).astype(np.float64)
        rest = (100.0 - COVERED) / 2
        low, high = percentile(drawn, rest), percentile(drawn, 100.0 - rest)
        assert low is not None  # noqa: S101  there are as many as were drawn
        assert high is not None  # noqa: S101
        return low, high


def _flat(runs: Sequence[Sequence[float]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([value for run in runs for value in run], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class JudgedClock:
    """A clock that predictions are judged by, and how a run's record holds it."""

    clock: Clock
    field: str
    of_calls: bool = False

    def sample(self, runs: Sequence[RunRecord]) -> Sample:
        """Its values in these runs."""
        return Sample(tuple(self._values(run) for run in runs))

    def _values(self, run: RunRecord) -> tuple[float, ...]:
        rows: Sequence[object] = run.calls if self.of_calls else run.vms
        found = (getattr(row, self.field) for row in rows)
        return tuple(float(value) for value in found if value is not None)


_CLOCKS = {clock.column: clock for clock in (*CLOCKS, *CALL_CLOCKS)}
JUDGED = (
    JudgedClock(_CLOCKS["quiesce_s"], "quiesce_s"),
    JudgedClock(_CLOCKS["merge_s"], "merge_s"),
    JudgedClock(_CLOCKS["snapshot_s"], "latency_s", of_calls=True),
)


class PercentileCheck(Section):
    """One percentile of one clock, in seconds; None where a side has no value."""

    percent: int
    measured_s: float | None
    range_s: tuple[float, float] | None
    predicted_s: float | None

    @property
    def error(self) -> float | None:
        """Predicted against measured, as a share of the measured; negative when too low."""
        if self.measured_s is None or self.predicted_s is None or self.measured_s <= 0.0:
            return None
        return self.predicted_s / self.measured_s - 1.0

    @property
    def within_range(self) -> bool | None:
        """Whether the prediction lies where repetitions of the measurement would."""
        if self.range_s is None or self.predicted_s is None:
            return None
        return self.range_s[0] <= self.predicted_s <= self.range_s[1]


class ClockCheck(Section):
    """One clock, measured and predicted."""

    clock: str
    label: str
    measured: int
    predicted: int
    percentiles: tuple[PercentileCheck, ...]

    def at(self, percent: int) -> PercentileCheck:
        """The check of one percentile."""
        return next(one for one in self.percentiles if one.percent == percent)


def check(
    measured: Sequence[RunRecord], predicted: Sequence[RunRecord], seed: int = 1
) -> list[ClockCheck]:
    """Hold predicted runs against measured ones.

    Parameters
    ----------
    measured, predicted:
        Runs of the same job, live and modelled; their numbers may differ.
    seed:
        Decides the resampling.
    """
    return [_check(one, measured, predicted, seed) for one in JUDGED]


def _check(
    one: JudgedClock, measured: Sequence[RunRecord], predicted: Sequence[RunRecord], seed: int
) -> ClockCheck:
    live, modelled = one.sample(measured), one.sample(predicted)
    return ClockCheck(
        clock=one.clock.column,
        label=one.clock.label,
        measured=live.count,
        predicted=modelled.count,
        percentiles=tuple(
            PercentileCheck(
                percent=percent,
                measured_s=live.percentile_s(percent),
                range_s=live.range_s(percent, random.Random(f"{seed} {one.field} {percent}")),
                predicted_s=modelled.percentile_s(percent),
            )
            for percent in PERCENTS
        ),
    )
