"""The durable store as a file: how it is made, opened, shared, read and brought up to date."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support_store import Clock, begin, entry, intent, tags_of

from stillframe.errors import InputError, StillframeError
from stillframe.orchestrator import sqlite_files, sqlite_schema
from stillframe.orchestrator.journal import LeaseLostError
from stillframe.orchestrator.sqlite_store import SqliteStore

CLOCK = Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stores" / "store %é?#.db"


@pytest.fixture(autouse=True)
def _folder(path: Path) -> None:
    path.parent.mkdir()


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    one = SqliteStore(path, clock=CLOCK)
    yield one
    one.close()


def contents(path: Path) -> dict[str, bytes]:
    """Every file in the folder of a store, the index of its log left out."""
    return {one.name: one.read_bytes() for one in path.parent.iterdir() if not one.match("*-shm")}


def names(path: Path) -> list[str]:
    """Names of the files in the folder of a store."""
    return sorted(one.name for one in path.parent.iterdir())


def pragma(path: Path, name: str) -> int:
    """A setting that the file carries."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def outside(path: Path, statement: str) -> list[tuple[object, ...]]:
    """What another process would read now."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_only_the_owner_may_read_it(path: Path, store: SqliteStore) -> None:
    begin(store)
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    assert modes == {f"{path.name}{end}": 0o600 for end in ("", "-wal", "-shm")}


def test_closing_leaves_one_file_of_ours(path: Path, store: SqliteStore) -> None:
    begin(store)
    store.close()
    assert names(path) == [path.name]
    assert pragma(path, "application_id") == sqlite_schema.APPLICATION_ID
    assert pragma(path, "user_version") == len(sqlite_schema.MIGRATIONS)


def test_by_default_every_commit_reaches_the_disk(store: SqliteStore) -> None:
    assert store._database.fetch("PRAGMA synchronous") == (2,)
    assert store._database.fetch("PRAGMA journal_mode") == ("wal",)


def test_an_intent_is_in_the_file_at_return_and_its_end_with_the_next(
    path: Path, store: SqliteStore
) -> None:
    journal = begin(store)
    journal.intend(intent("t1"))
    assert outside(path, "SELECT tag FROM intents") == [("t1",)]
    journal.settle("t1")
    assert outside(path, "SELECT tag FROM intents") == [("t1",)]
    journal.renew()
    assert outside(path, "SELECT tag FROM intents") == []


def test_a_write_is_one_transaction(store: SqliteStore) -> None:
    journal = begin(store)
    journal.keep([entry("vm1", ["t1"]), entry("vm2", ["t2"])], now_s=0.0)
    journal.settle("t0")
    done: list[str] = []
    store._database.connection.set_trace_callback(done.append)
    journal.intend(intent("t3"))
    journal.settle("t3")
    journal.withdraw(["vm1", "vm2"], "old")
    begun = [one for one in done if one.startswith("BEGIN")]
    assert begun == ["BEGIN IMMEDIATE", "BEGIN IMMEDIATE"]
    assert sum(one == "COMMIT" for one in done) == 2


def test_another_process_finds_everything(path: Path) -> None:
    first = SqliteStore(path, clock=CLOCK)
    journal = begin(first, lease_s=1.0)
    journal.intend(intent("t1"))
    journal.intend(intent("t2"))
    journal.keep([entry("vm1", ["t2"])], now_s=0.0)
    kept, intents = journal.kept(), journal.open_intents()
    first.abandon()
    second = SqliteStore(path, clock=lambda: CLOCK() + 1.0)
    taken = second.take_over("job", holder="you", lease_s=1.0)
    assert (taken.kept(), taken.open_intents()) == (kept, intents)
    assert second.jobs()[0].token == 2
    second.close()


def test_dying_loses_only_that_something_was_settled(path: Path) -> None:
    for leave in (SqliteStore.close, SqliteStore.abandon):
        store = SqliteStore(path, clock=CLOCK)
        journal = begin(store, leave.__name__, lease_s=0.0)
        journal.intend(intent("t1"))
        journal.settle("t1")
        leave(store)
    again = SqliteStore(path, clock=CLOCK)
    open_intents = {
        job: tags_of(again.take_over(job, holder="you", lease_s=1.0))
        for job in ("close", "abandon")
    }
    assert open_intents == {"close": [], "abandon": ["t1"]}
    again.close()


def test_a_failed_write_changes_nothing(store: SqliteStore) -> None:
    journal = begin(store)
    journal.intend(intent("t1"))
    journal.settle("t1")
    journal.intend(intent("t2"))
    pages = store._database.fetch("PRAGMA page_count")
    assert pages is not None
    store._database.fetch(f"PRAGMA max_page_count = {pages[0]}")
    huge = [entry(f"vm{i}", ["t2", "x" * 500]) for i in range(200)]
    with pytest.raises(StillframeError, match=r"store .*\.db cannot be used: .* full"):
        journal.keep(huge, now_s=0.0)
    assert (journal.kept(), tags_of(journal)) == ([], ["t2"])
    store._database.fetch("PRAGMA max_page_count = 1000000")
    journal.keep(huge, now_s=0.0)
    assert (len(store.entries()), tags_of(journal)) == (200, [])


def test_who_gets_no_turn_to_write_says_so(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_files, "BUSY_S", 0.0)
    other = SqliteStore(path, clock=CLOCK)
    journal = begin(other)
    store._database.connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(StillframeError, match=r"store .*\.db cannot be used: .*locked"):
        journal.intend(intent("t1"))
    store._database.connection.execute("ROLLBACK")
    journal.intend(intent("t1"))
    assert tags_of(journal) == ["t1"]
    other.close()


def test_the_lease_is_checked_in_the_transaction_that_writes(
    path: Path, store: SqliteStore
) -> None:
    """The job changes hands after everything that the loser could have asked before."""
    journal = begin(store, lease_s=0.0)
    other = SqliteStore(path, clock=CLOCK)
    asked = False

    def take(statement: str) -> None:
        nonlocal asked
        if not asked:
            asked = True
            other.take_over("job", holder="you", lease_s=1.0)

    store._database.connection.set_trace_callback(take)
    with pytest.raises(LeaseLostError):
        journal.intend(intent("t1"))
    assert asked
    assert outside(path, "SELECT tag FROM intents") == []
    other.close()


WRITER = """
import sys
from stillframe.orchestrator.journal import Intent, IntentKind
from stillframe.orchestrator.sqlite_store import SqliteStore
sys.stdin.readline()
store = SqliteStore(sys.argv[1], clock=lambda: 0.0, synchronous="OFF")
journal = store.begin(sys.argv[2], name="", spec="{}", holder=sys.argv[2], lease_s=1.0)
for number in range(100):
    journal.intend(Intent(f"{sys.argv[2]}-{number}", IntentKind.VM_SNAPSHOT, "vc", "vm", 0.0))
