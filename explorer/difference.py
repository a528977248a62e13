"""Where two runs part: a difference of two event traces that a person can read.

Two runs of one scenario do the same things in another interleaving as soon as one draw differs, so
that a line-by-line comparison shows hundreds of rows of which one matters. Rows are therefore
compared lane by lane. A lane is what was done with one VM, one cut, one group or the job, in order:
inside a lane one event is the reason for the next; between lanes order is often chance. Tags and
the job's identifier are left out of the comparison, for they name the run and not what it did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple

from ..orchestrator.events import Kind, Row
from ..quantity import format_seconds

_ALIGNED = 400
"""Rows of one lane that are aligned behind the first difference; the cost grows with its square."""
_LANES = 8
"""Lanes that a text shows."""
_LANE_LINES = 8
"""Lines that a text shows of one lane."""
_WIDEST = 100
"""Characters that a text shows of a detail or a name; a cut may list hundreds of units."""
_CONTEXT = 4
"""Rows that a text shows before the first difference."""
_ANY_TAG = "stillframe-JOB"
_NUMBERED = re.compile(rf"^({_ANY_TAG})-\d+$")
_OF_ARRAYS = ("array.", "world.array.")


class Step(NamedTuple):
    """One event in the left run, in the right run, or the same event in both.

    ``number`` is its place in the trace: in that of the run which has it, or got there first.
    """

    left: Row | None
    right: Row | None
    number: int
    same_time: bool
    same_detail: bool

    @property
    def same(self) -> bool:
        """Both runs did this, at the same time and with the same detail."""
        return self.same_time and self.same_detail

    @property
    def same_event(self) -> bool:
        """Both runs did this, perhaps at another time."""
        return self.left is not None and self.right is not None and self.same_detail

    @property
    def at_s(self) -> float:
        """When the first of the two runs got here, in seconds."""
        return min(row[0] for row in (self.left, self.right) if row is not None)

    @property
    def order(self) -> tuple[float, int]:
        """What comes first is smaller."""
        return self.at_s, self.number


@dataclass(frozen=True, slots=True)
class Lane:
    """What was done with one VM, cut, group or the job in both runs.

    ``uncompared`` rows lie so far behind the lane's first difference that they were not aligned.
    """

    subject: str
    steps: tuple[Step, ...]
    uncompared: int

    @property
    def same_events(self) -> bool:
        """Both runs did the same here, perhaps at other times."""
        return not self.uncompared and all(step.same_event for step in self.steps)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two traces, aligned.

    Attributes
    ----------
    left_rows, right_rows:
        How many events each run has.
    lanes:
        Every lane, in the order of its first difference; lanes that do not differ come last.
    """

    left_rows: int
    right_rows: int
    lanes: tuple[Lane, ...]

    @property
    def same(self) -> bool:
        """Both runs did the same things at the same times."""
        return all(
            not lane.uncompared and all(step.same for step in lane.steps) for lane in self.lanes
        )

    def steps(self) -> Iterator[Step]:
        """All steps, lane by lane."""
        for lane in self.lanes:
            yield from lane.steps

    @property
    def first(self) -> Step | None:
        """The earliest step at which the runs did not do the same, at whatever time."""
        return min(
            (step for step in self.steps() if not step.same_event),
            key=lambda step: step.order,
            default=None,
        )

    @property
    def first_shift(self) -> Step | None:
        """The earliest event that both runs have, at different times."""
        return min(
            (step for step in self.steps() if step.same_event and not step.same_time),
            key=lambda step: step.order,
            default=None,
        )


def compare(left: Sequence[Row], right: Sequence[Row], *, tolerance_s: float = 0.0) -> Difference:
    """Align two traces.

    Parameters
    ----------
    left, right:
        Event rows in the order in which they happened.
    tolerance_s:
        Times that are no further apart than this many seconds count as the same.
    """
    lanes_left, lanes_right = _lanes(left), _lanes(right)
    subjects = list(dict.fromkeys([*lanes_left, *lanes_right]))
    lanes = [
        _lane(subject, lanes_left.get(subject, []), lanes_right.get(subject, []), tolerance_s)
        for subject in subjects
    ]
    return Difference(len(left), len(right), tuple(sorted(lanes, key=_first)))


