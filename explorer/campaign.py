"""Many runs: over scenarios and seeds, in several processes, with one account of it all.

A run depends on scenario, seed and options and on nothing else, so the account is the same however
the seeds are spread; only the order in which progress is heard differs.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..scenarios.schema import Scenario, load_scenario
from ..sim.collecting import few_collections
from ..sim.draws import Draws
from .draw import Fidelity
from .report import RunReport, Violation
from .run import explore_one

T = TypeVar("T")
R = TypeVar("R")

DETERMINISM = "determinism"
TWICE_SHARE = 0.02
"""Runs that are run twice and have to take the same steps."""
CHUNK_SEEDS = 100
"""Seeds in one task of a pool: worth several times the 0.2 s below which handing over costs."""
_MOST_REBUILDS = 3
"""A pool whose worker died is built anew as often as this."""

Progress = Callable[[int, int, int], None]
"""Hears runs done, runs in all, and runs with a violation so far."""


@dataclass(slots=True)
class Failure:
    """What broke one invariant in one scenario: how often, and where it is seen first."""

    invariant: str
    scenario: str
    runs: int
    first_seed: int
    violation: Violation
    trace_hash: str


@dataclass(slots=True)
class Account:
    """What came of a number of runs."""

    runs: int = 0
    failed_runs: int = 0
    twice: int = 0
    crashes: int = 0
    recoveries: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    by_journal: dict[str, int] = field(default_factory=dict)
    by_fidelity: dict[str, int] = field(default_factory=dict)
    fired: dict[str, int] = field(default_factory=dict)
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)

    def add(self, report: RunReport) -> None:
        """Count one run."""
        self.runs += 1
        self.crashes += report.crashes
        self.recoveries += report.recoveries
        self.steps += report.steps
        self.virtual_s += report.virtual_s
        _count(self.by_journal, report.options.journal.value, 1)
        _count(self.by_fidelity, report.options.fidelity, 1)
        for site, fires in report.fired.items():
            _count(self.fired, site, fires)
        self.failed_runs += report.failed
        for violation in report.violations:
            self._fail(report, violation)

    def _fail(self, report: RunReport, violation: Violation) -> None:
        key = (violation.invariant, report.scenario)
        failure = self.failures.get(key)
        if failure is None:
            self.failures[key] = Failure(*key, 1, report.seed, violation, report.trace_hash)
        elif failure.first_seed != report.seed:
            failure.runs += 1

    def join(self, other: Account) -> None:
        """Count the runs of another account, whose seeds come after those counted so far."""
        for name in ("runs", "failed_runs", "twice", "crashes", "recoveries", "steps", "virtual_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in (
            (self.by_journal, other.by_journal),
            (self.by_fidelity, other.by_fidelity),
            (self.fired, other.fired),
        ):
            for key, count in theirs.items():
                _count(mine, key, count)
        for place, failure in other.failures.items():
            known = self.failures.get(place)
            if known is None:
                self.failures[place] = failure
            else:
                known.runs += failure.runs

    @property
    def failed(self) -> bool:
        """Whether any invariant was broken."""
        return bool(self.failures)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Seeds for one worker; a scenario by name or path, which it reads itself."""

    scenario: str
    first: int
    count: int
    fidelity: Fidelity
    twice_share: float


