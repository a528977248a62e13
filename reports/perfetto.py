"""A run as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: Trace Event Format, JSON object form. A group is a process, a VM a thread in it; slices are
the clocks, with the array calls as a thread of their group; open deltas and pools are counters of
the job. Times are microseconds since the job began.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from .fig_style import thin
from .rundata import RunData

MOST_VMS = 5000
"""The viewer stays usable up to about so many threads; of more VMs the conspicuous are kept."""
COUNTER_POINTS = 1000
MOST_COUNTERS = 64
JOB = 1
"""Process number of the job; groups follow."""

Event = dict[str, Any]

_VM_COLUMNS = (
    "name", "group_id", "status", "level", "reason", "requested_s", "opened_s", "removal_s",
    "merged_s", "quiesce_start_s", "quiesce_s", "quiesce_exact", "stun_create_start_s",
    "stun_create_s", "stun_remove_start_s", "stun_remove_s", "delta_bytes",
)  # fmt: skip
_COUNTERS = {
    "delta.open_bytes": "open deltas",
    "pool.used_bytes": "pool used",
    "array.copy_bytes_per_s": "copy-on-write copies",
}


def trace(run: RunData) -> bytes:
    """The trace as UTF-8 JSON."""
    shown = _kept(run)
    groups = _group_numbers(run)
    events = _names(run, groups)
    events += _job_slices(run, groups)
    events += _vm_slices(run, shown, groups)
    events += _call_slices(run, groups)
    events += _counters(run)
    document = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "title": str(run.meta["title"]),
            "trace_hash": str(run.meta["trace_hash"]),
            "vms": run.vms.height,
            "vms_shown": shown.height,
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _kept(run: RunData) -> pl.DataFrame:
    """All VMs, or of very many those that failed and those with the longest of any clock."""
    if run.vms.height <= MOST_VMS:
        return run.vms
    ranks = [
        pl.col(column).rank("ordinal", descending=True)
        for column in ("quiesce_s", "open_s", "merge_s", "stun_create_s", "stun_remove_s")
    ]
    failed = pl.when(pl.col("status") != "protected").then(0)
    ranked = run.vms.with_columns(
        rank=pl.coalesce(failed, pl.min_horizontal(ranks), pl.lit(run.vms.height))
    )
    return ranked.sort("rank", "vm_id").head(MOST_VMS).drop("rank")


def _group_numbers(run: RunData) -> dict[str, int]:
    named = [*run.groups["group_id"].to_list(), *run.vms["group_id"].to_list()]
    named += run.calls["group_id"].to_list()
    return {group: JOB + 1 + index for index, group in enumerate(dict.fromkeys(named))}


def _name(kind: str, process: int, thread: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _names(run: RunData, groups: dict[str, int]) -> list[Event]:
    events = [_name("process_name", JOB, 0, f"job: {run.meta['title']}")]
    events += [
        _name("process_name", number, 0, group or "no group") for group, number in groups.items()
    ]
    return events


def _slice(
    run: RunData, process: int, thread: int, name: str, begin_s: float, length_s: float, **args: Any
) -> Event:
    return {
        "ph": "X",
        "name": name,
        "pid": process,
        "tid": thread,
        "ts": round((begin_s - run.start_s) * 1e6, 3),
        "dur": round(max(0.0, length_s) * 1e6, 3),
        "args": {key: value for key, value in args.items() if value not in (None, "")},
    }


def _job_slices(run: RunData, groups: dict[str, int]) -> list[Event]:
    events = [
        _name("thread_name", JOB, 1, "job"),
        _slice(run, JOB, 1, "job", run.start_s, run.job["makespan_s"], status=run.meta["status"]),
    ]
    rows = run.groups.select(
        "group_id", "started_s", "finished_s", "error", n=pl.col("vms").list.len()
    )
    for group, begin, end, error, count in rows.rows():
        if begin is not None and end is not None:
            process = groups[group]
            events.append(_name("thread_name", process, 1, "group"))
            events.append(
                _slice(run, process, 1, group, begin, end - begin, vms=count, error=error)
            )
    return events


def _vm_slices(run: RunData, shown: pl.DataFrame, groups: dict[str, int]) -> list[Event]:
    events: list[Event] = []
    # Threads are numbered from 100 on; those below belong to the group itself.
    thread = 100
    for vm in shown.select(_VM_COLUMNS).iter_rows(named=True):
        process = groups[vm["group_id"]]
        lanes = _lanes(_spans(vm))
        if vm["opened_s"] is None and vm["requested_s"] is not None:
            events.append(_name("thread_name", process, thread, vm["name"]))
            events.append(_failed(run, process, thread, vm))
            thread += 1
        for lane, spans in enumerate(lanes):
            label = vm["name"] if lane == 0 else f"{vm['name']} ({lane + 1})"
            events.append(_name("thread_name", process, thread, label))
            events += [
                _slice(run, process, thread, name, begin, end - begin, **args)
                for begin, end, name, args in spans
            ]
            thread += 1
    return events


def _failed(run: RunData, process: int, thread: int, vm: dict[str, Any]) -> Event:
    return {
        "ph": "i",
        "name": f"no VM snapshot: {vm['reason']}",
        "pid": process,
        "tid": thread,
        "ts": round((vm["requested_s"] - run.start_s) * 1e6, 3),
        "s": "t",
    }


Span = tuple[float, float, str, dict[str, Any]]


def _spans(vm: dict[str, Any]) -> list[Span]:
    """The VM's intervals that were seen, in order of their start, longer ones first."""
    frozen = "quiesce" if vm["quiesce_exact"] is not False else "quiesce (at most)"
    result = {"status": vm["status"], "level": vm["level"], "reason": vm["reason"]}
    candidates: list[tuple[float | None, float | None, str, dict[str, Any]]] = [
        (vm["requested_s"], vm["opened_s"], "create", result),
        (vm["quiesce_start_s"], _end(vm, "quiesce"), frozen, {}),
        (vm["stun_create_start_s"], _end(vm, "stun_create"), "stun at create", {}),
        (vm["opened_s"], vm["removal_s"], "open", {"delta_bytes": vm["delta_bytes"]}),
        (vm["removal_s"], vm["merged_s"], "merge", {"delta_bytes": vm["delta_bytes"]}),
        (vm["stun_remove_start_s"], _end(vm, "stun_remove"), "stun at remove", {}),
    ]
    seen = [
        (begin, end, name, args)
        for begin, end, name, args in candidates
        if begin is not None and end is not None
    ]
    return sorted(seen, key=lambda span: (span[0], -span[1]))


