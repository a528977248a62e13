"""``stillframe lab``: a live lab made, looked at, taken down."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .cli_common import count, emit_json, notice, print_table, progress, say, table
from .cli_options import JsonOption
from .errors import InputError, StillframeError

if TYPE_CHECKING:
    from .lab.lab import Lab
    from .lab.spec import LabSpec, Writes
    from .lab.status import LabStatus

DEFAULT_FOLDER = Path("/var/tmp/stillframe-lab")  # noqa: S108  sockets need a short path
UP_EXIT_CODES = (
    "Exit codes: 0 done, 2 the input or the machine cannot be used, 3 failed (nothing is left), "
    "130 interrupted with Ctrl-C (nothing is left)."
)
DOWN_EXIT_CODES = (
    "Exit codes: 0 nothing is left, 2 the input cannot be used, 3 something could not be ended, "
    "130 interrupted with Ctrl-C."
)
VERIFY_EXIT_CODES = (
    "Exit codes: 0 every image is worth what the run reported, 1 one is not, 2 the input cannot be "
    "used, 3 failed, 130 interrupted with Ctrl-C."
)

lab_app = typer.Typer(help="A live lab: QEMU guests on datastores on the units of an open array.")
FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Where all of the lab lies; a short path.")
]
_T = TypeVar("_T")
_LOAD = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(?:x\s*(.*?)\s*)?$")


@lab_app.command(epilog=UP_EXIT_CODES)
def up(
    folder: FolderArgument = DEFAULT_FOLDER,
    array: Annotated[
        str, typer.Option("--array", metavar="NAME", help="On which array: qsd, xfs or ceph.")
    ] = "qsd",
    guests: Annotated[int, typer.Option("--guests", metavar="N", help="How many guests.")] = 4,
    datastores: Annotated[
        int, typer.Option("--datastores", metavar="N", help="How many datastores.")
    ] = 2,
    units: Annotated[
        int, typer.Option("--units", metavar="N", help="How many units of the array.")
    ] = 2,
    wide: Annotated[
        int,
        typer.Option("--wide", metavar="N", help="So many guests have disks on two datastores."),
    ] = 1,
    load: Annotated[
        str,
        typer.Option(
            "--load",
            metavar="RATE[xSIZE]",
            help="Records per second that each guest writes, and their size; or 'none'.",
        ),
    ] = "100x4KiB",
    as_json: JsonOption = False,
) -> None:
    """Bring up a lab that stays until `lab down`. Needs root and takes seconds."""
    from .lab.needs import check_host
    from .lab.spec import LabSpec
    from .topology.yamlfile import validate

    asked = {
        "array": array,
        "guests": guests,
        "datastores": datastores,
        "units": units,
        "wide": wide,
        "writer": _writes(load),
    }
    spec = validate(LabSpec, asked, "lab up")
    check_host(spec.array)
    lab = _made(spec, folder)
    if as_json:
        emit_json(
            {
                "folder": str(lab.folder),
                "config": str(lab.config_file),
                "spec": spec.model_dump(mode="json"),
                "took_s": lab.took_s,
            }
        )
        return
    _tell_made(lab)


def _writes(load: str) -> Writes | None:
    from .lab.spec import Writes
    from .topology.yamlfile import validate

    if load.strip() == "none":
        return None
    match = _LOAD.match(load)
    if match is None:
        raise InputError("--load", "", f"{load!r} is no load", "write 100, 50x64KiB or none")
    asked: dict[str, Any] = {"rate_per_s": float(match[1])}
    if match[2] is not None:
        asked["record_bytes"] = match[2]
    return validate(Writes, asked, "--load")


def _made(spec: LabSpec, folder: Path) -> Lab:
    from .lab.lab import bring_up

    with progress("Bringing up the lab") as show:
        return run_to_the_end(bring_up(spec, folder, tell=lambda step: show(step, None)))


def _tell_made(lab: Lab) -> None:
    spec = lab.spec
    parts = (
        count(spec.guests, "guest"),
        count(spec.datastores, "datastore"),
        f"{count(spec.units, 'unit')} of {spec.array.value}",
    )
    say(f"A lab of {', '.join(parts)} is up in {lab.folder}, in {sum(lab.took_s.values()):.1f} s.")
    say("  " + ", ".join(f"{step} {took_s:.2f} s" for step, took_s in lab.took_s.items()))
    say(f"Next:   stillframe run --live {lab.config_file}")
    say(f"To end: stillframe lab down {lab.folder}")


@lab_app.command(epilog=DOWN_EXIT_CODES)
def down(folder: FolderArgument = DEFAULT_FOLDER) -> None:
    """Take down a lab, whatever state it is in, and remove its folder. May be repeated."""
    if os.geteuid() != 0:
        raise InputError("lab", "", "needs root: it unmounts file systems and ends processes")
    _need_library()
    from .lab.teardown import take_down

    was_there = folder.exists()
    with progress("Taking down the lab") as show:

        def tell(step: str) -> None:
            show(step, None)
            if " " in step:
                notice(step)

        run_to_the_end(take_down(folder, tell))
    say(f"{folder}: {'nothing of the lab is left' if was_there else 'there was no lab'}.")


@lab_app.command()
def status(folder: FolderArgument = DEFAULT_FOLDER, as_json: JsonOption = False) -> None:
    """Show a lab's guests, datastores and units, and the snapshots that jobs keep on its array."""
    _need_library()
    from .lab.lab import Lab
    from .lab.status import status_of

    lab = Lab.open(folder)
    found = status_of(lab)
    snapshots, trouble = run_to_the_end(_snapshots(lab))
    if as_json:
        emit_json(found.as_dict() | {"snapshots": snapshots, "trouble": trouble})
        return
    _print_status(lab, found)
    rows = table("Array snapshots of jobs", ("tag", "units"))
    for one in snapshots:
        rows.add_row(one["tag"], ", ".join(one["units"]))
    print_table(rows)
    if trouble:
        say(f"The array could not be asked for its snapshots: {trouble}.")
    elif not snapshots:
        say("The array holds no snapshot of a job.")


