"""A guest that writes one file round and round: a log, a ring of records, a circular journal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import StillframeError
from .writeprofile import DELTA_GRAIN_BYTES, FloatArray, require_duration, require_parameters


@dataclass(frozen=True, slots=True)
class RingProfile:
    """A steady writer whose writes follow one another, and start over at the end of the ring.

    ``n`` writes of ``w`` bytes in a row touch ``(n w - w) / g + 1`` units of ``g`` bytes on
    average over where the row begins (for ``w <= g``, writes aligned to their size), so that
    D(t) = r t + g - w until the ring is full; a window shorter than one write holds a part of one.
    Above the granularity each write fills its units: D(t) = r t.

    Parameters
    ----------
    rate_bytes_per_s:
        Write rate, not negative.
    ring_bytes:
        Size of the ring, positive.
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
    ring_bytes: float
    write_bytes: int = DELTA_GRAIN_BYTES
    period_s: float = 3600.0
    source: str = "assumed: parameters without a source"

    def __post_init__(self) -> None:
        require_parameters(
            ("rate_bytes_per_s", self.rate_bytes_per_s, 0.0 <= self.rate_bytes_per_s < math.inf),
            ("ring_bytes", self.ring_bytes, 0.0 < self.ring_bytes < math.inf),
            ("write_bytes", self.write_bytes, self.write_bytes > 0),
            ("period_s", self.period_s, 0.0 < self.period_s < math.inf),
        )

    def delta_bytes(
        self,
        phase_s: float,  # noqa: ARG002 — part of the interface; this guest has no phase
        duration_s: float,
        granularity_bytes: int = DELTA_GRAIN_BYTES,
    ) -> float:
        """See :meth:`.writeprofile.WriteProfile.delta_bytes`; the phase is not used."""
        require_duration(duration_s)
        more, most = self._grain(granularity_bytes)
        written = self.rate_bytes_per_s * duration_s
        first = min(written / self.write_bytes, 1.0)
        return min(written + first * more, most)

    def delta_bytes_many(
        self,
        phases_s: FloatArray,
        durations_s: FloatArray | float,
        granularity_bytes: int = DELTA_GRAIN_BYTES,
    ) -> FloatArray:
        """See :meth:`.writeprofile.WriteProfile.delta_bytes_many`."""
        _, durations = np.broadcast_arrays(phases_s, np.asarray(durations_s, dtype=np.float64))
        if durations.size:
            require_duration(float(durations.min()))
        more, most = self._grain(granularity_bytes)
        written = self.rate_bytes_per_s * durations
        first = np.minimum(written / self.write_bytes, 1.0)
        return np.minimum(written + first * more, most)

    def written_bytes(
        self,
        phase_s: float,  # noqa: ARG002 — part of the interface; this guest has no phase
        duration_s: float,
    ) -> float:
        """See :meth:`.writeprofile.WriteProfile.written_bytes`."""
        require_duration(duration_s)
        return self.rate_bytes_per_s * duration_s

    def _grain(self, granularity_bytes: int) -> tuple[float, float]:
        """What the units at the ends of a row add to it, and the ring in whole units."""
        if granularity_bytes <= 0:
            raise StillframeError(f"granularity {granularity_bytes!r} bytes is not positive")
        more = max(0, granularity_bytes - self.write_bytes)
        return more, math.ceil(self.ring_bytes / granularity_bytes) * float(granularity_bytes)
