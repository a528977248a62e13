"""What every store does alike, in memory and in SQLite, whatever is done with it in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support_store import Clock, begin, cut, entry, intent, tags_of

from stillframe.errors import StillframeError
from stillframe.orchestrator.journal import (
    RUNNING,
    IntentKind,
    Journal,
    LeaseHeldError,
    LeaseLostError,
    Store,
    Withdrawal,
)
from stillframe.orchestrator.memory_store import MemoryStore, throwaway_journal
from stillframe.orchestrator.sqlite_store import SqliteStore


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "sqlite-file"])
def store(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Iterator[Store]:
    one: Store
    if request.param == "memory":
        one = MemoryStore(clock)
    elif request.param == "sqlite":
        one = SqliteStore(":memory:", clock=clock)
    else:
        one = SqliteStore(tmp_path / "store.db", clock=clock)
    yield one
    one.close()


def test_a_new_job_runs_in_the_hands_of_its_holder(store: Store, clock: Clock) -> None:
    begin(store, "first")
    clock.now_s = 130.0
    journal = begin(store, "second", holder="you", lease_s=10.0)
    first, second = store.jobs()
    assert (first.job_id, second.job_id) == ("first", "second")
    assert (first.name, first.spec, first.begun_s) == ("nightly first", "{}", 100.0)
    assert (second.status, second.holder, second.token) == (RUNNING, "you", 1)
    assert second.lease_until_s == 140.0
    assert first.unfinished
    assert journal.lease_s == 10.0


def test_a_job_identifier_is_used_once(store: Store) -> None:
    begin(store)
    with pytest.raises(StillframeError, match="there is a job job already"):
        begin(store)
    assert len(store.jobs()) == 1


def test_intents_stay_open_until_they_are_settled(store: Store, clock: Clock) -> None:
    journal = begin(store)
    journal.intend(intent("t1"))
    clock.now_s = 107.0
    journal.intend(intent("t2", IntentKind.ARRAY_SNAPSHOT))
    journal.intend(intent("t3"))
    journal.settle("t2")
    journal.settle("unheard of")
    assert tags_of(journal) == ["t1", "t3"]
    assert store.jobs()[0].open_intents == 2
    assert journal.open_intents() == [
        intent("t1")._replace(begun_s=100.0),
        intent("t3")._replace(begun_s=107.0),
    ]
    journal.settle("t3")
    journal.intend(intent("t3"))
    journal.intend(intent("t1"))
    assert tags_of(journal) == ["t1", "t3"]


def test_an_entry_is_kept_with_its_time_on_the_clock_of_the_store(store: Store) -> None:
    journal = begin(store)
    journal.keep([entry("vm1", ["t1"], point_in_time_s=2.0)], now_s=7.0)
    [stored] = journal.kept()
    assert store.entries() == [stored]
    assert stored.point_in_time_s == 95.0
    assert (stored.job_id, stored.vm_id, stored.vm_name) == ("job", "vm1", "name of vm1")
    assert (stored.cuts, stored.unit_ids) == ((cut("t1"),), ("a1/lun0",))


def test_keeping_settles_the_cuts_and_nothing_else(store: Store) -> None:
    journal = begin(store)
    for tag in ("t1", "t2", "t3"):
        journal.intend(intent(tag))
    journal.keep([entry("vm1", ["t1", "t3"])], now_s=0.0)
    assert tags_of(journal) == ["t2"]


def test_a_new_entry_of_a_vm_replaces_the_old_and_reopens_its_cut(store: Store) -> None:
    journal = begin(store)
    journal.keep([entry("vm1", ["t1", "t2"]), entry("vm2", ["t2"])], now_s=0.0)
    journal.keep([entry("vm1", ["t3"])], now_s=0.0)
    assert [(one.vm_id, one.cuts) for one in journal.kept()] == [
        ("vm2", (cut("t2"),)),
        ("vm1", (cut("t3"),)),
    ]
    assert tags_of(journal) == ["t1"]


def test_of_two_entries_of_a_vm_at_once_the_later_counts(store: Store) -> None:
    journal = begin(store)
    for tag in ("t1", "t2"):
        journal.intend(intent(tag))
    journal.keep([entry("vm1", ["t1"]), entry("vm2", ["t2"]), entry("vm1", ["t2"])], now_s=0.0)
    assert [(one.vm_id, one.cuts) for one in journal.kept()] == [
        ("vm2", (cut("t2"),)),
        ("vm1", (cut("t2"),)),
    ]
    assert tags_of(journal) == ["t1"]


def test_withdrawing_reopens_the_cuts_that_nothing_names_any_more(
    store: Store, clock: Clock
) -> None:
    journal = begin(store)
    journal.keep(
        [entry("vm1", ["t1", "t2"]), entry("vm2", ["t2"]), entry("vm3", ["t3"])], now_s=0.0
    )
    clock.now_s = 108.0
    journal.withdraw(["vm1", "vm1", "vm9", "vm3"], "too old")
    assert [one.vm_id for one in store.entries()] == ["vm2"]
    assert [(one.tag, one.kind, one.system_id, one.begun_s) for one in journal.open_intents()] == [
        ("t1", IntentKind.ARRAY_SNAPSHOT, "a1", 108.0),
        ("t3", IntentKind.ARRAY_SNAPSHOT, "a1", 108.0),
    ]
    assert store.withdrawn() == [Withdrawal("job", 108.0, "too old", ("vm1", "vm3"))]
    journal.withdraw(["vm9"], "never was there")
    assert len(store.withdrawn()) == 1


def test_the_catalogue_is_listed_job_by_job(store: Store) -> None:
    first, second = begin(store, "first"), begin(store, "second")
    second.keep([entry("vm1", ["b"])], now_s=0.0)
    first.keep([entry("vm2", ["a"]), entry("vm1", ["a"])], now_s=0.0)
    assert [(one.job_id, one.vm_id) for one in store.entries()] == [
        ("first", "vm2"),
        ("first", "vm1"),
        ("second", "vm1"),
    ]
    assert [record.entries for record in store.jobs()] == [2, 1]


def test_a_finished_job_may_be_taken_over_at_once_and_keeps_its_status(store: Store) -> None:
    journal = begin(store)
    journal.intend(intent("t1"))
    journal.finish("protected")
    [record] = store.jobs()
    assert (record.status, record.holder, record.lease_until_s) == ("protected", "", 100.0)
    assert record.unfinished  # of the intent that is open
    taken = store.take_over("job", holder="you", lease_s=60.0)
    taken.settle("t1")
    [record] = store.jobs()
    assert (record.status, record.holder, record.token) == ("protected", "you", 2)
    assert not record.unfinished


def test_a_lease_keeps_others_off_until_it_has_run_out(store: Store, clock: Clock) -> None:
    journal = begin(store, lease_s=60.0)
    clock.now_s = 150.0
    journal.renew()
    clock.now_s = 209.5
    with pytest.raises(LeaseHeldError, match=r"in the hands of me, .* for another 0\.5 s"):
        store.take_over("job", holder="you", lease_s=60.0)
    clock.now_s = 210.0
    store.take_over("job", holder="you", lease_s=60.0)
    assert store.jobs()[0].lease_until_s == 270.0


def test_a_lease_is_broken_of_exactly_the_holder_that_is_named(store: Store) -> None:
    mine = begin(store, lease_s=60.0)
    with pytest.raises(LeaseHeldError, match="in the hands of me"):
        store.take_over("job", holder="you", lease_s=60.0, breaking="somebody")
    mine.renew()
    store.take_over("job", holder="you", lease_s=60.0, breaking="me")
    with pytest.raises(LeaseLostError):
        mine.renew()
    with pytest.raises(LeaseHeldError, match="in the hands of you"):
        store.take_over("job", holder="third", lease_s=60.0, breaking="me")
    [record] = store.jobs()
    assert (record.holder, record.token) == ("you", 2)


def test_what_was_settled_is_not_looked_for_by_who_takes_over(store: Store, clock: Clock) -> None:
    journal = begin(store)
    journal.intend(intent("t1"))
    journal.settle("t1")
    clock.now_s += 60.0
    assert not tags_of(store.take_over("job", holder="you", lease_s=60.0))


def test_nobody_takes_over_a_job_that_does_not_exist(store: Store) -> None:
    with pytest.raises(StillframeError, match="knows no job nightly"):
        store.take_over("nightly", holder="you", lease_s=60.0)


EVERYTHING: dict[str, Callable[[Journal], object]] = {
    "renew": lambda journal: journal.renew(),
    "intend": lambda journal: journal.intend(intent("late")),
    "settle": lambda journal: journal.settle("t1"),
    "open_intents": lambda journal: journal.open_intents(),
    "keep": lambda journal: journal.keep([entry("vm2", ["t1"])], now_s=0.0),
    "withdraw": lambda journal: journal.withdraw(["vm1"], "late"),
    "kept": lambda journal: journal.kept(),
    "finish": lambda journal: journal.finish("late"),
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_who_lost_the_lease_can_do_nothing_any_more(store: Store, clock: Clock, name: str) -> None:
    journal = begin(store)
    journal.intend(intent("t1"))
    journal.keep([entry("vm1", ["t0"])], now_s=0.0)
    clock.now_s += 60.0
    taken = store.take_over("job", holder="you", lease_s=60.0)
    before = (store.jobs(), store.entries(), store.withdrawn())
    with pytest.raises(LeaseLostError, match="job job was taken over by you"):
        EVERYTHING[name](journal)
    assert (store.jobs(), store.entries(), store.withdrawn()) == before
    assert tags_of(taken) == ["t1"]


def test_the_loser_is_told_so_also_where_the_winner_has_written(store: Store, clock: Clock) -> None:
    journal = begin(store)
    clock.now_s += 60.0
    taken = store.take_over("job", holder="you", lease_s=60.0)
    taken.intend(intent("t1"))
    taken.keep([entry("vm1", ["t2"])], now_s=0.0)
    for write in (EVERYTHING["intend"], EVERYTHING["keep"]):
        with pytest.raises(LeaseLostError):
            write(journal)


@pytest.mark.parametrize("name", EVERYTHING)
def test_who_holds_the_lease_can_do_everything(store: Store, name: str) -> None:
    EVERYTHING[name](begin(store))


def test_a_lease_for_ever_needs_no_renewal(store: Store, clock: Clock) -> None:
    assert begin(store, lease_s=float("inf")).lease_s is None
    clock.now_s = 1e12
    with pytest.raises(LeaseHeldError):
        store.take_over("job", holder="you", lease_s=60.0)
    assert throwaway_journal("job", clock).lease_s is None
