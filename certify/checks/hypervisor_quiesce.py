"""Quiescing: the guest stands frozen when the snapshot is taken, and no longer than it must."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ...drivers.contracts import ConsistencyLevel, VmSnapshot, Window
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import OFF, PLAIN
from ..requirement import Blocked, Level, NotTested, Topic
from .guest_load import GuestLoad
from .hypervisor_settling import THAW_S, thaws

TOPIC: Topic[HypervisorBench] = Topic("quiescing", "HYP-QUI")

CLOCKS_S = 0.25
"""How far the guest's own account of its freeze and the driver's times may lie apart."""
MUCH_LONGER_S = 1.0
"""By how much an exact window may be longer than the freeze: the calls to the guest are in it."""
WRITE_S = 5.0
"""How long a guest's write may take when nothing is under way."""
_QUIESCED = (ConsistencyLevel.APPLICATION, ConsistencyLevel.FILESYSTEM)
_ROUNDS = 5
_SECOND_AREA = 100
"""The first of the blocks that the guest writes whose writes are held."""


async def _spans(bench: HypervisorBench, since_s: float) -> Sequence[Window]:
    return await bench.target.frozen_spans(bench.vms[PLAIN], since_s)


async def _quiesced(bench: HypervisorBench) -> tuple[float, VmSnapshot, Sequence[Window]]:
    """When a quiesced create was called, its answer, and when the guest stood frozen since then."""
    # Else a freeze of the check before, a moment ago, would count as one of this create.
    await asyncio.sleep(2 * CLOCKS_S)
    start_s = bench.now_s()
    made = await bench.create(PLAIN)
    await asyncio.sleep(CLOCKS_S)
    await thaws(bench, PLAIN, start_s)
    spans = await _spans(bench, start_s - CLOCKS_S)
    bench.note(called_s=start_s, created_s=made.created_s, frozen=[list(one[:2]) for one in spans])
    return start_s, made, spans


async def _windowed(bench: HypervisorBench) -> tuple[Window, Sequence[Window]]:
    """The quiesce window that a create has reported, and when the guest stood frozen."""
    _, made, spans = await _quiesced(bench)
    if made.quiesce is None:
        raise NotTested("the create has reported no quiesce window")
    if not spans:
        raise NotTested("the guest was not frozen")
    bench.note(window=list(made.quiesce))
    return made.quiesce, spans


@TOPIC.shall(
    1,
    Level.CORE,
    "A create that is asked to quiesce, and claims an image that is quiesced, shall keep the guest "
    "frozen at the moment that it gives as that of the snapshot.",
    hooks=("frozen_spans",),
)
async def frozen_at_the_cut(bench: HypervisorBench) -> None:
    """By the guest's own account."""
    for _ in range(min(_ROUNDS, bench.effort.rounds)):
        _, made, spans = await _quiesced(bench)
        at_s = made.created_s
        frozen = [one for one in spans if one.start_s - CLOCKS_S <= at_s <= one.end_s + CLOCKS_S]
        bench.expect(
            frozen or made.level not in _QUIESCED,
            "the snapshot is reported as quiesced, and the guest did not stand frozen when it was "
            "taken",
            level=made.level.value,
        )
        await bench.remove(made.ref)


@TOPIC.shall(
    2,
    Level.CORE,
    "A create that is not asked to quiesce shall not freeze the guest.",
    hooks=("frozen_spans",),
)
async def not_frozen_unasked(bench: HypervisorBench) -> None:
    """The caller may have frozen what he wanted frozen himself."""
    start_s = bench.now_s()
    await bench.create(PLAIN, quiesce=False)
    spans = await _spans(bench, start_s)
    begun = [list(one) for one in spans if one.start_s >= start_s - CLOCKS_S]
    bench.expect(not begun, "the guest was frozen, and nobody had asked for that", frozen=begun)


@TOPIC.shall(
    3,
    Level.CORE,
    "A create that is not asked to quiesce shall claim no more than a crash-consistent image of a "
    "VM that runs.",
)
async def crash_level_unasked(bench: HypervisorBench) -> None:
    """Nothing was flushed."""
    made = await bench.create(PLAIN, quiesce=False)
    bench.expect(
        made.level not in _QUIESCED,
        "an image is claimed to be quiesced that nobody quiesced",
        level=made.level.value,
    )


@TOPIC.shall(
    4,
    Level.CORE,
    "A create that is asked to quiesce a guest that can be quiesced shall reach the level "
    "filesystem or application.",
)
async def quiesced_level(bench: HypervisorBench) -> None:
    """The role says that the guest can be."""
    made = await bench.driver.create_snapshot(bench.request(PLAIN))
    bench.expect(
        made.level in _QUIESCED,
        "a guest that can be quiesced was asked to be, and the image is not claimed to be",
        level=made.level.value,
    )


@TOPIC.shall(
    5,
    Level.CORE,
    "A create shall report a quiesce window if it has frozen a running guest, and none if it was "
    "not asked to.",
)
async def window_if_quiesced(bench: HypervisorBench) -> None:
    """What a report says of the freeze comes from here."""
    asked = await bench.create(PLAIN)
    bench.expect(
        asked.quiesce is not None or asked.level not in _QUIESCED,
        "an image is claimed to be quiesced, and no quiesce window is reported",
        level=asked.level.value,
    )
    unasked = await bench.create(PLAIN, quiesce=False)
    bench.expect(
        unasked.quiesce is None,
        "a quiesce window is reported of a create that was not asked to quiesce",
        window=unasked.quiesce and list(unasked.quiesce),
    )


