"""Reading properties and making records of them, from answers as a vCenter gives them.

What the test endpoint does not do is here: answers in parts, properties that are withheld, raw
mappings in virtual mode under a snapshot, names that two datacenters share.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar, cast
from xml.etree.ElementTree import Element, fromstring

import pytest
from pyVmomi import vim, vmodl
from support_vsim import PASSWORD, Vsim, lun, small_inventory
from support_vsphere import TEST_PASSWORD_ENV, drive, vms_by_name

from stillframe.drivers.contracts import FileRole, RawDevice
from stillframe.drivers.records import DatastoreKind, DeviceIdentity, DeviceKind, DiskMode
from stillframe.drivers.vsphere import VsphereDriver
from stillframe.drivers.vsphere_devices import (
    Luns,
    datastore_kind,
    device_named,
    extents_of,
    lun_identity,
)
from stillframe.drivers.vsphere_disks import DiskFile, datastore_name, disks_of
from stillframe.drivers.vsphere_inventory import InventoryReader
from stillframe.drivers.vsphere_location import Locator, snapshot_nodes
from stillframe.drivers.vsphere_properties import Wanted, read_objects
from stillframe.drivers.vsphere_session import ServiceContent, Session

T = TypeVar("T")
WANTED = [Wanted("VirtualMachine", ("name",))]
XMLNS = 'xmlns="urn:vim25" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


def xml(text: str) -> Element:
    """An element of a vCenter's answer."""
    head, _, tail = text.partition(">")
    slash = "/" if head.endswith("/") else ""
    return fromstring(f"{head.rstrip('/')} {XMLNS}{slash}>{tail}")  # noqa: S314  our own text


def an_object(object_type: str, moid: str, more: str = "", **values: str) -> str:
    """One ``objects`` entry; values are XML, keys with __ for dots."""
    sets = "".join(
        f"<propSet><name>{name.replace('__', '.')}</name><val>{value}</val></propSet>"
        for name, value in values.items()
    )
    return f'<objects><obj type="{object_type}">{moid}</obj>{sets}{more}</objects>'


