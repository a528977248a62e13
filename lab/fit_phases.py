"""Taking a live run apart: each VM's phases, and what else was under way during each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .fit_load import Load
from .fit_record import RunRecord, VmRecord

Span = tuple[float, float]

_BEGINNING = 0.1
"""Share of a phase in which others that begin still count as being there from the start: what is
begun at once begins one after the other by the milliseconds that each call takes to be sent."""


@dataclass(frozen=True, slots=True)
class Time:
    """How long something took, for how many disks and bytes, beside what.

    ``others`` counts other operations under way, ``writers`` the guests that write, each as a share
    of one that writes all the time.
    """

    seconds: float
    others: int
    disks: int = 1
    size_bytes: float = 0.0
    writers: float = 0.0


@dataclass(frozen=True, slots=True)
class Create:
    """The phases of one create; ``overlay`` and ``thaw`` are None where the driver saw no seam."""

    task: Time | None
    freeze: Time
    overlay: Time | None
    thaw: Time | None
    window_s: float


@dataclass(frozen=True, slots=True)
class Removal:
    """One merge as a whole, its pivot included where the driver saw that."""

    whole: Time
    pivot: Time | None


def creates_of(runs: Sequence[RunRecord], load: Load) -> list[Create]:
    """Every create of which the driver saw when the guest froze and thawed."""
    found = []
    for run in runs:
        spans, writers = _operations(run), load.writers(run)
        for place, vm in enumerate(run.vms):
            if vm.quiesce_start_s is not None and vm.quiesce_s:
                found.append(_create(vm, _without(spans, place), writers))
    return found


def removals_of(runs: Sequence[RunRecord], load: Load) -> list[Removal]:
    """Every merge that was completed."""
    found = []
    for run in runs:
        spans, writers = _operations(run), load.writers(run)
        for place, vm in enumerate(run.vms):
            if vm.merge_s:
                found.append(_removal(vm, _without(spans, place), writers))
    return found


def _create(vm: VmRecord, others: Sequence[Span], writers: float) -> Create:
    start_s, window_s = vm.quiesce_start_s, vm.quiesce_s
    assert start_s is not None  # noqa: S101  creates_of() has looked
    assert window_s is not None  # noqa: S101
    end_s = start_s + window_s

    def time(seconds: float, during: Span) -> Time:
        return Time(seconds, _most(others, during), vm.disks, writers=writers)

    task = None
    if vm.requested_s is not None and start_s > vm.requested_s:
        task = time(start_s - vm.requested_s, (vm.requested_s, start_s))
    cut_s, cut = vm.stun_create_start_s, vm.stun_create_s
    if cut_s is None or cut is None or not start_s < cut_s <= cut_s + cut <= end_s:
        return Create(task, time(window_s, (start_s, end_s)), None, None, window_s)
    then = (cut_s, cut_s)
    freeze = time(cut_s - start_s, (start_s, cut_s))
    return Create(task, freeze, time(cut, then), time(end_s - cut_s - cut, then), window_s)


def _removal(vm: VmRecord, others: Sequence[Span], writers: float) -> Removal:
    begin_s, merge_s = vm.removal_s, vm.merge_s
    assert begin_s is not None  # noqa: S101  removals_of() has looked
    assert merge_s is not None  # noqa: S101
    during = (begin_s, begin_s + merge_s)
    size_bytes = float(vm.delta_bytes or 0)
    whole = Time(merge_s, _most(others, during), vm.disks, size_bytes, writers)
    start_s, pivot_s = vm.stun_remove_start_s, vm.stun_remove_s
    if start_s is None or pivot_s is None or not pivot_s < merge_s:
        return Removal(whole, None)
    beside = _most(others, (start_s, start_s))
    return Removal(whole, Time(pivot_s, beside, vm.disks, writers=writers))


def _operations(run: RunRecord) -> list[list[Span]]:
    """Per VM the spans in which a create or a merge of it was under way."""
    found: list[list[Span]] = []
    for vm in run.vms:
        spans = []
        ends = [vm.opened_s]
        if vm.quiesce_start_s is not None and vm.quiesce_s is not None:
            ends.append(vm.quiesce_start_s + vm.quiesce_s)
        known = [end for end in ends if end is not None]
        if vm.requested_s is not None and known:
            spans.append((vm.requested_s, max(known)))
        if vm.removal_s is not None and vm.merged_s is not None:
            spans.append((vm.removal_s, vm.merged_s))
        found.append(spans)
    return found


def _without(spans: Sequence[Sequence[Span]], place: int) -> list[Span]:
    return [span for number, of in enumerate(spans) if number != place for span in of]


def _most(spans: Iterable[Span], during: Span) -> int:
    """The most of these spans that hold at one instant of the beginning of another span."""
    start_s = during[0]
    end_s = start_s + _BEGINNING * (during[1] - start_s)
    touching = [span for span in spans if span[0] <= end_s and span[1] > start_s]
    instants = [start_s, *(span[0] for span in touching if span[0] > start_s)]
    return max(sum(span[0] <= now_s < span[1] for span in touching) for now_s in instants)
