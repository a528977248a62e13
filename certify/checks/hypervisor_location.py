"""Where the files of a VM lie: before, during and after a snapshot.

Locations are judged as the listing gives them; one requirement says that a create answers with the
same one.
"""

from __future__ import annotations

from collections import Counter

from ...drivers.contracts import FileLocation, FileRole, VmLocation
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import APART, INDEPENDENT, PLAIN, RAW, WIDE
from ..requirement import Blocked, Level, NotTested, Topic

TOPIC: Topic[HypervisorBench] = Topic("location", "HYP-LOC")


@TOPIC.shall(
    1,
    Level.CORE,
    "The location of a VM without snapshots shall list each disk that snapshots hold, as base.",
)
async def without_snapshot(bench: HypervisorBench) -> None:
    """The VM has one disk."""
    files = _of_disks((await bench.state(PLAIN)).location)
    keys = [disk.key for disk in (await bench.vm(PLAIN)).disks]
    said = [(file.disk_key, file.role.value) for file in files]
    bench.expect(
        said == [(key, FileRole.BASE.value) for key in keys],
        "without a snapshot, the location is not that of the VM's disks as base",
        said=said,
    )


@TOPIC.shall(
    2,
    Level.CORE,
    "While a snapshot is open, the location shall list one delta for each disk that it holds, and "
    "the file that stands still below it as base.",
)
async def base_and_delta(bench: HypervisorBench) -> None:
    """What the array has to hold is the base."""
    await bench.create(PLAIN, quiesce=False)
    (disk,) = (await bench.vm(PLAIN)).disks
    said = [
        (file.disk_key, file.role.value) for file in _of_disks((await bench.state(PLAIN)).location)
    ]
    wanted = [(disk.key, role.value) for role in (FileRole.BASE, FileRole.DELTA)]
    what = "with a snapshot open, the location does not list one base and one delta of the disk"
    bench.expect(sorted(said) == sorted(wanted), what, said=said)


@TOPIC.shall(
    3,
    Level.CORE,
    "A delta shall be listed under a path of its own, as every other file of the VM.",
)
async def paths_differ(bench: HypervisorBench) -> None:
    """Base and delta may lie on one datastore, and are two files."""
    await bench.create(PLAIN, quiesce=False)
    files = (await bench.state(PLAIN)).location.files
    count = Counter((file.datastore_id, file.path) for file in files)
    twice = sorted(path for (_, path), times in count.items() if times > 1)
    bench.expect(not twice, "two files of the VM are listed under one path", twice=twice)


@TOPIC.shall(
    4,
    Level.CORE,
    "The location shall name, for the base and the delta of each disk, the datastore on which that "
    "file lies.",
    roles=(WIDE,),
)
async def each_on_its_own(bench: HypervisorBench) -> None:
    """Two disks on two datastores."""
    await bench.create(WIDE, quiesce=False)
    names, location = await bench.store_names(), (await bench.state(WIDE)).location
    said = {
        (file.disk_key, file.role.value, names.get(file.datastore_id))
        for file in _of_disks(location)
    }
    stores = bench.vms[WIDE].datastores
    wanted = {
        (disk.key, role.value, store)
        for disk, store in zip((await bench.vm(WIDE)).disks, stores, strict=True)
        for role in (FileRole.BASE, FileRole.DELTA)
    }
    bench.expect(
        said == wanted,
        "a file of a disk is said to lie on another datastore, or to be another disk's",
        said=sorted(map(str, said)),
        wanted=sorted(map(str, wanted)),
    )


@TOPIC.shall(
    5,
    Level.CORE,
    "A delta that does not lie on the datastore of its base shall be listed where it lies.",
    roles=(APART,),
)
async def delta_apart(bench: HypervisorBench) -> None:
    """Otherwise it is taken to be in the array snapshot of the base's datastore."""
    (base_store,), delta_store = bench.vms[APART].datastores, bench.vms[APART].delta_datastore
    await bench.create(APART, quiesce=False)
    names, location = await bench.store_names(), (await bench.state(APART)).location
    for role, wanted in ((FileRole.BASE, base_store), (FileRole.DELTA, delta_store)):
        said = {names.get(file.datastore_id) for file in location.files if file.role is role}
        bench.expect(
            said == {wanted},
            f"the {role.value} of a VM whose deltas lie elsewhere is not listed where it lies",
            said=sorted(map(str, said)),
            wanted=wanted,
        )


@TOPIC.shall(
    6,
    Level.CORE,
    "While snapshots are open one above the other, only the newest delta of a disk shall be listed "
    "as delta.",
)
async def newest_is_delta(bench: HypervisorBench) -> None:
    """The earlier one stands still, and an array snapshot has to hold it."""
    await bench.create(PLAIN, quiesce=False)
    earlier = _paths((await bench.state(PLAIN)).location, FileRole.DELTA)
    await bench.create(PLAIN, quiesce=False)
    location = (await bench.state(PLAIN)).location
    deltas = _paths(location, FileRole.DELTA)
    bench.expect(
        len(deltas) == 1 and not deltas & earlier,
        "a delta that stands still below a newer one is listed as taking the guest's writes",
        deltas=sorted(deltas),
        earlier=sorted(earlier),
    )