class _Line(NamedTuple):
    """A row and what it says when the run's own names are taken out."""

    row: Row
    number: int
    event: tuple[str, str]
    detail: str


def _lanes(rows: Sequence[Row]) -> dict[str, list[_Line]]:
    job_id = next((row[3] for row in rows if row[1] == Kind.JOB_STARTED), "")
    lanes: dict[str, list[_Line]] = {}
    for number, row in enumerate(rows):
        detail = _impersonal(row[4], job_id)
        line = _Line(row, number, (row[1], row[2]), detail)
        lanes.setdefault(_lane_of(row, detail, job_id), []).append(line)
    return lanes


def _lane_of(row: Row, detail: str, job_id: str) -> str:
    """The lane of an event; an array works on the cuts of several groups at once."""
    _, kind, group, subject, _ = row
    if job_id and subject == job_id:
        return "the job"
    if kind.startswith(_OF_ARRAYS):
        which = group or ("" if detail.startswith(_ANY_TAG) else detail)
        return f"{subject} {which}".rstrip()
    return subject


def _impersonal(detail: str, job_id: str) -> str:
    """A detail without the job's identifier and without the numbers of its tags.

    A tag's number counts the calls of the whole job, so that one more retry of another VM changes
    the tags of all that follow.
    """
    if not job_id or job_id not in detail:
        return detail
    words = detail.replace(job_id, "JOB").split(" ")
    return " ".join(_NUMBERED.sub(r"\1", word) for word in words)


def _lane(subject: str, left: list[_Line], right: list[_Line], tolerance_s: float) -> Lane:
    steps: list[Step] = []
    for mine, other in zip(left, right, strict=False):
        if mine.event != other.event:
            break
        steps.append(_step(mine, other, tolerance_s))
    done = len(steps)
    tail_left, tail_right = left[done : done + _ALIGNED], right[done : done + _ALIGNED]
    steps.extend(_aligned(tail_left, tail_right, tolerance_s))
    uncompared = max(0, len(left) - done - _ALIGNED) + max(0, len(right) - done - _ALIGNED)
    return Lane(subject, tuple(steps), uncompared)


def _aligned(left: list[_Line], right: list[_Line], tolerance_s: float) -> Iterator[Step]:
    matcher = SequenceMatcher(
        None, [line.event for line in left], [line.event for line in right], autojunk=False
    )
    for tag, from_left, to_left, from_right, to_right in matcher.get_opcodes():
        if tag == "equal":
            pairs = zip(left[from_left:to_left], right[from_right:to_right], strict=True)
            yield from (_step(mine, other, tolerance_s) for mine, other in pairs)
            continue
        for line in left[from_left:to_left]:
            yield Step(line.row, None, line.number, same_time=False, same_detail=False)
        for line in right[from_right:to_right]:
            yield Step(None, line.row, line.number, same_time=False, same_detail=False)


def _step(left: _Line, right: _Line, tolerance_s: float) -> Step:
    apart_s = abs(left.row[0] - right.row[0])
    return Step(
        left.row,
        right.row,
        left.number if left.row[0] <= right.row[0] else right.number,
        same_time=apart_s <= tolerance_s,
        same_detail=left.detail == right.detail,
    )


def _first(lane: Lane) -> tuple[float, int]:
    never = (float("inf"), 0)
    return min((step.order for step in lane.steps if not step.same_event), default=never)


def difference_text(
    left: Sequence[Row],
    right: Sequence[Row],
    *,
    names: tuple[str, str] = ("expected", "this run"),
    tolerance_s: float = 0.0,
) -> str:
    """The difference of two traces for people, in at most about a hundred lines.

    Lines that begin with ``-`` are in the left run only, with ``+`` in the right one only; ``~``
    stands before what both did at another time. Times are on the run's clock.

    Parameters
    ----------
    names:
        What the left and the right run are called.
    tolerance_s:
        As for :func:`compare`.
    """
    found = compare(left, right, tolerance_s=tolerance_s)
    lines = [_counts(found, names)]
    if found.same:
        return lines[0]
    if found.first_shift is not None:
        lines += ["", _shifts(found), _shift_line(found.first_shift)]
    if found.first is None:
        return "\n".join([*lines, "", "apart from times, both runs did the same"])
    lines += ["", "the first thing that only one of them did, and what came before it:"]
    lines += _before(found.first, left, right)
    lines += _step_lines(found.first)
    lines += _lane_texts(found)
    return "\n".join(lines)


