"""``plan --live``: what it says, and that it touches nothing."""

from __future__ import annotations

import json
from pathlib import Path

from support_live_front import World, config, invoke, world

__all__ = ["world"]  # a fixture


def test_plan_touches_nothing(world: World) -> None:
    result = invoke("plan", "--live", config())
    assert "6 VMs selected" in result.stdout
    assert "Nothing was touched." in result.stdout
    assert not world.left
    assert not world.array.snapshots
    assert not Path("out").exists()
    assert world.closed == ["a1", "vc"]
    document = json.loads(invoke("plan", "--live", config(), "--json").stdout)
    assert document["predicted"] is None
    assert sorted(document["selected"]) == [f"vc/vm{n}" for n in range(6)]


def test_plan_says_what_cannot_be_protected(world: World) -> None:
    world.array.units.pop("a1/lun2")
    invoke("plan", "--live", config(), code=1)
    world.array.units.clear()
    invoke("plan", "--live", config(), code=3)
