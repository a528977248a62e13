"""The file of a durable store: made whole, looked at before it is touched, written in one piece.

A file that is no store of ours, is newer than this program or is damaged must stay as it is, and
SQLite changes a file that it opens for writing: it replays and removes the log of a process that
died. So opening one that is there begins with a look at a copy in memory, and only a store that
passes is opened. SQLite itself makes the copy, because closing a file that this process has open
in another connection would lose that connection its locks.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from ..errors import InputError, StillframeError
from .sqlite_schema import (
    APPLICATION_ID,
    MIGRATIONS,
    Value,
    migrate,
    tables_of,
    version_of,
    wrong_sums,
)

BUSY_S = 30.0
"""How long a write waits for its turn; another process holds it for milliseconds."""

_ASIDE = "move it aside, or restore a copy of it"


class Database:
    """A connection, with errors that name the file."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self.connection = connection
        self.name = name

    def fetch(self, statement: str, values: Sequence[Value] = ()) -> tuple[Value, ...] | None:
        """The first row of an answer."""
        rows = self.fetch_all(statement, values)
        return rows[0] if rows else None

    def fetch_all(self, statement: str, values: Sequence[Value] = ()) -> list[tuple[Value, ...]]:
        """Every row of an answer.

        Raises
        ------
        StillframeError
            SQLite cannot read it.
        """
        try:
            return self.connection.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise self._explained(error) from error

    def transact(self, work: Callable[[sqlite3.Connection], bool]) -> bool:
        """Do this in one transaction; durable at return. Rolled back when it answers False.

        Raises
        ------
        StillframeError
            SQLite could not write; nothing of it is in the file.
        """
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                done = work(connection)
                connection.execute("COMMIT" if done else "ROLLBACK")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, UnicodeError) as error:
            raise self._explained(error) from error
        return done

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def _explained(self, error: Exception) -> StillframeError:
        advice = "check the disk, the permissions and whether another process holds the file"
        return StillframeError(f"the store {self.name} cannot be used: {error}", advice)


