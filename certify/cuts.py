"""Group snapshots that are made while units are written, and whether they show one point in time.

Two things are asked of the images of a snapshot. Of each chain of writes they hold a beginning of
the sequence (see :mod:`.stamps`). And over all chains: a write that had been acknowledged before
another one was begun is held if the other one is. The latter is the definition of an atomic
snapshot in Herlihy and Wing's linearizability (ACM TOPLAS 12 (3), 1990): there is an instant, the
same for all units, such that the images hold all that was acknowledged before it and nothing that
was begun after it. :class:`Moment` is what is known of this instant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..drivers.contracts import ArrayDriver, GroupSnapshot, GroupSnapshotRef
from ..drivers.errors import BusyError, DriverError
from .array_bench import ArrayBench, BenchUnit
from .requirement import Blocked, NotTested, Violation
from .stamps import Held, Shown, shown
from .writers import Chain, Mark, Writers

_TOLD = 12
"""Writes of a torn sequence that are told on each side of the first that is missing."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A group snapshot, and how far the writers were before the call and after its return.

    Attributes
    ----------
    units:
        By their place among the writers' units, in the order of the request.
    """

    units: tuple[int, ...]
    made: GroupSnapshot
    before: Mark
    after: Mark


Image = Sequence[Mapping[tuple[int, int], Held | None]]
"""What was read: for each chain, what each unit and slot holds."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What images show: one instant, between the two times, on the loop's clock.

    ``not_before_s`` is when the last write began that they hold; ``not_after_s`` when the first was
    acknowledged that they lack.
    """

    chains: tuple[Shown, ...]
    not_before_s: float
    not_after_s: float


def must_read(bench: ArrayBench) -> None:
    """Only images that can be read show anything.

    Raises
    ------
    NotTested
        The driver can neither read snapshots back nor clone them.
    """
    if not (bench.capabilities.reads_back or bench.capabilities.clones):
        raise NotTested("the driver can neither read a snapshot back nor clone it")


async def try_take(
    bench: ArrayBench, writers: Writers, units: Sequence[int], driver: ArrayDriver | None = None
) -> Cut | None:
    """A group snapshot of these units, by their place among the writers' units; None if busy.

    Parameters
    ----------
    driver:
        Another connection than the bench's.

    Raises
    ------
    Blocked
        It fails otherwise.
    """
    chosen = [writers.units[unit] for unit in units]
    before = writers.mark()
    try:
        made = await (driver or bench.driver).snapshot_group(bench.request(*chosen))
    except BusyError:
        return None
    except DriverError as error:
        raise Blocked(f"a group snapshot failed: {error}") from error
    after = writers.mark()
    if {unit.id for unit in chosen} - set(made.unit_ids):
        raise Blocked("a group snapshot lacks units")
    return Cut(tuple(units), made, before, after)


async def take(bench: ArrayBench, writers: Writers, units: Sequence[int]) -> Cut:
    """A group snapshot of these units, when nothing else is asked. Raises Blocked if it fails."""
    cut = await try_take(bench, writers, units)
    if cut is None:
        raise Blocked("the array says that it is busy while nothing else is asked of it")
    return cut


async def read_image(
    bench: ArrayBench,
    writers: Writers,
    ref: GroupSnapshotRef,
    units: Sequence[int],
    *,
    through_clones: bool = False,
) -> Image:
    """What a snapshot holds of these units' slots.

    Parameters
    ----------
    through_clones:
        Read clones that are made of it, even where the driver could read it back.

    Raises
    ------
    Blocked
        It cannot be read.
    """

    async def read_clone(unit: BenchUnit) -> bytes:
        clone = await bench.clone(ref, unit, "image")
        start = unit.scratch.begins_bytes
        data = await bench.target.read_clone(clone, start, writers.load.length_bytes)
        await bench.setup(bench.readable.discard(clone.id), "discarding a clone")
        return data

    async def read_back(unit: BenchUnit) -> bytes:
        return await bench.held(ref, unit, 0, writers.load.length_bytes)

    found: list[dict[tuple[int, int], Held | None]] = [{} for _ in writers.chains]
    read = read_clone if through_clones or not bench.capabilities.reads_back else read_back
    for unit in units:
        data = await read(writers.units[unit])
        bench.compared_bytes += len(data)
        for chain, slots in zip(writers.chains, found, strict=True):
            plan = chain.plan
            for slot in range(plan.slots):
                start = plan.offset_bytes(slot)
                slots[unit, slot] = plan.decode(data[start : start + plan.write_bytes])
    return found


def moment_of(writers: Writers, units: Sequence[int], image: Image, zero_s: float = 0.0) -> Moment:
    """The one point in time that images show.

    Parameters
    ----------
    zero_s:
        What times in the evidence count from, on the loop's clock.

    Raises
    ------
    Violation
        There is none: the images are torn. The evidence is the sequence of writes.
    """
    chains = [
        shown(chain.plan, units, slots) for chain, slots in zip(writers.chains, image, strict=True)
    ]
    for number, (chain, seen) in enumerate(zip(writers.chains, chains, strict=True)):
        if seen.strange is not None:
            unit, slot = seen.strange
            raise Violation(
                "an image holds what no write left there",
                unit=unit,
                offset_bytes=chain.plan.offset_bytes(slot),
            )
        if seen.missing:
            first = seen.missing[0]
            raise Violation(
                "the images are torn: they hold a write and lack an earlier one, "
                "which had been acknowledged before the other was begun",
                chain=number,
                missing=first,
                held=_held_after(chain, units, image[number], first),
                sequence=_sequence(chain, units, image[number], first, zero_s),
            )
    return _instant(writers, chains, zero_s)


def _instant(writers: Writers, chains: Sequence[Shown], zero_s: float) -> Moment:
    """Whether what the chains show fits together."""
    pairs = list(zip(writers.chains, chains, strict=True))
    begun = [(chain.issued(_last(seen)) if _last(seen) else float("-inf")) for chain, seen in pairs]
    ended = [chain.acknowledged(seen.following) for chain, seen in pairs]
    late, early = max(begun), min(ended)
    if late > early:
        there, lacks = begun.index(late), ended.index(early)
        raise Violation(
            "the images are torn: they hold a write, and lack another one that had been "
            "acknowledged before the first was begun",
            held={"chain": there, "write": _last(chains[there]), "issued_s": late - zero_s},
            missing={
                "chain": lacks,
                "write": chains[lacks].following,
                "acknowledged_s": early - zero_s,
            },
            units={
                "held": pairs[there][0].plan.place(_last(chains[there]))[0],
                "missing": pairs[lacks][0].plan.place(chains[lacks].following)[0],
            },
        )
    return Moment(tuple(chains), late, early)


def _last(seen: Shown) -> int:
    """The last write of which the images hold anything."""
    return seen.following if seen.partly else seen.upto


def _held_after(
    chain: Chain, units: Sequence[int], slots: Mapping[tuple[int, int], Held | None], first: int
) -> int:
    """The first write after a missing one that the images hold."""
    highest = max(held.low for held in slots.values() if held is not None)
    numbers = chain.plan.numbers(first + 1, highest + 1, units)
    return next((n for n in numbers if _holds(chain, slots, n)), highest)


def _holds(chain: Chain, slots: Mapping[tuple[int, int], Held | None], number: int) -> bool:
    """Whether a write is there, or has been overwritten since by one that is."""
    held = slots[chain.plan.place(number)]
    return held is not None and held.low >= number


def _sequence(
    chain: Chain,
    units: Sequence[int],
    slots: Mapping[tuple[int, int], Held | None],
    first: int,
    zero_s: float,
) -> list[dict[str, Any]]:
    """The torn sequence, as it goes into the certificate."""
    told = []
    for number in chain.plan.numbers(first - _TOLD, first + 2 * _TOLD, units):
        if chain.issued(number) == float("inf"):
            break
        acknowledged_s = chain.acknowledged(number)
        told.append(
            {
                "write": number,
                "unit": chain.plan.place(number)[0],
                "issued_s": round(chain.issued(number) - zero_s, 6),
                "acknowledged_s": (
                    None if acknowledged_s == float("inf") else round(acknowledged_s - zero_s, 6)
                ),
                "in_image": _holds(chain, slots, number),
            }
        )
    return told


async def moment(bench: ArrayBench, writers: Writers, cut: Cut) -> Moment:
    """Read a group snapshot, and give the point in time that it shows.

    Raises
    ------
    Violation
        It shows none.
    Blocked
        It cannot be read.
    """
    image = await read_image(bench, writers, cut.made.ref, cut.units)
    return moment_of(writers, cut.units, image, cut.before.at_s)