def explore(
    scenarios: Sequence[str | Path],
    seeds: range,
    *,
    jobs: int = 1,
    fidelity: Fidelity = "both",
    twice_share: float = TWICE_SHARE,
    fail_fast: bool = False,
    on_progress: Progress = lambda _done, _all, _failed: None,
) -> Account:
    """Run every seed of every scenario.

    Parameters
    ----------
    scenarios:
        Shipped names or files; loaded in each worker.
    seeds:
        Consecutive seeds.
    jobs:
        Processes; with 1 everything runs in this one.
    twice_share:
        Share of the runs that are repeated and compared by their trace hash.
    fail_fast:
        Begin nothing new once a violation is known; the account is then of what was done.

    Raises
    ------
    InputError
        A scenario cannot be used.
    """
    for scenario in scenarios:
        loaded(str(scenario))
    chunks = [
        _Chunk(str(scenario), first, min(CHUNK_SEEDS, seeds.stop - first), fidelity, twice_share)
        for scenario in scenarios
        for first in range(seeds.start, seeds.stop, CHUNK_SEEDS)
    ]
    account = Account()
    total = len(scenarios) * len(seeds)
    for part in map_runs(_explore_chunk, chunks, jobs):
        account.join(part)
        on_progress(account.runs, total, account.failed_runs)
        if fail_fast and account.failed:
            break
    return account


def _explore_chunk(chunk: _Chunk) -> Account:
    with few_collections():
        return _explored(chunk)


def _explored(chunk: _Chunk) -> Account:
    scenario = loaded(chunk.scenario)
    account = Account()
    for seed in range(chunk.first, chunk.first + chunk.count):
        report = explore_one(scenario, seed, fidelity=chunk.fidelity)
        account.add(report)
        if _is_repeated(scenario.name, seed, chunk.twice_share):
            account.twice += 1
            again = explore_one(scenario, seed, report.options)
            if again.trace_hash != report.trace_hash:
                sentence = f"run twice: {report.trace_hash}, then {again.trace_hash}"
                violation = Violation(DETERMINISM, sentence)
                account._fail(report, violation)
                account.failed_runs += not report.failed
    return account


def _is_repeated(scenario: str, seed: int, share: float) -> bool:
    return share > 0.0 and Draws(f"twice {scenario}").three(seed)[0] < share


_loaded: dict[str, Scenario] = {}


def loaded(scenario: str) -> Scenario:
    """A scenario by name or path; read once per process.

    Raises
    ------
    InputError
        It cannot be used.
    """
    found = _loaded.get(scenario)
    if found is None:
        found = _loaded[scenario] = load_scenario(scenario)
    return found


def map_runs(function: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """``function`` of each item, in the order of the items, in several processes.

    Parameters
    ----------
    function:
        Picklable, and without memory of earlier items. An item should be worth 0.2 s or more.
    jobs:
        Processes; with 1 it runs here.

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        Workers die again and again.
    """
    if jobs <= 1:
        yield from map(function, items)
        return
    yield from _Pool(function, list(items), jobs).results()


class _Pool:
    """A process pool that is built anew when a worker dies; nothing is run twice that came back."""

    def __init__(self, function: Callable[[Any], Any], items: list[Any], jobs: int) -> None:
        self._function = function
        self._items = items
        self._jobs = min(jobs, max(1, len(items)))
        self._done: dict[int, Any] = {}
        self._begun = 0
        self._given = 0

    def results(self) -> Iterator[Any]:
        for attempt in range(_MOST_REBUILDS + 1):
            self._begun = self._given
            try:
                yield from self._through_one_pool()
                return
            except BrokenProcessPool:
                if attempt == _MOST_REBUILDS:
                    raise

    def _through_one_pool(self) -> Iterator[Any]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        pool = ProcessPoolExecutor(self._jobs, mp_context=context)
        pending: dict[Future[Any], int] = {}
        try:
            while self._given < len(self._items):
                self._feed(pool, pending)
                if self._given in self._done:
                    result = self._done.pop(self._given)
                    self._given += 1
                    yield result
                    continue
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    self._done[pending.pop(future)] = future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _feed(self, pool: ProcessPoolExecutor, pending: dict[Future[Any], int]) -> None:
        # A little more than there are workers, so that none waits; not all, so that one can stop.
        while len(pending) < 2 * self._jobs and self._begun < len(self._items):
            number = self._begun
            self._begun += 1
            if number not in self._done:
                pending[pool.submit(self._function, self._items[number])] = number


def _count(counts: dict[str, int], key: str, by: int) -> None:
    counts[key] = counts.get(key, 0) + by
