"""The test endpoint does what docs/vsphere-endpoint.md says, as plain pyvmomi sees it."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
import support_vsim
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyVim.connect import SmartConnect
from pyVmomi import vim, vmodl
from support_pyvmomi import Client, disks, layout_disks, sockets_left_open
from support_vsim import FOREIGN, ROOT, Vsim, lun, small_inventory, vsim_binary

LOST = (http.client.HTTPException, ConnectionError)


@pytest.fixture
def vsim() -> Iterator[Vsim]:
    """Six VMs on three datastores; the first one carries somebody else's snapshot."""
    with Vsim(small_inventory(foreign=1), keep=True) as running:
        yield running


@pytest.fixture
def client(vsim: Vsim) -> Iterator[Client]:
    """A session on it."""
    with Client(vsim) as connected:
        yield connected


def varied() -> dict[str, object]:
    """An inventory with one of everything."""
    return {
        "clusters": [{"name": "east", "hosts": 2}, {"name": "west", "hosts": 1}],
        "luns": [{"name": lun(1), "serial": "SN1", "vendor": "V", "model": "M"}],
        "datastores": [
            {"name": "one", "type": "VMFS", "lun": [lun(1)]},
            {"name": "two", "type": "VMFS", "lun": [lun(2), lun(3)], "capacityGb": 10},
            {"name": "also-one", "type": "VMFS", "lun": [lun(1)]},
            {"name": "share", "type": "NFS", "host": "nas.example", "path": "/export/a"},
        ],
        "vms": [
            {
                "name": "db",
                "folder": "prod/sql",
                "host": "west-host-1",
                "guestId": "windows9Server64Guest",
                "disks": [
                    {"datastore": "one", "sizeMb": 2048},
                    {"datastore": "two", "mode": "independent_persistent"},
                    {"datastore": "one", "rawLun": lun(7), "rawMode": "physicalMode"},
                    {"datastore": "one", "rawLun": lun(8)},
                ],
            },
            {"name": "web", "folder": "prod", "disks": ["share"], "tools": "notRunning"},
            {"name": "gold", "disks": ["share"], "template": True},
            {"name": "bare", "disks": ["share"], "off": True, "tools": "notInstalled"},
        ],
    }


def test_inventory_is_what_the_file_declares() -> None:
    with Vsim(varied()) as vsim, Client(vsim) as client:
        stores = client.all(vim.Datastore)
        assert [e.diskName for e in stores["two"].info.vmfs.extent] == [lun(2), lun(3)]
        assert stores["two"].summary.capacity == 10 * 2**30
        assert stores["also-one"].info.vmfs.extent[0].partition == 2
        nas = stores["share"].info.nas
        assert (nas.remoteHost, nas.remotePath) == ("nas.example", "/export/a")
        hosts = client.all(vim.HostSystem)
        assert {name: host.parent.name for name, host in hosts.items()} == {
            "east-host-1": "east",
            "east-host-2": "east",
            "west-host-1": "west",
        }
        for host in hosts.values():
            devices = {one.canonicalName: one for one in host.config.storageDevice.scsiLun}
            assert {lun(1), lun(2), lun(3), lun(7), lun(8)} <= set(devices)
            assert devices[lun(1)].serialNumber == "SN1"
        vms = client.all(vim.VirtualMachine)
        db = vms["db"]
        assert (db.parent.name, db.parent.parent.name) == ("sql", "prod")
        assert db.runtime.host.name == "west-host-1"
        assert db.config.guestId == "windows9Server64Guest"
        assert sorted(store.name for store in db.datastore) == ["one", "two"]
        raw = [d.backing for d in db.config.hardware.device if d.key == 2003][0]  # noqa: RUF015
        assert raw.lunUuid == next(
            one.uuid for one in host.config.storageDevice.scsiLun if one.canonicalName == lun(8)
        )
        assert vms["gold"].config.template
        assert vms["bare"].runtime.powerState == "poweredOff"
        assert vms["web"].guest.toolsRunningStatus == "guestToolsNotRunning"
        assert sorted(vm.name for vm in stores["share"].vm) == ["bare", "gold", "web"]


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


