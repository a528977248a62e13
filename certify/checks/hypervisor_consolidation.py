"""Merges that fail, and what is left of them: the snapshot is gone and its delta is not.

Nothing is made to fail on a system whose driver cannot consolidate: the deltas would be left there.
"""

from __future__ import annotations

from ...drivers.contracts import VmSnapshot
from ...drivers.errors import DriverError, HappenedError, UnknownOutcomeError
from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import KEPT, PLAIN
from ..requirement import Blocked, Level, Topic
from .guest_load import GuestLoad
from .hypervisor_settling import settled, tags_of, told_of_removal

TOPIC: Topic[HypervisorBench] = Topic("failing merges and consolidation", "HYP-CNS")

_ROUNDS = 3


async def _half_removed(bench: HypervisorBench, made: VmSnapshot | None = None) -> VmSnapshot:
    """A snapshot whose removal has failed to merge. Raises Blocked if it is still listed."""
    taken = made or await bench.create(PLAIN, quiesce=False)
    async with bench.target.failing_merge(bench.vms[PLAIN]):
        await told_of_removal(bench.driver.remove_snapshot(taken.ref))
    if taken.ref.tag in tags_of(await settled(bench, PLAIN)):
        raise Blocked("a removal whose merge has to fail has left the snapshot listed")
    return taken


async def _consolidate(bench: HypervisorBench, role: str = PLAIN) -> None:
    call = bench.driver.consolidate(bench.ids[role])
    await bench.setup(call, f"consolidating {role}")


@TOPIC.shall(
    1,
    Level.FAULT,
    "A removal that takes the snapshot away and cannot merge its delta shall raise HappenedError.",
    capability="consolidates",
    hooks=("failing_merge",),
)
async def failed_merge_is_said(bench: HypervisorBench) -> None:
    """It has happened: to repeat it finds nothing, and the delta grows."""
    made = await bench.create(PLAIN)
    async with bench.target.failing_merge(bench.vms[PLAIN]):
        call = bench.driver.remove_snapshot(made.ref)
        doing = "a removal whose merge fails"
        error = await bench.refused(call, HappenedError, doing=doing)
    bench.note(error=str(error))


@TOPIC.shall(
    2,
    Level.FAULT,
    "A VM whose merge has failed shall be listed as needing consolidation, and without the "
    "snapshot.",
    capability="consolidates",
    hooks=("failing_merge",),
)
async def failed_merge_is_listed(bench: HypervisorBench) -> None:
    """A recovery that has no answer to go by sees it here."""
    await _half_removed(bench)
    state = await bench.state(PLAIN)
    bench.expect(
        state.needs_consolidation,
        "a merge has failed, and the VM is not listed as needing consolidation",
    )


@TOPIC.shall(
    3,
    Level.FAULT,
    "A VM of which no merge has failed shall not be listed as needing consolidation.",
)
async def whole_chains_need_nothing(bench: HypervisorBench) -> None:
    """Neither without a snapshot nor with one."""
    without = await bench.state(PLAIN)
    await bench.create(PLAIN)
    with_one = await bench.state(PLAIN)
    bench.expect(
        not without.needs_consolidation and not with_one.needs_consolidation,
        "a VM whose chain is whole is listed as needing consolidation",
        without_a_snapshot=without.needs_consolidation,
        with_a_snapshot=with_one.needs_consolidation,
    )


@TOPIC.shall(
    4,
    Level.FAULT,
    "A consolidation shall leave no file of a delta whose merge had failed, and the VM shall not "
    "be listed as needing it any more.",
    capability="consolidates",
    hooks=("failing_merge", "files_of"),
)
async def consolidation_clears_away(bench: HypervisorBench) -> None:
    """The files are looked for where they lie."""
    vm = bench.vms[PLAIN]
    before = await bench.target.files_of(vm)
    await _half_removed(bench)
    await bench.driver.consolidate(bench.ids[PLAIN])
    left = sorted(await bench.target.files_of(vm) - before)
    bench.expect(not left, "a VM is consolidated, and files of a delta are left", files=left)
    state = await settled(bench, PLAIN)
    bench.expect(not state.needs_consolidation, "a VM is consolidated, and is listed as needing it")


