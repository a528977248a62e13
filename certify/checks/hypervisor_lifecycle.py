"""Snapshots of VMs from their creation to their removal."""

from __future__ import annotations

from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import APART, INDEPENDENT, KEPT, PLAIN, RAW, SECOND, WIDE
from ..requirement import Level, NotTested, Topic

TOPIC: Topic[HypervisorBench] = Topic("lifecycle", "HYP-LIF")

_ROUNDS = 10
"""Most rounds of what depends on how two calls meet."""


@TOPIC.shall(
    1,
    Level.CORE,
    "A create shall answer with the VM and the tag that it was asked for.",
)
async def answers_what_was_asked(bench: HypervisorBench) -> None:
    """The answer is what the journal keeps."""
    request = bench.request(PLAIN, tag=bench.tag("Mixed_CASE"))
    ref = (await bench.driver.create_snapshot(request)).ref
    bench.expect(
        (ref.vm_id, ref.tag) == (request.vm_id, request.tag),
        "the answer to a create names another VM or another tag than the request",
        asked=[request.vm_id, request.tag],
        answered=[ref.vm_id, ref.tag],
    )


@TOPIC.shall(
    2,
    Level.CORE,
    "A snapshot shall be listed, by the reference that the create has answered with, as soon as "
    "the create has returned.",
)
async def listed_when_made(bench: HypervisorBench) -> None:
    """Whoever has lost his journal finds it there."""
    ref = (await bench.create(PLAIN)).ref
    listed = (await bench.state(PLAIN)).snapshots
    bench.expect(
        ref in listed,
        "a snapshot is not listed by the reference that its create has answered with",
        answered=list(ref),
        listed=[list(one) for one in listed],
    )


@TOPIC.shall(
    3,
    Level.CORE,
    "A snapshot shall not be listed any more as soon as its removal has returned.",
)
async def gone_when_removed(bench: HypervisorBench) -> None:
    """A removal that returns early leaves a delta that grows on."""
    ref = (await bench.create(PLAIN)).ref
    await bench.driver.remove_snapshot(ref)
    left = await bench.tags(PLAIN)
    bench.expect(ref.tag not in left, "the removal has returned, and the snapshot is still listed")


@TOPIC.shall(
    4,
    Level.CORE,
    "A removal shall remove the snapshot that it is asked to, and none that was made after it.",
)
async def only_itself(bench: HypervisorBench) -> None:
    """The tag of the later one begins with the tag of the earlier one."""
    first = (await bench.create(PLAIN)).ref
    second = (await bench.create(PLAIN, tag=f"{first.tag}0")).ref
    await bench.remove(first)
    left = await bench.tags(PLAIN)
    bench.expect(second.tag in left, "a removal has also removed the snapshot made after it")


@TOPIC.shall(
    5,
    Level.CORE,
    "A snapshot shall be removable while earlier and later ones exist, and they shall stay.",
)
async def from_the_middle(bench: HypervisorBench) -> None:
    """Three snapshots; the one in the middle goes."""
    oldest, middle, newest = [(await bench.create(PLAIN)).ref for _ in range(3)]
    await bench.driver.remove_snapshot(middle)
    left = await bench.tags(PLAIN)
    bench.expect(
        {oldest.tag, newest.tag} <= set(left),
        "removing the snapshot in the middle of three does not leave the other two",
        listed=left,
        wanted=[oldest.tag, newest.tag],
    )


@TOPIC.shall(
    6,
    Level.CORE,
    "A snapshot shall be removable on a connection that has not made it.",
)
async def removed_elsewhere(bench: HypervisorBench) -> None:
    """The reference is all that is known of it."""
    ref = (await bench.create(PLAIN)).ref
    async with bench.another_driver() as other:
        await other.remove_snapshot(ref)
    left = await bench.tags(PLAIN)
    bench.expect(ref.tag not in left, "another connection could not remove the snapshot")


@TOPIC.shall(
    7,
    Level.CORE,
    "Snapshots of two VMs that are made at the same time shall each be answered for itself.",
    roles=(SECOND,),
)
async def two_at_once(bench: HypervisorBench) -> None:
    """Several rounds, since it depends on how they meet."""
    for _ in range(min(bench.effort.rounds, _ROUNDS)):
        asked = [bench.request(role) for role in (PLAIN, SECOND)]
        made = await bench.together(*(bench.driver.create_snapshot(one) for one in asked))
        answered = [(one.ref.vm_id, one.ref.tag) for one in made]
        bench.expect(
            answered == [(one.vm_id, one.tag) for one in asked],
            "of two creates at once, one was answered with the snapshot of the other",
            answered=answered,
        )
        await bench.together(*(bench.remove(one.ref) for one in made))


@TOPIC.shall(
    8,
    Level.CORE,
    "The time of a snapshot shall be told on the clock of the event loop, and lie within the call.",
)
async def created_within(bench: HypervisorBench) -> None:
    """Times of several systems are compared with each other on that clock."""
    start_s = bench.now_s()
    made = await bench.create(PLAIN)
    end_s = bench.now_s()
    bench.expect(
        start_s <= made.created_s <= end_s,
        "the snapshot was made outside of the call that made it",
        after_start_s=round(made.created_s - start_s, 6),
        call_s=round(end_s - start_s, 6),
    )


@TOPIC.shall(
    9,
    Level.CORE,
    "A VM shall be snapshotted whatever disks it has: several, some that take no part, raw device "
    "mappings, some that already carry snapshots, some whose deltas lie elsewhere.",
)
async def every_kind(bench: HypervisorBench) -> None:
    """Those of these that the target has."""
    roles = [one for one in (WIDE, INDEPENDENT, RAW, KEPT, APART) if one in bench.vms]
    if not roles:
        raise NotTested("the target has no VM of such a role")
    bench.note(roles=roles)
    for role in roles:
        made = await bench.driver.create_snapshot(bench.request(role))
        listed = await bench.tags(role)
        bench.expect(made.ref.tag in listed, f"the snapshot of {role} is not listed", listed=listed)
        await bench.remove(made.ref)
