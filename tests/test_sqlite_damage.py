"""A store that was torn, cut short or flipped: an earlier moment, or one clear error."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_store import Clock, begin, entry, intent

from stillframe.errors import InputError
from stillframe.orchestrator.sqlite_files import look
from stillframe.orchestrator.sqlite_schema import TABLES
from stillframe.orchestrator.sqlite_store import SqliteStore

CLOCK = Clock()
Rows = tuple[tuple[object, ...], ...]


def rows_of(path: Path) -> Rows:
    """Everything that a store holds; raises InputError when it is not usable."""
    with closing(look(path)) as copy:
        return tuple(
            chain.from_iterable(
                copy.execute(f"SELECT '{table}', * FROM {table}").fetchall()  # noqa: S608
                for table in ("jobs", *TABLES)
            )
        )


@dataclass
class History:
    """Files of a process that died, and what the store held after each of its transactions."""

    main: bytes
    log: bytes
    moments: list[Rows] = field(default_factory=list)
    log_sizes: list[int] = field(default_factory=list)

    def put(self, folder: Path, main: bytes | None = None, log: bytes | None = None) -> Path:
        """The files, or others in their place, as they would lie after the end of the process."""
        path = folder / "store.db"
        for one in folder.iterdir():
            one.unlink()
        path.write_bytes(self.main if main is None else main)
        Path(f"{path}-wal").write_bytes(self.log if log is None else log)
        return path


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A job that is in the main file, and one that is in the log: intents, entries, withdrawals."""
    path = tmp_path_factory.mktemp("history") / "store.db"
    store = SqliteStore(path, clock=CLOCK)
    first = begin(store, "first")
    first.intend(intent("stillframe-first-1"))
    first.keep([entry(f"vm{i}", ["stillframe-first-2"]) for i in range(20)], now_s=0.0)
    first.withdraw(["vm3", "vm4"], "too old")
    first.finish("protected")
    store.close()
    store = SqliteStore(path, clock=CLOCK)
    made = History(path.read_bytes(), b"", [rows_of(path)], [0])
    second = begin(store, "second")
    steps = (
        lambda: None,
        lambda: second.intend(intent("stillframe-second-1")),
        lambda: second.settle("stillframe-second-1"),
        lambda: second.intend(intent("stillframe-second-2")),
        lambda: second.keep([entry("vm1", ["stillframe-second-2"])], now_s=0.0),
        lambda: second.withdraw(["vm1"], "gone"),
    )
    for step in steps:
        step()
        made.log = Path(f"{path}-wal").read_bytes()
        if len(made.log) != made.log_sizes[-1]:
            made.moments.append(rows_of(path))
            made.log_sizes.append(len(made.log))
    assert len(made.moments) == 6
    assert made.main == path.read_bytes()
    store.close()
    return made


def untouched(path: Path) -> dict[str, bytes]:
    """The files beside each other, by name."""
    return {one.name: one.read_bytes() for one in path.parent.iterdir()}


def outcome(path: Path) -> Rows | None:
    """What the store holds; None when it is refused, with one line that names the file."""
    before = untouched(path)
    answer: Rows | None
    try:
        answer, said = rows_of(path), str(path)
    except InputError as error:
        answer, said = None, str(error)
    assert untouched(path) == before
    assert str(path) in said
    assert "\n" not in said
    return answer


def opened(path: Path) -> Rows | None:
    """The same by opening it to write: refused without a trace, or what was there before."""
    expected, before = outcome(path), untouched(path)
    try:
        SqliteStore(path, clock=CLOCK, synchronous="OFF").close()
    except InputError:
        assert expected is None
        assert untouched(path) == before
        return None
    assert rows_of(path) == expected
    assert list(untouched(path)) == [path.name]
    return expected


def test_the_whole_history_is_there(history: History, tmp_path: Path) -> None:
    assert opened(history.put(tmp_path)) == history.moments[-1]
    assert len(set(history.moments)) == len(history.moments)


def test_the_log_cut_within_the_last_transaction(history: History, tmp_path: Path) -> None:
    """At every byte of its frames' headers and around their ends, and here and there between."""
    begun, ended = history.log_sizes[-2:]
    frame = 24 + 4096
    sizes = [size for size in range(begun, ended) if (size - begun + 4) % frame < 16]
    assert len(sizes) >= 48
    for size in (*sizes, *range(begun, ended, 509)):
        assert outcome(history.put(tmp_path, log=history.log[:size])) == history.moments[-2]


def test_the_log_cut_anywhere_is_an_earlier_moment(history: History, tmp_path: Path) -> None:
    for size in range(0, len(history.log), 1511):
        complete = sum(end <= size for end in history.log_sizes) - 1
        path = history.put(tmp_path, log=history.log[:size])
        assert opened(path) == history.moments[complete]


def test_the_log_torn_in_its_last_transaction(history: History, tmp_path: Path) -> None:
    """Blocks of it reached the disk in another order, the rest is what was there before."""
    begun, ended = history.log_sizes[-2:]
    source = random.Random(4)
    for _ in range(40):
        log = bytearray(history.log)
        for start in range(begun, ended, 512):
            if source.random() < 0.5:
                end = min(start + 512, ended)
                log[start:end] = source.choice([bytes(end - start), source.randbytes(end - start)])
        expected = history.moments[-1 if log == history.log else -2]
        assert outcome(history.put(tmp_path, log=bytes(log))) == expected


