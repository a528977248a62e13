"""What the inventory says of VMs, disks, datastores and the devices under them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ...drivers.records import Disk, Inventory, PowerState, Vm, VmId
from ..array_target import BLOCK_BYTES
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import INDEPENDENT, KEPT, OFF, PLAIN, RAW, TOOLLESS, WIDE
from ..requirement import Blocked, Level, NotTested, Topic

TOPIC: Topic[HypervisorBench] = Topic("inventory", "HYP-INV")

_POWER_S = 60.0
"""How long a change of power may take to show."""


@TOPIC.shall(
    1,
    Level.CORE,
    "A driver shall know a VM by the same identifier on every reading and every connection.",
)
async def same_identifier(bench: HypervisorBench) -> None:
    """Journals and leases of an earlier process name VMs by it."""
    first = _ids_by_name(await bench.inventory(), bench)
    again = _ids_by_name(await bench.driver.inventory(), bench)
    async with bench.another_driver() as other:
        elsewhere = _ids_by_name(await other.inventory(), bench)
    bench.note(vms=len(first))
    for name, vm_id in first.items():
        seen = (again.get(name), elsewhere.get(name))
        bench.expect(
            seen == (vm_id, vm_id),
            f"VM {name} has one identifier now and another one later",
            first=vm_id,
            second_reading=seen[0],
            second_connection=seen[1],
        )


@TOPIC.shall(
    2,
    Level.CORE,
    "The inventory shall list every VM, host, datastore and vCenter once.",
)
async def listed_once(bench: HypervisorBench) -> None:
    """A datastore is often found once on every host that mounts it."""
    inventory = await bench.driver.inventory()
    kinds = {
        "VM": [vm.id for vm in inventory.vms],
        "host": [host.id for host in inventory.hosts],
        "datastore": [store.id for store in inventory.datastores],
        "vCenter": [vcenter.id for vcenter in inventory.vcenters],
        "cluster": [cluster.id for cluster in inventory.clusters],
    }
    for kind, ids in kinds.items():
        twice = sorted(one for one, count in Counter(ids).items() if count > 1)
        bench.expect(not twice, f"the inventory lists a {kind} more than once", twice=twice)


@TOPIC.shall(
    3,
    Level.CORE,
    "Whatever the inventory names of a VM (its host, the datastores of its home and its disks, its "
    "vCenter) shall be in the inventory.",
)
async def names_are_known(bench: HypervisorBench) -> None:
    """What is not there cannot be led back to an array."""
    inventory = await bench.driver.inventory()
    for vm in _scratch(inventory, bench):
        stores = [vm.home_datastore_id, *(disk.datastore_id for disk in vm.disks)]
        _expect_known(bench, vm, "host", [vm.host_id], [one.id for one in inventory.hosts])
        _expect_known(bench, vm, "datastore", stores, [one.id for one in inventory.datastores])
        _expect_known(bench, vm, "vCenter", [vm.vcenter_id], [v.id for v in inventory.vcenters])


@TOPIC.shall(
    4,
    Level.CORE,
    "The inventory shall name the datastore of each disk of a VM, in the order of the disks, and "
    "give each disk a key and a path of its own.",
)
async def disks_and_datastores(bench: HypervisorBench) -> None:
    """Tried on every scratch VM."""
    names = await bench.store_names()
    compared = 0
    for role, scratch in bench.vms.items():
        vm = await bench.vm(role)
        lies_on = tuple(
            None if wanted is None else names.get(disk.datastore_id or "")
            for disk, wanted in zip(vm.disks, scratch.datastores, strict=False)
        )
        bench.expect(
            len(vm.disks) == len(scratch.datastores) and lies_on == scratch.datastores,
            f"the disks of {vm.name} do not lie where the inventory says",
            said=[names.get(disk.datastore_id or "") for disk in vm.disks],
            wanted=list(scratch.datastores),
        )
        bench.expect(
            len({disk.key for disk in vm.disks}) == len(vm.disks),
            f"two disks of {vm.name} have the same key",
            keys=[disk.key for disk in vm.disks],
        )
        paths = {(disk.datastore_id, disk.path) for disk in vm.disks}
        bench.expect(
            len(paths) == len(vm.disks),
            f"two disks of {vm.name} have the same path",
            paths=[disk.path for disk in vm.disks],
        )
        compared += len(vm.disks)
    bench.note(disks=compared)


@TOPIC.shall(
    5,
    Level.CORE,
    "The inventory shall name the datastore of a VM's home, where it names one, as the one that "
    "holds it.",
    roles=(WIDE,),
)
async def home_datastore(bench: HypervisorBench) -> None:
    """The home is on the datastore of the first disk, and the second disk is elsewhere."""
    vm, names = await bench.vm(WIDE), await bench.store_names()
    if vm.home_datastore_id is None:
        raise NotTested("the inventory does not say where the VM's home lies")
    bench.expect(
        names.get(vm.home_datastore_id) == bench.vms[WIDE].datastores[0],
        "the inventory names another datastore than the one that holds the VM's home",
        said=names.get(vm.home_datastore_id),
        wanted=bench.vms[WIDE].datastores[0],
    )


@TOPIC.shall(
    6,
    Level.CORE,
    "The inventory shall list, for each datastore, every device under it and no other.",
)
async def extents(bench: HypervisorBench) -> None:
    """A device that is missing is an array snapshot that lacks a part of the datastore."""
    known = {
        name: devices for vm in bench.vms.values() for name, devices in (vm.extents or {}).items()
    }
    if not known:
        raise NotTested("the target does not know which devices are under its datastores")
    inventory = await bench.driver.inventory()
    by_name = {store.name: store for store in inventory.datastores}
    for name, devices in sorted(known.items()):
        store = by_name.get(name)
        said = set() if store is None else {str(one) for one in store.extents}
        bench.expect(
            said == {str(one) for one in devices},
            f"datastore {name} does not lie on the devices that the inventory lists",
            said=sorted(said),
            wanted=sorted(str(one) for one in devices),
        )
    bench.note(datastores=len(known), most_extents=max(len(one) for one in known.values()))


@TOPIC.shall(
    7,
    Level.CORE,
    "The inventory shall tell a VM that is powered off from one that runs.",
    roles=(OFF,),
)
async def power_states(bench: HypervisorBench) -> None:
    """Only a running guest is quiesced."""
    for role in bench.vms:
        state = (await bench.vm(role)).power_state
        wanted = PowerState.OFF if role == OFF else PowerState.ON
        bench.expect(
            state is wanted,
            f"the VM of role {role} is said to be {state.value}, and is {wanted.value}",
        )


@TOPIC.shall(
    8,
    Level.CORE,
    "The inventory shall show the power state that a VM has now, not one of an earlier reading.",
    hooks=("power_off", "power_on"),
)
async def power_state_now(bench: HypervisorBench) -> None:
    """The power is cut and comes back."""
    vm = bench.vms[PLAIN]
    before = (await bench.vm(PLAIN)).power_state
    await bench.target.power_off(vm)
    try:
        off = await bench.until(lambda: _is(bench, PowerState.OFF), _POWER_S)
    finally:
        await bench.target.power_on(vm)
    bench.expect(off, "the inventory does not show that the VM was switched off", before=before)
    on = await bench.until(lambda: _is(bench, PowerState.ON), _POWER_S)
    bench.expect(on, "the inventory does not show that the VM was switched on again")


@TOPIC.shall(
    9,
    Level.CORE,
    "The inventory shall neither say of a guest that cannot be quiesced that it can, nor of one "
    "that can that it cannot.",
    roles=(TOOLLESS,),
)
async def can_quiesce(bench: HypervisorBench) -> None:
    """None means that the driver cannot tell, which is no lie."""
    without = (await bench.vm(TOOLLESS)).can_quiesce
    bench.expect(without is not True, "a guest without tools is said to be ready to be quiesced")
    ready = (await bench.vm(PLAIN)).can_quiesce
    bench.expect(ready is not False, "a guest that can be quiesced is said not to be ready for it")


@TOPIC.shall(
    10,
    Level.CORE,
    "The inventory shall tell a disk that takes no part in snapshots from one that does.",
    roles=(INDEPENDENT,),
)
async def independent_disks(bench: HypervisorBench) -> None:
    """The second disk is independent."""
    disks = (await bench.vm(INDEPENDENT)).disks
    held = [disk.in_vm_snapshot for disk in disks]
    bench.expect(
        held == [True, False],
        "the inventory does not say which disk is independent",
        held_by_snapshots=held,
        modes=[disk.mode.value for disk in disks],
    )


@TOPIC.shall(
    11,
    Level.CORE,
    "The inventory shall say that a raw device mapping in physical mode is one.",
    roles=(RAW,),
)
async def raw_is_physical(bench: HypervisorBench) -> None:
    """No snapshot of the VM holds such a disk still."""
    disk = await _raw_disk(bench)
    bench.expect(
        disk.raw_is_physical and not disk.in_vm_snapshot,
        "a raw device mapping in physical mode is said to take part in snapshots",
    )


@TOPIC.shall(
    12,
    Level.CORE,
    "The inventory shall name the device behind a raw device mapping.",
    roles=(RAW,),
)
async def raw_device(bench: HypervisorBench) -> None:
    """The array that holds it is found by that name."""
    device, wanted = (await _raw_disk(bench)).raw_device, bench.vms[RAW].raw_device
    bench.expect(device is not None, "the inventory names no device behind the raw device mapping")
    bench.expect(
        wanted is None or device == wanted,
        "the inventory names another device than the one behind the raw device mapping",
        said=str(device),
        wanted=str(wanted),
    )


@TOPIC.shall(
    13,
    Level.CORE,
    "The inventory shall count the snapshots that somebody else has made of a VM.",
    roles=(KEPT,),
)
async def foreign_snapshots(bench: HypervisorBench) -> None:
    """One VM carries one, another none."""
    for role, wanted in ((KEPT, 1), (PLAIN, 0)):
        count = (await bench.vm(role)).snapshot_count
        bench.expect(
            count == wanted,
            f"the VM of role {role} carries {wanted} snapshots, and the inventory counts {count}",
        )


@TOPIC.shall(
    14,
    Level.CORE,
    "The inventory shall give the capacity of each disk in bytes.",
)
async def capacities(bench: HypervisorBench) -> None:
    """Exactly, where the target knows it; a disk holds at least one block in any case."""
    exact = 0
    for role, scratch in bench.vms.items():
        said = [disk.capacity_bytes for disk in (await bench.vm(role)).disks]
        bench.expect(
            min(said, default=0) >= BLOCK_BYTES,
            f"a disk of role {role} is said to be smaller than one block",
            said=said,
        )
        if scratch.capacities_bytes is not None:
            exact += len(said)
            bench.expect(
                tuple(said) == scratch.capacities_bytes,
                f"the disks of role {role} are of another size than the inventory says",
                said=said,
                wanted=list(scratch.capacities_bytes),
            )
    bench.note(disks_of_known_size=exact)


@TOPIC.shall(
    15,
    Level.CORE,
    "After a VM was moved, the inventory shall show its home and its disks where they lie now.",
    hooks=("migrate",),
    roles=(WIDE,),
)
async def moved_vm(bench: HypervisorBench) -> None:
    """It is moved to another datastore and back."""
    home, away = bench.vms[PLAIN].datastores[0], bench.vms[WIDE].datastores
    there = next((name for name in away if name != home), None)
    if home is None or there is None:
        raise NotTested("there is no other datastore to move the VM to")
    await bench.vm(PLAIN)  # whoever keeps what he has read keeps it from here on
    try:
        await bench.target.migrate(bench.vms[PLAIN], there)
        vm, names = await bench.vm(PLAIN), await bench.store_names()
    finally:
        await bench.target.migrate(bench.vms[PLAIN], home)
    stores = {store for store in (vm.home_datastore_id, vm.disks[0].datastore_id) if store}
    bench.expect(
        {names.get(one) for one in stores} == {there},
        "the inventory shows a VM that was moved where it lay before",
        said=sorted(names.get(one, one) for one in stores),
        wanted=there,
    )


# -- what several use --------------------------------------------------------------------------


def _scratch(inventory: Inventory, bench: HypervisorBench) -> list[Vm]:
    ids = set(bench.ids.values())
    return [vm for vm in inventory.vms if vm.id in ids]


def _ids_by_name(inventory: Inventory, bench: HypervisorBench) -> dict[str, VmId]:
    names = {vm.name for vm in bench.vms.values()}
    return {vm.name: vm.id for vm in inventory.vms if vm.name in names}


def _expect_known(
    bench: HypervisorBench,
    vm: Vm,
    kind: str,
    named: Iterable[str | None],
    there: Sequence[str],
) -> None:
    missing = sorted({one for one in named if one is not None} - set(there))
    what = f"VM {vm.name} names a {kind} that the inventory does not list"
    bench.expect(not missing, what, missing=missing)


async def _is(bench: HypervisorBench, state: PowerState) -> bool:
    return (await bench.vm(PLAIN)).power_state is state


async def _raw_disk(bench: HypervisorBench) -> Disk:
    vm = await bench.vm(RAW)
    if len(vm.disks) != len(bench.vms[RAW].datastores):
        raise Blocked(f"the inventory lists {len(vm.disks)} disks of the VM")
    return vm.disks[1]
