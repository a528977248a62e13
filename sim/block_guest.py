"""A guest in block fidelity: its clock, its memory, and how far its writes have come.

Nothing happens write by write. A guest's script says what it writes at which moment of its own
clock, which stands still while the guest does; when something is about to change or somebody looks,
:meth:`BlockGuest.advance` lets everything up to now reach the disks, in order. The result is the
same as with one event per write, and does not depend on who looked when.

* A *durable* write is on the disk when it is written. When its unit is fenced, it waits, and the
  guest with it: an application does not go on before its write is acknowledged.
* A *cached* write is on the disk ``cache_s`` later, unless a freeze or a shutdown flushes it
  before, or a loss of power takes it away. While any unit of the guest is fenced, its memory lets
  go of nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from enum import IntFlag
from typing import NamedTuple

from ..drivers.records import UnitId
from .block_script import WriteScript

Sink = Callable[[Sequence[int], Sequence[int]], None]
"""Takes blocks and stamps of writes that reach the disks, in this order."""


class Stop(IntFlag):
    """Why a guest's clock stands still."""

    NOTHING = 0
    OFF = 1
    FROZEN = 2
    STUNNED = 4
    WAITING = 8
    """For the acknowledgement of a write that a fence holds."""


class Moment(NamedTuple):
    """How far a guest's writes have come.

    Attributes
    ----------
    durable, cached:
        Writes of each kind that are on the disks, or were lost with the memory.
    issued:
        Cached writes that the guest has made.
    """

    durable: int
    cached: int
    issued: int


class _Span(NamedTuple):
    """From ``since_s`` on the guest's clock shows ``guest_s``, and goes on or stands still."""

    since_s: float
    guest_s: float
    ticking: bool


class _Release(NamedTuple):
    """From ``since_s`` on memory has let go of ``cached`` writes at least, of no more if held."""

    since_s: float
    cached: int
    held: bool


