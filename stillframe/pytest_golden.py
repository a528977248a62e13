"""The fixture that holds a run's event trace against one that was kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .errors import InputError
from .explorer.difference import compare, difference_text
from .explorer.tracefile import TOLERANCE_S, read_trace, write_trace
from .orchestrator.events import Row

UPDATE = "--stillframe-update-golden"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class HasRows(Protocol):
    """A run with an event trace; None when the events were not kept."""

    @property
    def rows(self) -> Sequence[Row] | None:
        """Time in seconds, kind, group, subject, detail."""
        ...


class Golden:
    """Called by a test: compares, or writes when asked to.

    Parameters
    ----------
    folder:
        Where the kept traces are, ``NAME.jsonl`` each.
    update:
        Write instead of comparing.
    """

    def __init__(self, folder: Path, *, update: bool) -> None:
        self._folder = folder
        self._update = update

    def __call__(self, run: HasRows | Sequence[Row], name: str) -> None:
        """Compare the run's events with those kept under this name, times to the microsecond.

        Raises
        ------
        AssertionError
            They differ, with the difference to read; or none are kept yet.
        InputError
            The name cannot be one of a file, the run kept no events, or the file is damaged.
        """
        __tracebackhide__ = True
        if not _NAME.match(name):
            raise InputError("golden trace", "name", f"{name!r} has other than A-Z a-z 0-9 . _ -")
        rows = run if isinstance(run, Sequence) else run.rows
        if rows is None:
            raise InputError("golden trace", name, "the run kept no events")
        path = self._folder / f"{name}.jsonl"
        if self._update:
            write_trace(path, rows)
            return
        if not path.exists():
            raise AssertionError(f"{path} does not exist yet; pytest {UPDATE} writes it")
        kept = read_trace(path)
        if not compare(kept, rows, tolerance_s=TOLERANCE_S).same:
            text = difference_text(kept, rows, names=("kept", "now"), tolerance_s=TOLERANCE_S)
            raise AssertionError(f"{path.name}: {text}\n\nif this is meant: pytest {UPDATE}")
