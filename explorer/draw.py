"""Options for a run, drawn from scenario and seed.

Swarm testing (Groce and others, ISSTA 2012): a run that has a little of everything rarely has much
of anything. So whole families of options are left out of most runs, and what remains is drawn
strongly.
"""

from __future__ import annotations

from typing import Any, Literal

from ..drivers.records import VmId
from ..orchestrator.spec import OnVmFailure, QuiescePolicy, StrategyName
from ..scenarios.schema import Scenario
from .dice import Dice
from .draw_world import array_numbers, drawn_faults, hypervisor_numbers, planned_events
from .ground import Ground, ground_of
from .options import JournalKind, Keep, PlantedSnapshot, Rival, RunOptions

Fidelity = Literal["flow", "block", "both"]

MOST_VMS = 12
"""VMs in one run: more make it slower and find little that fewer do not."""
_STEPS = (60, 55)
"""About how many steps a job takes: so many, and so many more for each VM."""
_BARRIERS = (
    "vm.snapshot.requested",
    "world.vm.frozen",
    "world.vm.snapshot",
    "vm.snapshot.created",
    "vm.located",
    "array.snapshot.requested",
    "world.array.fenced",
    "world.array.cut",
    "world.array.completed",
    "array.snapshot.completed",
    "vm.release.requested",
    "world.vm.merged",
    "vm.release.completed",
    "group.finished",
    "catalogue.added",
    "array.snapshot.discarded",
    "job.finished",
)


def draw_options(scenario: Scenario, seed: int, *, fidelity: Fidelity = "both") -> RunOptions:
    """The options of a run.

    Parameters
    ----------
    fidelity:
        ``both`` draws block fidelity for one run in four.

    Raises
    ------
    InputError
        The scenario's estate cannot be used.
    """
    ground = ground_of(scenario)
    dice = Dice(scenario.name, seed)
    vms = _vms(ground, dice)
    drawn: dict[str, Any] = {"vms": vms}
    _who(drawn, ground, dice, vms)
    _job(drawn, dice, vms)
    drawn["fidelity"] = fidelity
    if fidelity == "both":
        drawn["fidelity"] = "block" if dice.chance(0.25, "block") else "flow"
    _timing(drawn, dice)
    drawn["faults"] = drawn_faults(dice, dict(drawn["timeouts"]))
    if dice.chance(0.5, "events"):
        drawn["events"] = planned_events(ground, dice, vms, drawn["plan_age_s"] or 0.0)
    if dice.chance(0.3, "hypervisor"):
        drawn["hypervisor"] = hypervisor_numbers(dice)
    if dice.chance(0.35, "array"):
        drawn["array"] = array_numbers(dice)
    _schedule(drawn, dice, len(vms))
    return RunOptions.model_construct(**drawn)


def _vms(ground: Ground, dice: Dice) -> tuple[VmId, ...]:
    """A neighbourhood: VMs that share units with one another, remarkable ones preferred."""
    every = list(ground.vms)
    wanted = min(len(every), dice.count(1, MOST_VMS, "how many VMs"))
    if len(every) <= MOST_VMS and dice.chance(0.3, "every VM"):
        return tuple(every)
    found: dict[VmId, None] = {dice.pick(ground.chosen or every, "first VM"): None}
    for n in range(4 * wanted):
        if len(found) >= wanted:
            break
        kind, _, _ = dice.three("kind of VM", n)
        near = ground.neighbours(dice.pick(list(found), "beside", n)) if kind < 0.55 else []
        if kind >= 0.8 and ground.remarkable:
            near = list(ground.remarkable)
        found[dice.pick(near or every, "VM", n)] = None
    return tuple(found)


