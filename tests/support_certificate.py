"""Made-up results of suites, for tests of certificates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stillframe.certify.array_bench import ArrayBench
from stillframe.certify.certificate import Body, body_of
from stillframe.certify.outcome import Outcome, Sample, SuiteResult, Verdict
from stillframe.certify.requirement import Level, Requirement


async def _never(bench: ArrayBench) -> None:
    raise AssertionError("made-up requirements are not tried")


def requirement(number: int, level: Level, sentence: str, **rest: Any) -> Requirement[ArrayBench]:
    """A requirement of the topic *data*, or of that in ``topic``."""
    topic = rest.pop("topic", "data")
    return Requirement(f"ARR-DAT-{number:02}", sentence, topic, level, _never, **rest)


REQUIREMENTS = (
    requirement(1, Level.CORE, "A driver shall list what there is.", topic="lifecycle"),
    requirement(2, Level.DATA, "A snapshot shall hold the bytes of the cut.", units=2),
    requirement(3, Level.GROUP, "A group call shall cut all units at one point in time."),
    requirement(4, Level.DATA, "A clone shall leave its parent alone.", capability="clones"),
    requirement(5, Level.FAULT, "A restart shall lose nothing.", hooks=("restart",)),
    requirement(6, Level.FAULT, "A full pool shall be told.", hooks=("full_pool", "place_of")),
    requirement(7, Level.PERFORMANCE, "Durations shall be within what the vendor states."),
)
TORN = {"sequence": ["1 on unit 0", "3 on unit 1"], "missing": 2, "atomic": False, "gap_s": 0.25}
EVENT = {
    "call": "snapshot_group",
    "with": "GroupSnapshotRequest(unit_ids=('a/lun-1',), tag='t', fence_timeout_s=30.0)",
    "start_s": 0.5,
    "duration_s": 0.031,
    "result": "UnknownOutcomeError: the answer was lost <at the switch>",
}
SAMPLES = tuple(
    Sample("snapshot", {"units": units, "load": load}, tuple(scale * units * s for s in (1, 2, 4)))
    for units in (1, 2, 4)
    for load, scale in (("none", 0.004), ("heavy", 0.02))
)
OUTCOMES = (
    Outcome("ARR-DAT-01", Verdict.PASS, seed="1/ARR-DAT-01", duration_s=0.25),
    Outcome(
        "ARR-DAT-02", Verdict.PASS, evidence={"rounds": 40}, written_bytes=8192, compared_bytes=4096
    ),
    Outcome("ARR-DAT-03", Verdict.FAIL, "write 2 is missing although 3 is there", TORN, (EVENT,)),
    Outcome("ARR-DAT-04", Verdict.ABSENT, "the driver declares clones: False"),
    Outcome("ARR-DAT-05", Verdict.NOT_TESTED, "the target does not offer restart"),
    Outcome("ARR-DAT-06", Verdict.BLOCKED, "a group snapshot failed: pool <full>"),
    Outcome("ARR-DAT-07", Verdict.PASS, samples=SAMPLES),
)
RESULT = SuiteResult(
    "array",
    "acme array",
    "acme.target.AcmeTarget",
    "acme.driver.AcmeArray",
    "acme-array 2.1",
    {"method": "copy-on-write", "atomic_groups": True, "units_per_group": None, "clones": False},
    ("snapshots_on_device",),
    {"snapshot_p95_s": 0.2},
    {"array": "Acme 9000 <lab>", "firmware": "7.3"},
    1,
    "standard",
    OUTCOMES,
    12.5,
)


def outcome(number: int, **changes: Any) -> Outcome:
    """An outcome from above, with changes."""
    return replace(OUTCOMES[number - 1], **changes)


def body(*outcomes: Outcome, **changes: Any) -> Body:
    """A certificate's body: of the outcomes above, or of those given."""
    result = replace(RESULT, outcomes=outcomes or OUTCOMES, **changes)
    return body_of(
        result, REQUIREMENTS, run="1", only=(), made_at="2026-01-05T21:00:00+00:00", wall_s=1.5
    )


def good(**changes: Any) -> Body:
    """One that is conformant."""
    return body(OUTCOMES[0], OUTCOMES[1], OUTCOMES[4], OUTCOMES[6], **changes)
