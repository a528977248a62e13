"""What the test endpoint holds: its inventory, where files lie, what a restart keeps."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from pyVmomi import vim, vmodl
from support_pyvmomi import Client, client, disks, vsim
from support_vsim import FOREIGN, Vsim, lun, small_inventory, varied, vsim_binary

__all__ = ["client", "vsim"]  # fixtures


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
