"""A whole job against the endpoint, with everything in it that goes wrong in a real night."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim
from support_live import ArrayLog, array_log, configure, live, run_job
from support_pyvmomi import Client, disks
from support_vsim import FOREIGN, Vsim, lun, small_inventory

from stillframe.drivers.contracts import GroupSnapshotRequest

__all__ = ["array_log", "live"]  # fixtures

VMS, STORES, LUNS, KEPT = 100, 10, 6, 12
DEGRADED, REFUSED, LOST, LATE, MOVED = "vm0021", "vm0022", "vm0034", "vm0045", "vm0053"
JOB: dict[str, Any] = {
    "quiesce": {
        "policy": "degrade",
        "timeout": "20 s",
        "overrides": [
            {"match": {"name": REFUSED}, "policy": "require"},
            {"match": {"name": LATE}, "policy": "skip"},
        ],
    },
    "limits": {"create_per_host": 16, "remove_per_host": 16, "groups": None},
    "timeouts": {"create": "4 s", "query": "20 s", "settle": "60 s"},
}
RULES = [
    {"method": "CreateSnapshotEx_Task", "object": DEGRADED, "fault": "ApplicationQuiesceFault"},
    {"method": "CreateSnapshotEx_Task", "object": REFUSED, "fault": "FilesystemQuiesceFault"},
    {
        "method": "CreateSnapshotEx_Task",
        "object": LOST,
        "drop": True,
        "after": True,
        "ended": True,
    },
    {"method": "CreateSnapshot_Task", "object": LATE, "delayMs": 6000},
    {"method": "CreateSnapshotEx_Task", "delayMs": 150},
    {"method": "RemoveSnapshot_Task", "delayMs": 100},
]


def inventory() -> dict[str, Any]:
    """A hundred VMs; two span datastores, one datastore spans LUNs."""
    found = small_inventory(VMS, STORES, LUNS, foreign=KEPT, hosts=4)
    found["datastores"][9]["lun"] = [lun(3), lun(5)]
    found["vms"][60]["disks"] = ["ds0", "ds1"]
    found["vms"][71]["disks"] = ["ds1", {"datastore": "ds4", "mode": "independent_persistent"}]
    return found


def units_now(client: Client) -> dict[str, set[str]]:
    """By VM name the units under its held disks and home, worked out without our code."""
    names = {lun(i): f"lun-{i}" for i in range(LUNS)}
    under = {
        name: {names[extent.diskName] for extent in store.info.vmfs.extent}
        for name, store in client.all(vim.Datastore).items()
    }
    found = {}
    for name, vm in client.all(vim.VirtualMachine).items():
        files = [vm.config.files.vmPathName]
        files += [
            device.backing.fileName
            for device in vm.config.hardware.device
            if isinstance(device, vim.vm.device.VirtualDisk)
            and device.backing.diskMode == "persistent"
        ]
        found[name] = set().union(*(under[file[1 : file.index("]")]] for file in files))
    return found


@pytest.mark.usefixtures("live")
def test_a_night_with_everything_in_it(array_log: ArrayLog) -> None:
    with Vsim(inventory()) as vsim, Client(vsim) as client:
        before = {n: disks(vm.config) for n, vm in client.all(vim.VirtualMachine).items()}
        vsim.rules(RULES)
        vsim.reset_calls()

        async def storage_vmotion(request: GroupSnapshotRequest) -> None:
            """After the VMs of this group said where they lie, and before the array cuts."""
            if "array-1/lun-3" in request.unit_ids and len(array_log.cuts) <= LUNS:
                await asyncio.to_thread(move)

        def move() -> None:
            with Client(vsim) as mover:
                spec = vim.vm.RelocateSpec(datastore=mover.store("ds8"))
                mover.finish(mover.vm(MOVED).RelocateVM_Task(spec))

        array_log.before_cut = storage_vmotion
        config = configure(vsim, JOB, luns=LUNS, vcenter={"lost_call_grace": "1 s"})
        ran = run_job(config, "--out", "result")
        calls = vsim.calls()

        # What is left on the vCenter: the users' own snapshots, and nothing of ours.
        vms = client.all(vim.VirtualMachine)
        assert {n: client.names(vm) for n, vm in vms.items()} == {
            f"vm{i:04d}": [FOREIGN] if i < KEPT else [] for i in range(VMS)
        }
        after = {n: disks(vm.config) for n, vm in vms.items()}
        moved = after.pop(MOVED)
        assert after == {n: before[n] for n in after}
        assert moved == {2000: [before[MOVED][2000][0].replace("[ds3]", "[ds8]")]}
        assert not any(vm.runtime.consolidationNeeded for vm in vms.values())
        where = units_now(client)

    # Nothing was done twice: a call for each VM, one more without quiescing.
    assert calls["CreateSnapshotEx_Task"] + calls["CreateSnapshot_Task"] == VMS + 1
    assert calls["RemoveSnapshot_Task"] == VMS - 1  # one failed and left nothing

    # What the job says: the exit code, the report, and each VM that had trouble.
    assert ran.code == 1, ran.stdout + ran.stderr
    assert ran.document["status"] == "partly-protected"
    assert ran.document["orphans"] == []
    statuses = {vm["name"]: vm["status"] for vm in ran.document["vms"]}
    assert [name for name, status in statuses.items() if status != "protected"] == [REFUSED, LATE]
    assert "FilesystemQuiesceFault" in ran.vm(REFUSED)["reason"]
    assert "no answer in time" in ran.vm(LATE)["reason"]
    assert (ran.vm(DEGRADED)["level"], ran.vm(DEGRADED)["degraded"]) == ("crash", True)
    assert ran.vm(LOST)["level"] == "crash"
    assert ran.vm("vm0020")["level"] == "filesystem"
    assert ran.vm(MOVED)["moved"]
    assert not ran.vm("vm0020")["moved"]

    # The array holds the units under each protected VM, where it lies now.
    everything = set().union(*array_log.held.values())
    for vm in ran.document["vms"]:
        if vm["status"] == "protected":
            named = {unit.partition("/")[2] for unit in vm["units"]}
            assert named == where[vm["name"]], vm["name"]
            assert named <= everything
    summary = json.loads(Path("result/run.json").read_text(encoding="utf-8"))
    assert summary["meta"]["status"] == "partly-protected"
    page = Path("result/report.html").read_text(encoding="utf-8")
    assert REFUSED in page
    assert LATE in page


@pytest.mark.usefixtures("live")
def test_two_vcenters_on_one_array_are_one_job(array_log: ArrayLog) -> None:
    with Vsim(small_inventory(4, 2, 2)) as first, Vsim(small_inventory(6, 2, 2)) as second:
        second.rules(
            [{"method": "CreateSnapshotEx_Task", "object": "vm0005", "fault": "NoDiskSpace"}]
        )
        ran = run_job(configure(first, {}, luns=2, others=[second]))
        for vsim in (first, second):
            with Client(vsim) as client:
                assert not any(map(client.names, client.all(vim.VirtualMachine).values()))
    assert ran.code == 1, ran.stdout + ran.stderr
    failed = [vm for vm in ran.document["vms"] if vm["status"] != "protected"]
    assert [(vm["name"], vm["vm_id"].partition("/")[0]) for vm in failed] == [("vm0005", "vc-2")]
    assert len(ran.document["vms"]) == 10
    # VMs of both vCenters that share a LUN are cut together, once.
    assert sorted(map(sorted, array_log.held.values())) == [["lun-0"], ["lun-1"]]
