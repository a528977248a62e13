"""The one point in time that images show over all chains, and what is told when there is none."""

from __future__ import annotations

import random
from math import inf

import pytest
from support_certify_writes import MadeUp

from stillframe.certify.cuts import moment_of
from stillframe.certify.requirement import Violation
from stillframe.certify.stamps import Held

UNITS = [0, 1, 2]


def paper(chains: int = 2, writes: int = 120) -> MadeUp:
    """Chains over three units."""
    made = MadeUp(random.Random(5), len(UNITS))
    made.write(chains, writes)
    return made


def test_chains_that_show_different_times_are_torn_though_each_is_whole() -> None:
    made = paper()
    early = made.image(dict.fromkeys(UNITS, 0.03))
    late = made.image(dict.fromkeys(UNITS, 0.06))
    for mixed in ([early[0], late[1]], [late[0], early[1]]):
        for number in range(2):
            moment_of(MadeUp(made.rng, 3, [made.chains[number]]).writers, UNITS, [mixed[number]])
        with pytest.raises(Violation, match="another one") as torn:
            moment_of(made.writers, UNITS, mixed)
        evidence = torn.value.evidence
        assert evidence["held"]["chain"] != evidence["missing"]["chain"]
        assert evidence["missing"]["acknowledged_s"] < evidence["held"]["issued_s"]


def test_the_moment_is_narrowed_by_every_chain() -> None:
    made = paper(4)
    image = made.image(dict.fromkeys(UNITS, 0.05))
    all_chains = moment_of(made.writers, UNITS, image)
    for chain, slots in zip(made.chains, image, strict=True):
        one = moment_of(MadeUp(made.rng, 3, [chain]).writers, UNITS, [slots])
        assert one.not_before_s <= all_chains.not_before_s <= all_chains.not_after_s
        assert all_chains.not_after_s <= one.not_after_s
    assert all_chains.not_before_s <= 0.05 <= all_chains.not_after_s


def test_before_the_first_write_and_after_the_last_the_moment_is_open() -> None:
    made = paper(1, 30)
    before = moment_of(made.writers, UNITS, made.image(dict.fromkeys(UNITS, -1.0)))
    assert (before.not_before_s, before.chains[0].upto) == (-inf, 0)
    after = moment_of(made.writers, UNITS, made.image(dict.fromkeys(UNITS, 9.0)))
    assert (after.not_after_s, after.chains[0].upto) == (inf, 30)


def test_a_write_that_is_there_in_part_began_before_the_moment() -> None:
    made = paper(1)
    image = made.image(dict.fromkeys(UNITS, 0.05))
    plain = moment_of(made.writers, UNITS, image)
    following = plain.chains[0].following
    place = made.chains[0].plan.place(following)
    low = image[0][place]
    assert low is not None
    image[0][place] = Held(low.low, following)
    partly = moment_of(made.writers, UNITS, image)
    assert partly.not_before_s == made.chains[0].issued(following) > plain.not_before_s
    assert partly.not_after_s == plain.not_after_s


def test_only_the_units_of_the_group_count() -> None:
    made = paper(1)
    cut_s = {0: 0.05, 2: 0.05}
    image = made.image(cut_s)
    found = moment_of(made.writers, [0, 2], image)
    plan = made.chains[0].plan
    assert plan.place(found.chains[0].following)[0] in cut_s
    assert all(
        plan.place(n)[0] == 1 for n in range(found.chains[0].upto + 1, found.chains[0].following)
    )


def test_what_no_write_left_is_told_with_its_place() -> None:
    made = paper(1)
    image = made.image(dict.fromkeys(UNITS, 0.05))
    image[0][2, 3] = None
    with pytest.raises(Violation, match="no write left") as found:
        moment_of(made.writers, UNITS, image)
    assert found.value.evidence == {"unit": 2, "offset_bytes": 3 * 4096}


def test_the_sequence_tells_what_is_missing_among_what_is_there() -> None:
    made = paper(1)
    zero_s = 0.01
    cut_s = {0: 0.05, 1: 0.06, 2: 0.06}
    with pytest.raises(Violation, match="torn") as torn:
        moment_of(made.writers, UNITS, made.image(cut_s), zero_s)
    evidence = torn.value.evidence
    chain = made.chains[0]
    sequence = {one["write"]: one for one in evidence["sequence"]}
    assert list(sequence) == sorted(sequence)
    missing = evidence["missing"]
    assert chain.plan.place(missing)[0] == sequence[missing]["unit"] == 0
    assert not sequence[missing]["in_image"]
    assert evidence["held"] == missing + 1
    assert sequence[missing]["issued_s"] == round(chain.issued(missing) - zero_s, 6)
    assert [n for n, one in sequence.items() if n < missing and not one["in_image"]] == []
