"""``stillframe lab verify``: what the images of a run on a lab are worth, against its report."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .cli_common import ExitCode, count, emit_json, notice, print_table, progress, say, table
from .errors import InputError
from .lab.lab import Lab
from .lab.verify import ImageVerdict, verify_run
from .lab.verify_claims import Slice
from .live_systems import Tell, open_systems
from .reports.folder import read_folder
from .reports.rundata import RunData
from .scenarios.live import load_live


def verify_command(run_folder: Path, lab_folder: Path, *, as_json: bool) -> int:
    """Judge every image that a run reported; 1 when one is worth less than that.

    Raises
    ------
    InputError
        The folders hold no result and no lab, or the run was not on this lab.
    DriverError
        The lab's array cannot be reached.
    """
    run = read_folder(run_folder)
    lab = Lab.open(lab_folder)
    _must_be_of(run, lab, run_folder)
    with progress("Verifying") as show:
        verdicts = _verdicts(run, lab, show)
    holds = all(one.holds for one in verdicts)
    if as_json:
        emit_json(
            {
                "run": str(run_folder),
                "lab": str(lab.folder),
                "images": [asdict(one) | {"holds": one.holds} for one in verdicts],
                "holds": holds,
            }
        )
    else:
        _print(verdicts, holds=holds)
    return ExitCode.PROTECTED if holds else ExitCode.PARTLY


def _must_be_of(run: RunData, lab: Lab, run_folder: Path) -> None:
    if run.catalogue.is_empty():
        raise InputError(str(run_folder), "", "the run protected no VM: there is nothing to verify")
    names = {str(vm_id).partition("/")[2] for vm_id in run.catalogue["vm_id"]}
    strangers = sorted(names - set(lab.guests))
    if strangers:
        problem = f"VM {strangers[0]!r} is none of the lab in {lab.folder}"
        raise InputError(str(run_folder), "", problem, "name the lab of this run with --lab")


def _verdicts(run: RunData, lab: Lab, show: Tell) -> list[ImageVerdict]:
    slices = {
        at: Slice(place.offset_bytes, place.size_bytes)
        for at, place in zip(lab.datastores, lab.spec.places(), strict=True)
    }

    async def main() -> list[ImageVerdict]:
        async with open_systems(load_live(lab.config_file), show, only_arrays=True) as systems:
            show("images", None)
            return await verify_run(
                run,
                systems.arrays,
                lab.folder,
                acks={name: lab.acks(name) for name in lab.guests},
                writes=lab.spec.writer,
                slices=slices,
            )

    with asyncio.Runner() as runner:
        return runner.run(main())


def _print(verdicts: Sequence[ImageVerdict], *, holds: bool) -> None:
    columns = ("VM", "reported", "found", "fsck", "journal", "bad", "missing", "last", "acked", "")
    rows = table(count(len(verdicts), "image"), columns, right=(5, 6, 7, 8))
    for one in verdicts:
        rows.add_row(
            one.vm,
            one.level_reported.value,
            one.level_found.value,
            "clean" if one.fsck_clean else "not clean",
            "replayed" if one.replayed else "empty",
            str(one.bad),
            str(one.missing),
            " ".join(str(seq) for seq in one.max_seq),
            "" if one.acked_before is None else f"{one.acked_before}–{one.acked_after}",
            "" if one.holds else "worth less",
        )
    print_table(rows)
    for one in verdicts:
        if one.problem:
            say(f"{one.vm}: {one.problem}.")
    if not holds:
        worse = sum(not one.holds for one in verdicts)
        notice(f"{count(worse, 'image')} of {len(verdicts)} worth less than the run reported")
