"""What every command of the front door shares: exit codes, one-line errors, JSON, progress."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

from .errors import InputError, StillframeError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from .reports.rundata import RunData

ShareDone = Callable[[str, float | None], None]
"""Takes what is being done, and the share of it that is done (None: not known)."""

# Typer carries Click or a copy of it, depending on its version; either way BadParameter is a
# subclass of the usage error that all mistakes on the command line are.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

_PATIENCE_S = 2.0


class ExitCode(IntEnum):
    """What the process tells its caller; documented in docs/cli.md and in --help."""

    PROTECTED = 0
    PARTLY = 1
    BAD_INPUT = 2
    FAILED = 3
    INTERRUPTED = 130
    READER_GONE = 141


EXIT_CODES_HELP = (
    "Exit codes: 0 all selected VMs are protected (or the command did what was asked), "
    "1 some are, 2 the input cannot be used or selects nothing, 3 failed or cancelled, "
    "130 interrupted with Ctrl-C."
)


class FrontDoor(TyperGroup):
    """The command group that turns every way to fail into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a reader that leaves (`| head`) ends it like other programs."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _reader_gone()

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run the command line and exit."""
        options |= {"standalone_mode": False, "prog_name": "stillframe"}
        try:
            code = super().main(*args, **options)
            sys.stdout.flush()
        except (KeyboardInterrupt, typer.Abort):
            code = ExitCode.INTERRUPTED
        except _UsageError as error:
            _fail(_usage(error), ExitCode.BAD_INPUT)
        except StillframeError as error:
            _fail(str(error), exit_code_of(error))
        except BrokenPipeError:
            code = _reader_gone()
        except OSError as error:
            _fail(f"{error.filename or 'output'}: {error.strerror or error}", ExitCode.FAILED)
        except Exception:  # noqa: BLE001  # a defect of ours: show all, but keep the exit code
            traceback.print_exc()
            _fail("internal error, please report it with the lines above", ExitCode.FAILED)
        # Some versions of Typer hand an interruption on as an error, others as an exit code.
        if code == ExitCode.INTERRUPTED:
            _fail("interrupted; the command did not finish", ExitCode.INTERRUPTED)
        sys.exit(int(code) if isinstance(code, int) else 0)


def usage_error(problem: str) -> Exception:
    """A mistake on the command line that only all its parts together show."""
    return _UsageError(problem)


def exit_code_of(error: StillframeError) -> ExitCode:
    """2 when the user's input is to blame (an empty selection is), else 3."""
    if isinstance(error, InputError) or type(error).__name__ == "NothingSelectedError":
        return ExitCode.BAD_INPUT
    return ExitCode.FAILED


def _reader_gone() -> int:
    """Nobody reads stdout any more: write nothing at shutdown either, and say so to the shell."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.READER_GONE


def _usage(error: Exception) -> str:
    message = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "stillframe")
    return f"{message.rstrip('.')} (see `{path} --help`)"


def _fail(message: str, code: ExitCode) -> NoReturn:
    line = " ".join(message.split())
    sys.stderr.write(f"stillframe: {line}\n")
    sys.exit(int(code))


def emit_json(value: Any) -> None:
    """Write one JSON document to stdout; NaN and infinity are refused, not smuggled in."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def say(line: str) -> None:
    """One line to stdout, as it is: no markup, no wrapping."""
    sys.stdout.write(f"{line}\n")


def notice(sentence: str) -> None:
    """One line to stderr at once, beside whatever the command answers."""
    sys.stderr.write(f"stillframe: {sentence}\n")
    sys.stderr.flush()


def console(*, markup: bool = False) -> Console:
    """A Rich console on stdout; a pipe gets wide plain text instead of folded tables.

    Without ``markup`` brackets are printed as they are: names of VMs and datastores have some.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    return Console(width=width, markup=markup, highlight=False)


def table(title: str, columns: Sequence[str], right: Sequence[int] = ()) -> Table:
    """An empty table; ``right`` are the numbers of the columns to align right."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index in right else "left", overflow="fold")
    return made


def print_table(rows: Table, total: int = 0, shown: int = 0) -> None:
    """A table with its title, and how many rows it leaves out; nothing if it is empty."""
    if not rows.row_count:
        return
    out = console()
    # Rich would fold a title to the width of a narrow table.
    title, rows.title = rows.title, None
    out.print(title, style="bold")
    out.print(rows)
    if total > shown:
        out.print(f"  … and {total - shown} more (--json lists all)")


def count(number: int, noun: str) -> str:
    """``1 VM``, ``2 VMs``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


@contextmanager
def progress(what: str) -> Iterator[ShareDone]:
    """A progress bar on stderr, if that is a terminal and the work takes over two seconds."""
    if not sys.stderr.isatty():
        yield lambda _label, _share: None
        return
    bar = _Bar(what)
    try:
        yield bar.show
    finally:
        bar.stop()


class _Bar:
    """A bar that appears only once the work has taken two seconds of real time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started_s = time.monotonic()
        self._shown_s = 0.0
        self._progress: Any = None
        self._task: Any = None

    def show(self, label: str, share: float | None) -> None:
        """Note where the work is; draws at most ten times a second."""
        now_s = time.monotonic()
        if now_s - self._started_s < _PATIENCE_S or now_s - self._shown_s < 0.1:
            return
        self._shown_s = now_s
        if self._progress is None:
            self._start()
        self._progress.update(
            self._task,
            description=f"{self._what}: {label}",
            completed=share,
            total=None if share is None else 1.0,
        )

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task(self._what, total=None)

    def stop(self) -> None:
        """Take the bar off the screen."""
        if self._progress is not None:
            self._progress.stop()


def may_write(path: Path, *, force: bool, suffix: str = "") -> None:
    """Refuse an output file before any work is done for it.

    Raises
    ------
    InputError
        The file exists and ``force`` is not set, it is a folder, its name does not end in
        ``suffix``, or its folder does not exist or cannot be written to.
    """
    if suffix and path.suffix != suffix:
        raise InputError("--out", "", f"{str(path)!r} does not end in {suffix}")
    if path.is_dir():
        raise InputError("--out", "", f"{path} is a folder, not a file")
    if path.exists() and not force:
        raise InputError("--out", "", f"{path} exists already", "replace it with --force")
    if not path.parent.is_dir():
        raise InputError("--out", "", f"folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InputError("--out", "", f"folder {path.parent} cannot be written to")


def may_hold_results(folder: Path) -> None:
    """Refuse a result folder that cannot be written, before any work is done.

    Raises
    ------
    InputError
        It is a file, is somebody else's, or the nearest folder that exists is not writable.
    """
    from .reports.folder import check_out

    check_out(folder)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(str(folder), "", f"cannot be made: {there} cannot be written to")


def write_and_show(data: RunData, folder: Path, *, as_json: bool) -> None:
    """Write a result folder, then print its summary, or the whole of it as JSON.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    from .reports.console import print_summary
    from .reports.folder import write_folder

    with progress("Writing the report") as show:
        show("tables and pictures", None)
        write_folder(data, folder)
    if as_json:
        emit_json({"folder": str(folder), **data.meta, "vms": data.vms.to_dicts()})
    else:
        print_summary(data, console(markup=True))
        say(f"Report: {folder / 'report.html'}")
