"""Fitting the array: how long a group snapshot takes by the number of units, and its fence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .fit_hypervisor import FEWEST_TIMES
from .fit_load import Load
from .fit_math import Fitted, FloatArray, fit_beside, fit_medians, matched, spread_within
from .fit_record import RunRecord
from .fit_sheet import Sheet

_UNLIMITED = 1e12
"""Bytes per second that the model's array never reaches in a lab."""
_FENCE_SHARE = 0.1
"""A fence that makes less of a call than this is not told apart from the rest of it."""


@dataclass(frozen=True, slots=True)
class _Call:
    """A completed group snapshot, and the guests that wrote meanwhile."""

    units: int
    whole_s: float
    fence_s: float
    writers: float


def array_numbers(runs: Sequence[RunRecord], load: Load, sheet: Sheet) -> dict[str, Any]:
    """What the runs say about the array, as overrides of a profile; noted on the sheet.

    Raises
    ------
    InputError
        Too few group snapshots were completed.
    """
    calls = [
        _Call(call.units, call.latency_s, call.fence_s or 0.0, load.writers(run))
        for run in runs
        for call in run.calls
        if not call.error and call.latency_s > 0
    ]
    if len(calls) < FEWEST_TIMES:
        problem = f"they hold {len(calls)} completed group snapshots"
        raise InputError("runs", "", problem, f"at least {FEWEST_TIMES} are needed")
    return {**_latency(calls, sheet), **_without_limits(sheet)}


def _latency(calls: Sequence[_Call], sheet: Sheet) -> dict[str, Any]:
    fences = np.array([call.fence_s for call in calls])
    wholes = np.array([call.whole_s for call in calls])
    writers = np.array([[call.writers] for call in calls])
    columns = _by_units(calls)
    # One dependence on writes for all of a call: the fence is inside it and waits for the same.
    _, (per_writer,) = fit_beside(columns, writers, wholes)
    columns = columns * (1.0 + writers * per_writer)
    held = fences >= _FENCE_SHARE * wholes
    fence = fit_medians(columns, fences) if held.all() else None
    rest = fit_medians(columns, np.maximum(wholes - fences, 0.01 * wholes) if fence else wholes)
    if columns.shape[1] == 1:
        sheet.notes.append(
            f"Every group snapshot was of {calls[0].units} units: what each further unit costs is "
            "not fitted."
        )
    beside = np.array([(call.units, call.writers) for call in calls])
    parts, sigmas = _parts(columns, rest, fence, beside)
    sums = parts.sum(axis=1)
    scale, stretch = matched(parts / sums[:, None], sigmas, np.log(wholes / sums), beside)
    count, what = len(calls), "group snapshots"
    found: dict[str, Any] = {
        "snapshot_per_writer": sheet.factor("snapshot_per_writer", per_writer, count, what)
    }
    for name, fitted in (("snapshot", rest), ("fence", fence)):
        if fitted is None:
            found[f"{name}_base"] = found[f"{name}_per_unit"] = 0.0
            for number in ("base", "per_unit"):
                sheet.known(f"{name}_{number}", "nearly nothing of a call: part of the snapshot")
            continue
        base_s, unit_s = _two(fitted, scale)
        sigma = min(3.0, spread_within(fitted.residuals, beside) * stretch)
        found[f"{name}_base"] = sheet.seconds(f"{name}_base", base_s, count, what, sigma)
        found[f"{name}_per_unit"] = sheet.seconds(f"{name}_per_unit", unit_s, count, what)
        found[f"{name}_sigma"] = sheet.factor(f"{name}_sigma", sigma, count, what)
    return found


def _by_units(calls: Sequence[_Call]) -> FloatArray:
    units = np.array([float(call.units) for call in calls])
    ones = np.ones_like(units)
    return np.column_stack([ones, units] if np.ptp(units) else [ones])


def _parts(
    columns: FloatArray, rest: Fitted, fence: Fitted | None, beside: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The parts of a call that the model draws one by one: base, per unit, and the fence."""
    parts = columns * rest.weights
    sigmas = [spread_within(rest.residuals, beside)] * parts.shape[1]
    if fence is None:
        return parts, np.array(sigmas)
    return np.column_stack([parts, columns @ fence.weights]), np.array(
        [*sigmas, spread_within(fence.residuals, beside)]
    )


def _two(fitted: Fitted, scale: float) -> tuple[float, float]:
    base_s = float(fitted.weights[0]) * scale
    return base_s, float(fitted.weights[1]) * scale if len(fitted.weights) > 1 else 0.0


def _without_limits(sheet: Sheet) -> dict[str, Any]:
    """What would hold up a merge or a call twice, since it is part of the fitted times."""
    sheet.known("management_latency", "part of the fitted latency of a group snapshot")
    for name in ("io_bandwidth", "flow_bandwidth"):
        sheet.known(name, "not a limit by itself: merges were timed on this array (merge_rate)")
    return {"management_latency": 0.0, "io_bandwidth": _UNLIMITED, "flow_bandwidth": None}
