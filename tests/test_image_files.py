"""A run keeps where the images lie that can be restored from it, as metadata of snapshots said."""

from __future__ import annotations

from dataclasses import replace

from support_jobs import bench
from support_memory import Fault, small_estate

from stillframe.drivers.contracts import FileLocation, FileRole, RawDevice, VmLocation
from stillframe.drivers.errors import NeverWillError
from stillframe.drivers.records import DeviceIdentity, DiskMode, Estate
from stillframe.orchestrator.mapping import Mapper, image_files
from stillframe.orchestrator.result import VmStatus
from stillframe.orchestrator.spec import JobSpec
from stillframe.reports.rundata import from_result
from stillframe.topology.graph import Topology


def with_independent_disk(estate: Estate) -> Estate:
    """The first VM's last disk takes no part in VM snapshots."""
    first, *others = estate.inventory.vms
    *held, last = first.disks
    independent = replace(last, mode=DiskMode.INDEPENDENT_PERSISTENT)
    vms = (replace(first, disks=(*held, independent)), *others)
    return replace(estate, inventory=replace(estate.inventory, vms=vms))


def test_the_files_of_every_protected_vm_are_in_the_table() -> None:
    ran = bench()
    failing = ran.estate.inventory.vms[2]
    ran.faults.add(
        "create",
        failing.id,
        Fault(error=NeverWillError("create_snapshot", failing.id, "no")),
    )
    result = ran.run()
    images = from_result(result, (), (), {}).images
    wanted = [
        (vm.id, disk.key, disk.path, disk.datastore_id, "base")
        for vm in ran.estate.inventory.vms
        for disk in vm.disks
        if vm is not failing
    ]
    assert ran.vm(failing.name).status is VmStatus.UNPROTECTED
    assert sorted(images.iter_rows()) == sorted(wanted)


def test_live_disks_are_in_it_only_when_they_are_in_the_cut() -> None:
    estate = with_independent_disk(small_estate(4, 3, [(0, 1)]))
    key = estate.inventory.vms[0].disks[-1].key
    without = bench(estate=estate).run()
    with_them = bench(JobSpec(independent_disks=True), estate=estate).run()
    roles = [
        {file.role for file in one.vms[0].image_files if file.disk_key == key}
        for one in (without, with_them)
    ]
    assert roles == [set(), {FileRole.LIVE}]


def test_deltas_configuration_and_pointers_of_raw_devices_are_no_images() -> None:
    estate = small_estate(4, 4)
    base = FileLocation("a.vmdk", "vc/ds0", FileRole.BASE, 2000)
    files = (
        base,
        FileLocation("a-000001.vmdk", "vc/ds0", FileRole.DELTA, 2000),
        FileLocation("a.vmx", "vc/ds0", FileRole.CONFIG),
        FileLocation("pointer.vmdk", "vc/ds0", FileRole.BASE, 2001),
    )
    raw = RawDevice(2001, DeviceIdentity.parse(f"naa.60{1:030x}"), held=True)
    location = VmLocation(files, (raw,))
    needs = Mapper(Topology(estate), JobSpec()).needs_of(location)
    assert image_files(location, needs) == (base,)
