"""The labs of ``make evidence-lab``: jobs, controls and kills on one array, as plain numbers."""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support_lab_kill import (
    JOB_KILLS,
    QEMU_KILLS,
    Survived,
    array_kills,
    survive,
)
from support_lab_run import (
    ARRAY,
    claim_of,
    configured,
    cut,
    judge,
    left_on,
    more_acks,
    run_job,
    standing_lab,
    systems,
    unit_ids,
    verify,
)

from stillframe.lab.lab import Lab
from stillframe.lab.spec import LabSpec
from stillframe.lab.verify import ImageLevel, ImageVerdict
from stillframe.reports.rundata import RunData

GUESTS = 4
WIDE = "vm-3"
JOBS = 5
SPLITS = 3
BETWEEN = 5
"""Records that are acknowledged between the two calls of a cut unit by unit."""
TRIES = {"qsd": 10, "xfs": 10, "ceph": 3}
"""Ceph's clones are full copies, and take their time."""
EVERY_KILL_ON = "qsd"
SOME_KILLS = ("guest-frozen", "array-cutting", "array-cut", "merging", "after-the-cut")
"""On the other arrays: moments at which the array takes part, and two at which a guest is held."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """What was reported of an image and found in it; ``ends`` are its last records, counted from
    the last one acknowledged before the freeze."""

    reported: str
    level_found: str
    bad: int
    missing: int
    ends: tuple[int, ...]


@dataclass
class OnArray:
    """All that was counted and measured on one array."""

    array: str
    jobs: int = 0
    protected: int = 0
    quiesced: list[Image] = field(default_factory=list)
    unquiesced: list[Image] = field(default_factory=list)
    strays: int = 0
    split_tries: int = 0
    split_torn: int = 0
    hasty_tries: int = 0
    hasty_torn: int = 0
    group_tries: int = 0
    group_torn: int = 0
    lost_disks: int = 0
    left: int = 0
    quiesce_ms: float | None = None
    array_ms: float | None = None
    merge_ms: float | None = None


def on_array(array: str, tell: Tell) -> OnArray:
    """Jobs and controls on a lab of four guests."""
    spec = LabSpec(array=array, guests=GUESTS, wide=1, datastores=2, units=3)
    found = OnArray(array)
    tell(f"{array}: a lab of {GUESTS} guests")
    with standing_lab(spec) as lab:
        data = _jobs(lab, found, tell)
        _without_quiescing(lab, found, tell)
        asyncio.run(_cuts(lab, found, tell))
        found.left = len(left_on(lab))
        found.lost_disks = asyncio.run(_off_and_on(lab))
    found.quiesce_ms = _median_ms(data, "vms", "quiesce_s")
    found.merge_ms = _median_ms(data, "vms", "merge_s")
    found.array_ms = _median_ms(data, "calls", "snapshot_s")
    return found


def _jobs(lab: Lab, found: OnArray, tell: Tell) -> list[RunData]:
    made = []
    for number in range(JOBS):
        asyncio.run(_all_write(lab))
        ran = run_job(lab.config_file, lab.folder / f"quiesced-{number}")
        verdicts = asyncio.run(verify(lab, ran.data))
        found.jobs += 1
        found.protected += ran.code == 0
        found.quiesced += [_image(one) for one in verdicts]
        found.strays += asyncio.run(_strays(lab, ran.data))
        made.append(ran.data)
        tell(f"{lab.spec.array}: job {number + 1} of {JOBS}: {_summary(verdicts)}")
    return made


async def _strays(lab: Lab, data: RunData) -> int:
    """How many units beyond those with guests the snapshots of a run hold, asked of the array."""
    async with systems(lab) as opened:
        array = opened.arrays[ARRAY]
        carrying = set((await unit_ids(lab, array))[: lab.spec.datastores])
        held = set()
        for tag in data.calls["tag"]:
            for one in await array.list_snapshots(tag):
                held.update(one.unit_ids)
        return len(held - carrying)


def _without_quiescing(lab: Lab, found: OnArray, tell: Tell) -> None:
    config = configured(lab, "unquiesced", quiesce={"policy": "skip"})
    ran = run_job(config, lab.folder / "unquiesced")
    verdicts = asyncio.run(verify(lab, ran.data))
    found.unquiesced += [_image(one) for one in verdicts]
    tell(f"{lab.spec.array}: without quiescing: {_summary(verdicts)}")


async def _cuts(lab: Lab, found: OnArray, tell: Tell) -> None:
    for _ in range(SPLITS):
        found.split_tries += 1
        found.split_torn += await _is_torn(lab, at_once=False, between=BETWEEN)
    for _ in range(TRIES[lab.spec.array]):
        found.hasty_tries += 1
        found.hasty_torn += await _is_torn(lab, at_once=False, between=0)
        found.group_tries += 1
        found.group_torn += await _is_torn(lab, at_once=True, between=0)
    tell(
        f"{lab.spec.array}: wide guest torn in {found.split_torn} of {found.split_tries} cuts with "
        f"writes between, {found.hasty_torn} of {found.hasty_tries} without, "
        f"{found.group_torn} of {found.group_tries} group calls"
    )


async def _is_torn(lab: Lab, *, at_once: bool, between: int) -> bool:
    """Cut the units of the wide guest together or one by one; whether its image is torn."""
    async with systems(lab) as opened:
        array = opened.arrays[ARRAY]
        units = (await unit_ids(lab, array))[:2]
        await more_acks(lab, WIDE, 1)
        made = []
        for number, group in enumerate([units] if at_once else [[unit] for unit in units]):
            if number and between:
                await more_acks(lab, WIDE, between)
            made.append(await cut(array, f"evidence-{number}", *group))
        refs = {unit: one.ref for one in made for unit in one.unit_ids}
        (verdict,) = await judge(lab, opened, [claim_of(lab, WIDE, refs, units=units)])
        for one in reversed(made):
            await array.delete_snapshot(one.ref)
    return verdict.level_found is ImageLevel.TORN


async def _off_and_on(lab: Lab) -> int:
    """Turn guests off, half of them as by a power failure, and on; disks that lack a record."""
    lost = 0
    for number, name in enumerate(lab.guests):
        if number % 2:
            await lab.kill_guest(name)
        else:
            await lab.stop_guest(name)
        acked = max(ack.seq for ack in lab.acks(name))
        await lab.start_guest(name)
        for report in await lab.check_in_guest(name):
            lost += bool(report.bad or report.missing or report.max_seq < acked)
    return lost


def killed(array: str, tell: Tell) -> list[dict[str, Any]]:
    """Jobs on a lab of one wide guest, in each of which somebody is killed."""
    spec = LabSpec(array=array, guests=1, wide=1, datastores=2, units=2)
    kills = [
        *(("the job", place, kill) for place, kill in JOB_KILLS.items()),
        *(("QEMU", place, kill) for place, kill in QEMU_KILLS.items()),
        *(("the array's daemon", place, kill) for place, kill in array_kills(array).items()),
    ]
    found = []
    with standing_lab(spec) as lab:
        for who, place, kill in kills:
            if array != EVERY_KILL_ON and place not in SOME_KILLS:
                continue
            survived = survive(lab, kill)
            found.append(_counted(who, survived))
            well = "all is well" if survived.is_whole else f"NOT WELL: {survived}"
            tell(f"{array}: {who} killed at {place}: {well}")
    return found


def _counted(who: str, survived: Survived) -> dict[str, Any]:
    return {
        "who": who,
        "guests left frozen": int(survived.frozen),
        "recoveries that did not end well": int(not survived.recovered),
        "overlays, markers and mounts left": len(survived.left),
        "array snapshots without entry, or the reverse": len(survived.strays),
        "disks that lost an acknowledged write": len(survived.lost),
        "images worth less than their entry says": sum(not one.holds for one in survived.verdicts),
    }


async def _all_write(lab: Lab) -> None:
    for name in lab.guests:
        await more_acks(lab, name, BETWEEN)


def _image(verdict: ImageVerdict) -> Image:
    before = -1 if verdict.acked_before is None else verdict.acked_before
    return Image(
        reported=verdict.level_reported.value,
        level_found=verdict.level_found.value,
        bad=verdict.bad,
        missing=verdict.missing,
        ends=tuple(last - before for last in verdict.max_seq),
    )


def _summary(verdicts: Sequence[ImageVerdict]) -> str:
    levels = [one.level_found.value for one in verdicts]
    return ", ".join(f"{levels.count(level)} {level}" for level in dict.fromkeys(levels))


def _median_ms(runs: Sequence[RunData], table: str, column: str) -> float | None:
    values = [one for run in runs for one in run.tables()[table][column].drop_nulls()]
    return round(1e3 * statistics.median(values), 1) if values else None
