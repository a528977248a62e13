"""Small estates, a generator of random ones, and slow but obvious answers to compare with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import strategies as st

from stillframe.drivers.records import (
    Array,
    Cluster,
    Datastore,
    DatastoreKind,
    DeviceIdentity,
    Disk,
    DiskMode,
    Estate,
    Host,
    Inventory,
    PowerState,
    StorageUnit,
    UnitKind,
    VCenter,
    Vm,
)

GIB = 2**30


def naa(number: int) -> DeviceIdentity:
    return DeviceIdentity.parse(f"naa.6000{number:028x}")


def lun(number: int, array: str = "array-1", size: int = 100 * GIB) -> StorageUnit:
    return StorageUnit(
        f"{array}/lun-{number}", array, f"lun-{number}", UnitKind.LUN, size, (naa(number),)
    )


def vmfs(name: str, *devices: int, kind: DatastoreKind = DatastoreKind.VMFS) -> Datastore:
    return Datastore(f"vc/{name}", "vc", name, kind, tuple(naa(number) for number in devices))


def disk(key: int, datastore: str | None, **fields: object) -> Disk:
    place = None if datastore is None else f"vc/{datastore}"
    return replace(Disk(key, f"[{datastore}] x/x_{key}.vmdk", place, 10 * GIB), **fields)


def machine(name: str, home: str | None, *disks: Disk, **fields: object) -> Vm:
    place = None if home is None else f"vc/{home}"
    return replace(Vm(f"vc/{name}", "vc", name, None, PowerState.ON, place, disks), **fields)


def small_estate(
    datastores: Iterable[Datastore], vms: Iterable[Vm], units: Iterable[StorageUnit]
) -> Estate:
    units = tuple(units)
    arrays = tuple(Array(name, name) for name in dict.fromkeys(unit.array_id for unit in units))
    inventory = Inventory((VCenter("vc", "vc"),), (), (), tuple(datastores), tuple(vms))
    return Estate(inventory, arrays, units)


def spread(name: str, *datastores: str) -> Vm:
    """A VM with its home and disk 2000 on the first datastore and one disk on each further one."""
    disks = [disk(2000 + index, place) for index, place in enumerate(datastores)]
    return machine(name, datastores[0], *disks)


_KINDS = st.sampled_from(DatastoreKind)
_SIZES = st.integers(0, 2**50)
_PLAIN = st.sampled_from(["a", "b", "web 01", "on", "1e3", "null", "~", "12:30", "[x] y", "0x1f"])
NAMES = _PLAIN | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
_DEVICES = tuple(naa(number) for number in range(8)) + tuple(
    DeviceIdentity.parse(text)
    for text in ("nas-1:/vol/a", "nas-1:/vol/b", "t10.Disk A_1", "eui.0011223344556677", "mpx.v:0")
)


@st.composite
def estates(draw: st.DrawFn) -> Estate:
    """Valid estates of every shape: spanning VMs, raw mappings, unknown places, shared devices."""
    used: dict[str, set[str]] = {}

    def identify(kind: str, usual: str) -> str:
        taken = used.setdefault(kind, set())
        name = draw(st.just(usual) | NAMES)
        while name in taken:
            name += "'"
        taken.add(name)
        return name

    vcenters = tuple(
        VCenter(identify("vcenter", name), name, draw(st.sampled_from(["", "8.0.2"])))
        for name in draw(st.lists(NAMES, min_size=1, max_size=2))
    )
    some_vcenter = st.sampled_from([vcenter.id for vcenter in vcenters])
    clusters = tuple(
        Cluster(identify("cluster", f"{vc}/{name}"), vc, name)
        for vc, name in draw(st.lists(st.tuples(some_vcenter, NAMES), max_size=2))
    )
    hosts = tuple(
        Host(
            identify("host", f"{vc}/{name}"),
            vc,
            name,
            draw(st.sampled_from([None, *(c.id for c in clusters if c.vcenter_id == vc)])),
            draw(st.sampled_from(["", "6.5", "8.0.2"])),
        )
        for vc, name in draw(st.lists(st.tuples(some_vcenter, NAMES), max_size=3))
    )
    datastores = tuple(
        Datastore(
            identify("datastore", f"{vc}/{name}"),
            vc,
            name,
            draw(_KINDS),
            tuple(draw(st.lists(st.sampled_from(_DEVICES), max_size=3, unique=True))),
            draw(st.none() | _SIZES),
            draw(st.none() | _SIZES),
        )
        for vc, name in draw(st.lists(st.tuples(some_vcenter, NAMES), max_size=6))
    )
    arrays = tuple(
        Array(identify("array", name), name, draw(st.sampled_from(["", "V"])))
        for name in draw(st.lists(NAMES, max_size=2))
    )
    units = _units(draw, identify, arrays)
    vms = tuple(
        _vm(draw, identify, draw(some_vcenter), datastores, hosts)
        for _ in range(draw(st.integers(0, 8)))
    )
    return Estate(Inventory(vcenters, clusters, hosts, datastores, vms), arrays, units)


def _units(draw, identify, arrays):
    free = list(draw(st.permutations(_DEVICES)))
    units = []
    for _ in range(draw(st.integers(0, 6)) if arrays else 0):
        array = draw(st.sampled_from(arrays))
        name = draw(NAMES)
        devices = tuple(free.pop() for _ in range(draw(st.integers(0, 2))))
        kind = draw(st.sampled_from(UnitKind))
        identifier = identify("unit", f"{array.id}/{name}")
        units.append(StorageUnit(identifier, array.id, name, kind, draw(_SIZES), devices))
    return tuple(units)


def _vm(draw, identify, vc, datastores, hosts):
    place = st.sampled_from([None, *(d.id for d in datastores if d.vcenter_id == vc)])
    name = draw(NAMES)
    disks = []
    for key in draw(st.lists(st.integers(-1, 2005), max_size=4, unique=True)):
        physical = draw(st.booleans())
        raw = draw(st.none() | st.sampled_from(_DEVICES))
        mode = draw(st.sampled_from(DiskMode))
        path = draw(NAMES | st.just(""))
        disks.append(Disk(key, path, draw(place), draw(_SIZES), mode, raw, physical))
    return Vm(
        identify("vm", f"{vc}/{name}"),
        vc,
        name,
        draw(st.sampled_from([None, *(host.id for host in hosts if host.vcenter_id == vc)])),
        draw(st.sampled_from(PowerState)),
        draw(place),
        tuple(disks),
        draw(NAMES | st.just("")),
        tuple(draw(st.lists(NAMES, max_size=2))),
        draw(st.booleans()),
        draw(NAMES | st.just("")),
        draw(st.none() | st.booleans()),
        draw(st.integers(0, 3)),
    )


def slow_units(
    estate: Estate, vm: Vm, physical_raw: bool = True, independent: bool = False
) -> set[str]:
    """The units of a VM, by looking at everything."""
    places, devices = {vm.home_datastore_id}, set()
    for item in vm.disks:
        if item.raw_is_physical:
            if physical_raw:
                devices.add(item.raw_device)
        elif item.mode is DiskMode.PERSISTENT or independent:
            places.add(item.datastore_id)
            devices.add(item.raw_device)
    for datastore in estate.inventory.datastores:
        if datastore.id in places:
            devices.update(datastore.extents)
    return {unit.id for unit in estate.units if devices & set(unit.devices)}


def slow_components(estate: Estate, vms: list[Vm], **options: bool) -> list[tuple[set, set]]:
    """Connected components by merging sets until nothing changes."""
    groups = [({vm.id}, slow_units(estate, vm, **options)) for vm in vms]
    merged = True
    while merged:
        merged = False
        for left in range(len(groups)):
            for right in range(left + 1, len(groups)):
                if groups[left][1] & groups[right][1]:
                    ids, units = groups.pop(right)
                    groups[left] = (groups[left][0] | ids, groups[left][1] | units)
                    merged = True
                    break
            if merged:
                break
    return groups
