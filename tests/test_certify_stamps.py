"""Chains of writes: where they go, how slots are read, and what images show of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.certify.stamps import SECTOR_BYTES, Held, Plan, shown

PLAN = Plan(0x1234, (2, 0, 1), 8192, 4096, 2)
UNITS = (0, 1, 2)


def held(
    upto: int, plan: Plan = PLAN, units: tuple[int, ...] = UNITS
) -> dict[tuple[int, int], Held | None]:
    """What slots hold when the first writes have been made."""
    found: dict[tuple[int, int], Held | None]
    found = {(unit, slot): Held(0, 0) for unit in units for slot in range(plan.slots)}
    for number in range(1, upto + 1):
        if plan.place(number)[0] in units:
            found[plan.place(number)] = Held(number, number)
    return found


plans = st.builds(
    lambda order, slots: Plan(7, tuple(order), 0, 4096, slots),
    st.integers(1, 5).flatmap(lambda units: st.permutations(range(units))),
    st.integers(1, 4),
)


@given(plans, st.integers(0, 60))
def test_the_last_write_to_a_slot_is_what_counting_finds(plan: Plan, upto: int) -> None:
    units = tuple(plan.order)
    counted = held(upto, plan, units)
    for (unit, slot), wanted in counted.items():
        assert wanted is not None
        assert plan.last(upto, unit, slot) == wanted.low


@given(plans, st.integers(0, 60), st.data())
def test_a_beginning_of_the_sequence_is_whole_on_any_units(
    plan: Plan, upto: int, data: st.DataObject
) -> None:
    units = tuple(data.draw(st.sets(st.sampled_from(plan.order), min_size=1)))
    seen = shown(plan, units, held(upto, plan, units))
    assert seen.whole
    assert seen.upto <= upto < seen.following


@given(plans, st.integers(2, 60), st.data())
def test_a_lost_write_is_missed_unless_it_was_the_last(
    plan: Plan, upto: int, data: st.DataObject
) -> None:
    units = tuple(plan.order)
    slots = held(upto, plan, units)
    lost = data.draw(
        st.sampled_from(sorted({one.low for one in slots.values() if one and one.low}))
    )
    slots[plan.place(lost)] = Held(*(2 * [max(0, lost - len(units) * plan.slots)]))
    seen = shown(plan, units, slots)
    assert seen.whole is (lost == upto)
    assert (lost in seen.missing) is (lost != upto)


def test_every_write_that_a_slot_lacks_is_missing() -> None:
    slots = held(14)
    slots[PLAN.place(7)] = Held(1, 1)  # writes 1, 7, 13 go to this slot
    assert PLAN.place(1) == PLAN.place(7) == PLAN.place(13)
    assert shown(PLAN, UNITS, slots).missing == (7, 13)


def test_the_write_under_way_may_be_there_in_part_and_no_other() -> None:
    slots = held(4)
    slots[PLAN.place(5)] = Held(0, 5)
    seen = shown(PLAN, UNITS, slots)
    assert (seen.whole, seen.upto, seen.partly) == (True, 4, True)
    slots = held(4)
    slots[PLAN.place(6)] = Held(0, 6)
    assert shown(PLAN, UNITS, slots).missing == (5,)
    slots = held(4)
    slots[PLAN.place(3)] = Held(0, 3)  # the one before it was acknowledged long ago
    assert shown(PLAN, UNITS, slots).missing == (3,)


def test_what_lies_in_the_wrong_place_is_strange() -> None:
    slots = held(4)
    slots[0, 1] = Held(1, 1)
    assert shown(PLAN, UNITS, slots).strange == (0, 1)
    slots[0, 1] = None
    assert shown(PLAN, UNITS, slots).strange == (0, 1)
    assert not shown(PLAN, UNITS, slots).whole


def test_a_slot_is_read_sector_by_sector() -> None:
    old, new = PLAN.stamp(1), PLAN.stamp(7)
    assert PLAN.decode(new) == Held(7, 7)
    for cut in range(SECTOR_BYTES, 4096, SECTOR_BYTES):
        assert PLAN.decode(new[:cut] + old[cut:]) == Held(1, 7)
    assert PLAN.decode(new[:100] + old[100:]) is None  # not between two sectors
    three = new[:512] + old[512:1024] + PLAN.stamp(13)[1024:]
    assert PLAN.decode(three) is None
    assert PLAN.decode(bytes(4096)) is None


@pytest.mark.parametrize("key", [0, 1 << 63])
def test_stamps_of_another_chain_are_not_taken_for_ones_own(key: int) -> None:
    other = Plan(key, PLAN.order, PLAN.begins_bytes, 4096, 2)
    assert PLAN.decode(other.stamp(7)) is None
