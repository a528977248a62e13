"""How the vSphere driver connects, keeps its session and its password, and is one of several."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest
from support_vsim import FOREIGN, PASSWORD, Vsim, small_inventory
from support_vsphere import (
    EXPIRED,
    TEST_PASSWORD_ENV,
    drive,
    opened,
    password,
    request,
    settings_of,
    state_of,
    vms_by_name,
    vsim,
)

from stillframe.drivers.errors import DidNotHappenError, NeverWillError
from stillframe.drivers.vsphere import VsphereDriver, open_vsphere
from stillframe.drivers.vsphere_settings import INSECURE

__all__ = ["password", "vsim"]  # fixtures


def test_a_wrong_password_is_said_and_not_shown(
    vsim: Vsim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TEST_PASSWORD_ENV, "not the password")
    with pytest.raises(NeverWillError, match=f"user {vsim.user} is refused") as caught:
        opened(settings_of(vsim))
    assert "not the password" not in str(caught.value)
    assert f"vc ({vsim.host}:{vsim.port})" in str(caught.value)


def test_a_server_that_the_ca_did_not_sign_is_refused(vsim: Vsim, tmp_path: Path) -> None:
    with Vsim(small_inventory(1)) as other:
        (tmp_path / "other.pem").write_bytes(Path(other.ca_file).read_bytes())
    with pytest.raises(NeverWillError, match="certificate is not accepted") as caught:
        opened(settings_of(vsim, ca_file=str(tmp_path / "other.pem")))
    assert "ca_file" in caught.value.advice


def test_a_server_on_this_machine_is_verified_too(vsim: Vsim) -> None:
    with pytest.raises(NeverWillError, match="certificate is not accepted"):
        opened(settings_of(vsim, ca_file=None))
    opened(settings_of(vsim, ca_file=None, verify=INSECURE))


def test_a_port_where_nobody_listens_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DidNotHappenError, match=f"127.0.0.1:{port}.*cannot be reached"):
        opened({"host": "127.0.0.1", "port": port, "user": "u", "password_env": TEST_PASSWORD_ENV})


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
            opened(settings)


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
