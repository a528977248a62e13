"""Quantities with units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from stillframe.quantity import (
    Bytes,
    BytesPerSecond,
    Seconds,
    dump_bytes,
    dump_seconds,
    format_bytes,
    format_seconds,
    parse_bytes,
    parse_rate,
    parse_seconds,
)


class Model(BaseModel):
    """A field of each kind."""

    time: Seconds = 0.0
    size: Bytes = 0
    rate: BytesPerSecond = 0.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250 ms", 0.25), ("2min", 120.0), ("1.5 h", 5400.0), ("10 us", 1e-5), ("1 d", 86400.0)],
)
def test_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("64 KiB", 65536), ("64 kB", 64000), ("2TiB", 2**41), ("7 B", 7)]
)
def test_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_rate() -> None:
    assert parse_rate("120 MiB/s") == 120 * 2**20


@pytest.mark.parametrize("text", ["5 GB", "ten s", "5", "-1 s", "1 S", "nan s", ""])
def test_wrong_durations_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_seconds(text)


def test_a_bare_number_is_refused_from_a_file_and_taken_from_python() -> None:
    assert Model(time=30.0).time == 30.0
    with pytest.raises(ValidationError, match="has no unit"):
        Model.model_validate({"time": 30}, context={"units_required": True})
    assert Model.model_validate({"time": 0}, context={"units_required": True}).time == 0


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), True, None])
def test_values_that_are_no_quantity(value: object) -> None:
    with pytest.raises(ValidationError):
        Model.model_validate({"size": value})


@given(st.integers(0, 2**60))
def test_bytes_read_back_exactly(size: int) -> None:
    assert parse_bytes(dump_bytes(size)) == size


@given(st.floats(0, 1e9))
def test_seconds_read_back_exactly(seconds: float) -> None:
    assert parse_seconds(dump_seconds(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0 s"), (0.25, "250 ms"), (75.0, "75 s"), (600, "10 min"), (3e-5, "30 µs")],
)
def test_durations_for_people(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "–"), (0, "0 B"), (1536, "1.5 KiB"), (2**30, "1 GiB"), (200 * 2**20, "200 MiB")],
)
def test_sizes_for_people(size: int | None, text: str) -> None:
    assert format_bytes(size) == text
