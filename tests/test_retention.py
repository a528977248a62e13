"""What retention gives up: never the newest good entry, never more than asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support_store import cut

from stillframe.drivers.contracts import ConsistencyLevel
from stillframe.orchestrator.journal import StoredEntry
from stillframe.orchestrator.retention import (
    Retention,
    UnitSnapshots,
    choose,
    key,
    last_good,
    make_room,
    newest_first,
    spared,
)

NOW_S = 1000.0


def stored(
    job: str, vm_id: str, at_s: float, *tags: str, level: ConsistencyLevel = ConsistencyLevel.CRASH
) -> StoredEntry:
    """An entry of the catalogue."""
    cuts = tuple(cut(tag) for tag in tags)
    return StoredEntry(job, vm_id, vm_id, level, at_s, cuts, ("a1/lun0",))


@st.composite
def catalogues(draw: st.DrawFn) -> list[StoredEntry]:
    """Some jobs, each with some VMs, over few cuts that several VMs share."""
    entries = []
    for number in range(draw(st.integers(0, 5))):
        at_s = draw(st.integers(0, 9)) * 100.0
        for vm in draw(st.lists(st.integers(0, 3), unique=True)):
            tags = draw(st.lists(st.integers(0, 2), min_size=1, max_size=2, unique=True))
            level = draw(st.sampled_from(ConsistencyLevel))
            names = [f"stillframe-{number}-{tag}" for tag in tags]
            entries.append(stored(str(number), f"vm{vm}", at_s, *names, level=level))
    return entries


COUNTS = st.none() | st.integers(1, 4)
AGES_S = st.none() | st.sampled_from([0.0, 150.0, 400.0, 2000.0])


def test_without_rules_everything_stays() -> None:
    assert choose([stored("a", "vm1", 0.0, "t")], Retention(), NOW_S) == []


def test_what_one_rule_keeps_stays() -> None:
    entries = [stored(str(i), "vm1", i * 100.0, f"t{i}") for i in range(10)]
    both = Retention(keep_last=2, keep_within=450.0)
    assert choose(entries, both, NOW_S) == entries[:6]
    assert choose(entries, Retention(keep_last=7), NOW_S) == entries[:3]
    assert choose(entries, Retention(keep_within=450.0), 1e6) == entries


def test_of_entries_of_one_moment_the_later_listed_stays() -> None:
    entries = [stored(job, "vm1", 5.0, job) for job in "abc"]
    assert choose(entries, Retention(keep_last=1), NOW_S) == entries[:2]


@given(catalogues(), COUNTS, AGES_S)
def test_the_floor_holds_and_a_second_time_changes_nothing(
    entries: list[StoredEntry], keep_last: int | None, keep_within: float | None
) -> None:
    retention = Retention(keep_last=keep_last, keep_within=keep_within)
    listed = {one.tag for entry in entries[::2] for one in entry.cuts}
    floor = last_good(entries, listed)
    going = spared(choose(entries, retention, NOW_S), floor)
    staying = [entry for entry in entries if entry not in going]
    assert last_good(staying, listed) == floor
    assert spared(choose(staying, retention, NOW_S), floor) == []
    for vm_id in {entry.vm_id for entry in entries}:
        of_vm = [entry for entry in newest_first(entries) if entry.vm_id == vm_id]
        good = [
            entry
            for entry in of_vm
            if entry.level is not ConsistencyLevel.UNKNOWN
            and listed.issuperset(one.tag for one in entry.cuts)
        ]
        assert not good or good[0] in staying
        assert set(of_vm[: keep_last or 0]) <= set(staying)


@given(catalogues(), st.integers(1, 4), AGES_S)
def test_a_milder_rule_keeps_more(
    entries: list[StoredEntry], keep_last: int, keep_within: float | None
) -> None:
    strict = choose(entries, Retention(keep_last=keep_last, keep_within=keep_within), NOW_S)
    more = choose(entries, Retention(keep_last=keep_last + 1, keep_within=keep_within), NOW_S)
    later = choose(entries, Retention(keep_last=keep_last, keep_within=keep_within), NOW_S + 100.0)
    assert set(more) <= set(strict) <= set(later)


def test_room_is_made_from_the_oldest_snapshot_on() -> None:
    entries = [stored(str(i), "vm1", i * 100.0, f"t{i}") for i in range(4)]
    unit = UnitSnapshots("u", ("foreign", "t0", "t1", "t2", "t3"), room=3)
    assert make_room(entries, set(), [unit]) == (entries[:2], [])


def test_a_snapshot_that_goes_takes_all_its_entries_along_and_what_they_alone_needed() -> None:
    both = stored("a", "vm1", 0.0, "t0", "other")
    entries = [both, stored("a", "vm2", 0.0, "t0"), stored("b", "vm1", 100.0, "t1", "other2")]
    units = [UnitSnapshots("u", ("t0", "t1"), 1), UnitSnapshots("v", ("other", "other2"), 1)]
    assert make_room(entries, set(), units) == (entries[:2], [])


def test_no_more_goes_than_has_to() -> None:
    """What an entry frees beside the snapshot that it was chosen for counts too."""
    both = stored("a", "vm1", 100.0, "t0", "t0b", "other")
    entries = [
        stored("z", "vm3", 0.0, "older"),
        both,
        stored("b", "vm1", 200.0, "t1"),
        stored("c", "vm1", 300.0, "t2"),
    ]
    unit = UnitSnapshots("u", ("t0", "t0b", "t1", "t2"), 2)
    assert make_room(entries, set(), [unit]) == ([both], [])
    units = [unit, UnitSnapshots("v", ("other", "older"), 1)]
    assert make_room(entries, set(), units) == ([both], [])


def test_room_is_never_made_below_the_floor() -> None:
    entries = [stored("a", "vm1", 0.0, "t0"), stored("b", "vm2", 100.0, "t1")]
    unit = UnitSnapshots("u", ("t0", "t1"), room=0)
    assert make_room(entries, {key(entries[0])}, [unit]) == ([entries[1]], [unit])


@given(catalogues(), st.lists(st.integers(0, 4), min_size=2, max_size=2), st.data())
def test_room_properties(entries: list[StoredEntry], rooms: list[int], data: st.DataObject) -> None:
    tags = list(dict.fromkeys(one.tag for entry in entries for one in entry.cuts))
    floor = last_good(entries, tags[::2])
    units = [
        UnitSnapshots(f"u{i}", tuple(data.draw(st.lists(st.sampled_from(tags), unique=True))), room)
        for i, room in enumerate(rooms)
        if tags
    ]
    going, full = make_room(entries, floor, units)
    assert not {key(entry) for entry in going} & floor
    staying = [entry for entry in entries if entry not in going]
    needed = {one.tag for entry in staying for one in entry.cuts}
    left = [unit._replace(tags=tuple(tag for tag in unit.tags if tag in needed)) for unit in units]
    for unit in left:
        assert len(unit.tags) <= unit.room or unit.unit_id in {one.unit_id for one in full}
    assert make_room(staying, floor, left)[0] == []