@TOPIC.shall(
    5,
    Level.FAULT,
    "A merge that fails, and the consolidation after it, shall lose nothing that the guest wrote.",
    capability="consolidates",
    hooks=("failing_merge", "write", "read"),
)
async def consolidation_loses_nothing(bench: HypervisorBench) -> None:
    """The guest writes all the time: before, while it is half removed, and during the merge."""
    for _ in range(min(_ROUNDS, bench.effort.rounds)):
        async with GuestLoad(bench, PLAIN) as load:
            made = await bench.create(PLAIN, quiesce=False)
            await load.more()
            await _half_removed(bench, made)
            await load.more()
            await _consolidate(bench)
            await load.more()
        await load.check("after a consolidation the guest does not read what it wrote")


@TOPIC.shall(
    6,
    Level.CORE,
    "A consolidation that has nothing to do shall succeed.",
    capability="consolidates",
)
async def nothing_to_do_is_success(bench: HypervisorBench) -> None:
    """A recovery asks for it without looking."""
    await bench.driver.consolidate(bench.ids[PLAIN])
    await bench.driver.consolidate(bench.ids[PLAIN])


@TOPIC.shall(
    7,
    Level.CORE,
    "A consolidation shall remove no snapshot.",
    capability="consolidates",
)
async def consolidation_keeps_snapshots(bench: HypervisorBench) -> None:
    """Only what has no snapshot above it is merged."""
    made = await bench.create(PLAIN)
    await _consolidate(bench)
    bench.expect(
        made.ref in (await settled(bench, PLAIN)).snapshots,
        "a consolidation has removed a snapshot",
    )


@TOPIC.shall(
    8,
    Level.CORE,
    "A consolidation shall leave a snapshot of somebody else alone.",
    capability="consolidates",
    roles=(KEPT,),
)
async def consolidation_keeps_foreign(bench: HypervisorBench) -> None:
    """It is nobody's to merge but his."""
    before = (await bench.state(KEPT)).snapshots
    await _consolidate(bench, KEPT)
    after = (await settled(bench, KEPT)).snapshots
    bench.expect(
        after == before,
        "a consolidation has removed a snapshot of somebody else",
        before=[one.tag for one in before],
        after=[one.tag for one in after],
    )


@TOPIC.shall(
    9,
    Level.FAULT,
    "A merge that fails, and the consolidation after it, shall leave other snapshots of the VM.",
    capability="consolidates",
    hooks=("failing_merge",),
)
async def others_survive_a_failed_merge(bench: HypervisorBench) -> None:
    """The older of two is the one that fails."""
    older = await bench.create(PLAIN)
    newer = await bench.create(PLAIN)
    await _half_removed(bench, older)
    await _consolidate(bench)
    bench.expect(
        newer.ref in (await settled(bench, PLAIN)).snapshots,
        "a merge has failed and was finished, and with it another snapshot is gone",
    )
    await bench.driver.remove_snapshot(newer.ref)


@TOPIC.shall(
    10,
    Level.FAULT,
    "A consolidation whose answer is lost shall raise UnknownOutcomeError or find out what came of "
    "it, and be repeatable.",
    capability="consolidates",
    hooks=("failing_merge", "lost_answers"),
)
async def lost_consolidation_is_repeatable(bench: HypervisorBench) -> None:
    """Repeated, it has nothing to do."""
    await _half_removed(bench)
    said: DriverError | None = None
    async with bench.target.lost_answers("consolidate"):
        try:
            await bench.driver.consolidate(bench.ids[PLAIN])
        except DriverError as error:
            said = error
    bench.note(error="none" if said is None else f"{type(said).__name__}: {said}")
    state = await settled(bench, PLAIN)
    bench.expect(
        said is None
        or isinstance(said, UnknownOutcomeError | HappenedError)
        or state.needs_consolidation,
        "the answer to a consolidation was lost, and the driver claims that it did not happen",
        said=type(said).__name__,
    )
    await bench.driver.consolidate(bench.ids[PLAIN])
    bench.expect(
        not (await settled(bench, PLAIN)).needs_consolidation,
        "a consolidation was repeated, and the VM still needs it",
    )