def _end(vm: dict[str, Any], clock: str) -> float | None:
    begin, length = vm[f"{clock}_start_s"], vm[f"{clock}_s"]
    return None if begin is None or length is None else begin + length


def _lanes(spans: list[Span]) -> list[list[Span]]:
    """Spread over as few threads as possible such that the slices of one thread nest.

    Slices that overlap without nesting are not valid on one thread; a guest is typically still
    frozen for a moment after its snapshot has opened.
    """
    lanes: list[list[Span]] = []
    open_ends: list[list[float]] = []
    for span in spans:
        begin, end = span[0], span[1]
        for lane, ends in zip(lanes, open_ends, strict=True):
            while ends and ends[-1] <= begin:
                ends.pop()
            if not ends or end <= ends[-1]:
                lane.append(span)
                ends.append(end)
                break
        else:
            lanes.append([span])
            open_ends.append([end])
    return lanes


def _call_slices(run: RunData, groups: dict[str, int]) -> list[Event]:
    events: list[Event] = []
    arrays = {name: index for index, name in enumerate(run.calls["array_id"].unique().sort())}
    ordered = run.calls.sort("requested_s", maintain_order=True)
    for call in ordered.iter_rows(named=True):
        process, thread = groups[call["group_id"]], 2 + arrays[call["array_id"]]
        events.append(_name("thread_name", process, thread, call["array_id"]))
        completed = call["completed_s"]
        end = run.job["finished_s"] if completed is None else completed
        name = "array snapshot" if completed is not None else "array snapshot (did not complete)"
        units = len(call["units"])
        events.append(
            _slice(run, process, thread, name, call["requested_s"], end - call["requested_s"],
                   units=units, attempts=call["attempts"], error=call["error"])
        )  # fmt: skip
        if call["fence_start_s"] is not None and call["fence_s"] is not None:
            events.append(
                _slice(run, process, thread, "fence", call["fence_start_s"], call["fence_s"])
            )
        if call["cut_s"] is not None:
            at = round((call["cut_s"] - run.start_s) * 1e6, 3)
            cut = {"ph": "i", "name": "cut", "pid": process, "tid": thread, "ts": at, "s": "p"}
            events.append(cut)
    return events


def _counters(run: RunData) -> list[Event]:
    events: list[Event] = []
    wanted = run.series.filter(pl.col("quantity").is_in(list(_COUNTERS)))
    subjects = wanted.group_by("quantity", "subject").agg(peak=pl.col("value").max())
    order = subjects.sort(["peak", "quantity", "subject"], descending=[True, False, False])
    for quantity, subject, _ in order.head(MOST_COUNTERS).rows():
        own = wanted.filter((pl.col("quantity") == quantity) & (pl.col("subject") == subject))
        own = own.sort("t_s", maintain_order=True)
        kept = own[np.asarray(thin(own.height, COUNTER_POINTS))]
        name = f"{_COUNTERS[quantity]}: {subject}"
        unit = "bytes" if quantity.endswith("_bytes") else "bytes/s"
        events += [
            {"ph": "C", "name": name, "pid": JOB, "tid": 0,
             "ts": round((at - run.start_s) * 1e6, 3), "args": {unit: value}}
            for at, value in kept.select("t_s", "value").rows()
        ]  # fmt: skip
    return events