@TOPIC.shall(
    6,
    Level.CORE,
    "A quiesce window shall lie within the call that reports it, on the clock of the event loop.",
)
async def window_within_the_call(bench: HypervisorBench) -> None:
    """Not on the clock of the guest, nor on that of the server."""
    start_s = bench.now_s()
    made = await bench.create(PLAIN)
    end_s = bench.now_s()
    if made.quiesce is None:
        raise NotTested("the create has reported no quiesce window")
    bench.expect(
        start_s <= made.quiesce.start_s <= made.quiesce.end_s <= end_s,
        "the quiesce window does not lie within the call",
        call=[start_s, end_s],
        window=list(made.quiesce),
    )


@TOPIC.shall(
    7,
    Level.CORE,
    "A quiesce window shall cover the whole time for which the guest stood frozen.",
    hooks=("frozen_spans",),
)
async def window_covers_the_freeze(bench: HypervisorBench) -> None:
    """An upper bound does, and an exact one too."""
    window, spans = await _windowed(bench)
    outside = [
        list(one)
        for one in spans
        if one.start_s < window.start_s - CLOCKS_S or one.end_s > window.end_s + CLOCKS_S
    ]
    bench.expect(
        not outside, "the guest stood frozen outside the window that is reported", outside=outside
    )


@TOPIC.shall(
    8,
    Level.CORE,
    "A quiesce window that is called exact shall be no longer than the guest stood frozen.",
    capability="reports_quiesce",
    hooks=("frozen_spans",),
)
async def exact_window_is_exact(bench: HypervisorBench) -> None:
    """But for the time that the calls to the guest take."""
    window, spans = await _windowed(bench)
    if not window.exact:
        raise NotTested("the window is not called exact")
    frozen_s = sum(one.duration_s for one in spans)
    bench.expect(
        window.duration_s <= frozen_s + MUCH_LONGER_S,
        "an exact quiesce window is much longer than the guest stood frozen",
        window_s=window.duration_s,
        frozen_s=frozen_s,
    )


@TOPIC.shall(
    9,
    Level.CORE,
    "The guest shall be thawed when a create returns.",
    hooks=("frozen_spans",),
)
async def thawed_on_return(bench: HypervisorBench) -> None:
    """By the guest's own account."""
    start_s = bench.now_s()
    await bench.create(PLAIN)
    end_s = bench.now_s()
    await asyncio.sleep(CLOCKS_S)
    late = [list(one) for one in await _spans(bench, start_s) if one.end_s > end_s + CLOCKS_S]
    bench.expect(not late, "the create has returned, and the guest was still frozen", frozen=late)


@TOPIC.shall(
    10,
    Level.DATA,
    "A guest's write shall be acknowledged within 5 s after a create has returned.",
    hooks=("write",),
)
async def writes_after_return(bench: HypervisorBench) -> None:
    """What the guest's users notice."""
    for block in range(min(_ROUNDS, bench.effort.rounds)):
        made = await bench.create(PLAIN)
        try:
            async with asyncio.timeout(WRITE_S):
                await bench.write(PLAIN, block)
        except TimeoutError:
            bench.expect(False, f"the guest's write was not acknowledged within {WRITE_S:g} s")
        await bench.remove(made.ref)


@TOPIC.shall(
    11,
    Level.CORE,
    "The guest shall be thawed within 5 s after the snapshot is taken.",
    hooks=("frozen_spans",),
)
async def thawed_at_once(bench: HypervisorBench) -> None:
    """A freeze that lasts as long as the caller allows stops the guest's users for that long."""
    _, made, spans = await _quiesced(bench)
    late = [list(one) for one in spans if one.end_s > made.created_s + THAW_S]
    bench.expect(
        not late, f"the guest stood frozen for more than {THAW_S:g} s after the snapshot", late=late
    )


@TOPIC.shall(
    12,
    Level.CORE,
    "A VM that is off shall be snapshotted although quiescing is asked for, and no quiesce window "
    "be reported.",
    roles=(OFF,),
)
async def off_has_no_guest(bench: HypervisorBench) -> None:
    """There is no guest to freeze."""
    made = await bench.driver.create_snapshot(bench.request(OFF))
    bench.expect(
        made.quiesce is None,
        "a quiesce window is reported of a VM that is off",
        window=made.quiesce and list(made.quiesce),
    )


@TOPIC.shall(
    13,
    Level.CORE,
    "A snapshot of a VM whose power was cut shall be claimed to be no more than crash-consistent.",
    hooks=("power_off", "power_on"),
)
async def crash_level_after_a_cut(bench: HypervisorBench) -> None:
    """It is off, but its file systems were not unmounted."""
    vm = bench.vms[PLAIN]
    await bench.target.power_off(vm)
    try:
        made = await bench.create(PLAIN)
        bench.expect(
            made.level not in _QUIESCED,
            "the power was cut, and the image is claimed to be quiesced",
            level=made.level.value,
        )
        await bench.remove(made.ref)
    finally:
        await bench.target.power_on(vm)


@TOPIC.shall(
    14,
    Level.DATA,
    "A quiesced create shall hold a guest's writes and fail none.",
    hooks=("write", "read"),
)
async def writes_are_held(bench: HypervisorBench) -> None:
    """A guest whose write fails mounts its file system read-only."""
    async with GuestLoad(bench, PLAIN, first_block=_SECOND_AREA) as load:
        for _ in range(min(_ROUNDS, bench.effort.rounds)):
            made = await bench.create(PLAIN)
            await _moves_on(load)
            await bench.remove(made.ref)
    bench.note(writes=load.count, longest_write_s=load.longest_s)
    bench.expect(not load.problem, "a write of the guest has failed", problem=load.problem)


async def _moves_on(load: GuestLoad) -> None:
    try:
        await load.more()
    except Blocked:
        if not load.problem:  # else it is what this is about
            raise
