"""The command line. Commands import what they need when they run, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import __version__, cli_certify, cli_keep, cli_lab, cli_prove, cli_validate
from .cli_common import EXIT_CODES_HELP, FrontDoor, emit_json, say, usage_error
from .cli_options import (
    ForceOption,
    JsonOption,
    LiveOption,
    ScenarioArgument,
    SeedOption,
    StrategyOption,
)

app = typer.Typer(
    cls=FrontDoor,
    help="Array-assisted VM snapshots: plan a job, run it in a modelled world, measure it.",
    epilog=EXIT_CODES_HELP,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
catalogue_app = typer.Typer(help="Which VMs can be restored, from which array snapshots.")
calibrate_app = typer.Typer(help="Measure model inputs from recordings and live runs.")
estate_app = typer.Typer(help="Look at an estate, or import one.")
scenario_app = typer.Typer(help="The scenario format and the shipped scenarios.")
app.add_typer(catalogue_app, name="catalog")
app.add_typer(calibrate_app, name="calibrate")
app.add_typer(estate_app, name="estate")
app.add_typer(scenario_app, name="scenario")
app.add_typer(cli_lab.lab_app, name="lab")
app.add_typer(cli_certify.certify_app, name="certify")


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
    """Array-assisted VM snapshots: plan a job, run it live or in a modelled world, measure it."""
    if context.invoked_subcommand is None:
        say(context.get_help())


@app.command(epilog=EXIT_CODES_HELP)
def plan(
    scenario: ScenarioArgument = None,
    live: LiveOption = None,
    seed: SeedOption = None,
    strategy: StrategyOption = None,
    predict: Annotated[bool, typer.Option(help="Predict the windows by one modelled run.")] = True,
    as_json: JsonOption = False,
) -> int:
    """Show what a job would do: groups, units, VMs that cannot be protected, expected windows.

    Nothing is touched. A plan that leaves selected VMs out exits with 1.
    """
    if live is not None:
        _no_scenario(scenario, seed)
        from .cli_live import plan_live_command

        return plan_live_command(live, strategy, as_json=as_json)
    from .cli_job import plan_command

    return plan_command(_scenario_given(scenario), seed, strategy, predict=predict, as_json=as_json)


@app.command(epilog=EXIT_CODES_HELP)
def run(
    scenario: ScenarioArgument = None,
    live: LiveOption = None,
    seed: SeedOption = None,
    strategy: StrategyOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Where results go; default: out/NAME, or out/NAME-JOB with --live.",
        ),
    ] = None,
    clear: Annotated[
        Path | None,
        typer.Option(
            "--clear",
            metavar="FOLDER",
            help="With --live: first remove what the job with this result left behind.",
        ),
    ] = None,
    recover: Annotated[
        bool,
        typer.Option(help="With --live: first recover jobs of this configuration that crashed."),
    ] = True,
    as_json: JsonOption = False,
) -> int:
    """Run a job in the modelled world or on live systems, measure it, and write a report.

    A live job is journaled, and jobs before it that did not end in good order are recovered first.
    """
    if live is not None:
        _no_scenario(scenario, seed)
        from .cli_live import run_live_command

        return run_live_command(live, strategy, out, clear, recover=recover, as_json=as_json)
    if clear is not None:
        raise usage_error("--clear has no meaning without --live: a model leaves nothing behind")
    if not recover:
        raise usage_error("--no-recover has no meaning without --live: a model is not journaled")
    from .cli_job import run_command

    return run_command(_scenario_given(scenario), seed, strategy, out, as_json=as_json)


def _no_scenario(scenario: str | None, seed: int | None) -> None:
    if scenario is not None:
        raise usage_error("give a SCENARIO or --live CONFIG, not both")
    if seed is not None:
        raise usage_error("--seed has no meaning with --live: live systems have no seed")


def _scenario_given(scenario: str | None) -> str:
    if scenario is None:
        raise usage_error("Missing argument 'SCENARIO' (or the option --live CONFIG)")
    return scenario


@app.command(epilog=EXIT_CODES_HELP)
def rehearse(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", help="A live configuration.")
    ] = None,
    estate: Annotated[
        Path | None,
        typer.Option("--estate", metavar="FILE", help="The estate of which to model a twin."),
    ] = None,
    seed: SeedOption = None,
    replications: Annotated[
        int,
        typer.Option("--replications", metavar="R", min=1, help="Modelled runs, one seed each."),
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.json",
            help="Where the prediction goes; default: out/NAME.prediction.json.",
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="PREDICTION FOLDER",
            help="Show a prediction beside a result folder, and do nothing else.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Run a live configuration's job on a modelled twin of its estate, and save what to expect.

    With --compare: a saved prediction beside what a run then measured, clock by clock.
    """
    from .cli_rehearse import compare_command, rehearse_command

    if compare is not None:
        if config is not None or estate is not None or out is not None:
            raise usage_error("--compare takes a prediction and a result folder, no more")
        return compare_command(*compare, as_json=as_json)
    if config is None or estate is None:
        raise usage_error("give CONFIG and --estate FILE, or --compare PREDICTION FOLDER")
    chosen = 1 if seed is None else seed
    return rehearse_command(config, estate, chosen, replications, out, as_json=as_json)


@app.command(epilog=EXIT_CODES_HELP)
def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A result folder.")],
    as_json: JsonOption = False,
) -> int:
    """Make the pictures and the page of a result folder again, and print its summary."""
    from .cli_job import report_command

    return report_command(folder, as_json=as_json)


app.command("recover", epilog=cli_keep.RECOVER_EXIT_CODES)(cli_keep.recover)
app.command("prune", epilog=cli_keep.PRUNE_EXIT_CODES)(cli_keep.prune)
app.command("validate", epilog=cli_validate.EXIT_CODES)(cli_validate.validate)
app.command("explore", epilog=cli_prove.EXIT_CODES)(cli_prove.explore)
app.command("replay", epilog=cli_prove.EXIT_CODES)(cli_prove.replay)
catalogue_app.command("list")(cli_keep.catalogue_list)
catalogue_app.command("show")(cli_keep.catalogue_show)
catalogue_app.command("verify", epilog=cli_keep.VERIFY_EXIT_CODES)(cli_keep.catalogue_verify)


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


@calibrate_app.command("lab")
def calibrate_lab(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Result folders of `stillframe run --live`."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.yaml", help="Write the fitted profile here."),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit the model to live runs: freeze, overlay, thaw, merge, pivot, array snapshot."""
    from .cli_calibrate import lab_command

    lab_command(runs, out, force=force, as_json=as_json)


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


@estate_app.command("pull")
def estate_pull(
    vcenter: Annotated[
        list[str],
        typer.Option("--vcenter", metavar="HOST[:PORT]", help="Which to read; may be repeated."),
    ],
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="USER", help="Default: $STILLFRAME_VSPHERE_USER."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE.pem", help="What the certificate is verified by."),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure-no-verification", help="Talk to whoever answers, and tell it the password."
        ),
    ] = False,
    keyring: Annotated[
        str | None,
        typer.Option(
            "--keyring",
            metavar="SERVICE",
            help="The keyring service with the password; default: $STILLFRAME_VSPHERE_PASSWORD.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.yaml", help="Write the estate here.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read what vCenters hold, and say what they do not tell."""
    from .cli_live import pull_command

    login: dict[str, str | None] = {
        "user": user,
        "ca_file": None if ca_file is None else str(ca_file),
        "verify": "insecure-no-verification" if insecure else None,
        "keyring": keyring,
    }
    pull_command(vcenter, login, out, force=force, as_json=as_json)


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
