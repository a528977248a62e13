"""The arms on which the contract of hypervisor drivers is tested, each with the same VMs.

*modelled* is the simulated vCenter on the simulated clock; *vSphere endpoint* is the vSphere
driver over SOAP and TLS against a vCenter simulator (docs/vsphere-endpoint.md); *QEMU* is the QEMU
driver on QEMUs with real disks and made-up guest agents.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support_lab import needs_lab
from support_qemu import FakeHost, fake_host
from support_vsim import FOREIGN, PASSWORD, Vsim, lun
from support_vsphere import TEST_PASSWORD_ENV, drive
from support_world import INDEPENDENT, NAA, Bench, config, disk, estate, vm

from stillframe.drivers import qemu_remove
from stillframe.drivers.contracts import (
    ConsistencyLevel,
    HypervisorDriver,
    VmSnapshotRequest,
    VmSnapshotState,
)
from stillframe.drivers.records import Inventory, PowerState, Vm

Check = Callable[[HypervisorDriver], Awaitable[Any]]


@dataclass(frozen=True)
class Arm:
    """Runs a check with a fresh driver.

    Attributes
    ----------
    lacks:
        The VMs of GUESTS that cannot exist there, and why.
    """

    run: Callable[[Check], Any]
    lacks: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, check: Check) -> Any:
        """The check's own answer."""
        return self.run(check)

    @property
    def guests(self) -> list[str]:
        """The names of the VMs, in alphabetical order."""
        return sorted({guest["name"] for guest in GUESTS} - self.lacks.keys())

    def needs(self, guest: str) -> None:
        """Skip the test, with the declared reason, where there cannot be such a VM."""
        if guest in self.lacks:
            pytest.skip(self.lacks[guest])


LEVELS = {ConsistencyLevel.APPLICATION, ConsistencyLevel.FILESYSTEM}
MODELLED = {"without_tools": "refuse"}
GUESTS: list[dict[str, Any]] = [
    {"name": "plain", "disks": ["ds1"]},
    {"name": "other", "disks": ["ds2"]},
    {"name": "wide", "disks": ["ds1", "ds2"]},
    {"name": "kept", "disks": ["ds1"], "snapshots": [FOREIGN]},
    {"name": "toolless", "disks": ["ds1"], "tools": "notRunning"},
    {"name": "off", "disks": ["ds1"], "off": True},
    {
        "name": "independent",
        "disks": ["ds1", {"datastore": "ds2", "mode": "independent_persistent"}],
    },
    {
        "name": "raw",
        "disks": [
            "ds1",
            {"datastore": "ds1", "rawLun": lun(9), "rawMode": "physicalMode"},
        ],
    },
]


def modelled(faults: Mapping[str, Any]) -> Arm:
    """The simulated vCenter."""
    what = estate(
        vm("plain", disk(2000, "ds1")),
        vm("other", disk(2000, "ds2")),
        vm("wide", disk(2000, "ds1"), disk(2001, "ds2")),
        vm("kept", disk(2000, "ds1"), snapshot_count=1),
        vm("toolless", disk(2000, "ds1"), can_quiesce=False),
        vm("off", disk(2000, "ds1"), power_state=PowerState.OFF),
        vm("independent", disk(2000, "ds1"), disk(2001, "ds2", mode=INDEPENDENT)),
        vm(
            "raw",
            disk(2000, "ds1"),
            disk(2001, "ds1", raw_device=NAA[3], raw_is_physical=True),
        ),
    )
    bench = Bench(what, config(MODELLED, faults=dict(faults)))
    assert bench.vc is not None
    driver = bench.vc
    return Arm(lambda check: bench.go(lambda: check(driver)))


QEMU_LACKS = {"raw": "QEMU has no raw device mappings: a disk on a device is an ordinary disk"}


def on_qemu(host: FakeHost, how: str, patch: pytest.MonkeyPatch) -> Arm:
    """QEMUs with the disks of GUESTS; what goes wrong is the agent, or deleting a merged file."""
    manner = BREAKS[how][2]
    host.add("plain", "ds1", manner=manner)
    host.add("other", "ds2", manner=manner)
    host.add("wide", "ds1", "ds2")
    host.add("kept", "ds1", overlay=FOREIGN)
    host.add("toolless", "ds1", manner="silent")
    host.add("off", "ds1", on=False)
    host.add("independent", "ds1", ("ds2", True))
    if how == "merge":
        fails_once = [OSError("input/output error")]
        really_delete = qemu_remove.delete

        def delete(path: Path) -> None:
            if fails_once and path.exists():
                raise fails_once.pop()
            really_delete(path)

        patch.setattr(qemu_remove, "delete", delete)
    return Arm(host.run, QEMU_LACKS)


BREAKS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    "": ({}, [], ""),
    "merge": (
        {"sites": {"consolidation-needed": 1}},
        [
            {
                "method": "RemoveSnapshot_Task",
                "fault": "FileLocked",
                "after": True,
                "leaveDeltas": True,
            }
        ],
        "",
    ),
    "freeze": (
        {"sites": {"quiesce-fails": 1}},
        [{"method": "CreateSnapshotEx_Task", "fault": "FilesystemQuiesceFault"}],
        "refuse",
    ),
}
"""How each arm is made to fail: faults of the model, rules of the endpoint, manner of an agent."""
Bend = Callable[[str], Arm]


@pytest.fixture(
    params=["modelled", "vSphere endpoint", pytest.param("QEMU", marks=needs_lab("qemu"))]
)
def bend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bend]:
    """An arm in which what the key of BREAKS says goes wrong."""
    if request.param == "modelled":
        yield lambda how: modelled(BREAKS[how][0])
        return
    if request.param == "QEMU":
        with fake_host() as host:
            yield lambda how: on_qemu(host, how, monkeypatch)
        return
    monkeypatch.setenv(TEST_PASSWORD_ENV, PASSWORD)
    inventory = {
        "hosts": 2,
        "luns": [{"name": lun(i)} for i in (1, 2, 9)],
        "datastores": [
            {"name": "ds1", "type": "VMFS", "lun": [lun(1)]},
            {"name": "ds2", "type": "VMFS", "lun": [lun(2)]},
        ],
        "vms": GUESTS,
    }
    with Vsim(inventory) as vsim:

        def arm(how: str) -> Arm:
            vsim.rules(BREAKS[how][1])
            return Arm(lambda check: drive(vsim, check))

        yield arm


@pytest.fixture
def arm(bend: Bend) -> Arm:
    """An arm in which nothing goes wrong."""
    return bend("")


async def named(driver: HypervisorDriver, name: str) -> tuple[Vm, Inventory]:
    """A VM of the inventory, and the inventory."""
    inventory = await driver.inventory()
    return next(vm for vm in inventory.vms if vm.name == name), inventory


async def state_of(driver: HypervisorDriver, one: Vm) -> VmSnapshotState:
    """What the driver lists for one VM."""
    (state,) = await driver.list_snapshots([one.id])
    assert state.vm_id == one.id
    return state


def tags(state: VmSnapshotState) -> list[str]:
    """The names of a VM's snapshots."""
    return [ref.tag for ref in state.snapshots]


def asked(one: Vm, tag: str = "tag-1", *, quiesce: bool = True) -> VmSnapshotRequest:
    """A create as the orchestrator asks for it."""
    return VmSnapshotRequest(one.id, tag, quiesce, 300.0)


def stores(inventory: Inventory) -> dict[str, str]:
    """Names of datastores by identifier."""
    return {store.id: store.name for store in inventory.datastores}
