"""Inventories that are wrong in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...drivers.records import Datastore, DeviceIdentity, Disk, DiskMode, Inventory, PowerState, Vm
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import INDEPENDENT, OFF, PLAIN, RAW, TOOLLESS, WIDE, HypervisorTarget
from .hypervisor_answers import shown, told


def _with_disk(number: int, change: Callable[[Disk], Disk]) -> Callable[[Vm], Vm]:
    def changed(vm: Vm) -> Vm:
        disks = [change(disk) if at == number else disk for at, disk in enumerate(vm.disks)]
        return replace(vm, disks=tuple(disks))

    return changed


def _numbered(driver: Any, target: Any) -> Any:
    """Identifiers that are those of the connection."""
    target.opened = number = getattr(target, "opened", 0) + 1

    class Numbered(BrokenDriver):
        async def inventory(self) -> Inventory:
            inventory: Inventory = await self.inner.inventory()
            if number == 1:
                return inventory
            vms = tuple(replace(vm, id=f"{vm.id}#{number}") for vm in inventory.vms)
            return replace(inventory, vms=vms)

    return Numbered(driver)


class _Remembers(BrokenDriver):
    """Shows what it has shown first of every VM, where ``keep`` says so."""

    def __init__(self, driver: Any, keep: Callable[[Vm, Vm], Vm]) -> None:
        super().__init__(driver)
        self._keep = keep
        self._first: dict[str, Vm] = {}

    async def inventory(self) -> Inventory:
        inventory: Inventory = await self.inner.inventory()
        vms = [self._keep(self._first.setdefault(vm.id, vm), vm) for vm in inventory.vms]
        return replace(inventory, vms=tuple(vms))


def _same_power(first: Vm, now: Vm) -> Vm:
    return replace(now, power_state=first.power_state)


def _same_place(first: Vm, now: Vm) -> Vm:
    return replace(now, home_datastore_id=first.home_datastore_id, disks=first.disks)


def _swapped(vm: Vm) -> Vm:
    one, two = vm.disks
    disks = (
        replace(one, datastore_id=two.datastore_id),
        replace(two, datastore_id=one.datastore_id),
    )
    return replace(vm, disks=disks)


def _first_extent(store: Datastore) -> Datastore:
    return replace(store, extents=store.extents[:1])


def _one_digit_off(device: DeviceIdentity | None) -> DeviceIdentity:
    if device is None:
        raise AssertionError("the reference has a raw device")
    last = "1" if device.value[-1] != "1" else "2"
    return DeviceIdentity(device.kind, device.value[:-1] + last)


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "identifiers-of-the-connection",
        "HYP-INV-01",
        "A VM has another identifier on every connection.",
        with_driver(_numbered),
    ),
    Canary(
        "datastore-per-host",
        "HYP-INV-02",
        "A datastore is listed once for every host that mounts it.",
        told("inventory", lambda all_: replace(all_, datastores=all_.datastores * 2)),
    ),
    Canary(
        "hosts-left-out",
        "HYP-INV-03",
        "VMs name hosts that are not listed.",
        told("inventory", lambda all_: replace(all_, hosts=())),
    ),
    Canary(
        "disks-mixed-up",
        "HYP-INV-04",
        "The datastores of two disks are interchanged.",
        shown(WIDE, _swapped),
    ),
    Canary(
        "home-of-the-last-disk",
        "HYP-INV-05",
        "The datastore of the last disk is shown as that of the home.",
        shown(WIDE, lambda vm: replace(vm, home_datastore_id=vm.disks[-1].datastore_id)),
    ),
    Canary(
        "first-extent-only",
        "HYP-INV-06",
        "Of a datastore with several extents only the first is listed.",
        told(
            "inventory",
            lambda all_: replace(all_, datastores=tuple(map(_first_extent, all_.datastores))),
        ),
    ),
    Canary(
        "everything-runs",
        "HYP-INV-07",
        "A VM that is off is shown as running.",
        shown(OFF, lambda vm: replace(vm, power_state=PowerState.ON)),
    ),
    Canary(
        "remembers-power",
        "HYP-INV-08",
        "The power state of the first reading is shown for ever.",
        with_driver(lambda driver, _: _Remembers(driver, _same_power)),
    ),
    Canary(
        "everyone-can-quiesce",
        "HYP-INV-09",
        "A guest without tools is shown as ready to be quiesced.",
        shown(TOOLLESS, lambda vm: replace(vm, can_quiesce=True)),
    ),
    Canary(
        "no-disk-is-independent",
        "HYP-INV-10",
        "An independent disk is shown as one that snapshots hold.",
        shown(INDEPENDENT, _with_disk(1, lambda disk: replace(disk, mode=DiskMode.PERSISTENT))),
    ),
    Canary(
        "raw-is-virtual",
        "HYP-INV-11",
        "A raw device mapping in physical mode is shown as one in virtual mode.",
        shown(RAW, _with_disk(1, lambda disk: replace(disk, raw_is_physical=False))),
    ),
    Canary(
        "raw-one-digit-off",
        "HYP-INV-12",
        "The device behind a raw device mapping is shown with another last digit.",
        shown(
            RAW,
            _with_disk(1, lambda disk: replace(disk, raw_device=_one_digit_off(disk.raw_device))),
        ),
    ),
    Canary(
        "foreign-not-counted",
        "HYP-INV-13",
        "Snapshots of somebody else are not counted.",
        shown("", lambda vm: replace(vm, snapshot_count=0)),
    ),
    Canary(
        "capacity-in-kib",
        "HYP-INV-14",
        "The capacity of disks is told in KiB.",
        shown(PLAIN, _with_disk(0, lambda disk: replace(disk, capacity_bytes=_kib(disk)))),
    ),
    Canary(
        "remembers-places",
        "HYP-INV-15",
        "A VM that was moved is shown where it lay at the first reading.",
        with_driver(lambda driver, _: _Remembers(driver, _same_place)),
    ),
)


def _kib(disk: Disk) -> int:
    return disk.capacity_bytes // 1024
