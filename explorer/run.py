"""One exploration run: a job with faults and deaths; then faults stop, and all must end well.

The run has two phases. In the *safety* phase anything drawn may happen. Then faults stop, and in
the *convergence* phase whoever is there recovers until no job is unfinished. What the world holds
afterwards is judged by the invariants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from ..orchestrator.retention import RetentionPolicy
from ..orchestrator.strategies import Strategy
from ..scenarios.schema import Scenario
from .course import Course
from .draw import Fidelity, draw_options
from .evidence import Evidence
from .invariants import check_all
from .options import RunOptions
from .report import RunReport, Violation

Check = Callable[[Evidence], Sequence[Violation]]
"""What the caller wants to hold beside the invariants."""


def explore_one(
    scenario: Scenario,
    seed: int,
    options: RunOptions | None = None,
    *,
    keep_events: bool = False,
    strategy: Strategy | None = None,
    retention: RetentionPolicy | None = None,
    checks: Sequence[Check] = (),
    fidelity: Fidelity = "both",
) -> RunReport:
    """Run one seed to its end and judge it.

    Parameters
    ----------
    options:
        Drawn from scenario and seed if None.
    keep_events:
        Have all event rows in the report.
    strategy:
        A grouping function that takes the place of the drawn strategy.
    retention:
        A policy that takes the place of the drawn rule in runs that prune.
    checks:
        Judge the run beside the invariants.
    fidelity:
        For drawn options.

    Raises
    ------
    InputError
        The scenario cannot be used.
    """
    drawn = draw_options(scenario, seed, fidelity=fidelity) if options is None else options
    course = Course(scenario, seed, drawn, strategy, retention)
    try:
        course.run()
        evidence = course.evidence()
        own = [violation for check in checks for violation in check(evidence)]
        violations = (*check_all(evidence), *own)
        return RunReport(
            scenario=scenario.name,
            seed=seed,
            options=drawn,
            violations=violations,
            trace_hash=_hash(course, drawn, violations),
            crashes=course.crashes,
            recoveries=course.recoveries,
            steps_by_incarnation=tuple(course.steps),
            virtual_s=course.env.now,
            fired=course.fired(),
            outcomes=tuple(course.outcomes),
            rows=tuple(course.log.rows) if keep_events else None,
        )
    finally:
        course.close()


def _hash(course: Course, options: RunOptions, violations: Sequence[Violation]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    # One repr of everything: the digits of a float are those of its repr, which is exact.
    digest.update(repr(course.log.fields).encode())
    digest.update(options.model_dump_json(exclude_defaults=True).encode())
    digest.update(repr((course.outcomes, course.steps, violations)).encode())
    return digest.hexdigest()
