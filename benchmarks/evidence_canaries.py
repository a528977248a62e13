"""``make evidence-canaries``: every broken driver against all requirements, and what notices.

A canary breaks one requirement on purpose; it has to fail that one, and as far as possible no
other. The reference drivers, whole, have to fail none, whatever the seed. All of it runs in virtual
time, on the modelled targets.

``--only ARR-MAP`` tries the canaries of some requirements, ``--own`` each against its own
requirement alone; both print what they find and write no evidence.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from stillframe.certify.canaries import ARRAY_CANARIES, HYPERVISOR_CANARIES
from stillframe.certify.canary import Canary
from stillframe.certify.config import VendorConfig
from stillframe.certify.issue import REQUIREMENTS, Order, run_suite
from stillframe.certify.loading import load_target
from stillframe.certify.outcome import Verdict

from .evidence import Figure, write_evidence

REFERENCES = (
    ("array", "modelled-row"),
    ("array", "modelled-cow"),
    ("hypervisor", "modelled"),
)
CANARIES: dict[str, Sequence[Canary[Any]]] = {
    "array": ARRAY_CANARIES,
    "hypervisor": HYPERVISOR_CANARIES,
}
RUNS = 20
BAD = (Verdict.FAIL, Verdict.BLOCKED)
OTHERS = (
    ("csi-sanity (kubernetes-csi/csi-test)", 95, 0),
    ("libstoragemgmt's plugin test", 54, 0),
    ("Cinder's driver compliance test (methods of these names exist)", 1, 0),
)
"""Kits of others: how many checks, and how many that write data and compare what comes back."""
CONSOLE = Console(stderr=True)


class Job(NamedTuple):
    """One run of a suite; of the whole reference where ``canary`` is empty."""

    kind: str
    target: str
    canary: str
    seed: int
    effort: str
    only: tuple[str, ...] = ()


class Seen(NamedTuple):
    """Of a run: verdict and reason by requirement, and which requirements compared data."""

    job: Job
    verdicts: dict[str, str]
    reasons: dict[str, str]
    comparing: frozenset[str]

    @property
    def bad(self) -> list[str]:
        """What failed or was blocked."""
        return [name for name, verdict in self.verdicts.items() if verdict in BAD]


def canary_of(kind: str, name: str) -> Canary[Any]:
    """The canary of this name."""
    return next(one for one in CANARIES[kind] if one.id == name)


def run(job: Job) -> Seen:
    """Run the suite in this process."""
    reference = load_target(job.target, job.kind)
    config = VendorConfig()
    limits: dict[str, float] = {}
    if job.canary:
        canary = canary_of(job.kind, job.canary)
        reference = canary.make(reference)
        config = VendorConfig(settings=dict(canary.settings))
        limits = dict(canary.limits)
    order = Order(job.kind, job.target, reference, config, job.seed, job.effort, job.only)
    result = run_suite(order, replace(order.options(), limits=limits))
    outcomes = result.outcomes
    return Seen(
        job,
        {one.requirement_id: one.verdict.value for one in outcomes},
        {one.requirement_id: one.reason for one in outcomes if one.reason},
        frozenset(one.requirement_id for one in outcomes if one.compared_bytes),
    )


def row(canary: Canary[Any], seen: Seen, whole: Seen) -> dict[str, Any]:
    """One line of the matrix: whether it was caught, and what else noticed."""
    others = [name for name in seen.bad if name != canary.breaks and name not in whole.bad]
    return {
        "canary": canary.id,
        "sentence": canary.sentence,
        "breaks": canary.breaks,
        "verdict": seen.verdicts.get(canary.breaks, "not there"),
        "reason": seen.reasons.get(canary.breaks, ""),
        "caught": seen.verdicts.get(canary.breaks) == Verdict.FAIL,
        "declared": [name for name in others if name in canary.also],
        "undeclared": [name for name in others if name not in canary.also],
        "because": canary.because,
    }


def chosen(words: Sequence[str]) -> list[tuple[str, Canary[Any]]]:
    """The canaries of the requirements that begin with one of these words; all, if none."""
    return [
        (kind, canary)
        for kind, canaries in CANARIES.items()
        for canary in canaries
        if not words or any(canary.breaks.startswith(word) for word in words)
    ]


def jobs_for(arguments: argparse.Namespace) -> list[Job]:
    """All runs, the long ones of the whole references first."""
    first = dict(reversed(REFERENCES))
    effort = arguments.effort
    wholes = [
        Job(kind, target, "", seed, effort)
        for kind, target in REFERENCES
        for seed in range(1, arguments.runs + 1)
    ]
    broken = [
        Job(kind, first[kind], one.id, 1, effort, (one.breaks,) if arguments.own else ())
        for kind, one in chosen(arguments.only)
    ]
    return broken if arguments.own else [*wholes, *broken]


def run_all(jobs: Sequence[Job], processes: int) -> Iterable[Seen]:
    """Every run, spread over processes, in the order of the jobs."""
    with ProcessPoolExecutor(processes) as pool:
        for number, seen in enumerate(pool.map(run, jobs), 1):
            name = seen.job.canary or f"{seen.job.target} whole, seed {seen.job.seed}"
            CONSOLE.print(f"{number} of {len(jobs)}: {name}: {', '.join(seen.bad) or 'none bad'}",
                          highlight=False)  # fmt: skip
            yield seen


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The matrix, for people."""
    table = Table("canary", "has to fail", "caught", "also, as declared", "also, not declared")
    for one in rows:
        table.add_row(
            one["canary"],
            one["breaks"],
            "[green]yes[/]" if one["caught"] else f"[red]{one['verdict']}: {one['reason']}[/]",
            ", ".join(one["declared"]),
            f"[red]{', '.join(one['undeclared'])}[/]" if one["undeclared"] else "",
        )
    Console(width=160).print(table)


