"""Reading YAML that users wrote: its values, and one clear line for everything that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from stillframe.errors import InputError
from stillframe.quantity import Seconds
from stillframe.topology.yamlfile import load_yaml, parse_yaml, validate


def test_plain_values_follow_yaml_1_2() -> None:
    text = """
on: off
yes: no
date: 2024-01-31
clock: 12:30
octal: 0o17
hex: 0x1F
zero: 010
float: 1e3
infinite: -.inf
none: ~
empty:
quoted: "1"
tagged: !!str 1
single: 'true'
true: true
list: [1, 2.5, x, null]
"""
    assert parse_yaml(text, "f") == {
        "on": "off",
        "yes": "no",
        "date": "2024-01-31",
        "clock": "12:30",
        "octal": 15,
        "hex": 31,
        "zero": 10,
        "float": 1000.0,
        "infinite": float("-inf"),
        "none": None,
        "empty": None,
        "quoted": "1",
        "tagged": "1",
        "single": "true",
        "true": True,
        "list": [1, 2.5, "x", None],
    }


def test_aliases_stand_for_their_anchor() -> None:
    text = "a: &x {b: [1]}\nc: *x\nd: &x 2\ne: *x"
    assert parse_yaml(text, "f") == {"a": {"b": [1]}, "c": {"b": [1]}, "d": 2, "e": 2}


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
BAD = {
    "a: 1\nb: 2\na: 3": ("a (line 3)", "the key occurs twice"),
    "a:\n  b: {c: 1, c: 2}": ("a.b.c (line 2)", "the key occurs twice"),
    "a:\n- x\n- {k: 1, k: 2}": ("a[1].k (line 3)", "the key occurs twice"),
    "": ("", "is empty"),
    "# only words": ("", "is empty"),
    "---\n...": ("", "is empty"),
    "- 1": ("", "holds a list"),
    "17": ("", "holds the single value 17"),
    "a: 1\n---\nb: 2": ("line 2", "a second document"),
    "a: [1": ("line ", "not valid YAML"),
    "x: 1\na: b: c": ("line 2, column 5", "not valid YAML"),
    "\ta: 1": ("line 1, column 1", "not valid YAML"),
    "x: 1\na: \x00": ("line 2", "character U+0000 is not allowed"),
    "a: *b": ("a (line 1)", "alias 'b' has no anchor"),
    "a: &x [*x]": ("a[0] (line 1)", "contains itself"),
    "? [a]\n: 1": ("line 1", "a key must be a single word"),
    "a: !!python/name:os.system x": ("a (line 1)", "is not known here"),
    "a: !thing [1]": ("a (line 1)", "tag '!thing' is not known here"),
    "a: !!int x": ("a (line 1)", "'x' is not a number"),
    "a: " + "[" * 200_000: ("line 1", "nested deeper"),
    "- " * 200_000: ("line 1", "nested deeper"),
    LAUGHS: ("a", "expand to too many values"),
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_bad_yaml_is_one_line_with_its_place(text: str) -> None:
    field, problem = BAD[text]
    with pytest.raises(InputError) as error:
        parse_yaml(text, "f.yaml")
    assert problem in error.value.problem
    assert error.value.field.startswith(field)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@given(st.text(max_size=60) | st.text("ab:-[]{}&*!|>'\"#%@\n ,?\t", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        outcome = parse_yaml(text, "f")
    except InputError as error:
        outcome = str(error)
    assert isinstance(outcome, dict) or "\n" not in outcome


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: 1\nb: \xff\xfe")
    marked = tmp_path / "marked.yaml"
    marked.write_bytes(b"\xef\xbb\xbfa: 1\n\xfe")
    for path, problem, field in (
        (marked, "byte 0xfe is not UTF-8", "line 2"),
        (missing, "does not exist", ""),
        (tmp_path, "is a folder", ""),
        (binary, "byte 0xff is not UTF-8", "line 2"),
        (tmp_path / "a\0b", "cannot be read", ""),
        (binary / "x", "cannot be read", ""),
    ):
        with pytest.raises(InputError) as error:
            load_yaml(path)
        assert error.value.source == str(path)
        assert problem in error.value.problem
        assert error.value.field == field


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("a: 1")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        load_yaml(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert load_yaml(path) == {"a": 1}


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wait: Seconds = 1.0
    level: int = Field(1, alias="depth")


class Other(BaseModel):
    model_config = ConfigDict(extra="forbid")
    colour: str


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    items: list[Inner] = []
    choice: Inner | None = None
    either: Inner | Other | None = None


def test_validation_names_field_value_and_remedy() -> None:
    assert validate(Outer, {"items": [{"wait": "2 min"}]}, "f").items[0].wait == 120.0
    for data, field, text in (
        ({"items": [{"wait": 3}]}, "items[0].wait", "3 has no unit"),
        ({"items": [{}, {"wiat": "1 s"}]}, "items[1].wiat", "did you mean 'wait'?"),
        ({"choice": {"dept": 1}}, "choice.dept", "did you mean 'depth'?"),
        ({"choice": {"depth": "x" * 200}}, "choice.depth", "…"),
        ({"choice": [1]}, "choice", "a list"),
        ({"items": {"a": 1}}, "items", "a mapping"),
        ({"either": {"color": "red"}}, "either.", "more error"),
    ):
        with pytest.raises(InputError) as error:
            validate(Outer, data, "f.yaml")
        assert error.value.field.startswith(field)
        assert text in str(error.value)
        assert len(str(error.value)) < 250
