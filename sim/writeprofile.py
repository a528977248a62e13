"""Write profiles: how many distinct bytes a guest overwrites from a given moment on.

A snapshot delta, a changed-block map and the space a copy-on-write array copies all grow with
the *distinct* bytes written since a moment, counted in whole units of a granularity (a delta's
grain, an array's extent). That is the one question the flow model asks of a guest, so it is the
interface: D(phase, duration) at a granularity. Where in its day a guest is when the question is
asked is the phase; two guests with the same profile and different phases burst at different
times.

Four kinds answer it: :class:`~.traceprofile.TraceProfile`, tabulated from a block trace;
:class:`ParametricProfile`, a formula for guests without a trace;
:class:`~.ringprofile.RingProfile`, a file that is written round and round; :class:`ScaledProfile`,
another profile made larger or smaller. :func:`~.profilefile.load_profile` finds the shipped ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import StillframeError

FloatArray = NDArray[np.float64]

# The grain of an SEsparse delta, the format of every vSphere snapshot since VMFS 6.
DELTA_GRAIN_BYTES = 4096


class WriteProfile(Protocol):
    """What the flow model asks of a guest's writes; every method is free of side effects."""

    @property
    def period_s(self) -> float:
        """The length of the cycle that a phase is drawn from, in seconds."""

    @property
    def rate_bytes_per_s(self) -> float:
        """The mean write rate over the cycle, every byte counted each time it is written."""

    @property
    def source(self) -> str:
        """Where the numbers come from, in one sentence; says so if they are assumed."""

    def delta_bytes(
        self, phase_s: float, duration_s: float, granularity_bytes: int = DELTA_GRAIN_BYTES
    ) -> float:
        """Bytes in distinct units written in ``[phase_s, phase_s + duration_s)``.

        Parameters
        ----------
        phase_s:
            Where in the cycle the window begins; any finite number, taken modulo the period.
        duration_s:
            Length of the window, not negative. The answer never falls as it grows.
        granularity_bytes:
            The size of a unit; a unit counts in full as soon as one byte of it is written.

        Raises
        ------
        StillframeError
            A negative duration, or a granularity that the profile does not hold.
        """

    def delta_bytes_many(
        self,
        phases_s: FloatArray,
        durations_s: FloatArray | float,
        granularity_bytes: int = DELTA_GRAIN_BYTES,
    ) -> FloatArray:
        """:meth:`delta_bytes` for arrays; phases and durations are broadcast together."""

    def written_bytes(self, phase_s: float, duration_s: float) -> float:
        """All bytes written in the window, repeated ones included; same parameters."""


def require_parameters(*parameters: tuple[str, float, bool]) -> None:
    """Refuse the first of (field, value, whether it is in its range) that is not.

    Raises
    ------
    StillframeError
        A parameter is out of its range.
    """
    for field, value, good in parameters:
        if not good:
            raise StillframeError(f"write profile parameter {field} is out of range: {value!r}")


def require_duration(duration_s: float) -> None:
    """Refuse a duration that is negative or not a number."""
    if not duration_s >= 0.0:
        raise StillframeError(
            f"duration {duration_s!r} s of a write window is negative or not a number"
        )


