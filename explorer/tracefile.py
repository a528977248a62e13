"""Event traces in files, to hold later runs against: one event a line, as JSON.

Times are kept to the microsecond. A run repeats to the last digit on one machine, but logarithms
and exponentials of another C library may differ in that digit, and a file that is kept in a
repository has to hold on both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, StillframeError
from ..orchestrator.events import FIELDS, Row

FORMAT = "stillframe-trace"
VERSION = 1
TOLERANCE_S = 2e-6
"""Times from a file and from a run that are no further apart are the same."""
_DIGITS = 6


def write_trace(path: Path, rows: Sequence[Row]) -> None:
    """Write event rows, replacing the file.

    Raises
    ------
    StillframeError
        The file cannot be written.
    """
    head = json.dumps(
        {"format": FORMAT, "version": VERSION, "fields": "s kind group subject detail"}
    )
    lines = [json.dumps([round(row[0], _DIGITS), *row[1:]], ensure_ascii=False) for row in rows]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([head, *lines, ""]), encoding="utf-8")
    except OSError as error:
        raise StillframeError(f"{path} cannot be written: {error.strerror}") from None


def read_trace(path: Path) -> list[Row]:
    """The rows that :func:`write_trace` wrote, times in seconds.

    Raises
    ------
    InputError
        There is no such file, it is no trace, or a line of it is damaged; the error names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise InputError(str(path), "", "does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(str(path), "", f"cannot be read: {reason}") from None
    head = _json(path, 1, lines[0]) if lines[0] else None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise InputError(str(path), "line 1", f"is not a trace: {FORMAT!r} is not named there")
    if head.get("version") != VERSION:
        raise InputError(
            str(path), "version", f"{head.get('version')!r} is not known", f"known is {VERSION}"
        )
    return [_row(path, number, line) for number, line in enumerate(lines[1:], 2)]


def _json(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(str(path), f"line {number}", "is not JSON") from None


def _row(path: Path, number: int, line: str) -> Row:
    values = _json(path, number, line)
    if (
        not isinstance(values, list)
        or len(values) != FIELDS
        or isinstance(values[0], bool)
        or not isinstance(values[0], int | float)
        or not all(isinstance(value, str) for value in values[1:])
    ):
        raise InputError(
            str(path),
            f"line {number}",
            "is not an event",
            "a time in seconds and four texts are expected: kind, group, subject, detail",
        )
    t_s, kind, group, subject, detail = values
    return float(t_s), kind, group, subject, detail
