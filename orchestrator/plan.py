"""The plan: what a job would do, worked out from the inventory, touching nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..drivers.records import Vm, VmId
from ..errors import StillframeError
from ..topology.graph import Topology
from ..topology.queries import (
    Component,
    Targeting,
    Tie,
    collateral,
    components,
    protectability,
    targeting_ratio,
    ties,
)
from .select import select
from .spec import JobSpec
from .strategies import STRATEGIES, PlannedGroup, Strategy


class NothingSelectedError(StillframeError):
    """The selection matches no VM: an outcome of its own, never a success."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would do.

    Attributes
    ----------
    selected:
        Every VM the rules select.
    groups:
        What is cut together, and which units the inventory says that takes.
    components:
        Connected components of the VM–unit graph over the selection.
    unprotectable:
        Selected VMs that no array snapshot can protect, with the reasons; in no group.
    partial:
        Grouped VMs of which something is left out, with what and why.
    collateral:
        VMs on a targeted unit that nobody selected.
    targeting:
        Units and bytes targeted, and in the estate.
    """

    strategy: str
    selected: tuple[VmId, ...]
    groups: tuple[PlannedGroup, ...]
    components: tuple[Component, ...]
    unprotectable: dict[VmId, str]
    partial: dict[VmId, str]
    collateral: tuple[VmId, ...]
    targeting: Targeting

    def largest_component(self) -> Component | None:
        """The component with the most VMs."""
        return max(self.components, key=lambda found: len(found.vm_ids), default=None)


def make_plan(topology: Topology, spec: JobSpec, strategy: Strategy | None = None) -> Plan:
    """Select, check, group.

    Parameters
    ----------
    strategy:
        A grouping function to use instead of the one that ``spec`` names.

    Raises
    ------
    NothingSelectedError
        No VM matches the selection.
    """
    selected = select(topology, spec.select)
    if not selected:
        raise NothingSelectedError(
            "the selection matches no VM",
            "check the include and exclude rules against `stillframe estate show`",
        )
    chosen = [vm.id for vm in selected]
    reasons, partial = _obstacles(topology, chosen, spec)
    able = [vm for vm in selected if vm.id not in reasons]
    grouping = strategy if strategy is not None else STRATEGIES[spec.strategy]
    groups = tuple(grouping(topology, able, spec))
    _check_grouping(groups, able)
    _check_units(groups, topology, spec)
    units = tuple(dict.fromkeys(unit for group in groups for unit in group.unit_ids))
    return Plan(
        strategy=_strategy_name(spec, strategy),
        selected=tuple(chosen),
        groups=groups,
        components=tuple(
            components(
                topology,
                [vm.id for vm in able],
                physical_raw=spec.physical_raw_disks,
                independent=spec.independent_disks,
            )
        ),
        unprotectable=reasons,
        partial=partial,
        collateral=tuple(collateral(topology, chosen, units)),
        targeting=targeting_ratio(topology, units),
    )


def plan_ties(topology: Topology, plan: Plan, spec: JobSpec) -> list[Tie]:
    """What holds the plan's largest component together: moves that would split it."""
    largest = plan.largest_component()
    if largest is None:
        return []
    return ties(
        topology,
        largest,
        physical_raw=spec.physical_raw_disks,
        independent=spec.independent_disks,
    )


def _obstacles(
    topology: Topology, vm_ids: Sequence[VmId], spec: JobSpec
) -> tuple[dict[VmId, str], dict[VmId, str]]:
    """Why VMs cannot be protected, and why others are not protected whole."""
    blocked: dict[VmId, str] = {}
    partial: dict[VmId, str] = {}
    found = protectability(
        topology,
        vm_ids,
        physical_raw=spec.physical_raw_disks,
        independent=spec.independent_disks,
    )
    for vm_id, obstacles in found.items():
        hard = [one.sentence for one in obstacles if one.blocks]
        if hard:
            blocked[vm_id] = "; ".join(hard)
        elif obstacles:
            partial[vm_id] = "; ".join(one.sentence for one in obstacles)
    return blocked, partial


def _strategy_name(spec: JobSpec, strategy: Strategy | None) -> str:
    if strategy is None:
        return spec.strategy.value
    return str(getattr(strategy, "__name__", type(strategy).__name__))


def _check_grouping(groups: Sequence[PlannedGroup], vms: Sequence[Vm]) -> None:
    """A strategy that loses or doubles a VM is refused before it can do harm."""
    grouped = [vm_id for group in groups for vm_id in group.vm_ids]
    wanted = {vm.id for vm in vms}
    if len(grouped) != len(wanted) or set(grouped) != wanted:
        lost = next((vm.id for vm in vms if vm.id not in set(grouped)), None)
        problem = (
            f"VM {lost} is in no group" if lost else "a VM is in two groups or was not asked for"
        )
        raise StillframeError(
            f"the grouping strategy returned groups that do not fit the selection: {problem}",
            "a strategy must put each VM it is given into exactly one group",
        )


def _check_units(groups: Sequence[PlannedGroup], topology: Topology, spec: JobSpec) -> None:
    """A group that does not name every unit of its VMs would show a VM torn apart, or a dry run
    that snapshots less than the job then does."""
    for group in groups:
        named = set(group.unit_ids)
        for vm_id in group.vm_ids:
            units = topology.units_of_vm(
                vm_id,
                physical_raw=spec.physical_raw_disks,
                independent=spec.independent_disks,
            )
            missing = next((unit for unit in units if unit not in named), None)
            if missing is not None:
                raise StillframeError(
                    f"the grouping strategy tears VM {vm_id} apart: it lies on unit {missing}, "
                    f"which its group {group.group_id} does not name",
                    "a group names every unit of each of its VMs, as topology.units_of_vm has them",
                )
