"""Snapshots on the test endpoint, as plain pyvmomi sees them: chains, quiescing, merging."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyVmomi import vim, vmodl
from support_pyvmomi import Client, client, disks, layout_disks, vsim
from support_vsim import FOREIGN, Vsim, varied

__all__ = ["client", "vsim"]  # fixtures


@pytest.mark.parametrize("method", ["CreateSnapshot_Task", "CreateSnapshotEx_Task"])
def test_a_snapshot_puts_a_delta_on_every_disk_it_holds(method: str) -> None:
    with Vsim(varied()) as vsim, Client(vsim) as client:
        vm = client.vm("db")
        before = disks(vm.config)
        arguments = (
            ("s", "", False, True)
            if method == "CreateSnapshot_Task"
            else ("s", "", False, vim.vm.GuestQuiesceSpec(timeout=5))
        )
        made = client.finish(getattr(vm, method)(*arguments))
        after = disks(vm.config)
        assert after == {
            2000: [*before[2000], "[one] db/db-000001.vmdk"],
            2001: before[2001],  # independent
            2002: before[2002],  # a physical raw disk
            2003: [*before[2003], "[one] db/db_3-000001.vmdk"],
        }
        assert layout_disks(vm.layoutEx) == after
        assert disks(made.config) == before
        assert vm.layoutEx.snapshot[0].key == made
        assert client.snapshots(vm)[0].quiesced
        client.finish(made.RemoveSnapshot_Task(False))
        assert disks(vm.config) == before
        assert layout_disks(vm.layoutEx) == before
        assert "snapshot" not in client.read(vm, "snapshot")


def test_removing_one_of_three_merges_what_lies_above_it(client: Client) -> None:
    vm = client.vm("vm0000")
    second, third = client.create(vm, "second"), client.create(vm, "third")
    assert len(disks(vm.config)[2000]) == 4
    assert client.names(vm) == [FOREIGN, "second", "third"]
    client.finish(second.RemoveSnapshot_Task(False))
    assert client.names(vm) == [FOREIGN, "third"]
    chain = disks(vm.config)[2000]
    assert len(chain) == 3
    assert disks(third.config)[2000] == chain[:-1]
    assert vm.snapshot.currentSnapshot == third
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        second.RemoveSnapshot_Task(False)
    client.finish(client.snapshots(vm)[0].snapshot.RemoveSnapshot_Task(True))
    assert client.names(vm) == []
    assert disks(vm.config)[2000] == chain[:1]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.integers(0, 7), max_size=12))
def test_a_chain_has_one_delta_for_each_snapshot(client: Client, steps: list[int]) -> None:
    vm = client.vm("vm0002")
    client.finish(vm.RemoveAllSnapshots_Task())
    for step in steps:
        held = client.snapshots(vm)
        if step < 4 or not held:
            client.create(vm, f"s{step}")
        else:
            client.finish(held[step % len(held)].snapshot.RemoveSnapshot_Task(False))
        held = client.snapshots(vm)
        chain = disks(vm.config)[2000]
        assert len(chain) == len(held) + 1
        assert len(set(chain)) == len(chain)
        assert [disks(one.snapshot.config)[2000] for one in held] == [
            chain[: i + 1] for i in range(len(held))
        ]


@pytest.mark.parametrize(("name", "quiesced"), [("db", True), ("web", False), ("bare", False)])
def test_quiescing_is_ignored_without_running_tools(name: str, quiesced: bool) -> None:
    with Vsim(varied()) as vsim, Client(vsim) as client:
        vm = client.vm(name)
        client.create(vm, "s", quiesce=True)
        assert client.snapshots(vm)[0].quiesced is quiesced


def test_deltas_left_behind_need_consolidation(vsim: Vsim, client: Client) -> None:
    vsim.rules([{"method": "RemoveSnapshot_Task", "leaveDeltas": True}])
    vm = client.vm("vm0001")
    client.finish(client.create(vm, "s").RemoveSnapshot_Task(False))
    assert client.names(vm) == []
    assert vm.runtime.consolidationNeeded
    assert len(disks(vm.config)[2000]) == 2
    client.finish(vm.ConsolidateVMDisks_Task())
    assert not vm.runtime.consolidationNeeded
    assert len(disks(vm.config)[2000]) == 1
