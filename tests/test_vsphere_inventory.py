"""A whole inventory as the vSphere driver reads it: names, folders, clusters, mappings."""

from __future__ import annotations

import pytest
from support_scripted import Scripted, an_object, as_session, ids_in
from support_vsim import PASSWORD, Vsim, lun, small_inventory
from support_vsphere import TEST_PASSWORD_ENV, drive, vms_by_name

from stillframe.drivers.records import DatastoreKind, DeviceIdentity, DeviceKind
from stillframe.drivers.vsphere import VsphereDriver
from stillframe.drivers.vsphere_devices import Luns
from stillframe.drivers.vsphere_inventory import InventoryReader


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
