"""The command line. Commands import what they need when they run, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .cli_common import EXIT_CODES_HELP, FrontDoor, emit_json, say

app = typer.Typer(
    cls=FrontDoor,
    help="Array-assisted VM snapshots: plan a job, run it in a modelled world, measure it.",
    epilog=EXIT_CODES_HELP,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
calibrate_app = typer.Typer(help="Measure model inputs from recordings.")
estate_app = typer.Typer(help="Look at an estate, or import one.")
scenario_app = typer.Typer(help="The scenario format and the shipped scenarios.")
app.add_typer(calibrate_app, name="calibrate")
app.add_typer(estate_app, name="estate")
app.add_typer(scenario_app, name="scenario")

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A shipped scenario's name, or a .yaml file.")
]


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is not a whole number from 0 on")
    return int(text)


SeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", parser=_seed, help="Use this seed, not the scenario's."),
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


def _version(wanted: bool) -> None:
    if wanted:
        say(f"stillframe {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def front(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  its callback does the work
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version.")
    ] = False,
) -> None:
    """Array-assisted VM snapshots: plan a job, run it in a modelled world, measure it."""
    if context.invoked_subcommand is None:
        say(context.get_help())


@app.command(epilog=EXIT_CODES_HELP)
def plan(
    scenario: ScenarioArgument,
    seed: SeedOption = None,
    strategy: StrategyOption = None,
    predict: Annotated[bool, typer.Option(help="Predict the windows by one modelled run.")] = True,
    as_json: JsonOption = False,
) -> int:
    """Show what a job would do: groups, units, VMs that cannot be protected, expected windows.

    Nothing is touched. A plan that leaves selected VMs out exits with 1.
    """
    from .cli_job import plan_command

    return plan_command(scenario, seed, strategy, predict=predict, as_json=as_json)


@app.command(epilog=EXIT_CODES_HELP)
def run(
    scenario: ScenarioArgument,
    seed: SeedOption = None,
    strategy: StrategyOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where results go; default: out/NAME."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Run a job in the modelled world, measure every window, and write a report."""
    from .cli_job import run_command

    return run_command(scenario, seed, strategy, out, as_json=as_json)


@app.command(epilog=EXIT_CODES_HELP)
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A result folder.")],
    as_json: JsonOption = False,
) -> int:
    """Make the pictures and the page of a result folder again, and print its summary."""
    from .cli_job import report_command

    return report_command(folder, as_json=as_json)


@calibrate_app.command("trace")
def calibrate_trace(
    file: Annotated[Path, typer.Argument(metavar="FILE.vscsi", help="A block trace.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.npz", help="Write the write profile here."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a block trace into a write profile: how many distinct bytes a window of time writes."""
    from .cli_calibrate import trace_command

    trace_command(file, out, force=force, as_json=as_json)


@estate_app.command("import")
def estate_import(
    export: Annotated[
        Path,
        typer.Argument(metavar="EXPORT", help="An RVTools export: .xlsx, or a folder of .csv."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.yaml", help="Write the estate here.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read an RVTools export and say what it does not allow."""
    from .cli_estate import import_command

    import_command(export, out, force=force, as_json=as_json)


@estate_app.command("show")
def estate_show(
    source: Annotated[
        str,
        typer.Argument(metavar="ESTATE", help="A scenario, an estate file, or an RVTools export."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.png", help="Draw the topology into this file."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show arrays, units, datastores, components, and what ties components together."""
    from .cli_estate import show_command

    show_command(source, out, force=force, as_json=as_json)


@scenario_app.command("list")
def scenario_list(as_json: JsonOption = False) -> None:
    """List the shipped scenarios."""
    from .scenarios.schema import list_scenarios

    found = list_scenarios()
    if as_json:
        emit_json(
            [
                {"name": one.name, "title": one.title, "description": one.description}
                for one in found
            ]
        )
        return
    width = max(len(one.name) for one in found)
    for one in found:
        say(f"{one.name:{width}}  {one.title}")


@scenario_app.command("schema")
def scenario_schema(as_json: JsonOption = False) -> None:  # noqa: ARG001  JSON is all there is
    """Write the JSON Schema of scenario files to stdout, for editors that complete and check."""
    from .scenarios.schema import scenario_json_schema

    emit_json(scenario_json_schema())


def main() -> None:
    """The entry point ``stillframe``."""
    app()
