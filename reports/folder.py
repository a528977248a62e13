"""A result folder: written completely or not at all, and read back with its damage named."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import InputError
from .figures import draw_all, png
from .html import render
from .perfetto import trace
from .rundata import SCHEMAS, RunData

FORMAT = "stillframe-result"
VERSION = 2
"""Of the folder's layout; a folder of a newer version is refused, never half understood."""
_SINCE = {"images": 2}
"""Tables that came later; in a folder of an older version they are empty."""

RUN = "run.json"
REPORT = "report.html"
TRACE = "trace.perfetto.json"
FIGURES = "figures"

_META = ("name", "title", "description", "seed", "command", "status", "strategy", "trace_hash",
         "versions", "assumptions", "orphans", "limiters", "job")  # fmt: skip


def write_folder(run: RunData, out: Path) -> None:
    """Write the tables, pictures, report and trace of a run.

    Everything is written beside ``out`` first and takes its name at the end, so that a failure
    leaves what was there before, or nothing.

    Parameters
    ----------
    run:
        The run.
    out:
        The folder. It may exist when it is empty or holds an earlier result, which is replaced;
        files of others beside it stay.

    Raises
    ------
    InputError
        ``out`` is a file or a folder that is not a result, or it cannot be written.
    """
    check_out(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _beside(out) as fresh:
            _write(run, fresh)
    except OSError as error:
        raise InputError(str(out), "", f"the result cannot be written: {_reason(error)}") from error


def check_out(out: Path) -> None:
    """Refuse, before any work is done, a place where a result must not go.

    Raises
    ------
    InputError
        ``out`` is a file, or a folder with something else in it.
    """
    advice = "name a new folder or one that holds an earlier result"
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(str(out), "", "this is not a folder", advice)
    if out.is_dir() and any(out.iterdir()) and not _is_result(out):
        raise InputError(str(out), "", "this folder holds something else than a result", advice)


def _is_result(out: Path) -> bool:
    try:
        head = json.loads((out / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and head.get("format") == FORMAT


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder on the same file system that takes the place of ``out`` when all went well."""
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    fresh, old = work / "new", work / "old"
    try:
        fresh.mkdir()
        yield fresh
        if out.exists():
            _keep_foreign(out, fresh)
            out.rename(old)
        try:
            fresh.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _keep_foreign(out: Path, fresh: Path) -> None:
    """Copy what a reader has put beside an earlier result; copied, so that a failure loses none."""
    ours = {*(f"{name}.parquet" for name in SCHEMAS), FIGURES, REPORT, TRACE, RUN}
    for entry in out.iterdir():
        if entry.name in ours:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, fresh / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, fresh / entry.name, follow_symlinks=False)


def _write(run: RunData, folder: Path) -> None:
    for name, frame in run.tables().items():
        frame.write_parquet(folder / f"{name}.parquet")
    images = {name: png(figure) for name, figure in draw_all(run).items()}
    (folder / FIGURES).mkdir()
    for name, image in images.items():
        (folder / FIGURES / f"{name}.png").write_bytes(image)
    (folder / REPORT).write_text(render(run, images), encoding="utf-8")
    (folder / TRACE).write_bytes(trace(run))
    head = {"format": FORMAT, "version": VERSION, "meta": run.meta}
    text = json.dumps(head, ensure_ascii=False, indent=2, allow_nan=False)
    (folder / RUN).write_text(text + "\n", encoding="utf-8")


def read_folder(folder: Path) -> RunData:
    """Read a result back.

    Raises
    ------
    InputError
        ``folder`` is no result, of a newer version, incomplete or damaged; one line says which
        file and what.
    """
    version, meta = _read_head(folder)
    tables = {
        name: _read_table(folder, name)
        if _SINCE.get(name, 1) <= version
        else pl.DataFrame(schema=SCHEMAS[name])
        for name in SCHEMAS
    }
    return RunData(meta=meta, **tables)


def _read_head(folder: Path) -> tuple[int, dict[str, Any]]:
    source = str(folder / RUN)
    if not folder.is_dir():
        raise InputError(str(folder), "", "there is no such folder")
    try:
        head = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"cannot be read: {_reason(error)}"
        raise InputError(source, "", problem, "is this a result folder?") from error
    except ValueError as error:
        raise InputError(source, "", f"is damaged: {error}") from error
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise InputError(source, "format", "this is not a Stillframe result")
    version = head.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise InputError(
            source,
            "version",
            f"{version!r} is not a version that this Stillframe reads (1 to {VERSION})",
            "use the Stillframe that wrote it",
        )
    meta = head.get("meta")
    missing = _META if not isinstance(meta, dict) else [key for key in _META if key not in meta]
    if not isinstance(meta, dict) or missing:
        raise InputError(source, "meta", f"is incomplete: {', '.join(missing)} missing")
    return version, meta


def _read_table(folder: Path, name: str) -> pl.DataFrame:
    path = folder / f"{name}.parquet"
    try:
        # Not mapped into memory: the folder may be replaced while the run is in use.
        frame = pl.read_parquet(path.read_bytes())
    except OSError as error:
        raise InputError(str(path), "", f"cannot be read: {_reason(error)}") from error
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())
        raise InputError(str(path), "", f"is damaged: {reason}") from error
    schema = SCHEMAS[name]
    if frame.schema != schema:
        wrong = [key for key, kind in schema.items() if frame.schema.get(key) != kind]
        wrong += [key for key in frame.columns if key not in schema]
        problem = f"columns do not fit: {', '.join(wrong) or 'their order'}"
        raise InputError(str(path), "", problem)
    return frame


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
