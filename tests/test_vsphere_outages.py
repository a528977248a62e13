"""The vSphere driver when answers are lost, or the vCenter falls silent, dies or comes back."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support_vsim import Vsim
from support_vsphere import (
    CREATE,
    drive,
    password,
    request,
    settings_of,
    state_of,
    until,
    vms_by_name,
    vsim,
)

from stillframe.drivers.errors import DidNotHappenError, UnknownOutcomeError
from stillframe.drivers.vsphere import VsphereDriver, open_vsphere

__all__ = ["password", "vsim"]  # fixtures


def test_a_create_whose_answer_is_lost_is_never_repeated(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        vsim.rules([{"method": CREATE, "drop": True, "after": True}])
        with pytest.raises(UnknownOutcomeError, match="answer to the call was lost"):
            await driver.create_snapshot(request(one.id, "tag-lost"))
        assert (await asyncio.to_thread(vsim.calls))[CREATE] == 1
        state = await state_of(driver, one.id)
        while state.operation_running:
            state = await state_of(driver, one.id)
        assert [ref.tag for ref in state.snapshots] == ["tag-lost"]
        await driver.remove_snapshot(state.snapshots[0])

    drive(vsim, main, lost_call_grace=0)


def test_after_a_lost_call_nobody_says_that_the_vm_is_idle(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        vms = await vms_by_name(driver)
        one, other = vms["vm0001"], vms["vm0002"]
        vsim.rules([{"method": CREATE, "drop": True}])
        with pytest.raises(UnknownOutcomeError):
            await driver.create_snapshot(request(one.id))
        assert (await state_of(driver, one.id)).operation_running is None
        assert (await state_of(driver, other.id)).operation_running is False

    drive(vsim, main, lost_call_grace=3600)


def test_a_lost_call_is_forgotten_after_its_grace(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        vsim.rules([{"method": CREATE, "drop": True}])
        with pytest.raises(UnknownOutcomeError):
            await driver.create_snapshot(request(one.id))
        assert (await state_of(driver, one.id)).operation_running is False

    drive(vsim, main, lost_call_grace=0)


def test_a_call_that_was_refused_at_the_door_did_not_happen(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        await asyncio.to_thread(vsim.kill)
        driver.session.stub.DropConnections()
        with pytest.raises(DidNotHappenError, match="cannot be reached"):
            await driver.create_snapshot(request(one.id, quiesce=False))
        with pytest.raises(DidNotHappenError, match="did not answer"):
            await driver.inventory()
        await asyncio.to_thread(vsim.restart)

    drive(vsim, main)


def test_a_remove_whose_answer_is_lost_has_an_unknown_outcome(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        made = await driver.create_snapshot(request(one.id))
        vsim.rules([{"method": "RemoveSnapshot_Task", "drop": True, "after": True}])
        with pytest.raises(UnknownOutcomeError):
            await driver.remove_snapshot(made.ref)
        assert (await asyncio.to_thread(vsim.calls))["RemoveSnapshot_Task"] == 1

    drive(vsim, main)


def test_a_create_that_nobody_waits_for_is_still_seen_to_run(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        vsim.rules([{"method": CREATE, "delayMs": 1500}])
        waiting = asyncio.ensure_future(driver.create_snapshot(request(one.id, "tag-late")))
        await until(lambda: vsim.calls().get(CREATE, 0) == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        state = await state_of(driver, one.id)
        assert state.operation_running is True
        assert state.snapshots == ()
        while (state := await state_of(driver, one.id)).operation_running:
            pass
        assert [ref.tag for ref in state.snapshots] == ["tag-late"]

    drive(vsim, main)


def test_a_vcenter_that_dies_and_comes_back_leaves_the_outcome_open(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        vsim.rules([{"method": CREATE, "delayMs": 3_600_000}])
        waiting = asyncio.ensure_future(driver.create_snapshot(request(one.id)))
        await until(lambda: vsim.calls().get(CREATE, 0) == 1)
        await asyncio.to_thread(vsim.kill)
        await asyncio.to_thread(vsim.restart)
        with pytest.raises(UnknownOutcomeError):
            await waiting
        assert await driver.list_snapshots() != []  # and it goes on working

    drive(vsim, main)


def test_connections_that_a_restart_broke_lose_no_call(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        vms = await vms_by_name(driver)
        await asyncio.gather(*(driver.list_snapshots([one.id]) for one in vms.values()))
        await asyncio.to_thread(vsim.kill)
        await asyncio.to_thread(vsim.restart)
        made = await driver.create_snapshot(request(vms["vm0001"].id, quiesce=False))
        assert driver.session.logins == 2
        assert (await state_of(driver, made.ref.vm_id)).snapshots == (made.ref,)

    drive(vsim, main)


def test_a_vcenter_that_does_not_come_back_ends_the_wait(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        vsim.rules([{"method": CREATE, "delayMs": 3_600_000}])
        waiting = asyncio.ensure_future(driver.create_snapshot(request(one.id)))
        await until(lambda: vsim.calls().get(CREATE, 0) == 1)
        await asyncio.to_thread(vsim.kill)
        with pytest.raises(UnknownOutcomeError):
            await waiting

    drive(vsim, main, outage_timeout=0.1)


def test_a_call_without_an_answer_is_given_up(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        vsim.rules([{"method": "RetrievePropertiesEx", "delayMs": 3_600_000, "times": 1}])
        with pytest.raises(DidNotHappenError, match="did not answer"):
            await driver.inventory()
        assert (await driver.inventory()).vms  # the connection is replaced

    drive(vsim, main, call_timeout=0.5)


def test_closing_breaks_off_what_is_in_flight(vsim: Vsim) -> None:
    before = threading.active_count()

    async def main() -> None:
        async with open_vsphere("vc", settings_of(vsim, call_timeout=3600)) as driver:
            vsim.rules([{"method": "CreateContainerView", "delayMs": 3_600_000}])
            stuck = asyncio.ensure_future(driver.inventory())
            await until(lambda: vsim.calls().get("CreateContainerView", 0) == 1)
        with pytest.raises(DidNotHappenError):
            await stuck
        await asyncio.get_running_loop().shutdown_default_executor()
        assert threading.active_count() == before

    asyncio.run(main())
