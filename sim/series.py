"""Quantities of the modelled world that change over time, sampled where the model looks at them."""

from __future__ import annotations

from collections.abc import Iterator

Sample = tuple[float, str, str, float]
"""Time in seconds on the world's clock, quantity, subject, value."""


class Quantity:
    """The quantities that the model samples; the subject is an array or a datastore."""

    POOL_USED_BYTES = "pool.used_bytes"
    POOL_CAPACITY_BYTES = "pool.capacity_bytes"
    ARRAY_SNAPSHOTS = "array.snapshots"
    ARRAY_BACKGROUND_BYTES_PER_S = "array.background_bytes_per_s"
    ARRAY_COPY_BYTES_PER_S = "array.copy_bytes_per_s"
    DELTA_OPEN_BYTES = "delta.open_bytes"


class Series:
    """An append-only list of :data:`Sample`; the times of one subject never fall."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        self.rows: list[Sample] = []

    def add(self, t_s: float, quantity: str, subject: str, value: float) -> None:
        """Append one sample: ``value``, in the unit that ends the quantity's name, at ``t_s``."""
        self.rows.append((t_s, quantity, subject, value))

    def of(self, quantity: str, subject: str) -> Iterator[tuple[float, float]]:
        """Time and value of one quantity of one subject, in order."""
        return (
            (t_s, value)
            for t_s, name, who, value in self.rows
            if (name, who) == (quantity, subject)
        )