@TOPIC.shall(
    7,
    Level.CORE,
    "The location shall list every disk file that the datastores hold of the VM, and no other.",
    hooks=("files_of",),
)
async def every_file(bench: HypervisorBench) -> None:
    """Without a snapshot, with one, with two."""
    for count in range(3):
        if count:
            await bench.create(PLAIN, quiesce=False)
        names, location = await bench.store_names(), (await bench.state(PLAIN)).location
        said = {(names.get(one.datastore_id, ""), one.path) for one in _of_disks(location)}
        there = set(await bench.target.files_of(bench.vms[PLAIN]))
        bench.expect(
            said == there,
            f"with {count} snapshots open, the location does not list the files that there are",
            not_there=sorted(map(str, said - there)),
            not_listed=sorted(map(str, there - said)),
        )


@TOPIC.shall(
    8,
    Level.CORE,
    "The location shall list a disk that takes no part in snapshots as one that the guest goes on "
    "writing to.",
    roles=(INDEPENDENT,),
)
async def independent_is_live(bench: HypervisorBench) -> None:
    """Its image in an array snapshot is crash-consistent at best."""
    await bench.create(INDEPENDENT, quiesce=False)
    disk = (await bench.vm(INDEPENDENT)).disks[1]
    names, location = await bench.store_names(), (await bench.state(INDEPENDENT)).location
    said = [
        (file.role.value, names.get(file.datastore_id))
        for file in location.files
        if file.disk_key == disk.key
    ]
    wanted = [(FileRole.LIVE.value, bench.vms[INDEPENDENT].datastores[1])]
    what = "an independent disk is not listed as one that the guest goes on writing to"
    bench.expect(said == wanted, what, said=said, wanted=wanted)


@TOPIC.shall(
    9,
    Level.CORE,
    "The location shall name the device behind each raw device mapping.",
    roles=(RAW,),
)
async def raw_is_named(bench: HypervisorBench) -> None:
    """The unit behind it belongs to the group as much as those of the datastores."""
    disk, location = (await bench.vm(RAW)).disks[1], (await bench.state(RAW)).location
    said = [(one.disk_key, str(one.device)) for one in location.raw_devices]
    device = bench.vms[RAW].raw_device or disk.raw_device
    bench.expect(
        said == [(disk.key, str(device))],
        "the location does not name the device behind the raw device mapping",
        said=said,
        wanted=[disk.key, str(device)],
    )


@TOPIC.shall(
    10,
    Level.CORE,
    "The location shall not say that a snapshot holds a raw device in physical mode still, nor "
    "list a file of a datastore as holding its data.",
    roles=(RAW,),
)
async def raw_is_not_held(bench: HypervisorBench) -> None:
    """The file is a pointer; the guest writes to the device all the time."""
    await bench.create(RAW, quiesce=False)
    disk, location = (await bench.vm(RAW)).disks[1], (await bench.state(RAW)).location
    held = [str(one.device) for one in location.raw_devices if one.held]
    bench.expect(not held, "a raw device in physical mode is said to be held", held=held)
    files = [file.path for file in location.files if file.disk_key == disk.key]
    bench.expect(not files, "the pointer to a raw device is listed as a disk's file", files=files)


@TOPIC.shall(
    11,
    Level.CORE,
    "The location shall list the files of a VM's home, where the inventory names one, on the "
    "datastore on which they lie.",
    roles=(WIDE,),
)
async def home_is_listed(bench: HypervisorBench) -> None:
    """Disks without their configuration are not a VM."""
    if (await bench.vm(WIDE)).home_datastore_id is None:
        raise NotTested("the inventory does not say where the VM's home lies")
    names, home = await bench.store_names(), bench.vms[WIDE].datastores[0]
    files = (await bench.state(WIDE)).location.files
    stores = {names.get(one.datastore_id) for one in files if one.role is FileRole.CONFIG}
    what = "the location does not list the files of the VM's home where they lie"
    bench.expect(stores == {home}, what, said=sorted(map(str, stores)), wanted=home)


@TOPIC.shall(
    12,
    Level.CORE,
    "A create shall answer with the location that a listing gives while the snapshot is open.",
)
async def answer_as_listed(bench: HypervisorBench) -> None:
    """The answer decides which units belong to the array snapshot."""
    made = await bench.create(PLAIN, quiesce=False)
    listed = (await bench.state(PLAIN)).location
    bench.expect(
        _as_set(made.location) == _as_set(listed),
        "a create answers with another location than the one that is listed after it",
        answered=sorted(map(str, _as_set(made.location))),
        listed=sorted(map(str, _as_set(listed))),
    )


