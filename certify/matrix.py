"""Several certificates on one page: what each driver declares, and what each was shown to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .certificate import Body, Result
from .folder import Certificate
from .outcome import Verdict
from .page import environment, reasons, shown


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the matrix: a cell per certificate."""

    head: str
    note: str
    cells: tuple[str | Result | None, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Lines that belong together."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The matrix of one kind of driver."""

    kind: str
    certificates: tuple[Certificate, ...]
    parts: tuple[Part, ...]
    requirements: tuple[Part, ...]

    def why(self, certificate: Certificate) -> list[tuple[str, str, list[Result]]]:
        """Verdict, reason and requirements of all that is not a pass."""
        kinds = (Verdict.FAIL, Verdict.BLOCKED, Verdict.NOT_TESTED, Verdict.ABSENT)
        return [
            (verdict.value, reason, results)
            for verdict in kinds
            for reason, results in reasons(certificate.body, verdict)
        ]


def render_matrix(certificates: Sequence[Certificate]) -> str:
    """The page; drivers in the order in which their certificates are given."""
    kinds = list(dict.fromkeys(one.body.kind for one in certificates))
    sheets = [
        _sheet(kind, [one for one in certificates if one.body.kind == kind]) for kind in kinds
    ]
    page = environment().get_template("matrix.html.j2")
    return page.render(sheets=sheets, verdicts=list(Verdict))


def _sheet(kind: str, certificates: Sequence[Certificate]) -> Sheet:
    bodies = [one.body for one in certificates]
    hooks = sorted({hook for body in bodies for hook in body.hooks})
    parts = (
        Part("What the driver declares", _declared(bodies)),
        Part("Requirements met, of those tried", _levels(bodies)),
        Part(
            "What the target could do beside the driver",
            tuple(
                Row(_words(hook), "", tuple("yes" if hook in one.hooks else "no" for one in bodies))
                for hook in hooks
            ),
        ),
    )
    return Sheet(kind, tuple(certificates), parts, _requirements(bodies))


def _declared(bodies: Sequence[Body]) -> tuple[Row, ...]:
    names = dict.fromkeys(name for body in bodies for name in body.capabilities)
    return tuple(
        Row(_words(name), "", tuple(_declares(body.capabilities, name) for body in bodies))
        for name in names
    )


def _declares(capabilities: Mapping[str, object], name: str) -> str | None:
    if name not in capabilities:
        return None
    value = capabilities[name]
    return "no limit" if value is None else shown(value)


def _levels(bodies: Sequence[Body]) -> tuple[Row, ...]:
    levels = dict.fromkeys(level for body in bodies for level in body.levels)
    return tuple(
        Row(level.value, "", tuple(_met(body.levels.get(level)) for body in bodies))
        for level in levels
    )


def _met(counts: Mapping[Verdict, int] | None) -> str | None:
    if counts is None:
        return None
    tried = counts[Verdict.PASS] + counts[Verdict.FAIL] + counts[Verdict.BLOCKED]
    return f"{counts[Verdict.PASS]} of {tried}"


def _requirements(bodies: Sequence[Body]) -> tuple[Part, ...]:
    known: dict[str, dict[str, Result]] = {}
    for body in bodies:
        for result in body.requirements:
            known.setdefault(result.topic, {}).setdefault(result.id, result)
    found = [{result.id: result for result in body.requirements} for body in bodies]
    return tuple(
        Part(
            topic,
            tuple(
                Row(one.id, one.sentence, tuple(results.get(one.id) for results in found))
                for one in sorted(rows.values(), key=lambda result: result.id)
            ),
        )
        for topic, rows in known.items()
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
