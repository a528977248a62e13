"""How much work a suite puts into what can only be shown by repeating it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Repetitions of one run of the kit.

    Attributes
    ----------
    rounds:
        Group snapshots that are cut under load per requirement on atomicity.
    many:
        Snapshots that are made where the number is the point (listing, limits): a limit above it
        is not reached, and its requirement is not tested.
    repeats:
        Measurements per point of a latency distribution.
    span_bytes:
        What checks write of each unit, from its beginning.
    call_timeout_s:
        After so long a call of the driver counts as hung.
    check_timeout_s:
        After so long a check is ended, and the requirement is broken.
    """

    name: str
    rounds: int
    many: int
    repeats: int
    span_bytes: int
    call_timeout_s: float
    check_timeout_s: float


EFFORTS = {
    effort.name: effort
    for effort in (
        Effort("quick", 8, 24, 5, 4 << 20, 60.0, 300.0),
        Effort("standard", 40, 120, 15, 8 << 20, 120.0, 900.0),
        Effort("thorough", 300, 300, 60, 64 << 20, 300.0, 7200.0),
    )
}
