"""The fixture that explores: one's own strategy and policies under faults, crashes and recovery."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, StillframeError
from .explorer.contrast import contrast
from .explorer.draw import draw_options
from .explorer.evidence import Evidence
from .explorer.options import RunOptions
from .explorer.replayfile import write_replay
from .explorer.report import RunReport, Violation
from .explorer.run import explore_one
from .explorer.shrink import shrink
from .orchestrator.spec import JobSpec
from .orchestrator.strategies import Strategy
from .pytest_worlds import Where, make_scenario
from .scenarios.schema import Scenario
from .sim.config import WorldConfig
from .topology.yamlfile import validate

if TYPE_CHECKING:
    from .orchestrator.retention import RetentionPolicy

Check = Callable[[Evidence], Iterable[str]]
"""An invariant of one's own: says in a sentence each what does not hold; nothing when all does."""

SEEDS = 100
"""Seeds of :meth:`Lab.explore` when neither the test nor the command line says how many."""

_SHOWN = 10
"""Violations that a message shows."""

_OF_THE_JOB = (
    "strategy",
    "chunk_vms",
    "policy",
    "quiesce_timeout_s",
    "overrides",
    "limits",
    "timeouts",
    "attempts",
    "first_pause_s",
    "on_vm_failure",
    "recuts",
    "physical_raw_disks",
    "independent_disks",
)


class FailedRunError(AssertionError):
    """An invariant was broken, or a run could not be made; the message says how to see it again."""


@dataclass(frozen=True, slots=True)
class Explored:
    """What came of many seeds, all of them without a broken invariant.

    ``fired`` counts the faults that happened, by site.
    """

    runs: int
    crashes: int
    recoveries: int
    fired: dict[str, int]