store.close()
"""


def test_processes_make_and_fill_one_file_together(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, f"job-{i}"], stdin=subprocess.PIPE, text=True
        )
        for i in range(3)
    ]
    for writer in writers:  # all are up before any begins
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert names(path) == [path.name]
    store = SqliteStore.open_readonly(path, CLOCK)
    assert sorted((one.job_id, one.open_intents) for one in store.jobs()) == [
        (f"job-{i}", 100) for i in range(3)
    ]
    store.close()


def test_reading_touches_nothing_while_another_process_writes(
    path: Path, store: SqliteStore
) -> None:
    journal = begin(store)
    journal.keep([entry("vm1", ["t1"])], now_s=0.0)
    before = contents(path)
    reader = SqliteStore.open_readonly(path, CLOCK)
    assert contents(path) == before
    journal.keep([entry("vm2", ["t2"])], now_s=0.0)
    assert [one.vm_id for one in reader.entries()] == ["vm1"]  # of the moment when it was opened
    reader.close()
    assert [one.vm_id for one in store.entries()] == ["vm1", "vm2"]
    assert len(outside(path, "SELECT * FROM entries")) == 2


def test_looking_at_a_file_that_this_process_has_open_keeps_its_locks(
    path: Path, store: SqliteStore
) -> None:
    """Without them the other process would be the last to close it, and take the log away."""
    journal = begin(store)
    SqliteStore.open_readonly(path, CLOCK).close()
    subprocess.run([sys.executable, "-c", WRITER, path, "other"], input="\n", text=True, check=True)
    journal.intend(intent("t1"))
    assert outside(path, "SELECT tag FROM intents WHERE job = 1") == [("t1",)]


def test_reading_touches_nothing_where_nobody_is(path: Path, store: SqliteStore) -> None:
    begin(store).keep([entry("vm1", ["t1"])], now_s=0.0)
    store.close()
    before, listed = contents(path), names(path)
    reader = SqliteStore.open_readonly(path, CLOCK)
    assert [one.vm_id for one in reader.entries()] == ["vm1"]
    reader.close()
    assert (contents(path), names(path)) == (before, listed)


def test_reading_touches_nothing_where_a_process_died(path: Path, store: SqliteStore) -> None:
    begin(store).keep([entry("vm1", ["t1"])], now_s=0.0)
    files = contents(path)
    assert len(files[f"{path.name}-wal"]) > 0
    other = path.parent.parent / "other" / path.name
    other.parent.mkdir()
    for name, data in files.items():
        (other.parent / name).write_bytes(data)
    reader = SqliteStore.open_readonly(other, CLOCK)
    assert [one.vm_id for one in reader.entries()] == ["vm1"]
    reader.close()
    assert contents(other) == files
    assert names(other) == sorted(files)
    again = SqliteStore(other, clock=CLOCK)
    assert [one.vm_id for one in again.entries()] == ["vm1"]
    again.close()


def test_what_is_open_for_reading_takes_no_job(path: Path, store: SqliteStore) -> None:
    begin(store, lease_s=0.0)
    reader = SqliteStore.open_readonly(path, CLOCK)
    with pytest.raises(InputError, match="open for reading only"):
        begin(reader, "other")
    with pytest.raises(InputError, match="open for reading only"):
        reader.take_over("job", holder="you", lease_s=1.0)
    reader.close()


def test_a_missing_file_is_made_only_on_request(path: Path) -> None:
    with pytest.raises(InputError, match=r"\.db: there is no such file"):
        SqliteStore(path, clock=CLOCK, create=False)
    with pytest.raises(InputError, match=r"\.db: there is no such file"):
        SqliteStore.open_readonly(path, CLOCK)
    with pytest.raises(InputError, match=r"\.db: cannot be made: No such file"):
        SqliteStore(path.parent / "missing" / path.name, clock=CLOCK)
    assert names(path) == []


def test_a_log_without_its_store_is_not_given_to_a_new_one(path: Path, store: SqliteStore) -> None:
    begin(store)
    log = Path(f"{path}-wal")
    data = log.read_bytes()
    store.close()
    path.unlink()
    log.write_bytes(data)
    with pytest.raises(InputError, match=r"is missing, but .*-wal .* is there"):
        SqliteStore(path, clock=CLOCK)
    assert names(path) == [log.name]
    assert log.read_bytes() == data


@pytest.mark.parametrize(("right", "word"), [(os.R_OK, "read"), (os.W_OK, "written")])
def test_a_file_that_may_not_be_read_or_written_is_refused(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, right: int, word: str
) -> None:
    store.close()
    monkeypatch.setattr(os, "access", lambda _path, asked: asked != right)
    with pytest.raises(InputError, match=f"may not be {word}"):
        SqliteStore(path, clock=CLOCK)
    assert names(path) == [path.name]


def _add_owner(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE owners (job INTEGER PRIMARY KEY, owner TEXT)")
    connection.execute("INSERT INTO owners SELECT id, 'owner of ' || job_id FROM jobs")


def _break(connection: sqlite3.Connection) -> None:
    _add_owner(connection)
    connection.execute("INSERT INTO owners SELECT id, 'again' FROM jobs")


def _next_version(monkeypatch: pytest.MonkeyPatch, step: sqlite_schema.Migration) -> None:
    steps = (*sqlite_schema.MIGRATIONS, step)
    monkeypatch.setattr(sqlite_files, "MIGRATIONS", steps)


def test_an_older_file_is_brought_up_to_date(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(store, lease_s=0.0).intend(intent("t1"))
    store.close()
    old = path.read_bytes()
    _next_version(monkeypatch, _add_owner)
    reader = SqliteStore.open_readonly(path, CLOCK)
    assert reader._database.fetch("SELECT owner FROM owners") == ("owner of job",)
    reader.close()
    assert path.read_bytes() == old
    newer = SqliteStore(path, clock=CLOCK)
    assert tags_of(newer.take_over("job", holder="you", lease_s=1.0)) == ["t1"]
    newer.close()
    assert outside(path, "SELECT owner FROM owners") == [("owner of job",)]
    assert pragma(path, "user_version") == 2
    monkeypatch.undo()
    data = path.read_bytes()
    with pytest.raises(InputError, match="a store of version 2, and this program knows up to 1"):
        SqliteStore(path, clock=CLOCK)
    assert (names(path), path.read_bytes()) == ([path.name], data)


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(store)
    store.close()
    old = path.read_bytes()
    _next_version(monkeypatch, _break)
    with pytest.raises(InputError, match="cannot be brought from version 1 to 2: UNIQUE"):
        SqliteStore(path, clock=CLOCK)
    assert (names(path), path.read_bytes()) == ([path.name], old)


def test_a_step_is_applied_whole_or_not_at_all(path: Path, store: SqliteStore) -> None:
    """Also where the rehearsal in memory went well, as when the disk fills up."""
    begin(store)
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        before = sqlite_schema.tables_of(connection)
        with pytest.raises(sqlite3.IntegrityError):
            sqlite_schema.migrate(connection, (*sqlite_schema.MIGRATIONS, _break))
        assert sqlite_schema.version_of(connection) == 1
        assert sqlite_schema.tables_of(connection) == before
