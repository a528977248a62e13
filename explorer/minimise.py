"""Making a list that causes something as short as can be found: delta debugging.

A. Zeller, R. Hildebrandt: "Simplifying and Isolating Failure-Inducing Input", IEEE Transactions on
Software Engineering 28 (2002). Only the half of the algorithm that takes parts away is here: a part
on its own is what is left when all others have been taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def minimise(items: Sequence[T], still: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """A part of ``items`` for which ``still`` holds and from which no single item can be taken.

    Parameters
    ----------
    items:
        A list for which ``still`` is known to hold; it is not asked about again.
    still:
        Whether the effect is there with these items, in their order. With n items and a result of
        m it is asked about m·log n times, at worst n² times.
    """
    kept = tuple(items)
    if kept and still(()):
        return ()
    size = len(kept) // 2
    while size:
        shorter = _without_parts(kept, size, still)
        # Taking one item away can make others superfluous that were needed before.
        size = size if size == 1 and len(shorter) < len(kept) else size // 2
        kept = shorter
    return kept


def _without_parts(
    kept: tuple[T, ...], size: int, still: Callable[[tuple[T, ...]], bool]
) -> tuple[T, ...]:
    at = 0
    while at < len(kept):
        shorter = kept[:at] + kept[at + size :]
        if shorter and still(shorter):
            kept = shorter
        else:
            at += size
    return kept