def open_memory() -> Database:
    """A store that lives as long as its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, MIGRATIONS)
    return Database(connection, ":memory:")


def open_file(path: Path, synchronous: str, create: bool) -> Database:
    """Open a store for writing: look at it, bring it to the present version.

    Raises
    ------
    InputError
        It is missing and not to be made, or is nothing that this program can use; it is untouched.
    """
    made = create and not os.path.lexists(path) and _create(path, durable=synchronous != "OFF")
    if not made:
        look(path).close()
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise InputError(
            str(path), "", "the file or its folder may not be written", "change the permissions"
        )
    connection = _connect(path, "rw", timeout_s=BUSY_S)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        if version_of(connection) < len(MIGRATIONS):
            migrate(connection, MIGRATIONS)
    except sqlite3.Error as error:
        connection.close()
        raise InputError(str(path), "", f"the store cannot be opened: {error}") from error
    return Database(connection, str(path))


def look(path: Path) -> sqlite3.Connection:
    """A checked copy of a store in memory, at the present version; the file is not touched.

    Raises
    ------
    InputError
        The file is missing, is no store, is of a newer version or is damaged.
    """
    _refuse_what_is_no_file(path)
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _copy(path, copy)
        _check(path, copy)
    except (sqlite3.Error, UnicodeError) as error:
        copy.close()
        _damaged(path, str(error), error)
    except BaseException:
        copy.close()
        raise
    return copy


def _refuse_what_is_no_file(path: Path) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise InputError(str(path), "", "there is no such file", "name a store") from None
    except OSError as error:
        raise InputError(str(path), "", f"cannot be looked at: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        what = "is a directory" if stat.S_ISDIR(found.st_mode) else "is no regular file"
        raise InputError(str(path), "", what, "name the file of a store")
    if not os.access(path, os.R_OK):
        raise InputError(str(path), "", "may not be read", "change its permissions")
    if not found.st_size:
        raise InputError(str(path), "", "is empty and thus no store", _ASIDE)


def _copy(path: Path, copy: sqlite3.Connection) -> None:
    """Fill ``copy`` with what the file and its log hold.

    With a log but no index of it (``-shm``), no process has the store open, and opening it would
    make an index: then files are copied first. Without a log nothing may be made either, so it is
    opened as if nobody could write, and again if somebody did.
    """
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    while True:
        if log.exists() and index.exists():
            return _backup(path, "ro", copy)
        before = _state(path)
        if before[-1]:
            with tempfile.TemporaryDirectory(prefix="stillframe-") as folder:
                other = Path(folder, "store")
                shutil.copyfile(path, other)
                shutil.copyfile(log, f"{other}-wal")
                return _backup(other, "rw", copy, durable=False)  # nobody reads it again
        try:
            _backup(path, "ro&immutable=1", copy)
        except sqlite3.Error:
            if _state(path) == before:
                raise
        else:
            if _state(path) == before:
                return None


def _state(path: Path) -> tuple[int, ...]:
    """What differs when somebody has written in the meantime."""
    log, found = Path(f"{path}-wal"), path.stat()
    logged = log.stat().st_size if log.exists() else 0
    return found.st_ino, found.st_size, found.st_mtime_ns, logged


def _backup(path: Path, mode: str, copy: sqlite3.Connection, *, durable: bool = True) -> None:
    with closing(_connect(path, mode, timeout_s=BUSY_S)) as source:
        if not durable:
            source.execute("PRAGMA synchronous = OFF")
        source.backup(copy)


def _connect(path: Path, mode: str, timeout_s: float) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout_s)


def _check(path: Path, copy: sqlite3.Connection) -> None:
    application_id = copy.execute("PRAGMA application_id").fetchone()[0]
    if application_id != APPLICATION_ID:
        raise InputError(str(path), "", "is an SQLite file of another program", "name a store")
    version = version_of(copy)
    if version > len(MIGRATIONS):
        raise InputError(
            str(path),
            "",
            f"is a store of version {version}, and this program knows up to {len(MIGRATIONS)}",
            "use the newer program that wrote it",
        )
    problems = [row[0] for row in copy.execute("PRAGMA integrity_check(1)")]
    if problems != ["ok"]:
        _damaged(path, problems[0])
    if tables_of(copy) != _tables(version):
        _damaged(path, "its tables are not those of a store")
    if version < len(MIGRATIONS):
        _rehearse_migration(path, copy, version)
    wrong = wrong_sums(copy)
    if wrong:
        _damaged(path, wrong[0])


def _rehearse_migration(path: Path, copy: sqlite3.Connection, version: int) -> None:
    try:
        migrate(copy, MIGRATIONS)
    except sqlite3.Error as error:
        problem = f"cannot be brought from version {version} to {len(MIGRATIONS)}: {error}"
        raise InputError(str(path), "", problem, "use the program that wrote it") from error


def _damaged(path: Path, problem: str, cause: Exception | None = None) -> NoReturn:
    if "file is not a database" in problem:
        raise InputError(str(path), "", "is no store", "name a store") from cause
    raise InputError(str(path), "", f"is damaged: {' '.join(problem.split())}", _ASIDE) from cause


def _create(path: Path, *, durable: bool) -> bool:
    """A new store, whole or not at all; False for an existing file, which is left as it is."""
    stray = next((one for one in (f"{path}-wal", f"{path}-shm") if os.path.lexists(one)), None)
    if stray is not None:
        problem = f"is missing, but {stray} of a store of this name is there"
        raise InputError(str(path), "", problem, "put the store back, or move that file aside")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_image(len(MIGRATIONS)))
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.link(name, path)
        finally:
            Path(name).unlink()
        if durable:
            _sync_folder(path.parent)
    except FileExistsError:  # another process was faster
        return False
    except OSError as error:
        raise InputError(str(path), "", f"cannot be made: {error.strerror}") from error
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _image(version: int) -> bytes:
    """The file of an empty store of this version."""
    with tempfile.TemporaryDirectory(prefix="stillframe-") as folder:
        path = Path(folder, "store")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            migrate(connection, MIGRATIONS[:version])
        return path.read_bytes()


@cache
def _tables(version: int) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, MIGRATIONS[:version])
        return tables_of(connection)
