"""Quantities with units: how users write bytes, seconds and rates, and how we print them.

Inside the program a quantity is always a plain number of seconds, bytes or bytes per second.
In a file it carries its unit (``250 ms``, ``64 KiB``, ``120 MiB/s``): a bare number there is
refused, because "timeout: 30" has been minutes in one product and seconds in the next.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

SECONDS = {
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
BYTES = {"B": 1}
BYTES |= {f"{prefix}B": 1000 ** (i + 1) for i, prefix in enumerate("kMGTP")}
BYTES |= {f"{prefix}iB": 1024 ** (i + 1) for i, prefix in enumerate("KMGTP")}

_NUMBER_AND_UNIT = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ/]+)\s*$")


def _parse(value: object, units: Mapping[str, float], kind: str) -> Fraction | float:
    if isinstance(value, bool) or not isinstance(value, str):
        raise ValueError(f"{value!r} is not a {kind}; write it with a unit, one of {_names(units)}")
    match = _NUMBER_AND_UNIT.match(value)
    if match is None or match[2] not in units:
        raise ValueError(f"{value!r} is not a {kind}; use a number and one of {_names(units)}")
    factor = units[match[2]]
    # Bytes stay exact beyond 2**53; a duration is a float in the end anyway.
    return Fraction(match[1]) * factor if isinstance(factor, int) else float(match[1]) * factor


def _names(units: Mapping[str, float]) -> str:
    return ", ".join(units)


def _number(value: object, info: ValidationInfo | None, kind: str, sample: str) -> float | None:
    """A bare number: taken from Python, refused from a file (see the module docstring)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if info is not None and info.context and info.context.get("units_required") and value != 0:
        raise ValueError(f"{value!r} has no unit; a {kind} is written like {sample!r}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is not a {kind}: it must be finite and not negative")
    return float(value)


def parse_seconds(value: object, info: ValidationInfo | None = None) -> float:
    """Seconds from ``"250 ms"``, ``"2 min"`` or, outside files, a plain number.

    Raises
    ------
    ValueError
        The unit is missing or not one of time, or the number is negative or not finite.
    """
    number = _number(value, info, "duration", "250 ms")
    return float(_parse(value, SECONDS, "duration")) if number is None else number


def parse_bytes(value: object, info: ValidationInfo | None = None) -> int:
    """Bytes from ``"64 KiB"``, ``"2 TB"`` or, outside files, a plain number.

    Raises
    ------
    ValueError
        The unit is missing or not one of size, or the number is negative or not finite.
    """
    number = _number(value, info, "size", "64 KiB")
    return round(_parse(value, BYTES, "size") if number is None else number)


def parse_rate(value: object, info: ValidationInfo | None = None) -> float:
    """Bytes per second from ``"120 MiB/s"`` or, outside files, a plain number.

    Raises
    ------
    ValueError
        The unit is missing or not one of data rate, or the number is negative or not finite.
    """
    number = _number(value, info, "data rate", "120 MiB/s")
    if number is not None:
        return number
    rates = {f"{name}/s": factor for name, factor in BYTES.items()}
    return float(_parse(value, rates, "data rate"))


# Pydantic passes the validation context only to validators that require their second argument.


def _seconds(value: object, info: ValidationInfo) -> float:
    return parse_seconds(value, info)


def _bytes(value: object, info: ValidationInfo) -> int:
    return parse_bytes(value, info)


def _rate(value: object, info: ValidationInfo) -> float:
    return parse_rate(value, info)


def _schema(example: str, what: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": what, "examples": [example]})


Seconds = Annotated[float, BeforeValidator(_seconds), _schema("250 ms", "a duration with its unit")]
Bytes = Annotated[int, BeforeValidator(_bytes), _schema("64 KiB", "a size with its unit")]
BytesPerSecond = Annotated[
    float, BeforeValidator(_rate), _schema("120 MiB/s", "a data rate with its unit")
]


def format_seconds(value: float | None) -> str:
    """A duration for people: three significant digits and the unit that keeps them readable."""
    if value is None:
        return "–"
    if value == 0:
        return "0 s"
    for unit, factor in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        # Minutes and hours only from two of them on: "75 s" reads better than "1.25 min".
        if abs(value) >= factor * (2 if factor > 1 else 1):
            return f"{value / factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def format_bytes(value: float | None) -> str:
    """A size for people, in binary units with three significant digits."""
    if value is None:
        return "–"
    for unit, factor in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if abs(value) >= factor:
            return f"{_three(value / factor)} {unit}"
    return f"{_three(value / 1024)} KiB" if abs(value) >= 1024 else f"{value:.0f} B"


def _three(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def dump_seconds(value: float) -> str:
    """The text that :func:`parse_seconds` reads back to exactly this value."""
    return f"{value!r} s"


def dump_bytes(value: int) -> str:
    """The text that :func:`parse_bytes` reads back to exactly this value."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value and value % BYTES[unit] == 0:
            return f"{value // BYTES[unit]} {unit}"
    return f"{value} B"
