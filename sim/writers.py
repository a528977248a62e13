"""How much the guests of a host or an array write, in guests that write all the time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..drivers.records import HostId, UnitId
from .env import SimEnv
from .guests import Guests
from .vmstate import VmState

FRESH_S = 60.0
"""For this long a count is used before it is taken anew: it is one of mean rates, and going through
all VMs for every operation would be most of what an estate costs."""


class Writers:
    """Counts writing guests, each as a share of one that writes all the time.

    What a guest writes holds others up when a write falls into what they do. With writes at rate r
    the chance of that is ``1 - exp(-r / R)``, with R the rate of one write for the time that it
    takes: it grows with r and cannot exceed 1.

    Parameters
    ----------
    env:
        The world's clock.
    guests, states:
        Who writes, and where each VM is.
    full_rate_bytes_per_s:
        R.
    """

    def __init__(
        self,
        env: SimEnv,
        guests: Guests,
        states: Sequence[VmState],
        full_rate_bytes_per_s: float,
    ) -> None:
        self._env = env
        self._guests = guests
        self._states = states
        self._full = full_rate_bytes_per_s
        self._until_s = -1.0
        self._by_host: dict[HostId | None, float] = {}
        self._by_unit: dict[UnitId, float] = {}

    def on_host(self, host_id: HostId | None) -> float:
        """The writers among the guests that run on a host."""
        self._refresh()
        return self._by_host.get(host_id, 0.0)

    def on_units(self, unit_ids: Iterable[UnitId]) -> float:
        """The writers on these units; one that writes to several counts on each by its share."""
        self._refresh()
        return sum(self._by_unit.get(unit_id, 0.0) for unit_id in unit_ids)

    def _refresh(self) -> None:
        now_s = self._env.now
        if now_s < self._until_s:
            return
        self._until_s = now_s + FRESH_S
        guests, by_host, by_unit = self._guests, self._by_host, self._by_unit
        by_host.clear()
        by_unit.clear()
        for state in self._states:
            guest = state.guest
            if not guests.is_running(guest):
                continue
            rate = guests.profiles[guests.profile_of[guest]].rate_bytes_per_s
            busy = -math.expm1(-rate * guests.scale[guest] / self._full)
            host_id = state.vm.host_id
            by_host[host_id] = by_host.get(host_id, 0.0) + busy
            for unit_id, share in guests.shares[guest]:
                by_unit[unit_id] = by_unit.get(unit_id, 0.0) + busy * share
