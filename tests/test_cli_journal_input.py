"""Journals that cannot be used: one clear line, exit code 2, nothing touched, nothing opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
from support_crashed import JOURNAL, crashed, keep
from support_live_front import World, config, refuse, world

__all__ = ["world"]  # a fixture

CONFIGURED = {
    "recover": ("recover", "live.yaml"),
    "list": ("catalog", "list", "live.yaml"),
    "show": ("catalog", "show", "live.yaml", "vm1"),
    "verify": ("catalog", "verify", "live.yaml"),
    "prune": ("prune", "live.yaml", "--keep-last", "1"),
    "dry-run": ("prune", "live.yaml", "--dry-run", "--keep-last", "1"),
}
ANY = CONFIGURED | {
    "journal": ("catalog", "list", "--journal", str(JOURNAL)),
    "run": ("run", "--live", "live.yaml"),
}


def text() -> None:
    """Somebody's notes."""
    JOURNAL.write_text("dear diary\n" * 1000, encoding="utf-8")


def foreign() -> None:
    """A database of another program."""
    JOURNAL.unlink()
    database = sqlite3.connect(JOURNAL)
    database.execute("CREATE TABLE jobs (job_id)")
    database.close()


def newer() -> None:
    """A journal of a later version."""
    database = sqlite3.connect(JOURNAL)
    database.execute("PRAGMA user_version = 99")
    database.close()


def damaged() -> None:
    """One byte of a record is another."""
    content = JOURNAL.read_bytes()
    assert content.count(b"vc/vm3") == 1
    JOURNAL.write_bytes(content.replace(b"vc/vm3", b"vc/vm4"))


def truncated() -> None:
    """The second half is gone."""
    content = JOURNAL.read_bytes()
    JOURNAL.write_bytes(content[: len(content) // 2])


def empty() -> None:
    """Nothing is left of it."""
    JOURNAL.write_bytes(b"")


def folder() -> None:
    """There is a folder in its place."""
    JOURNAL.unlink()
    JOURNAL.mkdir()


UNUSABLE = {
    text: "is no store",
    foreign: "is an SQLite file of another program",
    newer: "version 99",
    damaged: "is damaged",
    truncated: "is damaged",
    empty: "is empty",
    folder: "is a directory",
}


@pytest.mark.parametrize("command", ANY.values(), ids=ANY)
@pytest.mark.parametrize(
    ("spoil", "told"), UNUSABLE.items(), ids=[one.__name__ for one in UNUSABLE]
)
def test_a_journal_that_cannot_be_used(
    world: World, command: tuple[str, ...], spoil: Callable[[], None], told: str
) -> None:
    crashed(world)
    config()
    spoil()
    before = world.left
    line = refuse(*command)
    assert line.startswith("stillframe: tonight.journal: ")
    assert told in line
    assert world.left == before
    assert world.opened == []


@pytest.mark.parametrize("command", [*CONFIGURED.values(), ANY["journal"]], ids=[*CONFIGURED, "-"])
def test_a_journal_that_is_not_there_is_not_made(world: World, command: tuple[str, ...]) -> None:
    config()
    assert "tonight.journal: there is no such journal (a live run makes it" in refuse(*command)
    assert world.opened == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"journal_file": ""}, "live.yaml: journal_file: "),
        ({"journal_file": 7}, "live.yaml: journal_file: "),
        ({"journal": "x"}, "live.yaml: journal: unknown key"),
        ({"retention": {"keep_lasst": 3}}, "live.yaml: retention.keep_lasst: unknown key"),
        ({"retention": {"keep_last": 0}}, "live.yaml: retention.keep_last: "),
        ({"retention": {"keep_within": 7}}, "live.yaml: retention.keep_within: 7 has no unit"),
        ({"retention": {"keep_within": "a week"}}, "live.yaml: retention.keep_within: 'a week'"),
        ({"retention": []}, "live.yaml: retention: "),
    ],
)
@pytest.mark.parametrize("command", [*CONFIGURED.values(), ANY["run"]], ids=[*CONFIGURED, "run"])
def test_a_key_that_cannot_be_used(
    world: World, command: tuple[str, ...], changes: dict[str, object], told: str
) -> None:
    keep(world, 5.0, "vc/vm1")
    config(**changes)
    assert told in refuse(*command)
    assert world.opened == []


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("recover", "nowhere.yaml"), "nowhere.yaml"),
        (("recover",), "Missing argument"),
        (
            ("recover", "live.yaml", "--job", "nobody"),
            "--job: tonight.journal knows no job 'nobody'",
        ),
        (("catalog",), "Missing command"),
        (("catalog", "list"), "give CONFIG or --journal FILE"),
        (("catalog", "list", "live.yaml", "--journal", "x"), "give CONFIG or --journal FILE"),
        (("catalog", "show", "live.yaml"), "Missing argument"),
        (("catalog", "show", "live.yaml", "vm11"), "no entry of a VM 'vm11' (did you mean 'vm1'?)"),
        (
            ("catalog", "show", "live.yaml", "sql"),
            "no entry of a VM 'sql' (see `stillframe catalog",
        ),
        (("prune", "live.yaml"), "live.yaml: retention: "),
        (("prune", "live.yaml", "--keep-last", "0"), "--keep-last"),
        (("prune", "live.yaml", "--keep-within", "7"), "--keep-within: '7' is not a duration"),
        (("run", "demo", "--no-recover"), "--no-recover has no meaning without --live"),
    ],
)
def test_mistakes_on_the_command_line(world: World, args: tuple[str, ...], told: str) -> None:
    keep(world, 5.0, "vc/vm1")
    config()
    assert told in refuse(*args)
    assert world.opened == []


def test_a_journal_in_a_folder_that_does_not_exist_is_refused(world: World) -> None:
    file = config(journal_file="no/tonight.journal")
    line = refuse("run", "--live", file)
    assert "no/tonight.journal: cannot be made: folder no does not exist" in line
    assert world.opened == []
