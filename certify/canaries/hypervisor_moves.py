"""Drivers that do not follow a VM that is moved or loses its power."""

from __future__ import annotations

from typing import Any

from ...drivers.contracts import MergeResult
from ...drivers.errors import BusyError, DriverError, NotFoundError, UnknownOutcomeError
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import PLAIN, HypervisorTarget, ScratchVm
from .hypervisor_answers import Make, of_role
from .hypervisor_defects import (
    HOST_LOST,
    depth,
    id_of,
    merging,
    of_plain,
    pretended,
    saying,
)

_MOVE = "storage-vmotion"


class _SeesNoMove(BrokenDriver):
    """Knows of its own operations only."""

    async def list_snapshots(self, vm_ids: Any = None) -> Any:
        states = await self.inner.list_snapshots(vm_ids)
        return [
            state._replace(operation_running=False)
            if self.target.model.busy_with(state.vm_id) == _MOVE
            else state
            for state in states
        ]


async def _made(driver: Any, target: Any, error: DriverError, request: Any) -> Any:
    del target, error
    return await pretended(driver, request)


async def _merged(driver: Any, target: Any, error: DriverError, ref: Any) -> MergeResult:
    del driver, target, error, ref
    return MergeResult()


def _moving(error: DriverError) -> bool:
    return of_plain(BusyError, _MOVE)(error)


class _Stale(BrokenDriver):
    """Looks for a VM's files where the last inventory had them."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._known: dict[str, list[str]] = {}

    def _lies_on(self, vm_id: str) -> list[str]:
        return sorted({file.datastore_id for file in self.target.model.files(vm_id)})

    async def inventory(self) -> Any:
        found = await self.inner.inventory()
        self._known = {vm.id: self._lies_on(vm.id) for vm in found.vms}
        return found

    async def create_snapshot(self, request: Any) -> Any:
        known, self._known = self._known, {}
        if request.vm_id in known and known[request.vm_id] != self._lies_on(request.vm_id):
            reason = "a file of it does not exist"
            raise NotFoundError("create_snapshot", request.vm_id, reason)
        return await self.inner.create_snapshot(request)


def _after_a_move() -> Make:
    """The delta of a VM that was moved with a snapshot is dropped."""

    def make(reference: type[Any]) -> type[Any]:
        class Moved(merging(PLAIN, lambda target, _: target.moved)(reference)):  # type: ignore[misc]
            moved = False

            async def migrate(self, vm: ScratchVm, datastore: str) -> None:
                self.moved = vm.name == PLAIN and depth(self, PLAIN) > 0
                await super().migrate(vm, datastore)

        return Moved

    return make


class _Renumbers(BrokenDriver):
    """Gives the snapshots of a VM that is off other identifiers."""

    async def list_snapshots(self, vm_ids: Any = None) -> Any:
        states = await self.inner.list_snapshots(vm_ids)
        return [
            state._replace(
                snapshots=tuple(
                    ref._replace(snapshot_id=f"off/{ref.snapshot_id}") for ref in state.snapshots
                )
            )
            if of_role(state.vm_id, PLAIN) and not self.target.model.is_on(state.vm_id)
            else state
            for state in states
        ]


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "sees-no-move",
        "HYP-MOV-01",
        "lists nothing as under way while a VM's disks are moved",
        with_driver(_SeesNoMove),
    ),
    Canary(
        "claims-a-create-during-a-move",
        "HYP-MOV-02",
        "reports a create as done that the hypervisor refused because of a move",
        saying("create_snapshot", _moving, _made),
    ),
    Canary(
        "looks-where-it-was",
        "HYP-MOV-03",
        "looks for a VM's files where they were before it was moved",
        with_driver(_Stale),
        also=("HYP-LOC-15",),
        because="the location after a move is seen in the answer to a create",
    ),
    Canary(
        "claims-a-removal-during-a-move",
        "HYP-MOV-04",
        "reports a removal as done that the hypervisor refused because of a move",
        saying("remove_snapshot", _moving, _merged),
    ),
    Canary(
        "drops-a-moved-delta",
        "HYP-MOV-05",
        "drops the delta of a VM that was moved with its snapshot instead of merging it",
        _after_a_move(),
    ),
    Canary(
        "renumbers-when-off",
        "HYP-MOV-06",
        "gives snapshots other identifiers while the VM is off",
        with_driver(_Renumbers),
    ),
    Canary(
        "drops-deltas-when-off",
        "HYP-MOV-07",
        "drops the delta of a VM that is off instead of merging it",
        merging(PLAIN, lambda target, _: not target.model.is_on(id_of(PLAIN))),
    ),
    Canary(
        "claims-a-create-without-power",
        "HYP-MOV-08",
        "reports a create as done in the middle of which the power was cut",
        saying("create_snapshot", of_plain(UnknownOutcomeError, HOST_LOST), _made),
    ),
    Canary(
        "claims-a-removal-without-power",
        "HYP-MOV-09",
        "reports a removal as done in the middle of which the power was cut",
        saying("remove_snapshot", of_plain(UnknownOutcomeError, HOST_LOST), _merged),
    ),
)
