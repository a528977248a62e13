"""What is left when the suite is over: nothing, and every VM as it was."""

from __future__ import annotations

import asyncio

from ..hypervisor_bench import HypervisorBench
from ..hypervisor_target import OFF
from ..requirement import Level, Topic, Violation

TOPIC: Topic[HypervisorBench] = Topic("after the suite", "HYP-END")

_BLOCK = 1000
"""Where guests write last."""
_WRITE_S = 60.0
"""How long a write may take that nothing holds."""
_ENDING_S = 10.0
"""How long what was closed or removed may take to be gone."""


@TOPIC.shall(
    1,
    Level.CORE,
    "Every snapshot of the suite shall be removable and gone at its end, with no delta left that "
    "the driver can consolidate.",
)
async def no_snapshot_left(bench: HypervisorBench) -> None:
    """One more of every VM first, which is removed as after a failed check."""
    for role in bench.vms:
        await bench.create(role, quiesce=False)
    left = [*bench.left, *await bench.clean()]
    bench.expect(not left, "what the suite made could not be removed", left=left)
    tags: list[str] = []
    loose: list[str] = []

    async def none_left() -> bool:
        states = await bench.driver.list_snapshots(list(bench.ids.values()))
        all_tags = [ref.tag for state in states for ref in state.snapshots]
        tags[:] = [tag for tag in all_tags if tag.startswith(bench.tag_prefix)]
        if bench.capabilities.consolidates:
            loose[:] = [state.vm_id for state in states if state.needs_consolidation]
        return not tags and not loose

    done = await bench.until(none_left, _ENDING_S)
    what = "a snapshot of the suite is still listed, or a VM needs consolidation"
    bench.expect(done, what, tags=tags, needs_consolidation=loose)


@TOPIC.shall(
    2,
    Level.CORE,
    "The datastores shall hold as many disk files of each VM at the end as before the suite.",
    hooks=("files_of",),
)
async def no_file_left(bench: HypervisorBench) -> None:
    """After one more snapshot of each; a delta that nobody lists takes space for ever."""
    for role in bench.vms:
        await bench.remove((await bench.create(role, quiesce=False)).ref)
    for role, vm in bench.vms.items():
        if (await bench.state(role)).needs_consolidation and not bench.capabilities.consolidates:
            continue  # a merge was made to fail, and nobody could finish it
        files = await bench.target.files_of(vm)
        bench.expect(
            len(files) == bench.files_before.get(role),
            f"the VM of role {role} has more or fewer disk files than before the suite",
            before=bench.files_before.get(role),
            files=sorted(path for _, path in files),
        )


@TOPIC.shall(
    3,
    Level.CORE,
    "Every guest that ran before the suite shall be able to write and read at its end.",
    hooks=("write", "read"),
)
async def guests_write(bench: HypervisorBench) -> None:
    """None is left frozen, stunned or without its disks; after one more snapshot of each."""
    for role in bench.vms:
        if role == OFF:
            continue
        await bench.remove((await bench.create(role, quiesce=False)).ref)
        try:
            async with asyncio.timeout(_WRITE_S):
                wrote = await bench.write(role, _BLOCK)
                got = await bench.read(role, _BLOCK)
        except TimeoutError:
            raise Violation(f"the guest of role {role} cannot write any more") from None
        bench.compare(got, wrote, f"the guest of role {role} reads what it has not written")


@TOPIC.shall(
    4,
    Level.CORE,
    "Every VM shall have the power state at the end that it had before the suite.",
)
async def same_power(bench: HypervisorBench) -> None:
    """After one more snapshot of each."""
    for role in bench.vms:
        await bench.remove((await bench.create(role, quiesce=False)).ref)
        state = (await bench.vm(role)).power_state
        wanted = bench.power_before[role]
        what = f"the VM of role {role} is {state.value} after the suite, and was {wanted.value}"
        bench.expect(state is wanted, what)


@TOPIC.shall(
    5,
    Level.CORE,
    "A connection that is closed shall leave no task on the event loop.",
)
async def no_task_left(bench: HypervisorBench) -> None:
    """After a snapshot and its removal on it."""
    before = asyncio.all_tasks()
    async with bench.another_driver() as other:
        request = bench.request(next(iter(bench.vms)), quiesce=False)
        made = await bench.setup(other.create_snapshot(request), "a snapshot")
        await bench.setup(other.remove_snapshot(made.ref), "removing a snapshot")

    async def ended() -> bool:
        return not asyncio.all_tasks() - before

    done = await bench.until(ended, _ENDING_S)
    left = sorted(_name(task) for task in asyncio.all_tasks() - before)
    bench.expect(done, "a closed connection has left tasks on the event loop", tasks=left)


def _name(task: asyncio.Task[object]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())
