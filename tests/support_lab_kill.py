"""Jobs on a live lab in which somebody is killed at an exact point, and what is left of them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from support_lab_run import ARRAY, claim_of, configured, goes_on, judge, left_on, systems, unit_ids

from stillframe.lab.lab import Lab
from stillframe.lab.verify import ImageVerdict
from stillframe.live_journal import read_journal
from stillframe.orchestrator.journal import StoredEntry
from stillframe.scenarios.live import load_live

GUEST = "vm-0"
FEW = 3
_FROZEN_S = 20.0
"""A guest that has written nothing for so long is taken for frozen."""
_CHILD = Path(__file__).with_name("support_lab_kill_child.py")
_AGENT = "stillframe.drivers.qemu_agent:Agent.call"
_MONITOR = "stillframe.drivers.qemu_monitor:Monitor.execute"
_CUTTER = "stillframe.orchestrator.arraycalls:ArrayCutter.cut"
_KEEP = "stillframe.orchestrator.sqlite_journal:SqliteJournal.keep"
_COMMANDS = {
    "qsd": "stillframe.drivers.qsd_monitor:Monitor.change#transaction",
    "ceph": "stillframe.drivers.ceph_link:CephLink.ask#snapshot",
}
SHORT = {
    "create": "30 s",
    "remove": "20 s",
    "array": "20 s",
    "query": "10 s",
    "settle": "2 s",
}
"""How long a job waits for what is dead."""
_numbers = count()


class Kill(NamedTuple):
    """Who dies during a job, and when.

    ``place`` and ``when`` are those of support_lab_kill_child.py; ``victim`` is a function from the
    lab to the file with the number of a process, or None for the job's own process.
    """

    place: str
    when: str
    victim: Callable[[Lab], Path] | None = None
    count: int = 1


def qemu_of(lab: Lab) -> Path:
    """Where the number of the guest's QEMU is."""
    return lab.guests[GUEST].pid_file


def daemon_of(lab: Lab) -> Path:
    """Where the number of the process that serves the array's units is."""
    name = {"qsd": "daemon.pid", "ceph": "gateway.pid"}[lab.spec.array]
    return lab.folder / "array" / name


JOB_KILLS = {
    "guest-frozen": Kill(f"{_AGENT}#fsfreeze-freeze", "after"),
    "overlays-made": Kill(f"{_MONITOR}#transaction", "after"),
    "guest-thawed": Kill(f"{_AGENT}#fsfreeze-thaw", "after"),
    "array-cutting": Kill(_CUTTER, "before"),
    "array-cut": Kill(_CUTTER, "after"),
    "catalogued": Kill(_KEEP, "after"),
    "merging": Kill(f"{_MONITOR}#block-commit", "after"),
    "merge-pending": Kill(f"{_MONITOR}#job-finalize", "before"),
    "one-disk-merged": Kill(f"{_MONITOR}#job-finalize", "after"),
    "merged": Kill(f"{_MONITOR}#job-finalize", "after", count=2),
}
"""The job's process dies."""
QEMU_KILLS = {
    "guest-frozen": Kill(f"{_MONITOR}#transaction", "before", qemu_of),
    "overlays-made": Kill(f"{_MONITOR}#transaction", "after", qemu_of),
    "array-cutting": Kill(_CUTTER, "before", qemu_of),
    "merging": Kill(f"{_MONITOR}#block-commit", "after", qemu_of),
    "merge-pending": Kill(f"{_MONITOR}#job-finalize", "before", qemu_of),
    "one-disk-merged": Kill(f"{_MONITOR}#job-finalize", "after", qemu_of),
}
"""The guest's QEMU dies."""


def array_kills(array: str) -> dict[str, Kill]:
    """The array's daemon dies; an array of files has none."""
    place = _COMMANDS.get(array)
    if place is None:
        return {}
    return {
        "before-the-cut": Kill(place, "before", daemon_of),
        "after-the-cut": Kill(place, "after", daemon_of),
    }


class Survived(NamedTuple):
    """What is left of a job in which somebody was killed, after recovery and a power failure.

    Attributes
    ----------
    code:
        The exit code of the job.
    said:
        What it and the recovery wrote.
    frozen:
        The guest did not write on by itself, or not after the recovery.
    recovered:
        ``recover`` found everything in order, or brought it there.
    left:
        Files, markers and mounts of a job.
    strays:
        Array snapshots without an entry, and entries without their array snapshot.
    entries:
        How many entries the catalogue has gained.
    verdicts:
        On the images of those entries.
    lost:
        Disks that lack an acknowledged record after the guest was off and on again, or hold a bad
        one.
    """

    code: int
    said: str
    frozen: bool
    recovered: bool
    left: list[str]
    strays: list[str]
    entries: int
    verdicts: list[ImageVerdict]
    lost: list[str]

    @property
    def is_whole(self) -> bool:
        """Nothing is frozen, left, lost, or worth less than it says."""
        wrong = self.frozen or self.left or self.strays or self.lost
        return self.recovered and not wrong and all(one.holds for one in self.verdicts)


