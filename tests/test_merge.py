"""Both merge algorithms against closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillframe.sim.env import SimEnv
from stillframe.sim.fabric import Routes
from stillframe.sim.fluid import FluidServer
from stillframe.sim.merge import Merge, Transfer
from stillframe.sim.profiles import MergeAlgorithm

RATE = 50e6
MOST = 9
BELOW_S = 5.0


class Outcome:
    def __init__(self) -> None:
        self.at_s = -1.0
        self.merge: Merge | None = None


def start(
    env: SimEnv,
    delta: float,
    write_rate: float = 0.0,
    algorithm: MergeAlgorithm = MergeAlgorithm.MIRROR,
    routes: Routes | None = None,
) -> Outcome:
    """A merge of a guest that writes new places at a constant rate."""
    outcome = Outcome()

    def ready(merge: Merge) -> None:
        outcome.at_s, outcome.merge = env.now, merge

    Merge(
        env,
        ((FluidServer(env, 10 * RATE), 1.0),) if routes is None else routes,
        RATE,
        algorithm,
        delta,
        lambda since_s, now_s: write_rate * (now_s - since_s),
        MOST,
        BELOW_S,
        ready,
    )
    return outcome


def recursion(delta: float, write_rate: float) -> tuple[int, float, float, float]:
    """The same, with pencil and paper: passes, moved, rest, time until the stop."""
    passes, moved, time_s = 0, 0.0, 0.0
    while True:
        passes += 1
        moved += delta
        time_s += delta / RATE
        delta = write_rate * delta / RATE
        if delta / RATE <= BELOW_S or passes == MOST:
            return passes, moved, delta, time_s


def test_a_mirrored_merge_takes_delta_over_rate_whatever_the_guest_writes() -> None:
    for write_rate in (0.0, RATE / 2, 3 * RATE):
        env = SimEnv()
        outcome = start(env, 1e9, write_rate)
        env.run()
        assert outcome.at_s == pytest.approx(1e9 / RATE, rel=1e-9)
        assert outcome.merge is not None
        assert (outcome.merge.passes, outcome.merge.rest_bytes) == (1, 0.0)
        assert outcome.merge.merged_bytes == 1e9


def test_merges_that_share_an_array_share_its_bandwidth() -> None:
    env = SimEnv()
    server = FluidServer(env, RATE)
    outcomes = [start(env, 1e9, routes=((server, 1.0),)) for _ in range(4)]
    env.run()
    assert [outcome.at_s for outcome in outcomes] == pytest.approx([4 * 1e9 / RATE] * 4)


def test_a_merge_never_exceeds_its_own_rate_on_an_idle_array() -> None:
    env = SimEnv()
    server = FluidServer(env, 1000 * RATE)
    outcomes = [start(env, 1e9, routes=((server, 1.0),)) for _ in range(4)]
    env.run()
    assert [outcome.at_s for outcome in outcomes] == pytest.approx([1e9 / RATE] * 4)


def test_a_merge_over_two_arrays_waits_for_the_slower_one() -> None:
    env = SimEnv()
    fast, slow = FluidServer(env, 100 * RATE), FluidServer(env, RATE / 10)
    outcome = start(env, 1e9, routes=((fast, 0.75), (slow, 0.25)))
    env.run()
    assert outcome.at_s == pytest.approx(0.25e9 / (RATE / 10))
    assert slow.done_bytes == pytest.approx(0.25e9)
    assert fast.done_bytes == pytest.approx(0.75e9)


def test_a_merge_on_no_array_takes_its_own_time() -> None:
    env = SimEnv()
    outcome = start(env, 1e9, routes=())
    env.run()
    assert outcome.at_s == pytest.approx(1e9 / RATE)


@given(
    delta=st.floats(0, 1e12),
    share=st.floats(0, 2.0),
)
@settings(max_examples=60)
def test_the_iterative_merge_is_the_recursion(delta: float, share: float) -> None:
    env = SimEnv()
    outcome = start(env, delta, share * RATE, MergeAlgorithm.ITERATIVE)
    env.run()
    passes, moved, rest, time_s = recursion(delta, share * RATE)
    merge = outcome.merge
    assert merge is not None
    # Float noise decides which side of the threshold a rest exactly on it lies on.
    if abs(rest / RATE - BELOW_S) > 1e-3:
        assert merge.passes == passes
        assert merge.merged_bytes == pytest.approx(moved, rel=1e-6, abs=1e3)
        assert merge.rest_bytes == pytest.approx(rest, rel=1e-6, abs=1e3)
        assert outcome.at_s == pytest.approx(time_s, rel=1e-6, abs=1e-4)


def test_a_guest_slower_than_the_merge_converges_to_a_short_stop() -> None:
    env = SimEnv()
    outcome = start(env, 100e9, RATE / 2, MergeAlgorithm.ITERATIVE)
    env.run()
    merge = outcome.merge
    assert merge is not None
    # 2,000 s halve pass by pass: 2000 / 2**9 = 3.9 s is the first rest below 5 s.
    assert merge.passes == 9
    assert merge.rest_bytes / RATE == pytest.approx(2000 / 2**9)
    gentle = start(env, 100e9, RATE / 10, MergeAlgorithm.ITERATIVE)
    env.run()
    assert gentle.merge is not None
    assert gentle.merge.passes == 3


def test_a_guest_faster_than_the_merge_is_forced_to_stop_after_nine_passes() -> None:
    env = SimEnv()
    outcome = start(env, 10e9, 1.5 * RATE, MergeAlgorithm.ITERATIVE)
    env.run()
    merge = outcome.merge
    assert merge is not None
    assert merge.passes == MOST
    assert merge.rest_bytes / RATE == pytest.approx(200 * 1.5**9)


def test_a_transfer_never_ends_before_its_maker_returns() -> None:
    env = SimEnv()
    done: list[float] = []
    Transfer(env, (), 0.0, RATE, lambda: done.append(env.now))
    Transfer(env, ((FluidServer(env, RATE), 1.0),), 0.0, RATE, lambda: done.append(env.now))
    assert done == []
    env.run()
    assert done == [0.0, 0.0]
