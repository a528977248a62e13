"""Removing what an earlier job left behind, because somebody asked for that job by its result.

Nothing here looks for jobs: another orchestrator may be at work on the same systems, and its open
snapshots look like leftovers. What is removed carries a tag of the one job that is named, and no
catalogue entry of that job needs it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..drivers.contracts import ArrayDriver, HypervisorDriver
from ..drivers.records import ArrayId, VCenterId, VmId
from ..topology.graph import Topology
from .context import Context, VmWork, WorkFactory
from .events import EventLog
from .journal import Intent, IntentKind
from .lease import Tenure
from .memory_store import throwaway_journal
from .reconcile import Findings, Manner, Reconciliation
from .result import VmOutcome
from .spec import JobSpec

Clearance = Findings
"""What a clearing has done and not managed."""

CLEARING = "clearing"
MANNER = Manner(CLEARING, wait_for_unseen=False, try_again=False)
"""The job has waited for its lost creates itself, before it wrote its result."""


@dataclass(frozen=True, slots=True)
class EarlierJob:
    """A job that has ended, as its result tells of it.

    Attributes
    ----------
    kept_tags:
        Tags of the array snapshots that its catalogue names; they stay.
    unsettled:
        VMs of which it asked for a snapshot and never saw the end of the merge: what they have
        under way is waited for, and a delta that lies about on them is merged.
    """

    job_id: str
    kept_tags: frozenset[str] = frozenset()
    unsettled: frozenset[VmId] = frozenset()


async def clear_leftovers(
    earlier: EarlierJob,
    spec: JobSpec,
    topology: Topology,
    hypervisors: Mapping[VCenterId, HypervisorDriver],
    arrays: Mapping[ArrayId, ArrayDriver],
    *,
    random: random.Random,
    tell: Callable[[str], None] = lambda _sentence: None,
) -> Clearance:
    """Remove what is left of an earlier job; doing it again finds nothing and changes nothing.

    VM snapshots are removed and their deltas merged, array snapshots outside ``kept_tags``
    deleted, under the limits, time limits and retries of ``spec``. Operations that are still
    under way on its unsettled VMs are waited for, ``timeouts.settle`` seconds at most.

    Parameters
    ----------
    topology:
        Every VM of every hypervisor, as they are now.
    random:
        The source of jitter between repetitions.
    tell:
        Hears each sentence of the answer when it becomes true.

    Raises
    ------
    asyncio.CancelledError
        The caller was cancelled; the next call goes on where this one stopped.
    """
    context = Context(
        job_id=earlier.job_id,
        spec=spec,
        hypervisors=hypervisors,
        arrays=arrays,
        topology=topology,
        random=random,
        log=EventLog(),
        journal=Tenure(throwaway_journal(earlier.job_id, asyncio.get_running_loop().time)),
    )
    context.now_s = asyncio.get_running_loop().time
    factory = WorkFactory(context)
    works: dict[VmId, VmWork] = {}

    def work_of(vm_id: VmId) -> VmWork:
        if vm_id not in works:
            vm = topology.vm(vm_id)
            works[vm_id] = factory.work(vm, VmOutcome(vm_id, vm.name, CLEARING))
        return works[vm_id]

    search = Reconciliation(context, MANNER, work_of, kept_tags=earlier.kept_tags, tell=tell)
    for vm_id in topology.vm_ids:
        if vm_id in earlier.unsettled:
            context.journal.intend(_something_on(context, vm_id))
    await search.intend_all(topology.vm_ids)
    search.say_what_is_left(await search.run([*arrays]))
    return search.findings


def _something_on(context: Context, vm_id: VmId) -> Intent:
    """An intent for whatever the job may have under way on a VM; no snapshot has its tag."""
    tag = f"{context.tag_prefix}on-{vm_id}"
    vcenter_id = context.topology.vm(vm_id).vcenter_id
    return Intent(tag, IntentKind.VM_SNAPSHOT, vcenter_id, vm_id, context.now_s())
