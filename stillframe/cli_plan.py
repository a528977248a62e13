"""``stillframe plan``: what a job would do, before anything is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .cli_common import console, count, listed, print_table, table
from .orchestrator.plan import Plan, plan_ties
from .quantity import format_bytes, format_seconds

if TYPE_CHECKING:
    from .orchestrator.result import JobResult
    from .orchestrator.spec import JobSpec
    from .topology.graph import Topology
    from .topology.queries import Component, Tie

_ROWS = 20
"""Rows of a table before the rest is counted instead of listed; --json has them all."""

_PREDICTED = ("quiesce", "stun at create", "stun at remove", "open", "merge")


class Asked(Protocol):
    """What a plan was made for: a scenario, or the job of a live configuration (no seed)."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def seed(self) -> int | None: ...

    @property
    def job(self) -> JobSpec: ...


def plan_json(
    scenario: Asked, topology: Topology, plan: Plan, predicted: JobResult | None
) -> dict[str, Any]:
    """The plan as plain data."""
    targeting = plan.targeting
    largest = plan.largest_component()
    return {
        "scenario": scenario.name,
        "strategy": plan.strategy,
        "selected": list(plan.selected),
        "groups": [
            {"group": group.group_id, "vms": list(group.vm_ids), "units": list(group.unit_ids)}
            for group in plan.groups
        ],
        "targeting": {
            "units": targeting.units,
            "units_in_estate": targeting.units_total,
            "bytes": targeting.bytes,
            "bytes_in_estate": targeting.bytes_total,
            "ratio": targeting.ratio,
        },
        "collateral": list(plan.collateral),
        "unprotectable": [
            {"vm": vm_id, "name": topology.vm(vm_id).name, "reason": reason}
            for vm_id, reason in _reasons(plan).items()
        ],
        "components": [
            {
                "vms": list(component.vm_ids),
                "units": list(component.unit_ids),
                "arrays": list(component.array_ids),
            }
            for component in plan.components
        ],
        "largest_component": None
        if largest is None
        else {
            "vms": len(largest.vm_ids),
            "units": len(largest.unit_ids),
            "ties": [_tie_json(tie) for tie in plan_ties(topology, plan, scenario.job)],
        },
        "predicted": None if predicted is None else _predicted_json(scenario, predicted),
    }


def _tie_json(tie: Tie) -> dict[str, Any]:
    return {
        "vm": tie.vm_id,
        "disks": list(tie.disk_keys),
        "home": tie.moves_home,
        "place": None if tie.place is None else str(tie.place),
        "units": list(tie.unit_ids),
        "parts": list(tie.parts),
        "sentence": tie.sentence,
    }


def _predicted_json(scenario: Asked, result: JobResult) -> dict[str, Any]:
    return {
        "from": "one modelled run",
        "seed": scenario.seed,
        "status": result.status.value,
        "makespan_s": result.makespan_s,
        "windows_s": {
            name.replace(" ", "_"): {"n": len(values), **_spread(values)}
            for name, values in _windows(result).items()
        },
    }


def print_plan(
    scenario: Asked, topology: Topology, plan: Plan, predicted: JobResult | None
) -> None:
    """The plan for people, on stdout."""
    out = console()
    out.print(scenario.title, style="bold")
    targeting = plan.targeting
    share = "–" if targeting.ratio is None else f"{100 * targeting.ratio:.0f} %"
    out.print(
        f"{count(len(plan.selected), 'VM')} selected, {count(len(plan.groups), 'group')} by "
        f"strategy {plan.strategy}; {targeting.units} of {targeting.units_total} units targeted "
        f"({format_bytes(targeting.bytes)} of {format_bytes(targeting.bytes_total)}, {share})."
    )
    _print_groups(topology, plan)
    _print_units(topology, plan)
    _print_unprotectable(topology, plan)
    _print_collateral(topology, plan)
    _print_ties(scenario, topology, plan)
    if predicted is not None:
        _print_predicted(scenario, predicted)
    out.print("Nothing was touched.")


def _print_groups(topology: Topology, plan: Plan) -> None:
    rows = table("Groups", ("group", "VMs", "units", "arrays", "which"), right=(1, 2, 3))
    for group in plan.groups[:_ROWS]:
        arrays = dict.fromkeys(topology.unit(unit).array_id for unit in group.unit_ids)
        names = [topology.vm(vm_id).name for vm_id in group.vm_ids]
        rows.add_row(
            group.group_id,
            str(len(group.vm_ids)),
            str(len(group.unit_ids)),
            str(len(arrays)),
            listed(names, 5),
        )
    print_table(rows, len(plan.groups), _ROWS)


