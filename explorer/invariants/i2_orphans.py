"""I2: nothing of ours is left behind."""

from __future__ import annotations

from ...drivers.contracts import VmSnapshot
from ...orchestrator.events import Kind
from ...orchestrator.journal import LeaseLostError
from ..calls import CREATE, REMOVE
from ..evidence import Evidence, JobStory
from ..report import Violation

ID = "I2 orphans"
SENTENCE = (
    "After a job, or recovery from a crash at any point, none of our VM snapshots, deltas or "
    "uncatalogued array snapshots remain, late completions included."
)


def check(evidence: Evidence) -> list[Violation]:
    """Look at what the hypervisors and arrays hold when everything has come to rest."""
    found: list[Violation] = []
    for vm_id, state in evidence.states.items():
        ours = [one for one in state.chain if not one.foreign]
        found += [
            Violation(
                ID,
                f"{vm_id} {'has a delta left of' if one.loose else 'still has'} {one.ref.tag}",
                vm_id,
            )
            for one in ours
        ]
        if state.stunned or state.operation:
            what = f"busy with {state.operation}" if state.operation else "stopped"
            found.append(Violation(ID, f"{vm_id} is still {what}", vm_id))
    named = {(ref.array_id, ref.tag) for entry in evidence.entries for ref in entry.cuts}
    for held in evidence.held:
        ref = held.snapshot.ref
        if evidence.job_of(ref.tag) is not None and (ref.array_id, ref.tag) not in named:
            found.append(
                Violation(ID, f"{ref.array_id} holds {ref.tag}, which no entry names", ref.array_id)
            )
    for story in evidence.jobs:
        found += _false_report(story)
        found += _not_released(evidence, story)
    if evidence.world.in_flight:
        found.append(Violation(ID, f"{evidence.world.in_flight} operations never ended"))
    return found


def _false_report(story: JobStory) -> list[Violation]:
    """A job that ended by itself names in its result all that it leaves behind."""
    result = story.result
    if result is None or story.error is not None:
        return []
    kept = {ref.tag for entry in result.catalogue for ref in entry.cuts}
    told = " ".join(result.orphans)
    return [
        Violation(ID, f"{story.job_id} ended and did not tell that {sentence}", story.job_id)
        for sentence, tag in story.truth_at_end
        if tag not in kept and f"{tag} " not in f"{told} "
    ]


def _not_released(evidence: Evidence, story: JobStory) -> list[Violation]:
    """When a group is over, each snapshot that was made for it has been asked to go.

    A job that died, or was taken over, leaves that to the recovery.
    """
    if story.plan is None or story.result is None or isinstance(story.error, LeaseLostError):
        return []
    asked: dict[str, float] = {}
    for call in evidence.calls_of(REMOVE):
        if call.life == story.life:
            asked.setdefault(call.asked.tag, call.begun_s)
    began_s = story.began_s or 0.0
    over = {row[3]: row[0] for row in evidence.of(Kind.GROUP_FINISHED) if row[0] >= began_s}
    group_of = {vm: group.group_id for group in story.plan.groups for vm in group.vm_ids}
    found = []
    for call in evidence.calls_of(CREATE):
        if call.life != story.life or not isinstance(call.answer, VmSnapshot):
            continue
        tag = call.answer.ref.tag
        over_s = over.get(group_of.get(call.subject, ""))
        if over_s is not None and asked.get(tag, float("inf")) > over_s:
            sentence = f"{tag} on {call.subject} was not released with its group"
            found.append(Violation(ID, sentence, call.subject, over_s))
    return found
