"""What guests do to the units of an array, as far as the array has to know it.

This is the seam between the two fidelities: in flow fidelity an implementation sums write profiles,
in block fidelity it counts the blocks that really were overwritten. The array asks by unit, never
by VM, and never for a single write.
"""

from __future__ import annotations

from typing import Protocol

from ..drivers.records import UnitId


class OverwriteModel(Protocol):
    """The guest writes that reach the storage units."""

    def overwritten_bytes(
        self, unit_id: UnitId, since_s: float, now_s: float, granularity_bytes: int
    ) -> float:
        """Distinct array extents of a unit that guests overwrote in a span, in bytes.

        An extent counts with its full size once, however often and however little of it was
        written. The value must not fall when the span grows at either end; the array never takes
        more than the unit's capacity from it.

        Parameters
        ----------
        unit_id:
            The unit; a unit on which no guest lies has 0 bytes overwritten.
        since_s, now_s:
            Start and end of the span on the world's clock; a span may start before time 0 of the
            run and is empty when both are equal.
        granularity_bytes:
            Size of an extent, greater than 0.
        """
        ...

    def write_rate_bytes_per_s(self, unit_id: UnitId, start_s: float, end_s: float) -> float:
        """Mean rate at which guests write to a unit in ``[start_s, end_s]``, in bytes per second.

        Every write counts with its own size, repeated ones too; ``end_s`` is greater than
        ``start_s``.
        """
        ...


class QuietUnits:
    """Units to which nobody writes; implements :class:`OverwriteModel`."""

    def overwritten_bytes(
        self,
        unit_id: UnitId,  # noqa: ARG002
        since_s: float,  # noqa: ARG002
        now_s: float,  # noqa: ARG002
        granularity_bytes: int,  # noqa: ARG002
    ) -> float:
        """0 bytes."""
        return 0.0

    def write_rate_bytes_per_s(
        self,
        unit_id: UnitId,  # noqa: ARG002
        start_s: float,  # noqa: ARG002
        end_s: float,  # noqa: ARG002
    ) -> float:
        """0 bytes per second."""
        return 0.0
