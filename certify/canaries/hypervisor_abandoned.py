"""Drivers and hypervisors that lose track of what nobody waits for."""

from __future__ import annotations

import asyncio
from typing import Any

from ...drivers.errors import BusyError
from ...sim.faults import Site
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import PLAIN, HypervisorTarget
from .hypervisor_answers import of_role
from .hypervisor_defects import altered, both, id_of, merging, with_target


class _Forgetful(BrokenDriver):
    """A create in the system's queue is forgotten with its caller."""

    forgotten_until_s = 0.0

    async def create_snapshot(self, request: Any) -> Any:
        try:
            return await self.inner.create_snapshot(request)
        except asyncio.CancelledError:
            if self.target.model.faults.is_held(Site.LATE_CREATE):
                self.forgotten_until_s = asyncio.get_running_loop().time() + 10.0
            raise

    async def list_snapshots(self, vm_ids: Any = None) -> Any:
        states = await self.inner.list_snapshots(vm_ids)
        if asyncio.get_running_loop().time() >= self.forgotten_until_s:
            return states
        return [state._replace(operation_running=False) for state in states]


async def _abandon(driver: Any, target: Any, request: Any) -> Any:
    try:
        return await driver.create_snapshot(request)
    except asyncio.CancelledError:
        if of_role(request.vm_id, PLAIN):
            target.abandoned_until_s = asyncio.get_running_loop().time() + 20.0
        raise


def _thaw_for_callers(target: Any) -> None:
    data, guest = target.model.data, target.model.guest_of(id_of(PLAIN))
    thawed = data.thawed
    target.abandoned_until_s = 0.0

    def for_callers(number: int) -> None:
        loop = asyncio.get_running_loop()
        if number == guest and loop.time() < target.abandoned_until_s:
            loop.call_at(target.abandoned_until_s, thawed, number)
        else:
            thawed(number)

    data.thawed = for_callers


class _Locked(BrokenDriver):
    """A VM stays locked by a create whose caller has gone, until its snapshot is removed."""

    locked = False

    async def create_snapshot(self, request: Any) -> Any:
        if self.locked and of_role(request.vm_id, PLAIN):
            self.locked = False
            raise BusyError("create_snapshot", request.vm_id, "a create is under way")
        try:
            return await self.inner.create_snapshot(request)
        except asyncio.CancelledError:
            self.locked = self.locked or of_role(request.vm_id, PLAIN)
            raise

    async def remove_snapshot(self, ref: Any) -> Any:
        self.locked = False
        return await self.inner.remove_snapshot(ref)


async def _give_up_merge(driver: Any, target: Any, ref: Any) -> Any:
    target.given_up = False
    try:
        return await driver.remove_snapshot(ref)
    except asyncio.CancelledError:
        target.given_up = True
        raise


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "forgets-what-is-queued",
        "HYP-ABD-01",
        "lists nothing as under way when the caller of a create in the queue has gone",
        with_driver(_Forgetful),
    ),
    Canary(
        "thaws-for-callers-only",
        "HYP-ABD-02",
        "thaws the guest much later when the caller of the create has gone",
        both(altered(_thaw_for_callers), with_target("create_snapshot", _abandon)),
    ),
    Canary(
        "keeps-its-lock",
        "HYP-ABD-03",
        "keeps a VM locked when the caller of a create has gone",
        with_driver(_Locked),
    ),
    Canary(
        "breaks-off-a-merge",
        "HYP-ABD-04",
        "drops what is left of a delta when the caller of the removal has gone",
        both(
            merging(PLAIN, lambda target, _: getattr(target, "given_up", False)),
            with_target("remove_snapshot", _give_up_merge),
        ),
    ),
)
