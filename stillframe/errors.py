"""The root of every error that Stillframe raises on purpose."""

from __future__ import annotations


class StillframeError(Exception):
    """Something that a user can act on went wrong.

    Parameters
    ----------
    what:
        What failed, on which object, in one sentence without a final full stop.
    advice:
        What to do about it, in one sentence; empty when ``what`` already says it.
    """

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}" if self.advice else self.what


class InputError(StillframeError):
    """A file, option or value that the user gave cannot be used.

    Parameters
    ----------
    source:
        The file (or command-line option) that holds the value.
    field:
        Where in it: a dotted path, a sheet and column, a record number; may be empty.
    problem:
        What is wrong, naming the offending value.
    advice:
        What would be right.
    """

    def __init__(self, source: str, field: str, problem: str, advice: str = "") -> None:
        place = f"{source}: {field}" if field else source
        super().__init__(f"{place}: {problem}", advice)
        self.source = source
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.what} ({self.advice})" if self.advice else self.what