def test_a_missing_log_is_the_moment_when_it_was_begun(history: History, tmp_path: Path) -> None:
    path = history.put(tmp_path)
    Path(f"{path}-wal").unlink()
    assert opened(path) == history.moments[0]


FUZZ = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(st.data())
def test_flipped_bits_in_the_log(history: History, tmp_path: Path, data: st.DataObject) -> None:
    log = flipped(history.log, data)
    assert opened(history.put(tmp_path, log=log)) in (None, *history.moments)


@FUZZ
@given(st.data())
def test_flipped_bits_in_the_file(history: History, tmp_path: Path, data: st.DataObject) -> None:
    """Pages that the log holds anew may be broken; nothing else may be, without an error."""
    main = flipped(history.main, data)
    assert opened(history.put(tmp_path, main=main)) in (None, history.moments[-1])
    assert opened(history.put(tmp_path, main=main, log=b"")) in (None, history.moments[0])


def flipped(whole: bytes, data: st.DataObject) -> bytes:
    """Some bytes of it changed."""
    changed = bytearray(whole)
    places = st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)
    for place in data.draw(places):
        changed[place] ^= data.draw(st.integers(1, 255))
    return bytes(changed)


def record_places(whole: bytes) -> Iterator[int]:
    """Where the texts of records lie, which no page structure depends on."""
    texts = (b"stillframe-first-1", b"stillframe-first-2", b"crash", b"too old", b"protected")
    for text in (*texts, b"tableentries"):  # the last is the definition of a table
        place = whole.find(text)
        while place >= 0:
            yield place + len(text) - 1
            place = whole.find(text, place + 1)


@pytest.mark.parametrize("bit", [1, 0x80])
def test_a_changed_record_is_noticed_though_sqlite_sees_nothing(
    history: History, tmp_path: Path, bit: int
) -> None:
    """Another text, or none that could be read."""
    places = list(record_places(history.main))
    assert len(places) > 20
    refused = 0
    for place in places:
        changed = bytearray(history.main)
        changed[place] ^= bit
        path = history.put(tmp_path, main=bytes(changed), log=b"")
        found = opened(path)
        assert found in (None, history.moments[0])  # the latter: remains of a deleted record
        refused += found is None
    assert refused > 20


def test_a_broken_structure_that_reading_does_not_meet_is_noticed(
    history: History, tmp_path: Path
) -> None:
    """The header says that a page of a table is free: the next write would overwrite it."""
    changed = bytearray(history.main)
    changed[32:40] = bytes([0, 0, 0, 2, 0, 0, 0, 1])
    assert opened(history.put(tmp_path, main=bytes(changed), log=b"")) is None


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM entries WHERE seq = 2",
        "INSERT INTO withdrawals SELECT job, seq + 9, withdrawn_s, reason, '[]' FROM withdrawals",
        "UPDATE jobs SET token = token + 1",
        "DELETE FROM jobs",
        "UPDATE withdrawals SET reason = 'none'",
        "CREATE INDEX by_vm ON entries (vm_id)",
        "DROP TABLE withdrawals",
    ],
)
def test_what_somebody_else_changed_is_noticed(
    history: History, tmp_path: Path, statement: str
) -> None:
    path = history.put(tmp_path, log=b"")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    assert opened(path) is None


def test_pages_of_two_moments_are_not_taken_for_one(history: History, tmp_path: Path) -> None:
    """The log was lost after half of it had been copied to the file."""
    path = history.put(tmp_path)
    SqliteStore(path, clock=CLOCK).close()
    later, refused = path.read_bytes(), 0
    assert len(later) >= len(history.main)
    pages = range(0, len(history.main), 4096)
    for page in pages:
        mixed = history.main[:page] + later[page : page + 4096] + history.main[page + 4096 :]
        found = outcome(history.put(tmp_path, main=mixed, log=b""))
        assert found in (None, history.moments[0], history.moments[-1])
        refused += found is None
    assert refused >= 2


def test_the_file_cut_anywhere_is_refused(history: History, tmp_path: Path) -> None:
    for size in (*range(0, len(history.main), 509), *range(0, len(history.main), 4096)):
        assert opened(history.put(tmp_path, main=history.main[:size], log=b"")) is None


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY)")


def _newer(path: Path) -> None:
    SqliteStore(path, clock=CLOCK).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")


UNUSABLE = {
    "is an SQLite file of another program": _foreign,
    "is a store of version 7, and this program knows up to": _newer,
    "is no store": lambda path: path.write_text("a shopping list\n" * 100),
    "is empty and thus no store": Path.touch,
    "is a directory": Path.mkdir,
}


@pytest.mark.parametrize("message", UNUSABLE)
def test_what_is_no_store_of_this_version_is_refused_untouched(
    tmp_path: Path, message: str
) -> None:
    path = tmp_path / "store.db"
    UNUSABLE[message](path)
    data = path.read_bytes() if path.is_file() else None
    for use in (SqliteStore, SqliteStore.open_readonly):
        with pytest.raises(InputError, match=f"store.db: {message}"):
            use(path, clock=CLOCK)
        assert [one.name for one in tmp_path.iterdir()] == [path.name]
        assert data is None or path.read_bytes() == data
