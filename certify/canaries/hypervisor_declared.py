"""Drivers that declare of themselves what is not so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...drivers.contracts import HypervisorCapabilities, MergeResult, VmSnapshot
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import HypervisorTarget
from .hypervisor_answers import Make, told


def _declares(**changes: bool) -> Make:
    """The driver as it is, with another declaration."""

    class Declares(BrokenDriver):
        @property
        def capabilities(self) -> HypervisorCapabilities:
            declared: HypervisorCapabilities = self.inner.capabilities
            return replace(declared, **changes)

    return with_driver(Declares)


def _second_thoughts(driver: Any, target: Any) -> Any:
    """A later connection declares less."""
    target.opened = number = getattr(target, "opened", 0) + 1

    class Declares(BrokenDriver):
        @property
        def capabilities(self) -> HypervisorCapabilities:
            declared: HypervisorCapabilities = self.inner.capabilities
            return declared if number == 1 else replace(declared, reports_delta=False)

    return Declares(driver)


def _inexact(made: VmSnapshot) -> VmSnapshot:
    window = made.quiesce
    return made._replace(quiesce=None if window is None else window._replace(exact=False))


def _in_kib(merged: MergeResult) -> MergeResult:
    size = merged.delta_bytes
    return merged._replace(delta_bytes=None if size is None else size // 1024)


class _PutsOff(BrokenDriver):
    """Says at once that it has consolidated a VM, and does it when it is asked again."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._asked: set[str] = set()

    async def consolidate(self, vm_id: str) -> None:
        states = await self.inner.list_snapshots([vm_id])
        needed = any(state.needs_consolidation for state in states)
        if needed and vm_id not in self._asked:
            self._asked.add(vm_id)
            return
        self._asked.discard(vm_id)
        await self.inner.consolidate(vm_id)


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "sees-no-freeze",
        "HYP-DCL-01",
        "It declares that it sees freezes, and its windows are only bounds.",
        told("create_snapshot", _inexact),
    ),
    Canary(
        "freezes-undeclared",
        "HYP-DCL-01",
        "It declares that it does not see freezes, and gives exact windows.",
        _declares(reports_quiesce=False),
    ),
    Canary(
        "sees-no-stun",
        "HYP-DCL-02",
        "It declares that it sees stuns, and tells none.",
        told("create_snapshot", lambda made: made._replace(stun=None)),
    ),
    Canary(
        "stuns-undeclared",
        "HYP-DCL-02",
        "It declares that it does not see stuns, and tells them.",
        _declares(reports_stun=False),
    ),
    Canary(
        "sees-no-delta",
        "HYP-DCL-03",
        "It declares that it sees the size of deltas, and tells none.",
        told("remove_snapshot", lambda merged: merged._replace(delta_bytes=None)),
    ),
    Canary(
        "deltas-undeclared",
        "HYP-DCL-03",
        "It declares that it does not see the size of deltas, and tells them.",
        _declares(reports_delta=False),
    ),
    Canary(
        "delta-in-kib",
        "HYP-DCL-04",
        "The size of a delta is told in KiB.",
        told("remove_snapshot", _in_kib),
    ),
    Canary(
        "capabilities-by-connection",
        "HYP-DCL-05",
        "A second connection declares less than the first.",
        with_driver(_second_thoughts),
    ),
    Canary(
        "consolidates-nothing",
        "HYP-DCL-06",
        "It declares that it consolidates, and does nothing the first time.",
        with_driver(_PutsOff),
        also=("HYP-CNS-04", "HYP-MOV-09"),
        because="there, too, the delta of a failed merge is left",
    ),
    Canary(
        "consolidates-undeclared",
        "HYP-DCL-06",
        "It declares that it does not consolidate, and does.",
        _declares(consolidates=False),
    ),
)