def survive(lab: Lab, kill: Kill) -> Survived:
    """Run a job, have somebody killed in it, bring back what died, recover, and look."""
    return asyncio.run(_survive(lab, kill))


async def _survive(lab: Lab, kill: Kill) -> Survived:
    assert await goes_on(lab, GUEST, FEW)
    config = configured(
        lab, "killed", timeouts=SHORT, retry={"attempts": 2, "first_pause": "50 ms"}
    )
    known = {entry.job_id for entry in _entries(config)}
    killed = await asyncio.to_thread(_run_and_kill, lab, config, kill)
    lost: list[str] = []
    if kill.victim is daemon_of:
        await lab.restart_array()
    if not lab.is_running(GUEST):
        lost += await _lost_after_start(lab)
    # Before anybody recovers: what nobody thaws would stand still for ever.
    frozen = not await goes_on(lab, GUEST, FEW, _FROZEN_S)
    recovery = await asyncio.to_thread(_stillframe, "recover", config)
    frozen = frozen or not await goes_on(lab, GUEST, FEW, _FROZEN_S)
    left = left_on(lab)
    strays = await _strays(lab, config)
    fresh = [entry for entry in _entries(config) if entry.job_id not in known]
    verdicts = await _verify_entries(lab, fresh)
    await lab.kill_guest(GUEST)
    lost += await _lost_after_start(lab)
    return Survived(
        code=killed.returncode,
        said=killed.stdout + killed.stderr + recovery.stdout + recovery.stderr,
        frozen=frozen,
        recovered=recovery.returncode == 0,
        left=left,
        strays=strays,
        entries=len(fresh),
        verdicts=verdicts,
        lost=lost,
    )


DIED = -signal.SIGKILL
"""The exit code of a process that was killed, as subprocess tells it."""


def _run_and_kill(lab: Lab, config: Path, kill: Kill) -> subprocess.CompletedProcess[str]:
    victim = "self" if kill.victim is None else str(kill.victim(lab))
    out = lab.folder / f"out-{next(_numbers)}"
    words: list[str | Path] = [sys.executable, _CHILD, kill.place, kill.when, str(kill.count)]
    words += [victim, "run", "--live", config, "--out", out]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def _stillframe(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stillframe", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def _entries(config: Path) -> list[StoredEntry]:
    journal = load_live(config).journal
    if not journal.exists():
        return []
    store = read_journal(journal)
    try:
        return store.entries()
    finally:
        store.close()


async def _strays(lab: Lab, config: Path) -> list[str]:
    """Tags of ours that only the array or only the catalogue knows."""
    named = {cut.tag for entry in _entries(config) for cut in entry.cuts}
    async with systems(lab) as opened:
        held = await opened.arrays[ARRAY].list_snapshots("stillframe-")
    return sorted({one.ref.tag for one in held} ^ named)


async def _verify_entries(lab: Lab, entries: Sequence[StoredEntry]) -> list[ImageVerdict]:
    """What these entries are worth; those that the array does not hold are strays, not images."""
    async with systems(lab) as opened:
        array = opened.arrays[ARRAY]
        held = {one.ref.tag: one for one in await array.list_snapshots("stillframe-")}
        units = await unit_ids(lab, array)
        claims = []
        for entry in entries:
            cuts = [held[cut.tag] for cut in entry.cuts if cut.tag in held]
            refs = {unit: one.ref for one in cuts for unit in one.unit_ids}
            if set(entry.unit_ids) <= set(refs):
                name = entry.vm_id.partition("/")[2]
                claims.append(claim_of(lab, name, refs, units=units, level=entry.level))
        return await judge(lab, opened, claims)


async def _lost_after_start(lab: Lab) -> list[str]:
    """Start the guest, which is off, and its writer; what it lacks of all it ever acknowledged."""
    acked = max(ack.seq for ack in lab.acks(GUEST))
    await lab.start_guest(GUEST)
    reports = await lab.check_in_guest(GUEST)
    await lab.start_writer(GUEST)
    return [
        f"disk {number}: {report}, and {acked} was acknowledged"
        for number, report in enumerate(reports)
        if report.bad or report.missing or report.max_seq < acked
    ]
