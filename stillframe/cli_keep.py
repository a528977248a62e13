"""``recover``, ``catalog`` and ``prune`` as the command line shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_common import usage_error
from .cli_options import ConfigArgument, JsonOption

RECOVER_EXIT_CODES = (
    "Exit codes: 0 nothing is left to recover, 1 something is left, or a job is in the hands of "
    "another process, 2 the input cannot be used, 3 failed, 130 interrupted with Ctrl-C."
)
VERIFY_EXIT_CODES = (
    "Exit codes: 0 the arrays hold what the catalogue names and no more, 1 they do not, "
    "2 the input cannot be used, 3 failed, 130 interrupted with Ctrl-C."
)
PRUNE_EXIT_CODES = (
    "Exit codes: 0 done, 1 something that should go is left, 2 the input cannot be used, "
    "3 failed, 130 interrupted with Ctrl-C."
)


def recover(
    config: ConfigArgument,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="ID", help="Only this job; default: all that need it."),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Also jobs in the hands of a process that still holds its lease: it hangs.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Finish jobs whose process died: remove what they left open, keep what can be restored.

    May be repeated and interrupted at any time; what is done is done, the next one goes on.
    """
    from .cli_recover import recover_command

    return recover_command(config, job, take_over=take_over, as_json=as_json)


def catalogue_list(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", help="A live configuration.")
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option("--journal", metavar="FILE", help="A journal, instead of a configuration's."),
    ] = None,
    vm: Annotated[
        str | None, typer.Option("--vm", metavar="PATTERN", help="Only VMs of such names: 'web-*'.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """List what can be restored: VM, level, point in time. Asks no system."""
    if (config is None) == (journal is None):
        raise usage_error("give CONFIG or --journal FILE")
    from .cli_catalogue import list_command

    return list_command(config, journal, vm, as_json=as_json)


def catalogue_show(
    config: ConfigArgument,
    vm: Annotated[str, typer.Argument(metavar="VM", help="A VM's name or identifier.")],
    as_json: JsonOption = False,
) -> int:
    """Show all that one VM can be restored from, and what a restore needs. Asks no system."""
    from .cli_catalogue import show_command

    return show_command(config, vm, as_json=as_json)


def catalogue_verify(config: ConfigArgument, as_json: JsonOption = False) -> int:
    """Hold the catalogue against what the arrays list. Changes nothing."""
    from .cli_catalogue import verify_command

    return verify_command(config, as_json=as_json)


def prune(
    config: ConfigArgument,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go and why the rest stays.")
    ] = False,
    keep_last: Annotated[
        int | None,
        typer.Option("--keep-last", metavar="N", min=1, help="Keep each VM's newest N."),
    ] = None,
    keep_within: Annotated[
        str | None,
        typer.Option("--keep-within", metavar="TIME", help="Keep what is younger: '7 d'."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Delete what the configuration's retention does not keep; never a VM's last good entry."""
    from .cli_prune import prune_command

    return prune_command(config, keep_last, keep_within, dry_run=dry_run, as_json=as_json)
