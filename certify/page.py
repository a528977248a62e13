"""The certificate as one HTML file that needs nothing else: no network, no script, no manual."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..quantity import format_bytes, format_seconds
from ..reports.html import Tile
from .certificate import Body, Result
from .outcome import Verdict
from .requirement import Level

LEVELS: Mapping[Level, str] = {
    Level.CORE: "what every driver does: mapping, snapshots, listing, deletion, errors",
    Level.GROUP: "units of one group call are cut at one point in time",
    Level.DATA: "the bytes are what they have to be",
    Level.FAULT: "what a driver says and leaves behind when something breaks",
    Level.PERFORMANCE: "how long it takes; judged only against what the vendor states",
}
TONES: Mapping[Verdict, str] = {
    Verdict.PASS: "good",
    Verdict.FAIL: "bad",
    Verdict.BLOCKED: "bad",
    Verdict.ABSENT: "soft",
    Verdict.NOT_TESTED: "fair",
}
MARKS: Mapping[Verdict, str] = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.BLOCKED: "!",
    Verdict.ABSENT: "∅",
    Verdict.NOT_TESTED: "–",
}
"""Read without colour."""
MEANINGS: Mapping[Verdict, str] = {
    Verdict.PASS: "tried, and the requirement is met",
    Verdict.FAIL: "tried, and the requirement is broken",
    Verdict.BLOCKED: "could not be tried: something failed that the requirement is not about",
    Verdict.ABSENT: "the driver declares that it cannot do this",
    Verdict.NOT_TESTED: "this target cannot show it",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as PNG, with its heading and how to read it."""

    name: str
    title: str
    caption: str
    png: bytes

    @property
    def data(self) -> str:
        """What an image's address holds."""
        return base64.b64encode(self.png).decode()


def render(body: Body, pictures: Sequence[Picture], signed_by: str | None) -> str:
    """The page.

    Parameters
    ----------
    signed_by:
        The fingerprint of the key that the certificate is signed with; None when it is not.
    """
    return (
        environment()
        .get_template("certificate.html.j2")
        .render(
            body=body,
            sentence=sentence(body),
            tiles=_tiles(body),
            levels=LEVELS,
            topics=[(name, list(rows)) for name, rows in _topics(body.requirements)],
            wrong=body.of(Verdict.FAIL, Verdict.BLOCKED),
            untested=reasons(body, Verdict.NOT_TESTED),
            absent=reasons(body, Verdict.ABSENT),
            pictures=pictures,
            signed_by=signed_by,
            verdicts=list(Verdict),
        )
    )


def _topics(rows: Sequence[Result]) -> Any:
    return groupby(rows, key=lambda row: row.topic)


def sentence(body: Body) -> str:
    """What came of it, in one sentence that claims no more than was tried."""
    tried = len(body.of(Verdict.PASS, Verdict.FAIL))
    passed, failed = body.summary[Verdict.PASS], body.summary[Verdict.FAIL]
    blocked, untested = body.summary[Verdict.BLOCKED], body.summary[Verdict.NOT_TESTED]
    parts = [f"{passed} of {tried} requirements that were tried are met"]
    if failed:
        parts.append(f"{failed} {'is' if failed == 1 else 'are'} broken")
    if blocked:
        parts.append(f"{blocked} could not be tried because something else failed")
    if untested:
        parts.append(f"{untested} {'was' if untested == 1 else 'were'} not tested")
    return f"{'; '.join(parts)}."


def reasons(body: Body, verdict: Verdict) -> list[tuple[str, list[Result]]]:
    """The requirements with a verdict, gathered under their reasons, in order."""
    gathered: dict[str, list[Result]] = {}
    for result in body.of(verdict):
        gathered.setdefault(result.reason, []).append(result)
    return list(gathered.items())


def _tiles(body: Body) -> list[Tile]:
    summary = body.summary
    compared = sum(result.compared_bytes for result in body.requirements)
    written = sum(result.written_bytes for result in body.requirements)
    comparing = sum(bool(result.compared_bytes) for result in body.requirements)
    tried = len(body.of(Verdict.PASS, Verdict.FAIL))
    bad = summary[Verdict.FAIL] + summary[Verdict.BLOCKED]
    return [
        Tile(f"{summary[Verdict.PASS]:,} of {tried:,}", "requirements met", "of those tried",
             "bad" if bad else "good"),
        Tile(f"{bad:,}", "broken or blocked", tone="bad" if bad else ""),
        Tile(f"{summary[Verdict.NOT_TESTED]:,}", "not tested", "listed below by name",
             "fair" if summary[Verdict.NOT_TESTED] else ""),
        Tile(f"{summary[Verdict.ABSENT]:,}", "absent as declared", "the driver says it cannot"),
        Tile(f"{comparing:,}", "requirements compared data",
             f"{format_bytes(written)} written, {format_bytes(compared)} compared"),
        Tile(format_seconds(body.duration_s), "on the suite's clock",
             f"{format_seconds(body.made.wall_s)} in real time"),
    ]  # fmt: skip


@functools.cache
def environment() -> Environment:
    """Of the kit's pages: what drivers and targets say is escaped, always."""
    made = Environment(
        loader=PackageLoader("stillframe.certify", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["seconds"] = format_seconds
    made.filters["bytes"] = format_bytes
    made.filters["shown"] = shown
    made.globals["tone_of"] = lambda verdict: TONES[Verdict(verdict)]
    made.globals["mark_of"] = lambda verdict: MARKS[Verdict(verdict)]
    made.globals["meaning_of"] = lambda verdict: MEANINGS[Verdict(verdict)]
    return made


def shown(value: Any) -> str:
    """A value that a check noted, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and not any(isinstance(one, list | dict) for one in value):
        return ", ".join(shown(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
