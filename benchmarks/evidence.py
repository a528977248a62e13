"""What every ``make evidence-TOPIC`` program shares: figures, their aims, and where they go.

A figure's aim is written as a comparator and a number (``<= 10 %``) and is judged here, by code.
A missed aim is a result, not a failure: it is written down as missed and the program ends well.
"""

from __future__ import annotations

import json
import math
import operator
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OUT = Path(__file__).resolve().parents[1] / "out" / "evidence"

_COMPARE = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_AIM = re.compile(r"^(<=|>=|==|<|>) *(-?[0-9][0-9_.]*(?:e-?[0-9]+)?) *(.*)$")


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Parameters
    ----------
    name:
        What was measured, readable on its own.
    value:
        The number; None if it could not be measured, which meets no aim.
    unit:
        Its unit, may be empty.
    aim:
        A comparator, a number and the same unit (``"<= 10 %"``), or None for a number that is
        only reported.

    Raises
    ------
    ValueError
        The aim cannot be read, or is in another unit than the value.
    """

    name: str
    value: float | None
    unit: str = ""
    aim: str | None = None
    met: bool | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "met", self._judge())

    def _judge(self) -> bool | None:
        if self.aim is None:
            return None
        match = _AIM.match(self.aim)
        if match is None:
            raise ValueError(f"aim {self.aim!r} of {self.name!r} is not a comparator and a number")
        comparator, number, unit = match.groups()
        if unit != self.unit:
            raise ValueError(f"aim {self.aim!r} of {self.name!r} is not in {self.unit!r}")
        if self.value is None or math.isnan(self.value):
            return False
        return bool(_COMPARE[comparator](self.value, float(number)))


def machine() -> dict[str, Any]:
    """What the figures were measured on; nothing that names the machine."""
    return {
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def write_evidence(
    topic: str,
    figures: Sequence[Figure],
    extra: dict[str, Any] | None = None,
    folder: Path = OUT,
) -> Path:
    """Write ``TOPIC.json`` and ``TOPIC.machine.json`` and print the figures as a table.

    ``TOPIC.json`` is a list of objects with name, value, unit, aim and met. ``extra`` goes beside
    the machine's description. Returns the path of the list.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(figure) for figure in figures]
    for row in rows:
        if isinstance(row["value"], float) and not math.isfinite(row["value"]):
            row["value"] = None  # JSON has no NaN
    path = folder / f"{topic}.json"
    _dump(path, rows)
    _dump(folder / f"{topic}.machine.json", {**machine(), **(extra or {})})
    _print(topic, figures)
    return path


def _dump(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def _print(topic: str, figures: Sequence[Figure]) -> None:
    here = machine()
    table = Table(
        title=f"evidence: {topic}",
        caption=f"{here['cpus']} CPUs, Python {here['python']}, {here['date']}",
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("aim")
    table.add_column("met")
    verdicts = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}
    for figure in figures:
        value = "–" if figure.value is None else f"{figure.value:,.4g}"
        table.add_row(figure.name, value, figure.unit, figure.aim or "", verdicts[figure.met])
    Console().print(table)
