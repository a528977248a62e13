"""The Perfetto trace and the terminal summary."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support_reports import build_inputs, build_run

from stillframe.reports import perfetto
from stillframe.reports.console import print_summary
from stillframe.reports.perfetto import _lanes, trace
from stillframe.reports.rundata import RunData


def events(run: RunData) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(trace(run))["traceEvents"]
    return listed


def by_phase(run: RunData, phase: str) -> list[dict[str, Any]]:
    return [event for event in events(run) if event["ph"] == phase]


def test_every_event_has_what_its_phase_needs() -> None:
    needed = {"M": {"args"}, "X": {"ts", "dur"}, "C": {"ts", "args"}, "i": {"ts", "s"}}
    for event in events(build_run(60)):
        assert {"name", "pid", "tid"} | needed[event["ph"]] <= set(event)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if "ts" in event:
            assert event["ts"] >= 0
        if "dur" in event:
            assert event["dur"] >= 0


def test_a_track_has_one_name_and_only_slices_that_nest() -> None:
    names: dict[tuple[int, int], set[str]] = defaultdict(set)
    slices: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    for event in events(build_run(60)):
        track = (event["pid"], event["tid"])
        if event["ph"] == "M" and event["name"] == "thread_name":
            names[track].add(event["args"]["name"])
        if event["ph"] == "X":
            slices[track].append((event["ts"], event["ts"] + event["dur"]))
    assert set(slices) <= set(names)
    assert all(len(found) == 1 for found in names.values())
    for spans in slices.values():
        for begin, end in spans:
            for other_begin, other_end in spans:
                # Times are rounded to a nanosecond each.
                assert not (begin + 0.01 < other_begin < end - 0.01 and other_end > end + 0.01)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 12)), max_size=10))
def test_lanes_keep_every_span_and_nest(pairs: list[tuple[int, int]]) -> None:
    spans = [(float(b), float(b + n), str(i), {}) for i, (b, n) in enumerate(pairs)]
    spans.sort(key=lambda span: (span[0], -span[1]))
    lanes = _lanes(spans)
    assert sorted(span[2] for lane in lanes for span in lane) == sorted(s[2] for s in spans)
    for lane in lanes:
        for a in lane:
            assert not [b for b in lane if a[0] < b[0] < a[1] < b[1]]


def test_slices_say_what_the_table_says() -> None:
    run = build_run(60)
    found = by_phase(run, "X")
    for name, column in (("open", "open_s"), ("merge", "merge_s"), ("quiesce", "quiesce_s")):
        lengths = sum(event["dur"] for event in found if event["name"] == name)
        assert lengths / 1e6 == pytest.approx(run.vms[column].sum(), rel=1e-6)
    cuts = [event for event in by_phase(run, "i") if event["name"] == "cut"]
    assert len(cuts) == run.calls["cut_s"].count()


def test_an_upper_bound_is_named_as_one_and_the_unseen_is_left_out() -> None:
    names = {event["name"] for event in by_phase(build_run(20, sees_all=False), "X")}
    assert "quiesce (at most)" in names
    assert not {"quiesce", "stun at create", "stun at remove", "fence"} & names


def test_counters_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perfetto, "COUNTER_POINTS", 10)
    counters = by_phase(build_run(200), "C")
    counts: dict[str, int] = defaultdict(int)
    for event in counters:
        counts[event["name"]] += 1
    assert any(name.startswith("open deltas") for name in counts)
    assert any(name.startswith("pool used") for name in counts)
    assert max(counts.values()) <= 10


def test_of_very_many_vms_the_failed_and_the_longest_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(perfetto, "MOST_VMS", 40)
    run = build_run(400)
    document = json.loads(trace(run))
    assert document["otherData"]["vms"] == 400
    assert document["otherData"]["vms_shown"] == 40
    names = {e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"}
    failed = run.vms.filter(run.vms["status"] != "protected")["name"].to_list()
    longest = run.vms.sort("quiesce_s", descending=True, nulls_last=True)["name"][0]
    assert {*failed, longest} <= names


def printed(run: RunData) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_summary(run, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_summary_says_how_it_ended_and_who_failed() -> None:
    run = build_run(200)
    text = printed(run)
    assert "197 of 200 selected VMs are protected" in text
    for name in run.vms.filter(run.vms["status"] != "protected")["name"]:
        assert name in text
    assert "1 of 192 guests were frozen for more than 10 s" in text


def test_the_summary_says_what_nobody_saw() -> None:
    text = printed(build_run(20, sees_all=False))
    assert "nobody could see it" in text
    assert "≤" in text


def test_names_are_not_markup() -> None:
    inputs = build_inputs(20)
    inputs.result.vms[19].reason = "the [red]guest[/] said no"
    assert "the [red]guest[/] said no" in printed(inputs.run())
