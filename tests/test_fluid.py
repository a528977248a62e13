"""FluidServer against a brute-force simulation, against queueing theory, and over long runs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist, fmean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillframe.sim.env import SimEnv
from stillframe.sim.fluid import FLOW_FLOOR, Flow, FluidServer

CAPACITY = 100.0


@dataclass(frozen=True)
class Step:
    at_s: float
    kind: str
    value: float


def brute_force(steps: list[Step], cap: float | None) -> dict[int, float]:
    """Finishing times by moving every flow from one change to the next."""
    left: dict[int, float] = {}
    finished: dict[int, float] = {}
    background, now_s, number = 0.0, 0.0, 0
    pending = list(steps)
    while pending or left:
        free = max(CAPACITY - background, FLOW_FLOOR * CAPACITY)
        rate = min(free / len(left), cap or math.inf) if left else 0.0
        end_s = min((now_s + work / rate for work in left.values()), default=math.inf)
        next_s = pending[0].at_s if pending else math.inf
        to_s = min(end_s, next_s)
        left = {flow: work - rate * (to_s - now_s) for flow, work in left.items()}
        now_s = to_s
        for flow in [flow for flow, work in left.items() if work <= 1e-9]:
            finished[flow] = now_s
            del left[flow]
        if next_s <= end_s:
            step = pending.pop(0)
            if step.kind == "submit":
                left[number] = step.value
                number += 1
            elif step.kind == "cancel":
                left.pop(int(step.value), None)
            else:
                background = step.value
    return finished


def simulate(steps: list[Step], cap: float | None) -> dict[int, float]:
    env = SimEnv()
    server = FluidServer(env, CAPACITY, cap)
    flows: list[Flow] = []
    finished: dict[int, float] = {}

    def submit(work: float) -> None:
        number = len(flows)
        flows.append(server.submit(work, lambda: finished.setdefault(number, env.now)))

    def cancel(number: float) -> None:
        if number < len(flows):
            server.cancel(flows[int(number)])

    acts: dict[str, Callable[[float], None]] = {
        "submit": submit,
        "cancel": cancel,
        "background": server.set_background,
    }
    for step in steps:
        env.after(step.at_s, acts[step.kind], step.value)
    env.run()
    assert server.flows == 0
    return finished


# Times and sizes on coarse grids make coincidences likely; the odd step keeps others apart.
step_kinds = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 40).map(lambda n: n * 12.5)),
    st.tuples(st.just("cancel"), st.integers(0, 12).map(float)),
    st.tuples(st.just("background"), st.sampled_from([0.0, 30.0, 62.5, 99.0, 500.0])),
)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 24).map(lambda n: n * 0.37), step_kinds), max_size=25),
    st.sampled_from([None, 10.0, 40.0, 1000.0]),
)
def test_finishing_times_equal_a_brute_force_simulation(
    drawn: list[tuple[float, tuple[str, float]]], cap: float | None
) -> None:
    drawn.sort(key=lambda pair: pair[0])
    steps = [Step(at_s, kind, value) for at_s, (kind, value) in drawn]
    expected = brute_force(steps, cap)
    actual = simulate(steps, cap)
    assert actual.keys() == expected.keys()
    for flow, at_s in expected.items():
        assert actual[flow] == pytest.approx(at_s, rel=1e-9, abs=1e-8)


def test_flows_that_end_together_end_in_the_order_of_their_arrival() -> None:
    env = SimEnv()
    server = FluidServer(env, CAPACITY)
    order: list[int] = []
    for number in range(20):
        server.submit(50.0, partial(order.append, number))
    env.run()
    assert order == list(range(20))
    assert env.now == pytest.approx(10.0)


def test_a_flow_without_work_ends_now_but_not_inside_submit() -> None:
    env = SimEnv(5.0)
    server = FluidServer(env, CAPACITY)
    ended: list[float] = []
    server.submit(0.0, lambda: ended.append(env.now))
    assert not ended
    env.run()
    assert ended == [5.0]


def test_the_next_piece_of_work_starts_when_the_last_one_ends() -> None:
    env = SimEnv()
    server = FluidServer(env, CAPACITY)
    ended: list[float] = []

    def piece() -> None:
        ended.append(env.now)
        if len(ended) < 4:
            server.submit(100.0, piece)

    server.submit(100.0, piece)
    env.run()
    assert ended == pytest.approx([1.0, 2.0, 3.0, 4.0])


def test_a_flow_can_be_cancelled_by_another_that_ends_at_the_same_instant() -> None:
    env = SimEnv()
    server = FluidServer(env, CAPACITY)
    ended: list[str] = []
    flows: list[Flow] = []

    def first() -> None:
        ended.append("first")
        server.cancel(flows[1])

    flows.append(server.submit(100.0, first))
    flows.append(server.submit(100.0, lambda: ended.append("second")))
    env.run()
    assert ended == ["first"]
    assert not flows[1].active


def test_cancelling_twice_or_after_the_end_changes_nothing() -> None:
    env = SimEnv()
    server = FluidServer(env, CAPACITY)
    flow = server.submit(100.0, lambda: None)
    other = server.submit(300.0, lambda: None)
    server.cancel(flow)
    server.cancel(flow)
    assert server.flows == 1
    env.run()
    server.cancel(other)
    assert server.flows == 0
    assert env.now == pytest.approx(3.0)


def test_background_slows_flows_and_leaves_them_the_floor() -> None:
    env = SimEnv()
    server = FluidServer(env, CAPACITY)
    server.set_background(75.0)
    assert server.rate_bytes_per_s == pytest.approx(25.0)
    server.set_background(1e9)
    ended: list[float] = []
    server.submit(100.0, lambda: ended.append(env.now))
    env.run()
    assert ended == pytest.approx([1.0 / FLOW_FLOOR])


def test_the_cap_makes_few_flows_independent_of_each_other() -> None:
    env = SimEnv()
    server = FluidServer(env, CAPACITY, 10.0)
    ended: list[float] = []
    for _ in range(10):
        server.submit(100.0, lambda: ended.append(env.now))
    env.run()
    assert ended == pytest.approx([10.0] * 10)


def test_counters() -> None:
    env = SimEnv()
    server = FluidServer(env, CAPACITY, 80.0)
    server.submit(160.0, lambda: None)
    assert server.utilisation == pytest.approx(0.8)
    server.set_background(90.0)
    assert server.utilisation == pytest.approx(1.0)
    server.set_background(0.0)
    env.run(until=1.0)
    assert server.done_bytes == pytest.approx(80.0)
    env.run(until=10.0)
    assert server.busy_s == pytest.approx(2.0)
    assert server.done_bytes == pytest.approx(160.0)
    cancelled = server.submit(1000.0, lambda: None)
    env.run(until=11.0)
    assert server.remaining_bytes(cancelled) == pytest.approx(920.0)
    server.cancel(cancelled)
    assert server.remaining_bytes(cancelled) == 0.0
    assert server.done_bytes == pytest.approx(240.0)
    assert server.utilisation == 0.0


def test_a_server_that_never_idles_stays_exact() -> None:
    env = SimEnv()
    server = FluidServer(env, 1e12)
    server.submit(1e30, lambda: None)
    env.run(until=1e6)
    # Without setting the virtual clock back it now resolves 128 bytes.
    small = server.submit(1000.5, lambda: None)
    assert server.remaining_bytes(small) == pytest.approx(1000.5, abs=1e-3)


def test_setting_the_clock_back_keeps_the_order() -> None:
    env = SimEnv()
    server = FluidServer(env, 1e12)
    order: list[int] = []
    server.submit(1e30, lambda: None)
    for number in range(5):
        server.submit(2e13, partial(order.append, number))
    env.run(until=10.0)
    server.submit(1.0, partial(order.append, 5))
    env.run(until=1000.0)
    assert order == [5, 0, 1, 2, 3, 4]


def test_far_from_time_zero_every_flow_still_ends() -> None:
    env = SimEnv(3e9)
    server = FluidServer(env, 1.7e9)
    ended: list[float] = []
    rng = random.Random(5)
    for _ in range(300):
        server.submit(rng.uniform(1.0, 1e5), lambda: ended.append(env.now))
    env.run()
    assert len(ended) == 300


def test_an_arrival_costs_no_timer_and_cancelled_flows_do_not_pile_up() -> None:
    env = SimEnv()
    server = FluidServer(env, CAPACITY)
    server.submit(1e9, lambda: None)
    before = next(env._eid)
    for _ in range(5000):
        server.cancel(server.submit(2e9, lambda: None))
    assert len(server._heap) < 100
    # One heap entry at most for each cancellation, none for an arrival.
    arrivals = next(env._eid)
    for _ in range(5000):
        server.submit(2e9, lambda: None)
    assert next(env._eid) - arrivals == 1
    assert arrivals - before <= 5001


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="not greater than 0"):
        FluidServer(SimEnv(), rate)
    with pytest.raises(ValueError, match="not greater than 0"):
        FluidServer(SimEnv(), 1.0, rate)


@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_work_and_background_that_are_none_are_refused(value: float) -> None:
    server = FluidServer(SimEnv(), 1.0)
    with pytest.raises(ValueError, match="not a size"):
        server.submit(value, lambda: None)
    with pytest.raises(ValueError, match="not a rate"):
        server.set_background(value)


def response_times(load: float, work: Callable[[random.Random], float], seed: int) -> list[float]:
    """Times in the system of Poisson arrivals at a server of rate 1 with mean work 1."""
    env = SimEnv()
    server = FluidServer(env, 1.0)
    rng = random.Random(seed)
    times: list[float] = []

    def end(came_s: float) -> None:
        times.append(env.now - came_s)

    def arrive(left: int) -> None:
        server.submit(work(rng), partial(end, env.now))
        if left:
            env.after(rng.expovariate(load), arrive, left - 1)

    arrive(60_000)
    env.run()
    return times


@pytest.mark.parametrize(
    ("work", "seed"),
    [
        pytest.param(lambda rng: rng.expovariate(1.0), 11, id="M/M/1-PS"),
        pytest.param(lambda rng: 1.0, 12, id="M/D/1-PS"),
        pytest.param(lambda rng: rng.choice((0.2, 0.2, 0.2, 3.4)), 13, id="M/G/1-PS"),
    ],
)
def test_mean_response_time_is_that_of_theory_for_any_distribution_of_work(
    work: Callable[[random.Random], float], seed: int
) -> None:
    # 1 / (mu - lambda), whatever the distribution of work: processor sharing is insensitive.
    # (First in, first out would give 1.75 for constant work.)
    load = 0.6
    times = response_times(load, work, seed)[10_000:]
    batches = [fmean(times[start : start + 2000]) for start in range(0, len(times) - 1999, 2000)]
    half_width = NormalDist().inv_cdf(0.9995) * stdev(batches) / math.sqrt(len(batches))
    assert half_width < 0.25  # 10 %: narrow enough to tell the disciplines apart
    assert abs(fmean(batches) - 1.0 / (1.0 - load)) < half_width
