"""Making a failing run small: fewer faults, VMs, events and settings, and the same broken rule.

A run is drawn with a dozen fault sites, ten VMs and as many settings; what breaks an invariant is
two of them. Each step takes something away and runs again; it stays away when the same invariant
is still broken. Draws are keyed by what they are for, so that what remains behaves as before.

Order: fault sites, VMs (with the datastores, units and arrays that only they used), events,
settings, the scenario's own sections, and last how steps are interleaved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from ..drivers.records import VmId
from ..errors import StillframeError
from ..orchestrator.spec import Section
from ..scenarios.schema import Scenario
from .minimise import minimise
from .options import RunOptions
from .report import RunReport
from .run import explore_one
from .selfcontained import self_contained

MOST_RUNS = 500
Run = Callable[[Scenario, int, RunOptions], RunReport]
SectionT = TypeVar("SectionT", bound=Section)
Progress = Callable[[int, int], None]
"""Called after each run with how many there were and how many there may be."""

_FIRST = ("vms", "events", "planted", "foreign", "second_job", "rival", "prune", "cancel_s")
_LAST = ("crash_steps", "barriers", "lose_tail", "journal", "ties", "ready_order")


class Size(NamedTuple):
    """How much there is in a run."""

    fault_sites: int
    vms: int
    events: int
    settings: int
    steps: int


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A failing run made small.

    Attributes
    ----------
    scenario, report:
        What to run, and what came of it: ``report.options`` with ``report.seed``.
    invariant:
        What is broken in the run as it was and as it is.
    before, after:
        How much there was and is.
    runs:
        How many runs it took.
    finished:
        False when the runs ran out before everything had been tried.
    passing:
        The small run with one thing less, which does not break the invariant; None when no such
        run was seen.
    """

    scenario: Scenario
    report: RunReport
    invariant: str
    before: Size
    after: Size
    runs: int
    finished: bool
    passing: tuple[Scenario, RunOptions] | None

    def sentence(self) -> str:
        """What went, in one sentence."""
        pairs = zip(Size._fields, self.before, self.after, strict=True)
        parts = [f"{name.replace('_', ' ')} {was} → {now}" for name, was, now in pairs if was]
        end = "" if self.finished else "; more may be possible"
        return f"{self.invariant} is still broken after {self.runs} runs: {', '.join(parts)}{end}"


def shrink(
    report: RunReport,
    scenario: Scenario,
    *,
    run: Run = explore_one,
    most_runs: int = MOST_RUNS,
    progress: Progress | None = None,
) -> Shrunk:
    """Make a failing run small; the same report always gives the same result.

    Parameters
    ----------
    report:
        A failing run; its first violation names the invariant that stays broken.
    scenario:
        The scenario that it ran.
    run:
        How to run: :func:`explore_one`, perhaps with a strategy of one's own bound to it.
    most_runs:
        After this many runs the smallest failing run so far is the result.

    Raises
    ------
    StillframeError
        The report is not one of a failing run, or the run does not fail again.
    """
    if not report.violations:
        raise StillframeError(f"seed {report.seed} of {report.scenario} does not fail")
    search = _Search(report, self_contained(scenario), run, most_runs, progress)
    if not search.fails(search.scenario, report.options):
        raise StillframeError(
            f"seed {report.seed} of {report.scenario} does not fail again",
            "the run depends on something other than scenario, seed and options",
        )
    before = _size(search)
    finished = True
    try:
        search.to_the_end()
    except _RunsOutError:
        finished = False
    return Shrunk(
        search.scenario,
        search.report,
        search.invariant,
        before,
        _size(search),
        search.runs,
        finished,
        search.passing,
    )


class _RunsOutError(Exception):
    """The runs that were allowed are used up."""