def _counts(found: Difference, names: tuple[str, str]) -> str:
    steps = list(found.steps())
    only_left = sum(step.right is None for step in steps)
    only_right = sum(step.left is None for step in steps)
    both = [step for step in steps if step.left is not None and step.right is not None]
    total = f"{names[0]} {found.left_rows} events, {names[1]} {found.right_rows}"
    if found.same:
        return f"the runs are the same: {total}"
    parts = [f"{sum(step.same for step in both)} the same"]
    parts.append(f"{sum(step.same_event and not step.same_time for step in both)} at another time")
    parts.append(f"{sum(not step.same_detail for step in both)} with another detail")
    parts.append(f"{only_left} only {names[0]} (-), {only_right} only {names[1]} (+)")
    return f"the runs differ: {total}; {', '.join(parts)}"


def _shifts(found: Difference) -> str:
    shifted = [step for step in found.steps() if step.same_event and not step.same_time]
    longest = max((abs(_apart_s(step)) for step in shifted), default=0.0)
    return f"times differ by up to {format_seconds(longest)}, first here:"


def _apart_s(step: Step) -> float:
    assert step.left is not None, "both runs have it"  # noqa: S101
    assert step.right is not None, "both runs have it"  # noqa: S101
    return step.right[0] - step.left[0]


def _shift_line(step: Step) -> str:
    assert step.left is not None, "both runs have it"  # noqa: S101
    apart_s = _apart_s(step)
    sign = "+" if apart_s >= 0 else "−"
    return f"{_row_line('~', step.left)}  {sign}{format_seconds(abs(apart_s))}"


def _before(first: Step, left: Sequence[Row], right: Sequence[Row]) -> list[str]:
    """What came right before the first difference, in the run that has it."""
    rows, row = (left, first.left) if first.left is not None else (right, first.right)
    assert row is not None, "a step has a row on one side"  # noqa: S101
    at = next(number for number, candidate in enumerate(rows) if candidate is row)
    hidden = max(0, at - _CONTEXT)
    lines = [f"    … {_events(hidden)} before"] if hidden else []
    return lines + [_row_line(" ", candidate) for candidate in rows[hidden:at]]


def _lane_texts(found: Difference) -> list[str]:
    lanes = [lane for lane in found.lanes if not lane.same_events]
    lines = []
    for lane in lanes[:_LANES]:
        lines += ["", f"{_short(lane.subject)}:"]
        lines += _lane_lines(lane)
    if len(lanes) > _LANES:
        names = ", ".join(_short(lane.subject) for lane in lanes[_LANES : 2 * _LANES])
        more = ", …" if len(lanes) > 2 * _LANES else ""
        lines += ["", f"and {len(lanes) - _LANES} more that differ: {names}{more}"]
    unlike = len(found.lanes) - len(lanes)
    return [*lines, "", f"{unlike} of {len(found.lanes)} VMs, cuts and groups did the same"]


def _lane_lines(lane: Lane) -> list[str]:
    """The lane's differences, with runs of equal events collapsed to one line."""
    lines: list[str] = []
    alike = 0
    for number, step in enumerate(lane.steps):
        if step.same_event:
            alike += 1
            continue
        if len(lines) >= _LANE_LINES:
            rest = sum(not step.same_event for step in lane.steps[number:]) + lane.uncompared
            return [*lines, f"    … {rest} more differences"]
        if alike:
            lines.append(f"    … {_events(alike)} in both")
            alike = 0
        lines += _step_lines(step)
    if alike:
        lines.append(f"    … {_events(alike)} in both")
    if lane.uncompared:
        lines.append(f"    … {_events(lane.uncompared)} not compared")
    return lines


def _events(count: int) -> str:
    return f"{count} event" if count == 1 else f"{count} events"


def _step_lines(step: Step) -> list[str]:
    sides = (("-", step.left), ("+", step.right))
    return [_row_line(mark, row) for mark, row in sides if row is not None]


def _row_line(mark: str, row: Row) -> str:
    t_s, kind, group, subject, detail = row
    place = f"{group} {subject}" if group and group != subject else subject
    return f"  {mark} {t_s:12.6f} s  {kind:<26} {place}  {_short(detail)}".rstrip()


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
