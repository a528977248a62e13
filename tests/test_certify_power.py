"""The statistics of finding tears: against simulation, and against the judge of images."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_certify_writes import MadeUp

from stillframe.certify.cuts import moment_of
from stillframe.certify.power import (
    Spans,
    Turn,
    allowed_miss,
    chance_missed,
    gap_found_s,
    gap_of,
    least_gaps,
    unseen_share,
)
from stillframe.certify.requirement import Violation

SPACING_S = 0.001
TRIALS = 4000


def missed(turn: Turn, gap_s: float, rng: random.Random) -> bool:
    """One round with a chain that keeps time: whether the tear does not show."""
    phase_s = rng.uniform(0, turn.units * turn.spacing_s)  # of the first write to A after its cut
    return phase_s + turn.distance * turn.spacing_s > gap_s


@pytest.mark.parametrize("turn", [Turn(0.001, 2, 1), Turn(0.002, 4, 1), Turn(0.001, 4, 3)], ids=str)
@pytest.mark.parametrize("gap", [0.5, 1.5, 2.5, 4.0, 6.5, 20.0])
def test_the_chance_to_miss_is_what_a_simulation_counts(turn: Turn, gap: float) -> None:
    rng = random.Random(f"{turn}{gap}")
    gap_s = gap * turn.spacing_s
    counted = sum(missed(turn, gap_s, rng) for _ in range(TRIALS)) / TRIALS
    assert counted == pytest.approx(chance_missed(gap_s, turn), abs=4 * (0.25 / TRIALS) ** 0.5)


@pytest.mark.parametrize("rounds", [1, 8, 40])
def test_the_gap_found_is_missed_as_rarely_as_it_is_said(rounds: int) -> None:
    turns = [Turn(0.001, 4, 1), Turn(0.0013, 4, 3)]
    confidence = 0.9
    gap_s = gap_found_s(turns, rounds, confidence)
    rng = random.Random(rounds)
    trials = TRIALS // rounds
    unseen = sum(
        all(missed(turn, gap_s, rng) for turn in turns for _ in range(rounds))
        for _ in range(trials)
    )
    assert unseen / trials == pytest.approx(1 - confidence, abs=4 * (0.1 / trials) ** 0.5)


def test_more_rounds_and_more_chains_find_smaller_gaps_but_none_below_the_spacing() -> None:
    turn = Turn(SPACING_S, 4, 1)
    found = [gap_found_s([turn] * chains, rounds) for rounds, chains in ((8, 1), (8, 2), (99, 2))]
    assert sorted(found, reverse=True) == found
    assert found[-1] > SPACING_S
    assert gap_found_s([turn], 1) <= 5 * SPACING_S


def test_what_may_have_stayed_unseen_follows_the_rule_of_three() -> None:
    assert unseen_share(300, 1.0) == pytest.approx(3 / 300, rel=0.02)
    assert unseen_share(300, 0.5) == pytest.approx(2 * unseen_share(300, 1.0))
    assert unseen_share(1, 0.5) == 1.0
    assert unseen_share(8, 0.0) == 1.0
    share = unseen_share(40, 0.95)
    assert (1 - share * 0.95) ** 40 == pytest.approx(0.05)


def test_the_gap_of_many_instants_is_the_one_that_the_rounds_find() -> None:
    gaps = [number / 1000 for number in range(1, 1001)]
    assert gap_of(gaps, 1, 0.99) == pytest.approx(0.99)
    quantile = 1 - allowed_miss(40, 0.99)
    assert gap_of(gaps, 40, 0.99) == pytest.approx(quantile, abs=0.0011)
    assert gap_of([inf, inf, 0.5, inf], 1, 0.99) == inf


def test_a_least_gap_needs_a_write_to_each_unit_one_after_the_other() -> None:
    first = Spans([1.0, 3.0], [1.5, 3.5])
    second = Spans([1.4, 1.6, 3.2], [1.8, 2.0, 3.9])
    # Cut A at 0.9: its write of 1.0 is lacked, acknowledged at 1.5; B's of 1.6 is there by 2.0.
    assert least_gaps([first], [second], [0.9]) == [pytest.approx(1.1)]
    # At 1.1 the next write to A is that of 3.0, and none to B begins after it is acknowledged.
    assert least_gaps([first], [second], [1.1]) == [inf]


def test_across_chains_what_ends_and_begins_at_once_has_no_order() -> None:
    alone, other = Spans([1.0], [2.0]), Spans([2.0, 2.5], [2.2, 2.7])
    nothing = Spans([], [])
    assert least_gaps([alone, nothing], [nothing, other], [0.0]) == [pytest.approx(2.7)]
    assert least_gaps([alone, nothing], [other, nothing], [0.0]) == [pytest.approx(2.2)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 3))
def test_the_judge_finds_every_gap_that_the_power_says_it_would(
    seed: int, units: int, chains: int
) -> None:
    rng = random.Random(seed)
    paper = MadeUp(rng, units)
    paper.write(chains, 200)
    first, second = rng.sample(range(units), 2)
    at_s = rng.uniform(0.1, 0.7) * paper.end_s
    spans = {
        unit: [
            Spans(
                chain.issued_s[chain.plan.order.index(unit) :: units],
                chain.acknowledged_s[chain.plan.order.index(unit) :: units],
            )
            for chain in paper.chains
        ]
        for unit in (first, second)
    }
    (gap_s,) = least_gaps(spans[first], spans[second], [at_s])
    assert gap_s < paper.end_s - at_s
    cut_s = {first: at_s, second: at_s + gap_s}
    with pytest.raises(Violation, match="torn"):
        moment_of(paper.writers, list(cut_s), paper.image(cut_s))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4))
def test_the_judge_never_calls_torn_what_was_cut_at_once(
    seed: int, units: int, chains: int
) -> None:
    rng = random.Random(seed)
    paper = MadeUp(rng, units)
    paper.write(chains, 120)
    at_s = rng.uniform(0, paper.end_s)
    group = rng.sample(range(units), rng.randint(1, units))
    cut_s = dict.fromkeys(group, at_s)
    found = moment_of(paper.writers, group, paper.image(cut_s))
    assert found.not_before_s <= at_s <= found.not_after_s
