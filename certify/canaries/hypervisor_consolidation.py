"""Drivers that do not know of merges that failed, and consolidations that do harm."""

from __future__ import annotations

from typing import Any

from ...drivers.contracts import VmSnapshotState
from ...drivers.errors import (
    DidNotHappenError,
    HappenedError,
    NeverWillError,
    UnknownOutcomeError,
)
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import KEPT, PLAIN, HypervisorTarget
from .hypervisor_answers import instead, listed, of_role
from .hypervisor_defects import (
    CONNECTION_BROKE,
    claiming,
    id_of,
    left_files,
    merging,
    of_plain,
    saying,
)

_HALF = of_plain(HappenedError)


class _Unaware(BrokenDriver):
    """Its next two listings after a failed merge say nothing of it."""

    unaware = 0

    async def remove_snapshot(self, ref: Any) -> Any:
        try:
            return await self.inner.remove_snapshot(ref)
        except HappenedError:
            self.unaware = 2
            raise

    async def list_snapshots(self, vm_ids: Any = None) -> Any:
        states = await self.inner.list_snapshots(vm_ids)
        if not self.unaware:
            return states
        self.unaware -= 1
        return [state._replace(needs_consolidation=False) for state in states]


def _any_delta(state: VmSnapshotState) -> VmSnapshotState:
    if state.snapshots and of_role(state.vm_id, PLAIN):
        return state._replace(needs_consolidation=True)
    return state


async def _state(driver: Any, vm_id: str) -> VmSnapshotState | None:
    for state in await driver.list_snapshots([vm_id]):
        found: VmSnapshotState = state
        return found
    return None


async def _refuse_nothing(driver: Any, vm_id: str) -> None:
    state = await _state(driver, vm_id)
    if state is not None and not state.needs_consolidation and not state.snapshots:
        raise NeverWillError("consolidate", vm_id, "there is nothing to do")
    await driver.consolidate(vm_id)


async def _remove_all(driver: Any, vm_id: str) -> None:
    state = await _state(driver, vm_id)
    for ref in reversed(state.snapshots if state is not None else ()):
        await driver.remove_snapshot(ref)


async def _consolidate_all(driver: Any, vm_id: str) -> None:
    state = await _state(driver, vm_id)
    if state is not None and not state.needs_consolidation and of_role(vm_id, PLAIN):
        await _remove_all(driver, vm_id)
    await driver.consolidate(vm_id)


async def _consolidate_foreign(driver: Any, vm_id: str) -> None:
    if of_role(vm_id, KEPT):
        await _remove_all(driver, vm_id)
    await driver.consolidate(vm_id)


async def _give_up_all(driver: Any, target: Any, error: Any, ref: Any) -> Any:
    with target.model.faults.lifted():
        await _remove_all(driver, ref.vm_id)
    raise error


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "does-not-know-of-a-half-removal",
        "HYP-CNS-01",
        "raises UnknownOutcomeError when the snapshot is gone and its delta is not merged",
        claiming("remove_snapshot", _HALF, UnknownOutcomeError),
        also=("HYP-DCL-06",),
        because="whether it consolidates is shown on a merge that is said to have failed",
    ),
    Canary(
        "lists-no-loose-delta",
        "HYP-CNS-02",
        "does not list a VM as needing consolidation right after a merge has failed",
        with_driver(_Unaware),
        also=("HYP-DCL-06",),
        because="whether it consolidates is shown on a VM that is said to need it",
    ),
    Canary(
        "takes-every-delta-for-loose",
        "HYP-CNS-03",
        "lists every VM with a delta as needing consolidation",
        listed(_any_delta),
    ),
    Canary(
        "consolidates-and-leaves-files",
        "HYP-CNS-04",
        "deletes the files of a delta some time after the consolidation has returned",
        left_files("consolidate"),
    ),
    Canary(
        "consolidates-by-dropping",
        "HYP-CNS-05",
        "drops a delta without a snapshot instead of merging it",
        merging(PLAIN, lambda target, _: target.model.busy_with(id_of(PLAIN)) == "consolidate"),
        also=("HYP-MOV-09",),
        because="a merge that a power cut has broken off is finished by consolidating",
    ),
    Canary(
        "refuses-to-do-nothing",
        "HYP-CNS-06",
        "fails a consolidation that has nothing to do",
        instead("consolidate", _refuse_nothing),
        also=("HYP-CNS-10",),
        because="the repetition of a consolidation has nothing to do",
    ),
    Canary(
        "consolidates-snapshots",
        "HYP-CNS-07",
        "removes all snapshots when it consolidates",
        instead("consolidate", _consolidate_all),
    ),
    Canary(
        "consolidates-foreign-snapshots",
        "HYP-CNS-08",
        "removes snapshots of somebody else when it consolidates",
        instead("consolidate", _consolidate_foreign),
        also=("HYP-END-02",),
        because="what it has removed is missing at the end",
    ),
    Canary(
        "removes-all-when-one-fails",
        "HYP-CNS-09",
        "removes the other snapshots of a VM when a merge fails",
        saying("remove_snapshot", _HALF, _give_up_all),
    ),
    Canary(
        "denies-a-consolidation",
        "HYP-CNS-10",
        "claims that a consolidation did not happen when its answer is lost",
        claiming("consolidate", of_plain(UnknownOutcomeError, CONNECTION_BROKE), DidNotHappenError),
    ),
)