def _who(drawn: dict[str, Any], ground: Ground, dice: Dice, vms: tuple[VmId, ...]) -> None:
    selected = [vm_id for vm_id in vms if vm_id in ground.chosen_set]
    if dice.chance(0.4, "exclude"):
        left_out = [vm_id for vm_id in selected if dice.chance(0.25, "excluded", vm_id)]
        if len(left_out) < len(selected):
            drawn["excluded"] = tuple(left_out)
    if dice.chance(0.35, "foreign"):
        drawn["foreign"] = tuple(
            (vm_id, dice.count(1, 3, "foreign", vm_id))
            for vm_id in vms
            if dice.chance(0.4, "has foreign", vm_id)
        )
        drawn["loose"] = tuple(
            vm_id for vm_id, _ in drawn["foreign"] if dice.chance(0.25, "loose", vm_id)
        )
    if dice.chance(0.25, "planted"):
        units = dict.fromkeys(unit for vm_id in vms for unit in ground.units_of[vm_id])
        drawn["planted"] = tuple(
            PlantedSnapshot.model_construct(
                array_id=ground.array_of[unit], unit_ids=(unit,), tag=_planted_tag(dice, unit)
            )
            for unit in units
            if dice.chance(0.5, "planted on", unit)
        )


def _planted_tag(dice: Dice, unit: str) -> str:
    """A tag that begins as the job's own tags do, as far as that is possible for another job."""
    form = dice.pick(
        ("stillframe-{job}-2-{n}", "stillframe-{job}x-{n}", "nightly-{n}"), "tag", unit
    )
    return form.replace("{n}", unit.rpartition("/")[2])


def _job(drawn: dict[str, Any], dice: Dice, vms: tuple[VmId, ...]) -> None:
    if dice.chance(0.7, "strategy"):
        drawn["strategy"] = dice.pick(list(StrategyName), "which strategy")
        if drawn["strategy"] is StrategyName.CHUNKS:
            drawn["chunk_vms"] = dice.count(1, 4, "chunk")
    if dice.chance(0.5, "policy"):
        drawn["policy"] = dice.pick(list(QuiescePolicy), "which policy")
    if dice.chance(0.2, "overrides"):
        drawn["overrides"] = tuple(
            (vm_id, dice.pick(list(QuiescePolicy), "override", vm_id))
            for vm_id in vms
            if dice.chance(0.4, "overridden", vm_id)
        )
    if dice.chance(0.2, "fail group"):
        drawn["on_vm_failure"] = OnVmFailure.FAIL_GROUP
    if dice.chance(0.3, "recuts"):
        drawn["recuts"] = dice.count(0, 3, "how many recuts")
    if dice.chance(0.2, "physical"):
        drawn["physical_raw_disks"] = False
    if dice.chance(0.4, "independent"):
        drawn["independent_disks"] = dice.chance(0.6, "independent disks")
    if dice.chance(0.6, "limits"):
        drawn["limits"] = tuple(
            (name, dice.count(1, most, "limit", name))
            for name, most in _LIMITS
            if dice.chance(0.4, "limited", name)
        )
    if dice.chance(0.3, "cancel"):
        drawn["cancel_s"] = dice.size(0.2, 120.0, "cancel at")
        if dice.chance(0.4, "cancel twice"):
            drawn["cancel_again_s"] = dice.size(0.05, 30.0, "cancel again")


_LIMITS = (
    ("create_per_vcenter", 6),
    ("create_per_host", 3),
    ("create_per_datastore", 3),
    ("remove_per_vcenter", 6),
    ("remove_per_host", 3),
    ("remove_per_datastore", 3),
    ("groups", 3),
    ("calls_per_array", 2),
)


