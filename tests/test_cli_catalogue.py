"""``catalog list`` and ``show``: what can be restored, told without asking any system."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Any

import pytest
from support_crashed import DAY_S, JOURNAL, alive, crashed, keep
from support_files import tree
from support_live_front import World, config, invoke, world

__all__ = ["world"]  # a fixture


def listed(*options: str) -> list[dict[str, Any]]:
    """What ``catalog list`` answers."""
    answer = invoke("catalog", "list", "live.yaml", "--json", *options)
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    return found


def test_the_newest_comes_first_with_age_and_time_in_utc(world: World) -> None:
    old = keep(world, 3 * DAY_S, "vc/vm1", "vc/vm2")
    new = keep(world, 3 * 3600.0, "vc/vm1")
    config()
    assert [(one["vm_name"], one["job_id"]) for one in listed()] == [
        ("vm1", new),
        ("vm1", old),
        ("vm2", old),
    ]
    first = listed()[0]
    assert first["level"] == "filesystem"
    assert first["units"] == ["a1/lun0"]
    assert first["snapshots"] == [
        {"array": "a1", "snapshot": f"gs-{new}", "tag": f"stillframe-{new}-1"}
    ]
    when = datetime.datetime.fromisoformat(first["point_in_time"])
    assert when.utcoffset() == datetime.timedelta(0)
    assert abs(time.time() - first["age_s"] - when.timestamp()) < 2

    text = invoke("catalog", "list", "live.yaml").stdout
    assert "3 entries of 2 VMs, newest first" in text
    assert "3 d" in text
    assert "3 h" in text


def test_people_see_the_time_of_their_zone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(world, 100.0, "vc/vm1")
    config()
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        text = invoke("catalog", "list", "live.yaml").stdout
        (one,) = listed()
    finally:
        monkeypatch.undo()
        time.tzset()
    there = datetime.datetime.fromisoformat(one["point_in_time"]) + datetime.timedelta(hours=5.5)
    assert f"{there:%Y-%m-%d %H:%M:%S} XYZ" in text
    assert one["point_in_time"].endswith("+00:00")


def test_only_the_vms_of_a_pattern(world: World) -> None:
    keep(world, 5.0, "vc/vm1", "vc/vm2")
    config()
    assert [one["vm_name"] for one in listed("--vm", "VM2")] == ["vm2"]
    assert [one["vm_name"] for one in listed("--vm", "vc/*1")] == ["vm1"]
    assert listed("--vm", "web-*") == []
    text = invoke("catalog", "list", "live.yaml", "--vm", "web-*").stdout
    assert text == "The catalogue in tonight.journal has no entry of such a VM.\n"


def test_other_configurations_are_seen_by_the_journal_only(world: World) -> None:
    keep(world, 5.0, "vc/vm1")
    config(name="weekly", journal_file=str(JOURNAL))
    assert listed() == []
    answer = invoke("catalog", "list", "--journal", str(JOURNAL), "--json")
    assert [one["vm_name"] for one in json.loads(answer.stdout)] == ["vm1"]


def test_looking_touches_nothing_not_even_beside_a_job_at_work(world: World) -> None:
    keep(world, 5.0, "vc/vm1")
    crashed(world, holder=alive())
    config()
    before = tree(Path())
    invoke("catalog", "list", "live.yaml")
    invoke("catalog", "show", "live.yaml", "vm1")
    assert tree(Path()) == before
    assert world.opened == []


def test_one_vm_is_shown_with_all_that_a_restore_needs(world: World) -> None:
    old = keep(world, 3 * DAY_S, "vc/vm1", "vc/vm2")
    new = keep(world, 100.0, "vc/vm1")
    config()
    text = invoke("catalog", "show", "live.yaml", "vm1").stdout
    assert text.index(new) < text.index(old)
    assert "vm2" not in text
    assert "all 1 unit: a1/lun0" in text
    assert f"as array a1 holds them in snapshot gs-{new}" in text
    assert f"(tag stillframe-{new}-1)" in text
    answer = invoke("catalog", "show", "live.yaml", "vc/vm1", "--json")
    assert json.loads(answer.stdout) == [
        one | {"age_s": pytest.approx(one["age_s"], abs=30)}
        for one in listed()
        if one["vm_id"] == "vc/vm1"
    ]


def test_a_run_fills_it(world: World) -> None:
    invoke("run", "--live", config())
    assert sorted(one["vm_name"] for one in listed()) == [f"vm{i}" for i in range(6)]
    assert all(one["age_s"] < 300 for one in listed())
