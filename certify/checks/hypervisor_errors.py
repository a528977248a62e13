"""What a driver says when it refuses: the class of the error, and what stands in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ...drivers.contracts import HypervisorDriver, VmSnapshot, VmSnapshotRef, VmSnapshotRequest
from ...drivers.errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
    QuiesceFailedError,
)
from ..hypervisor_bench import QUIESCE_TIMEOUT_S, HypervisorBench
from ..hypervisor_target import PLAIN, TOOLLESS
from ..requirement import Level, NotTested, Topic, Violation

TOPIC: Topic[HypervisorBench] = Topic("errors", "HYP-ERR")

_ROUNDS = 10
"""Most rounds of what depends on how two calls meet."""
_DEEPEST = 40
"""Most snapshots on one VM: vSphere allows 32."""
_LATER_S = 10.0
"""How long one watches for what must not come."""


@TOPIC.shall(
    1,
    Level.CORE,
    "A create of a snapshot of a VM that does not exist shall raise NotFoundError.",
)
async def create_unknown(bench: HypervisorBench) -> None:
    """With and without quiescing; of this system, and of one that nobody has heard of."""
    for request in _requests_for_nobody(bench):
        call = bench.driver.create_snapshot(request)
        await bench.refused(call, NotFoundError, doing=f"a create for {request.vm_id}")


@TOPIC.shall(
    2,
    Level.CORE,
    "A removal of a snapshot of a VM that does not exist shall raise NotFoundError.",
)
async def remove_unknown_vm(bench: HypervisorBench) -> None:
    """The VM was deleted, and its snapshots with it."""
    ref = await _gone(bench)
    nobody = ref._replace(vm_id=f"{ref.vm_id}-none")
    call = bench.driver.remove_snapshot(nobody)
    await bench.refused(call, NotFoundError, doing="removing a snapshot of no VM")


@TOPIC.shall(
    3,
    Level.CORE,
    "A removal of a snapshot that is gone already shall raise NotFoundError.",
)
async def remove_twice(bench: HypervisorBench) -> None:
    """For whoever removes, that counts as done; a success would hide a wrong reference."""
    ref = await _gone(bench)
    call = bench.driver.remove_snapshot(ref)
    await bench.refused(call, NotFoundError, doing="removing a snapshot a second time")


@TOPIC.shall(
    4,
    Level.CORE,
    "A reference to a snapshot that is gone shall never remove another one.",
)
async def stale_reference(bench: HypervisorBench) -> None:
    """The VM has a newer snapshot by now."""
    stale = await _gone(bench)
    kept = (await bench.create(PLAIN)).ref
    with contextlib.suppress(DriverError):  # another requirement says which one it has to be
        await bench.driver.remove_snapshot(stale)
    listed = await bench.tags(PLAIN)
    what = "the reference of a removed snapshot has removed the one that was made after it"
    bench.expect(kept.tag in listed, what, listed=listed)


@TOPIC.shall(
    5,
    Level.CORE,
    "Consolidating a VM that does not exist shall raise NotFoundError.",
    capability="consolidates",
)
async def consolidate_unknown(bench: HypervisorBench) -> None:
    """Not success: nothing was looked at."""
    for vm_id in (f"{bench.ids[PLAIN]}-none", "elsewhere/vm-1"):
        call = bench.driver.consolidate(vm_id)
        await bench.refused(call, NotFoundError, doing=f"consolidating {vm_id}")


@TOPIC.shall(
    6,
    Level.CORE,
    "A create that asks to quiesce a guest that cannot be quiesced shall raise QuiesceFailedError.",
    roles=(TOOLLESS,),
)
async def toolless(bench: HypervisorBench) -> None:
    """Without the error, the quiesce policy of the job never hears of it."""
    call = bench.driver.create_snapshot(bench.request(TOOLLESS))
    await bench.refused(call, QuiesceFailedError, doing="quiescing a guest without tools")


@TOPIC.shall(
    7,
    Level.CORE,
    "A create that was refused because the guest cannot be quiesced shall leave no snapshot, and "
    "the VM ready for one without quiescing.",
    roles=(TOOLLESS,),
)
async def nothing_left_of_refused(bench: HypervisorBench) -> None:
    """DidNotHappenError and its subclasses say that it may be repeated."""
    refused = bench.request(TOOLLESS)
    try:
        await bench.driver.create_snapshot(refused)
    except QuiesceFailedError:
        pass
    except DriverError as error:
        raise NotTested(f"the create was refused with {type(error).__name__}") from error
    else:
        raise NotTested("the create was not refused")
    listed = await bench.tags(TOOLLESS)
    bench.expect(refused.tag not in listed, "a refused create has left a snapshot", listed=listed)
    made = await bench.driver.create_snapshot(bench.request(TOOLLESS, quiesce=False))
    listed = await bench.tags(TOOLLESS)
    what = "after a refused create, one without quiescing is not listed"
    bench.expect(made.ref.tag in listed, what, listed=listed)


@TOPIC.shall(
    8,
    Level.CORE,
    "Of two creates for one VM at the same time, each shall either succeed or raise BusyError.",
)
async def two_creates(bench: HypervisorBench) -> None:
    """A driver may let the second wait, or refuse it; a refusal has to say why."""
    busy = 0
    for _ in range(min(bench.effort.rounds, _ROUNDS)):
        requests = [bench.request(PLAIN, quiesce=False) for _ in range(2)]
        answers = await _both(bench.driver.create_snapshot(one) for one in requests)
        busy += _busy_or_raise(answers, (BusyError,), "two creates at once")
        await _remove_made(bench, answers)
    bench.note(refused_as_busy=busy)


@TOPIC.shall(
    9,
    Level.CORE,
    "A create that was refused with BusyError shall leave no snapshot, neither at once nor later.",
)
async def busy_leaves_nothing(bench: HypervisorBench) -> None:
    """It is repeated under another tag, and nobody looks for the first one any more."""
    refused = None
    for _ in range(min(bench.effort.rounds, _ROUNDS)):
        requests = [bench.request(PLAIN) for _ in range(2)]
        answers = await _both(bench.driver.create_snapshot(one) for one in requests)
        pairs = zip(requests, answers, strict=True)
        refused = next((one.tag for one, said in pairs if isinstance(said, BusyError)), None)
        if refused is not None:
            break
        await _remove_made(bench, answers)
    if refused is None:
        raise NotTested("no create was refused as busy")

    async def appears() -> bool:
        return refused in await bench.tags(PLAIN)

    what = "a create that was refused as busy has made its snapshot all the same"
    bench.expect(not await bench.until(appears, _LATER_S, 0.2), what, tag=refused)


@TOPIC.shall(
    10,
    Level.CORE,
    "Of two removals of one snapshot at the same time, each shall succeed or raise BusyError or "
    "NotFoundError.",
)
async def two_removals(bench: HypervisorBench) -> None:
    """Two processes clean up at once."""
    for _ in range(min(bench.effort.rounds, _ROUNDS)):
        ref = (await bench.create(PLAIN, quiesce=False)).ref
        answers = await _both(bench.driver.remove_snapshot(ref) for _ in range(2))
        refused = _busy_or_raise(answers, (BusyError, NotFoundError), "two removals at once")
        bench.expect(refused < 2, "of two removals at once, neither has removed the snapshot")


@TOPIC.shall(
    11,
    Level.CORE,
    "An error shall name the operation by the contract's method and the VM that it is about.",
)
async def names_operation_and_subject(bench: HypervisorBench) -> None:
    """Create, remove and, where declared, consolidate."""
    for operation, vm_id, error in await _refusals(bench):
        bench.expect(
            (error.operation, error.subject) == (operation, vm_id),
            f"the error of {operation} is about another operation or another VM",
            said=[error.operation, error.subject],
            wanted=[operation, vm_id],
        )


@TOPIC.shall(
    12,
    Level.CORE,
    "An error shall give its reason in one line.",
)
async def one_line(bench: HypervisorBench) -> None:
    """It is shown to a person, among others."""
    for operation, _, error in await _refusals(bench):
        reason, lines = error.reason.strip(), len(str(error).splitlines())
        bench.expect(reason, f"the error of {operation} gives no reason")
        bench.expect(lines == 1, f"the error of {operation} has {lines} lines", said=str(error))


@TOPIC.shall(
    13,
    Level.CORE,
    "A create on a VM that carries as many snapshots as it can shall raise an error that says that "
    "it did not happen, and leave the others.",
)
async def full_chain(bench: HypervisorBench) -> None:
    """As many are made as the effort allows, until one is refused."""
    tags: list[str] = []
    while len(tags) < min(bench.effort.many, _DEEPEST):
        request = bench.request(PLAIN, quiesce=False)
        try:
            await bench.driver.create_snapshot(request)
        except (DidNotHappenError, NeverWillError) as error:
            bench.note(snapshots=len(tags), error=str(error))
            listed = await bench.tags(PLAIN)
            what = "a create that was refused on a full chain has changed what is listed"
            bench.expect(sorted(listed) == sorted(tags), what, listed=listed, refused=request.tag)
            return
        tags.append(request.tag)
    raise NotTested(f"the VM can carry {len(tags)} snapshots and more")


# -- what several use --------------------------------------------------------------------------


def _requests_for_nobody(bench: HypervisorBench) -> list[VmSnapshotRequest]:
    return [
        VmSnapshotRequest(vm_id, bench.tag(), quiesce, QUIESCE_TIMEOUT_S)
        for vm_id in (f"{bench.ids[PLAIN]}-none", "elsewhere/vm-1")
        for quiesce in (True, False)
    ]


async def _gone(bench: HypervisorBench) -> VmSnapshotRef:
    """The reference of a snapshot that was removed."""
    ref = (await bench.create(PLAIN, quiesce=False)).ref
    await bench.remove(ref)
    return ref


async def _both(calls: Any) -> list[Any]:
    """Their answers or errors, of calls that begin at the same time."""
    return list(await asyncio.gather(*calls, return_exceptions=True))


def _busy_or_raise(
    answers: Sequence[Any], allowed: tuple[type[DriverError], ...], doing: str
) -> int:
    """How many of the answers are an error that is allowed; raises for one that is not."""
    errors = [one for one in answers if isinstance(one, BaseException)]
    for error in errors:
        if isinstance(error, Violation) or not isinstance(error, DriverError):
            raise error
        if not isinstance(error, allowed):
            said, names = type(error).__name__, " or ".join(one.__name__ for one in allowed)
            raise Violation(f"of {doing}, one raised {said} instead of {names}", said=str(error))
    return len(errors)


async def _remove_made(bench: HypervisorBench, answers: Sequence[Any]) -> None:
    for one in answers:
        if isinstance(one, VmSnapshot):
            await bench.remove(one.ref)


async def _refusals(bench: HypervisorBench) -> list[tuple[str, str, DriverError]]:
    """(operation, VM, error) of calls that cannot succeed."""
    nobody = f"{bench.ids[PLAIN]}-none"
    gone = await _gone(bench)
    driver: HypervisorDriver = bench.driver
    request = _requests_for_nobody(bench)[0]
    calls: list[tuple[str, str, Callable[[], Awaitable[object]]]] = [
        ("create_snapshot", nobody, lambda: driver.create_snapshot(request)),
        ("remove_snapshot", gone.vm_id, lambda: driver.remove_snapshot(gone)),
    ]
    if bench.capabilities.consolidates:
        calls.append(("consolidate", nobody, lambda: driver.consolidate(nobody)))
    found = []
    for operation, vm_id, call in calls:
        try:
            await call()
        except DriverError as error:
            found.append((operation, vm_id, error))
    if not found:
        raise NotTested("nothing that cannot succeed was refused")
    return found
