"""Reading a YAML file that a user wrote, and saying in one line what is wrong with it.

Plain values follow the core schema of YAML 1.2: only ``true`` and ``false`` are booleans, so
``power: on`` is a word, ``12:30`` is not a number of minutes, and a date stays as it was written.
Keys that occur twice are refused, since one of the two values would be lost in silence.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import InputError

Model = TypeVar("Model", bound=BaseModel)

_MOST_VALUES = 20_000_000
"""Values a file may expand to through its aliases before it is taken for a mistake."""
_DEEPEST = 100
"""Levels of nesting a file may have; ours need fewer than ten."""

_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_STR = "tag:yaml.org,2002:str"

# YAML 1.2.2, section 10.3.2, with the first characters that each pattern can begin with.
CORE_SCHEMA: tuple[tuple[str, str, str], ...] = (
    (_NULL, r"^(?:null|Null|NULL|~|)$", "nN~\0"),
    (_BOOL, r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    (_INT, r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        _FLOAT,
        (
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+.0123456789",
    ),
)

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader (the C one if there is one) with YAML 1.2's plain values."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _tag, _pattern, _first in CORE_SCHEMA:
    _starts = ["" if character == "\0" else character for character in _first]
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _starts)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file.

    Parameters
    ----------
    path:
        The file; UTF-8, with or without a byte order mark.

    Raises
    ------
    InputError
        There is no such file, it is a folder, unreadable, not UTF-8, not YAML (with the line), has
        a key twice, is empty, or is not a mapping.
    """
    source = str(path)
    return parse_yaml(_read(Path(path), source), source)


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """The mapping in a YAML text; ``source`` is what errors call it. Raises like load_yaml."""
    try:
        data = _Builder(text, source).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise InputError(source, place, f"is not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = ord(text[error.position]) if error.position < len(text) else 0
        problem = f"is not valid YAML: character U+{code:04X} is not allowed"
        raise InputError(source, f"line {line}", problem) from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InputError(source, "", f"is not valid YAML: {problem}") from None
    if data is None:
        raise InputError(source, "", "is empty", "a mapping with keys and values is expected")
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else f"the single value {_short(data)}"
        raise InputError(source, "", f"holds {kind}", "a mapping with keys and values is expected")
    return data


def _read(path: Path, source: str) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(source, "", "does not exist") from None
    except IsADirectoryError:
        raise InputError(source, "", "is a folder, not a file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(source, "", f"cannot be read: {reason}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Not ``raw``: with a byte order mark in front, the position counts from behind it.
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"byte {error.object[error.start]:#04x} is not UTF-8"
        raise InputError(source, f"line {line}", problem, "save the file as UTF-8") from None


class _Builder:
    """Plain Python values straight from the parser's events.

    PyYAML's own composer recurses in C without a limit, so that a file of a hundred thousand
    brackets crashes the process; and it has forgotten by then which keys came twice.
    """

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._loader: Any = _Loader(text)
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        """Per anchor: value and size; None while the value is not complete."""
        self._size = 0

    def document(self) -> Any:
        """The only document of the text; None when there is none."""
        loader = self._loader
        try:
            loader.get_event()
            if loader.check_event(yaml.StreamEndEvent):
                return None
            loader.get_event()
            value = self._value(loader.get_event(), "", 0)
            loader.get_event()
            event = loader.get_event()
            if not isinstance(event, yaml.StreamEndEvent):
                raise self._error(event, "", "a second document begins here")
            return value
        finally:
            loader.dispose()

    def _value(self, event: Any, path: str, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        anchor = event.anchor
        before = self._size
        self._size += 1
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path)
        elif depth == _DEEPEST:
            raise self._error(event, "", f"is nested deeper than {_DEEPEST} levels")
        else:
            value = self._collection(event, path, depth)
        if anchor is not None:
            self._anchors[anchor] = (value, self._size - before)
        return value

    def _alias(self, event: Any, path: str) -> Any:
        if event.anchor not in self._anchors:
            raise self._error(event, path, f"alias {event.anchor!r} has no anchor before it")
        known = self._anchors[event.anchor]
        if known is None:
            raise self._error(event, path, f"alias {event.anchor!r} contains itself")
        self._size += known[1]
        if self._size > _MOST_VALUES:
            raise self._error(event, path, "the aliases expand to too many values")
        return known[0]

    def _collection(self, event: Any, path: str, depth: int) -> Any:
        if event.tag not in (None, "!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            raise self._error(event, path, f"tag {event.tag!r} is not known here")
        take = self._loader.get_event
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(item := take(), yaml.SequenceEndEvent):
                items.append(self._value(item, f"{path}[{len(items)}]", depth + 1))
            return items
        result: dict[str, Any] = {}
        while not isinstance(key_event := take(), yaml.MappingEndEvent):
            if not isinstance(key_event, yaml.ScalarEvent):
                raise self._error(key_event, path, "a key must be a single word")
            # A number as a key is the word that was written: no key of ours is a number.
            key = key_event.value
            place = f"{path}.{key}" if path else key
            if key in result:
                raise self._error(key_event, place, "the key occurs twice")
            result[key] = self._value(take(), place, depth + 1)
        return result

    def _scalar(self, event: Any, path: str) -> Any:
        text = event.value
        tag = event.tag
        if tag is None or tag == "!":
            if not event.implicit[0]:
                return text
            tag = self._loader.resolve(yaml.ScalarNode, text, (True, False))
        if tag == _STR:
            return text
        try:
            if tag == _INT:
                return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
            if tag == _FLOAT:
                return float(re.sub(r"\.(inf|nan)$", r"\1", text, flags=re.IGNORECASE))
        except ValueError:
            raise self._error(event, path, f"{_short(text)} is not a number") from None
        if tag == _BOOL:
            return text.lower() == "true"
        if tag == _NULL:
            return None
        raise self._error(event, path, f"tag {tag!r} is not known here")

    def _error(self, event: Any, path: str, problem: str) -> InputError:
        where = f"line {event.start_mark.line + 1}"
        return InputError(self._source, f"{path} ({where})" if path else where, problem)


def validate(model: type[Model], data: Any, source: str, *, units_required: bool = True) -> Model:
    """Data from a file as a model; bare numbers where a unit belongs are refused.

    Parameters
    ----------
    model:
        The pydantic model.
    data:
        What :func:`load_yaml` returned.
    source:
        The file's name, for the error.
    units_required:
        False for data that a program wrote: a bare number is one of seconds or bytes there.

    Raises
    ------
    InputError
        The first thing that is wrong: field path, value, and how many more there are.
    """
    try:
        return model.model_validate(data, context={"units_required": units_required})
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = errors[0]
        field = _path(first["loc"])
        problem, advice = _explain(model, dict(first))
        more = len(errors) - 1
        if more:
            count = f"and {more} more error{'s' if more > 1 else ''} in this file"
            advice = f"{advice}; {count}" if advice else count
        raise InputError(source, field, problem, advice) from None


def _path(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _explain(model: type[BaseModel], error: dict[str, Any]) -> tuple[str, str]:
    kind, value, loc = error["type"], error["input"], error["loc"]
    if kind == "missing":
        return "is missing", ""
    if kind == "extra_forbidden":
        known = sorted(_keys_at(model, loc[:-1]))
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key with value {_short(value)}", advice if known else ""
    if kind == "string_type" and isinstance(value, int | float):
        return f"{_short(value)} is not text", "put it in quotes"
    if kind == "value_error":
        return str(error["ctx"]["error"]), ""
    message = str(error["msg"])
    return f"{_short(value)} is not accepted: {message[:1].lower()}{message[1:]}", ""


def _keys_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> set[str]:
    """The keys of the models that a field path can lead to."""
    models = [model]
    for part in loc:
        if isinstance(part, int):
            continue
        fields = (
            field
            for candidate in models
            for name, field in candidate.model_fields.items()
            if part in (name, field.alias)
        )
        inner = [found for field in fields for found in _models_in(field.annotation)]
        # Parts that are no field (the name of a union's branch) leave the candidates as they are.
        models = inner or models
    return {
        field.alias or name
        for candidate in models
        for name, field in candidate.model_fields.items()
    }


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType) or get_args(annotation):
        for argument in get_args(annotation):
            yield from _models_in(argument)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
