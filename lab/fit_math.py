"""Fitting times that vary by a factor: least absolute deviations of logarithms, with numpy only.

Measured times are positive, have a long tail to the right, and on a busy machine some are far off.
So what is fitted is the median, and what is minimised is the sum of ``|log(y / fitted)|``: a time
that is ten times too long counts as much as one that is ten times too short, and neither decides.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_ROUNDS = 60
_CLOSE = 1e-9
_STEEPEST = 8.0
_SWEEPS = 4
_FEWEST_ALIKE = 15
"""Observations under equal circumstances that give a spread of their own."""
_SAMPLES = 20_000
_HIGH = {share: NormalDist().inv_cdf(share) for share in (0.8, 0.9, 0.95)}


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Coefficients that are not negative, and ``log(y / fitted)`` of every observation."""

    weights: FloatArray
    residuals: FloatArray


def fit_medians(columns: FloatArray, times_s: FloatArray) -> Fitted:
    """The median of ``times_s`` as a sum of columns with weights of at least 0.

    Parameters
    ----------
    columns:
        One row per observation; numbers of at least 0, and in each row one that is greater.
    times_s:
        Seconds, all greater than 0.
    """
    if columns.shape[1] == 1:
        logs = np.log(times_s / columns[:, 0])
        middle = float(np.median(logs))
        return Fitted(np.array([math.exp(middle)]), logs - middle)
    scale = columns.max(axis=0)
    scale[scale == 0.0] = 1.0
    scaled = columns / scale
    # Relative errors first, then each weighted so that its square becomes its absolute logarithm.
    weights = _not_negative(scaled / times_s[:, None], np.ones_like(times_s))
    for _ in range(_ROUNDS):
        fitted = np.maximum(scaled @ weights, 1e-12)
        away = np.abs(np.log(times_s / fitted))
        factors = 1.0 / (fitted * np.sqrt(np.maximum(away, 1e-3)))
        before = weights
        weights = _not_negative(scaled * factors[:, None], times_s * factors)
        if np.abs(weights - before).max() <= _CLOSE * max(1e-12, np.abs(weights).max()):
            break
    residuals = np.log(times_s / np.maximum(scaled @ weights, 1e-12))
    middle = float(np.median(residuals))
    return Fitted(weights * math.exp(middle) / scale, residuals - middle)


def fit_beside(
    columns: FloatArray, beside: FloatArray, times_s: FloatArray
) -> tuple[Fitted, FloatArray]:
    """Medians of the form ``(columns * weights)`` times ``1 + beside * slope`` for each of beside.

    Parameters
    ----------
    columns, times_s:
        See :func:`fit_medians`.
    beside:
        One row per observation: what the times grow with, numbers of at least 0.

    Returns
    -------
    Fitted, numpy.ndarray
        The fit, and a slope for each column of ``beside``: 0 where the column is the same in every
        row, since then nothing tells.
    """
    slopes = np.zeros(beside.shape[1])

    def at(tried: FloatArray) -> Fitted:
        return fit_medians(columns * (1.0 + beside * tried).prod(axis=1)[:, None], times_s)

    def badness(number: int, slope: float) -> float:
        tried = slopes.copy()
        tried[number] = slope
        return float(np.abs(at(tried).residuals).sum())

    telling = [number for number in range(beside.shape[1]) if np.ptp(beside[:, number])]
    for _ in range(_SWEEPS if len(telling) > 1 else 1):
        for number in telling:
            slopes[number] = _least(functools.partial(badness, number))
    return at(slopes), slopes


def _least(badness: Callable[[float], float]) -> float:
    """Where between 0 and the steepest slope this is least: on a grid first, then around it."""
    grid = [0.0, *(float(slope) for slope in np.geomspace(0.02, _STEEPEST, 16))]
    found = [badness(slope) for slope in grid]
    place = found.index(min(found))
    low, high = grid[max(0, place - 1)], grid[min(len(grid) - 1, place + 1)]
    for _ in range(10):
        left, right = low + (high - low) / 3.0, high - (high - low) / 3.0
        if badness(left) <= badness(right):
            high = right
        else:
            low = left
    slope = (low + high) / 2.0
    return slope if badness(slope) < found[0] else 0.0


