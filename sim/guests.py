"""The guests in flow fidelity: what they write, where, and how much of it is distinct.

No event per write. A guest is a write profile, a phase (where in the profile's cycle it was at
time 0) and a scale; how many distinct bytes it wrote in a span is one look-up. A guest writes only
while it is powered on. Its writes go to its disks in proportion to their capacity, and from a disk
to the units under its datastore in proportion to theirs (one unit but for multi-extent VMFS and
several disks): records know capacities and nothing better.

What the hypervisor itself writes to a unit (merges, storage vMotion) is added by
:meth:`Guests.wrote_to` as of the moment at which it is complete; to an array it is
overwriting like any other. A delta's own blocks are taken as lying on the unit of the disk, also
for the few VMs whose deltas go elsewhere.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from ..drivers.records import PowerState, UnitId, Vm
from .draws import Draws, lognormal
from .guest_rules import GuestRule, GuestRules
from .traceprofile import TraceProfile
from .writeprofile import FloatArray, WriteProfile

Shares = tuple[tuple[UnitId, float], ...]
"""Units and the share of a VM's writes that each gets; the shares add up to at most 1."""

_ALWAYS = -math.inf
_OPEN = math.inf
_MANY = 8
"""So many rows are worked on as arrays: for fewer that takes several times as long as a loop."""


class _Residents:
    """The guests that lie or lay on one unit, as rows; arrays are built when first needed."""

    __slots__ = ("_arrays", "bulk_bytes", "bulk_s", "rows")

    def __init__(self) -> None:
        # guest, share, from, until: one row per stay
        self.rows: list[tuple[int, float, float, float]] = []
        self._arrays: list[_Stays] | None = None
        self.bulk_s: list[float] = []
        self.bulk_bytes: list[float] = [0.0]

    def enter(self, guest: int, share: float, now_s: float) -> None:
        self.rows.append((guest, share, now_s, _OPEN))
        self._arrays = None

    def leave(self, guest: int, now_s: float) -> None:
        self.rows = [
            (who, share, start, now_s)
            if who == guest and end == _OPEN
            else (who, share, start, end)
            for who, share, start, end in self.rows
        ]
        self._arrays = None

    def add_bulk(self, now_s: float, size_bytes: float) -> None:
        self.bulk_s.append(now_s)
        self.bulk_bytes.append(self.bulk_bytes[-1] + size_bytes)

    def bulk(self, since_s: float, now_s: float) -> float:
        """Bytes completed in (since, now]."""
        until = bisect_right(self.bulk_s, now_s)
        return self.bulk_bytes[until] - self.bulk_bytes[bisect_right(self.bulk_s, since_s)]

    def stays(self, guests: Guests) -> list[_Stays]:
        if self._arrays is None:
            by_profile: dict[int, list[tuple[int, float, float, float]]] = {}
            for row in self.rows:
                by_profile.setdefault(guests.profile_of[row[0]], []).append(row)
            self._arrays = [
                _Stays(guests, guests.profiles[number], rows) for number, rows in by_profile.items()
            ]
        return self._arrays


class _Stays:
    """Rows of one unit that share a write profile."""

    __slots__ = ("_columns", "profile", "rows")

    def __init__(
        self,
        guests: Guests,
        profile: WriteProfile,
        rows: Sequence[tuple[int, float, float, float]],
    ) -> None:
        self.profile = profile
        # phase, factor on bytes, most bytes, from, until
        self.rows = [
            (
                guests.phase_s[guest],
                guests.scale[guest] * share,
                guests.capacity_bytes[guest] * share,
                start_s,
                end_s,
            )
            for guest, share, start_s, end_s in rows
        ]
        self._columns = None if len(rows) < _MANY else np.array(self.rows).T.copy()

    def overwritten(self, since_s: float, now_s: float, granularity_bytes: int) -> float:
        unit_bytes = tabulated(self.profile, granularity_bytes)
        if self._columns is not None:
            return self._overwritten_by_many(self._columns, since_s, now_s, unit_bytes)
        delta_bytes = self.profile.delta_bytes
        total = 0.0
        for phase_s, factor, limit, start_s, end_s in self.rows:
            begin_s = start_s if start_s > since_s else since_s
            length_s = (end_s if end_s < now_s else now_s) - begin_s
            if length_s > 0.0:
                distinct = delta_bytes(phase_s + begin_s, length_s, unit_bytes) * factor
                total += distinct if distinct < limit else limit
        return total

    def _overwritten_by_many(
        self, columns: FloatArray, since_s: float, now_s: float, unit_bytes: int
    ) -> float:
        phases, factors, limits, starts, ends = columns
        begins = np.maximum(starts, since_s)
        lengths = np.maximum(np.minimum(ends, now_s) - begins, 0.0)
        distinct = self.profile.delta_bytes_many(phases + begins, lengths, unit_bytes)
        return float(np.minimum(distinct * factors, limits).sum())

    def written(self, since_s: float, now_s: float) -> float:
        written = self.profile.written_bytes
        total = 0.0
        for phase_s, factor, _, start_s, end_s in self.rows:
            begin_s = start_s if start_s > since_s else since_s
            length_s = (end_s if end_s < now_s else now_s) - begin_s
            if length_s > 0.0:
                total += written(phase_s + begin_s, length_s) * factor
        return total


