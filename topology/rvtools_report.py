"""What an import of an export could not do, what it assumed, and what a user should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding takes away from the result."""

    CANNOT = "cannot"
    """Something is missing, and something is therefore not possible."""
    ASSUMED = "assumed"
    """Something is missing or ambiguous, and a stated assumption stands in for it."""
    NOTE = "note"
    """Nothing is missing, but it matters for snapshots."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about an import.

    Attributes
    ----------
    severity:
        What it takes away.
    tab, column:
        Where in the export; ``column`` is empty when the whole tab is meant.
    count:
        How many objects are concerned; 0 when it is about the export as a whole.
    sentence:
        The same for people, with the first few names.
    """

    severity: Severity
    tab: str
    column: str
    count: int
    sentence: str


class Report:
    """Collects findings; the result is sorted by severity, else in order of appearance."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []

    def add(self, severity: Severity, tab: str, column: str, sentence: str, count: int = 0) -> None:
        """Enter one finding."""
        self._findings.append(Finding(severity, tab, column, count, sentence))

    def about(
        self,
        severity: Severity,
        tab: str,
        column: str,
        names: Sequence[str],
        noun: str,
        sentence: str,
    ) -> None:
        """Enter a finding about some objects, if there are any: ``3 datastores (a, b, c): …``."""
        if names:
            text = f"{many(len(names), noun)} ({examples(names)}): {sentence}"
            self.add(severity, tab, column, text, len(names))

    def findings(self) -> tuple[Finding, ...]:
        """All findings, the severest first."""
        order = list(Severity)
        return tuple(sorted(self._findings, key=lambda finding: order.index(finding.severity)))


class Tally:
    """Names of objects by what is to be said about them."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, topic: str, name: str) -> None:
        """Enter one object."""
        self._names.setdefault(topic, []).append(name)

    def names(self, topic: str) -> list[str]:
        """The objects entered under a topic."""
        return self._names.get(topic, [])


def many(count: int, noun: str) -> str:
    """``1 disk``, ``2 disks``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def examples(names: Sequence[str], most: int = 3) -> str:
    """The first few different names, and how many there are besides."""
    distinct = list(dict.fromkeys(names))
    text = ", ".join(distinct[:most])
    return text if len(distinct) <= most else f"{text} and {len(distinct) - most} more"
