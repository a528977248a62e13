"""Merging overlays of a running VM: commit jobs that stand every kind of crash.

The overlay on top is merged with a job that does not finalise by itself. When it is pending, QEMU
holds the guest's writes and the file below holds the same data; in that state the overlay is
renamed (``.merged``), and only then does the job finish and the guest write on, into the file
below. So at no moment does a file count as the top of its chain that lacks an acknowledged write.
What a process leaves half done is in QEMU's jobs and in the files, and is taken up from there.

An overlay that others lie on takes no writes. Merging it finishes by itself: until QEMU has the
overlay above it name the file below, the chain stands as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import StillframeError
from .contracts import Window
from .deadman import DeadMan
from .deadman_child import JOB_PREFIX
from .qemu_blocks import Chain, read_chains
from .qemu_files import restore, retire, sync_file
from .qemu_hold import HeldElsewhereError, Hold, to_the_end
from .qemu_monitor import Monitor, MonitorHeldError, MonitorLostError, RefusedError, VmOffError
from .qemu_settings import Guest

T = TypeVar("T")
_AFTER_READY = ("waiting", "pending", "concluded")


class MergeFailedError(Exception):
    """A job failed, in QEMU's words; its overlay is still in the chain."""


_NOTHING_HELD = (
    asyncio.CancelledError,
    MergeFailedError,
    RefusedError,
    HeldElsewhereError,
    StillframeError,
)
"""What ends a merge before it holds the guest's writes, while QEMU is there."""


class Merging(NamedTuple):
    """One overlay to merge: its node, the file and node below, and the top of its chain."""

    overlay: Path
    node: str
    below: Path
    below_node: str
    top_node: str

    @property
    def job_id(self) -> str:
        """The job that merges it, whoever started it."""
        return JOB_PREFIX + self.node

    @property
    def is_active(self) -> bool:
        """Whether the guest writes to it."""
        return self.node == self.top_node


class Merged(NamedTuple):
    """What a merge moved, and for how long it held the guest's writes.

    ``merged_bytes`` is None when an overlay in the middle of a chain was merged: the progress of
    such a job counts what it looked at, not what it moved.
    """

    merged_bytes: int | None
    stun: Window | None


def mergings(chains: Sequence[Chain], overlays: Sequence[Path]) -> list[Merging]:
    """What there is to merge for these overlays: those of them that are in a chain."""
    wanted = set(overlays)
    return [
        Merging(link.path, link.node, below.path, below.node, chain[-1].node)
        for chain in chains
        for below, link in pairwise(chain)
        if link.path in wanted
    ]


async def merge(
    monitor: Monitor, guest: Guest, deadman: DeadMan, todo: Sequence[Merging]
) -> Merged:
    """Merge these overlays, all at the same point in time as far as the guest writes to them.

    Goes on with jobs that are under way. When cancelled before the guest's writes are held, the
    jobs are cancelled and every overlay stays; later, the work is done to its end first.

    Raises
    ------
    MergeFailedError, RefusedError
        A job failed or was refused; jobs that were not finished are cancelled.
    MonitorLostError
        QEMU went away.
    HeldElsewhereError, StillframeError
        As :meth:`Hold.begin`.
    """
    hold = Hold(deadman, guest.folder, "merge", guest.qmp)
    try:
        for one in todo:
            await _start(monitor, one)
        below = [one for one in todo if not one.is_active]
        for one in below:
            await _concluded(monitor, one)
        active = [one for one in todo if one.is_active]
        for one in active:
            await _ready(monitor, one)
            # Once now, so that little is left to be done while the guest's writes are held.
            await _in_thread(sync_file, one.below)
        if active:
            await hold.begin()
    except _NOTHING_HELD:
        await to_the_end(_cancel(monitor, todo))
        raise
    if not active:
        await _close_nodes(monitor, todo)
        return Merged(None, None)
    finished = await to_the_end(_finish(monitor, guest, hold, active))
    await _close_nodes(monitor, todo)
    return finished if not below else Merged(None, finished.stun)


async def _start(monitor: Monitor, one: Merging) -> None:
    job = await monitor.job(one.job_id)
    if job is not None and job["status"] == "concluded" and job.get("error"):
        await monitor.execute("job-dismiss", id=one.job_id)  # of an attempt that nobody saw end
        job = None
    if job is None:
        # What the overlay above is to name as its backing file; QEMU's own choice may hold options.
        named = {} if one.is_active else {"backing_file": str(one.below)}
        await monitor.execute(
            "block-commit",
            job_id=one.job_id,
            device=one.top_node,
            top_node=one.node,
            base_node=one.below_node,
            auto_finalize=not one.is_active,
            auto_dismiss=False,
            **named,
        )


