"""How small a tear rounds of cutting under load would have found: statistical power.

**In theory.** A chain writes to U units in turn, a write every w seconds. Unit A is cut at t, unit
B at t + g, and B comes d writes after A in the turn. The first write to A after the cut of A takes
effect at t + x, with x uniform in (0, U w], because cuts and writes know nothing of each other.
The next write to B takes effect d w later, and if that is before t + g, the images hold it and lack
the one to A: torn. So one chain finds the tear with probability min(1, max(0, (g - d w) / (U w))),
and several chains in R rounds, each with a phase of its own, miss it only if each of them does.

**As it was.** Writes do not keep time. :func:`least_gaps` looks at the writes that were made and
says, for an instant t, how small a gap would have been found there: the least g such that a write
to A that began after t had been acknowledged before one to B began that was acknowledged by t + g.
"Acknowledged before another began" is all that it takes, across chains too. That ignores writes
that were under way at t and could have shown the tear as well, so the power told is not too much.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, prod


@dataclass(frozen=True, slots=True)
class Turn:
    """How one chain visits two units: seconds between writes, units, writes between the two."""

    spacing_s: float
    units: int
    distance: int


def chance_missed(gap_s: float, turn: Turn) -> float:
    """Probability that one chain misses a gap of so many seconds in one round."""
    found = (gap_s - turn.distance * turn.spacing_s) / (turn.units * turn.spacing_s)
    return 1 - min(1.0, max(0.0, found))


def gap_found_s(turns: Sequence[Turn], rounds: int, confidence: float = 0.99) -> float:
    """The least gap that some chain finds in some round with this confidence, in theory.

    Solved by halving: the chance to miss a gap never grows with the gap, and is zero from
    (d + U) w of any chain on.
    """
    low_s, high_s = 0.0, min((turn.distance + turn.units) * turn.spacing_s for turn in turns)
    for _ in range(60):
        middle_s = (low_s + high_s) / 2
        missed = prod(chance_missed(middle_s, one) for one in turns) ** rounds
        low_s, high_s = (middle_s, high_s) if missed > 1 - confidence else (low_s, middle_s)
    return high_s


def allowed_miss(draws: int, confidence: float) -> float:
    """How likely each of so many draws may miss, so that not all of them do."""
    return float((1 - confidence) ** (1 / draws))


def unseen_share(rounds: int, found: float, confidence: float = 0.95) -> float:
    """How often cuts may be torn, at most, when none of these rounds was seen torn.

    Parameters
    ----------
    found:
        Probability that a torn cut is seen in its round.

    Returns
    -------
    float
        The upper limit p of the share of torn cuts: with it, (1 - p found) ** rounds is
        1 - confidence (for many rounds about 3 / rounds, the rule of three).
    """
    return min(1.0, (1 - (1 - confidence) ** (1 / rounds)) / found) if found > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Spans:
    """Writes of one chain to one unit: when each began and was acknowledged, in order."""

    issued_s: Sequence[float]
    acknowledged_s: Sequence[float]

    def acknowledged_from(self, at_s: float, *, later: bool = False) -> float:
        """When the first write was acknowledged that began at this time or later."""
        first = bisect_right(self.issued_s, at_s) if later else bisect_left(self.issued_s, at_s)
        return self.acknowledged_s[first] if first < len(self.acknowledged_s) else inf


def least_gaps(
    first: Sequence[Spans], second: Sequence[Spans], at_s: Sequence[float]
) -> list[float]:
    """The gaps that would surely have been found, had the first unit been cut at these times.

    Parameters
    ----------
    first, second:
        The writes to the unit that is cut first, and to the one that is cut later, by chain.

    Returns
    -------
    list of float
        Seconds; infinity where no gap would have been found.
    """
    gaps = []
    for instant_s in at_s:
        lacked_s = [spans.acknowledged_from(instant_s) for spans in first]
        chains = zip(second, lacked_s, strict=True)
        held_s = [spans.acknowledged_from(end_s) for spans, end_s in chains]
        across = min(lacked_s)
        held_s += [spans.acknowledged_from(across, later=True) for spans in second]
        gaps.append(min(held_s) - instant_s)
    return gaps


def gap_of(gaps: Sequence[float], rounds: int, confidence: float = 0.99) -> float:
    """The least gap that so many rounds find with this confidence.

    Parameters
    ----------
    gaps:
        Gaps that one round finds, at instants that were drawn at random.
    """
    ordered = sorted(gaps)
    share = 1 - allowed_miss(rounds, confidence)
    return ordered[min(len(ordered), max(1, ceil(share * len(ordered)))) - 1]