@dataclass(frozen=True, slots=True)
class LabMaker:
    """Called by a test: puts a scenario, and what is one's own, into a lab.

    Attributes
    ----------
    seed:
        The test's seed, which :meth:`Lab.run` takes.
    only_seed, count:
        What the command line says: one seed only, or how many.
    again:
        Notes a failing seed, and gives the command line that runs the test with it.
    folder:
        Where replay files go; None for nowhere.
    shrinks:
        Whether a failing run is made small.
    """

    seed: int
    only_seed: int | None
    count: int | None
    again: Callable[[int], str]
    folder: Path | None
    shrinks: bool

    def __call__(
        self,
        where: Where,
        *,
        strategy: Strategy | None = None,
        retention: RetentionPolicy | None = None,
        spec: JobSpec | Mapping[str, Any] | None = None,
        world: WorldConfig | Mapping[str, Any] | None = None,
        checks: Sequence[Check] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Lab:
        """A lab.

        Parameters
        ----------
        where:
            A scenario, an estate, the name of a shipped scenario, or a file of either kind.
        strategy:
            A grouping function for all runs; without it each run draws one of those that ship.
        retention:
            A retention policy for the pruning that some runs end with.
        spec:
            The job's settings, for all runs; without it each run draws some. A mapping, as in a
            file, has those that differ from the scenario's.
        world:
            Instead of the scenario's ``world``; a mapping instead of the entries that it names.
        checks:
            Invariants of one's own, judged after each run beside I1 to I9.
        options:
            Fields of :class:`RunOptions` that are not drawn but have these values, as
            ``{"crash_steps": (), "fidelity": "block"}``.

        Raises
        ------
        InputError
            There is no such scenario, or a setting or option is not known or has no such value.
        """
        __tracebackhide__ = True
        scenario = make_scenario(where, spec=spec, world=world)
        fixed: dict[str, Any] = {}
        if spec is not None:
            fixed = {name: RunOptions.model_fields[name].default for name in _OF_THE_JOB}
        return Lab(self, scenario, fixed | dict(options or {}), strategy, retention, tuple(checks))


class Lab:
    """A scenario with what is one's own; see :class:`LabMaker`."""

    def __init__(
        self,
        maker: LabMaker,
        scenario: Scenario,
        fixed: Mapping[str, Any],
        strategy: Strategy | None,
        retention: RetentionPolicy | None,
        checks: tuple[Check, ...],
    ) -> None:
        self._maker = maker
        self._scenario = scenario
        self._fixed = fixed
        self._needs_the_test = bool(strategy or retention or checks)
        self._explore = partial(
            explore_one,
            strategy=strategy,
            retention=retention,
            checks=[partial(_judged, check) for check in checks],
        )
        self.options(0)  # what cannot be used is refused before anything runs

    def options(self, seed: int) -> RunOptions:
        """What a run with this seed does.

        Raises
        ------
        InputError
            An option that the lab was given is not known or cannot have this value.
        """
        drawn = draw_options(self._scenario, seed)
        if not self._fixed:
            return drawn
        given = {name: getattr(drawn, name) for name in RunOptions.model_fields}
        return checked_options({**given, **self._fixed})

    def run(self, seed: int | None = None) -> RunReport:
        """One run with the test's seed or this one; its report has the events.

        Raises
        ------
        FailedRunError
            An invariant was broken, or the run could not be made.
        """
        __tracebackhide__ = True
        return self._run(self._maker.seed if seed is None else seed, keep_events=True)

    def explore(self, seeds: int | Iterable[int] = SEEDS) -> Explored:
        """Runs with many seeds, one after the other, until one fails.

        Parameters
        ----------
        seeds:
            How many (from 0 on), or which. The command line's ``--stillframe-seeds`` and
            ``--stillframe-seed`` come first.

        Raises
        ------
        FailedRunError
            As for :meth:`run`, at the first seed that fails.
        InputError
            No seed is given.
        """
        __tracebackhide__ = True
        chosen = self._seeds(seeds)
        crashes = recoveries = 0
        fired: dict[str, int] = {}
        for seed in chosen:
            report = self._run(seed, keep_events=False)
            crashes += report.crashes
            recoveries += report.recoveries
            for site, times in report.fired.items():
                fired[site] = fired.get(site, 0) + times
        return Explored(len(chosen), crashes, recoveries, fired)

    def _seeds(self, seeds: int | Iterable[int]) -> Sequence[int]:
        maker = self._maker
        if maker.only_seed is not None:
            return [maker.only_seed]
        if maker.count is not None:
            return range(maker.count)
        chosen = range(seeds) if isinstance(seeds, int) else list(seeds)
        if not chosen:
            raise InputError("stillframe_lab", "seeds", f"{seeds!r} is no seed at all")
        return chosen

    def _run(self, seed: int, *, keep_events: bool) -> RunReport:
        __tracebackhide__ = True
        try:
            report = self._explore(
                self._scenario, seed, self.options(seed), keep_events=keep_events
            )
        except StillframeError as error:
            again = self._maker.again(seed)
            raise FailedRunError(
                f"seed {seed} of {self._scenario.name} cannot be run: {error}\nagain: {again}"
            ) from error
        if report.violations:
            raise FailedRunError(self._message(report))
        return report

    def _message(self, report: RunReport) -> str:
        lines = [f"seed {report.seed} of {report.scenario} breaks what must always hold:"]
        broken = [
            f"  {violation.invariant}: {violation.sentence}" for violation in report.violations
        ]
        lines += broken[:_SHOWN]
        if len(broken) > _SHOWN:
            lines.append(f"  and {len(broken) - _SHOWN} more")
        happened = [f"{site} {times}×" for site, times in sorted(report.fired.items()) if times]
        if report.crashes:
            happened.insert(0, f"orchestrator killed {report.crashes}×")
        lines.append(f"what went wrong before: {', '.join(happened) if happened else 'nothing'}")
        lines.append(f"again: {self._maker.again(report.seed)}")
        path = self._replay_file(report)
        if path is not None:
            lines.append(f"again: stillframe replay {path}")
        if self._maker.shrinks:
            lines += self._small(report)
        return "\n".join(lines)

    def _small(self, report: RunReport) -> list[str]:
        """The run made small, and where it parts from one that passes."""
        shrunk = shrink(report, self._scenario, run=self._explore)
        options = f"options={shrunk.report.options.to_data()}"
        lines = ["", shrunk.sentence(), f"the small run: {options}"]
        if shrunk.passing is not None:
            lines.append(contrast(shrunk, run=self._explore))
        return lines

    def _replay_file(self, report: RunReport) -> Path | None:
        """A file for `stillframe replay`, if the run can be made without functions of the test."""
        folder = self._maker.folder
        if folder is None or self._needs_the_test:
            return None
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{report.scenario}-{report.seed}")
        path = folder / f"{name}.json"
        write_replay(path, report, self._scenario)
        return path


def checked_options(values: Mapping[str, Any]) -> RunOptions:
    """Options with these values.

    Raises
    ------
    InputError
        An option is not known or cannot have this value.
    """
    return validate(RunOptions, dict(values), "options", units_required=False)


def _judged(check: Check, evidence: Evidence) -> list[Violation]:
    name = getattr(check, "__name__", type(check).__name__)
    return [Violation(name, sentence) for sentence in check(evidence)]
