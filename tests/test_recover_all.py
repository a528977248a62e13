"""Recovering whatever is unfinished: several jobs, live ones, a recovery that is taken over."""

from __future__ import annotations

import asyncio
import random

import pytest
from support_deadjob import JOB, OURS, Scene
from support_memory import Fault

from stillframe.drivers.records import Array, Inventory
from stillframe.orchestrator.journal import Intent, IntentKind, LeaseLostError
from stillframe.orchestrator.recover import recover_job
from stillframe.sim.loop import SimLoop


class TestSeveralJobs:
    def test_each_is_recovered_by_its_own_tags_oldest_first(self) -> None:
        scene = Scene()
        other = scene.begin("second", "day")
        other.intend(Intent("stillframe-second-1", IntentKind.VM_SNAPSHOT, "vc", "vc/vm2", 0.0))
        scene.hypervisor.add_foreign("vc/vm2", "stillframe-second-1")
        scene.hypervisor.add_foreign("vc/vm2", scene.vm_intent(1, "vc/vm2"))
        recoveries = scene.recover()
        assert [(one.job_id, one.removed) for one in recoveries] == [
            (JOB, [f"removed VM snapshot {OURS}1 of vm2 (vc/vm2)"]),
            ("second", ["removed VM snapshot stillframe-second-1 of vm2 (vc/vm2)"]),
        ]

    def test_only_those_of_the_given_names(self) -> None:
        scene = Scene()
        scene.begin("second", "day")
        assert [one.job_id for one in scene.recover(names=["day"])] == ["second"]
        assert [one.job_id for one in scene.recover()] == [JOB]

    def test_one_that_is_held_does_not_stop_the_others(self) -> None:
        scene = Scene()
        scene.now_s = 60.0
        scene.begin("second")
        scene.now_s = 0.0
        held, done = scene.recover()[::-1]
        assert held.held
        assert not held.complete
        assert done.complete
        assert "second is in the hands of dead" in scene.told[0]


def test_a_recovery_that_is_taken_over_itself_touches_nothing_more() -> None:
    """A third process finds the lease of the second run out, and takes the job."""
    scene = Scene()
    for number in range(6):
        vm_id = f"vc/vm{number}"
        scene.hypervisor.add_foreign(vm_id, scene.vm_intent(number, vm_id))
        scene.faults.add("remove", vm_id, Fault(delay_s=20.0 * (number + 1)))

    def lose() -> None:
        scene.now_s += 1e6
        scene.store.take_over(JOB, holder="third", lease_s=30.0)

    scene.before = lambda: asyncio.get_running_loop().call_later(25.0, lose)
    (recovery,) = scene.recover()
    assert "taken over by third" in recovery.held
    assert scene.open() == 6
    assert scene.store.jobs()[0].holder == "third"
    assert scene.log.rows[-1][0] <= 40.0


def test_a_lost_lease_is_raised_by_the_recovery_of_one_job() -> None:
    scene = Scene()

    async def main() -> None:
        scene.store.take_over(JOB, holder="third", lease_s=30.0)
        await recover_job(
            scene.journal,
            JOB,
            scene.spec,
            scene.hypervisors,
            scene.arrays,
            random=random.Random(1),
            array_descriptions=[Array("a1", "one")],
        )

    scene.now_s = 60.0
    with asyncio.Runner(loop_factory=SimLoop) as runner, pytest.raises(LeaseLostError):
        runner.run(main())


def test_an_inventory_is_read_once_and_only_where_vms_are_to_be_worked_on() -> None:
    for kind, wanted in (("array", []), ("vm", ["vc"])):
        scene = Scene()
        scene.hypervisor.reports_running = False  # so that it takes many rounds
        read = inventories_read(scene)
        if kind == "array":
            scene.array_intent(1)
        else:
            scene.vm_intent(1, "vc/vm2")
        assert scene.one().complete
        assert read == wanted
        assert scene.ended_s >= 900.0


def inventories_read(scene: Scene) -> list[str]:
    """Grows with each inventory that is read."""
    read: list[str] = []
    original = scene.hypervisor.inventory

    async def inventory() -> Inventory:
        read.append("vc")
        return await original()

    scene.hypervisor.inventory = inventory  # type: ignore[method-assign]
    return read


def test_an_array_is_called_by_its_name_where_that_is_known() -> None:
    scene = Scene()
    scene.hold(scene.array_intent(1))
    recovery = scene.one(array_descriptions=[Array("a1", "fast")])
    assert recovery.removed == [f"deleted array snapshot {OURS}1 on fast (a1)"]
