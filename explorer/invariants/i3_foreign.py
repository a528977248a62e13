"""I3: what others made stays as it is."""

from __future__ import annotations

from ...drivers.contracts import MergeResult, VmSnapshot
from ...orchestrator.events import Kind
from ..calls import CONSOLIDATE, CREATE, DELETE, REMOVE
from ..evidence import Evidence
from ..report import Violation

ID = "I3 foreign"
SENTENCE = "Nothing that we did not create is ever removed or changed."


def check(evidence: Evidence) -> list[Violation]:
    """Compare what others had by identity, and look at what we asked to be removed."""
    return [*_vm_snapshots(evidence), *_array_snapshots(evidence), *_asked(evidence)]


def _vm_snapshots(evidence: Evidence) -> list[Violation]:
    found = []
    for vm_id, before in evidence.foreign.items():
        chain = evidence.states[vm_id].chain
        now = {one.ref.snapshot_id: one.loose for one in chain if one.foreign}
        for snapshot_id in before:
            was_loose = snapshot_id in evidence.loose
            if snapshot_id in now and now[snapshot_id] == was_loose:
                continue
            if was_loose and _had_to_merge(evidence, vm_id):
                continue
            sentence = f"{vm_id} has lost {snapshot_id}, which was there before"
            found.append(Violation(ID, sentence, vm_id))
    return found


def _had_to_merge(evidence: Evidence, vm_id: str) -> bool:
    """Whether a delta of our own may have lain on the VM: a hypervisor merges all there are.

    That is so when a create or removal of ours did not end well, or nobody heard how it ended.
    Where a process died, or a vCenter did not list its VMs, there may be more such VMs.
    """
    silent = any(row[3] == "list_snapshots" for row in evidence.of(Kind.CALL_RETRIED))
    if silent or any(story.result is None or story.error is not None for story in evidence.jobs):
        return True
    return any(
        call.subject == vm_id and not isinstance(call.answer, VmSnapshot | MergeResult)
        for call in evidence.calls_of(CREATE, REMOVE)
    )


def _array_snapshots(evidence: Evidence) -> list[Violation]:
    held = {one.snapshot.ref: one for one in evidence.held}
    given_up = {(row[3], row[4]) for row in evidence.of("world.array.invalidated")}
    return [
        Violation(ID, f"{ref.array_id} has lost {ref.tag}, which was there before", ref.array_id)
        for ref in evidence.planted
        if (ref not in held or held[ref].deleting) and (ref.array_id, ref.tag) not in given_up
    ]


def _asked(evidence: Evidence) -> list[Violation]:
    """Removals are asked for by tags of this run's jobs, and merges where we made a snapshot."""
    found = []
    ours = {row[3] for row in evidence.of(Kind.VM_SNAPSHOT_REQUESTED)}
    for call in evidence.calls_of(REMOVE, DELETE):
        if evidence.job_of(call.asked.tag) is None:
            sentence = f"process {call.life} asked {call.subject} to remove {call.asked.tag}"
            found.append(Violation(ID, sentence, call.subject, call.begun_s))
    for call in evidence.calls_of(CONSOLIDATE):
        if call.subject not in ours:
            sentence = f"process {call.life} had {call.subject} merged and never meant to open it"
            found.append(Violation(ID, sentence, call.subject, call.begun_s))
    return found
