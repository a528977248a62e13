"""The front door of tests on live systems: drivers in memory, a configuration that names them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_files import tree
from support_jobs import FOREIGN
from support_memory import GIB, Faults, MemoryArray, MemoryHypervisor, small_estate
from typer.testing import CliRunner

from stillframe.cli import app
from stillframe.drivers import registry
from stillframe.drivers.contracts import MergeResult, VmSnapshotRef
from stillframe.drivers.records import DeviceIdentity, Estate, Inventory
from stillframe.reports import folder


class Hypervisor(MemoryHypervisor):
    """One that can tell what hosts say of devices, and lets a test in at every removal."""

    facts: Mapping[DeviceIdentity, tuple[str, str, bool]] = {}
    on_remove: Callable[[], None] = staticmethod(lambda: None)
    on_inventory: Callable[[], None] = staticmethod(lambda: None)

    async def inventory(self, progress: Callable[[int, int], None] | None = None) -> Inventory:
        self.on_inventory()
        if progress is not None:
            progress(len(self.vms), len(self.vms))
        return await super().inventory()

    async def device_facts(self) -> Mapping[DeviceIdentity, tuple[str, str, bool]]:
        return self.facts

    async def remove_snapshot(self, ref: VmSnapshotRef) -> MergeResult:
        self.on_remove()
        return await super().remove_snapshot(ref)


@dataclass
class World:
    """The systems that the drivers of this module reach, and how they were opened and closed."""

    estate: Estate
    faults: Faults = field(default_factory=Faults)
    opened: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    fail_to_open: dict[str, Exception] = field(default_factory=dict)
    fail_to_close: dict[str, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hypervisor = Hypervisor(self.estate.inventory, self.faults)
        self.array = MemoryArray("a1", self.estate.units, self.faults)
        for vm_id in list(self.hypervisor.vms)[:2]:
            self.hypervisor.add_foreign(vm_id, FOREIGN)

    @property
    def left(self) -> list[str]:
        """Tags of our VM snapshots that are still there."""
        refs = [ref.tag for refs in self.hypervisor.snapshots.values() for ref in refs]
        assert refs.count(FOREIGN) == 2
        return [tag for tag in refs if tag != FOREIGN]

    @asynccontextmanager
    async def open(self, system_id: str, settings: Mapping[str, Any]) -> AsyncIterator[Any]:
        """What both factories do."""
        self.opened.append((system_id, settings))
        if system_id in self.fail_to_open:
            raise self.fail_to_open[system_id]
        is_array = any(array.id == system_id for array in self.estate.arrays)
        try:
            yield self.array if is_array else self.hypervisor
        finally:
            self.closed.append(system_id)
        if system_id in self.fail_to_close:
            raise self.fail_to_close[system_id]


WORLDS: list[World] = []


def open_memory(system_id: str, settings: Mapping[str, Any]) -> Any:
    """The factory that the entry points of this module name."""
    return WORLDS[-1].open(system_id, settings)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """Drivers ``memory`` and ``vsphere`` (both in memory) beside the modelled array."""
    entries = [
        EntryPoint("memory", "support_live_front:open_memory", registry.GROUP),
        EntryPoint("vsphere", "support_live_front:open_memory", registry.GROUP),
        EntryPoint("modelled-array", "stillframe.sim.realtime:open_modelled_array", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)
    monkeypatch.chdir(tmp_path)
    # Drawing takes most of a run here; one test draws.
    monkeypatch.setattr(folder, "draw_all", lambda run: {})
    estate = small_estate(6, 3, [(0, 1)])
    stores = [replace(one, capacity_bytes=100 * GIB) for one in estate.inventory.datastores]
    estate = replace(estate, inventory=replace(estate.inventory, datastores=tuple(stores)))
    made = World(estate)
    monkeypatch.setattr("support_live_front.WORLDS", [made])
    return made


CONFIG: dict[str, Any] = {
    "name": "tonight",
    "title": "Everything",
    "hypervisors": {"vc": {"driver": "memory", "host": "vc.example.com"}},
    "arrays": {"a1": {"driver": "memory"}},
    "job": {
        "retry": {"first_pause": "1 ms"},
        "timeouts": {"settle": "1 s"},
    },
}
QUICK = {
    "profile": "row-flash",
    "management_latency": "1 ms",
    "snapshot_base": "1 ms",
    "fence_base": "1 ms",
}


def config(**changes: Any) -> str:
    """A configuration file in the current folder."""
    file = Path("live.yaml")
    file.write_text(yaml.safe_dump(CONFIG | changes, sort_keys=False), encoding="utf-8")
    return str(file)


def invoke(*args: str, code: int = 0) -> Any:
    """Run a command and expect this exit code."""
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == code, result.stdout + result.stderr
    return result


def only_result() -> Path:
    """The one result folder under out/."""
    (found,) = Path("out").iterdir()
    return found


def line_of(result: Any) -> str:
    """The one line on stderr."""
    lines: list[str] = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert result.stdout == ""
    return lines[0]


def send(number: signal.Signals) -> Callable[[], None]:
    """A callback that sends this process a signal."""
    return lambda: os.kill(os.getpid(), number)


def refuse(*args: str, code: int = 2) -> str:
    """Run a command that is refused with one line and writes nothing."""
    before = tree(Path())
    line = line_of(invoke(*args, code=code))
    assert tree(Path()) == before
    return line


def pulled(*args: str) -> Any:
    """The JSON that ``estate pull`` answers with."""
    return json.loads(invoke("estate", "pull", "--vcenter", "vc", "--json", *args).stdout)
