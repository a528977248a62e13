"""A run in one file: scenario, seed, options and what came of it, to run again anywhere.

The file is JSON and needs nothing beside it. It is written by a program for a program: its numbers
are seconds and bytes, without units.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..errors import InputError, StillframeError
from ..orchestrator.spec import Section
from ..scenarios.schema import Scenario, scenario_with_path
from ..topology.yamlfile import validate
from .options import RunOptions
from .report import RunReport, Violation
from .run import explore_one
from .selfcontained import scenario_data

FORMAT = "stillframe-replay"


class FoundViolation(Section):
    """A broken invariant as the file has it."""

    invariant: str
    sentence: str
    subject: str = ""
    at_s: float | None = None


class Replay(Section):
    """A run, and what came of it when the file was written.

    Attributes
    ----------
    versions:
        What it ran on: Stillframe, Python and SimPy.
    own_parts:
        Functions of the caller that took part, by name; without them it is another run.
    """

    format: Literal["stillframe-replay"] = "stillframe-replay"
    version: Literal[1] = 1
    versions: dict[str, str] = Field(default_factory=dict)
    scenario: Scenario
    seed: int
    options: RunOptions
    trace_hash: str
    violations: tuple[FoundViolation, ...] = ()
    own_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    """A run that was run again.

    ``differs`` is one sentence that says why this is not the run of the file; empty when it is.
    """

    replay: Replay
    report: RunReport
    differs: str


def running_versions() -> dict[str, str]:
    """What a run depends on beside its file."""
    return {
        "stillframe": version("stillframe"),
        "python": platform.python_version(),
        "simpy": version("simpy"),
    }


def write_replay(
    path: Path, report: RunReport, scenario: Scenario, *, own_parts: tuple[str, ...] = ()
) -> None:
    """Write a run to a file, replacing it.

    Parameters
    ----------
    report:
        Of the run.
    scenario:
        What it ran; an estate that lies in a file of its own is taken into this one.
    own_parts:
        Names of functions (a strategy, a policy) that took part and are not in the file.

    Raises
    ------
    StillframeError
        The file cannot be written, or the scenario's estate cannot be read.
    """
    data = {
        "format": FORMAT,
        "version": 1,
        "versions": running_versions(),
        "seed": report.seed,
        "trace_hash": report.trace_hash,
        "violations": [violation._asdict() for violation in report.violations],
        "own_parts": list(own_parts),
        "options": report.options.to_data(),
        "scenario": scenario_data(scenario),
    }
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise StillframeError(f"{path} cannot be written: {error.strerror}") from None


def read_replay(path: Path) -> Replay:
    """The run in a file.

    Raises
    ------
    InputError
        There is no such file, it is not JSON, not a replay or one of another version, or a value
        in it cannot be used; the error names file, field and value.
    """
    source = str(path)
    data = _json(path, source)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(
            source, "format", f"the file is no {FORMAT}", "`stillframe explore --out` writes one"
        )
    if data.get("version") != 1:
        raise InputError(
            source, "version", f"{data.get('version')!r} is not known", "this program reads 1"
        )
    replay = validate(Replay, data, source, units_required=False)
    scenario = scenario_with_path(replay.scenario, path)
    scenario.build_estate()
    return replay.model_copy(update={"scenario": scenario})


def _json(path: Path, source: str) -> Any:
    try:
        return json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_no_key_twice,
            parse_constant=_no_number,
        )
    except FileNotFoundError:
        raise InputError(source, "", "does not exist") from None
    except IsADirectoryError:
        raise InputError(source, "", "is a folder, not a file") from None
    except OSError as error:
        raise InputError(source, "", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(source, "", "is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(source, f"line {error.lineno}", f"is not JSON: {error.msg}") from None
    except RecursionError:
        raise InputError(source, "", "is nested too deep") from None
    except _WrongJsonError as error:
        raise InputError(source, error.field, error.problem) from None


class _WrongJsonError(Exception):
    """What the parser lets through and no file of ours has."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem


def _no_number(text: str) -> Any:
    raise _WrongJsonError("", f"holds {text}, which is no number")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _WrongJsonError(twice, "the key occurs twice")
    return found


def run_again(
    replay: Replay, *, run: Callable[..., RunReport] = explore_one, keep_events: bool = False
) -> Replayed:
    """Run what a file holds, and compare.

    Parameters
    ----------
    run:
        :func:`explore_one`, perhaps with functions of one's own bound to it.
    keep_events:
        Whether the report has its rows.

    Raises
    ------
    StillframeError
        The run cannot be set up.
    """
    report = run(replay.scenario, replay.seed, replay.options, keep_events=keep_events)
    return Replayed(replay, report, "" if _same(replay, report) else _why(replay))


def _same(replay: Replay, report: RunReport) -> bool:
    return replay.trace_hash == report.trace_hash and replay.violations == tuple(
        FoundViolation(**_fields(violation)) for violation in report.violations
    )


def _fields(violation: Violation) -> dict[str, Any]:
    return violation._asdict()


def _why(replay: Replay) -> str:
    if replay.own_parts:
        named = ", ".join(replay.own_parts)
        return f"the run differs from the file's: it was made with {named}, which are not in it"
    running = running_versions()
    other = [
        f"{name} {was} (here {running.get(name, 'none')})"
        for name, was in replay.versions.items()
        if running.get(name) != was
    ]
    if other:
        return f"the run differs from the file's, which was made with {', '.join(other)}"
    return "the run differs from the file's, though the versions are the same"
