"""Disks, their chains, and the places of a vSphere VM's files; the tree of its snapshots."""

from __future__ import annotations

from typing import Any

import pytest
from support_scripted import Scripted, an_object, as_session, xml

from stillframe.drivers.contracts import FileRole, RawDevice
from stillframe.drivers.records import DeviceIdentity, DiskMode
from stillframe.drivers.vsphere_devices import Luns
from stillframe.drivers.vsphere_disks import DiskFile, datastore_name, disks_of
from stillframe.drivers.vsphere_location import Locator, snapshot_nodes


def a_disk(key: int, *files: str, more: str = "", mode: str = "persistent") -> str:
    """A VirtualDisk; the first file takes the writes."""
    backing = ""
    for depth, path in enumerate(reversed(files)):
        tag = "backing" if depth == len(files) - 1 else "parent"
        own = f"<fileName>{path}</fileName><diskMode>{mode}</diskMode>{more}"
        backing = f"<{tag}>{own}{backing}</{tag}>"
    return (
        f'<VirtualDevice xsi:type="VirtualDisk"><key>{key}</key>{backing}'
        "<capacityInKB>1024</capacityInKB></VirtualDevice>"
    )


RDM = "<lunUuid>0200AB</lunUuid><compatibilityMode>{}</compatibilityMode>"


def test_the_order_of_a_chain_is_that_of_its_backings() -> None:
    devices = xml(
        "<val>"
        '<VirtualDevice xsi:type="VirtualLsiLogicController"><key>1000</key></VirtualDevice>'
        + a_disk(2000, "[a] vm-000002.vmdk", "[a] vm-000001.vmdk", "[a] vm.vmdk")
        + a_disk(2001, "[b] vm.vmdk", mode="independent_persistent")
        + a_disk(2002, "[b] x.vmdk", mode="nonpersistent")
        + "</val>"
    )
    first, second, third = disks_of(devices)
    assert first.chain == tuple(
        DiskFile(f"[a] vm{end}.vmdk", "") for end in ("-000002", "-000001", "")
    )
    assert first.capacity_bytes == 2**20
    assert first.in_vm_snapshot
    assert second.mode is DiskMode.INDEPENDENT_PERSISTENT
    assert third.mode is DiskMode.INDEPENDENT_NONPERSISTENT
    assert disks_of(None) == ()


def test_the_size_in_bytes_is_preferred() -> None:
    device = a_disk(2000, "[a] x.vmdk").replace(
        "<capacityInKB>", "<capacityInBytes>1048577</capacityInBytes><capacityInKB>"
    )
    assert disks_of(xml(f"<val>{device}</val>"))[0].capacity_bytes == 1048577


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("[ds 1] vm/vm.vmx", "ds 1"),
        ("[ds] x", "ds"),
        ("[a] b] c", "a"),
        ("[ds]", "ds"),
        ("/vmfs/volumes/x", ""),
        ("", ""),
    ],
)
def test_a_path_names_its_datastore(path: str, name: str) -> None:
    assert datastore_name(path) == name


def place_of(devices: str, files: str = "", stores: str = "") -> Any:
    """The location of one VM with these devices and layout files, on datastore-1 ("a")."""

    def answer(body: str) -> str:
        if "HostSystem" in body:
            entry = "<ScsiLun><uuid>0200AB</uuid><canonicalName>naa.6001</canonicalName></ScsiLun>"
            return an_object("HostSystem", "host-1", config__storageDevice__scsiLun=entry)
        own = '<ManagedObjectReference type="Datastore">datastore-1</ManagedObjectReference>'
        return (
            an_object(
                "VirtualMachine",
                "vm-1",
                config__files__vmPathName="[a] vm/vm.vmx",
                config__hardware__device=devices,
                datastore=own,
                layoutEx__file=files,
                runtime__host="host-1",
                runtime__powerState="poweredOn",
            )
            + an_object("Datastore", "datastore-1", name="a")
            + stores
        )

    return Locator(as_session(Scripted(answer)), Luns()).read(["vm-1"])["vm-1"].location


def test_a_virtual_raw_mapping_is_held_by_the_snapshot() -> None:
    location = place_of(
        a_disk(2000, "[a] vm/rdm-000001.vmdk", "[a] vm/rdm.vmdk", more=RDM.format("virtualMode"))
    )
    assert location.raw_devices == (RawDevice(2000, DeviceIdentity.parse("naa.6001"), True),)
    assert [(file.role, file.disk_key) for file in location.files[:2]] == [
        (FileRole.DELTA, 2000),
        (FileRole.BASE, 2000),
    ]


def test_a_physical_raw_mapping_is_a_pointer() -> None:
    location = place_of(a_disk(2000, "[a] vm/rdm.vmdk", more=RDM.format("physicalMode")))
    assert location.raw_devices == (RawDevice(2000, DeviceIdentity.parse("naa.6001"), False),)
    assert [(file.role, file.disk_key) for file in location.files[:1]] == [(FileRole.CONFIG, None)]


def test_swap_and_logs_do_not_tie_a_vm_to_their_datastore() -> None:
    def file(name: str, kind: str) -> str:
        return f"<FileInfo><name>{name}</name><type>{kind}</type></FileInfo>"

    location = place_of(
        a_disk(2000, "[a] vm/vm.vmdk"),
        file("[local] vm/vm.vswp", "swap")
        + file("[a] vm/vmware.log", "log")
        + file("[a] vm/vm.nvram", "nvram")
        + file("[a] vm/vm.vmx", "config"),
    )
    assert [file.path for file in location.files] == [
        "[a] vm/vm.vmdk",
        "[a] vm/vm.vmx",
        "[a] vm/vm.nvram",
    ]


def test_a_name_that_two_datacenters_share_means_the_vms_own() -> None:
    location = place_of(
        a_disk(2000, "[a] vm/vm.vmdk"), stores=an_object("Datastore", "datastore-9", name="a")
    )
    assert {file.datastore_id for file in location.files} == {"vc/datastore-1"}


def test_a_datastore_that_the_vm_does_not_list_is_not_guessed() -> None:
    location = place_of(a_disk(2000, "[elsewhere] vm/vm.vmdk"))
    assert location.files[0].datastore_id == "vc/[elsewhere]"


def test_a_reference_goes_before_the_name_in_the_path() -> None:
    location = place_of(
        a_disk(2000, "[renamed] vm/vm.vmdk", more="<datastore>datastore-1</datastore>")
    )
    assert location.files[0].datastore_id == "vc/datastore-1"


def test_snapshots_are_listed_parents_first() -> None:
    def node(name: str, *children: str) -> str:
        inner = "".join(
            child.replace("rootSnapshotList", "childSnapshotList") for child in children
        )
        return (
            f"<rootSnapshotList><snapshot>{name}-id</snapshot><name>{name}</name>"
            f"<quiesced>{'true' if name == 'b' else 'false'}</quiesced>{inner}</rootSnapshotList>"
        )

    tree = xml("<val>" + node("a", node("b", node("c")), node("d")) + node("e") + "</val>")
    nodes = list(snapshot_nodes(tree))
    assert [one.name for one in nodes] == ["a", "b", "c", "d", "e"]
    assert [one.quiesced for one in nodes] == [False, True, False, False, False]
    assert nodes[0].id == "a-id"
