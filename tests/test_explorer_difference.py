"""The difference of two event traces, and traces in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillframe.errors import InputError, StillframeError
from stillframe.explorer.difference import compare, difference_text
from stillframe.explorer.tracefile import TOLERANCE_S, read_trace, write_trace
from stillframe.orchestrator.events import Row

JOB = "0a1b2c3d4e"


def vm_rows(vm: str, start_s: float, number: int, job: str = JOB) -> list[Row]:
    """What is done with one VM: opened, frozen and released."""
    tag = f"stillframe-{job}-{number}"
    return [
        (start_s, "vm.snapshot.requested", "g1", vm, tag),
        (start_s + 1, "world.vm.frozen", "", vm, ""),
        (start_s + 2, "vm.snapshot.created", "g1", vm, "filesystem"),
        (start_s + 5, "vm.release.requested", "g1", vm, tag),
        (start_s + 7, "vm.release.completed", "g1", vm, ""),
    ]


def trace(*vms: list[Row], job: str = JOB) -> list[Row]:
    started = (0.0, "job.started", "", job, "per-component")
    return [started, *sorted((row for rows in vms for row in rows), key=lambda row: row[0])]


A, B = vm_rows("vm-a", 1.0, 1), vm_rows("vm-b", 1.5, 2)
WHOLE = trace(A, B)


def marks(text: str) -> list[str]:
    """The lines of a text that show an event of one run only."""
    return [line.strip() for line in text.splitlines() if line.lstrip()[:2] in ("- ", "+ ")]


def test_the_same_trace_is_the_same() -> None:
    assert compare(WHOLE, list(WHOLE)).same
    assert difference_text(WHOLE, WHOLE) == "the runs are the same: expected 11 events, this run 11"


def test_a_release_that_is_missing_is_shown_with_what_came_before() -> None:
    without = [row for row in WHOLE if not (row[1].startswith("vm.release") and row[3] == "vm-b")]
    text = difference_text(WHOLE, without, names=("passing", "failing"))
    assert "passing 11 events, failing 9; 9 the same" in text
    first = text.split("came before it:")[1].split("\n\n")[0].strip().splitlines()
    assert len(first) == 6
    assert first[0].strip() == "… 4 events before"
    assert first[-1].strip().startswith("-     6.500000 s  vm.release.requested")
    assert "g1 vm-b" in first[-1]
    assert "vm-b:\n    … 3 events in both\n  -" in text
    assert "vm-a:" not in text
    assert "2 of 3 VMs, cuts and groups did the same" in text


def test_another_interleaving_of_vms_is_no_difference_but_of_time() -> None:
    """Line by line, nearly all of these rows differ."""
    later = trace(A, [(row[0] + 30, *row[1:]) for row in B])
    found = compare(WHOLE, later)
    assert found.first is None
    assert not found.same
    assert found.first_shift is not None
    assert found.first_shift.left == B[0]
    text = difference_text(WHOLE, later)
    assert "5 at another time" in text
    assert "+30 s" in text
    assert text.endswith("apart from times, both runs did the same")


def test_another_job_with_other_tag_numbers_did_the_same() -> None:
    other = trace(vm_rows("vm-a", 1.0, 7, "ffff"), vm_rows("vm-b", 1.5, 3, "ffff"), job="ffff")
    assert compare(WHOLE, other).same


def test_another_detail_is_a_difference() -> None:
    crash = [(*row[:4], "crash") if row[4] == "filesystem" else row for row in A]
    shown = marks(difference_text(WHOLE, trace(crash, B)))
    assert len(shown) == 4  # once as the first difference, once in its lane
    assert shown[0].endswith("vm-a  filesystem")
    assert shown[1].endswith("vm-a  crash")


def test_cuts_of_two_groups_on_one_array_are_lanes_of_their_own() -> None:
    def cut(group: str, at_s: float) -> list[Row]:
        units = f"array-a/{group}"
        return [
            (at_s, "array.snapshot.requested", group, "array-a", units),
            (at_s + 1, "world.array.cut", "", "array-a", units),
            (at_s + 2, "array.snapshot.completed", group, "array-a", units),
        ]

    one, other = trace(cut("g1", 1), cut("g2", 5)), trace(cut("g1", 5), cut("g2", 1))
    found = compare(one, other)
    assert found.first is None
    assert {lane.subject for lane in found.lanes} == {
        "the job",
        "array-a g1",
        "array-a g2",
        "array-a array-a/g1",
        "array-a array-a/g2",
    }


def test_of_events_at_one_instant_the_first_in_the_trace_is_the_first_difference() -> None:
    """A host is lost, and at the same instant, because of it, a VM."""
    lost: list[Row] = [
        (4.0, "world.host.lost", "", "host", ""),
        (4.0, "world.vm.power", "", "vm-a", ""),
    ]
    found = compare(WHOLE, trace(A, B, lost))
    assert found.first is not None
    assert found.first.right == lost[0]
    assert [lane.subject for lane in found.lanes][:2] == ["host", "vm-a"]


def test_times_within_the_tolerance_are_the_same() -> None:
    moved = [(row[0] + 1e-6, *row[1:]) for row in WHOLE]
    assert compare(WHOLE, moved, tolerance_s=TOLERANCE_S).same
    assert not compare(WHOLE, moved).same
    assert not compare(WHOLE, moved, tolerance_s=5e-7).same


def test_a_long_difference_is_a_short_text() -> None:
    """One lane with thousands of events and hundreds of lanes: a screenful all the same."""
    many = trace(*[vm_rows(f"vm-{n}", float(n), n) for n in range(300)])
    long: list[Row] = [(float(n), f"kind-{n % 7}", "", "busy", "x" * 500) for n in range(5000)]
    other: list[Row] = [(float(n), f"kind-{n % 5}", "", "busy", "") for n in range(5000)]
    text = difference_text(many + long, other)
    assert len(text.splitlines()) < 120
    assert max(map(len, text.splitlines())) < 250
    found = compare(many + long, other)
    assert sum(lane.uncompared for lane in found.lanes) > 8000
    assert not found.same


KINDS = st.sampled_from(["a", "b", "c"])
ROWS = st.lists(
    st.tuples(st.integers(0, 20).map(float), KINDS, KINDS, st.sampled_from(["x", "y"]), KINDS)
)


@given(ROWS, ROWS)
def test_every_event_is_in_exactly_one_step(left: list[Row], right: list[Row]) -> None:
    found = compare(left, right)
    steps = list(found.steps())
    assert sorted(step.left for step in steps if step.left is not None) == sorted(left)
    assert sorted(step.right for step in steps if step.right is not None) == sorted(right)
    for step in steps:
        if step.left is not None and step.right is not None:
            assert step.left[1:4] == step.right[1:4]
    assert compare(left, list(left)).same
    assert difference_text(left, right)


def test_a_trace_comes_back_from_its_file(tmp_path: Path) -> None:
    rows: list[Row] = [
        (1 / 3, "vm.snapshot.created", "g1", "vm-ü", 'a "quoted" detail\u2028with a separator'),
        (1e4 / 7, "job.finished", "", "j", ""),
    ]
    path = tmp_path / "new" / "run.jsonl"
    write_trace(path, rows)
    again = read_trace(path)
    assert compare(rows, again, tolerance_s=TOLERANCE_S).same
    assert [row[1:] for row in again] == [row[1:] for row in rows]
    assert len(path.read_text(encoding="utf-8").split("\n")) == 4
    write_trace(path, again)
    assert read_trace(path) == again


HEAD = json.dumps({"format": "stillframe-trace", "version": 1})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: is not a trace"),
        ("[1]", "line 1: is not a trace"),
        ("no json", "line 1: is not JSON"),
        ('{"format": "stillframe-trace", "version": 9}', "version: 9 is not known"),
        (f"{HEAD}\n[1, 2]", "line 2: is not an event"),
        (f'{HEAD}\n[true, "a", "b", "c", "d"]', "line 2: is not an event"),
        (f'{HEAD}\n[1, "a", "b", "c", 5]', "line 2: is not an event"),
        (f'{HEAD}\n[1, "a", "b", "c", "d"]\n[2, "a', "line 3: is not JSON"),
    ],
)
def test_a_damaged_trace_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_trace(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(InputError, match="not UTF-8"):
        read_trace(tmp_path / "latin")
    with pytest.raises(StillframeError, match="cannot be written"):
        write_trace(tmp_path, WHOLE)