def _not_negative(columns: FloatArray, wanted: FloatArray) -> FloatArray:
    """Least squares with weights of at least 0, by trying which columns take part.

    There are at most three columns, so all seven choices are looked at and none is missed.
    """
    width = columns.shape[1]
    best, least = np.zeros(width), math.inf
    for size in range(1, width + 1):
        for chosen in itertools.combinations(range(width), size):
            part = columns[:, chosen]
            found, *_ = np.linalg.lstsq(part, wanted, rcond=None)
            if (found < 0.0).any():
                continue
            error = float(((part @ found - wanted) ** 2).sum())
            if error < least * (1.0 - 1e-12):
                least, best = error, np.zeros(width)
                best[list(chosen)] = found
    return best


def spread_of(residuals: FloatArray) -> float:
    """The sigma of a lognormal distribution with these logarithms, judged by its slow half.

    Long times are what a prediction is asked for, and the quantiles 0.8, 0.9 and 0.95 above the
    median say how long they get; each gives a sigma, and their mean is taken.
    """
    middle, *high = np.quantile(residuals, (0.5, *_HIGH))
    found = [(value - middle) / normal for value, normal in zip(high, _HIGH.values(), strict=True)]
    return max(0.0, float(np.mean(found)))


def spread_within(residuals: FloatArray, beside: FloatArray) -> float:
    """The sigma that observations made beside the same things have among themselves.

    A fit that misses the median of some circumstances is off, but that is no spread; and what is
    quick is disturbed by a larger factor than what is slow. So each kind of circumstances that was
    seen often gives a sigma of its own, and their median is taken; where none was, all of them
    together give one, each around its own median.

    Parameters
    ----------
    residuals:
        Logarithms of measured over fitted.
    beside:
        One row per observation; equal rows are one kind of circumstances.
    """
    _, kinds = np.unique(np.round(beside, 3), axis=0, return_inverse=True)
    groups = [residuals[kinds.reshape(-1) == kind] for kind in range(int(kinds.max()) + 1)]
    large = [group for group in groups if len(group) >= _FEWEST_ALIKE]
    if not large:
        return spread_of(np.concatenate([group - np.median(group) for group in groups]))
    return float(np.median([spread_of(group) for group in large]))


def matched(
    shares: FloatArray, sigmas: FloatArray, residuals: FloatArray, beside: FloatArray
) -> tuple[float, float]:
    """How to change parts that were fitted one by one so that their sum varies as measured.

    Parts that are slow together make the sum vary more than parts that vary on their own, and the
    median of a sum is not the sum of the medians.

    Parameters
    ----------
    shares:
        One row per observation: each part's share of the fitted sum.
    sigmas:
        Lognormal spread of each part.
    residuals:
        ``log(sum as measured / fitted sum)`` of each observation.
    beside:
        See :func:`spread_within`.

    Returns
    -------
    tuple of float
        The factor for all medians, and the one for all sigmas.
    """
    wanted = spread_within(residuals, beside)
    middle = float(np.median(residuals))
    random = np.random.default_rng(0)
    rows = random.integers(len(shares), size=_SAMPLES)
    normal = random.standard_normal((_SAMPLES, shares.shape[1]))

    def logs(stretch: float) -> FloatArray:
        found: FloatArray = np.log((shares[rows] * np.exp(normal * sigmas * stretch)).sum(axis=1))
        return found

    low, high = 0.0, 4.0
    if not sigmas.any():
        return math.exp(middle), 1.0
    for _ in range(30):
        stretch = (low + high) / 2.0
        if spread_of(logs(stretch)) < wanted:
            low = stretch
        else:
            high = stretch
    return math.exp(middle - float(np.median(logs(high)))), high
