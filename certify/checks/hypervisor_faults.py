"""What becomes of calls when callers give up, answers are lost and the system goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ...drivers.contracts import MergeResult, VmSnapshot
from ...drivers.errors import (
    DriverError,
    HappenedError,
    NotFoundError,
    UnknownOutcomeError,
)
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import PLAIN
from ..requirement import Blocked, Level, Topic
from .guest_load import GuestLoad
from .hypervisor_settling import (
    create_s,
    expect_removal_truth,
    expect_truth,
    finish,
    moments,
    remove_s,
    settled,
    tags_of,
    told,
    told_of_removal,
)

TOPIC: Topic[HypervisorBench] = Topic("faults of the system", "HYP-FLT")

BACK_S = 60.0
"""How long a connection may take to work again after the system does."""
_SKEWS_S = (3600.0, -3600.0)


# -- the answer is lost ---------------------------------------------------------------------------


async def _told_unknown(
    bench: HypervisorBench, operation: str, call: Awaitable[object]
) -> DriverError | None:
    """What a driver raises when an answer is lost; None when it knows all the same."""
    async with bench.target.lost_answers(operation):
        try:
            await call
        except DriverError as error:
            bench.note(error=f"{type(error).__name__}: {error}")
            return error
    bench.note(error="none: it has found out by itself")
    return None


@TOPIC.shall(
    1,
    Level.FAULT,
    "A create whose answer is lost shall raise UnknownOutcomeError, or find out what came of it.",
    hooks=("lost_answers",),
)
async def lost_create_is_unknown(bench: HypervisorBench) -> None:
    """Whoever is told that it did not happen takes another one, and nobody removes the first."""
    request = bench.request(PLAIN)
    call = bench.driver.create_snapshot(request)
    error = await _told_unknown(bench, "create_snapshot", call)
    listed = request.tag in tags_of(await settled(bench, PLAIN))
    bench.expect(
        error is None or isinstance(error, UnknownOutcomeError | HappenedError) or not listed,
        "the answer to a create was lost, and the driver claims that it did not happen",
        said=type(error).__name__,
    )
    bench.expect(listed or error is not None, "a create has told of success, and nothing is there")


@TOPIC.shall(
    2,
    Level.FAULT,
    "A snapshot whose answer was lost shall be found by its tag, and be removable by what is "
    "listed.",
    hooks=("lost_answers",),
)
async def lost_create_is_found(bench: HypervisorBench) -> None:
    """What a recovery does."""
    request = bench.request(PLAIN)
    await _told_unknown(bench, "create_snapshot", bench.driver.create_snapshot(request))
    found = [one for one in (await settled(bench, PLAIN)).snapshots if one.tag == request.tag]
    bench.expect(found, "a snapshot whose answer was lost is not found by its tag", tag=request.tag)
    await bench.driver.remove_snapshot(found[0])


@TOPIC.shall(
    3,
    Level.FAULT,
    "A removal whose answer is lost shall raise UnknownOutcomeError, or find out what came of it.",
    hooks=("lost_answers",),
)
async def lost_removal_is_unknown(bench: HypervisorBench) -> None:
    """NotFoundError and HappenedError are true of a snapshot that is gone."""
    made = await bench.create(PLAIN)
    call = bench.driver.remove_snapshot(made.ref)
    error = await _told_unknown(bench, "remove_snapshot", call)
    listed = made.ref.tag in tags_of(await settled(bench, PLAIN))
    true = isinstance(error, UnknownOutcomeError | HappenedError | NotFoundError)
    bench.expect(
        error is None or true or listed,
        "the answer to a removal was lost, and the driver claims that it did not happen",
        said=type(error).__name__,
    )


# -- the system goes away -------------------------------------------------------------------------


async def _disturb_creates(
    bench: HypervisorBench, what: Callable[[], Awaitable[None]], most: int
) -> None:
    """What a create says is true, though this happens in the middle of it."""
    answers = []
    for after_s in moments(bench, await create_s(bench, PLAIN), most, costly=True):
        request = bench.request(PLAIN)
        call = asyncio.ensure_future(told(bench.driver.create_snapshot(request)))
        await asyncio.sleep(after_s)
        await what()
        answer = await call
        answers.append("success" if isinstance(answer, VmSnapshot) else type(answer).__name__)
        bench.note(answers=answers)
        await expect_truth(bench, PLAIN, request.tag, answer)
        await finish(bench, PLAIN, request.tag)
        if not await _reconnected(bench):
            return  # what that breaks is another requirement


async def _disturb_removals(
    bench: HypervisorBench, what: Callable[[], Awaitable[None]], most: int
) -> None:
    """What a removal says is true, and nothing is lost, though this happens in the middle."""
    whole_s, answers = await remove_s(bench, PLAIN), []
    for after_s in moments(bench, whole_s, most, costly=True):
        async with GuestLoad(bench, PLAIN) as load:
            ref = (await bench.create(PLAIN, quiesce=False)).ref
            loose = (await bench.state(PLAIN)).needs_consolidation
            await load.more()
            call = asyncio.ensure_future(told_of_removal(bench.driver.remove_snapshot(ref)))
            await asyncio.sleep(after_s)
            await what()
            answer = await call
            answers.append("success" if isinstance(answer, MergeResult) else type(answer).__name__)
            bench.note(answers=answers)
            await expect_removal_truth(bench, PLAIN, ref.tag, answer, loose=loose)
            await finish(bench, PLAIN, ref.tag)
        if load.problem:
            raise Blocked(f"the guest could not write: {load.problem}")
        await load.check("after a removal in the middle of which that happened, data is lost")
        if not await _reconnected(bench):
            return  # what that breaks is another requirement


async def _reconnected(bench: HypervisorBench) -> bool:
    """Whether the connection works again in time."""

    async def works() -> bool:
        try:
            await bench.driver.list_snapshots([bench.ids[PLAIN]])
        except DriverError:
            return False
        return True

    return await bench.until(works, BACK_S, 0.5)


@TOPIC.shall(
    4,
    Level.FAULT,
    "A create in the middle of which the system is restarted shall end, and what it says came of "
    "it shall be so.",
    hooks=("restart",),
)
async def restart_in_a_create(bench: HypervisorBench) -> None:
    """Several moments of a create."""
    await _disturb_creates(bench, bench.target.restart, 6)


@TOPIC.shall(
    5,
    Level.FAULT,
    "A removal in the middle of which the system is restarted shall end, say truly what came of "
    "it, and lose nothing that the guest wrote.",
    hooks=("restart", "write", "read"),
)
async def restart_in_a_removal(bench: HypervisorBench) -> None:
    """Several moments of a removal, the guest writing."""
    await _disturb_removals(bench, bench.target.restart, 4)


@TOPIC.shall(
    6,
    Level.FAULT,
    "A connection shall work again within 60 s after the system was restarted.",
    hooks=("restart",),
)
async def restart_is_survived(bench: HypervisorBench) -> None:
    """A job goes on for hours after."""
    await bench.tags(PLAIN)
    await bench.target.restart()
    bench.expect(
        await _reconnected(bench), f"the connection does not work {BACK_S:g} s after a restart"
    )
    await bench.driver.create_snapshot(bench.request(PLAIN))


@TOPIC.shall(
    7,
    Level.FAULT,
    "A connection shall work again within 60 s after the system has voided its sessions.",
    hooks=("expire_sessions",),
)
async def expiry_is_survived(bench: HypervisorBench) -> None:
    """Sessions expire while a job merges."""
    await bench.tags(PLAIN)
    await bench.target.expire_sessions()
    bench.expect(
        await _reconnected(bench), f"the connection does not work {BACK_S:g} s after its session"
    )
    await bench.driver.create_snapshot(bench.request(PLAIN))


@TOPIC.shall(
    8,
    Level.FAULT,
    "A create in the middle of which the session expires shall end, and what it says came of it "
    "shall be so.",
    hooks=("expire_sessions",),
)
async def expiry_in_a_create(bench: HypervisorBench) -> None:
    """Several moments of a create."""
    await _disturb_creates(bench, bench.target.expire_sessions, 4)


@TOPIC.shall(
    9,
    Level.FAULT,
    "A create that is called while the system does not answer shall end, and what it says came of "
    "it shall be so once the system answers again.",
    hooks=("unreachable",),
)
async def unreachable_in_a_create(bench: HypervisorBench) -> None:
    """What was sent may yet be done."""
    await bench.tags(PLAIN)
    request = bench.request(PLAIN, timeout_s=5.0)
    async with bench.target.unreachable():
        answer = await told(bench.driver.create_snapshot(request))
    await expect_truth(bench, PLAIN, request.tag, answer)


@TOPIC.shall(
    10,
    Level.FAULT,
    "A listing that the system does not answer shall raise an error, and not be empty.",
    hooks=("unreachable",),
)
async def unreachable_list_fails(bench: HypervisorBench) -> None:
    """An empty one says that nothing is left to be removed."""
    made = await bench.create(PLAIN)
    async with bench.target.unreachable():
        try:
            states = await bench.driver.list_snapshots([bench.ids[PLAIN]])
        except DriverError as error:
            bench.note(error=f"{type(error).__name__}: {error}")
            return
    bench.expect(
        made.ref in [ref for state in states for ref in state.snapshots],
        "the system does not answer, and a listing has not failed but lacks what there is",
    )


@TOPIC.shall(
    11,
    Level.FAULT,
    "Times that a driver reports shall be on the clock of the event loop, however wrong the "
    "system's clock is.",
    hooks=("skewed_clock",),
)
async def skew_does_not_show(bench: HypervisorBench) -> None:
    """An hour ahead and an hour behind."""
    for skew_s in _SKEWS_S:
        async with bench.target.skewed_clock(skew_s):
            start_s = bench.now_s()
            made = await bench.driver.create_snapshot(bench.request(PLAIN))
            end_s = bench.now_s()
            await bench.remove(made.ref)
        times = {"created": [made.created_s]}
        for name, window in (("quiesce", made.quiesce), ("stun", made.stun)):
            if window is not None:
                times[name] = [window.start_s, window.end_s]
        wrong = [name for name, at in times.items() if min(at) < start_s or max(at) > end_s]
        bench.expect(
            not wrong,
            "times of a snapshot do not lie within the call that reports them",
            skew_s=skew_s,
            call=[start_s, end_s],
            times=times,
        )


@TOPIC.shall(
    12,
    Level.FAULT,
    "A removal whose answer is lost shall be repeatable: it then succeeds or raises NotFoundError.",
    hooks=("lost_answers",),
)
async def lost_removal_is_repeatable(bench: HypervisorBench) -> None:
    """A caller that knows nothing asks again."""
    made = await bench.create(PLAIN)
    call = bench.driver.remove_snapshot(made.ref)
    await _told_unknown(bench, "remove_snapshot", call)
    await settled(bench, PLAIN)
    again = await told_of_removal(bench.driver.remove_snapshot(made.ref))
    bench.expect(
        isinstance(again, MergeResult | NotFoundError),
        "a removal that was repeated after a lost answer has failed otherwise",
        said=f"{type(again).__name__}: {again}",
    )
    bench.expect(
        made.ref.tag not in await bench.tags(PLAIN), "the snapshot is there after two removals"
    )
