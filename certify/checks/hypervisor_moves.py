"""VMs that are moved or lose their power while they have a snapshot, or while one is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...drivers.contracts import VmSnapshot
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import PLAIN
from ..requirement import Level, NotTested, Topic
from .guest_load import GuestLoad
from .hypervisor_settling import (
    create_s,
    expect_removal_truth,
    expect_truth,
    finish,
    moments,
    remove_s,
    settled,
    told,
    told_of_removal,
)

TOPIC: Topic[HypervisorBench] = Topic("moves and power cuts", "HYP-MOV")

_MOMENTS = 4


@asynccontextmanager
async def _brought_back(bench: HypervisorBench) -> AsyncIterator[None]:
    """Afterwards the VM lies where it lay."""
    store = bench.vms[PLAIN].datastores[0]
    try:
        yield
    finally:
        if store is not None:
            await settled(bench, PLAIN)
            await bench.target.migrate(bench.vms[PLAIN], store)


@asynccontextmanager
async def _powered_again(bench: HypervisorBench) -> AsyncIterator[None]:
    """Afterwards the VM runs."""
    try:
        yield
    finally:
        await bench.target.power_on(bench.vms[PLAIN])


# -- moves -----------------------------------------------------------------------------------------


@TOPIC.shall(
    1,
    Level.FAULT,
    "A VM whose disks are being moved shall not be listed as one on which nothing is under way.",
    hooks=("migrating", "migrate"),
)
async def a_move_is_listed(bench: HypervisorBench) -> None:
    """None is an answer too."""
    async with _brought_back(bench), bench.target.migrating(bench.vms[PLAIN]):
        state = await bench.state(PLAIN)
        bench.expect(
            state.operation_running is not False,
            "a VM's disks are being moved, and nothing is listed as under way",
        )


@TOPIC.shall(
    2,
    Level.FAULT,
    "A create that is called while the disks are being moved shall end, and what it says came of "
    "it shall be so when they have arrived.",
    hooks=("migrating", "migrate"),
)
async def create_during_a_move(bench: HypervisorBench) -> None:
    """Whether it is refused or waits is the hypervisor's affair."""
    async with _brought_back(bench):
        request = bench.request(PLAIN)
        async with bench.target.migrating(bench.vms[PLAIN]):
            answer = await told(bench.driver.create_snapshot(request))
        bench.note(said="success" if isinstance(answer, VmSnapshot) else type(answer).__name__)
        await expect_truth(bench, PLAIN, request.tag, answer)
        await finish(bench, PLAIN, request.tag)


@TOPIC.shall(
    3,
    Level.FAULT,
    "A VM shall be snapshotted as soon as its disks have arrived elsewhere.",
    hooks=("migrate",),
)
async def create_after_a_move(bench: HypervisorBench) -> None:
    """What was known of it before is wrong by then."""
    await bench.inventory()
    async with _brought_back(bench):
        await _elsewhere(bench)
        made = await bench.driver.create_snapshot(bench.request(PLAIN))
        await bench.driver.remove_snapshot(made.ref)


@TOPIC.shall(
    4,
    Level.FAULT,
    "A removal that is called while the disks are being moved shall end, say truly what came of "
    "it, and lose nothing that the guest wrote.",
    hooks=("migrating", "migrate", "write", "read"),
)
async def removal_during_a_move(bench: HypervisorBench) -> None:
    """The guest writes all the time."""
    async with GuestLoad(bench, PLAIN) as load, _brought_back(bench):
        made = await bench.create(PLAIN, quiesce=False)
        await load.more()
        async with bench.target.migrating(bench.vms[PLAIN]):
            answer = await told_of_removal(bench.driver.remove_snapshot(made.ref))
            await load.more()
        await expect_removal_truth(bench, PLAIN, made.ref.tag, answer)
        await finish(bench, PLAIN, made.ref.tag)
        await load.end()
        await load.check("after a removal during a move the guest does not read what it wrote")


@TOPIC.shall(
    5,
    Level.FAULT,
    "A VM that is moved with a snapshot open shall lose nothing that the guest wrote, neither by "
    "the move nor by the removal.",
    hooks=("migrate", "write", "read"),
)
async def moved_with_a_snapshot(bench: HypervisorBench) -> None:
    """The snapshot is still there, and is removed elsewhere."""
    async with GuestLoad(bench, PLAIN) as load, _brought_back(bench):
        made = await bench.create(PLAIN)
        await load.more()
        await _elsewhere(bench)
        await load.more()
        bench.expect(
            made.ref in (await settled(bench, PLAIN)).snapshots,
            "a VM was moved, and its snapshot is not listed under its reference any more",
        )
        await bench.driver.remove_snapshot(made.ref)
        await load.end()
        await load.check("after a move with a snapshot open the guest has lost data")