@pytest.mark.parametrize("method", ["CreateSnapshot_Task", "CreateSnapshotEx_Task"])
def test_a_snapshot_puts_a_delta_on_every_disk_it_holds(method: str) -> None:
    with Vsim(varied()) as vsim, Client(vsim) as client:
        vm = client.vm("db")
        before = disks(vm.config)
        arguments = (
            ("s", "", False, True)
            if method == "CreateSnapshot_Task"
            else ("s", "", False, vim.vm.GuestQuiesceSpec(timeout=5))
        )
        made = client.finish(getattr(vm, method)(*arguments))
        after = disks(vm.config)
        assert after == {
            2000: [*before[2000], "[one] db/db-000001.vmdk"],
            2001: before[2001],  # independent
            2002: before[2002],  # a physical raw disk
            2003: [*before[2003], "[one] db/db_3-000001.vmdk"],
        }
        assert layout_disks(vm.layoutEx) == after
        assert disks(made.config) == before
        assert vm.layoutEx.snapshot[0].key == made
        assert client.snapshots(vm)[0].quiesced
        client.finish(made.RemoveSnapshot_Task(False))
        assert disks(vm.config) == before
        assert layout_disks(vm.layoutEx) == before
        assert "snapshot" not in client.read(vm, "snapshot")


def test_removing_one_of_three_merges_what_lies_above_it(client: Client) -> None:
    vm = client.vm("vm0000")
    second, third = client.create(vm, "second"), client.create(vm, "third")
    assert len(disks(vm.config)[2000]) == 4
    assert client.names(vm) == [FOREIGN, "second", "third"]
    client.finish(second.RemoveSnapshot_Task(False))
    assert client.names(vm) == [FOREIGN, "third"]
    chain = disks(vm.config)[2000]
    assert len(chain) == 3
    assert disks(third.config)[2000] == chain[:-1]
    assert vm.snapshot.currentSnapshot == third
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        second.RemoveSnapshot_Task(False)
    client.finish(client.snapshots(vm)[0].snapshot.RemoveSnapshot_Task(True))
    assert client.names(vm) == []
    assert disks(vm.config)[2000] == chain[:1]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.integers(0, 7), max_size=12))
def test_a_chain_has_one_delta_for_each_snapshot(client: Client, steps: list[int]) -> None:
    vm = client.vm("vm0002")
    client.finish(vm.RemoveAllSnapshots_Task())
    for step in steps:
        held = client.snapshots(vm)
        if step < 4 or not held:
            client.create(vm, f"s{step}")
        else:
            client.finish(held[step % len(held)].snapshot.RemoveSnapshot_Task(False))
        held = client.snapshots(vm)
        chain = disks(vm.config)[2000]
        assert len(chain) == len(held) + 1
        assert len(set(chain)) == len(chain)
        assert [disks(one.snapshot.config)[2000] for one in held] == [
            chain[: i + 1] for i in range(len(held))
        ]


@pytest.mark.parametrize(("name", "quiesced"), [("db", True), ("web", False), ("bare", False)])
def test_quiescing_is_ignored_without_running_tools(name: str, quiesced: bool) -> None:
    with Vsim(varied()) as vsim, Client(vsim) as client:
        vm = client.vm(name)
        client.create(vm, "s", quiesce=True)
        assert client.snapshots(vm)[0].quiesced is quiesced


def test_deltas_left_behind_need_consolidation(vsim: Vsim, client: Client) -> None:
    vsim.rules([{"method": "RemoveSnapshot_Task", "leaveDeltas": True}])
    vm = client.vm("vm0001")
    client.finish(client.create(vm, "s").RemoveSnapshot_Task(False))
    assert client.names(vm) == []
    assert vm.runtime.consolidationNeeded
    assert len(disks(vm.config)[2000]) == 2
    client.finish(vm.ConsolidateVMDisks_Task())
    assert not vm.runtime.consolidationNeeded
    assert len(disks(vm.config)[2000]) == 1


def test_storage_vmotion_takes_files_chains_and_snapshots_along(client: Client) -> None:
    vm = client.vm("vm0001")
    made = client.create(vm, "s")
    target = client.store("ds2")
    client.finish(vm.RelocateVM_Task(vim.vm.RelocateSpec(datastore=target)))
    assert vm.config.files.vmPathName == "[ds2] vm0001/vm0001.vmx"
    assert [store.name for store in vm.datastore] == ["ds2"]
    assert {file.name[:5] for file in vm.layoutEx.file} == {"[ds2]"}
    assert disks(vm.config)[2000] == [
        "[ds2] vm0001/vm0001.vmdk",
        "[ds2] vm0001/vm0001-000001.vmdk",
    ]
    assert disks(made.config)[2000] == ["[ds2] vm0001/vm0001.vmdk"]
    assert vm in target.vm
    assert vm not in client.store("ds1").vm
    client.finish(made.RemoveSnapshot_Task(False))
    assert disks(vm.config)[2000] == ["[ds2] vm0001/vm0001.vmdk"]


