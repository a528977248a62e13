"""vCenters that refuse, lie, keep silent or die: one clear line, in bounded time, no trace left."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim
from support_live import ArrayLog, Ran, array_log, configure, live, run_job
from support_pyvmomi import Client, disks
from support_vsim import FOREIGN, Vsim, small_inventory

from stillframe.drivers.contracts import GroupSnapshotRequest
from stillframe.drivers.vsphere_settings import PASSWORD_ENV

__all__ = ["array_log", "live"]  # fixtures

pytestmark = [pytest.mark.usefixtures("live"), pytest.mark.timeout(60)]
JOB: dict[str, Any] = {
    "retry": {"attempts": 2, "first_pause": "50 ms"},
    "timeouts": {"query": "5 s", "create": "10 s", "remove": "10 s", "settle": "30 s"},
}
QUICK = {"connect_timeout": "1 s", "call_timeout": "2 s", "lost_call_grace": "1 s"}


@pytest.fixture
def vsim() -> Iterator[Vsim]:
    """Twelve VMs on three datastores of a LUN each; two VMs carry somebody else's snapshot."""
    with Vsim(small_inventory(12, 3, 3, foreign=2), keep=True) as running:
        yield running


def one_line(ran: Ran, code: int) -> str:
    """The error of a run that failed before it touched anything."""
    assert ran.code == code, ran.stdout + ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    lines = ran.stderr.strip().splitlines()
    assert len(lines) == 1, ran.stderr
    assert not list(Path().glob("out*"))
    return lines[0]


def assert_as_before(vsim: Vsim) -> None:
    """Nothing of ours is on the endpoint, and everybody else's snapshots are."""
    with Client(vsim) as client:
        vms = client.all(vim.VirtualMachine)
        assert {name: client.names(vm) for name, vm in vms.items()} == {
            f"vm{i:04d}": [FOREIGN] if i < 2 else [] for i in range(12)
        }
        assert {len(disks(vm.config)[2000]) for vm in vms.values()} == {1, 2}
        assert not any(vm.runtime.consolidationNeeded for vm in vms.values())


def test_a_wrong_password_is_said_and_not_shown(
    vsim: Vsim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD_ENV, "not-the-password")
    line = one_line(run_job(configure(vsim, JOB, luns=3)), 3)
    assert f"user {vsim.user} is refused" in line
    assert "not-the-password" not in line
    assert vsim.calls().get("CreateContainerView", 0) == 0


def test_no_password_at_all_is_bad_input(vsim: Vsim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_ENV)
    line = one_line(run_job(configure(vsim, JOB, luns=3)), 2)
    assert PASSWORD_ENV in line
    assert vsim.calls() == {}


def test_a_certificate_of_another_authority_is_refused(vsim: Vsim) -> None:
    with Vsim(small_inventory(1, 1, 1)) as other:
        config = configure(vsim, JOB, luns=3, vcenter={"ca_file": other.ca_file})
        line = one_line(run_job(config), 3)
    assert "certificate" in line
    assert "ca_file" in line
    assert vsim.calls() == {}


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_silent_port_is_given_up(vsim: Vsim) -> None:
    with silent_server() as port:
        config = configure(vsim, JOB, luns=3, vcenter={"port": port, **QUICK})
        line = one_line(run_job(config), 3)
    assert f"127.0.0.1:{port}" in line
    assert "does not answer" in line


def test_a_port_where_nobody_listens_is_said(vsim: Vsim) -> None:
    with silent_server() as port:
        pass
    config = configure(vsim, JOB, luns=3, vcenter={"port": port, **QUICK})
    assert f"127.0.0.1:{port}" in one_line(run_job(config), 3)


def test_a_server_that_is_no_vcenter_is_said(vsim: Vsim) -> None:
    vsim.rules([{"method": "RetrieveServiceContent", "drop": True}])
    assert "127.0.0.1" in one_line(run_job(configure(vsim, JOB, luns=3, vcenter=QUICK)), 3)


def test_a_vcenter_that_restarts_in_mid_job_is_left_clean(vsim: Vsim, array_log: ArrayLog) -> None:
    async def crash(request: GroupSnapshotRequest) -> None:
        """Just before the first cut, with the VM snapshots of the first groups open."""
        if len(array_log.cuts) == 1:
            await asyncio.to_thread(vsim.kill)
            await asyncio.to_thread(vsim.restart)

    array_log.before_cut = crash
    ran = run_job(configure(vsim, JOB, luns=3, vcenter=QUICK))
    assert ran.code in (0, 1), ran.stdout + ran.stderr
    assert ran.document["orphans"] == []
    assert_as_before(vsim)


def names(client: Client) -> dict[str, list[str]]:
    """The names of every VM's snapshots."""
    return {name: client.names(vm) for name, vm in client.all(vim.VirtualMachine).items()}


def test_what_a_dead_vcenter_kept_is_named_and_a_rerun_that_clears_it_leaves_nothing(
    vsim: Vsim, array_log: ArrayLog
) -> None:
    async def crash(request: GroupSnapshotRequest) -> None:
        if len(array_log.cuts) == 1:
            await asyncio.to_thread(vsim.kill)

    array_log.before_cut = crash
    short = {**JOB, "timeouts": {**JOB["timeouts"], "settle": "1 s", "query": "2 s"}}
    vcenter = {**QUICK, "outage_timeout": "1 s"}
    ran = run_job(configure(vsim, short, luns=3, vcenter=vcenter), "--out", "first")
    assert ran.code == 3, ran.stdout + ran.stderr
    assert ran.document["status"] == "failed"
    told = " ".join(ran.document["orphans"])
    clearing = ran.document["live"]["clearing_command"]
    assert clearing == "stillframe run --live live.yaml --clear first"

    vsim.restart()
    array_log.before_cut = None
    config = configure(vsim, JOB, luns=3, vcenter=QUICK)
    with Client(vsim) as client:
        left = names(client)
        ours = {tag for tags in left.values() for tag in tags if tag != FOREIGN}
        assert ours, "the endpoint died while snapshots were open"
        assert all(tag in told for tag in ours)
        another = f"stillframe-{ran.document['job_id']}-1-1"
        client.create(client.vm("vm0005"), another)

        # A rerun that is not told to adds nothing to this, and touches nothing that is not its.
        again = run_job(config, "--no-recover", "--out", "second")
        assert again.code == 0, again.stdout + again.stderr
        left["vm0005"].append(another)
        assert names(client) == left

    cleared = run_job(config, "--no-recover", "--clear", "first", "--out", "third")
    assert cleared.code == 0, cleared.stdout + cleared.stderr
    done = cleared.document["live"]["cleared"]
    assert done["left"] == []
    assert all(tag in " ".join(done["removed"]) for tag in ours)
    with Client(vsim) as client:
        (kept,) = client.snapshots(client.vm("vm0005"))
        assert kept.name == another, "it looks like ours, and is another job's"
        client.finish(kept.snapshot.RemoveSnapshot_Task(removeChildren=False))
    assert_as_before(vsim)

    twice = run_job(config, "--clear", "first", "--out", "fourth")
    assert twice.code == 0, twice.stdout + twice.stderr
    assert twice.document["live"]["cleared"]["removed"] == []
    assert_as_before(vsim)
