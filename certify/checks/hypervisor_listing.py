"""What is listed of the snapshots of VMs, and of what is being done to them."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

from ...drivers.contracts import VmSnapshot, VmSnapshotState
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import KEPT, PLAIN, SECOND
from ..requirement import Blocked, Level, NotTested, Topic

TOPIC: Topic[HypervisorBench] = Topic("listing", "HYP-LST")

_IDLE_S = 30.0
"""How long a system may be busy with what it has said to be finished."""
_SLOWED_S = 2.0
"""How much longer a create takes where that can be had, so that listings fall into it."""
_ROUNDS = 3
"""Most rounds of what is looked at all the time."""
_TAG_LENGTH = 72
"""vSphere takes names of 80 characters."""


@TOPIC.shall(
    1,
    Level.CORE,
    "A snapshot that somebody else has made shall be listed, its name as its tag.",
    roles=(KEPT,),
)
async def foreign_is_listed(bench: HypervisorBench) -> None:
    """Alone, and below one of ours."""
    name = bench.vms[KEPT].foreign_snapshot
    alone = await bench.tags(KEPT)
    bench.expect(len(alone) == 1, "the snapshot of somebody else is not listed", listed=alone)
    bench.expect(
        name is None or alone == [name],
        "the snapshot of somebody else is listed under another name",
        listed=alone,
        wanted=name,
    )
    ours = (await bench.create(KEPT)).ref.tag
    both = await bench.tags(KEPT)
    bench.expect(
        sorted(both) == sorted([*alone, ours]),
        "the snapshot of somebody else is not listed beside ours",
        listed=both,
    )


@TOPIC.shall(
    2,
    Level.CORE,
    "A listing that names no VMs shall list every VM of the inventory, once.",
)
async def all_vms(bench: HypervisorBench) -> None:
    """However many pages that takes."""
    wanted = sorted(vm.id for vm in (await bench.inventory()).vms)
    listed = sorted(state.vm_id for state in await bench.driver.list_snapshots())
    bench.note(vms=len(wanted))
    bench.expect(
        listed == wanted,
        "a listing of all VMs does not list each VM of the inventory once",
        missing=sorted(set(wanted) - set(listed))[:10],
        listed=len(listed),
        wanted=len(wanted),
    )


@TOPIC.shall(3, Level.CORE, "A listing of no VMs shall be empty.")
async def none_asked(bench: HypervisorBench) -> None:
    """No VMs is not the same as all VMs."""
    states = await bench.driver.list_snapshots([])
    listed = [state.vm_id for state in states]
    bench.expect(not listed, "a listing of no VMs lists some", listed=listed[:10])


@TOPIC.shall(
    4,
    Level.CORE,
    "A listing shall leave out VMs that do not exist, and list the others.",
)
async def unknown_left_out(bench: HypervisorBench) -> None:
    """VMs are deleted while a job runs."""
    known = bench.ids[PLAIN]
    states = await bench.driver.list_snapshots([f"{known}-none", known, "elsewhere/vm-1"])
    listed = [state.vm_id for state in states]
    bench.expect(
        listed == [known],
        "the listing of one VM that exists and two that do not is not that of the one",
        listed=listed,
    )


@TOPIC.shall(
    5,
    Level.CORE,
    "A listing of several VMs shall list the snapshots of each under that VM.",
    roles=(SECOND,),
)
async def several_kept_apart(bench: HypervisorBench) -> None:
    """In the order of the request and in the other one."""
    plain, second = (await bench.create(PLAIN)).ref, (await bench.create(SECOND)).ref
    for asked in ([plain.vm_id, second.vm_id], [second.vm_id, plain.vm_id]):
        states = await bench.driver.list_snapshots(asked)
        listed = {state.vm_id: [one.tag for one in state.snapshots] for state in states}
        wanted = {one.vm_id: [one.tag] for one in (plain, second)}
        what = "a listing of two VMs does not list the snapshot of each under it"
        bench.expect(listed == wanted, what, listed=listed, wanted=wanted)
        refs_at_home = all(ref.vm_id == one.vm_id for one in states for ref in one.snapshots)
        bench.expect(refs_at_home, "a reference in a listing names another VM")


@TOPIC.shall(
    6,
    Level.CORE,
    "A tag shall be listed as it was given: letters, digits, case, points, dashes and underlines.",
)
async def tag_as_given(bench: HypervisorBench) -> None:
    """Snapshots are found again by their tags after everything else is lost."""
    tag = bench.tag("Mixed_CASE.and-more-").ljust(_TAG_LENGTH, "z")
    await bench.driver.create_snapshot(bench.request(PLAIN, tag=tag))
    listed = await bench.tags(PLAIN)
    bench.expect(tag in listed, "a tag is listed otherwise than it was given", listed=listed)


@TOPIC.shall(
    7,
    Level.CORE,
    "A snapshot shall be listed on every connection, not only on the one that has made it.",
)
async def listed_elsewhere(bench: HypervisorBench) -> None:
    """The process that cleans up is another one."""
    ref = (await bench.create(PLAIN)).ref
    async with bench.another_driver() as other:
        states = await other.list_snapshots([ref.vm_id])
    listed = [one.tag for state in states for one in state.snapshots]
    bench.expect(ref.tag in listed, "another connection does not list the snapshot", listed=listed)


@TOPIC.shall(
    8,
    Level.CORE,
    "A listing shall not say of an idle VM that an operation is running.",
)
async def idle(bench: HypervisorBench) -> None:
    """Whoever looks for a lost snapshot waits as long as it does."""

    async def rests() -> bool:
        return (await bench.state(PLAIN)).operation_running is not True

    await bench.remove((await bench.create(PLAIN)).ref)
    what = "an operation is said to run on a VM on which nothing runs any more"
    bench.expect(await bench.until(rests, _IDLE_S), what, waited_s=_IDLE_S)


@TOPIC.shall(
    9,
    Level.CORE,
    "A listing shall not say that no operation is running on a VM while a snapshot of it is being "
    "made that is not listed yet.",
)
async def under_way(bench: HypervisorBench) -> None:
    """A tag that is not listed while nothing runs will never appear: one counts on that."""
    request = bench.request(PLAIN, quiesce=False)
    slow = bench.target.offers("slow_calls")
    slowed = bench.target.slow_calls("create_snapshot", _SLOWED_S) if slow else nullcontext()
    async with slowed:
        making = asyncio.create_task(bench.driver.create_snapshot(request))
        try:
            seen = await _listed_while(bench, making)
        finally:
            (made,) = await asyncio.gather(making, return_exceptions=True)
    if not isinstance(made, VmSnapshot):
        raise Blocked(f"a snapshot of {PLAIN} failed: {made}")
    if not seen:
        raise NotTested("the snapshot was made before a listing was answered")
    bench.note(listings_meanwhile=len(seen))
    silent = [
        state
        for state in seen
        if state.operation_running is False
        and request.tag not in [one.tag for one in state.snapshots]
    ]
    what = "a listing says that nothing runs and does not list a snapshot that appears later"
    bench.expect(not silent, what, such_listings=len(silent), listings=len(seen))


@TOPIC.shall(
    10,
    Level.CORE,
    "While a snapshot of a VM is made or removed, every listing shall list the other snapshots of "
    "the VM.",
)
async def others_stay_listed(bench: HypervisorBench) -> None:
    """A snapshot that is not listed for a moment counts as removed."""
    kept = (await bench.create(PLAIN, quiesce=False)).ref.tag
    seen = 0
    for _ in range(min(bench.effort.rounds, _ROUNDS)):
        making = asyncio.create_task(bench.create(PLAIN, quiesce=False))
        seen += await _all_list(bench, making, kept)
        removing = asyncio.create_task(bench.remove((await making).ref))
        seen += await _all_list(bench, removing, kept)
        await removing
    if not seen:
        raise NotTested("no listing was answered while a snapshot was made or removed")
    bench.note(listings_meanwhile=seen)


async def _all_list(bench: HypervisorBench, work: asyncio.Task[Any], tag: str) -> int:
    """How many listings were answered until the work was done; every one of them has the tag."""
    seen = 0
    try:
        while not work.done():
            tags = await bench.tags(PLAIN)
            what = "a listing lacks a snapshot while another one of the VM is made or removed"
            bench.expect(tag in tags, what, listed=tags, wanted=tag)
            seen += 1
            await asyncio.sleep(0.02)
    finally:
        await asyncio.wait([work])
    return seen


async def _listed_while(
    bench: HypervisorBench, making: asyncio.Task[VmSnapshot]
) -> list[VmSnapshotState]:
    """What was listed while the snapshot was being made."""
    seen = []
    await asyncio.sleep(0)  # the call is made
    while not making.done():
        state = await bench.state(PLAIN)
        seen.append(state)
        await asyncio.sleep(0.02)
    return seen
