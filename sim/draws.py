"""Random numbers that depend on what they are for, and on nothing else.

Every draw is a keyed hash of its purpose: ``draws.uniforms("create", vm_id, attempt)``. So one more
draw in one place shifts no other, the order of calls does not matter, and the numbers are the same
in every process, on every Python and under any ``PYTHONHASHSEED``.
"""

from __future__ import annotations

import math
from hashlib import blake2b, shake_128
from statistics import NormalDist
from struct import Struct

Uniforms = tuple[float, float, float, float, float, float, float, float]
"""Eight independent numbers, each greater than 0 and less than 1."""

_EIGHT_WORDS = Struct("<8Q").unpack
_THREE_WORDS = Struct("<3Q").unpack_from
_STEP = 2.0**-52
_quantile = NormalDist().inv_cdf


class Draws:
    """A source of draws for one run.

    Parameters
    ----------
    seed:
        Any integer or text; runs with equal seeds draw equal numbers. ``1`` and ``"1"`` are
        different seeds.
    """

    __slots__ = ("_keyed",)

    def __init__(self, seed: str | int) -> None:
        # Copied for each draw, which takes less than handing over the key each time.
        self._keyed = blake2b(key=blake2b(ascii(seed).encode(), digest_size=32).digest())

    def uniforms(self, *key: str | int) -> Uniforms:
        """Eight uniforms for the purpose that ``key`` names; equal keys give equal numbers."""
        # ascii() of the tuple keeps ("a", "b") and ("ab",) apart, and 1 and "1".
        hashed = self._keyed.copy()
        hashed.update(ascii(key).encode())
        # 52 bits and a half step: neither 0 nor 1 can come out, and every value is exact.
        a, b, c, d, e, f, g, h = _EIGHT_WORDS(hashed.digest())
        return (
            ((a >> 12) + 0.5) * _STEP,
            ((b >> 12) + 0.5) * _STEP,
            ((c >> 12) + 0.5) * _STEP,
            ((d >> 12) + 0.5) * _STEP,
            ((e >> 12) + 0.5) * _STEP,
            ((f >> 12) + 0.5) * _STEP,
            ((g >> 12) + 0.5) * _STEP,
            ((h >> 12) + 0.5) * _STEP,
        )

    def three(self, *key: str | int) -> tuple[float, float, float]:
        """The first three of :meth:`uniforms`, for half the price."""
        hashed = self._keyed.copy()
        hashed.update(ascii(key).encode())
        a, b, c = _THREE_WORDS(hashed.digest())
        return ((a >> 12) + 0.5) * _STEP, ((b >> 12) + 0.5) * _STEP, ((c >> 12) + 0.5) * _STEP

    def stream(self, size_bytes: int, *key: str | int) -> bytes:
        """So many random bytes for one purpose, for those who need many numbers at once."""
        hashed = self._keyed.copy()
        hashed.update(ascii(key).encode())
        return shake_128(hashed.digest()).digest(size_bytes)


def lognormal(u: float, median: float, sigma: float) -> float:
    """The ``u``-quantile of a lognormal distribution, in the unit of ``median``.

    ``sigma`` is the standard deviation of the logarithm; 0 gives the median itself.
    """
    return median * math.exp(sigma * _quantile(u)) if sigma else median


def exponential(u: float, mean: float) -> float:
    """The ``u``-quantile of an exponential distribution, in the unit of ``mean``."""
    return -mean * math.log1p(-u)