def _print_units(topology: Topology, plan: Plan) -> None:
    targeted = dict.fromkeys(unit for group in plan.groups for unit in group.unit_ids)
    chosen = set(plan.selected)
    rows = table(
        "Targeted units",
        ("unit", "kind", "size", "selected VMs", "collateral VMs"),
        right=(2, 3, 4),
    )
    for unit_id in list(targeted)[:_ROWS]:
        unit = topology.unit(unit_id)
        vms = topology.vms_of_unit(unit_id)
        selected = sum(vm_id in chosen for vm_id in vms)
        rows.add_row(
            unit_id,
            unit.kind.value,
            format_bytes(unit.capacity_bytes),
            str(selected),
            str(len(vms) - selected),
        )
    print_table(rows, len(targeted), _ROWS)


def _print_unprotectable(topology: Topology, plan: Plan) -> None:
    reasons = _reasons(plan)
    if not reasons:
        return
    rows = table("Cannot be protected", ("VM", "why"))
    for vm_id, reason in list(reasons.items())[:_ROWS]:
        rows.add_row(topology.vm(vm_id).name, reason)
    print_table(rows, len(reasons), _ROWS)


def _print_collateral(topology: Topology, plan: Plan) -> None:
    if not plan.collateral:
        return
    names = [topology.vm(vm_id).name for vm_id in plan.collateral]
    console().print(
        f"{count(len(names), 'collateral VM')} (on a targeted unit, not selected): "
        f"{listed(names, 8)}."
    )


def _print_ties(scenario: Asked, topology: Topology, plan: Plan) -> None:
    largest = plan.largest_component()
    if largest is None or len(largest.unit_ids) < 2:
        return
    out = console()
    sizes = Counter(len(component.vm_ids) for component in plan.components)
    out.print(
        f"{count(len(plan.components), 'component')}; the largest has "
        f"{count(max(sizes), 'VM')} on {count(len(largest.unit_ids), 'unit')}."
    )
    found = worth_telling(plan_ties(topology, plan, scenario.job), largest)
    for tie in found[:3]:
        out.print(f"  {tie.sentence}", soft_wrap=True)
    if not found:
        out.print("  No single disk or VM holds it together: several moves would be needed.")


def worth_telling(found: Sequence[Tie], component: Component) -> list[Tie]:
    """The ties whose loss would free a twentieth of a component's VMs or more.

    Every VM with a raw device of its own is a tie that frees nobody but itself.
    """
    return [tie for tie in found if tie.freed >= len(component.vm_ids) / 20]


def _print_predicted(scenario: Asked, result: JobResult) -> None:
    out = console()
    rows = table(
        f"Windows predicted by one modelled run, seed {scenario.seed}",
        ("window", "VMs", "median", "p95", "longest"),
        right=(1, 2, 3, 4),
    )
    for name, values in _windows(result).items():
        spread = _spread(values)
        rows.add_row(
            name,
            str(len(values)),
            *(format_seconds(spread[key]) for key in ("p50", "p95", "max")),
        )
    print_table(rows)
    out.print(
        f"The modelled job took {format_seconds(result.makespan_s)} and ended "
        f"{result.status.value}: {result.protected} of {len(result.vms)} VMs."
    )


def _windows(result: JobResult) -> dict[str, list[float]]:
    """Every clock that at least one VM has, in seconds."""
    found: dict[str, list[float]] = {name: [] for name in _PREDICTED}
    for vm in result.vms:
        for name, window in (
            ("quiesce", vm.quiesce),
            ("stun at create", vm.stun_create),
            ("stun at remove", vm.stun_remove),
        ):
            if window is not None:
                found[name].append(window.duration_s)
        if vm.opened_s is not None and vm.removal_s is not None:
            found["open"].append(vm.removal_s - vm.opened_s)
        if vm.removal_s is not None and vm.merged_s is not None:
            found["merge"].append(vm.merged_s - vm.removal_s)
    return {name: sorted(values) for name, values in found.items() if values}


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Median, p95 (nearest rank) and maximum of sorted values."""
    last = len(values) - 1
    return {"p50": values[last // 2], "p95": values[-(-last * 95 // 100)], "max": values[-1]}


def _reasons(plan: Plan) -> dict[str, str]:
    reasons: Mapping[str, Any] = plan.unprotectable
    return {vm_id: str(reason) for vm_id, reason in reasons.items()}
