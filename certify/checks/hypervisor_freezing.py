"""Guests that do not freeze, agents that hang, and creates that fail once the guest is frozen."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from ...drivers.contracts import VmSnapshot
from ...drivers.errors import (
    DidNotHappenError,
    DriverError,
    NeverWillError,
    QuiesceFailedError,
    QuiesceTimeoutError,
)
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import PLAIN, SECOND
from ..requirement import Blocked, Level, NotTested, Topic
from .hypervisor_quiesce import CLOCKS_S
from .hypervisor_settling import LATER_S, THAW_S, settled, stays, tags_of, thaws, told

TOPIC: Topic[HypervisorBench] = Topic("failing to quiesce", "HYP-FRZ")

HUNG_S = 3.0
"""The limit for a freeze that is given to a create whose guest's agent hangs."""
GIVES_UP_S = 15.0
"""How much longer than that limit a create may take to come back."""
_LONG_S = 10.0
"""The limit given where another VM must not be held up for so long."""

Trouble = AbstractAsyncContextManager[None]


async def _refused(bench: HypervisorBench, trouble: Trouble, timeout_s: float = 60.0) -> str:
    """The tag of a create that fails in this trouble. Raises Blocked when it succeeds."""
    request = bench.request(PLAIN, timeout_s=timeout_s)
    async with trouble:
        answer = await told(bench.driver.create_snapshot(request))
    if isinstance(answer, VmSnapshot):
        raise Blocked("a create succeeded that could not quiesce the guest")
    return request.tag


async def _leaves_nothing(
    bench: HypervisorBench, trouble: Trouble, timeout_s: float = 60.0
) -> None:
    """No snapshot is left of a create that fails in this trouble, and no file of it."""
    vm, files = bench.vms[PLAIN], bench.target.offers("files_of")
    before = await bench.target.files_of(vm) if files else frozenset()
    tag = await _refused(bench, trouble, timeout_s)
    left = tags_of(await settled(bench, PLAIN))
    bench.expect(
        tag not in left and await stays(bench, PLAIN, tag, listed=False),
        "a create has failed, and its snapshot is there",
        tag=tag,
    )
    if files:
        more = sorted(await bench.target.files_of(vm) - before)
        bench.expect(not more, "a create has failed, and files of it are left", files=more)


async def _thaws(
    bench: HypervisorBench, trouble: Trouble, timeout_s: float = 60.0, later_s: float = 0.0
) -> None:
    """The guest is thawed soon after a create has failed in this trouble.

    For ``later_s`` it is watched whether it freezes once more.
    """
    start_s = bench.now_s()
    await _refused(bench, trouble, timeout_s)
    end_s = bench.now_s()

    async def frozen() -> bool:
        spans = await bench.target.frozen_spans(bench.vms[PLAIN], start_s)
        return any(one.end_s > bench.now_s() for one in spans)

    if later_s:
        await bench.until(frozen, later_s)
    in_time = await thaws(bench, PLAIN, start_s)
    spans = await bench.target.frozen_spans(bench.vms[PLAIN], start_s)
    late = [one for one in spans if one.end_s > end_s + later_s + THAW_S + CLOCKS_S]
    bench.expect(
        in_time and not late,
        "a create has failed, and the guest stays frozen",
        failed_s=end_s,
        frozen_since_s=[one.start_s for one in spans],
    )


async def _fails_with(
    bench: HypervisorBench,
    trouble: Trouble,
    *wanted: type[DriverError],
    doing: str,
    timeout_s: float = 60.0,
) -> None:
    async with trouble:
        call = bench.driver.create_snapshot(bench.request(PLAIN, timeout_s=timeout_s))
        error = await bench.refused(call, *wanted, doing=doing)
    bench.note(error=f"{type(error).__name__}: {error}")


# -- the guest refuses ----------------------------------------------------------------------------


@TOPIC.shall(
    1,
    Level.FAULT,
    "A create whose guest refuses to freeze shall raise QuiesceFailedError.",
    hooks=("failing_freeze",),
)
async def refusal_is_said(bench: HypervisorBench) -> None:
    """Whether the snapshot is then taken without is for the caller to decide."""
    trouble = bench.target.failing_freeze(bench.vms[PLAIN])
    await _fails_with(bench, trouble, QuiesceFailedError, doing="a create whose guest refuses")


@TOPIC.shall(
    2,
    Level.FAULT,
    "A create whose guest refuses to freeze shall leave no snapshot and no file of it.",
    hooks=("failing_freeze",),
)
async def refusal_leaves_nothing(bench: HypervisorBench) -> None:
    """What is rolled back is rolled back whole."""
    await _leaves_nothing(bench, bench.target.failing_freeze(bench.vms[PLAIN]))


@TOPIC.shall(
    3,
    Level.FAULT,
    "A create whose guest refuses to freeze shall leave the guest thawed.",
    hooks=("failing_freeze", "frozen_spans"),
)
async def refusal_thaws(bench: HypervisorBench) -> None:
    """A freeze that fails on one file system may have frozen others."""
    await _thaws(bench, bench.target.failing_freeze(bench.vms[PLAIN]))


