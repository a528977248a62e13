"""From a write profile to single writes: how often, how large, to how many blocks.

A parametric profile is taken as it is. A trace profile knows how many distinct bytes a window
holds, but not which; block fidelity replaces it by the steady writer that agrees with it best on
average: the same rate, the mean size of a write, the same distinct bytes in a whole cycle, and the
locality that comes closest to the mean of the shorter windows. Its bursts are lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from ..drivers.records import Vm
from ..errors import InputError
from ..orchestrator.spec import Section
from .block_script import Workload
from .guest_rules import GuestRule, GuestRules
from .traceprofile import TraceProfile
from .writeprofile import DELTA_GRAIN_BYTES, ParametricProfile, WriteProfile

_LOCALITIES = tuple(0.5 + step / 50 for step in range(25))
_WINDOWS_S = (1.0, 10.0, 60.0, 300.0, 900.0)


class BlockSettings(Section):
    """Numbers of block fidelity that flow fidelity has no use for.

    Attributes
    ----------
    durable_share:
        Share of the writes that an application waits for. No source: databases write almost
        everything so, file servers next to nothing.
    most_writes_per_s:
        A guest that writes more often than this does so in larger pieces, at the same rate in
        bytes: what a run costs grows with the number of writes.
    """

    durable_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    most_writes_per_s: Annotated[float, Field(gt=0)] = 20.0


class SteadyRules(GuestRules):
    """The rules, with a steady writer in place of every trace."""

    def of(self, vm_name: str) -> tuple[GuestRule, ParametricProfile]:
        """See :meth:`GuestRules.of`."""
        rule, profile = super().of(vm_name)
        return rule, steady_equivalent(profile)


def steady_equivalent(profile: WriteProfile) -> ParametricProfile:
    """The steady writer that stands for a profile.

    Raises
    ------
    InputError
        It is of a kind that has no such equivalent.
    """
    if isinstance(profile, ParametricProfile):
        return profile
    if not isinstance(profile, TraceProfile):
        kind = type(profile).__name__
        raise InputError("world", "guests", f"block fidelity knows no writes of a {kind}")
    return _of_trace(profile)


@lru_cache(maxsize=32)
def _of_trace(profile: TraceProfile) -> ParametricProfile:
    granularity = profile.granularity_at_least(DELTA_GRAIN_BYTES)
    totals = profile.totals
    windows = [window for window in _WINDOWS_S if not profile.extrapolates(window)]
    means = [row.mean_bytes for row in profile.summary(windows, (granularity,))]
    candidates = [_fitted(profile, granularity, locality) for locality in _LOCALITIES]
    best = min(candidates, key=lambda one: _distance(one, windows, means, granularity))
    size = totals.written_bytes / max(1, totals.writes)
    return ParametricProfile(
        best.rate_bytes_per_s,
        best.working_set_bytes,
        best.locality,
        max(1, round(size / granularity)) * granularity,
        profile.period_s,
        f"a steady writer in place of: {profile.source}",
    )


def _fitted(profile: TraceProfile, granularity: int, locality: float) -> ParametricProfile:
    """With this locality, the working set that gives the trace's distinct bytes in a cycle."""
    rate, goal = profile.rate_bytes_per_s, profile.distinct_bytes(granularity)
    low, high = goal, 1000.0 * goal
    for _ in range(60):
        middle = math.sqrt(low * high)
        tried = ParametricProfile(rate, middle, locality)
        if tried.delta_bytes(0.0, profile.period_s) < goal:
            low = middle
        else:
            high = middle
    return ParametricProfile(rate, high, locality)


def _distance(
    one: ParametricProfile, windows: Sequence[float], means: Sequence[float], granularity: int
) -> float:
    return sum(
        math.log(max(1.0, one.delta_bytes(0.0, window, granularity)) / max(1.0, mean)) ** 2
        for window, mean in zip(windows, means, strict=True)
    )


def workload_of(
    vm: Vm, profile: ParametricProfile, scale: float, grain_bytes: int, settings: BlockSettings
) -> Workload:
    """How a VM writes: spread over its disks by capacity, in blocks of one size."""
    # Below the grain each write takes a whole grain; above the limit it stands for several.
    often = profile.rate_bytes_per_s * scale / profile.write_bytes
    touched_bytes = max(profile.write_bytes, grain_bytes)
    together = max(1, math.ceil(often / settings.most_writes_per_s))
    block_bytes = math.ceil(touched_bytes * together / grain_bytes) * grain_bytes
    capacity = sum(disk.capacity_bytes for disk in vm.disks)
    shares = tuple(disk.capacity_bytes / capacity if capacity else 0.0 for disk in vm.disks)
    total = min(profile.working_set_bytes * scale, capacity) / block_bytes
    locality = profile.locality
    return Workload(
        writes_per_s=often * touched_bytes / block_bytes if capacity else 0.0,
        block_bytes=block_bytes,
        hot_blocks=tuple(max(1, round(total * part * (1.0 - locality))) for part in shares),
        cold_blocks=tuple(max(1, round(total * part * locality)) for part in shares),
        disk_shares=shares if capacity else (),
        locality=locality,
        durable_share=settings.durable_share,
    )
