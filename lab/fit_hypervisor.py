"""Fitting the hypervisor: freeze, overlay, thaw, merge and pivot, alone and beside others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..quantity import format_bytes
from .fit_load import Load
from .fit_math import FloatArray, fit_beside, matched, spread_within
from .fit_phases import Create, Removal, Time, creates_of, removals_of
from .fit_record import RunRecord
from .fit_sheet import Sheet, significant

FEWEST_TIMES = 5
"""Fewer times than this say nothing about how a phase varies."""

_UNSEEN_SHARE = 0.02
"""Deltas whose bytes make less of a merge than this are lost in how merges vary."""
_WIDEST = 3.0
"""The largest sigma that a profile can hold."""
_LEAST_SHARE = 0.05
"""What is left of a merge at least when its pivot is taken off."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The median of a phase, what it grows with, and its spread."""

    median_s: float = 0.0
    per_operation: float = 0.0
    per_writer: float = 0.0
    per_disk_s: float = 0.0
    per_byte_s: float = 0.0
    sigma: float = 0.0
    count: int = 0

    def at(self, time: Time) -> float:
        """The median for so many disks and bytes, beside others."""
        alone_s = self.median_s + self.per_byte_s * time.size_bytes
        alone_s += self.per_disk_s * max(0, time.disks - 1)
        return alone_s * self.slower(time)

    def slower(self, time: Time) -> float:
        """How many times its time alone it takes beside what there was."""
        return (1.0 + self.per_operation * time.others) * (1.0 + self.per_writer * time.writers)

    def changed(self, scale: float, stretch: float) -> Phase:
        """All times scaled, the spread stretched."""
        return replace(
            self,
            median_s=self.median_s * scale,
            per_disk_s=self.per_disk_s * scale,
            per_byte_s=self.per_byte_s * scale,
            sigma=min(_WIDEST, self.sigma * stretch),
        )


NOTHING = Phase()


def hypervisor_numbers(runs: Sequence[RunRecord], load: Load, sheet: Sheet) -> dict[str, Any]:
    """What the runs say about the hypervisor, as overrides of a profile; noted on the sheet.

    Raises
    ------
    InputError
        Too few quiesce windows or merges were measured.
    """
    creates, removals = creates_of(runs, load), removals_of(runs, load)
    for what, found in (("quiesce windows", len(creates)), ("merges", len(removals))):
        if found < FEWEST_TIMES:
            advice = f"at least {FEWEST_TIMES} are needed"
            raise InputError("runs", "", f"they hold {found} measured {what}", advice)
    made, phases = _create_numbers(creates, sheet)
    merged, more = _removal_numbers(removals, sheet)
    phases.update(more)
    under_load: dict[str, Any] = {}
    if load.known:
        under_load["full_write_rate"] = full = significant(load.full_bytes_per_s)
        name = "under_load.full_write_rate"
        sheet.add(name, f"{format_bytes(full)}/s", len(removals), "merges")
    for by in ("per_operation", "per_writer"):
        under_load[by] = {
            name: sheet.factor(f"under_load.{by}.{name}", getattr(phase, by), phase.count, what)
            for name, (phase, what) in phases.items()
        }
    sheet.known("under_load", "fitted; each number's source stands under its own name")
    if load.base_bytes:
        sheet.add("delta_base", format_bytes(load.base_bytes), len(removals), "merges")
        merged["delta_base"] = load.base_bytes
    if not load.known:
        sheet.notes.append(
            "The runs do not tell how their guests wrote, or all wrote alike: what writing guests "
            "cost is not fitted."
        )
    return {**made, **merged, "under_load": under_load}


def phase_of(times: Sequence[Time | None], *, sized: bool = False) -> Phase:
    """The phase that explains these times best; nothing where too few were seen.

    ``sized`` lets it grow with the bytes as well.
    """
    seen = [time for time in times if time is not None and time.seconds > 0.0]
    if len(seen) < FEWEST_TIMES:
        return NOTHING
    single = [time for time in seen if time.disks <= 1] or seen
    columns = [np.ones(len(single))]
    if sized:
        columns.append(np.array([time.size_bytes for time in single]))
    fitted, (operation, writer) = fit_beside(
        np.column_stack(columns), _beside(single), _seconds(single)
    )
    phase = Phase(
        median_s=float(fitted.weights[0]),
        per_operation=float(operation),
        per_writer=float(writer),
        per_byte_s=float(fitted.weights[1]) if sized else 0.0,
        count=len(seen),
    )
    wide = [time for time in seen if time.disks > 1]
    if wide and len(single) < len(seen):
        alone = [replace(time, seconds=time.seconds / phase.slower(time)) for time in wide]
        extra = [
            (time.seconds - phase.median_s - phase.per_byte_s * time.size_bytes) / (time.disks - 1)
            for time in alone
        ]
        phase = replace(phase, per_disk_s=max(0.0, float(np.median(extra))))
    logs = np.log([time.seconds / phase.at(time) for time in seen])
    return replace(phase, sigma=min(_WIDEST, spread_within(logs, _beside(seen))))


def _beside(times: Sequence[Time]) -> FloatArray:
    return np.array([(float(time.others), time.writers) for time in times])


def _seconds(times: Sequence[Time]) -> FloatArray:
    return np.array([time.seconds for time in times])


_Phases = dict[str, tuple[Phase, str]]
"""By the name under which ``under_load`` knows it: a phase, and what it was seen in."""


