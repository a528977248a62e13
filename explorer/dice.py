"""Draws for options, each by the name of what it is for: one more shifts no other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from ..sim.draws import Draws

T = TypeVar("T")


class Dice:
    """The draws of one run.

    Parameters
    ----------
    scenario, seed:
        Decide everything.
    """

    __slots__ = ("_draws",)

    def __init__(self, scenario: str, seed: int) -> None:
        self._draws = Draws(f"options of {scenario} {seed}")

    def share(self, *name: str | int) -> float:
        """A number between 0 and 1."""
        return self._draws.three(*name)[0]

    def three(self, *name: str | int) -> tuple[float, float, float]:
        """Three numbers between 0 and 1."""
        return self._draws.three(*name)

    def chance(self, probability: float, *name: str | int) -> bool:
        """True with this probability."""
        return self._draws.three(*name)[0] < probability

    def pick(self, choices: Sequence[T], *name: str | int) -> T:
        """One of them, all alike."""
        return choices[int(self._draws.three(*name)[0] * len(choices))]

    def count(self, least: int, most: int, *name: str | int) -> int:
        """A whole number, ends included."""
        return least + int(self._draws.three(*name)[0] * (most - least + 1))

    def size(self, least: float, most: float, *name: str | int) -> float:
        """A number between the two, even on a logarithmic scale, with three digits."""
        share = self._draws.three(*name)[0]
        value = math.exp(math.log(least) + share * (math.log(most) - math.log(least)))
        return float(f"{value:.3g}")
