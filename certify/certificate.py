"""What a certificate says: the outcomes of a suite, the requirements in full, where it was made.

The same seed on a modelled target gives the same body but for ``made``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..orchestrator.spec import Section
from .outcome import Outcome, SuiteResult, Verdict
from .requirement import Level, Requirement

CONFORMANT = "conformant"
NOT_CONFORMANT = "not conformant"
_SOURCES = (".py", ".j2")


class Kit(Section):
    """What judged: ``digest`` is that of the kit's sources (:func:`kit_digest`)."""

    version: str
    digest: str
    python: str
    platform: str


class Made(Section):
    """When, in real time; ``duration_s`` beside it is on the suite's own clock."""

    at: str
    wall_s: float


class Measured(Section):
    """Durations of one kind of operation under circumstances that ``labels`` name."""

    name: str
    labels: dict[str, Any]
    values_s: tuple[float, ...]


class Result(Section):
    """One requirement and what came of it; see Requirement and Outcome for the fields."""

    id: str
    sentence: str
    topic: str
    level: Level
    capability: str | None
    hooks: tuple[str, ...]
    units: int
    roles: tuple[str, ...]
    verdict: Verdict
    reason: str
    evidence: dict[str, Any]
    events: tuple[dict[str, Any], ...]
    samples: tuple[Measured, ...]
    seed: str
    duration_s: float
    written_bytes: int
    compared_bytes: int


class Body(Section):
    """All that a certificate says; see SuiteResult for the fields that it shares with it.

    Attributes
    ----------
    only:
        Identifiers of the requirements that were asked for; empty when all were.
    run:
        The word in the tags of this run.
    verdict:
        ``conformant`` when something passed, nothing failed and nothing was blocked.
    summary, levels:
        How many requirements have each verdict; in all, and by level.
    """

    kind: str
    target: str
    target_class: str
    driver: str
    driver_package: str
    capabilities: dict[str, Any]
    hooks: tuple[str, ...]
    limits: dict[str, float]
    environment: dict[str, str]
    seed: int
    run: str
    effort: str
    only: tuple[str, ...]
    duration_s: float
    kit: Kit
    made: Made
    verdict: str
    summary: dict[Verdict, int]
    levels: dict[Level, dict[Verdict, int]]
    requirements: tuple[Result, ...]

    @property
    def conformant(self) -> bool:
        """Whether the verdict is that it is."""
        return self.verdict == CONFORMANT

    def of(self, *verdicts: Verdict) -> list[Result]:
        """The requirements with one of these verdicts, in order."""
        return [one for one in self.requirements if one.verdict in verdicts]

    def plain(self) -> dict[str, Any]:
        """The body as JSON has it."""
        return dict(plain(self.model_dump(mode="json")))

    def odds(self) -> str:
        """What in it does not fit together, in one sentence; empty when all does."""
        if self.summary != _summary(self.requirements):
            return "the numbers of verdicts are not those of the requirements"
        if self.levels != _levels(self.requirements):
            return "the numbers of verdicts by level are not those of the requirements"
        if self.verdict != _verdict(self.summary):
            return f"the verdicts do not make it {self.verdict}"
        twice = [
            name for name, times in Counter(r.id for r in self.requirements).items() if times > 1
        ]
        return f"{twice[0]} is in it twice" if twice else ""


def body_of(
    result: SuiteResult,
    requirements: Sequence[Requirement[Any]],
    *,
    run: str,
    only: Iterable[str],
    made_at: str,
    wall_s: float,
) -> Body:
    """What a certificate says of a suite's result.

    Parameters
    ----------
    requirements:
        Those that the suite was given, with every one that has an outcome among them.
    run:
        The word in its tags.
    only:
        What was asked for; empty for all.
    made_at, wall_s:
        Date and time in ISO 8601, and how long it took in real time.
    """
    known = {one.id: one for one in requirements}
    rows = tuple(_row(known[one.requirement_id], one) for one in result.outcomes)
    summary = _summary(rows)
    return Body(
        kind=result.kind,
        target=plain(result.target),
        target_class=result.target_class,
        driver=result.driver,
        driver_package=result.driver_package,
        capabilities=plain(result.capabilities),
        hooks=result.hooks,
        limits=plain(dict(sorted(result.limits.items()))),
        environment={str(plain(name)): str(plain(v)) for name, v in result.environment.items()},
        seed=result.seed,
        run=run,
        effort=result.effort,
        only=tuple(sorted(only)),
        duration_s=result.duration_s,
        kit=Kit(
            version=importlib.metadata.version("stillframe"),
            digest=kit_digest(),
            python=f"{platform.python_implementation()} {platform.python_version()}",
            platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        ),
        made=Made(at=made_at, wall_s=round(wall_s, 3)),
        verdict=_verdict(summary),
        summary=summary,
        levels=_levels(rows),
        requirements=rows,
    )


def _row(requirement: Requirement[Any], outcome: Outcome) -> Result:
    return Result(
        id=requirement.id,
        sentence=requirement.sentence,
        topic=requirement.topic,
        level=requirement.level,
        capability=requirement.capability,
        hooks=requirement.hooks,
        units=requirement.units,
        roles=requirement.roles,
        verdict=outcome.verdict,
        reason=plain(outcome.reason),
        evidence=plain(outcome.evidence),
        events=tuple(plain(event) for event in outcome.events),
        samples=tuple(
            Measured(name=one.name, labels=plain(one.labels), values_s=one.values_s)
            for one in outcome.samples
        ),
        seed=outcome.seed,
        duration_s=outcome.duration_s,
        written_bytes=outcome.written_bytes,
        compared_bytes=outcome.compared_bytes,
    )


def _summary(rows: Iterable[Result]) -> dict[Verdict, int]:
    counted = Counter(row.verdict for row in rows)
    return {verdict: counted[verdict] for verdict in Verdict}


def _levels(rows: Sequence[Result]) -> dict[Level, dict[Verdict, int]]:
    return {
        level: _summary(row for row in rows if row.level is level)
        for level in Level
        if any(row.level is level for row in rows)
    }


def _verdict(summary: Mapping[Verdict, int]) -> str:
    bad = summary[Verdict.FAIL] + summary[Verdict.BLOCKED]
    return CONFORMANT if summary[Verdict.PASS] and not bad else NOT_CONFORMANT


def plain(value: Any) -> Any:
    """``value`` as JSON holds it, the same in every process, whatever a check noted.

    Sets are sorted, bytes become hexadecimal, numbers that JSON has not become words, and letters
    that UTF-8 has not are written with a backslash.
    """
    if isinstance(value, str):
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(plain(str(key))): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=canonical)
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    return plain(str(value))


def canonical(value: Any) -> bytes:
    """The one form of a JSON value that is signed: keys sorted, no white space, UTF-8.

    Numbers are in the shortest form that reads back to the same double, as Python writes them.
    """
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode()


def kit_digest() -> str:
    """SHA-256 over the names and contents of the kit's source files, in order of their names."""
    folder = Path(__file__).parent
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda one: one.relative_to(folder).as_posix()):
        if path.suffix in _SOURCES:
            name = path.relative_to(folder).as_posix().encode()
            content = path.read_bytes()
            whole.update(b"%d %s %d " % (len(name), name, len(content)) + content)
    return whole.hexdigest()
