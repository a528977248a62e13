"""The vSphere driver when the network, the session or the vCenter does not do its part."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support_vsim import FOREIGN, PASSWORD, Vsim, small_inventory
from support_vsphere import (
    TEST_PASSWORD_ENV,
    drive,
    request,
    settings_of,
    state_of,
    vms_by_name,
)

from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    HappenedError,
    NeverWillError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from stillframe.drivers.vsphere import VsphereDriver, open_vsphere
from stillframe.drivers.vsphere_settings import INSECURE

CREATE = "CreateSnapshotEx_Task"
EXPIRED = {
    "method": "RetrievePropertiesEx",
    "fault": "NotAuthenticated",
    "atCall": True,
    "times": 1,
}
"""The endpoint's own collector answers without a session; a vCenter's does not."""


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TEST_PASSWORD_ENV, PASSWORD)


@pytest.fixture
def vsim() -> Iterator[Vsim]:
    """An endpoint with three VMs; the first has a snapshot of somebody's."""
    with Vsim(small_inventory(3, foreign=1)) as endpoint:
        yield endpoint


async def _until(condition: Callable[[], bool]) -> None:
    """Ask (in a thread) until it is so."""
    while not await asyncio.to_thread(condition):
        pass


def _opened(settings: dict[str, Any]) -> None:
    async def main() -> None:
        async with open_vsphere("vc", settings):
            pass

    asyncio.run(main())


# -- connecting ---------------------------------------------------------


def test_a_wrong_password_is_said_and_not_shown(
    vsim: Vsim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TEST_PASSWORD_ENV, "not the password")
    with pytest.raises(NeverWillError, match=f"user {vsim.user} is refused") as caught:
        _opened(settings_of(vsim))
    assert "not the password" not in str(caught.value)
    assert f"vc ({vsim.host}:{vsim.port})" in str(caught.value)


def test_a_server_that_the_ca_did_not_sign_is_refused(vsim: Vsim, tmp_path: Path) -> None:
    with Vsim(small_inventory(1)) as other:
        (tmp_path / "other.pem").write_bytes(Path(other.ca_file).read_bytes())
    with pytest.raises(NeverWillError, match="certificate is not accepted") as caught:
        _opened(settings_of(vsim, ca_file=str(tmp_path / "other.pem")))
    assert "ca_file" in caught.value.advice


def test_a_server_on_this_machine_is_verified_too(vsim: Vsim) -> None:
    with pytest.raises(NeverWillError, match="certificate is not accepted"):
        _opened(settings_of(vsim, ca_file=None))
    _opened(settings_of(vsim, ca_file=None, verify=INSECURE))


def test_a_port_where_nobody_listens_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DidNotHappenError, match=f"127.0.0.1:{port}.*cannot be reached"):
        _opened({"host": "127.0.0.1", "port": port, "user": "u", "password_env": TEST_PASSWORD_ENV})


def test_a_port_that_stays_silent_does_not_hold_us() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = {
            "host": "127.0.0.1",
            "port": server.getsockname()[1],
            "user": "u",
            "password_env": TEST_PASSWORD_ENV,
            "connect_timeout": 0.1,
        }
        with pytest.raises(DidNotHappenError, match="does not answer"):
            _opened(settings)


