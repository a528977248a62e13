"""Journals of jobs that died, made by hand over the systems of ``support_live_front``."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from support_live_front import World

from stillframe.drivers.contracts import ConsistencyLevel, GroupSnapshot, GroupSnapshotRef
from stillframe.live_journal import LEASE_S, Holder, open_journal, read_journal
from stillframe.orchestrator.journal import Intent, IntentKind, JobRecord, StoredEntry
from stillframe.orchestrator.result import CatalogueEntry

DAY_S = 86_400.0
JOURNAL = Path("tonight.journal")
"""That of the configuration that ``support_live_front.config`` writes."""


def dead() -> str:
    """A holder that is no process any more, under a number that is one."""
    return str(Holder.here()._replace(started="1"))


def alive() -> str:
    """A holder that is a process: this one."""
    return str(Holder.here())


def crashed(
    world: World,
    job_id: str = "20260102t030405-aaaaaa",
    *,
    name: str = "tonight",
    holder: str | None = None,
    journal: Path = JOURNAL,
    settle_s: float = 1000.0,
) -> str:
    """A job that died with a VM snapshot open on vm3 and a cut that is in no entry; its id.

    It began ``settle_s`` ago, so that a recovery does not wait for creates that are still out.
    """
    tag, cut = f"stillframe-{job_id}-1", f"stillframe-{job_id}-2"
    store = open_journal(journal, create=True)
    store._clock = lambda: time.time() - settle_s
    held = store.begin(
        job_id,
        name=name,
        spec="{}",
        holder=dead() if holder is None else holder,
        lease_s=settle_s + LEASE_S,
    )
    held.intend(Intent(tag, IntentKind.VM_SNAPSHOT, "vc", "vc/vm3", 0.0))
    held.intend(Intent(cut, IntentKind.ARRAY_SNAPSHOT, "a1", "a1", 0.0))
    store.close()
    world.hypervisor.add_foreign("vc/vm3", tag)
    ref = GroupSnapshotRef("a1", f"gs-{job_id}", cut)
    world.array.snapshots.append(GroupSnapshot(ref, ("a1/lun0",)))
    return job_id


def keep(
    world: World,
    age_s: float,
    *vm_ids: str,
    journal: Path = JOURNAL,
    there: bool = True,
    finished: bool = True,
) -> str:
    """A job that has catalogued these VMs so long ago; its id.

    ``there``: the array holds its snapshot; ``finished``: it has not died afterwards.
    """
    job_id = f"20250101t{round(age_s):06d}-bbbbbb"
    ref = GroupSnapshotRef("a1", f"gs-{job_id}", f"stillframe-{job_id}-1")
    store = open_journal(journal, create=True)
    store._clock = lambda: time.time() - age_s
    held = store.begin(job_id, name="tonight", spec="{}", holder=dead(), lease_s=LEASE_S)
    level = ConsistencyLevel.FILESYSTEM
    held.keep(
        [
            CatalogueEntry(vm_id, level, 0.0, (ref,), ("a1/lun0",), vm_id.rpartition("/")[2])
            for vm_id in vm_ids
        ],
        now_s=0.0,
    )
    if finished:
        held.finish("protected")
    store.close()
    if there:
        world.array.snapshots.append(GroupSnapshot(ref, ("a1/lun0",)))
    return job_id


def jobs(journal: Path = JOURNAL) -> dict[str, JobRecord]:
    """What the journal knows of each job."""
    with contextlib.closing(read_journal(journal)) as store:
        return {job.job_id: job for job in store.jobs()}


def entries(journal: Path = JOURNAL) -> list[StoredEntry]:
    """The catalogue."""
    with contextlib.closing(read_journal(journal)) as store:
        return store.entries()


def array_tags(world: World) -> list[str]:
    """Tags of the snapshots that the array holds."""
    return [one.ref.tag for one in world.array.snapshots]
