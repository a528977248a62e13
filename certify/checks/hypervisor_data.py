"""The data: the base stands still, writes go to the delta, and a merge loses nothing."""

from __future__ import annotations

import asyncio
from itertools import permutations

from ...drivers.contracts import FileLocation, FileRole, VmLocation, VmSnapshotRef
from ..array_target import BLOCK_BYTES
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import INDEPENDENT, KEPT, OFF, PLAIN, SECOND, WIDE
from ..requirement import Blocked, Level, NotTested, Topic
from .guest_load import BLOCKS, GuestLoad

TOPIC: Topic[HypervisorBench] = Topic("data", "HYP-DAT")

_FEW = 16
_ROUNDS = 5
_STAGES = 180
"""The first block of what a check writes beside its load."""
_MANY = range(600, 1024)
"""Blocks for a check that writes many."""


def _files(location: VmLocation, role: FileRole) -> list[FileLocation]:
    return [file for file in location.files if file.role is role and file.disk_key is not None]


async def _digests(bench: HypervisorBench, role: str, location: VmLocation) -> dict[str, str]:
    """What the files that have to stand still hold, by path. Raises Blocked if there are none."""
    bases = _files(location, FileRole.BASE)
    if not bases:
        raise Blocked("the location names no file that stands still")
    return {file.path: await bench.target.digest_of(bench.vms[role], file) for file in bases}


async def _stands_still(bench: HypervisorBench, role: str, *, quiesce: bool) -> None:
    """The base holds the same after the guest has written as when the create returned."""
    disks = tuple(range(len(bench.vms[role].datastores)))
    async with GuestLoad(bench, role, disks) as load:
        for _ in range(min(_ROUNDS, bench.effort.rounds)):
            made = await bench.create(role, quiesce=quiesce)
            before = await _digests(bench, role, made.location)
            await load.more(_FEW)
            after = await _digests(bench, role, made.location)
            bench.compared_bytes += _FEW * BLOCK_BYTES
            changed = sorted(path for path in before if after[path] != before[path])
            bench.expect(
                not changed, "a file of the base changes while the snapshot is open", files=changed
            )
            await bench.remove(made.ref)


async def _fill(
    bench: HypervisorBench, role: str, blocks: range, disk: int = 0
) -> dict[int, bytes]:
    return {block: await bench.write(role, block, disk=disk) for block in blocks}


async def _holds(
    bench: HypervisorBench, role: str, wanted: dict[int, bytes], what: str, disk: int = 0
) -> None:
    for block, data in wanted.items():
        bench.compare(await bench.read(role, block, disk), data, f"{what} (block {block})")


@TOPIC.shall(
    1,
    Level.DATA,
    "The base shall stand still from when a quiesced create returns until the removal, while the "
    "guest writes.",
    hooks=("write", "read", "digest_of"),
)
async def base_stands_still(bench: HypervisorBench) -> None:
    """What an array snapshots is the base."""
    await _stands_still(bench, PLAIN, quiesce=True)


@TOPIC.shall(
    2,
    Level.DATA,
    "The base shall stand still from when a create without quiescing returns until the removal, "
    "while the guest writes.",
    hooks=("write", "read", "digest_of"),
)
async def base_stands_still_unquiesced(bench: HypervisorBench) -> None:
    """No freeze hides a switch that comes late."""
    await _stands_still(bench, PLAIN, quiesce=False)


@TOPIC.shall(
    3,
    Level.DATA,
    "The bases of all disks of a VM shall stand still when the create returns, on whichever "
    "datastores they lie.",
    hooks=("write", "read", "digest_of"),
    roles=(WIDE,),
)
async def every_base_stands_still(bench: HypervisorBench) -> None:
    """Not only that of the first."""
    await _stands_still(bench, WIDE, quiesce=True)


@TOPIC.shall(
    4,
    Level.DATA,
    "What the guest writes while the snapshot is open shall go to the file that the location gives "
    "as the delta.",
    hooks=("write", "digest_of"),
)
async def writes_go_to_the_delta(bench: HypervisorBench) -> None:
    """The delta changes when the guest writes."""
    made = await bench.create(PLAIN)
    deltas = _files(made.location, FileRole.DELTA)
    bench.expect(deltas, "the location of a VM with an open snapshot names no delta")
    vm = bench.vms[PLAIN]
    before = [await bench.target.digest_of(vm, file) for file in deltas]
    await _fill(bench, PLAIN, range(_FEW))
    bench.compared_bytes += _FEW * BLOCK_BYTES
    after = [await bench.target.digest_of(vm, file) for file in deltas]
    bench.expect(
        before != after,
        "the guest has written, and the delta has not changed",
        files=[file.path for file in deltas],
    )


@TOPIC.shall(
    5,
    Level.DATA,
    "A guest shall read, while a snapshot is open, what it wrote before it and since.",
    hooks=("write", "read"),
)
async def reads_through_the_delta(bench: HypervisorBench) -> None:
    """Blocks that the delta has, and blocks that only the base has."""
    wrote = await _fill(bench, PLAIN, range(2 * _FEW))
    await bench.create(PLAIN)
    wrote |= await _fill(bench, PLAIN, range(_FEW))
    await _holds(bench, PLAIN, wrote, "with a snapshot open the guest does not read what it wrote")


