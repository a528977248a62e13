"""Drivers that do the wrong thing when a guest does not freeze or a create fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...drivers.errors import (
    DidNotHappenError,
    DriverError,
    QuiesceFailedError,
    QuiesceTimeoutError,
    UnknownOutcomeError,
)
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import PLAIN, HypervisorTarget
from .hypervisor_answers import of_role
from .hypervisor_defects import (
    claiming,
    creating,
    frozen_for,
    of_plain,
    saying,
    snapshot_all_the_same,
)

_STAYS_S = 7.0
"""Longer than a guest may stay frozen, and over before the next check."""
_REFUSED = of_plain(QuiesceFailedError, "refused")
_HUNG = of_plain(QuiesceTimeoutError)
_NO_SPACE = of_plain(DidNotHappenError, "no space")


def _staying_frozen(after_s: float) -> Callable[..., Awaitable[Any]]:
    async def then(driver: Any, target: Any, error: DriverError, request: Any) -> Any:
        del driver, request
        frozen_for(target, PLAIN, _STAYS_S, after_s)
        raise error

    return then


class _Resentful(BrokenDriver):
    """A VM whose guest has refused is not asked again for a while."""

    until_s = 0.0

    async def create_snapshot(self, request: Any) -> Any:
        now_s = asyncio.get_running_loop().time()
        if of_role(request.vm_id, PLAIN) and now_s < self.until_s:
            raise QuiesceFailedError("create_snapshot", request.vm_id, "it refused before")
        try:
            return await self.inner.create_snapshot(request)
        except QuiesceFailedError as error:
            if _REFUSED(error):
                self.until_s = asyncio.get_running_loop().time() + 3.0
            raise


async def _patient(driver: Any, request: Any) -> Any:
    if request.quiesce and request.quiesce_timeout_s < 5.0:
        return await driver.create_snapshot(request._replace(quiesce_timeout_s=40.0))
    return await driver.create_snapshot(request)


class _OneAtATime(BrokenDriver):
    """One freeze at a time, whatever the VM."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._turn = asyncio.Lock()

    async def create_snapshot(self, request: Any) -> Any:
        if not request.quiesce:
            return await self.inner.create_snapshot(request)
        async with self._turn:
            return await self.inner.create_snapshot(request)


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "does-not-say-who-refused",
        "HYP-FRZ-01",
        "raises a plain DidNotHappenError when the guest refuses to freeze",
        claiming("create_snapshot", _REFUSED, DidNotHappenError),
    ),
    Canary(
        "snapshots-unquiesced-and-fails",
        "HYP-FRZ-02",
        "leaves a snapshot without quiescing when the guest refuses to freeze",
        saying("create_snapshot", _REFUSED, snapshot_all_the_same),
    ),
    Canary(
        "leaves-a-refusing-guest-frozen",
        "HYP-FRZ-03",
        "does not thaw a guest that refused to freeze one of its file systems",
        saying("create_snapshot", _REFUSED, _staying_frozen(0.0)),
    ),
    Canary(
        "holds-a-grudge",
        "HYP-FRZ-04",
        "refuses every create of a VM whose guest has refused once",
        with_driver(_Resentful),
    ),
    Canary(
        "does-not-know-of-a-hang",
        "HYP-FRZ-05",
        "raises UnknownOutcomeError when the guest's agent hangs",
        claiming("create_snapshot", _HUNG, UnknownOutcomeError),
    ),
    Canary(
        "waits-as-long-as-it-likes",
        "HYP-FRZ-06",
        "waits 40 s for a freeze, whatever the caller allows",
        creating(_patient),
    ),
    Canary(
        "snapshots-a-hung-guest-and-fails",
        "HYP-FRZ-07",
        "leaves a snapshot without quiescing when the guest's agent hangs",
        saying("create_snapshot", _HUNG, snapshot_all_the_same),
    ),
    Canary(
        "freezes-when-the-agent-wakes",
        "HYP-FRZ-08",
        "leaves its request in the agent, which freezes when it works again",
        saying("create_snapshot", _HUNG, _staying_frozen(0.5)),
    ),
    Canary(
        "freezes-one-after-the-other",
        "HYP-FRZ-09",
        "waits for a freeze that is under way on another VM",
        with_driver(_OneAtATime),
    ),
    Canary(
        "does-not-know-of-a-failure",
        "HYP-FRZ-10",
        "raises UnknownOutcomeError when the hypervisor fails the create",
        claiming("create_snapshot", _NO_SPACE, UnknownOutcomeError),
    ),
    Canary(
        "forgets-to-thaw",
        "HYP-FRZ-11",
        "does not thaw the guest when the create fails after the freeze",
        saying("create_snapshot", _NO_SPACE, _staying_frozen(0.0)),
    ),
    Canary(
        "rolls-nothing-back",
        "HYP-FRZ-12",
        "leaves the snapshot when the create fails after the freeze",
        saying("create_snapshot", _NO_SPACE, snapshot_all_the_same),
    ),
)
