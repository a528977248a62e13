"""A process that is killed while it writes: what it was told is durable is in the file."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support_store import Clock, tags_of

from stillframe.orchestrator.sqlite_store import SqliteStore

LIVES = 6

WRITER = """
import sys
from stillframe.drivers.contracts import ConsistencyLevel, GroupSnapshotRef
from stillframe.orchestrator.journal import Intent, IntentKind
from stillframe.orchestrator.result import CatalogueEntry
from stillframe.orchestrator.sqlite_store import SqliteStore

path, job_id = sys.argv[1:]
store = SqliteStore(path, clock=lambda: 0.0)
journal = store.begin(job_id, name="", spec="{}", holder="writer", lease_s=0.0)
for number in range(10**9):
    tags = [f"stillframe-{job_id}-{2 * number + i}" for i in range(2)]
    for tag in tags:
        journal.intend(Intent(tag, IntentKind.ARRAY_SNAPSHOT, "a1", "a1", 0.0))
        print("intended", tag, flush=True)
    cuts = (GroupSnapshotRef("a1", "id", tags[1]),)
    vms = [f"vm{number}-{i}" for i in range(3)]
    journal.keep([CatalogueEntry(vm, ConsistencyLevel.CRASH, 0.0, cuts, ()) for vm in vms], 0.0)
    print("kept", number, tags[1], flush=True)
    if number % 3 == 0:
        journal.withdraw(vms, "old")
        print("withdrawn", number, tags[1], flush=True)
"""


def life(path: Path, job_id: str, lines: int) -> list[list[str]]:
    """Let a process write, kill it after so many reports; all that it reported in its life."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, job_id], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        reports = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        reports += writer.stdout.readlines()
    assert writer.returncode == -signal.SIGKILL
    return [line.split() for line in reports if line.endswith("\n")]


def expected(reports: Sequence[Sequence[str]]) -> tuple[list[str], set[str]]:
    """Tags of the intents that are open after these reports, and VMs in the catalogue."""
    open_tags: list[str] = []
    vms: set[str] = set()
    for word, *rest in reports:
        if word == "intended":
            open_tags.append(rest[0])
            continue
        group = {f"vm{rest[0]}-{i}" for i in range(3)}
        if word == "kept":
            open_tags.remove(rest[1])
            vms |= group
        else:
            open_tags.append(rest[1])
            vms -= group
    return open_tags, vms


def following(job_id: str, reports: Sequence[Sequence[str]]) -> list[str]:
    """The report that would have come next."""
    last = reports[-1]
    if last[0] == "intended":
        number = int(last[1].rpartition("-")[2])
        if number % 2 == 0:
            return ["intended", f"stillframe-{job_id}-{number + 1}"]
        return ["kept", str(number // 2), last[1]]
    number = int(last[1])
    if last[0] == "kept" and number % 3 == 0:
        return ["withdrawn", last[1], last[2]]
    return ["intended", f"stillframe-{job_id}-{2 * number + 2}"]


def test_what_was_reported_durable_is_in_the_file_and_at_most_one_step_more(
    tmp_path: Path,
) -> None:
    path, source = tmp_path / "store.db", random.Random(7)
    earlier: dict[str, list[tuple[str, str]]] = {}
    for number in range(LIVES):
        job_id = f"job{number}"
        reports = life(path, job_id, source.randrange(1, 120))
        store = SqliteStore(path, clock=Clock())
        for before, entries in earlier.items():
            assert [(one.job_id, one.vm_id) for one in store.entries() if one.job_id == before] == (
                entries
            )
        journal = store.take_over(job_id, holder="test", lease_s=1.0)
        found = (tags_of(journal), {one.vm_id for one in journal.kept()})
        assert found in (
            expected(reports),
            expected([*reports, following(job_id, reports)]),
        )
        earlier[job_id] = [(one.job_id, one.vm_id) for one in journal.kept()]
        if number % 2:
            store.close()
        else:
            store.abandon()