class BlockGuest:
    """One guest.

    Parameters
    ----------
    script:
        What it writes.
    cache_s:
        How long its memory keeps a write.
    now_s:
        The world's time; a guest that runs has run for ``cache_s`` already.
    running:
        Whether it runs.
    sink:
        Where its writes go.
    unit_of:
        The unit that takes a write to a block as things are.

    Attributes
    ----------
    seen_s:
        Up to when its writes were followed.
    lost:
        Spans of cached writes that were lost with the memory: first, and first after.
    stop:
        Why it stands still.
    """

    __slots__ = (
        "_cache_s",
        "_cached",
        "_durable",
        "_fences",
        "_newest",
        "_noted",
        "_releases",
        "_sink",
        "_spans",
        "_unit_of",
        "lost",
        "script",
        "seen_s",
        "stop",
    )

    def __init__(
        self,
        script: WriteScript,
        cache_s: float,
        now_s: float,
        sink: Sink,
        unit_of: Callable[[int], UnitId],
        *,
        running: bool,
    ) -> None:
        self.script = script
        self.stop = Stop.NOTHING if running else Stop.OFF
        self.seen_s = now_s
        self.lost: list[tuple[int, int]] = []
        self._cache_s = cache_s
        self._sink = sink
        self._unit_of = unit_of
        self._durable = self._cached = 0
        self._newest: dict[int, int] = {}
        self._noted = (0, 0)
        self._fences: dict[UnitId, int] = {}
        self._spans = [_Span(now_s - cache_s if running else now_s, 0.0, running)]
        self._releases = [_Release(-math.inf, 0, held=False)]

    # -- what happens to it ---------------------------------------------------------------------

    def advance(self, now_s: float) -> None:
        """Let everything that it writes up to now reach the disks."""
        self.seen_s = now_s
        since_s, guest_s, ticking = self._spans[-1]
        if ticking:
            guest_s += now_s - since_s
            if self.script.until_s <= guest_s:
                self.script.reach(guest_s)
            writes, begin = self.script.durable, self._durable
            end = bisect_right(writes.times_s, guest_s, begin)
            if self._fences and end > begin:
                end, guest_s = self._up_to_fence(begin, end, now_s, guest_s)
            if end > begin:
                self._durable = end
                self._sink(writes.blocks[begin:end], writes.stamps[begin:end])
        if not self._releases[-1].held:
            end = bisect_right(self.script.cached.times_s, guest_s - self._cache_s)
            self._let_go(end)

    def _up_to_fence(self, begin: int, end: int, now_s: float, guest_s: float) -> tuple[int, float]:
        """The first write that a fence holds stops the guest at that moment."""
        writes = self.script.durable
        for place in range(begin, end):
            if self._unit_of(writes.blocks[place]) in self._fences:
                # Just before it: it has not been made until it is let through.
                at_s = math.nextafter(writes.times_s[place], -math.inf)
                self.stop |= Stop.WAITING
                self._spans.append(_Span(now_s - (guest_s - at_s), at_s, ticking=False))
                return place, at_s
        return end, guest_s

    def _let_go(self, end: int) -> None:
        begin = self._cached
        if end > begin:
            self._cached = end
            self._sink(*self._cached_between(begin, end))

    def halt(self, why: Stop, now_s: float) -> None:
        """Stop its clock, for one more reason perhaps."""
        self.advance(now_s)
        if why not in self.stop:
            self.stop |= why
            self._note_clock(now_s)

    def go(self, why: Stop, now_s: float) -> None:
        """This reason to stand still is gone."""
        self.advance(now_s)
        if why in self.stop:
            self.stop &= ~why
            self._note_clock(now_s)

    def _note_clock(self, now_s: float) -> None:
        self._spans.append(_Span(now_s, self._clock(now_s), not self.stop))

    def flush(self, now_s: float) -> None:
        """Its memory writes everything out."""
        self.advance(now_s)
        self._let_go(self.moment(now_s).issued)
        self._releases.append(_Release(now_s, self._cached, self._releases[-1].held))

    def lose_memory(self, now_s: float) -> None:
        """What its memory held is gone."""
        self.advance(now_s)
        issued = self.moment(now_s).issued
        if issued > self._cached:
            self.lost.append((self._cached, issued))
            self._cached = issued
            self._releases.append(_Release(now_s, issued, self._releases[-1].held))

    def fence(self, unit_id: UnitId, now_s: float) -> None:
        """Writes to this unit are held from now on."""
        self.advance(now_s)
        self._fences[unit_id] = self._fences.get(unit_id, 0) + 1
        self._releases.append(_Release(now_s, self._cached, held=True))

    def unfence(self, unit_id: UnitId, now_s: float) -> None:
        """They are let through again."""
        self.advance(now_s)
        self._fences[unit_id] -= 1
        if not self._fences[unit_id]:
            del self._fences[unit_id]
        if not self._fences:
            self._releases.append(_Release(now_s, self._cached, held=False))
        # Whether what it waits for is let through now shows as soon as its clock goes on.
        self.go(Stop.WAITING, now_s)

    # -- how far it has come --------------------------------------------------------------------

    def moment(self, now_s: float) -> Moment:
        """How far its writes have come, after :meth:`advance`."""
        issued = bisect_right(self.script.cached.times_s, self._clock(now_s))
        return Moment(self._durable, self._cached, issued)

    def dirty_blocks(self, now_s: float) -> int:
        """Distinct blocks that its memory holds for the disks."""
        self.advance(now_s)
        _, begin, end = self.moment(now_s)
        return len(set(self._cached_between(begin, end)[0]))

    def written(self, since_s: float, until_s: float) -> set[int]:
        """The distinct blocks that reached the disks in ``(since_s, until_s]``, until now."""
        durable, cached = self.script.durable.blocks, self._cached_between
        begin, end = self._reached(since_s), self._reached(until_s)
        blocks = set(durable[begin[0] : end[0]])
        blocks.update(cached(begin[1], end[1])[0])
        return blocks

    def expected(self, durable: int, cached: int) -> dict[int, int]:
        """The newest write of each block among the first so many of each kind."""
        script = self.script
        newest = dict(zip(script.durable.blocks[:durable], script.durable.stamps, strict=False))
        blocks, stamps = self._cached_between(0, cached)
        newest.update(zip(blocks, stamps, strict=True))
        return newest

    def missing(self, live: dict[int, int], now_s: float) -> list[int]:
        """Stamps of writes that had reached the disks and are not what a reader finds there."""
        self.advance(now_s)
        expected = self._expected_now()
        if live == expected:
            return []
        return sorted(stamp for block, stamp in expected.items() if live.get(block, -1) < stamp)

    def _expected_now(self) -> dict[int, int]:
        """:meth:`expected` for what has reached the disks by now; goes on from the last time."""
        durable, cached = self._noted
        writes = self.script.durable
        for blocks, stamps in (
            (writes.blocks[durable : self._durable], writes.stamps[durable : self._durable]),
            self._cached_between(cached, self._cached),
        ):
            self._newest.update(zip(blocks, stamps, strict=True))
        self._noted = (self._durable, self._cached)
        return self._newest

    def _cached_between(self, begin: int, end: int) -> tuple[list[int], list[int]]:
        """Blocks and stamps of cached writes, without those that were lost."""
        writes = self.script.cached
        blocks, stamps = writes.blocks[begin:end], writes.stamps[begin:end]
        for first, after in reversed(self.lost):
            if first < end and after > begin:
                gone = slice(max(0, first - begin), max(0, after - begin))
                del blocks[gone], stamps[gone]
        return blocks, stamps

    def _reached(self, at_s: float) -> tuple[int, int]:
        guest_s = self._clock(at_s)
        durable = bisect_right(self.script.durable.times_s, guest_s)
        release = self._releases[bisect_right(self._releases, at_s, key=_since) - 1]
        if release.held:
            return durable, release.cached
        cached = bisect_right(self.script.cached.times_s, guest_s - self._cache_s)
        return durable, max(release.cached, cached)

    def _clock(self, at_s: float) -> float:
        since_s, guest_s, ticking = self._spans[-1]
        if at_s < since_s:
            place = bisect_right(self._spans, at_s, key=_since) - 1
            since_s, guest_s, ticking = self._spans[max(0, place)]
        return guest_s + max(0.0, at_s - since_s) if ticking else guest_s


def _since(entry: _Span | _Release) -> float:
    return entry.since_s