def _share(part: int, whole: int) -> float:
    # Nearly all are 1: one object for all of them.
    if part == whole:
        return 1.0 if whole else 0.0
    return part / whole


def tabulated(profile: WriteProfile, granularity_bytes: int) -> int:
    """The granularity to ask a profile for: the next larger that it holds (never fewer bytes)."""
    if isinstance(profile, TraceProfile):
        return profile.granularity_at_least(granularity_bytes)
    return granularity_bytes


class Guests:
    """All guests of the world; implements :class:`.load.OverwriteModel`.

    A guest is named by its place in ``vms``.

    Parameters
    ----------
    vms:
        Every VM; running ones write, templates and the others do not.
    rules:
        The first rule that matches a VM's name gives its profile, scale and dirty data.
    shares:
        Per VM the units that its writes go to.
    draws:
        Where phase and scale come from, by the VM's identifier.
    grain_bytes:
        The grain of deltas and of what a guest flushes.
    """

    __slots__ = (
        "_residents",
        "_spans",
        "capacity_bytes",
        "grain_bytes",
        "grain_of",
        "held_share",
        "phase_s",
        "profile_of",
        "profiles",
        "rule",
        "scale",
        "shares",
    )

    def __init__(
        self,
        vms: Sequence[Vm],
        rules: GuestRules,
        shares: Sequence[Shares],
        draws: Draws,
        grain_bytes: int,
    ) -> None:
        self.grain_bytes = grain_bytes
        self.grain_of: list[int] = []
        self.profiles: list[WriteProfile] = []
        self.profile_of: list[int] = []
        self.rule: list[GuestRule] = []
        self.phase_s: list[float] = []
        self.scale: list[float] = []
        self.capacity_bytes: list[float] = []
        self.held_share: list[float] = []
        self.shares: list[Shares] = list(shares)
        self._residents: dict[UnitId, _Residents] = {}
        # Spans of power; only for guests that are not simply on from the start.
        self._spans: dict[int, list[tuple[float, float]]] = {}
        numbers: dict[int, int] = {}
        for guest, vm in enumerate(vms):
            self._add(guest, vm, rules, draws, numbers)

    def _add(
        self, guest: int, vm: Vm, rules: GuestRules, draws: Draws, numbers: dict[int, int]
    ) -> None:
        rule, profile = rules.of(vm.name)
        number = numbers.setdefault(id(profile), len(self.profiles))
        if number == len(self.profiles):
            self.profiles.append(profile)
            self.grain_of.append(tabulated(profile, self.grain_bytes))
        phase, scale, _ = draws.three("guest", vm.id)
        held = capacity = 0
        for disk in vm.disks:
            capacity += disk.capacity_bytes
            if disk.in_vm_snapshot:
                held += disk.capacity_bytes
        self.profile_of.append(number)
        self.rule.append(rule)
        self.phase_s.append(phase * profile.period_s)
        self.scale.append(lognormal(scale, rule.scale_median, rule.scale_sigma))
        self.capacity_bytes.append(float(capacity))
        self.held_share.append(_share(held, capacity))
        if vm.power_state is PowerState.ON and not vm.is_template:
            self._enter(guest, _ALWAYS)
        else:
            self._spans[guest] = []

    # -- what happens to guests -------------------------------------------------------------

    def is_running(self, guest: int) -> bool:
        """Whether the guest is powered on."""
        spans = self._spans.get(guest)
        return spans is None or (bool(spans) and spans[-1][1] == _OPEN)

    def power(self, guest: int, *, on: bool, now_s: float) -> None:
        """The guest starts or stops writing; no change is no error."""
        if on is self.is_running(guest):
            return
        spans = self._spans.setdefault(guest, [(_ALWAYS, _OPEN)])
        if on:
            spans.append((now_s, _OPEN))
            self._enter(guest, now_s)
        else:
            spans[-1] = (spans[-1][0], now_s)
            self._leave(guest, now_s)

    def place(self, guest: int, shares: Shares, now_s: float) -> None:
        """From now on the guest's writes go to these units."""
        if self.is_running(guest):
            self._leave(guest, now_s)
            self.shares[guest] = shares
            self._enter(guest, now_s)
        else:
            self.shares[guest] = shares

    def merged(self, guest: int, size_bytes: float, now_s: float) -> None:
        """A merge of the guest's deltas is complete, having moved so much."""
        self.wrote_to(self.shares[guest], size_bytes, now_s)

    def wrote_to(self, shares: Shares, size_bytes: float, now_s: float) -> None:
        """A merge or copy by the hypervisor is complete on these units."""
        for unit_id, share in shares:
            self._on(unit_id).add_bulk(now_s, size_bytes * share)

    def _enter(self, guest: int, now_s: float) -> None:
        for unit_id, share in self.shares[guest]:
            self._on(unit_id).enter(guest, share, now_s)

    def _leave(self, guest: int, now_s: float) -> None:
        for unit_id, _ in self.shares[guest]:
            self._on(unit_id).leave(guest, now_s)

    def _on(self, unit_id: UnitId) -> _Residents:
        residents = self._residents.get(unit_id)
        if residents is None:
            residents = self._residents[unit_id] = _Residents()
        return residents

    # -- what the hypervisor asks -----------------------------------------------------------

    def delta_bytes(self, guest: int, since_s: float, now_s: float) -> float:
        """Size of a delta of all disks that a VM snapshot holds, open for this span, in bytes."""
        return self.held_share[guest] * self.distinct_bytes(guest, since_s, now_s)

    def distinct_bytes(self, guest: int, since_s: float, now_s: float) -> float:
        """Distinct bytes that the guest wrote to all its disks in the span, in whole grains.

        Never more than the disks hold. Over several spans of power the sum counts grains written
        in two of them twice.
        """
        number = self.profile_of[guest]
        profile = self.profiles[number]
        grain_bytes = self.grain_of[number]
        phase_s = self.phase_s[guest]
        spans = self._spans.get(guest)
        if spans is None:
            total = profile.delta_bytes(phase_s + since_s, now_s - since_s, grain_bytes)
        else:
            total = 0.0
            for start, end in spans:
                begin = max(start, since_s)
                length = min(end, now_s) - begin
                if length > 0.0:
                    total += profile.delta_bytes(phase_s + begin, length, grain_bytes)
        total *= self.scale[guest]
        capacity = self.capacity_bytes[guest]
        return total if total < capacity else capacity

    def dirty_bytes(self, guest: int, now_s: float) -> float:
        """What the guest's memory holds for its disks: the distinct writes of the last while.

        Write-back caches age out (30 s in Linux, vm.dirty_expire_centisecs), so a freeze that
        comes in a burst has more to flush: the distinct bytes of that age, up to the limit.
        """
        rule = self.rule[guest]
        dirty = self.distinct_bytes(guest, now_s - rule.dirty_age, now_s)
        limit = rule.dirty_limit
        return dirty if dirty < limit else float(limit)

    # -- what the arrays ask ----------------------------------------------------------------

    def overwritten_bytes(
        self, unit_id: UnitId, since_s: float, now_s: float, granularity_bytes: int
    ) -> float:
        """See :meth:`.load.OverwriteModel.overwritten_bytes`."""
        residents = self._residents.get(unit_id)
        if residents is None or now_s <= since_s:
            return 0.0
        by_guests = sum(
            stays.overwritten(since_s, now_s, granularity_bytes) for stays in residents.stays(self)
        )
        return by_guests + residents.bulk(since_s, now_s)

    def write_rate_bytes_per_s(self, unit_id: UnitId, start_s: float, end_s: float) -> float:
        """See :meth:`.load.OverwriteModel.write_rate_bytes_per_s`; guests only, no merges."""
        residents = self._residents.get(unit_id)
        if residents is None or end_s <= start_s:
            return 0.0
        written = sum(stays.written(start_s, end_s) for stays in residents.stays(self))
        return written / (end_s - start_s)