# -- answers that are lost ---------------------------------------------------------


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
        await _until(lambda: vsim.calls().get(CREATE, 0) == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        state = await state_of(driver, one.id)
        assert state.operation_running is True
        assert state.snapshots == ()
        while (state := await state_of(driver, one.id)).operation_running:
            pass
        assert [ref.tag for ref in state.snapshots] == ["tag-late"]

    drive(vsim, main)


# -- the vCenter goes away, the session ends ------------------------------------------------------


def test_a_session_that_expired_is_renewed_and_the_call_happens_once(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0000"]
        await asyncio.to_thread(driver.session.logout)
        made = await driver.create_snapshot(request(one.id, quiesce=False))  # the call is refused
        assert driver.session.logins == 2
        vsim.rules([EXPIRED])
        state = await state_of(driver, one.id)  # a read is refused
        assert driver.session.logins == 3
        assert [ref.tag for ref in state.snapshots] == [FOREIGN, made.ref.tag]

    drive(vsim, main)


def test_many_calls_renew_an_expired_session_once(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        vms = await vms_by_name(driver)
        await asyncio.to_thread(driver.session.logout)
        await asyncio.gather(
            *(driver.create_snapshot(request(one.id, quiesce=False)) for one in vms.values())
        )
        assert driver.session.logins == 2

    drive(vsim, main)


def test_a_password_that_no_longer_holds_is_said(
    vsim: Vsim, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(driver: VsphereDriver) -> None:
        vsim.rules([EXPIRED, {"method": "Login", "fault": "InvalidLogin", "atCall": True}])
        with pytest.raises(NeverWillError, match="InvalidLogin"):
            await driver.list_snapshots()

    drive(vsim, main)


def test_a_vcenter_that_dies_and_comes_back_leaves_the_outcome_open(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        vsim.rules([{"method": CREATE, "delayMs": 3_600_000}])
        waiting = asyncio.ensure_future(driver.create_snapshot(request(one.id)))
        await _until(lambda: vsim.calls().get(CREATE, 0) == 1)
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
        await _until(lambda: vsim.calls().get(CREATE, 0) == 1)
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
            await _until(lambda: vsim.calls().get("CreateContainerView", 0) == 1)
        with pytest.raises(DidNotHappenError):
            await stuck
        await asyncio.get_running_loop().shutdown_default_executor()
        assert threading.active_count() == before

    asyncio.run(main())


# -- faults of tasks, seen from the outside -------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"fault": "TaskInProgress"}, BusyError),
        ({"fault": "TaskInProgress", "atCall": True}, BusyError),
        ({"fault": "Timedout"}, QuiesceTimeoutError),
        ({"fault": "TooManySnapshotLevels"}, NeverWillError),
        # What such a fault means is found out by a look at the VM:
        ({"fault": "SystemError"}, DidNotHappenError),
        ({"fault": "SystemError", "after": True}, HappenedError),
    ],
)
def test_a_create_that_fails(vsim: Vsim, rule: dict[str, Any], error: type[Exception]) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        vsim.rules([{"method": CREATE} | rule])
        with pytest.raises(error) as caught:
            await driver.create_snapshot(request(one.id))
        assert type(caught.value) is error
        left = (await state_of(driver, one.id)).snapshots
        assert bool(left) is (error is HappenedError)

    drive(vsim, main)


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"fault": "FileLocked"}, DidNotHappenError),
        ({"fault": "SystemError", "after": True}, HappenedError),
        ({"fault": "ConcurrentAccess"}, BusyError),
    ],
)
def test_a_remove_that_fails(vsim: Vsim, rule: dict[str, Any], error: type[Exception]) -> None:
    async def main(driver: VsphereDriver) -> None:
        one = (await vms_by_name(driver))["vm0001"]
        made = await driver.create_snapshot(request(one.id))
        vsim.rules([{"method": "RemoveSnapshot_Task"} | rule])
        with pytest.raises(error) as caught:
            await driver.remove_snapshot(made.ref)
        assert type(caught.value) is error
        left = (await state_of(driver, one.id)).snapshots
        assert bool(left) is (error is not HappenedError)

    drive(vsim, main)


def test_a_server_without_quiesce_specs_is_asked_once_and_then_the_old_way(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        vms = await vms_by_name(driver)
        vsim.rules([{"method": CREATE, "fault": "MethodNotFound", "atCall": True}])
        for name in ("vm0001", "vm0002"):
            made = await driver.create_snapshot(request(vms[name].id))
            assert made.quiesce is not None
        calls = await asyncio.to_thread(vsim.calls)
        assert (calls[CREATE], calls["CreateSnapshot_Task"]) == (1, 2)

    drive(vsim, main)


def test_a_snapshot_says_whose_it_is(vsim: Vsim) -> None:
    from pyVmomi import vim

    async def main(driver: VsphereDriver) -> str:
        one = (await vms_by_name(driver))["vm0001"]
        await driver.create_snapshot(request(one.id, "stillframe-7-1"))
        vm = vim.VirtualMachine(one.id.removeprefix("vc/"), driver.session.stub)
        tree = await asyncio.to_thread(lambda: vm.snapshot.rootSnapshotList)
        return f"{tree[0].name}: {tree[0].description}"

    assert drive(vsim, main).startswith("stillframe-7-1: Made by Stillframe")


def test_two_vcenters_keep_their_names_apart(vsim: Vsim) -> None:
    async def main() -> None:
        with Vsim(small_inventory(3)) as other:
            async with (
                open_vsphere("a", settings_of(vsim)) as first,
                open_vsphere("b", settings_of(other)) as second,
            ):
                ids = {vm.id for vm in (await first.inventory()).vms}
                more = {vm.id for vm in (await second.inventory()).vms}
                assert len(ids | more) == 6
                made = await first.create_snapshot(request(min(ids)))
                assert made.ref.snapshot_id.startswith("a/")
                assert await second.list_snapshots([made.ref.vm_id]) == []

    asyncio.run(main())


def test_the_inventory_reports_its_progress(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        seen: list[tuple[int, int]] = []
        threads: list[bool] = []

        def progress(done: int, total: int) -> None:
            seen.append((done, total))
            threads.append(threading.current_thread() is threading.main_thread())

        await driver.inventory(progress)
        await asyncio.sleep(0)
        assert seen == [(0, 3), (3, 3)]
        assert all(threads)

    drive(vsim, main)


def test_the_password_is_in_no_place_that_is_printed(vsim: Vsim) -> None:
    async def main(driver: VsphereDriver) -> None:
        shown = [repr(value) for value in vars(driver.session).values()]
        assert PASSWORD not in " ".join(shown)

    assert os.environ[TEST_PASSWORD_ENV] == PASSWORD
    drive(vsim, main)