def false_failures(wholes: Sequence[Seen]) -> list[dict[str, Any]]:
    """What the whole references failed, which is a fault of the kit."""
    return [
        {
            "target": seen.job.target,
            "seed": seen.job.seed,
            "requirement": name,
            "reason": seen.reasons.get(name, ""),
        }
        for seen in wholes
        for name in seen.bad
    ]


def figures_of(rows: Sequence[dict[str, Any]], wholes: Sequence[Seen]) -> list[Figure]:
    """The figures and their aims."""
    ids = [one.id for requirements in REQUIREMENTS.values() for one in requirements]
    broken = {one["breaks"] for one in rows if one["caught"]}
    caught = sum(one["caught"] for one in rows)
    exactly = sum(one["caught"] and not one["declared"] and not one["undeclared"] for one in rows)
    comparing = frozenset().union(*(seen.comparing for seen in wholes))
    runs = len({seen.job.seed for seen in wholes})
    made = [
        Figure(f"requirements of {kind} drivers", len(requirements), "requirements")
        for kind, requirements in REQUIREMENTS.items()
    ]
    made += [
        Figure("requirements that write data and compare what comes back", len(comparing),
               "requirements"),
        *(Figure(f"{name}: checks, {data} of which compare data", checks, "checks")
          for name, checks, data in OTHERS),
        Figure("canaries", len(rows), "canaries"),
        Figure("requirements with a canary that fails them",
               100 * len(broken & set(ids)) / len(ids) if ids else None, "%", "== 100 %"),
        Figure("canaries caught", 100 * caught / len(rows) if rows else None, "%", "== 100 %"),
        Figure("canaries that fail exactly their requirement", exactly, "canaries"),
        Figure("canaries that fail others too, with the reason declared",
               sum(bool(one["declared"]) and not one["undeclared"] for one in rows), "canaries"),
        Figure("canaries that fail others undeclared",
               sum(bool(one["undeclared"]) for one in rows), "canaries", "== 0 canaries"),
    ]  # fmt: skip
    for kind, target in REFERENCES:
        mine = [seen for seen in wholes if seen.job.target == target and seen.job.kind == kind]
        false = sum(len(seen.bad) for seen in mine)
        name = f"{target} ({kind}): false failures in {runs} runs, a seed each"
        made.append(Figure(name, false, "failures", "== 0 failures"))
    return made


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    wholes: list[Seen] = []
    rows = []
    for seen in run_all(jobs_for(arguments), arguments.jobs):
        if not seen.job.canary:
            wholes.append(seen)
            continue
        kind = seen.job.kind
        whole = next(
            (one for one in wholes if one.job.kind == kind), Seen(seen.job, {}, {}, frozenset())
        )
        rows.append({"kind": kind, **row(canary_of(kind, seen.job.canary), seen, whole)})
    show(rows)
    false = false_failures(wholes)
    for one in false:
        CONSOLE.print_json(json.dumps(one))
    if arguments.own or arguments.only or arguments.runs != RUNS:
        return
    extra = {
        "effort": arguments.effort,
        "table": rows,
        "false": false,
        "without": [
            one.id
            for requirements in REQUIREMENTS.values()
            for one in requirements
            if one.id not in {each["breaks"] for each in rows}
        ],
    }
    write_evidence("canaries", figures_of(rows, wholes), extra)


if __name__ == "__main__":
    main()
