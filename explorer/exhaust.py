"""Every place at which an orchestrator can die, one after the other, instead of some by chance.

A small scenario takes a few hundred steps of the event loop. The process is killed at each of them
in turn, recovers, and every invariant is checked. Between two steps a process does several things
at once: it writes an intent, makes the call, logs it. So it is killed at each of its events too,
and what it would have done from there to its next step has no effect. Last come pairs: killed at a
step of the job, and at a step of the recovery that follows.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ..errors import StillframeError
from ..orchestrator.events import Row
from ..scenarios.schema import Scenario
from .options import RunOptions
from .report import Violation
from .run import explore_one

Progress = Callable[[int, int], None]
"""Called with how many runs have ended and how many there are."""


LEASE_S = 1.0
DOWNTIME_S = 1.25
"""Recovery begins so long after a death, when the lease has just run out: so early that what the
dead process began is still going on."""


class Place(NamedTuple):
    """Where processes die: at steps of the job and of what follows it, or at an event of the job.

    ``steps`` has one number for each process; ``event`` is ``kind#n``, the n-th event of this kind.
    """

    steps: tuple[int, ...] = ()
    event: str = ""

    def __str__(self) -> str:
        if self.event:
            return f"event {self.event}"
        first, *later = self.steps
        return ", ".join([f"step {first} of the job", *(f"step {at} of recovery" for at in later)])


class Death(NamedTuple):
    """What came of one run.

    ``died`` counts processes that were killed, ``steps`` are those that each process took.
    """

    place: Place
    died: int
    steps: tuple[int, ...]
    violations: tuple[Violation, ...]


Kill = Callable[[Place], Death]
RunAll = Callable[[Kill, Sequence[Place]], Iterable[Death]]
"""Calls a function for every place, perhaps in other processes; results in the places' order."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """What came of killing everywhere.

    Attributes
    ----------
    steps, events:
        Steps and events of the job when nobody kills it; there was a run with a death at each.
    pairs:
        Runs with a second death, during recovery.
    deaths:
        Processes that were killed in all runs together.
    failures:
        The runs after which an invariant was broken.
    """

    scenario: str
    seed: int
    steps: int
    events: int
    pairs: int
    deaths: int
    failures: tuple[Death, ...]

    @property
    def runs(self) -> int:
        """Runs with a death."""
        return self.steps + self.events + self.pairs


def exhaust(
    scenario: Scenario,
    seed: int,
    *,
    options: RunOptions | None = None,
    pairs: int = 0,
    run_all: RunAll = map,
    progress: Progress | None = None,
) -> Exhausted:
    """Kill the job at every step and at every event, recover, check; then during recovery too.

    Parameters
    ----------
    options:
        What else happens; by default nothing, with a short lease and recovery soon after.
    pairs:
        How many runs have a second death, spread over the steps of the job.
    run_all:
        How to run many: ``map``, or that of a pool of processes.

    Raises
    ------
    StillframeError
        An invariant is broken although nobody was killed, or the options name deaths already.
    """
    plain = options if options is not None else RunOptions(lease_s=LEASE_S, downtime_s=DOWNTIME_S)
    if any(plain.crash_steps) or any(plain.barriers):
        raise StillframeError("the options name places to die at already")
    whole = explore_one(scenario, seed, plain, keep_events=True)
    if whole.violations:
        first = whole.violations[0]
        raise StillframeError(
            f"seed {seed} of {scenario.name} breaks {first.invariant} though nobody was killed: "
            f"{first.sentence}"
        )
    steps = [Place((step,)) for step in range(1, whole.steps_by_incarnation[0] + 1)]
    events = _events(whole.rows or ())
    kill = partial(die_at, scenario, seed, plain)
    tally = _Tally(progress, len(steps) + len(events) + pairs)
    at_steps = list(tally.count(run_all(kill, steps)))
    at_events = list(tally.count(run_all(kill, events)))
    twice = _pairs(at_steps, pairs, random.Random(f"{scenario.name}/{seed}/pairs"))
    deaths = [*at_steps, *at_events, *tally.count(run_all(kill, twice))]
    return Exhausted(
        scenario=scenario.name,
        seed=seed,
        steps=len(steps),
        events=len(events),
        pairs=len(twice),
        deaths=sum(death.died for death in deaths),
        failures=tuple(death for death in deaths if death.violations),
    )


def die_at(scenario: Scenario, seed: int, options: RunOptions, place: Place) -> Death:
    """One run in which processes die at this place."""
    update = {"crash_steps": place.steps, "barriers": (place.event,) if place.event else ()}
    found = explore_one(scenario, seed, options.model_copy(update=update))
    return Death(place, found.crashes, found.steps_by_incarnation, found.violations)


def _events(rows: Sequence[Row]) -> list[Place]:
    seen: Counter[str] = Counter()
    places = []
    for row in rows:
        seen[row[1]] += 1
        places.append(Place(event=f"{row[1]}#{seen[row[1]]}"))
    return places


def _pairs(first: Sequence[Death], count: int, draw: random.Random) -> list[Place]:
    """Pairs spread evenly over the job's steps, each with a drawn step of the recovery."""
    followed = [death for death in first if len(death.steps) > 1]
    if not followed:
        return []
    spread = (followed[number * len(followed) // count] for number in range(count))
    return [Place((*one.place.steps, draw.randint(1, one.steps[1]))) for one in spread]


class _Tally:
    """Tells how far a row of runs has come."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def count(self, deaths: Iterable[Death]) -> Iterator[Death]:
        """Pass results on, telling of each."""
        for death in deaths:
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)
            yield death
