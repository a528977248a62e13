"""The guest that writes a file round and round, against writes that are counted one by one."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from stillframe.errors import StillframeError
from stillframe.sim.guest_rules import GuestRule, GuestRules, ParametricGuest
from stillframe.sim.ringprofile import RingProfile

GRAIN = 65536


def counted(writes: int, write_bytes: int, ring_bytes: int, grain_bytes: int) -> float:
    """Mean distinct bytes of so many writes in a row, over all places where they may begin."""
    slots = ring_bytes // write_bytes
    starts = random.Random(1).sample(range(slots), 200)
    total = 0
    for start in starts:
        units = {
            unit
            for number in range(start, start + writes)
            for unit in range(
                number % slots * write_bytes // grain_bytes,
                ((number % slots + 1) * write_bytes - 1) // grain_bytes + 1,
            )
        }
        total += len(units) * grain_bytes
    return total / len(starts)


@pytest.mark.parametrize("writes", [1, 3, 16, 40, 300, 5000])
@pytest.mark.parametrize("write_bytes", [4096, 16384, 131072])
def test_it_counts_as_the_writes_do(writes: int, write_bytes: int) -> None:
    ring = 64 * 1024**2
    profile = RingProfile(write_bytes * 10.0, ring, write_bytes)
    found = profile.delta_bytes(5.0, writes / 10.0, GRAIN)
    assert found == pytest.approx(counted(writes, write_bytes, ring, GRAIN), rel=0.08)


def test_many_windows_are_asked_at_once() -> None:
    profile = RingProfile(1e6, 8e6)
    lengths = np.array([0.0, 0.001, 1.0, 100.0])
    many = profile.delta_bytes_many(np.zeros(4), lengths, GRAIN)
    assert list(many) == [profile.delta_bytes(0.0, length, GRAIN) for length in lengths]
    assert many[0] == 0.0
    assert many[3] == math.ceil(8e6 / GRAIN) * GRAIN
    assert profile.written_bytes(0.0, 100.0) == 1e8


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        ((-1.0, 1e6), "rate_bytes_per_s"),
        ((1.0, 0.0), "ring_bytes"),
        ((1.0, 1e6, 0), "write_bytes"),
        ((1.0, 1e6, 4096, 0.0), "period_s"),
    ],
)
def test_parameters_out_of_range_are_refused(bad: tuple[float, ...], names: str) -> None:
    with pytest.raises(StillframeError, match=names):
        RingProfile(*bad)  # type: ignore[arg-type]


def test_windows_and_grains_that_cannot_be_are_refused() -> None:
    profile = RingProfile(1e6, 8e6)
    with pytest.raises(StillframeError, match="negative"):
        profile.delta_bytes(0.0, -1.0)
    with pytest.raises(StillframeError, match="not positive"):
        profile.delta_bytes(0.0, 1.0, 0)


def test_a_rule_makes_one_where_writes_follow_one_another() -> None:
    writer = ParametricGuest(rate=1e6, working_set=8 * 1024**2, order="sequential")
    _, profile = GuestRules((GuestRule(profile=writer),)).of("vm")
    assert profile.delta_bytes(0.0, 4.0) == 4e6
