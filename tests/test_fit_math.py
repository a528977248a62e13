"""The arithmetic of the fit: medians that a few wild times do not move, and spreads."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stillframe.lab.fit_math import (
    FloatArray,
    fit_beside,
    fit_medians,
    matched,
    spread_of,
    spread_within,
)


def noise(count: int, sigma: float, seed: int = 1) -> FloatArray:
    return np.exp(sigma * np.random.default_rng(seed).standard_normal(count))


def test_a_base_and_a_rate_are_found() -> None:
    sizes = np.tile([1e5, 4e5, 2e6, 8e6], 200)
    columns = np.column_stack([np.ones_like(sizes), sizes])
    fitted = fit_medians(columns, (0.03 + sizes / 50e6) * noise(800, 0.3))
    assert fitted.weights[0] == pytest.approx(0.03, rel=0.1)
    assert 1.0 / fitted.weights[1] == pytest.approx(50e6, rel=0.1)
    assert spread_of(fitted.residuals) == pytest.approx(0.3, rel=0.2)
    assert np.median(fitted.residuals) == pytest.approx(0.0, abs=1e-9)


def test_one_time_in_five_that_is_ten_times_too_long_moves_little() -> None:
    times = 0.05 * noise(100, 0.1)
    times[::5] *= 10.0
    fitted = fit_medians(np.ones((100, 1)), times)
    assert fitted.weights[0] == pytest.approx(0.05, rel=0.1)
    assert np.mean(times) > 0.1


def test_no_weight_is_negative() -> None:
    sizes = np.linspace(1.0, 2.0, 50)
    fitted = fit_medians(np.column_stack([np.ones(50), sizes]), 3.0 - sizes)
    assert (fitted.weights >= 0.0).all()
    assert fitted.weights[1] == 0.0


def test_slopes_are_found_and_are_nothing_where_none_is_told() -> None:
    others = np.tile([0.0, 1.0, 3.0], 200)
    writers = np.repeat([0.1, 0.5, 2.0], 200)
    columns, beside = np.ones((600, 1)), np.column_stack([others, writers])
    times = 0.06 * (1.0 + 0.5 * others) * (1.0 + 0.8 * writers) * noise(600, 0.2)
    fitted, slopes = fit_beside(columns, beside, times)
    assert fitted.weights[0] == pytest.approx(0.06, rel=0.15)
    assert slopes == pytest.approx([0.5, 0.8], rel=0.25)
    flat, none = fit_beside(columns, beside, 0.06 * noise(600, 0.2))
    assert none.max() < 0.05
    assert flat.weights[0] == pytest.approx(0.06, rel=0.1)
    always = np.column_stack([others, np.full(600, 3.0)])
    assert fit_beside(columns, always, times)[1][1] == 0.0


def test_the_spread_follows_the_slow_half() -> None:
    normal = np.random.default_rng(2).standard_normal(4000)
    assert spread_of(0.4 * normal) == pytest.approx(0.4, rel=0.05)
    skewed = np.where(normal > 0.0, 0.4 * normal, 0.1 * normal)
    assert spread_of(skewed) == pytest.approx(0.4, rel=0.05)
    assert spread_of(np.zeros(10)) == 0.0


def test_a_median_that_is_missed_and_a_wild_kind_are_no_spread() -> None:
    normal = np.random.default_rng(4).standard_normal(900)
    beside = np.repeat([[0.0, 0.1], [3.0, 0.1], [3.0, 2.0]], 300, axis=0)
    off = np.repeat([0.0, 0.5, -0.5], 300)
    wild = np.repeat([1.0, 1.0, 4.0], 300)
    assert spread_within(0.2 * normal * wild + off, beside) == pytest.approx(0.2, rel=0.15)
    assert spread_of(0.2 * normal + off) > 0.3
    few = 0.2 * normal[:6]
    assert spread_within(few, beside[:6]) == spread_of(few)


def test_parts_that_are_slow_together_are_given_more_spread() -> None:
    shares = np.full((4000, 3), 1.0 / 3.0)
    sigmas, alike = np.full(3, 0.3), np.ones((4000, 1))
    random = np.random.default_rng(3)
    alone = np.log(np.exp(0.3 * random.standard_normal((4000, 3))).mean(axis=1))
    scale, stretch = matched(shares, sigmas, alone, alike)
    assert scale == pytest.approx(1.0, rel=0.02)
    assert stretch == pytest.approx(1.0, rel=0.05)
    together = 0.3 * random.standard_normal(4000)
    _, more = matched(shares, sigmas, together, alike)
    assert more == pytest.approx(math.sqrt(3.0), rel=0.1)
    scale, _ = matched(shares, sigmas, alone + math.log(1.2), alike)
    assert scale == pytest.approx(1.2, rel=0.02)


def test_parts_without_spread_are_only_scaled() -> None:
    assert matched(np.ones((5, 1)), np.zeros(1), np.full(5, math.log(2.0)), np.ones((5, 1))) == (
        pytest.approx(2.0),
        1.0,
    )