def _create_numbers(creates: Sequence[Create], sheet: Sheet) -> tuple[dict[str, Any], _Phases]:
    start = phase_of([create.task for create in creates])
    freeze = phase_of([create.freeze for create in creates])
    overlay = phase_of([create.overlay for create in creates])
    thaw = phase_of([create.thaw for create in creates])
    whole = [create for create in creates if not overlay.count or create.overlay is not None]
    if not overlay.count:
        sheet.notes.append("The driver saw no overlay apart from the freeze: it is part of it.")
    sums = [
        (
            freeze.at(one.freeze),
            overlay.at(one.overlay or one.freeze),
            thaw.at(one.thaw or one.freeze),
        )
        for one in whole
    ]
    windows = np.array([one.window_s for one in whole])
    beside = _beside([one.freeze for one in whole])
    freeze, overlay, thaw = _as_measured((freeze, overlay, thaw), np.array(sums), windows, beside)
    note = _Notes(sheet, len(creates), "creates")
    sheet.known("task_latency", "none of its own: part of create_start and merge_start")
    numbers = {
        "task_latency": 0.0,
        **note.phase("create_start", "task_latency_sigma", start),
        **note.phase("linux_freeze", "freeze_sigma", freeze),
        **note.phase("stun_create", "stun_create_sigma", overlay),
        **note.phase("thaw_call", "thaw_sigma", thaw),
        **note.per_disk("stun_create_per_disk", overlay),
    }
    phases = {"freeze": freeze, "stun_create": overlay, "thaw": thaw}
    return numbers, {name: (phase, "creates") for name, phase in phases.items() if phase.count}


def _removal_numbers(removals: Sequence[Removal], sheet: Sheet) -> tuple[dict[str, Any], _Phases]:
    pivot = phase_of([removal.pivot for removal in removals])
    if not pivot.count:
        sheet.notes.append("The driver saw no pivot apart from the merge: it is part of it.")
    move = _move([_rest(removal, pivot) for removal in removals], sheet)
    sums = [(move.at(one.whole), pivot.at(one.pivot or one.whole)) for one in removals]
    wholes = np.array([removal.whole.seconds for removal in removals])
    beside = _beside([one.whole for one in removals])
    move, pivot = _as_measured((move, pivot), np.array(sums), wholes, beside)
    note = _Notes(sheet, len(removals), "merges")
    numbers = {
        **note.phase("merge_start", "merge_sigma", move),
        **note.phase("stun_remove", "stun_remove_sigma", pivot),
        **note.per_disk("stun_remove_per_disk", pivot),
    }
    if move.per_byte_s:
        rate = significant(1.0 / move.per_byte_s)
        sheet.add("merge_rate", f"{format_bytes(rate)}/s", len(removals), "merges")
        numbers["merge_rate"] = rate
    phases = {"merge": move, "stun_remove": pivot}
    return numbers, {name: (phase, "merges") for name, phase in phases.items() if phase.count}


def _rest(removal: Removal, pivot: Phase) -> Time:
    """A merge without its pivot: preparing and moving."""
    whole = removal.whole
    pivot_s = pivot.at(whole) if removal.pivot is None else removal.pivot.seconds
    return replace(whole, seconds=max(whole.seconds - pivot_s, _LEAST_SHARE * whole.seconds))


def _move(rests: Sequence[Time], sheet: Sheet) -> Phase:
    """Preparing and moving, with a rate if the sizes of the deltas tell one."""
    sizes = np.array([time.size_bytes for time in rests])
    if np.ptp(sizes):
        move = phase_of(rests, sized=True)
        if move.per_byte_s * float(np.ptp(sizes)) >= _UNSEEN_SHARE * move.at(rests[0]):
            return move
    sheet.notes.append(
        f"Deltas of {format_bytes(float(sizes.min()))} to {format_bytes(float(sizes.max()))} took "
        "the same time to merge: merge_rate is not fitted."
    )
    return phase_of(rests)


def _as_measured(
    phases: Sequence[Phase], parts: FloatArray, wholes: FloatArray, beside: FloatArray
) -> tuple[Phase, ...]:
    """Phases whose sum has the median and the spread of what was measured as a whole."""
    sums = parts.sum(axis=1)
    sigmas = np.array([phase.sigma for phase in phases])
    scale, stretch = matched(parts / sums[:, None], sigmas, np.log(wholes / sums), beside)
    return tuple(phase.changed(scale, stretch) for phase in phases)


@dataclass(frozen=True, slots=True)
class _Notes:
    """Notes numbers of one kind of operation, and gives them as a profile's overrides."""

    sheet: Sheet
    count: int
    what: str

    def phase(self, median: str, sigma: str, phase: Phase) -> dict[str, float]:
        """Median and spread."""
        median_s = self.sheet.seconds(median, phase.median_s, self.count, self.what, phase.sigma)
        return {median: median_s, sigma: self._factor(sigma, phase.sigma)}

    def per_disk(self, number: str, phase: Phase) -> dict[str, float]:
        """What every disk after the first adds, if any VM had more than one."""
        if not phase.per_disk_s:
            return {}
        return {number: self.sheet.seconds(number, phase.per_disk_s, self.count, self.what)}

    def _factor(self, number: str, value: float) -> float:
        return self.sheet.factor(number, value, self.count, self.what)
