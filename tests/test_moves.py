"""VMs that move while the array cuts: cut again unless every disk lay still all the time."""

from __future__ import annotations

import random

import pytest
from support_jobs import Bench, assert_clean, bench
from support_memory import small_estate

from stillframe.drivers.contracts import FileLocation, FileRole, RawDevice, VmLocation
from stillframe.drivers.records import DeviceIdentity
from stillframe.orchestrator.mapping import places_of
from stillframe.orchestrator.spec import JobSpec, StrategyName

ALL_AT_ONCE = JobSpec(strategy=StrategyName.ALL_AT_ONCE)


def moving(ran: Bench, *places: tuple[str, int]) -> None:
    """At the first cut the disks of vm0 go to these datastores, one after the other."""
    left = list(places)

    def move(_request: object) -> None:
        while left:
            store_id, disk_key = left.pop(0)
            ran.hypervisor.move("vc/vm0", store_id, disk_key)

    ran.array.on_cut = move


def test_disks_that_change_places_are_cut_again() -> None:
    """The VM needs the same units before and after, and each disk may be in neither image."""
    ran = bench(ALL_AT_ONCE, estate=small_estate(2, 2, [(0, 1)]))
    first, second = (disk.key for disk in ran.hypervisor.vms["vc/vm0"].disks)
    moving(ran, ("vc/ds1", first), ("vc/ds0", second))
    result = ran.run()
    assert len(result.calls) == 2
    assert ran.vm("vm0").moved
    assert len(result.catalogue) == 2
    assert_clean(ran)


def test_a_vm_that_moved_away_and_back_is_cut_again_where_moves_are_counted() -> None:
    ran = bench(ALL_AT_ONCE, estate=small_estate(2, 2))
    ran.hypervisor.counts_moves = True
    key = ran.hypervisor.vms["vc/vm0"].disks[0].key
    moving(ran, ("vc/ds1", key), ("vc/ds0", key))
    result = ran.run()
    assert len(result.calls) == 2
    assert ran.vm("vm0").moved
    assert len(result.catalogue) == 2
    assert_clean(ran)


def test_a_vm_that_moved_once_is_not_cut_for_ever() -> None:
    """After the second cut it is compared with where it was found after the first."""
    ran = bench(ALL_AT_ONCE.model_copy(update={"recuts": 1}), estate=small_estate(2, 2))
    ran.hypervisor.counts_moves = True
    moving(ran, ("vc/ds1", ran.hypervisor.vms["vc/vm0"].disks[0].key))
    result = ran.run()
    assert len(result.calls) == 2
    assert {entry.vm_id for entry in result.catalogue} == {"vc/vm0", "vc/vm1"}


BASE = FileLocation("[a] vm/vm.vmdk", "a", FileRole.BASE, 2000)
DELTA = FileLocation("[b] vm/vm-000001.vmdk", "b", FileRole.DELTA, 2000)
RAW = RawDevice(2001, DeviceIdentity.parse("naa.ff"), held=True)


@pytest.mark.parametrize(
    "other",
    [
        VmLocation((BASE,), (RAW,)),
        VmLocation((DELTA._replace(datastore_id="c"), BASE), (RAW,)),
        VmLocation((BASE._replace(path="[a] vm/vm-000001.vmdk"), BASE, DELTA), (RAW,)),
    ],
    ids=["no delta", "delta elsewhere", "a deeper chain"],
)
def test_what_is_no_move(other: VmLocation) -> None:
    assert places_of(other) == places_of(VmLocation((BASE, DELTA), (RAW,)))


@pytest.mark.parametrize(
    "other",
    [
        VmLocation((BASE._replace(datastore_id="b"), DELTA), (RAW,)),
        VmLocation((BASE._replace(disk_key=2002), DELTA), (RAW,)),
        VmLocation((BASE, BASE._replace(role=FileRole.CONFIG, disk_key=None)), (RAW,)),
        VmLocation((BASE, DELTA)),
    ],
    ids=["base elsewhere", "another disk", "a home", "no raw device"],
)
def test_what_is_a_move(other: VmLocation) -> None:
    assert places_of(other) != places_of(VmLocation((BASE, DELTA), (RAW,)))


def test_the_order_of_files_is_no_move() -> None:
    files = [BASE, DELTA, BASE._replace(disk_key=2002, datastore_id="c")]
    shuffled = files[:]
    random.Random(1).shuffle(shuffled)
    assert shuffled != files
    assert places_of(VmLocation(tuple(shuffled))) == places_of(VmLocation(tuple(files)))
