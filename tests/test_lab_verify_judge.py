"""The judge of pattern files: what a guest wrote passes, and every kind of damage is seen."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support_pattern import record, ring

from stillframe.lab.judge import judge_pair, judge_pattern
from stillframe.lab.pattern import PatternReport

RECORD = 64
WRITER = Path(__file__).parents[1] / "lab/guest/writer.c"

sizes = st.tuples(st.integers(1, 40), st.integers(0, 100))
"""Slots of a ring, and how many records have been written to it."""


def judged(data: bytes, slots: int) -> PatternReport:
    return judge_pattern(data, RECORD, slots * RECORD)


def is_whole(report: PatternReport, written: int) -> bool:
    return (report.bad, report.missing, report.max_seq) == (0, 0, written - 1)


@given(sizes)
def test_what_a_guest_wrote_is_whole(size: tuple[int, int]) -> None:
    slots, written = size
    report = judged(ring(written, slots, RECORD), slots)
    assert report == PatternReport(min(slots, written), 0, 0, written - 1)


@given(sizes, st.integers(0, 8))
def test_slots_that_were_never_written_are_no_damage(size: tuple[int, int], empty: int) -> None:
    slots, written = size
    room = max(0, min(slots - written, empty))
    data = ring(written, slots, RECORD) + bytes(room * RECORD)
    assert is_whole(judged(data, slots), written)


@given(sizes, st.data())
def test_a_changed_byte_is_seen_wherever_it_is(size: tuple[int, int], data: st.DataObject) -> None:
    slots, written = size
    assume(written)
    whole = bytearray(ring(written, slots, RECORD))
    at = data.draw(st.integers(0, len(whole) - 1))
    assume(not 16 <= at % RECORD < 24)  # the guest's time of day, which nothing depends on
    whole[at] ^= data.draw(st.integers(1, 255))
    report = judged(bytes(whole), slots)
    assert report.bad == 1
    assert not is_whole(report, written)


@given(sizes, st.data())
def test_a_record_that_never_arrived_is_seen(size: tuple[int, int], data: st.DataObject) -> None:
    slots, written = size
    assume(written)
    whole = bytearray(ring(written, slots, RECORD))
    slot = data.draw(st.integers(0, len(whole) // RECORD - 1))
    whole[slot * RECORD : (slot + 1) * RECORD] = bytes(RECORD)
    report = judged(bytes(whole), slots)
    if slot == (written - 1) % slots:  # the newest: a writer's acknowledgement tells of it
        assert report.max_seq < written - 1
    else:
        assert (report.bad, report.missing, report.max_seq) == (0, 1, written - 1)


@given(st.integers(2, 40), st.integers(1, 60), st.data())
def test_a_slot_with_the_record_of_a_lap_before_is_seen(
    slots: int, more: int, data: st.DataObject
) -> None:
    written = slots + more
    whole = bytearray(ring(written, slots, RECORD))
    seq = data.draw(st.integers(max(slots, written - slots), written - 1))
    slot = seq % slots
    whole[slot * RECORD : (slot + 1) * RECORD] = record(seq - slots, RECORD)
    report = judged(bytes(whole), slots)
    if seq == written - 1:  # the newest is not there: a moment before, nothing else
        assert is_whole(report, written - 1)
    else:
        assert (report.bad, report.missing, report.max_seq) == (0, 1, written - 1)


@given(sizes, st.integers(2, 7), st.data())
def test_a_record_of_which_only_a_part_arrived_is_seen(
    size: tuple[int, int], words: int, data: st.DataObject
) -> None:
    slots, written = size
    assume(written)
    whole = bytearray(ring(written, slots, RECORD))
    slot = data.draw(st.integers(0, len(whole) // RECORD - 1))
    begin, end = slot * RECORD + words * 8, (slot + 1) * RECORD
    before = int.from_bytes(whole[begin - words * 8 + 8 :][:8], "little") - slots
    old = record(before, RECORD) if before >= 0 else bytes(RECORD)
    whole[begin:end] = old[words * 8 :]
    report = judged(bytes(whole), slots)
    assert report.bad == 1


@given(sizes, st.integers(1, RECORD - 1))
def test_a_file_that_ends_within_a_record_is_seen(size: tuple[int, int], cut: int) -> None:
    slots, written = size
    assume(written)
    report = judged(ring(written, slots, RECORD)[:-cut], slots)
    assert report.bad == 1


@given(st.integers(2, 20), st.integers(2, 20), st.data())
def test_records_that_changed_places_are_seen(
    slots: int, written: int, data: st.DataObject
) -> None:
    whole = ring(written, slots, RECORD)
    pieces = [whole[at : at + RECORD] for at in range(0, len(whole), RECORD)]
    one = data.draw(st.integers(0, len(pieces) - 2))
    other = data.draw(st.integers(one + 1, len(pieces) - 1))
    pieces[one], pieces[other] = pieces[other], pieces[one]
    assert judged(b"".join(pieces), slots).bad == 2


def test_a_file_longer_than_the_ring_is_seen() -> None:
    assert judged(ring(4, 4, RECORD) + record(4, RECORD), 4).bad == 1


@pytest.mark.parametrize(("record_bytes", "file_bytes"), [(30, 300), (32, 320), (64, 100), (64, 0)])
def test_sizes_that_are_no_ring_are_refused(record_bytes: int, file_bytes: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        judge_pattern(b"", record_bytes, file_bytes)


@given(st.integers(2, 5), st.integers(0, 40), st.integers(0, 5))
def test_one_cut_through_a_pair_writer_is_never_called_torn(
    disks: int, done: int, in_flight: int
) -> None:
    """So many records on all disks, and one more on the first few."""
    ahead = min(in_flight, disks)
    reports = [PatternReport(0, 0, 0, done - 1 + (disk < ahead)) for disk in range(disks)]
    assert judge_pair(reports) == ""


@given(st.lists(st.integers(-1, 30), min_size=2, max_size=4))
def test_disks_that_no_point_in_time_shows_are_torn(last: list[int]) -> None:
    possible = sorted(last, reverse=True) == last and last[0] - last[-1] <= 1
    told = judge_pair([PatternReport(0, 0, 0, seq) for seq in last])
    assert (told == "") is possible


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_program_in_the_guest_judges_alike(tmp_path: Path) -> None:
    program = tmp_path / "writer"
    subprocess.run(["gcc", "-O1", "-o", program, WRITER], check=True)
    slots, size = 8, 4096
    whole = ring(13, slots, size)
    damaged = bytearray(whole)
    damaged[2 * size + 100] ^= 1
    stale = bytearray(whole)
    stale[3 * size : 4 * size] = record(3, size)
    cases = [b"", ring(5, slots, size), whole, bytes(damaged), bytes(stale), whole[:-7]]
    cases += [
        ring(3, slots, size) + bytes(2 * size),
        whole[:size] + bytes(size) + whole[2 * size :],
    ]
    folders = []
    for number, case in enumerate(cases):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        (folders[-1] / "pattern.bin").write_bytes(case)
    told = subprocess.run(
        [program, "check", str(size), str(slots * size), *folders],
        check=True,
        capture_output=True,
        text=True,
    )
    mine = [judge_pattern(case, size, slots * size) for case in cases]
    assert [PatternReport(**one) for one in json.loads(told.stdout)] == mine
    assert len({(one.bad, one.missing) for one in mine}) > 2
