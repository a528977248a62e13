"""What every hypervisor driver owes the orchestrator: one body, run against each that ships.

The arms, and the VMs that all of them hold, are in support_contract.
"""

from __future__ import annotations

import asyncio

import pytest
from support_contract import (
    LEVELS,
    Arm,
    Bend,
    arm,
    asked,
    bend,
    named,
    state_of,
    stores,
    tags,
)

from stillframe.drivers.contracts import (
    ConsistencyLevel,
    FileRole,
    HypervisorDriver,
    VmSnapshotRequest,
)
from stillframe.drivers.errors import (
    DidNotHappenError,
    HappenedError,
    NotFoundError,
    QuiesceFailedError,
)
from stillframe.drivers.records import DeviceKind, PowerState

__all__ = ["arm", "bend"]  # fixtures


def test_the_inventory_says_what_there_is(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        inventory = await driver.inventory()
        (vcenter,) = inventory.vcenters
        by_name = {one.name: one for one in inventory.vms}
        assert sorted(by_name) == arm.guests
        assert {one.vcenter_id for one in inventory.vms} == {vcenter.id}
        hosts = {host.id for host in inventory.hosts}
        assert all(one.host_id in hosts for one in inventory.vms)
        known = {store.id: store for store in inventory.datastores}
        wide = by_name["wide"]
        lies_on = [known[one.datastore_id].name for one in wide.disks if one.datastore_id]
        assert lies_on == ["ds1", "ds2"]
        assert wide.home_datastore_id == wide.disks[0].datastore_id
        under = {one.name: one.extents for one in inventory.datastores}
        assert [one.kind for one in under["ds1"] + under["ds2"]] == [DeviceKind.NAA] * 2
        assert by_name["toolless"].can_quiesce is False
        assert by_name["plain"].can_quiesce is True
        assert by_name["off"].power_state is PowerState.OFF
        assert by_name["kept"].snapshot_count == 1
        assert [one.in_vm_snapshot for one in by_name["independent"].disks] == [True, False]

    arm(check)


def test_a_snapshot_is_made_listed_and_removed(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "plain")
        before = await state_of(driver, one)
        assert tags(before) == []
        made = await driver.create_snapshot(asked(one))
        assert made.ref.vm_id == one.id
        assert made.ref.tag == "tag-1"
        assert made.level in LEVELS
        state = await state_of(driver, one)
        assert state.snapshots == (made.ref,)
        assert state.operation_running is False
        assert not state.needs_consolidation
        await driver.remove_snapshot(made.ref)
        after = await state_of(driver, one)
        assert tags(after) == []
        assert after.location == before.location

    arm(check)


def test_times_are_on_the_loops_clock_and_in_order(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        clock = asyncio.get_running_loop().time
        one, _ = await named(driver, "plain")
        start_s = clock()
        made = await driver.create_snapshot(asked(one))
        assert start_s <= made.created_s <= clock()
        assert made.quiesce is not None
        assert start_s <= made.quiesce.start_s <= made.quiesce.end_s <= clock()
        assert made.quiesce.exact is driver.capabilities.reports_quiesce
        assert (made.stun is not None) is driver.capabilities.reports_stun
        merged = await driver.remove_snapshot(made.ref)
        assert (merged.delta_bytes is not None) is driver.capabilities.reports_delta

    arm(check)


def test_without_quiescing_the_image_is_crash_consistent(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "plain")
        made = await driver.create_snapshot(asked(one, quiesce=False))
        assert made.level is ConsistencyLevel.CRASH
        assert made.quiesce is None

    arm(check)


def test_a_vm_that_is_off_has_no_guest_to_quiesce(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "off")
        made = await driver.create_snapshot(asked(one))
        assert made.quiesce is None

    arm(check)


def test_a_guest_without_tools_is_refused_and_nothing_is_left(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "toolless")
        with pytest.raises(QuiesceFailedError):
            await driver.create_snapshot(asked(one))
        assert tags(await state_of(driver, one)) == []
        made = await driver.create_snapshot(asked(one, "tag-2", quiesce=False))
        assert made.level is ConsistencyLevel.CRASH

    arm(check)


def test_a_guest_that_does_not_freeze_is_refused_and_nothing_is_left(bend: Bend) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "plain")
        with pytest.raises(QuiesceFailedError):
            await driver.create_snapshot(asked(one))
        assert tags(await state_of(driver, one)) == []
        assert (await driver.create_snapshot(asked(one, quiesce=False))).ref.tag == "tag-1"

    bend("freeze")(check)


def test_disks_on_two_datastores_are_found_on_both(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, inventory = await named(driver, "wide")
        made = await driver.create_snapshot(asked(one))
        names = stores(inventory)
        found = {
            (file.disk_key, file.role, names[file.datastore_id])
            for file in made.location.files
            if file.disk_key is not None
        }
        keys = [d.key for d in one.disks]
        assert found == {
            (keys[0], FileRole.BASE, "ds1"),
            (keys[0], FileRole.DELTA, "ds1"),
            (keys[1], FileRole.BASE, "ds2"),
            (keys[1], FileRole.DELTA, "ds2"),
        }
        home = {
            names[file.datastore_id] for file in made.location.files if file.role is FileRole.CONFIG
        }
        assert home == {"ds1"}

    arm(check)


def test_an_independent_disk_goes_on_living(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, inventory = await named(driver, "independent")
        made = await driver.create_snapshot(asked(one))
        names = stores(inventory)
        live = [file for file in made.location.files if file.role is FileRole.LIVE]
        assert [(file.disk_key, names[file.datastore_id]) for file in live] == [
            (one.disks[1].key, "ds2")
        ]

    arm(check)


def test_a_physical_raw_device_is_named_and_not_held(arm: Arm) -> None:
    arm.needs("raw")

    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "raw")
        assert one.disks[1].raw_is_physical
        assert one.disks[1].raw_device is not None
        assert one.disks[1].raw_device.kind is DeviceKind.NAA
        made = await driver.create_snapshot(asked(one))
        (device,) = made.location.raw_devices
        assert device.disk_key == one.disks[1].key
        assert device.device == one.disks[1].raw_device
        assert not device.held
        assert device.disk_key not in {file.disk_key for file in made.location.files}

    arm(check)


def test_somebody_elses_snapshot_is_listed_and_stays(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "kept")
        (foreign,) = (await state_of(driver, one)).snapshots
        made = await driver.create_snapshot(asked(one))
        assert tags(await state_of(driver, one)) == [foreign.tag, "tag-1"]
        deltas = [file for file in made.location.files if file.role is FileRole.DELTA]
        bases = [file for file in made.location.files if file.role is FileRole.BASE]
        assert len(deltas) == 1
        assert len(bases) == 2  # the disk, and the delta that stands still under ours
        await driver.remove_snapshot(made.ref)
        assert (await state_of(driver, one)).snapshots == (foreign,)

    arm(check)


def test_only_the_snapshot_itself_is_removed_not_what_came_after_it(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "plain")
        first = await driver.create_snapshot(asked(one, "tag-1"))
        await driver.create_snapshot(asked(one, "tag-2"))
        await driver.remove_snapshot(first.ref)
        assert tags(await state_of(driver, one)) == ["tag-2"]

    arm(check)


def test_what_does_not_exist_is_not_found(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "plain")
        prefix = one.id.partition("/")[0]
        nobody = VmSnapshotRequest(f"{prefix}/vm-none", "tag", True, 300.0)
        with pytest.raises(NotFoundError):
            await driver.create_snapshot(nobody)
        with pytest.raises(NotFoundError):
            await driver.create_snapshot(nobody._replace(quiesce=False))
        with pytest.raises(NotFoundError):
            await driver.create_snapshot(nobody._replace(vm_id="elsewhere/vm-1"))
        with pytest.raises(NotFoundError):
            await driver.consolidate(nobody.vm_id)
        states = await driver.list_snapshots([nobody.vm_id, one.id, "elsewhere/vm-1"])
        assert [state.vm_id for state in states] == [one.id]

    arm(check)


def test_removing_twice_is_not_found(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "plain")
        made = await driver.create_snapshot(asked(one))
        await driver.remove_snapshot(made.ref)
        with pytest.raises(NotFoundError):
            await driver.remove_snapshot(made.ref)

    arm(check)


def test_a_delta_that_is_left_is_said_and_can_be_merged(bend: Bend) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "plain")
        before = await state_of(driver, one)
        made = await driver.create_snapshot(asked(one))
        with pytest.raises(HappenedError):
            await driver.remove_snapshot(made.ref)
        state = await state_of(driver, one)
        assert tags(state) == []
        assert state.needs_consolidation
        await driver.consolidate(one.id)
        after = await state_of(driver, one)
        assert not after.needs_consolidation
        assert after.location == before.location
        await driver.consolidate(one.id)  # nothing to do is success

    bend("merge")(check)


def test_many_vms_at_once_keep_their_answers_apart(arm: Arm) -> None:
    async def check(driver: HypervisorDriver) -> None:
        vms = [
            one for one in (await driver.inventory()).vms if one.name in ("plain", "other", "wide")
        ]
        made = await asyncio.gather(
            *(driver.create_snapshot(asked(one, f"tag-{one.name}")) for one in vms)
        )
        assert [one.ref.vm_id for one in made] == [one.id for one in vms]
        assert [one.ref.tag for one in made] == [f"tag-{one.name}" for one in vms]
        states = await driver.list_snapshots()
        listed = {state.vm_id: tags(state) for state in states}
        assert len(listed) == len(arm.guests)
        assert all(listed[one.id] == [f"tag-{one.name}"] for one in vms)
        for snapshot in made:
            await driver.remove_snapshot(snapshot.ref)

    arm(check)


def test_a_refused_create_may_be_repeated(bend: Bend) -> None:
    async def check(driver: HypervisorDriver) -> None:
        one, _ = await named(driver, "other")
        for _ in range(2):
            with pytest.raises(DidNotHappenError):
                await driver.create_snapshot(asked(one))
        assert tags(await state_of(driver, one)) == []

    bend("freeze")(check)