async def _elsewhere(bench: HypervisorBench) -> None:
    """Move the VM to another datastore."""
    here = bench.vms[PLAIN].datastores
    others = [name for name in (await bench.store_names()).values() if name not in here]
    if not others:
        raise NotTested("there is no other datastore")
    await bench.target.migrate(bench.vms[PLAIN], sorted(others)[0])


# -- power cuts ------------------------------------------------------------------------------------


@TOPIC.shall(
    6,
    Level.FAULT,
    "A snapshot shall still be listed under its reference after the VM's power was cut, and again "
    "when the VM runs.",
    hooks=("power_off", "power_on"),
)
async def snapshot_outlives_a_cut(bench: HypervisorBench) -> None:
    """It is written down where it outlives the VM."""
    made = await bench.create(PLAIN)
    async with _powered_again(bench):
        await bench.target.power_off(bench.vms[PLAIN])
        off = (await settled(bench, PLAIN)).snapshots
    on = (await settled(bench, PLAIN)).snapshots
    bench.expect(
        made.ref in off and made.ref in on,
        "after a power cut the snapshot is not listed under its reference",
        while_off=[list(one) for one in off],
        when_on=[list(one) for one in on],
    )


@TOPIC.shall(
    7,
    Level.FAULT,
    "A removal on a VM that is off shall lose nothing that the guest wrote before the power cut.",
    hooks=("power_off", "power_on", "write", "read"),
)
async def removed_while_off(bench: HypervisorBench) -> None:
    """The files are merged without the hypervisor that had them open."""
    load = GuestLoad(bench, PLAIN)
    async with load, _powered_again(bench):
        made = await bench.create(PLAIN)
        await load.more()
        await bench.target.power_off(bench.vms[PLAIN])
        await load.end()
        await settled(bench, PLAIN)
        await bench.driver.remove_snapshot(made.ref)
    await load.check("after a power cut and a removal the guest does not read what it wrote")


@TOPIC.shall(
    8,
    Level.FAULT,
    "A create in the middle of which the VM's power is cut shall end, say truly what came of it, "
    "and lose nothing that the guest wrote.",
    hooks=("power_off", "power_on", "write", "read"),
)
async def cut_in_a_create(bench: HypervisorBench) -> None:
    """Several moments of a create."""
    for after_s in moments(bench, await create_s(bench, PLAIN), _MOMENTS, costly=True):
        load = GuestLoad(bench, PLAIN)
        request = bench.request(PLAIN)
        async with load, _powered_again(bench):
            call = asyncio.ensure_future(told(bench.driver.create_snapshot(request)))
            await asyncio.sleep(after_s)
            await bench.target.power_off(bench.vms[PLAIN])
            answer = await call
            await load.end()
            await expect_truth(bench, PLAIN, request.tag, answer)
        await finish(bench, PLAIN, request.tag)
        await load.check("after a power cut in the middle of a create the guest has lost data")


@TOPIC.shall(
    9,
    Level.FAULT,
    "A removal in the middle of which the VM's power is cut shall end, say truly what came of it, "
    "and lose nothing that the guest wrote.",
    hooks=("power_off", "power_on", "write", "read"),
)
async def cut_in_a_removal(bench: HypervisorBench) -> None:
    """Several moments of a merge; what is left of it is finished afterwards."""
    for after_s in moments(bench, await remove_s(bench, PLAIN), _MOMENTS, costly=True):
        load = GuestLoad(bench, PLAIN)
        async with load, _powered_again(bench):
            ref = (await bench.create(PLAIN, quiesce=False)).ref
            loose = (await bench.state(PLAIN)).needs_consolidation
            await load.more()
            call = asyncio.ensure_future(told_of_removal(bench.driver.remove_snapshot(ref)))
            await asyncio.sleep(after_s)
            await bench.target.power_off(bench.vms[PLAIN])
            answer = await call
            await load.end()
            await expect_removal_truth(bench, PLAIN, ref.tag, answer, loose=loose)
        await finish(bench, PLAIN, ref.tag)
        await load.check("after a power cut in the middle of a removal the guest has lost data")