class _Search:
    """The smallest failing run so far, and what was tried already."""

    def __init__(
        self,
        report: RunReport,
        scenario: Scenario,
        run: Run,
        most_runs: int,
        progress: Progress | None,
    ) -> None:
        self.report = report
        self.scenario = scenario
        self.invariant = report.violations[0].invariant
        self.runs = 0
        self._run = run
        self._most_runs = most_runs
        self._progress = progress
        self.passing: tuple[Scenario, RunOptions] | None = None
        """The first run since the last success that did not fail: one step away from it."""
        self._passed: dict[str, bool] = {}
        """For every run so far whether it went through without breaking the invariant."""

    @property
    def options(self) -> RunOptions:
        return self.report.options

    def fails(self, scenario: Scenario, options: RunOptions) -> bool:
        """Run this; a failure of the same invariant becomes the smallest so far."""
        key = f"{scenario.model_dump_json()} {options.model_dump_json()}"
        if key not in self._passed:
            found = self._run_once(scenario, options)
            if found is not None and self._same_failure(found):
                self._passed[key] = False
                self.scenario, self.report, self.passing = scenario, found, None
                return True
            self._passed[key] = found is not None
        if self._passed[key] and self._is_nearer(options):
            self.passing = scenario, options
        return False  # it did not fail, or it is where we came from

    def _is_nearer(self, options: RunOptions) -> bool:
        """Whether these options make a better contrast: the same VMs, as in the failing run."""
        if self.passing is None:
            return True
        vms = self.options.vms
        return self.passing[1].vms != vms and options.vms == vms

    def _run_once(self, scenario: Scenario, options: RunOptions) -> RunReport | None:
        """A run; None when there is something in it that refers to what was taken away."""
        if self.runs >= self._most_runs:
            raise _RunsOutError
        self.runs += 1
        try:
            return self._run(scenario, self.report.seed, options)
        except StillframeError:
            return None
        finally:
            if self._progress is not None:
                self._progress(self.runs, self._most_runs)

    def _same_failure(self, found: RunReport) -> bool:
        return any(violation.invariant == self.invariant for violation in found.violations)

    def with_options(self, **update: Any) -> bool:
        """Whether it still fails with these options set so."""
        options = _changed(self.options, update)
        return options is not None and self.fails(self.scenario, options)

    def with_scenario(self, **update: Any) -> bool:
        """Whether it still fails with these sections of the scenario set so."""
        scenario = _changed(self.scenario, update)
        return scenario is not None and self.fails(scenario, self.options)

    def to_the_end(self) -> None:
        """Take away until nothing can be taken away."""
        while True:
            at_first = self.report
            self._fault_sites()
            others = [name for name in RunOptions.model_fields if name not in (*_FIRST, *_LAST)]
            for name in (*_FIRST, *others):
                self._option(name)
            self._scenario_sections()
            for name in _LAST:
                self._option(name)
            if self.report is at_first:
                return

    def _fault_sites(self) -> None:
        faults = self.options.faults
        if not faults.sites:
            return

        def still(names: tuple[Any, ...]) -> bool:
            sites = {name: faults.sites[name] for name in names}
            return self.with_options(faults=faults.model_copy(update={"sites": sites}))

        minimise(tuple(faults.sites), still)
        self._budget()

    def _budget(self) -> None:
        """As few faults as possible; the ones that happen first are kept."""
        for budget in range(1, sum(self.report.fired.values())):
            faults = self.options.faults
            if faults.budget is not None and faults.budget <= budget:
                return
            if self.with_options(faults=faults.model_copy(update={"budget": budget})):
                return

    def _option(self, name: str) -> None:
        """Set one option back to its default, or shorten it."""
        value, default = getattr(self.options, name), RunOptions.model_fields[name].default
        if name == "vms":
            self._vms()
        elif value == default:
            return
        elif name in ("crash_steps", "barriers"):
            self._deaths(name)
        elif isinstance(value, tuple):
            minimise(value, lambda items: self.with_options(**{name: items}))
        elif isinstance(value, Section) and isinstance(default, Section):
            self._fields(value, default, lambda section: self.with_options(**{name: section}))
        else:
            self.with_options(**{name: default})

    def _vms(self) -> None:
        minimise(_vms(self), lambda vms: bool(vms) and self.with_options(vms=vms))

    def _deaths(self, name: str) -> None:
        """Processes that need not die, live."""
        value = getattr(self.options, name)
        never: Any = 0 if name == "crash_steps" else ""
        dying = [number for number, when in enumerate(value) if when != never]

        def still(numbers: tuple[int, ...]) -> bool:
            last = max(numbers, default=-1)
            kept = tuple(value[n] if n in numbers else never for n in range(last + 1))
            return self.with_options(**{name: kept})

        minimise(dying, still)

    def _scenario_sections(self) -> None:
        scenario = self.scenario
        if scenario.events:
            minimise(scenario.events, lambda events: self.with_scenario(events=events))
        for name in ("plan_age", "observe"):
            self.with_scenario(**{name: 0.0})
        for name in ("job", "world"):
            value = getattr(self.scenario, name)
            default = type(value)()
            if not self.with_scenario(**{name: default}):
                self._fields(value, default, partial(self._with_section, name))

    def _with_section(self, name: str, section: Section) -> bool:
        return self.with_scenario(**{name: section})

    def _fields(self, value: Section, default: Section, still: Callable[[Section], bool]) -> None:
        """Set the fields of a section back to their defaults, one by one."""
        current = value
        for name in type(value).model_fields:
            plain = getattr(default, name)
            if getattr(current, name) == plain:
                continue
            changed = _changed(current, {name: plain})
            if changed is not None and still(changed):
                current = changed


def _changed(section: SectionT, update: dict[str, Any]) -> SectionT | None:
    """The section with other values; None where a file with these values would be refused."""
    values = {name: getattr(section, name) for name in type(section).model_fields}
    try:
        return type(section).model_validate({**values, **update})
    except ValidationError:
        return None


def _vms(search: _Search) -> tuple[VmId, ...]:
    if search.options.vms is not None:
        return search.options.vms
    return tuple(vm.id for vm in search.scenario.build_estate().inventory.vms)


def _size(search: _Search) -> Size:
    options, report = search.options, search.report
    counted = {"vms", "faults", "events"}
    return Size(
        fault_sites=len(options.faults.sites),
        vms=len(_vms(search)),
        events=len(options.events) + len(search.scenario.events),
        settings=len(set(options.to_data()) - counted),
        steps=report.steps,
    )
