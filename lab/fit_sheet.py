"""What a fit has found so far: numbers, where each comes from, and what could not be fitted."""

from __future__ import annotations

from ..quantity import format_seconds
from ..sim.fitted_profile import FittedNumber


class Sheet:
    """Takes note of every fitted number.

    Parameters
    ----------
    runs:
        The runs in words, as sources cite them.
    """

    def __init__(self, runs: str) -> None:
        self._runs = runs
        self._numbers: list[FittedNumber] = []
        self._sources: dict[str, str] = {}
        self.notes: list[str] = []

    def add(
        self, number: str, value: str, observations: int, what: str, spread: float | None = None
    ) -> None:
        """Note a number that was fitted to so many observations of ``what``."""
        left = None if spread is None else significant(spread)
        self._numbers.append(
            FittedNumber(number=number, value=value, observations=observations, spread=left)
        )
        self._sources[number] = f"fitted to {observations} {what} in {self._runs}"

    def seconds(
        self, number: str, value_s: float, observations: int, what: str, spread: float | None = None
    ) -> float:
        """Note a duration; returns it as it goes into the profile."""
        rounded = significant(value_s)
        self.add(number, format_seconds(rounded), observations, what, spread)
        return rounded

    def factor(self, number: str, value: float, observations: int, what: str) -> float:
        """Note a number without a unit; returns it as it goes into the profile."""
        rounded = significant(value)
        self.add(number, f"{rounded:g}", observations, what)
        return rounded

    def known(self, number: str, source: str) -> None:
        """Note the source of a number that was not fitted but had to be given."""
        self._sources[number] = source

    def sources(self) -> dict[str, str]:
        """The source of every number so far."""
        return dict(self._sources)

    def numbers(self) -> tuple[FittedNumber, ...]:
        """Every fitted number so far."""
        return tuple(self._numbers)


def significant(value: float) -> float:
    """Four significant digits: more than any fit can know."""
    return float(f"{value:.4g}")
