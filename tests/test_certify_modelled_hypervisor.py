"""The modelled hypervisor as a target: bytes in guests, every role, every hook."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stillframe.certify.hypervisor_target import ROLES, HypervisorTarget, ScratchVm
from stillframe.certify.target import hooks_of
from stillframe.certify.targets.modelled_hypervisor import ModelledHypervisor
from stillframe.drivers.contracts import (
    FileRole,
    HypervisorDriver,
    VmSnapshotRef,
    VmSnapshotRequest,
)
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    HappenedError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from stillframe.errors import StillframeError

BLOCK = 4096


@dataclass
class Rig:
    """A target that is up, with a connection and its VMs."""

    target: ModelledHypervisor
    driver: HypervisorDriver
    vms: dict[str, ScratchVm]

    async def create(self, role: str, tag: str = "t", *, quiesce: bool = False) -> Any:
        request = VmSnapshotRequest(f"modelled/{role}", tag, quiesce, 5.0)
        return await self.driver.create_snapshot(request)

    async def remove(self, ref: VmSnapshotRef) -> Any:
        return await self.driver.remove_snapshot(ref)

    async def state(self, role: str) -> Any:
        (state,) = await self.driver.list_snapshots([f"modelled/{role}"])
        return state

    async def tags(self, role: str) -> list[str]:
        return [ref.tag for ref in (await self.state(role)).snapshots]

    async def write(self, role: str, block: int, data: bytes, disk: int = 0) -> None:
        await self.target.write(self.vms[role], disk, block, data)

    async def read(self, role: str, block: int, disk: int = 0) -> bytes:
        return await self.target.read(self.vms[role], disk, block)

    async def digests(self, role: str) -> dict[str, str]:
        files = (await self.state(role)).location.files
        return {
            file.path: await self.target.digest_of(self.vms[role], file)
            for file in files
            if file.disk_key is not None
        }


def run(
    check: Callable[[Rig], Awaitable[Any]], settings: dict[str, Any] | None = None, seed: int = 1
) -> Any:
    """What a check says of a fresh target, on its own loop."""
    target = ModelledHypervisor(settings, Path(), seed)

    async def go() -> Any:
        async with target, target.connect() as driver:
            return await check(Rig(target, driver, dict(await target.vms())))

    with asyncio.Runner(loop_factory=target.new_loop) as runner:
        return runner.run(go())


def block_of(number: int) -> bytes:
    return bytes([number % 256]) * BLOCK


def test_it_has_every_role_and_every_hook() -> None:
    target = ModelledHypervisor({}, Path(), 1)
    assert all(target.offers(hook) for hook in hooks_of(HypervisorTarget))

    async def check(rig: Rig) -> None:
        assert set(rig.vms) == set(ROLES)
        found = {vm.name: vm for vm in (await rig.driver.inventory()).vms}
        for role, scratch in rig.vms.items():
            disks = found[role].disks
            assert scratch.capacities_bytes == tuple(disk.capacity_bytes for disk in disks)
            lies_on = [f"modelled/{name}" for name in scratch.datastores if name is not None]
            assert [d.datastore_id for d in disks if d.raw_device is None] == lies_on
        assert found["raw"].disks[1].raw_device == rig.vms["raw"].raw_device
        assert await rig.tags("kept") == [rig.vms["kept"].foreign_snapshot]
        made = await rig.create("apart")
        (delta,) = [file for file in made.location.files if file.role is FileRole.DELTA]
        assert delta.datastore_id == f"modelled/{rig.vms['apart'].delta_datastore}"

    run(check)


def test_what_a_guest_writes_it_reads_and_the_rest_is_zeros() -> None:
    async def check(rig: Rig) -> None:
        await rig.write("wide", 7, block_of(1))
        await rig.write("wide", 7, block_of(2), disk=1)
        assert await rig.read("wide", 7) == block_of(1)
        assert await rig.read("wide", 7, disk=1) == block_of(2)
        assert await rig.read("wide", 8) == bytes(BLOCK)
        with pytest.raises(StillframeError, match="4096 bytes"):
            await rig.write("wide", 7, b"short")

    run(check)


def test_writes_go_to_the_delta_and_the_base_stands_still() -> None:
    async def check(rig: Rig) -> None:
        await rig.write("plain", 1, block_of(1))
        made = await rig.create("plain")
        base, delta = [file.path for file in made.location.files if file.disk_key]
        before = await rig.digests("plain")
        await rig.write("plain", 1, block_of(2))
        after = await rig.digests("plain")
        assert after[base] == before[base]
        assert after[delta] != before[delta]
        await rig.remove(made.ref)
        assert await rig.read("plain", 1) == block_of(2)
        assert list(await rig.digests("plain")) == [base]

    run(check)


@pytest.mark.parametrize("merge", ["mirror", "iterative"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_merges_under_load_lose_nothing(merge: str, order: tuple[int, ...]) -> None:
    async def check(rig: Rig) -> int:
        rng, wrote = random.Random(merge), dict[int, bytes]()
        ended = False

        async def load() -> None:
            while not ended:
                block, data = rng.randrange(400), rng.randbytes(BLOCK)
                await rig.write("plain", block, data)
                wrote[block] = data

        writer = asyncio.create_task(load())
        refs = [(await rig.create("plain", f"t{number}")).ref for number in range(3)]
        for place in order:
            await rig.remove(refs[place])
        ended = True
        await writer
        for block, data in wrote.items():
            assert await rig.read("plain", block) == data
        return len(wrote)

    assert run(check, {"hypervisor": {"merge": merge}}) > 100


def test_a_delta_keeps_its_name_when_one_below_it_is_merged() -> None:
    async def check(rig: Rig) -> None:
        first = await rig.create("plain", "first")
        second = await rig.create("plain", "second")
        await rig.remove(first.ref)
        kept = (second.location.files[2].path, FileRole.DELTA)
        assert kept in [(f.path, f.role) for f in (await rig.state("plain")).location.files]
        await rig.create("plain", "third")
        await rig.remove(second.ref)
        fourth = await rig.create("plain", "fourth")  # as many as before, and not the same
        deltas = [file.path[-11:-5] for file in fourth.location.files if "-0" in file.path]
        assert deltas == ["000003", "000004"]

    run(check)


def test_a_frozen_guest_writes_later_and_says_when_it_was_frozen() -> None:
    async def check(rig: Rig) -> None:
        call = asyncio.create_task(rig.create("plain", quiesce=True))
        spans: Any = []
        while not spans:
            await asyncio.sleep(0.01)
            spans = await rig.target.frozen_spans(rig.vms["plain"], 0.0)
        assert spans[0].end_s == math.inf
        await rig.write("plain", 1, block_of(1))
        acknowledged_s = asyncio.get_running_loop().time()
        made = await call
        ((start_s, end_s, _),) = await rig.target.frozen_spans(rig.vms["plain"], 0.0)
        assert (start_s, end_s) == (made.quiesce.start_s, made.quiesce.end_s)
        assert acknowledged_s >= end_s
        assert not await rig.target.frozen_spans(rig.vms["plain"], end_s + 1.0)

    run(check, {"hypervisor": {"thaw_call": "2 s"}})


def test_a_guest_without_power_neither_writes_nor_reads() -> None:
    async def check(rig: Rig) -> None:
        await rig.write("plain", 1, block_of(1))
        made = await rig.create("plain")
        await rig.target.power_off(rig.vms["plain"])
        with pytest.raises(StillframeError, match="off"):
            await rig.write("plain", 1, block_of(2))
        with pytest.raises(StillframeError, match="off"):
            await rig.read("plain", 1)
        await rig.remove(made.ref)
        await rig.target.power_on(rig.vms["plain"])
        assert await rig.read("plain", 1) == block_of(1)

    run(check)


def test_a_hung_agent_does_not_freeze_and_a_refusing_guest_thaws() -> None:
    async def check(rig: Rig) -> None:
        plain = rig.vms["plain"]
        async with rig.target.hung_agent(plain):
            with pytest.raises(QuiesceTimeoutError):
                await rig.create("plain", quiesce=True)
        assert not await rig.target.frozen_spans(plain, 0.0)
        async with rig.target.failing_freeze(plain):
            with pytest.raises(QuiesceFailedError):
                await rig.create("plain", quiesce=True)
            assert (await rig.create("second", quiesce=True)).quiesce is not None
        async with rig.target.failing_create(plain):
            with pytest.raises(DidNotHappenError, match="no space"):
                await rig.create("plain", quiesce=True)
        now_s = asyncio.get_running_loop().time()
        assert all(one.end_s <= now_s for one in await rig.target.frozen_spans(plain, 0.0))
        assert (await rig.create("plain", quiesce=True)).quiesce is not None

    run(check)


def test_a_failing_merge_leaves_a_delta_that_can_be_consolidated() -> None:
    async def check(rig: Rig) -> None:
        before = await rig.target.files_of(rig.vms["plain"])
        made = await rig.create("plain")
        await rig.write("plain", 1, block_of(1))
        async with rig.target.failing_merge(rig.vms["plain"]):
            with pytest.raises(HappenedError):
                await rig.remove(made.ref)
        assert (await rig.state("plain")).needs_consolidation
        assert len(await rig.target.files_of(rig.vms["plain"])) == len(before) + 1
        await rig.driver.consolidate("modelled/plain")
        assert await rig.target.files_of(rig.vms["plain"]) == before
        assert await rig.read("plain", 1) == block_of(1)

    run(check)


def test_a_vm_that_moves_takes_its_chain_and_its_data_along() -> None:
    async def check(rig: Rig) -> None:
        await rig.write("apart", 1, block_of(1))
        made = await rig.create("apart")
        await rig.write("apart", 2, block_of(2))
        async with rig.target.migrating(rig.vms["apart"]):
            assert (await rig.state("apart")).operation_running
            await rig.write("apart", 3, block_of(3))
            with pytest.raises(BusyError):
                await rig.remove(made.ref)
        moved = await rig.target.files_of(rig.vms["apart"])
        assert {store for store, _ in moved} == {"store-3"}
        await rig.target.migrate(rig.vms["apart"], "store-1")
        assert {store for store, _ in await rig.target.files_of(rig.vms["apart"])} == {"store-1"}
        await rig.remove(made.ref)
        assert [await rig.read("apart", n) for n in (1, 2, 3)] == [block_of(n) for n in (1, 2, 3)]
        with pytest.raises(StillframeError, match="no datastore"):
            await rig.target.migrate(rig.vms["apart"], "nowhere")

    run(check)


# -- the management server -------------------------------------------------------------------------


def test_a_request_to_an_unreachable_server_is_done_later() -> None:
    async def check(rig: Rig) -> None:
        async with rig.target.unreachable():
            with pytest.raises(UnknownOutcomeError, match="no answer"):
                await rig.create("plain")
            with pytest.raises(DidNotHappenError, match="no answer"):
                await rig.state("plain")
            with pytest.raises(DidNotHappenError, match="has not answered"):
                await rig.target.connect().__aenter__()
        assert (await rig.state("plain")).operation_running
        await asyncio.sleep(10)
        assert await rig.tags("plain") == ["t"]

    run(check)


def test_a_restart_loses_what_was_not_begun_and_ends_nothing_else() -> None:
    async def check(rig: Rig) -> None:
        begun = asyncio.create_task(rig.create("plain"))
        await asyncio.sleep(0.5)
        with rig.target.server.slow("create_snapshot", 5.0):
            queued = asyncio.create_task(rig.create("second"))
            await asyncio.sleep(0.1)
            assert (await rig.state("second")).operation_running
            await rig.target.restart()
        for call in (begun, queued):
            with pytest.raises(UnknownOutcomeError, match="went away"):
                await call
        await asyncio.sleep(10)
        assert await rig.tags("plain") == ["t"]
        assert await rig.tags("second") == []

    run(check)


def test_answers_are_lost_or_late_and_the_work_is_done() -> None:
    async def check(rig: Rig) -> None:
        async with rig.target.lost_answers("create_snapshot"):
            with pytest.raises(UnknownOutcomeError, match="broke"):
                await rig.create("plain")
            await rig.tags("plain")  # other answers arrive
        start_s = asyncio.get_running_loop().time()
        async with rig.target.slow_calls("list_snapshots", 3.0):
            await rig.state("plain")
        assert asyncio.get_running_loop().time() - start_s >= 3.0
        (ref,) = (await rig.state("plain")).snapshots
        assert ref.tag == "t"
        async with rig.target.lost_answers("list_snapshots"):
            with pytest.raises(DidNotHappenError, match="broke"):
                await rig.state("plain")
        await rig.remove(ref)

    run(check)


@pytest.mark.parametrize("operation", ["create_snapshot", "remove_snapshot", "consolidate"])
def test_a_slow_operation_keeps_the_vm_busy_and_outlives_its_caller(operation: str) -> None:
    async def check(rig: Rig) -> None:
        made = await rig.create("plain", "old")
        if operation == "consolidate":
            async with rig.target.failing_merge(rig.vms["plain"]):
                with pytest.raises(HappenedError):
                    await rig.remove(made.ref)
        calls = {
            "create_snapshot": lambda: rig.create("plain", "new"),
            "remove_snapshot": lambda: rig.remove(made.ref),
            "consolidate": lambda: rig.driver.consolidate("modelled/plain"),
        }
        async with rig.target.slow_calls(operation, 5.0):
            call = asyncio.create_task(calls[operation]())
            await asyncio.sleep(1.0)
            call.cancel()
            assert (await rig.state("plain")).operation_running
            with pytest.raises(BusyError):
                await rig.create("plain", "other")
        await asyncio.sleep(15)
        state = await rig.state("plain")
        wanted = {"create_snapshot": ["old", "new"], "remove_snapshot": [], "consolidate": []}
        assert [ref.tag for ref in state.snapshots] == wanted[operation]
        assert not state.needs_consolidation
        assert not state.operation_running

    run(check)


def test_a_session_that_expires_is_renewed() -> None:
    async def check(rig: Rig) -> None:
        call = asyncio.create_task(rig.create("plain"))
        await asyncio.sleep(0.5)
        await rig.target.expire_sessions()
        assert (await call).ref.tag == "t"
        assert await rig.tags("plain") == ["t"]

    run(check)


def test_a_power_cut_breaks_off_what_works_on_the_vm() -> None:
    async def check(rig: Rig) -> None:
        call = asyncio.create_task(rig.create("plain", quiesce=True))
        await asyncio.sleep(0.5)
        await rig.target.power_off(rig.vms["plain"])
        with pytest.raises(UnknownOutcomeError):
            await call
        assert (await rig.state("plain")).operation_running is False
        await rig.target.power_on(rig.vms["plain"])
        await rig.write("plain", 1, block_of(1))

    run(check)


def test_the_same_seed_gives_the_same_times() -> None:
    async def check(rig: Rig) -> float:
        return float((await rig.create("plain")).created_s)

    assert run(check, seed=3) == run(check, seed=3)
    assert run(check, seed=3) != run(check, seed=4)
