"""Delta debugging: what is needed stays, what is not goes, and few questions are asked."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from stillframe.explorer.minimise import minimise

ITEMS = st.lists(st.integers(0, 60), unique=True, max_size=40)


@given(ITEMS, st.data())
def test_exactly_what_is_needed_is_left(items: list[int], data: st.DataObject) -> None:
    needed = set(data.draw(st.lists(st.sampled_from(items), unique=True))) if items else set()
    asked = []

    def still(kept: tuple[int, ...]) -> bool:
        asked.append(kept)
        return needed <= set(kept)

    found = minimise(items, still)
    assert found == tuple(item for item in items if item in needed)
    most = 2 + 4 * (len(needed) + 1) * (math.log2(len(items) + 1) + 1)
    assert len(asked) <= most


@given(ITEMS, st.integers(0, 60))
def test_when_any_of_several_is_enough_one_is_left(items: list[int], bar: int) -> None:
    if any(item >= bar for item in items):
        found = minimise(items, lambda kept: any(item >= bar for item in kept))
        assert len(found) == 1
        assert found[0] >= bar


def test_two_that_are_needed_only_while_a_third_is_there() -> None:
    """After the third has gone, one pass from left to right has passed the first already."""

    def still(kept: tuple[str, ...]) -> bool:
        return "x" in kept and ("c" not in kept or "a" in kept)

    assert minimise(("a", "x", "c"), still) == ("x",)


def test_what_always_holds_needs_nothing() -> None:
    assert minimise((1, 2, 3), lambda kept: True) == ()
    assert minimise((), lambda kept: True) == ()


def test_a_single_item_that_is_needed_stays() -> None:
    assert minimise((1,), lambda kept: bool(kept)) == (1,)