@TOPIC.shall(
    13,
    Level.CORE,
    "After the removal of its only snapshot a VM shall be listed where it was before it.",
)
async def as_before(bench: HypervisorBench) -> None:
    """No delta that is no more, and the disk itself again."""
    before = _as_set((await bench.state(PLAIN)).location)
    await bench.remove((await bench.create(PLAIN, quiesce=False)).ref)
    after = _as_set((await bench.state(PLAIN)).location)
    bench.expect(
        after == before,
        "after a snapshot and its removal, the VM is listed with other files than before",
        before=sorted(map(str, before)),
        after=sorted(map(str, after)),
    )


@TOPIC.shall(
    14,
    Level.CORE,
    "After a VM without snapshots was moved, its location shall be the one to which it was moved.",
    hooks=("migrate",),
    roles=(WIDE,),
)
async def after_a_move(bench: HypervisorBench) -> None:
    """It is moved to another datastore and back."""
    home, away = _home_and_away(bench)
    await bench.state(PLAIN)  # whoever keeps what he has read keeps it from here on
    try:
        await bench.target.migrate(bench.vms[PLAIN], away)
        said = await _stores(bench)
    finally:
        await bench.target.migrate(bench.vms[PLAIN], home)
    what = "a VM that was moved is listed where it lay before"
    bench.expect(said == {away}, what, said=sorted(said), wanted=away)


@TOPIC.shall(
    15,
    Level.CORE,
    "After a VM was moved while a snapshot of it was open, its location shall be the one to which "
    "it was moved.",
    hooks=("migrate",),
    roles=(WIDE,),
)
async def moved_while_open(bench: HypervisorBench) -> None:
    """An array snapshot of where it was is worth nothing: the listing has to tell."""
    home, away = _home_and_away(bench)
    made = await bench.create(PLAIN, quiesce=False)
    try:
        await bench.target.migrate(bench.vms[PLAIN], away)
        said = await _stores(bench)
        await bench.remove(made.ref)
    finally:
        await bench.target.migrate(bench.vms[PLAIN], home)
    what = "a VM that was moved while its snapshot was open is listed where it lay before"
    bench.expect(said == {away}, what, said=sorted(said), wanted=away)


@TOPIC.shall(
    16,
    Level.CORE,
    "A driver that counts moves shall count one that was undone by another.",
    hooks=("migrate",),
    roles=(WIDE,),
)
async def moves_are_counted(bench: HypervisorBench) -> None:
    """Away and back: it lies where it lay, and was not there all the time."""
    home, away = _home_and_away(bench)
    before = await _moves(bench)
    for store in (away, home):
        await bench.target.migrate(bench.vms[PLAIN], store)
    after = await _moves(bench)
    what = "a VM was moved away and back, and its moves were not counted"
    bench.expect(after > before, what, before=before, after=after)


@TOPIC.shall(
    17,
    Level.CORE,
    "A driver that counts moves shall not count a snapshot or its removal as one.",
)
async def snapshots_are_no_moves(bench: HypervisorBench) -> None:
    """A VM that seems to have moved is taken out of the array snapshot."""
    before = await _moves(bench)
    made = await bench.create(PLAIN, quiesce=False)
    during = await _moves(bench)
    await bench.remove(made.ref)
    counts = [before, made.location.moves, during, await _moves(bench)]
    what = "a VM that did not move is said to have moved"
    bench.expect(len(set(counts)) == 1, what, before_create_answer_during_after=counts)


# -- what several use --------------------------------------------------------------------------


def _of_disks(location: VmLocation) -> list[FileLocation]:
    """The files that hold data of disks."""
    return [file for file in location.files if file.role is not FileRole.CONFIG]


def _paths(location: VmLocation, role: FileRole) -> set[str]:
    return {file.path for file in location.files if file.role is role}


def _as_set(location: VmLocation) -> set[tuple[str, ...]]:
    """What a location says, whatever the order."""
    files = {tuple(map(str, file)) for file in location.files}
    return files | {tuple(map(str, device)) for device in location.raw_devices}


async def _stores(bench: HypervisorBench) -> set[str]:
    """The names of all datastores that the location of the plain VM names."""
    location, names = (await bench.state(PLAIN)).location, await bench.store_names()
    return {names.get(file.datastore_id, file.datastore_id) for file in location.files}


async def _moves(bench: HypervisorBench) -> int:
    moves = (await bench.state(PLAIN)).location.moves
    if moves is None:
        raise NotTested("the driver does not count moves")
    return moves


def _home_and_away(bench: HypervisorBench) -> tuple[str, str]:
    """The names of the plain VM's datastore and of another one."""
    home = bench.vms[PLAIN].datastores[0]
    away = next((name for name in bench.vms[WIDE].datastores if name not in (home, None)), None)
    if home is None or away is None:
        raise Blocked("the roles plain and wide do not name two datastores")
    return home, away