class Scripted:
    """A session and its stub: answers come from a function of the request."""

    system_id = "vc"
    content = ServiceContent("vc", "8.0", "group-d1", "collector", "views", "tasks", "sessions")

    def __init__(self, answer: Callable[[str], str | Exception]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.logins = 1

    def post(self, body: str) -> Element:
        self.asked.append(body)
        answer = self.answer(body)
        if isinstance(answer, Exception):
            raise answer
        return xml(f"<Response><returnval>{answer}</returnval></Response>")

    def call(self, function: Callable[[Any], T]) -> T:
        try:
            return function(self)
        except vim.fault.NotAuthenticated:
            self.logins += 1
            return function(self)


def as_session(scripted: Scripted) -> Session:
    """For the type checker."""
    return cast("Session", scripted)


def ids_in(body: str) -> list[str]:
    """The objects that a request asks for."""
    return re.findall(r'<obj type="VirtualMachine">([^<]*)</obj>', body)


# -- properties ---------------------------------------------------------


def test_an_answer_in_parts_is_read_to_its_end() -> None:
    def answer(body: str) -> str:
        if "<token>one</token>" in body:
            return "<token>two</token>" + an_object("VirtualMachine", "vm-2", name="b")
        if "<token>two</token>" in body:
            return an_object("VirtualMachine", "vm-3", name="c")
        return "<token>one</token>" + an_object("VirtualMachine", "vm-1", name="a")

    scripted = Scripted(answer)
    found = read_objects(as_session(scripted), WANTED, ["vm-1", "vm-2", "vm-3"])
    assert [one.text("name") for one in found] == ["a", "b", "c"]
    assert [re.match(r"<(\w+)", body)[1] for body in scripted.asked] == [  # type: ignore[index]
        "RetrievePropertiesEx",
        "ContinueRetrievePropertiesEx",
        "ContinueRetrievePropertiesEx",
    ]


@pytest.mark.parametrize("named", [True, False])
def test_objects_that_are_gone_do_not_fail_the_others(named: bool) -> None:
    gone = {"vm-3", "vm-7", "vm-8"}

    def answer(body: str) -> str | Exception:
        asked = ids_in(body)
        missing = next((one for one in asked if one in gone), None)
        if missing is not None:
            ref = vim.VirtualMachine(missing if named else "other")
            return cast("Exception", vmodl.fault.ManagedObjectNotFound(obj=ref))
        return "".join(an_object("VirtualMachine", one, name=one) for one in asked)

    ids = [f"vm-{n}" for n in range(1, 11)]
    found = read_objects(as_session(Scripted(answer)), WANTED, ids)
    assert [one.id for one in found] == [one for one in ids if one not in gone]


def test_nothing_is_asked_about_nothing() -> None:
    scripted = Scripted(lambda body: "")
    assert read_objects(as_session(scripted), WANTED, []) == []
    assert scripted.asked == []


def test_many_objects_are_asked_for_in_batches() -> None:
    def answer(body: str) -> str:
        return "".join(an_object("VirtualMachine", one, name=one) for one in ids_in(body))

    scripted = Scripted(answer)
    ids = [f"vm-{n}" for n in range(25)]
    found = read_objects(as_session(scripted), WANTED, ids, batch=10)
    assert [one.id for one in found] == ids
    assert [len(ids_in(body)) for body in scripted.asked] == [10, 10, 5]


def withheld(fault: str) -> str:
    """A property that the answer says it keeps back."""
    return (
        "<missingSet><path>snapshot</path><fault>"
        f'<fault xsi:type="{fault}"/><localizedMessage/></fault></missingSet>'
    )


def test_a_withheld_property_is_not_taken_for_unset() -> None:
    found = read_objects(
        as_session(
            Scripted(lambda _: an_object("VirtualMachine", "vm-1", withheld("NoPermission")))
        ),
        WANTED,
        ["vm-1"],
    )
    with pytest.raises(vim.fault.NoPermission):
        found[0].check()
    locator = Locator(
        as_session(
            Scripted(lambda _: an_object("VirtualMachine", "vm-1", withheld("SystemError")))
        ),
        Luns(),
    )
    with pytest.raises(vmodl.fault.SystemError):
        locator.read(["vm-1"])


def test_an_expired_session_that_shows_in_what_is_withheld_is_renewed() -> None:
    def answer(body: str) -> str:
        late = withheld("NotAuthenticated") if scripted.logins == 1 else ""
        return an_object("VirtualMachine", "vm-1", late)

    scripted = Scripted(answer)
    (found,) = read_objects(as_session(scripted), WANTED, ["vm-1"])
    assert scripted.logins == 2
    assert found.withheld == ()


def test_identifiers_are_text_and_nothing_else() -> None:
    scripted = Scripted(lambda _: "")
    read_objects(as_session(scripted), WANTED, ["vm-1</obj><x>&"])
    assert "vm-1&lt;/obj&gt;&lt;x&gt;&amp;" in scripted.asked[0]


# -- devices ---------------------------------------------------------


def test_a_datastore_over_several_extents_names_each_once() -> None:
    info = xml(
        '<val xsi:type="VmfsDatastoreInfo"><vmfs>'
        "<extent><diskName>naa.60AA</diskName><partition>1</partition></extent>"
        "<extent><diskName>naa.60AA</diskName><partition>2</partition></extent>"
        "<extent><diskName>eui.00bb</diskName><partition>1</partition></extent></vmfs></val>"
    )
    assert [str(one) for one in extents_of(info)] == ["naa.60aa", "eui.00bb"]


@pytest.mark.parametrize(
    ("nas", "export"),
    [
        ("<remoteHost>NFS-1</remoteHost><remotePath>/vol/a/</remotePath>", "nfs-1:/vol/a"),
        (
            "<remoteHost>10.0.0.1,10.0.0.2</remoteHost><remotePath>/vol</remotePath>",
            "10.0.0.1:/vol",
        ),
        (
            "<remotePath>/vol</remotePath><remoteHostNames>10.0.0.3</remoteHostNames>",
            "10.0.0.3:/vol",
        ),
    ],
)
def test_an_nfs_datastore_names_its_export(nas: str, export: str) -> None:
    (found,) = extents_of(xml(f'<val xsi:type="NasDatastoreInfo"><nas>{nas}</nas></val>'))
    assert str(found) == export
    assert found.kind is DeviceKind.NFS


def test_a_datastore_of_another_kind_names_no_device() -> None:
    assert extents_of(xml('<val xsi:type="VvolDatastoreInfo"/>')) == ()
    assert extents_of(None) == ()
    kinds = [datastore_kind(one) for one in ("VMFS", "NFS41", "VVOL", "vsan", "PMEM")]
    assert kinds == [
        DatastoreKind.VMFS,
        DatastoreKind.NFS,
        DatastoreKind.VVOL,
        DatastoreKind.VSAN,
        DatastoreKind.OTHER,
    ]


def test_a_lun_is_known_by_the_best_name_that_it_has() -> None:
    full = "<val><uuid>AB</uuid><canonicalName>naa.6001</canonicalName></val>"
    assert str(lun_identity(xml(full))) == "naa.6001"
    serial = "<val><uuid>AB</uuid><serialNumber> S1 </serialNumber></val>"
    assert str(lun_identity(xml(serial))) == "serial.S1"
    assert str(lun_identity(xml("<val><uuid>AB</uuid></val>"))) == "uuid.ab"
    assert device_named("vmhba1:0:0") == DeviceIdentity(DeviceKind.LOCAL, "vmhba1:0:0")


def test_luns_are_read_when_one_is_unknown_and_then_known() -> None:
    def answer(body: str) -> str:
        entry = "<ScsiLun><uuid>0200AB</uuid><canonicalName>naa.6001</canonicalName></ScsiLun>"
        return an_object("HostSystem", "host-1", config__storageDevice__scsiLun=entry)

    scripted, luns = Scripted(answer), Luns()
    luns.learn(as_session(scripted), ["0200ab"], ["host-1"])
    luns.learn(as_session(scripted), ["0200AB"], ["host-1"])
    assert len(scripted.asked) == 1
    assert str(luns.identity("0200ab")) == "naa.6001"
    luns.learn(as_session(scripted), ["ffff"], ["host-1"])
    assert len(scripted.asked) == 2
    assert str(luns.identity("FFFF")) == "uuid.ffff"


# -- disks and places ---------------------------------------------------------


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


def test_names_are_shown_as_people_know_them() -> None:
    def answer(body: str) -> str:
        if "CreateContainerView" in body:
            return "view-1"
        vm = an_object(
            "VirtualMachine",
            "vm-1",
            name="a%2fb%5cc%252f",
            parent="group-v2",
            runtime__powerState="poweredOff",
        )
        if ids_in(body):
            return vm
        return (
            an_object("Datacenter", "datacenter-1", name="north", parent="group-d1")
            + an_object("Folder", "group-d1", name="Datacenters")
            + an_object("Folder", "group-v1", name="vm", parent="datacenter-1")
            + an_object("Folder", "group-v2", name="db%2fsql", parent="group-v1")
            + an_object("HostSystem", "host-1", name="alone", parent="domain-s1")
            + vm
        )

    inventory = InventoryReader(as_session(Scripted(answer)), Luns()).read()
    (one,) = inventory.vms
    assert one.name == "a/b\\c%2f"
    assert one.folder == "/north/db/sql"
    assert one.can_quiesce is None  # it does not run, so nobody knows
    assert one.disks == ()
    assert inventory.hosts[0].cluster_id is None


# -- a whole inventory ---------------------------------------------------------


def test_an_inventory_knows_clusters_folders_exports_and_mappings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TEST_PASSWORD_ENV, PASSWORD)
    inventory = small_inventory(1, stores=1, luns=2)
    inventory["luns"][0] |= {"vendor": "VENDOR", "model": "MODEL"}
    inventory["datastores"].append(
        {"name": "exports", "type": "NFS", "host": "filer-1", "path": "/vol/vm"}
    )
    inventory["vms"].append(
        {
            "name": "web-1",
            "folder": "prod/web",
            "disks": ["exports", {"datastore": "ds0", "rawLun": lun(1)}],
            "guestId": "windows9Server64Guest",
        }
    )

    async def main(driver: VsphereDriver) -> None:
        found = await driver.inventory()
        vms = await vms_by_name(driver)
        web = vms["web-1"]
        assert web.folder.endswith("/prod/web")
        assert vms["vm0000"].folder + "/prod/web" == web.folder
        (cluster,) = found.clusters
        assert {host.cluster_id for host in found.hosts} == {cluster.id}
        stores = {store.name: store for store in found.datastores}
        assert [str(one) for one in stores["exports"].extents] == ["filer-1:/vol/vm"]
        assert stores["exports"].kind is DatastoreKind.NFS
        assert web.disks[0].datastore_id == web.home_datastore_id == stores["exports"].id
        assert str(web.disks[1].raw_device) == lun(1)
        assert not web.disks[1].raw_is_physical
        facts = await driver.device_facts()
        assert facts[DeviceIdentity.parse(lun(0))] == ("VENDOR", "MODEL", False)
        assert all(one.kind is not DeviceKind.UUID for one in facts)

    with Vsim(inventory) as vsim:
        drive(vsim, main)