def _timing(drawn: dict[str, Any], dice: Dice) -> None:
    drawn["plan_age_s"] = dice.size(1.0, 300.0, "plan age") if dice.chance(0.3, "aged") else None
    drawn["timeouts"] = ()
    if dice.chance(0.75, "timeouts"):
        drawn["timeouts"] = (
            ("create", dice.size(4.0, 120.0, "create timeout")),
            ("remove", dice.size(20.0, 1200.0, "remove timeout")),
            ("array", dice.size(2.0, 120.0, "array timeout")),
            ("fence", dice.size(0.5, 7.0, "fence timeout")),
            ("query", dice.size(2.0, 60.0, "query timeout")),
            ("settle", dice.size(30.0, 900.0, "settle timeout")),
        )
        drawn["quiesce_timeout_s"] = dice.size(2.0, 120.0, "quiesce timeout")
    if dice.chance(0.6, "retry"):
        drawn["attempts"] = dice.count(1, 5, "attempts")
        drawn["first_pause_s"] = dice.size(0.2, 5.0, "first pause")


def _schedule(drawn: dict[str, Any], dice: Dice, vms: int) -> None:
    """Order of callbacks, deaths, rivals, journals, and what comes after the job."""
    drawn["ready_order"] = dice.chance(0.3, "ready order")
    drawn["ties"] = dice.chance(0.2, "ties")
    drawn["lease_s"] = dice.size(5.0, 120.0, "lease")
    likely = _STEPS[0] + _STEPS[1] * vms
    way = dice.share("way to die")
    if way < 0.45:
        drawn["crash_steps"] = _crash_steps(dice, likely)
    elif way < 0.65:
        drawn["barriers"] = _barriers(dice)
    elif way < 0.85:
        drawn["rival"] = _rival(dice, likely)
    if way < 0.65:
        drawn["downtime_s"] = dice.size(0.1, 2000.0, "downtime")
        drawn["lose_tail"] = dice.chance(0.4, "lose tail")
    kind = dice.share("journal")
    if kind < 0.06:
        drawn["journal"] = JournalKind.SQLITE_MEMORY
    elif kind < 0.08:
        drawn["journal"] = JournalKind.SQLITE_FILE
    prunes = dice.chance(0.25, "prune")
    drawn["second_job"] = dice.chance(0.75 if prunes else 0.15, "second job")
    if drawn["second_job"] and dice.chance(0.4, "second is another"):
        drawn["second_excluded"] = tuple(
            vm_id for vm_id in drawn["vms"] if dice.chance(0.3, "second excluded", vm_id)
        )
    if prunes:
        drawn["prune"] = Keep.model_construct(
            keep_last=dice.count(1, 2, "keep last") if dice.chance(0.7, "by count") else None,
            keep_within_s=dice.size(0.1, 4000.0, "keep within")
            if dice.chance(0.4, "by age")
            else None,
            snapshots_per_unit=dice.count(1, 2, "most") if dice.chance(0.3, "by unit") else None,
        )


def _rival(dice: Dice, likely: int) -> Rival:
    at_event = ""
    if dice.chance(0.5, "stalls at event"):
        at_event = f"{dice.pick(_BARRIERS, 'stall', 0)}#{dice.count(1, 3, 'stall nth')}"
    return Rival.model_construct(
        at_step=0 if at_event else dice.count(1, likely, "stalls at"),
        at_event=at_event,
        after_s=dice.size(0.1, 600.0, "rival after"),
        its_steps=dice.count(1, likely // 3, "rival steps") if dice.chance(0.6, "both") else 0,
    )


def _crash_steps(dice: Dice, likely: int) -> tuple[int, ...]:
    steps = [dice.count(1, likely, "dies at")]
    for n in range(3):
        if not dice.chance(0.35, "dies again", n):
            break
        steps.append(dice.count(1, likely // 2, "dies again at", n))
    return tuple(steps)


def _barriers(dice: Dice) -> tuple[str, ...]:
    reached = [f"{dice.pick(_BARRIERS, 'barrier', 0)}#{dice.count(1, 4, 'nth', 0)}"]
    if dice.chance(0.3, "second barrier"):
        reached.append(f"{dice.pick(_BARRIERS, 'barrier', 1)}#{dice.count(1, 3, 'nth', 1)}")
    return tuple(reached)
