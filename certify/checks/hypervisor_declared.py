"""What a driver declares of itself is true, whether it says that it can or that it cannot."""

from __future__ import annotations

import contextlib

from ...drivers.errors import DriverError, HappenedError
from ..array_target import BLOCK_BYTES
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import PLAIN
from ..requirement import Blocked, Level, NotTested, Topic

TOPIC: Topic[HypervisorBench] = Topic("declared capabilities", "HYP-DCL")

_BLOCKS = 256
"""Blocks that the guest writes for the size of a delta: 1 MiB."""
_FIRST_BLOCK = 512
"""Where it writes them."""


@TOPIC.shall(
    1,
    Level.CORE,
    "The window of a quiesced create shall be exact if and only if the driver declares "
    "reports_quiesce.",
)
async def quiesce_as_declared(bench: HypervisorBench) -> None:
    """An upper bound that is taken for exact makes guests look frozen for longer than they were."""
    declared, window = bench.capabilities.reports_quiesce, (await bench.create(PLAIN)).quiesce
    bench.note(declared=declared)
    exact = window is not None and window.exact
    what = "the driver declares that it sees freezes, and gives no exact window of one"
    bench.expect(exact or not declared, what, window=repr(window))
    what = "the driver declares that it does not see freezes, and gives an exact window of one"
    bench.expect(declared or not exact, what, window=repr(window))


@TOPIC.shall(
    2,
    Level.CORE,
    "A create on a running VM shall tell its stun if and only if the driver declares reports_stun.",
)
async def stun_as_declared(bench: HypervisorBench) -> None:
    """What cannot be seen is None, not a window of no length."""
    declared, made = bench.capabilities.reports_stun, await bench.create(PLAIN, quiesce=False)
    bench.note(declared=declared)
    what = "the driver declares that it sees stuns, and tells none of a create on a running VM"
    bench.expect(made.stun is not None or not declared, what)
    what = "the driver declares that it does not see stuns, and tells one"
    bench.expect(declared or made.stun is None, what, stun=repr(made.stun))


@TOPIC.shall(
    3,
    Level.CORE,
    "A removal shall tell the size of the delta if and only if the driver declares reports_delta.",
)
async def delta_as_declared(bench: HypervisorBench) -> None:
    """What cannot be seen is None, not zero."""
    declared, made = bench.capabilities.reports_delta, await bench.create(PLAIN, quiesce=False)
    merged = await bench.setup(bench.driver.remove_snapshot(made.ref), "removing the snapshot")
    bench.note(declared=declared)
    what = "the driver declares that it sees the size of deltas, and does not tell it"
    bench.expect(merged.delta_bytes is not None or not declared, what)
    what = "the driver declares that it does not see the size of deltas, and tells one"
    bench.expect(declared or merged.delta_bytes is None, what, delta_bytes=merged.delta_bytes)


@TOPIC.shall(
    4,
    Level.CORE,
    "The size that a removal tells of a delta shall hold at least what the guest has written while "
    "the snapshot was open, in bytes.",
    capability="reports_delta",
    hooks=("write",),
)
async def delta_in_bytes(bench: HypervisorBench) -> None:
    """Random bytes, each block once, so that none of it can be left out."""
    made = await bench.create(PLAIN, quiesce=False)
    for block in range(_BLOCKS):
        await bench.write(PLAIN, _FIRST_BLOCK + block)
    merged = await bench.setup(bench.driver.remove_snapshot(made.ref), "removing the snapshot")
    written, said = _BLOCKS * BLOCK_BYTES, merged.delta_bytes
    if said is None:
        raise NotTested("the removal did not tell the size of the delta")
    bench.expect(
        said >= written,
        "a delta is said to hold less than was written to it",
        delta_bytes=said,
        written_bytes=written,
    )


@TOPIC.shall(
    5,
    Level.CORE,
    "Capabilities shall be the same on every connection and at every time.",
)
async def constant(bench: HypervisorBench) -> None:
    """A job asks once."""
    before = bench.capabilities
    async with bench.another_driver() as other:
        elsewhere = other.capabilities
        await bench.remove((await bench.create(PLAIN)).ref)
        said = [before, elsewhere, bench.capabilities, other.capabilities]
    what = "the driver declares other capabilities on another connection, or later"
    bench.expect(all(one == before for one in said), what, said=[repr(one) for one in said])


@TOPIC.shall(
    6,
    Level.CORE,
    "Deltas that a removal has left shall be merged by consolidating if and only if the driver "
    "declares consolidates.",
    hooks=("failing_merge",),
)
async def consolidates_as_declared(bench: HypervisorBench) -> None:
    """A merge fails, then it is tried."""
    declared, vm_id = bench.capabilities.consolidates, bench.ids[PLAIN]
    made = await bench.create(PLAIN)
    async with bench.target.failing_merge(bench.vms[PLAIN]):
        try:
            await bench.driver.remove_snapshot(made.ref)
        except HappenedError:
            pass  # as it should
        except DriverError as error:
            raise Blocked(f"a failing merge was told otherwise: {error}") from error
    if not (await bench.state(PLAIN)).needs_consolidation:
        raise Blocked("after a failed merge, the VM is not said to need consolidation")
    if declared:
        await bench.driver.consolidate(vm_id)
    else:
        with contextlib.suppress(DriverError, NotImplementedError):
            await bench.driver.consolidate(vm_id)
    left = (await bench.state(PLAIN)).needs_consolidation
    bench.note(declared=declared)
    what = "the driver declares that it consolidates, and deltas are left when it has done so"
    bench.expect(not (declared and left), what)
    what = "the driver declares that it does not consolidate, and does"
    bench.expect(declared or left, what)
