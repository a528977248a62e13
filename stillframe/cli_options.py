"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def whole_number(text: str) -> int:
    """A whole number from 0 on, written in plain digits."""
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is not a whole number from 0 on")
    return int(text)


ScenarioArgument = Annotated[
    str | None,
    typer.Argument(metavar="SCENARIO", help="A shipped scenario's name, or a .yaml file."),
]
ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG.yaml", help="A live configuration.")
]
LiveOption = Annotated[
    Path | None,
    typer.Option(
        "--live", metavar="CONFIG.yaml", help="Real systems, named in this file, not a scenario."
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", parser=whole_number, help="Use this seed, not the scenario's."
    ),
]
StrategyOption = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="Group by all-at-once, per-component, chunks or per-datastore instead.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write machine-readable JSON to stdout, and nothing else.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]
