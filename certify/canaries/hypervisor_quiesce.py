"""Drivers and hypervisors that quiesce wrongly, or say wrongly that they did."""

from __future__ import annotations

import asyncio
from typing import Any

from ...drivers.contracts import ConsistencyLevel, VmSnapshot
from ...drivers.errors import QuiesceFailedError, QuiesceTimeoutError, UnknownOutcomeError
from ...errors import StillframeError
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import OFF, PLAIN, HypervisorTarget, ScratchVm
from .hypervisor_answers import instead, of_role
from .hypervisor_defects import altered, created, creating, id_of, window, with_target

_SECOND_AREA = range(100, 200)
"""Blocks of a second file system in the guest."""


async def _thaw_first(driver: Any, request: Any) -> Any:
    if not request.quiesce:
        return await driver.create_snapshot(request)
    try:
        first = await driver.create_snapshot(request._replace(tag=f"{request.tag}-q"))
    except UnknownOutcomeError:
        return await driver.create_snapshot(request)
    await driver.remove_snapshot(first.ref)
    made = await driver.create_snapshot(request._replace(quiesce=False))
    return made._replace(level=first.level, quiesce=first.quiesce)


async def _always_freeze(driver: Any, request: Any) -> Any:
    if request.quiesce:
        return await driver.create_snapshot(request)
    try:
        made = await driver.create_snapshot(request._replace(quiesce=True))
    except (QuiesceFailedError, QuiesceTimeoutError):
        return await driver.create_snapshot(request)
    return made._replace(level=ConsistencyLevel.CRASH, quiesce=None)


def _praise_running(made: VmSnapshot) -> VmSnapshot:
    if made.level is ConsistencyLevel.CRASH and made.stun is not None:
        return made._replace(level=ConsistencyLevel.FILESYSTEM)
    return made


def _praise_stopped(made: VmSnapshot) -> VmSnapshot:
    return made if made.stun is not None else made._replace(level=ConsistencyLevel.FILESYSTEM)


class _LateWindow(BrokenDriver):
    """Its window ends on a clock that is ahead, unless the system's clock is wrong as well."""

    async def create_snapshot(self, request: Any) -> Any:
        made = await self.inner.create_snapshot(request)
        if made.quiesce is None or self.target.skew_s:
            return made
        return made._replace(quiesce=made.quiesce._replace(end_s=made.quiesce.end_s + 0.5))


class _FromTheCall(BrokenDriver):
    """Its window begins when it is called."""

    async def create_snapshot(self, request: Any) -> Any:
        start_s = asyncio.get_running_loop().time()
        made = await self.inner.create_snapshot(request)
        if made.quiesce is None:
            return made
        return made._replace(quiesce=made.quiesce._replace(start_s=start_s))


def _thaw_late(target: Any) -> None:
    data, guest = target.model.data, target.model.guest_of(id_of(PLAIN))
    thawed = data.thawed

    def later(number: int) -> None:
        if number == guest:
            asyncio.get_running_loop().call_later(1.0, thawed, number)
        else:
            thawed(number)

    data.thawed = later


async def _note_create(driver: Any, target: Any, request: Any) -> Any:
    made = await driver.create_snapshot(request)
    target.slow_once = of_role(request.vm_id, PLAIN)
    return made


def _slow_first_write(reference: type[Any]) -> type[Any]:
    class Slow(reference):  # type: ignore[misc]
        slow_once = False

        async def write(self, vm: ScratchVm, disk: int, block: int, data: bytes) -> None:
            if vm.name == PLAIN and self.slow_once:
                self.slow_once = False
                await asyncio.sleep(8.0)
            await super().write(vm, disk, block, data)

    return with_target("create_snapshot", _note_create)(Slow)


async def _refuse_off(driver: Any, request: Any) -> Any:
    if request.quiesce and of_role(request.vm_id, OFF):
        raise QuiesceFailedError("create_snapshot", request.vm_id, "it is off")
    return await driver.create_snapshot(request)


def _failing_writes(reference: type[Any]) -> type[Any]:
    class Failing(reference):  # type: ignore[misc]
        async def write(self, vm: ScratchVm, disk: int, block: int, data: bytes) -> None:
            guest = self.model.guest_of(id_of(vm.name))
            write = asyncio.ensure_future(super().write(vm, disk, block, data))
            while block in _SECOND_AREA and not write.done():
                await asyncio.wait([write], timeout=0.01)
                if self.model.data.is_frozen(guest):
                    write.cancel()
                    raise StillframeError("the file system has become read-only")
            await write

    return Failing


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "thaws-before-the-snapshot",
        "HYP-QUI-01",
        "freezes and thaws the guest, and then takes the snapshot",
        creating(_thaw_first),
    ),
    Canary(
        "freezes-unasked",
        "HYP-QUI-02",
        "freezes the guest whether or not that was asked for",
        creating(_always_freeze),
    ),
    Canary(
        "claims-quiesced",
        "HYP-QUI-03",
        "calls every image of a running VM file-system consistent",
        created(_praise_running),
    ),
    Canary(
        "forgets-that-it-quiesced",
        "HYP-QUI-04",
        "calls every image crash-consistent",
        created(lambda made: made._replace(level=ConsistencyLevel.CRASH)),
    ),
    Canary(
        "reports-no-window",
        "HYP-QUI-05",
        "quiesces and reports no window",
        created(lambda made: made._replace(quiesce=None)),
        also=("HYP-DCL-01",),
        because="it declares that it reports windows",
    ),
    Canary(
        "window-on-another-clock",
        "HYP-QUI-06",
        "reports a window that ends half a second after the call",
        with_driver(_LateWindow),
    ),
    Canary(
        "window-of-the-call-to-freeze",
        "HYP-QUI-07",
        "reports the call to the guest as the window, and not the freeze",
        window(lambda true, _: true._replace(end_s=true.start_s + 0.01)),
        settings=(("hypervisor", {"thaw_call": "2 s"}),),
    ),
    Canary(
        "window-of-the-whole-call",
        "HYP-QUI-08",
        "reports as exact a window that begins with the call",
        with_driver(_FromTheCall),
        settings=(("hypervisor", {"task_latency": "3 s"}),),
    ),
    Canary(
        "thaws-after-the-return",
        "HYP-QUI-09",
        "returns while the guest is still frozen",
        altered(_thaw_late),
        also=("HYP-QUI-07",),
        because="a window within the call cannot cover a freeze that outlasts it",
    ),
    Canary(
        "crawls-on-the-delta",
        "HYP-QUI-10",
        "lets the guest's first write after a snapshot wait for 8 s",
        _slow_first_write,
    ),
    Canary(
        "thaws-late",
        "HYP-QUI-11",
        "thaws the guest 8 s after the snapshot",
        lambda reference: reference,
        settings=(("hypervisor", {"thaw_call": "8 s"}),),
    ),
    Canary(
        "wants-a-guest-that-runs",
        "HYP-QUI-12",
        "refuses to snapshot a VM that is off when quiescing is asked for",
        instead("create_snapshot", _refuse_off),
    ),
    Canary(
        "trusts-a-vm-that-is-off",
        "HYP-QUI-13",
        "calls every image of a VM that is off file-system consistent",
        created(_praise_stopped),
    ),
    Canary(
        "fails-writes-of-frozen-guests",
        "HYP-QUI-14",
        "fails the guest's writes while it is frozen instead of holding them",
        _failing_writes,
    ),
)
