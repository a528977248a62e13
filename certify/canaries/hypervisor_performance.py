"""Drivers and systems that are slower than their vendor states."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..canary import Canary
from ..hypervisor_target import HypervisorTarget
from .hypervisor_answers import Make, instead

_LATE_S = 8.0


def _late(method: str, when: Callable[..., bool] = lambda *_: True) -> Make:
    """A call that takes much longer, where ``when`` says so of its arguments."""

    async def call(driver: Any, *arguments: Any) -> Any:
        answer = await getattr(driver, method)(*arguments)
        if when(*arguments):
            await asyncio.sleep(_LATE_S)
        return answer

    return instead(method, call)


def _as_it_is(reference: type[Any]) -> type[Any]:
    return reference


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "slow-create",
        "HYP-PRF-01",
        "A quiesced create takes 8 s longer, and the vendor states 7 s.",
        _late("create_snapshot", lambda request: request.quiesce),
        limits=(("create_p95_s", 7.0),),
    ),
    Canary(
        "slow-create-crash",
        "HYP-PRF-02",
        "A create without quiescing takes 8 s longer, and the vendor states 7 s.",
        _late("create_snapshot", lambda request: not request.quiesce),
        limits=(("create_crash_p95_s", 7.0),),
    ),
    Canary(
        "slow-removal",
        "HYP-PRF-03",
        "A removal takes 8 s longer, and the vendor states 7 s.",
        _late("remove_snapshot"),
        limits=(("remove_p95_s", 7.0),),
    ),
    Canary(
        "slow-listing",
        "HYP-PRF-04",
        "A listing of all VMs takes 8 s longer, and the vendor states 5 s.",
        _late("list_snapshots", lambda vm_ids=None: vm_ids is None),
        limits=(("list_p95_s", 5.0),),
    ),
    Canary(
        "slow-inventory",
        "HYP-PRF-05",
        "Reading the inventory takes 8 s longer, and the vendor states 5 s.",
        _late("inventory"),
        limits=(("inventory_p95_s", 5.0),),
    ),
    Canary(
        "long-freeze",
        "HYP-PRF-06",
        "A guest takes 15 s to freeze, and the vendor states 5 s.",
        _as_it_is,
        settings=(("hypervisor", {"linux_freeze": "15 s", "freeze_sigma": 0}),),
        limits=(("freeze_p95_s", 5.0),),
    ),
    Canary(
        "long-stun",
        "HYP-PRF-07",
        "A create stuns for 1.5 s and more, and the vendor states 1 s.",
        _as_it_is,
        settings=(("hypervisor", {"stun_create": "1.5 s"}),),
        limits=(("stun_p95_s", 1.0),),
    ),
    Canary(
        "writes-wait-long",
        "HYP-PRF-08",
        "Writes of a guest wait for 1.5 s and more during a create, and the vendor states 1 s.",
        _as_it_is,
        settings=(("hypervisor", {"stun_create": "1.5 s"}),),
        limits=(("write_pause_p95_s", 1.0),),
    ),
)