def test_storage_vmotion_of_one_disk() -> None:
    with Vsim(varied()) as vsim, Client(vsim) as client:
        vm = client.vm("db")
        locator = vim.vm.RelocateSpec.DiskLocator(diskId=2000, datastore=client.store("share"))
        client.finish(vm.RelocateVM_Task(vim.vm.RelocateSpec(disk=[locator])))
        assert disks(vm.config)[2000] == ["[share] db/db.vmdk"]
        assert vm.config.files.vmPathName == "[one] db/db.vmx"
        assert sorted(store.name for store in vm.datastore) == ["one", "share", "two"]


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


def test_a_restart_keeps_snapshots_and_places_and_nothing_else(vsim: Vsim, client: Client) -> None:
    vms = client.all(vim.VirtualMachine)
    made = client.create(vms["vm0000"], "mine")
    done = vms["vm0001"].RelocateVM_Task(vim.vm.RelocateSpec(datastore=client.store("ds2")))
    client.finish(done)
    chain = disks(vms["vm0000"].config)
    vsim.kill()
    vsim.restart()
    with Client(vsim) as again:
        now = again.all(vim.VirtualMachine)
        assert {n: vm._moId for n, vm in now.items()} == {n: vm._moId for n, vm in vms.items()}
        assert again.names(now["vm0000"]) == [FOREIGN, "mine"]
        assert again.snapshots(now["vm0000"])[1].snapshot._moId == made._moId
        assert disks(now["vm0000"].config) == chain
        assert [store.name for store in now["vm0001"].datastore] == ["ds2"]
        assert again.create(now["vm0003"], "new")._moId != made._moId
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            again.read(done, "info.state")
        client.close_connections()
        with pytest.raises(vim.fault.NotAuthenticated):  # the session of before
            vms["vm0000"].CreateSnapshot_Task("s", "", False, False)
        again.finish(again.snapshots(now["vm0000"])[1].snapshot.RemoveSnapshot_Task(False))
        assert again.names(now["vm0000"]) == [FOREIGN]


def test_only_its_user_and_its_authority_open_it(vsim: Vsim) -> None:
    where = {"host": vsim.host, "port": vsim.port, "user": vsim.user}
    with sockets_left_open(), pytest.raises(vim.fault.InvalidLogin):
        SmartConnect(**where, pwd=vsim.password[:-1], sslContext=vsim.context())
    with sockets_left_open(), pytest.raises(ssl.SSLCertVerificationError):
        SmartConnect(**where, pwd=vsim.password, sslContext=ssl.create_default_context())


def test_a_call_without_session_starts_no_task(vsim: Vsim, client: Client) -> None:
    vm = client.vm("vm0001")
    client.content.sessionManager.Logout()
    with pytest.raises(vim.fault.NotAuthenticated):
        vm.CreateSnapshot_Task("s", "", False, False)
    with Client(vsim) as other:
        assert other.names(other.vm("vm0001")) == []


@pytest.mark.parametrize(
    "rule", [{"method": "*", "fault": "NoSuchFault"}, {"method": "*", "delay": 5}]
)
def test_a_rule_that_means_nothing_is_refused(vsim: Vsim, rule: dict[str, object]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        vsim.rules([rule])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vms": [{"name": "a", "disks": ["nowhere"]}]}, 'unknown datastore "nowhere"'),
        ({"machines": []}, 'unknown field "machines"'),
        ({"datastores": [{"name": "d", "type": "VMFS"}]}, "has no lun"),
    ],
)
def test_an_inventory_that_means_nothing_is_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    file = tmp_path / "inventory.json"
    file.write_text(json.dumps({**small_inventory(), **change}))
    done = subprocess.run(
        [vsim_binary(), "-inventory", str(file)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 1
    assert says in done.stderr


def test_a_machine_that_cannot_build_it_says_so_in_one_line(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "cut", "dirname", "flock", "mkdir", "mktemp", "rm", "sha256sum"):
        (tools / name).symlink_to(shutil.which(name) or name)
    done = subprocess.run(
        [str(ROOT / "scripts" / "build-vsim.sh")],
        env={"PATH": str(tools), "STILLFRAME_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "apt-get" in done.stderr
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_without_the_endpoint_tests_are_skipped_but_never_where_it_counts(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(support_vsim, "_build", lambda: ("", "no network"))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no network"):
        support_vsim.Vsim({})


def test_a_test_in_which_the_endpoint_panicked_fails() -> None:
    vsim = Vsim(small_inventory(1, 1, 1))
    log = vsim.folder / "log"
    with pytest.raises(AssertionError, match="panic"), vsim, log.open("a") as file:
        file.write("panic in something\n")
    assert not vsim.folder.exists()
