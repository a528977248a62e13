"""Growth of open deltas over time, computed after the run from what happened in it.

A process that samples during the run would cost events, and would keep a run alive that has
nothing left to do. The model knows the size of any delta at any time, so nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..drivers.records import DatastoreId
from .fabric import Fabric, OpenDelta
from .series import Quantity, Series
from .vmstate import VmState

_Growing = tuple[int, float, float, tuple[tuple[DatastoreId, float], ...]]


def sample_open_deltas(
    fabric: Fabric, states: Sequence[VmState], series: Series, step_s: float
) -> None:
    """Append the bytes in open deltas of ours per datastore, from the first to the last of them.

    Parameters
    ----------
    fabric, states:
        The world.
    series:
        Where the samples go.
    step_s:
        Distance of two samples, greater than 0.

    A delta counts until its merge is complete; while it is merged it is drawn as growing on.
    """
    now_s = fabric.env.now
    spans = sorted((*fabric.history, *_still_open(states)), key=_since)
    deltas = [
        (guest, since_s, until_s, fabric.delta_shares(guest, vm))
        for guest, since_s, until_s, vm in spans
    ]
    if not deltas:
        return
    stores = list(dict.fromkeys(store for delta in deltas for store, _ in delta[3]))
    first_s = deltas[0][1]
    last_s = min(now_s, max(delta[2] for delta in deltas))
    steps = int((last_s - first_s) / step_s) + 2
    open_now: list[_Growing] = []
    coming = iter(deltas)
    upcoming = next(coming, None)
    for step in range(steps):
        t_s = first_s + step * step_s
        while upcoming is not None and upcoming[1] <= t_s:
            open_now.append(upcoming)
            upcoming = next(coming, None)
        open_now = [delta for delta in open_now if delta[2] > t_s]
        totals = dict.fromkeys(stores, 0.0)
        for guest, since_s, _, shares in open_now:
            size = fabric.guests.delta_bytes(guest, since_s, t_s)
            for store, share in shares:
                totals[store] += size * share
        for store, total in totals.items():
            series.add(t_s, Quantity.DELTA_OPEN_BYTES, store, total)


def _since(delta: OpenDelta) -> float:
    return delta[1]


def _still_open(states: Sequence[VmState]) -> list[OpenDelta]:
    return [
        (state.guest, snapshot.since_s, math.inf, state.vm)
        for state in states
        for snapshot in state.chain
        if not snapshot.foreign
    ]
