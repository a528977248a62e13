"""The devices under a vSphere datastore or raw mapping, and the names they go by."""

from __future__ import annotations

import pytest
from support_scripted import Scripted, an_object, as_session, xml

from stillframe.drivers.records import DatastoreKind, DeviceIdentity, DeviceKind
from stillframe.drivers.vsphere_devices import (
    Luns,
    datastore_kind,
    device_named,
    extents_of,
    lun_identity,
)


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
