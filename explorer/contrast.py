"""A failing run beside the nearest one that passes: what the thing that matters brings about."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..errors import StillframeError
from .difference import difference_text
from .options import RunOptions
from .report import RunReport
from .run import explore_one
from .shrink import Shrunk

_WIDEST = 120


def contrast(shrunk: Shrunk, *, run: Callable[..., RunReport] = explore_one) -> str:
    """Where a failing run and one with one thing less part, for people; see difference_text().

    Parameters
    ----------
    shrunk:
        A failing run made small; the nearest run that passes was found on the way.
    run:
        :func:`explore_one`, perhaps with functions of one's own bound to it.

    Raises
    ------
    StillframeError
        No passing run was found: nothing could be taken away without the run failing.
    """
    if shrunk.passing is None:
        raise StillframeError(f"there is no run near seed {shrunk.report.seed} that passes")
    scenario, options = shrunk.passing
    seed, failing = shrunk.report.seed, shrunk.report.options
    left = run(scenario, seed, options, keep_events=True)
    right = run(shrunk.scenario, seed, failing, keep_events=True)
    parts = _parts(options, failing)
    if scenario != shrunk.scenario:
        parts.append("a section of the scenario at its default")
    text = difference_text(left.rows or (), right.rows or (), names=("passing", "failing"))
    return f"it passes with {' and '.join(parts)}:\n{text}"


def _parts(passing: RunOptions, failing: RunOptions) -> list[str]:
    """The options that make the difference, as the passing run has them."""
    with_it, without = failing.to_data(), passing.to_data()
    changed = [name for name in with_it if with_it[name] != without.get(name)]
    return [f"{name} {_short(without.get(name))}" for name in changed]


def _short(value: Any) -> str:
    if value is None or value in ({}, []):
        return "as by default"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
