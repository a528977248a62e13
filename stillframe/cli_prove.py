"""The commands ``explore`` and ``replay`` as the command line shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from .cli_options import JsonOption, whole_number

EXIT_CODES = (
    "Exit codes: 0 every invariant held in every run, 2 the input cannot be used, "
    "3 an invariant was broken or something failed, 130 interrupted with Ctrl-C."
)
_FIDELITIES = ("flow", "block", "both")


def _fidelity(text: str) -> str:
    if text not in _FIDELITIES:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(_FIDELITIES)}")
    return text


def explore(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(metavar="SCENARIO", help="Shipped scenarios' names, or .yaml files."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every shipped scenario.")] = False,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="Runs per scenario, one seed each.")
    ] = 1000,
    first_seed: Annotated[
        int | None,
        # A parser gets the default too, and this one reads text.
        typer.Option(
            "--from", metavar="S", parser=whole_number, help="The first seed. [default: 0]"
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="J", min=1, help="Processes to spread the runs over.")
    ] = 1,
    fidelity: Annotated[
        str,
        typer.Option(
            "--fidelity",
            metavar="|".join(_FIDELITIES),
            parser=_fidelity,
            help="Model writes as flows, block by block, or by the seed.",
        ),
    ] = "both",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.json",
            help="Write the first failing run, for replay, into this file.",
        ),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first seed that breaks an invariant.")
    ] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Make failing runs as small as they get.")
    ] = False,
    exhaustive_crash: Annotated[
        bool,
        typer.Option(
            "--exhaustive-crash",
            help="Kill the orchestrator at every step of a run in turn, and recover.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Run scenarios under faults and crashes drawn from many seeds, and check what must hold.

    Each failure is printed with the command that repeats it.
    """
    from .cli_explore import explore_command

    return explore_command(
        scenarios or [],
        seeds=seeds,
        first_seed=first_seed or 0,
        jobs=jobs,
        fidelity=cast(Literal["flow", "block", "both"], fidelity),
        out=out,
        fail_fast=fail_fast,
        as_json=as_json,
        every=every,
        shrink=shrink,
        exhaustive_crash=exhaustive_crash,
    )


def replay(
    target: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO|FILE.json",
            help="A scenario (with --seed), or a failure's file. After --fidelity flow or block: "
            "SCENARIO@flow, SCENARIO@block.",
        ),
    ],
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", parser=whole_number, help="The seed of the run."),
    ] = None,
    events: Annotated[bool, typer.Option("--events", help="Print every event of the run.")] = False,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="HASH", help="Fail unless the run has this trace hash."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Repeat one run that explore has made, event by event the same."""
    from .cli_explore import replay_command

    return replay_command(target, seed=seed, events=events, expect=expect, as_json=as_json)
