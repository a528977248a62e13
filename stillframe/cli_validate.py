"""``validate`` as the command line shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_options import ConfigArgument, JsonOption

EXIT_CODES = (
    "Exit codes: 0 measured, however large the errors, 1 measured, and a live run did not protect "
    "every VM, 2 the input cannot be used, 3 failed, 130 interrupted with Ctrl-C."
)
LIVE_RUNS = 10
MODELLED_RUNS = 200


def validate(
    config: ConfigArgument,
    profile: Annotated[
        Path,
        typer.Option(
            "--profile", metavar="FILE.yaml", help="A fitted profile (`stillframe calibrate lab`)."
        ),
    ],
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", help="Live runs, one after the other.")
    ] = LIVE_RUNS,
    modelled: Annotated[
        int, typer.Option("--modelled", metavar="M", help="Modelled runs, one seed each.")
    ] = MODELLED_RUNS,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Seed of the first modelled run.")
    ] = 1,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="After each live run, prune what the configuration does not retain."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.json",
            help="Where the result goes; default: out/NAME.validation.json.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Run the same job live and on its modelled twin, and show how far the prediction is off.

    Live runs are real: each leaves array snapshots and entries in the catalogue.
    """
    from .cli_validation import validate_command

    return validate_command(
        config, profile, runs, modelled, seed, out, prune=prune, as_json=as_json
    )