@dataclass(frozen=True, slots=True)
class ParametricProfile:
    """A guest that writes at a steady rate to random places of a working set.

    The number of distinct units after n random writes into m units is m (1 - (1 - 1/m)^n)
    (Cardenas, "Analysis and performance of inverted data base structures", CACM 18(5), 1975);
    for large m and a steady rate r that is D(t) = W (1 - exp(-r t / W)). Skew splits the working
    set in two parts with that law each: ``locality`` of the writes go to ``1 - locality`` of the
    working set (0.8 is the 80/20 rule, 0.5 no skew). At a granularity g above the write size
    each write touches one unit, below it ``write_bytes / g``: writes are taken as aligned.

    There is no burst in it, and so no phase: real guests burst (docs/write-profiles.md), which
    makes this the mild case. The numbers are the caller's; nothing here is measured.

    Parameters
    ----------
    rate_bytes_per_s:
        Write rate, not negative.
    working_set_bytes:
        The bytes that are ever written, positive.
    locality:
        Share of the writes that goes to the hot part, at least 0.5 and below 1.
    write_bytes:
        Size of one write, positive.
    period_s:
        Only what phases are drawn from; no answer depends on it.
    source:
        Where the parameters come from.

    Raises
    ------
    StillframeError
        A parameter is out of its range.
    """

    rate_bytes_per_s: float
    working_set_bytes: float
    locality: float = 0.5
    write_bytes: int = DELTA_GRAIN_BYTES
    period_s: float = 3600.0
    source: str = "assumed: parameters without a source"

    def __post_init__(self) -> None:
        require_parameters(
            ("rate_bytes_per_s", self.rate_bytes_per_s, 0.0 <= self.rate_bytes_per_s < math.inf),
            ("working_set_bytes", self.working_set_bytes, 0.0 < self.working_set_bytes < math.inf),
            ("locality", self.locality, 0.5 <= self.locality < 1.0),
            ("write_bytes", self.write_bytes, self.write_bytes > 0),
            ("period_s", self.period_s, 0.0 < self.period_s < math.inf),
        )

    def delta_bytes(
        self,
        phase_s: float,  # noqa: ARG002 — part of the interface; this guest has no phase
        duration_s: float,
        granularity_bytes: int = DELTA_GRAIN_BYTES,
    ) -> float:
        """See :meth:`WriteProfile.delta_bytes`; the phase is not used."""
        require_duration(duration_s)
        self._require_granularity(granularity_bytes)
        total = 0.0
        for units, touches_per_s in self._parts(granularity_bytes):
            total -= units * math.expm1(-touches_per_s * duration_s / units)
        return total * granularity_bytes

    def delta_bytes_many(
        self,
        phases_s: FloatArray,
        durations_s: FloatArray | float,
        granularity_bytes: int = DELTA_GRAIN_BYTES,
    ) -> FloatArray:
        """See :meth:`WriteProfile.delta_bytes_many`; only the shape of the phases is used."""
        _, durations = np.broadcast_arrays(phases_s, np.asarray(durations_s, dtype=np.float64))
        if durations.size:
            require_duration(float(durations.min()))
        self._require_granularity(granularity_bytes)
        total = np.zeros(durations.shape, dtype=np.float64)
        for units, touches_per_s in self._parts(granularity_bytes):
            total -= units * np.expm1(-touches_per_s * durations / units)
        return total * granularity_bytes

    def written_bytes(
        self,
        phase_s: float,  # noqa: ARG002 — part of the interface; this guest has no phase
        duration_s: float,
    ) -> float:
        """See :meth:`WriteProfile.written_bytes`."""
        require_duration(duration_s)
        return self.rate_bytes_per_s * duration_s

    def _parts(self, granularity_bytes: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Units and unit touches per second of the hot and the cold part."""
        writes_per_s = self.rate_bytes_per_s / self.write_bytes
        touches_per_s = writes_per_s * max(1.0, self.write_bytes / granularity_bytes)
        units = self.working_set_bytes / granularity_bytes
        hot = self.locality
        # A part smaller than one unit still costs that unit when it is written.
        return (
            (max(1.0, units * (1.0 - hot)), touches_per_s * hot),
            (max(1.0, units * hot), touches_per_s * (1.0 - hot)),
        )

    @staticmethod
    def _require_granularity(granularity_bytes: int) -> None:
        if granularity_bytes <= 0:
            raise StillframeError(f"granularity {granularity_bytes!r} bytes is not positive")


@dataclass(frozen=True, slots=True)
class ScaledProfile:
    """Another profile with every byte count multiplied, and distinct bytes capped by a disk.

    It stands for ``scale`` disjoint copies of the same activity at the same moments: rate and
    distinct bytes grow alike, the bursts stay where they are. To ask for many guests of one
    profile at once, ask the base and multiply by an array of scales.

    Parameters
    ----------
    base:
        The profile that is scaled; shared, not copied.
    scale:
        Factor on bytes, not negative.
    limit_bytes:
        The size of the guest's disks, not negative: no delta outgrows its base. Infinite for no
        cap.

    Raises
    ------
    StillframeError
        The scale or the limit is negative or not a number, or the scale is infinite.
    """

    base: WriteProfile
    scale: float = 1.0
    limit_bytes: float = math.inf

    def __post_init__(self) -> None:
        if not 0.0 <= self.scale < math.inf:
            raise StillframeError(f"write profile scale {self.scale!r} is not a finite number >= 0")
        if not self.limit_bytes >= 0.0:
            raise StillframeError(f"write profile limit {self.limit_bytes!r} bytes is not >= 0")

    @property
    def period_s(self) -> float:
        """The period of the base."""
        return self.base.period_s

    @property
    def rate_bytes_per_s(self) -> float:
        """The scaled mean write rate."""
        return self.base.rate_bytes_per_s * self.scale

    @property
    def source(self) -> str:
        """The source of the base, and the factor."""
        return f"{self.base.source}, bytes scaled by {self.scale:g}"

    def delta_bytes(
        self, phase_s: float, duration_s: float, granularity_bytes: int = DELTA_GRAIN_BYTES
    ) -> float:
        """See :meth:`WriteProfile.delta_bytes`; at most ``limit_bytes``."""
        scaled = self.scale * self.base.delta_bytes(phase_s, duration_s, granularity_bytes)
        limit = self.limit_bytes
        return scaled if scaled < limit else limit

    def delta_bytes_many(
        self,
        phases_s: FloatArray,
        durations_s: FloatArray | float,
        granularity_bytes: int = DELTA_GRAIN_BYTES,
    ) -> FloatArray:
        """See :meth:`WriteProfile.delta_bytes_many`; at most ``limit_bytes`` each."""
        base = self.base.delta_bytes_many(phases_s, durations_s, granularity_bytes)
        return np.minimum(base * self.scale, self.limit_bytes)

    def written_bytes(self, phase_s: float, duration_s: float) -> float:
        """See :meth:`WriteProfile.written_bytes`; scaled, never capped."""
        return self.scale * self.base.written_bytes(phase_s, duration_s)
