"""I8: what the catalogue promises is there."""

from __future__ import annotations

from ...drivers.contracts import ConsistencyLevel, GroupSnapshot, VmSnapshot
from ...orchestrator.events import Kind
from ...orchestrator.journal import StoredEntry
from ..calls import CREATE, LIST_ARRAY, REMOVE, SNAPSHOT, Call
from ..evidence import Evidence, PruneStory
from ..report import Violation

ID = "I8 catalogue"
SENTENCE = "Every entry is restorable, every snapshot of ours is in it."


_SPEAKS_AGAINST = (
    "world.fault",
    "world.array.invalidated",
    "vm.snapshot.failed",
    "vm.snapshot.lost",
    "vm.moved-during-cut",
    "array.snapshot.failed",
    "call.retried",
)


def check(evidence: Evidence) -> list[Violation]:
    """Hold the catalogue against what the arrays hold; I2 holds the arrays against it."""
    found = []
    for entry in evidence.entries:
        problem = _not_restorable(evidence, entry) or _overstated(evidence, entry)
        if problem:
            found.append(Violation(ID, f"{entry.vm_id}: {problem}", entry.vm_id))
    for story in evidence.prunes:
        found += _floor(evidence, story)
    return [*found, *_results(evidence), *_two_hands(evidence), *_lost_cuts(evidence)]


def _not_restorable(evidence: Evidence, entry: StoredEntry) -> str:
    held = {one.snapshot.ref: one for one in evidence.held}
    units: set[str] = set()
    for ref in entry.cuts:
        one = held.get(ref)
        if one is None or not one.complete or one.deleting or not one.valid:
            if _given_up_since(evidence, ref.array_id, ref.tag):
                return ""
            return f"its entry names {ref.tag}, which {ref.array_id} does not hold"
        units.update(one.snapshot.unit_ids)
    missing = [unit for unit in entry.unit_ids if unit not in units]
    if missing or not entry.cuts:
        return f"its entry promises {missing or 'something'}, which is in none of its snapshots"
    return ""


def _given_up_since(evidence: Evidence, array_id: str, tag: str) -> bool:
    """The array gave the snapshot up for its space, after anybody looked at the array."""
    looked_s = _looked_s(evidence, array_id, tag)
    return any(
        row[3] == array_id and row[4] == tag and row[0] >= looked_s
        for row in evidence.of("world.array.invalidated")
    )


def _looked_s(evidence: Evidence, array_id: str, tag: str) -> float:
    """When anybody last looked whether the array holds what entries of this tag's job name.

    A recovery looks when it begins. A job does just before it writes its catalogue; what it asks
    the array afterwards, in its sweep, is about creates whose outcome is open.
    """
    written = [row[0] for row in evidence.of(Kind.CATALOGUED) if tag in row[4].split()]
    asked = (tag, tag.rpartition("-")[0] + "-")
    looks = [
        call
        for call in evidence.calls_of(LIST_ARRAY)
        if call.subject == array_id and isinstance(call.answer, list) and call.asked in asked
    ]
    if not looks:
        return 0.0
    life = looks[-1].life
    times = [call.begun_s for call in looks if call.life == life]
    if any(story.life == life for story in evidence.jobs):
        until_s = written[-1] if written else times[-1]
        return max((at_s for at_s in times if at_s <= until_s), default=until_s)
    return times[0]


def _overstated(evidence: Evidence, entry: StoredEntry) -> str:
    """The level is no stronger than what a hypervisor ever reported for this VM."""
    reported = [
        call.answer.level
        for call in evidence.calls_of(CREATE)
        if call.subject == entry.vm_id and isinstance(call.answer, VmSnapshot)
    ]
    best = min(reported, key=lambda level: level.rank, default=ConsistencyLevel.CRASH)
    if entry.level.rank < best.rank:
        return f"its entry claims {entry.level}, and {best} is the best that was ever reported"
    return ""


def _floor(evidence: Evidence, story: PruneStory) -> list[Violation]:
    """Pruning takes from no VM the last entry that can be restored.

    An entry of an unknown level vouches for nothing; and what an array gave up is not pruning's.
    """
    rows = evidence.of("world.array.invalidated")
    given_up = {row[4] for row in rows if row[0] <= story.ended_s}
    held = story.restorable_before - given_up
    good = {entry.vm_id for entry in story.before if _is_good(entry, held)}
    left = {entry.vm_id for entry in story.after if _is_good(entry, held)}
    return [
        Violation(ID, f"{vm_id} had a good entry, and pruning left it none", vm_id)
        for vm_id in sorted(good - left)
    ]


def _is_good(entry: StoredEntry, held: frozenset[str]) -> bool:
    known = entry.level is not ConsistencyLevel.UNKNOWN
    return known and all(ref.tag in held for ref in entry.cuts)


def _lost_cuts(evidence: Evidence) -> list[Violation]:
    """A VM whose cut was complete when its release began is in the catalogue, who dies or not.

    Judged where nothing else speaks against a VM: no fault, no event, no cancellation, no rival,
    and nobody pruned.
    """
    options = evidence.options
    if evidence.prunes or options.rival or options.events or options.cancel_s is not None:
        return []
    if evidence.of(*_SPEAKS_AGAINST):
        return []
    kept = {(entry.job_id, entry.vm_id) for entry in evidence.entries}
    jobs = {story.life: story.job_id for story in evidence.jobs}
    found = []
    for call in evidence.calls_of(REMOVE):
        job_id = jobs.get(call.life)
        if job_id is None or (job_id, call.subject) in kept:
            continue
        if _was_cut(evidence, call):
            sentence = f"{call.subject} was cut and released, and has no entry of {job_id}"
            found.append(Violation(ID, sentence, call.subject, call.begun_s))
    return found


def _was_cut(evidence: Evidence, removal: Call) -> bool:
    """Whether the job that removes a VM's snapshot had snapshots of all its units by then."""
    had: set[str] = set()
    for call in evidence.calls_of(SNAPSHOT):
        if call.life != removal.life or not isinstance(call.answer, GroupSnapshot):
            continue
        if call.ended_s is not None and call.ended_s <= removal.begun_s:
            had.update(call.answer.unit_ids)
    lying = next(one.lying for one in evidence.moves if one.lying.vm.id == removal.subject)
    units = evidence.units_under(lying)
    return bool(units) and set(units) <= had


def _two_hands(evidence: Evidence) -> list[Violation]:
    """Nobody writes to the journal of a job that another has taken over."""
    holder: dict[str, int] = {}
    found: dict[tuple[int, str], Violation] = {}
    for life, job_id, took in evidence.hands:
        if took:
            holder[job_id] = life
        elif holder[job_id] != life and (life, job_id) not in found:
            sentence = f"process {life} wrote to {job_id}, which process {holder[job_id]} had taken"
            found[life, job_id] = Violation(ID, sentence, job_id)
    return list(found.values())


def _results(evidence: Evidence) -> list[Violation]:
    """What a job that ended by itself says of its catalogue is what it kept."""
    found = []
    for story in evidence.jobs:
        if story.result is None or story.error is not None:
            continue
        told = [(one.vm_id, one.level, one.cuts) for one in story.result.catalogue]
        kept = [(one.vm_id, one.level, one.cuts) for one in story.kept_at_end]
        found += [
            Violation(ID, f"{story.job_id} told of an entry that it did not keep", one[0])
            for one in told
            if one not in kept
        ]
        found += [
            Violation(ID, f"{story.job_id} kept an entry that it did not tell of", one[0])
            for one in kept
            if one not in told
        ]
    return found