@lab_app.command(epilog=VERIFY_EXIT_CODES)
def verify(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The result folder of a job on the lab.")
    ],
    lab: Annotated[
        Path, typer.Option("--lab", metavar="FOLDER", help="The lab's folder.")
    ] = DEFAULT_FOLDER,
    as_json: JsonOption = False,
) -> int:
    """Read every guest image of a job's unit snapshots, and hold it against what was reported."""
    _need_library()
    from .cli_lab_verify import verify_command

    return verify_command(run, lab, as_json=as_json)


def _print_status(lab: Lab, found: LabStatus) -> None:
    say(f"Lab on {lab.spec.array.value} in {lab.folder}")
    rows = table("Guests", ("guest", "state", "disks on", "records", "last ack"), right=(3, 4))
    for guest in found.guests:
        age = "" if guest.last_ack_age_s is None else f"{guest.last_ack_age_s:.1f} s ago"
        rows.add_row(guest.name, guest.state, ", ".join(guest.datastores), str(guest.acks), age)
    print_table(rows)
    rows = table("Datastores", ("datastore", "unit", "used", "state"), right=(2,))
    for place in found.datastores:
        used = "" if place.used_bytes is None else f"{place.used_bytes / 2**20:.0f} MiB"
        rows.add_row(place.name, place.unit, used, "mounted" if place.mounted else "not mounted")
    print_table(rows)


async def _snapshots(lab: Lab) -> tuple[list[dict[str, Any]], str]:
    """The group snapshots on the array that jobs made; or why it could not be asked."""
    from .live_systems import open_systems
    from .scenarios.live import load_live

    config = load_live(lab.config_file)
    try:
        async with open_systems(config, lambda _label, _share: None, only_arrays=True) as systems:
            found = [
                {"tag": one.ref.tag, "id": one.ref.snapshot_id, "units": list(one.unit_ids)}
                for array in systems.arrays.values()
                for one in await array.list_snapshots("")
            ]
    except StillframeError as error:
        return [], str(error)
    return found, ""


def _need_library() -> None:
    import importlib.util

    if importlib.util.find_spec("qemu.qmp") is None:
        raise InputError("lab", "", "needs qemu.qmp", "install stillframe[qemu]")


def run_to_the_end(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run it; Ctrl-C and SIGTERM cancel it, as often as they come, and it cleans up all the same.

    Raises
    ------
    KeyboardInterrupt
        It was cancelled.
    """

    async def main() -> _T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine that runs has a task
        # asyncio's own handler raises at a second Ctrl-C, in the middle of cleaning up.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        return await coroutine

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
