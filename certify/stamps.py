"""Writes that say who they are: sequences that depend on each other, and what images hold of them.

A chain writes 1, 2, 3, … to several units in turn, each write begun when the one before has been
acknowledged. An image of the units at one point in time therefore holds a beginning of the sequence
and nothing after it, but for the one write that was under way: that one may be there, or not, or in
part. Each unit has several slots that are written in turn, so that a write that was lost shows for
as long as the next that goes to the same slot is not held.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

SECTOR_BYTES = 512
"""What a disk writes wholly or not at all; a write under way may be cut between two of them."""
_CELL = struct.Struct("<QQQQ")
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the writes of one chain go.

    Attributes
    ----------
    key:
        Tells the chain's stamps from whatever else may lie on the units.
    order:
        The units by number, in the order in which they are written, again and again.
    begins_bytes:
        Where its slots begin, on every unit.
    write_bytes:
        The length of a write, in whole blocks.
    slots:
        How many of them each unit has.
    """

    key: int
    order: tuple[int, ...]
    begins_bytes: int
    write_bytes: int
    slots: int

    @property
    def length_bytes(self) -> int:
        """What its slots take of each unit."""
        return self.slots * self.write_bytes

    def place(self, number: int) -> tuple[int, int]:
        """The unit and the slot that a write goes to; writes are numbered from 1."""
        turn, position = divmod(number - 1, len(self.order))
        return self.order[position], turn % self.slots

    def offset_bytes(self, slot: int) -> int:
        """Where a slot lies on its unit."""
        return self.begins_bytes + slot * self.write_bytes

    def stamp(self, number: int) -> bytes:
        """What the write of this number writes; number 0 stands for what was there before."""
        return self._cell(number) * (self.write_bytes // _CELL.size)

    def _cell(self, number: int) -> bytes:
        return _CELL.pack(self.key, number, self.key ^ _MASK, number ^ _MASK)

    def last(self, upto: int, unit: int, slot: int) -> int:
        """The last write that goes to a slot, of those up to this number; 0 if there is none."""
        units = len(self.order)
        turn = (upto - 1 - self.order.index(unit)) // units if upto > 0 else -1
        if turn < 0:
            return 0
        turn -= (turn - slot) % self.slots
        return turn * units + self.order.index(unit) + 1 if turn >= 0 else 0

    def after(self, number: int, units: Sequence[int]) -> int:
        """The first write after this number that goes to one of these units."""
        following = number + 1
        while self.place(following)[0] not in units:
            following += 1
        return following

    def numbers(self, first: int, end: int, units: Sequence[int]) -> Iterator[int]:
        """The writes from ``first`` to before ``end`` that go to these units."""
        return (n for n in range(max(first, 1), end) if self.place(n)[0] in units)

    def decode(self, held: bytes) -> Held | None:
        """What a slot holds; None if that is not what one or two of the chain's writes leave."""
        key, number, *_ = _CELL.unpack_from(held)
        if key == self.key and held == self.stamp(number):
            return Held(number, number)
        found = set()
        for start in range(0, len(held), SECTOR_BYTES):
            sector = held[start : start + SECTOR_BYTES]
            key, number, *_ = _CELL.unpack_from(sector)
            if sector != self._cell(number) * (SECTOR_BYTES // _CELL.size) or key != self.key:
                return None
            found.add(number)
        return Held(min(found), max(found)) if len(found) == 2 else None


@dataclass(frozen=True, slots=True)
class Held:
    """What a slot holds: one write, or sectors of two of them."""

    low: int
    high: int


Slots = Mapping[tuple[int, int], Held | None]
"""What an image holds of a chain, by unit and slot."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What images of some units hold of a chain.

    Attributes
    ----------
    upto:
        The last write that they hold whole.
    following:
        The first write to these units after that.
    partly:
        Whether they hold sectors of that following write.
    missing:
        Writes up to ``upto`` that they lack, in order: the images are torn.
    strange:
        A unit and a slot that hold what no write of the chain leaves there.
    """

    upto: int
    following: int
    partly: bool = False
    missing: tuple[int, ...] = ()
    strange: tuple[int, int] | None = None

    @property
    def whole(self) -> bool:
        """Whether that is a beginning of the sequence, and nothing after it."""
        return not self.missing and self.strange is None


def shown(plan: Plan, units: Sequence[int], slots: Slots) -> Shown:
    """What images of these units hold of a chain.

    Parameters
    ----------
    slots:
        All slots of these units.
    """
    upto = max((held.low for held in slots.values() if held is not None), default=0)
    following = plan.after(upto, units)
    partly = False
    missing: list[int] = []
    strange = None
    for (unit, slot), held in slots.items():
        if held is None or (held.low and plan.place(held.low) != (unit, slot)):
            strange = strange or (unit, slot)
            continue
        missing += _missing(plan, (unit, slot), held.low, upto)
        if held.high > upto:
            partly = True
            if held.high != following:
                missing.append(following)
            elif plan.place(following) != (unit, slot):
                strange = strange or (unit, slot)
    return Shown(upto, following, partly, tuple(sorted(set(missing))), strange)


def _missing(plan: Plan, place: tuple[int, int], low: int, upto: int) -> list[int]:
    """The writes that a slot lacks, but for those that another one has overwritten since."""
    last = plan.last(upto, *place)
    if low >= last:
        return []
    period = len(plan.order) * plan.slots
    return [last - period * back for back in range((last - low - 1) // period, -1, -1)]