@TOPIC.shall(
    4,
    Level.FAULT,
    "A VM whose guest has refused to freeze shall be snapshotted without quiescing meanwhile, and "
    "with it as soon as the guest freezes again.",
    hooks=("failing_freeze",),
)
async def refusal_is_not_for_ever(bench: HypervisorBench) -> None:
    """What a policy that degrades does next."""
    async with bench.target.failing_freeze(bench.vms[PLAIN]):
        answer = await told(bench.driver.create_snapshot(bench.request(PLAIN)))
        if isinstance(answer, VmSnapshot):
            raise Blocked("a create succeeded that could not quiesce the guest")
        await bench.driver.create_snapshot(bench.request(PLAIN, quiesce=False))
    await bench.driver.create_snapshot(bench.request(PLAIN))


# -- the agent hangs ------------------------------------------------------------------------------


@TOPIC.shall(
    5,
    Level.FAULT,
    "A create whose guest's agent hangs shall raise QuiesceTimeoutError or QuiesceFailedError.",
    hooks=("hung_agent",),
)
async def hang_is_said(bench: HypervisorBench) -> None:
    """It did not happen, and why is known."""
    trouble = bench.target.hung_agent(bench.vms[PLAIN])
    doing = "a create whose guest's agent hangs"
    kinds = (QuiesceTimeoutError, QuiesceFailedError)
    await _fails_with(bench, trouble, *kinds, doing=doing, timeout_s=HUNG_S)


@TOPIC.shall(
    6,
    Level.FAULT,
    "A create whose guest's agent hangs shall come back within 15 s after the caller's limit for "
    "the freeze.",
    hooks=("hung_agent",),
)
async def hang_is_limited(bench: HypervisorBench) -> None:
    """The limit is the caller's, not that of the guest's tools."""
    start_s = bench.now_s()
    await _refused(bench, bench.target.hung_agent(bench.vms[PLAIN]), HUNG_S)
    took_s = bench.now_s() - start_s
    bench.note(limit_s=HUNG_S, took_s=took_s)
    bench.expect(
        took_s <= HUNG_S + GIVES_UP_S,
        "a create waits for a hung agent for longer than the caller allows",
    )


@TOPIC.shall(
    7,
    Level.FAULT,
    "A create whose guest's agent hangs shall leave no snapshot and no file of it.",
    hooks=("hung_agent",),
)
async def hang_leaves_nothing(bench: HypervisorBench) -> None:
    """Neither at once nor when the agent works again."""
    await _leaves_nothing(bench, bench.target.hung_agent(bench.vms[PLAIN]), HUNG_S)


@TOPIC.shall(
    8,
    Level.FAULT,
    "A create whose guest's agent hangs shall leave the guest thawed.",
    hooks=("hung_agent", "frozen_spans"),
)
async def hang_thaws(bench: HypervisorBench) -> None:
    """A request to freeze that is answered late must not freeze for good."""
    await _thaws(bench, bench.target.hung_agent(bench.vms[PLAIN]), HUNG_S, LATER_S)


@TOPIC.shall(
    9,
    Level.FAULT,
    "A create shall not wait for the agent of another VM that hangs.",
    hooks=("hung_agent",),
    roles=(SECOND,),
)
async def hang_holds_up_nobody(bench: HypervisorBench) -> None:
    """One guest of thousands hangs in every run."""
    async with bench.target.hung_agent(bench.vms[PLAIN]):
        request = bench.request(PLAIN, timeout_s=_LONG_S)
        hung = asyncio.ensure_future(told(bench.driver.create_snapshot(request)))
        try:
            await asyncio.sleep(CLOCKS_S)
            start_s = bench.now_s()
            await bench.create(SECOND)
            took_s = bench.now_s() - start_s
            done_before = hung.done()
        finally:
            await asyncio.wait([hung])
    bench.note(limit_s=_LONG_S, took_s=took_s)
    if done_before and took_s < _LONG_S / 2:
        raise NotTested("the create whose agent hangs was given up before the other was done")
    bench.expect(
        not done_before, "a create was held up by the agent of another VM for as long as that hung"
    )


# -- the snapshot fails while the guest is frozen -------------------------------------------------


@TOPIC.shall(
    10,
    Level.FAULT,
    "A create that the hypervisor fails to carry out shall raise an error that says that it did "
    "not happen.",
    hooks=("failing_create",),
)
async def failure_is_said(bench: HypervisorBench) -> None:
    """DidNotHappenError or one of its kinds, or NeverWillError."""
    trouble = bench.target.failing_create(bench.vms[PLAIN])
    kinds = (DidNotHappenError, NeverWillError)
    await _fails_with(bench, trouble, *kinds, doing="a create that the hypervisor fails")


@TOPIC.shall(
    11,
    Level.FAULT,
    "A create that fails after the guest was frozen shall thaw the guest.",
    hooks=("failing_create", "frozen_spans"),
)
async def failure_thaws(bench: HypervisorBench) -> None:
    """The guest's own limit may be a quarter of an hour away."""
    await _thaws(bench, bench.target.failing_create(bench.vms[PLAIN]))


@TOPIC.shall(
    12,
    Level.FAULT,
    "A create that fails after the guest was frozen shall leave no snapshot and no file of it.",
    hooks=("failing_create",),
)
async def failure_leaves_nothing(bench: HypervisorBench) -> None:
    """A hypervisor that makes files one by one may have made some."""
    await _leaves_nothing(bench, bench.target.failing_create(bench.vms[PLAIN]))
