"""Draws depend on seed and purpose alone."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.sim.draws import Draws, exponential, lognormal

KEYS = st.lists(st.one_of(st.text(max_size=8), st.integers()), max_size=4)


def test_the_same_purpose_draws_the_same_whatever_was_drawn_before() -> None:
    first, second = Draws(7), Draws(7)
    second.uniforms("something", "else")
    assert first.uniforms("create", "vm-1", 1) == second.uniforms("create", "vm-1", 1)


def test_numbers_are_those_of_every_other_process_and_version() -> None:
    # Written down: a change here changes what every recorded seed means.
    assert Draws(7).uniforms("create", "vm-1", 1)[:2] == PINNED
    code = "from stillframe.sim.draws import Draws;print(Draws(7).uniforms('create','vm-1',1)[:2])"
    for hash_seed in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == repr(PINNED)


@pytest.mark.parametrize(
    ("left", "right"),
    [(("a", "b"), ("ab",)), ((1,), ("1",)), (("a", 1), ("a", 1, "")), ((), ("",)), ((12,), (1, 2))],
)
def test_different_purposes_differ(
    left: tuple[str | int, ...], right: tuple[str | int, ...]
) -> None:
    draws = Draws("seed")
    assert not set(draws.uniforms(*left)) & set(draws.uniforms(*right))


def test_different_seeds_differ() -> None:
    values = {Draws(seed).uniforms("x")[0] for seed in (0, 1, "1", "a", -1, 2**70)}
    assert len(values) == 6


@given(KEYS)
def test_uniforms_lie_strictly_between_0_and_1(key: list[str | int]) -> None:
    assert all(0.0 < u < 1.0 for u in Draws(3).uniforms(*key))


def test_extreme_words_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (0, 2**64 - 1, *[2**63] * 6)
    monkeypatch.setattr("stillframe.sim.draws._EIGHT_WORDS", lambda _digest: words)
    low, high, *_ = Draws(0).uniforms("x")
    assert 0.0 < low < 1e-15
    assert 1.0 - 1e-15 < high < 1.0


def test_uniforms_are_even_and_independent() -> None:
    draws = Draws(11)
    rows = [draws.uniforms("n", n) for n in range(4000)]
    for column in zip(*rows, strict=True):
        assert statistics.fmean(column) == pytest.approx(0.5, abs=0.02)
        assert statistics.pstdev(column) == pytest.approx(math.sqrt(1 / 12), abs=0.01)
    first, second = list(zip(*rows, strict=True))[:2]
    assert statistics.correlation(first, second) == pytest.approx(0.0, abs=0.06)


def test_lognormal_has_the_median_and_sigma_asked_for() -> None:
    assert lognormal(0.5, 3.0, 0.7) == pytest.approx(3.0)
    assert lognormal(0.2, 3.0, 0.0) == 3.0
    one_sigma = statistics.NormalDist().cdf(1.0)
    assert lognormal(one_sigma, 3.0, 0.7) == pytest.approx(3.0 * math.exp(0.7))


def test_exponential_has_the_mean_asked_for() -> None:
    draws = Draws(5)
    values = [exponential(draws.uniforms("e", n)[0], 4.0) for n in range(4000)]
    assert statistics.fmean(values) == pytest.approx(4.0, rel=0.06)
    assert exponential(1 - math.exp(-1), 4.0) == pytest.approx(4.0)


PINNED = (0.8231668867100327, 0.7964215213350577)


@given(KEYS)
def test_three_are_the_first_three_of_the_eight(key: list[str | int]) -> None:
    assert Draws(3).three(*key) == Draws(3).uniforms(*key)[:3]
