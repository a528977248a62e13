"""I9: everything comes to an end."""

from __future__ import annotations

from ...orchestrator.result import JobStatus, VmStatus
from ..evidence import Evidence, JobStory
from ..report import Violation

ID = "I9 terminates"
SENTENCE = "Every job ends in bounded virtual time once faults stop."


def check(evidence: Evidence) -> list[Violation]:
    """No deadlock, no error that nobody expects, nothing unfinished, and results that add up."""
    found = [Violation(ID, sentence) for sentence in evidence.trouble]
    found += [
        Violation(ID, f"job {job_id} is not over after every round of recovery", job_id)
        for job_id in evidence.unfinished
    ]
    for story in evidence.jobs:
        found += _adds_up(story)
    return found


def _adds_up(story: JobStory) -> list[Violation]:
    result, plan = story.result, story.plan
    if result is None or plan is None:
        return []
    problems = []
    told = [one.vm_id for one in result.vms]
    if sorted(told) != sorted(plan.selected):
        problems.append("its result does not name each selected VM once")
    entries = {one.vm_id for one in result.catalogue}
    for one in result.vms:
        if one.status is VmStatus.PENDING:
            problems.append(f"{one.vm_id} is still pending")
        if (one.status is VmStatus.PROTECTED) != (one.vm_id in entries):
            problems.append(f"{one.vm_id} is {one.status} and has {_entries(one.vm_id, entries)}")
        if one.status is VmStatus.UNPROTECTED and not one.reason:
            problems.append(f"{one.vm_id} is unprotected for no reason")
    protected = len(entries)
    if result.status is JobStatus.PROTECTED and (protected < len(told) or result.orphans):
        problems.append(f"it says protected, with {protected} of {len(told)} VMs")
    return [Violation(ID, f"job {story.job_id}: {one}", story.job_id) for one in problems]


def _entries(vm_id: str, entries: set[str]) -> str:
    return "an entry" if vm_id in entries else "no entry"