async def _ready(monitor: Monitor, one: Merging) -> None:
    """Until overlay and file below hold the same, but for what is being written."""
    job = await monitor.wait_for_job(one.job_id, "ready", *_AFTER_READY)
    _check(job, one)


async def _concluded(monitor: Monitor, one: Merging) -> int:
    """Until the job has ended; the bytes that it moved."""
    job = await monitor.wait_for_job(one.job_id, "concluded")
    if job is None:
        raise MergeFailedError(f"QEMU has forgotten the job that merges {one.overlay.name}")
    moved = int(job["current-progress"])
    await monitor.execute("job-dismiss", id=one.job_id)
    _check(job, one)
    return moved


def _check(job: dict[str, Any] | None, one: Merging) -> None:
    if job is None or job.get("error"):
        reason = "its job is gone" if job is None else job["error"]
        raise MergeFailedError(f"{one.overlay.name} cannot be merged: {reason}")


async def _finish(monitor: Monitor, guest: Guest, hold: Hold, active: Sequence[Merging]) -> Merged:
    """From jobs that are ready to overlays that are gone from their chains."""
    loop = asyncio.get_running_loop()
    try:
        start_s = loop.time()
        for one in active:
            job = await monitor.job(one.job_id)
            if job is not None and job["status"] == "ready":
                await monitor.execute("job-complete", id=one.job_id)
        for one in active:
            _check(await monitor.wait_for_job(one.job_id, "pending", "concluded"), one)
        # All of them to the end: what is renamed when one fails decides which jobs are finished.
        retiring = (_in_thread(_retire, one) for one in active)
        for failed in await asyncio.gather(*retiring, return_exceptions=True):
            if failed is not None:
                raise failed
        for one in active:
            job = await monitor.job(one.job_id)
            if job is not None and job["status"] == "pending":
                await monitor.execute("job-finalize", id=one.job_id)
        moved = sum([await _concluded(monitor, one) for one in active])
    except Exception:
        if await _cancel(monitor, active):
            await _take_back(monitor, guest, active)
            hold.end()
        else:
            hold.leave()
        raise
    except BaseException:
        hold.leave()
        raise
    hold.end()
    return Merged(moved, Window(start_s, loop.time(), exact=False))


async def _in_thread(function: Callable[[T], None], argument: T) -> None:
    try:
        await asyncio.to_thread(function, argument)
    except OSError as error:
        raise MergeFailedError(f"a file could not be synced or renamed: {error}") from error


def _retire(one: Merging) -> None:
    sync_file(one.below)  # before the name that says that it holds everything
    retire(one.overlay)


async def _take_back(monitor: Monitor, guest: Guest, active: Sequence[Merging]) -> None:
    """Name an overlay as before that QEMU, against its own word, still writes to."""
    with contextlib.suppress(MonitorLostError, VmOffError):
        chains = await read_chains(monitor, guest)
        tops = {chain[-1].path for chain in chains}
        for one in active:
            if one.overlay in tops:
                await _in_thread(restore, one.overlay)


async def _close_nodes(monitor: Monitor, merged: Sequence[Merging]) -> None:
    """Have QEMU close overlays that it was started with: they keep their space until then."""
    files = {str(one.overlay) for one in merged}
    nodes = await monitor.execute("query-named-block-nodes", flat=True)
    # What lies on a node is named before it, and has to go first.
    left = [node["node-name"] for node in nodes if node["file"] in files]
    for name in sorted(left, key=[one.node for one in merged].__contains__, reverse=True):
        with contextlib.suppress(RefusedError):  # it went with the one before
            await monitor.execute("blockdev-del", node_name=name)


async def _cancel(monitor: Monitor, todo: Sequence[Merging]) -> bool:
    """Cancel the jobs that have not ended; one whose overlay is renamed is finished instead.

    Whether no job holds the guest's writes any more: QEMU has said so, or is gone.
    """
    try:
        for one in todo:
            if await monitor.job(one.job_id) is None:
                continue
            with contextlib.suppress(RefusedError):  # it has just ended
                retired = one.is_active and not one.overlay.exists()
                await monitor.execute("job-finalize" if retired else "job-cancel", id=one.job_id)
            await monitor.wait_for_job(one.job_id, "concluded")
            with contextlib.suppress(RefusedError):
                await monitor.execute("job-dismiss", id=one.job_id)
    except (MonitorLostError, VmOffError):
        return not await _is_there(monitor)
    except MonitorHeldError:
        return False
    return True


async def _is_there(monitor: Monitor) -> bool:
    try:
        return await monitor.is_on()
    except MonitorHeldError:
        return True