@TOPIC.shall(
    6,
    Level.DATA,
    "A removal shall lose nothing that the guest wrote before or while the snapshot was open.",
    hooks=("write", "read"),
)
async def merge_keeps_everything(bench: HypervisorBench) -> None:
    """The guest is idle meanwhile; blocks of both kinds, many of them."""
    blocks = _MANY[: 4 * bench.effort.many]
    wrote = await _fill(bench, PLAIN, blocks)
    made = await bench.create(PLAIN)
    wrote |= await _fill(bench, PLAIN, blocks[: len(blocks) // 2])
    await bench.remove(made.ref)
    await _holds(bench, PLAIN, wrote, "after a removal the guest does not read what it wrote")


@TOPIC.shall(
    7,
    Level.DATA,
    "A removal shall lose nothing that the guest writes while the delta is merged.",
    hooks=("write", "read"),
)
async def merge_under_load(bench: HypervisorBench) -> None:
    """Several rounds, the guest writing all the time."""
    for _ in range(min(_ROUNDS, bench.effort.rounds)):
        async with GuestLoad(bench, PLAIN) as load:
            made = await bench.create(PLAIN, quiesce=False)
            await load.more()
            before = load.count
            await bench.remove(made.ref)
            bench.note(writes_during_a_merge=load.count - before)
            await load.more()
            await load.end()
        await load.check("after a removal under load the guest does not read what it wrote")


@TOPIC.shall(
    8,
    Level.DATA,
    "After the removal of the only snapshot the guest shall write to the base again.",
    hooks=("write", "digest_of"),
)
async def writes_to_the_base_again(bench: HypervisorBench) -> None:
    """And not to a delta that nobody lists."""
    made = await bench.create(PLAIN)
    await _fill(bench, PLAIN, range(_FEW))
    await bench.remove(made.ref)
    location = (await bench.state(PLAIN)).location
    before = await _digests(bench, PLAIN, location)
    await _fill(bench, PLAIN, range(_FEW))
    bench.compared_bytes += _FEW * BLOCK_BYTES
    after = await _digests(bench, PLAIN, location)
    bench.expect(
        before != after,
        "the only snapshot is removed, the guest has written, and its base has not changed",
        files=sorted(before),
    )


@TOPIC.shall(
    9,
    Level.DATA,
    "Snapshots of a chain of three shall be removed in any order without a loss.",
    hooks=("write", "read"),
)
async def chains_lose_nothing(bench: HypervisorBench) -> None:
    """All orders; the guest writes between the snapshots and while they are removed."""
    what = "after removals from a chain the guest does not read what it wrote"
    async with GuestLoad(bench, PLAIN) as load:
        for order in list(permutations(range(3)))[: bench.effort.rounds]:
            refs: list[VmSnapshotRef] = []
            wrote: dict[int, bytes] = {}
            for stage in range(_STAGES, _STAGES + 3 * _FEW, _FEW):
                refs.append((await bench.create(PLAIN, quiesce=False)).ref)
                wrote |= await _fill(bench, PLAIN, range(stage, stage + _FEW))
            for place in order:
                await bench.remove(refs[place])
            await _holds(bench, PLAIN, wrote, what)
        await load.end()
        await load.check(what)


@TOPIC.shall(
    10,
    Level.DATA,
    "When a removal returns, the files of its delta shall be gone.",
    hooks=("write", "files_of"),
)
async def delta_files_are_gone(bench: HypervisorBench) -> None:
    """What is left grows, or fills the datastore run by run."""
    vm = bench.vms[PLAIN]
    before = await bench.target.files_of(vm)
    made = await bench.create(PLAIN)
    await _fill(bench, PLAIN, range(_FEW))
    await bench.remove(made.ref)
    left = sorted(await bench.target.files_of(vm) - before)
    bench.expect(not left, "the removal has returned, and files of the delta are left", files=left)


@TOPIC.shall(
    11,
    Level.DATA,
    "A removal from the middle of a chain shall leave the base of the snapshots below it still.",
    hooks=("write", "digest_of"),
)
async def lower_base_stands_still(bench: HypervisorBench) -> None:
    """The delta goes into the file below it, and into no other."""
    first = await bench.create(PLAIN)
    await _fill(bench, PLAIN, range(_FEW))
    before = await _digests(bench, PLAIN, first.location)
    second = await bench.create(PLAIN)
    await _fill(bench, PLAIN, range(_FEW // 2))
    await bench.remove(second.ref)
    after = await _digests(bench, PLAIN, first.location)
    bench.compared_bytes += _FEW * BLOCK_BYTES
    changed = sorted(path for path in before if after[path] != before[path])
    bench.expect(
        not changed,
        "removing a snapshot has changed the base of the one below it",
        files=changed,
    )


@TOPIC.shall(
    12,
    Level.DATA,
    "What a snapshot of somebody else holds shall not change through snapshots of ours.",
    hooks=("write", "digest_of"),
    roles=(KEPT,),
)
async def foreign_base_stands_still(bench: HypervisorBench) -> None:
    """Its base is what he would go back to."""
    await _fill(bench, KEPT, range(_FEW))
    location = (await bench.state(KEPT)).location
    before = await _digests(bench, KEPT, location)
    made = await bench.create(KEPT)
    await _fill(bench, KEPT, range(_FEW))
    await bench.remove(made.ref)
    await _fill(bench, KEPT, range(_FEW))
    after = await _digests(bench, KEPT, location)
    bench.compared_bytes += _FEW * BLOCK_BYTES
    changed = sorted(path for path in before if after[path] != before[path])
    bench.expect(not changed, "what a snapshot of somebody else holds has changed", files=changed)


@TOPIC.shall(
    13,
    Level.DATA,
    "The guest of a VM with a snapshot of somebody else shall lose nothing through snapshots of "
    "ours.",
    hooks=("write", "read"),
    roles=(KEPT,),
)
async def foreign_delta_keeps_everything(bench: HypervisorBench) -> None:
    """Our delta is merged into his."""
    wrote = await _fill(bench, KEPT, range(2 * _FEW))
    made = await bench.create(KEPT)
    wrote |= await _fill(bench, KEPT, range(_FEW))
    await bench.remove(made.ref)
    await _holds(bench, KEPT, wrote, "with a snapshot of somebody else the guest has lost data")


@TOPIC.shall(
    14,
    Level.DATA,
    "Every disk of a VM shall keep what the guest wrote to it, and get nothing of another's.",
    hooks=("write", "read"),
    roles=(WIDE,),
)
async def disks_are_kept_apart(bench: HypervisorBench) -> None:
    """The same blocks of both, with other bytes."""
    disks = range(len(bench.vms[WIDE].datastores))
    async with GuestLoad(bench, WIDE, tuple(disks)) as load:
        made = await bench.create(WIDE)
        await load.more(BLOCKS)
        await bench.remove(made.ref)
        await load.end()
        await load.check("after a removal a disk does not hold what the guest wrote to it")


@TOPIC.shall(
    15,
    Level.DATA,
    "An independent disk shall take the guest's writes while a snapshot is open, and keep them.",
    hooks=("write", "read", "digest_of"),
    roles=(INDEPENDENT,),
)
async def independent_disk_lives(bench: HypervisorBench) -> None:
    """It is given as live because it does not stand still."""
    made = await bench.create(INDEPENDENT)
    live = _files(made.location, FileRole.LIVE)
    if not live:
        raise NotTested("the location gives no file as live")
    vm = bench.vms[INDEPENDENT]
    before = [await bench.target.digest_of(vm, file) for file in live]
    wrote = await _fill(bench, INDEPENDENT, range(_FEW), disk=1)
    after = [await bench.target.digest_of(vm, file) for file in live]
    bench.expect(before != after, "the guest has written, and the live file has not changed")
    await bench.remove(made.ref)
    await _holds(bench, INDEPENDENT, wrote, "an independent disk has lost data", disk=1)


@TOPIC.shall(
    16,
    Level.DATA,
    "A VM that was off when it was snapshotted shall write to the delta when it runs, and lose "
    "nothing by the removal.",
    hooks=("write", "read", "digest_of", "power_on", "power_off"),
    roles=(OFF,),
)
async def started_on_a_delta(bench: HypervisorBench) -> None:
    """Nothing was there to be switched; it has to open the delta when it starts."""
    vm = bench.vms[OFF]
    made = await bench.create(OFF, quiesce=False)
    before = await _digests(bench, OFF, made.location)
    await bench.target.power_on(vm)
    try:
        wrote = await _fill(bench, OFF, range(_FEW))
        after = await _digests(bench, OFF, made.location)
        bench.expect(before == after, "a VM that was started on a delta writes to its base")
        await bench.remove(made.ref)
        await _holds(bench, OFF, wrote, "a VM that was started on a delta has lost data")
    finally:
        await bench.target.power_off(vm)


@TOPIC.shall(
    17,
    Level.DATA,
    "Snapshots of two VMs at the same time shall lose nothing of either, nor mix them up.",
    hooks=("write", "read"),
    roles=(SECOND,),
)
async def vms_are_kept_apart(bench: HypervisorBench) -> None:
    """Created and removed at once, both guests writing."""
    what = "after work on two VMs at once a guest does not read what it wrote"
    for _ in range(min(_ROUNDS, bench.effort.rounds)):
        async with GuestLoad(bench, PLAIN) as one, GuestLoad(bench, SECOND) as other:
            made = await asyncio.gather(bench.create(PLAIN), bench.create(SECOND))
            await one.more()
            await other.more()
            await asyncio.gather(*(bench.remove(snapshot.ref) for snapshot in made))
        await one.check(what)
        await other.check(what)
