"""Reading the tabs of an RVTools export from a workbook or a folder of CSV files."""

from __future__ import annotations

import csv
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from ..errors import InputError
from .rvtools_columns import TITLES, column_tokens, header_token, tab_of

Cell = str | int | float | bool | None
Row = dict[str, Cell]

# What openpyxl lets through when a workbook is damaged; it has no error of its own for that.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    ParseError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    AssertionError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Table:
    """One tab: which of our columns it has, and its rows that are not empty."""

    tab: str
    columns: frozenset[str]
    rows: tuple[Row, ...]


def read_export(path: Path) -> dict[str, Table]:
    """The tabs that we use, by name; absent ones are missing from the result.

    Raises
    ------
    InputError
        The path does not exist, is neither a workbook nor a folder of CSV files, is damaged, or
        holds no tab of an RVTools export.
    """
    source = str(path)
    if path.is_dir():
        tables = _read_folder(path)
        what = "no RVTools tab in it (a file such as RVTools_tabvInfo.csv)"
    elif not path.exists():
        raise InputError(source, "", "does not exist")
    elif path.suffix.casefold() == ".csv":
        problem = "is one CSV file"
        raise InputError(source, "", problem, "name the folder that holds all tabs of the export")
    else:
        tables = _read_workbook(path)
        what = "no RVTools tab in it (a sheet such as vInfo)"
    if not tables:
        raise InputError(source, "", f"is not an RVTools export: {what}")
    return tables


def _read_workbook(path: Path) -> dict[str, Table]:
    import openpyxl

    source = str(path)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(source, "", f"cannot be read: {error.strerror}") from None
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        problem = "is an old .xls or a workbook with a password"
        raise InputError(source, "", problem, "save it as .xlsx without a password")
    if not start.startswith(b"PK"):
        raise InputError(source, "", "is not an .xlsx workbook")
    with warnings.catch_warnings():
        # Styles and extensions that openpyxl does not know are no concern of ours.
        warnings.simplefilter("ignore")
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        except _DAMAGED as error:
            raise _damaged(source, "", error) from None
        try:
            return _sheets(book, source)
        finally:
            book.close()


def _sheets(book: Any, source: str) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for name in book.sheetnames:
        tab = tab_of(name)
        if tab is None:
            continue
        if tab in tables:
            raise InputError(source, name, f"there are two sheets for tab {tab}")
        try:
            sheet = book[name]
            # Some tools write a wrong size into the sheet, which would cut rows off.
            sheet.reset_dimensions()
        except _DAMAGED as error:
            raise _damaged(source, name, error) from None
        tables[tab] = _table(tab, _sheet_rows(sheet, source, name))
    return tables


def _sheet_rows(sheet: Any, source: str, name: str) -> Iterator[Sequence[Cell]]:
    """The rows as openpyxl parses them; only its own failures count as damage."""
    rows = iter(sheet.iter_rows(values_only=True))
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except _DAMAGED as error:
            raise _damaged(source, name, error) from None
        yield row


def _damaged(source: str, sheet: str, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return InputError(source, sheet, f"is damaged: {reason}", "export it again")


def _read_folder(path: Path) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    files: dict[str, str] = {}
    for file in sorted(path.iterdir()):
        tab = tab_of(file.name) if file.suffix.casefold() == ".csv" else None
        if tab is None or not file.is_file():
            continue
        if tab in tables:
            problem = f"{files[tab]} and {file.name} are both tab {tab}"
            raise InputError(str(path), "", problem, "keep one export per folder")
        files[tab] = file.name
        tables[tab] = _table(tab, _csv_rows(tab, file))
    return tables


def _csv_rows(tab: str, file: Path) -> Iterator[Sequence[Cell]]:
    text = _decode(file)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=lambda sign: _known(tab, header.split(sign)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(str(file), f"line {reader.line_num}", f"is not CSV: {error}") from None


def _known(tab: str, headers: list[str]) -> int:
    return len(_columns(tab, [header.strip().strip('"') for header in headers]))


def _decode(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InputError(str(file), "", f"cannot be read: {error.strerror}") from None
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = (
            f"byte {error.object[error.start]:#04x} is not {encoding.removesuffix('-sig').upper()}"
        )
        raise InputError(str(file), f"line {line}", problem, "save it as UTF-8") from None


def _table(tab: str, rows: Iterable[Sequence[Cell]]) -> Table:
    columns: dict[str, int] | None = None
    found: list[Row] = []
    for cells in rows:
        if columns is None:
            headers = ["" if cell is None else str(cell) for cell in cells]
            if any(header.strip() for header in headers):
                columns = _columns(tab, headers)
            continue
        width = len(cells)
        row = {
            column: _clean(cells[index]) if index < width else None
            for column, index in columns.items()
        }
        if any(cell is not None for cell in row.values()):
            found.append(row)
    return Table(tab, frozenset(columns or ()), tuple(found))


def _columns(tab: str, headers: list[str]) -> dict[str, int]:
    positions: dict[str, int] = {}
    for index, header in enumerate(headers):
        positions.setdefault(header_token(header, tab), index)
    found: dict[str, int] = {}
    for column in TITLES[tab]:
        for token in column_tokens(tab, column):
            if token in positions:
                found[column] = positions[token]
                break
    return found


# A workbook spells a control character, which XML cannot carry, as _x000D_.
_ESCAPED = re.compile(r"_x00[01][0-9A-Fa-f]_")


def _clean(cell: object) -> Cell:
    if isinstance(cell, str):
        text = _ESCAPED.sub(" ", cell).strip()
        return text or None
    if cell is None or isinstance(cell, bool | int | float):
        return cell
    return str(cell)
