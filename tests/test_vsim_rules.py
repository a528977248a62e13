"""Tasks and rules of the test endpoint: faults, lost answers, delays, which calls a rule takes."""

from __future__ import annotations

import http.client
import urllib.error

import pytest
from pyVmomi import vim, vmodl
from support_pyvmomi import Client, client, vsim
from support_vsim import Vsim

__all__ = ["client", "vsim"]  # fixtures

LOST = (http.client.HTTPException, ConnectionError)


def test_a_task_runs_after_its_call_has_returned(vsim: Vsim, client: Client) -> None:
    vsim.rules([{"method": "CreateSnapshot_Task", "delayMs": 300}])
    vm = client.vm("vm0001")
    task = vm.CreateSnapshot_Task("mine", "why", False, True)
    assert client.read(task, "info.state")["info.state"] in ("queued", "running")
    assert client.read(vm, "recentTask")["recentTask"][-1] == task
    assert client.names(vm) == []
    made = client.finish(task)
    assert [(s.snapshot, s.name, s.description) for s in client.snapshots(vm)] == [
        (made, "mine", "why")
    ]
    assert task.info.entity == vm  # the whole record can be read


def test_faults_come_from_the_task_or_from_the_call(vsim: Vsim, client: Client) -> None:
    vm = client.vm("vm0001")
    rule = {"method": "CreateSnapshot_Task", "fault": "ApplicationQuiesceFault", "message": "no"}
    vsim.rules([rule])
    task = vm.CreateSnapshot_Task("s", "", False, True)
    with pytest.raises(vim.fault.ApplicationQuiesceFault):
        client.finish(task)
    assert task.info.error.msg == "no"
    vsim.rules([{**rule, "atCall": True}])
    with pytest.raises(vim.fault.ApplicationQuiesceFault) as raised:
        vm.CreateSnapshot_Task("s", "", False, True)
    assert raised.value.msg == "no"
    assert client.names(vm) == []
    vsim.rules([{**rule, "after": True}])
    with pytest.raises(vim.fault.ApplicationQuiesceFault):
        client.create(vm, "s")
    assert client.names(vm) == ["s"]


@pytest.mark.parametrize(
    "fault",
    [
        "FileLocked",
        "HostCommunication",
        "InvalidPowerState",
        "ManagedObjectNotFound",
        "MethodNotFound",
        "NoDiskSpace",
        "NotAuthenticated",
        "RestrictedVersion",
        "SnapshotLocked",
        "TaskInProgress",
        "TooManySnapshotLevels",
    ],
)
def test_pyvmomi_can_read_every_fault_that_the_tests_order(
    vsim: Vsim, client: Client, fault: str
) -> None:
    kind = getattr(vim.fault, fault, None) or getattr(vmodl.fault, fault)
    vm = client.vm("vm0001")
    for at_call in (True, False):
        vsim.rules([{"method": "CreateSnapshot_Task", "fault": fault, "atCall": at_call}])
        with pytest.raises(kind):
            client.create(vm, "s")


def test_an_answer_can_be_lost_before_or_after_the_work(vsim: Vsim, client: Client) -> None:
    vm = client.vm("vm0001")
    vsim.rules([{"method": "CreateSnapshot_Task", "drop": True}])
    with pytest.raises(LOST):
        vm.CreateSnapshot_Task("before", "", False, False)
    vsim.rules([{"method": "CreateSnapshot_Task", "drop": True, "after": True, "delayMs": 50}])
    with pytest.raises(LOST):
        vm.CreateSnapshot_Task("after", "", False, False)
    while not client.names(vm):  # the work goes on without its caller
        pass
    assert client.names(vm) == ["after"]


def test_rules_choose_calls_by_object_skip_and_times(vsim: Vsim, client: Client) -> None:
    vms = client.all(vim.VirtualMachine)
    vsim.rules(
        [
            {
                "method": "CreateSnapshot_Task",
                "object": "vm0001",
                "fault": "TaskInProgress",
                "atCall": True,
                "skip": 1,
                "times": 2,
            },
            {"method": "*", "object": vms["vm0002"]._moId, "fault": "FileLocked", "atCall": True},
        ]
    )
    outcomes = []
    for i in range(4):
        client.create(vms["vm0003"], f"s{i}")
        try:
            client.create(vms["vm0001"], f"s{i}")
            outcomes.append("done")
        except vim.fault.TaskInProgress:
            outcomes.append("busy")
    assert outcomes == ["done", "busy", "busy", "done"]
    with pytest.raises(vim.fault.FileLocked):
        client.create(vms["vm0002"], "s")


def test_tasks_on_one_vm_run_one_after_another(vsim: Vsim, client: Client) -> None:
    vsim.rules([{"method": "CreateSnapshot_Task", "delayMs": 100, "times": 1}])
    vm = client.vm("vm0001")
    first = vm.CreateSnapshot_Task("first", "", False, False)
    second = vm.CreateSnapshot_Task("second", "", False, False)
    client.finish(second)
    assert client.read(first, "info.state")["info.state"] == "success"
    assert sorted(client.names(vm)) == ["first", "second"]


def test_a_task_that_runs_stays_listed_however_many_come_after_it(
    vsim: Vsim, client: Client
) -> None:
    vsim.rules([{"method": "CreateSnapshot_Task", "object": "vm0001", "delayMs": 60_000}])
    vms = client.all(vim.VirtualMachine)
    running = vms["vm0001"].CreateSnapshot_Task("long", "", False, False)
    for _ in range(210):  # the simulator by itself lists 200
        last = vms["vm0002"].RemoveAllSnapshots_Task()
    listed = client.read(client.content.taskManager, "recentTask")["recentTask"]
    assert running in listed
    assert last in listed


def test_calls_are_counted(vsim: Vsim, client: Client) -> None:
    vm = client.vm("vm0001")
    vsim.reset_calls()
    client.finish(vm.CreateSnapshot_Task("s", "", False, False))
    counts = vsim.calls()
    assert counts["CreateSnapshot_Task"] == 1
    assert counts["RetrievePropertiesEx"] >= 1
    vsim.reset_calls()
    assert vsim.calls() == {}


@pytest.mark.parametrize(
    "rule", [{"method": "*", "fault": "NoSuchFault"}, {"method": "*", "delay": 5}]
)
def test_a_rule_that_means_nothing_is_refused(vsim: Vsim, rule: dict[str, object]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        vsim.rules([rule])
