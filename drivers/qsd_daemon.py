"""What the parts of the qsd driver do with the daemon: images, exports, and its errors in ours."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    NeverWillError,
    PoolFullError,
    UnknownOutcomeError,
)
from .qsd_graph import Chain, Graph, read_graph
from .qsd_monitor import Look, Monitor, RefusedError
from .qsd_pool import (
    CLUSTER_BYTES,
    GroupRecord,
    Pool,
    PoolError,
    Stage,
    file_node_name,
    file_options,
    image_format,
    image_options,
    node_name,
)
from .records import ArrayId, UnitId

CREATE_JOB, MERGE_JOB = "create-", "merge-"
"""What the names of our jobs in the daemon begin with."""
_BUSY_RETRY_S = 1.0
_NO_SPACE = "No space left on device"


class Daemon:
    """One array: its pool, its monitor, and the names of its units.

    Parameters
    ----------
    array_id:
        Prefix of the identifiers of its units.
    lock_limit_s:
        For how long one waits for another process that is changing the pool.
    """

    def __init__(
        self, array_id: ArrayId, pool: Pool, monitor: Monitor, lock_limit_s: float
    ) -> None:
        self.array_id = array_id
        self.pool = pool
        self.monitor = monitor
        self._lock_limit_s = lock_limit_s

    def unit_id(self, name: str) -> UnitId:
        """The identifier of a unit or clone in the estate."""
        return f"{self.array_id}/{name}"

    def unit_name(self, unit_id: UnitId) -> str:
        """The name of a unit of ours; empty for one of another array."""
        head, _, name = unit_id.partition(f"{self.array_id}/")
        return "" if head else name

    async def graph(self, operation: str) -> Graph:
        """A look at what the daemon holds now."""
        return await read_graph(self.monitor, operation)

    def units(self, graph: Graph) -> list[str]:
        """The units that the daemon exports, without clones."""
        return [
            name
            for name, chain in graph.exports.items()
            if chain.images[-1] == self.pool.base(name)
        ]

    def complete(self, graph: Graph, record: GroupRecord) -> bool:
        """Whether the overlays of a group stand in the chains of all its units."""
        return all(
            unit in graph.exports
            and self.pool.overlay(unit, record) in graph.exports[unit].images[:-1]
            for unit in record.units
        )

    def is_clone(self, chain: Chain) -> bool:
        """Whether this is the chain of a clone."""
        return chain.images[0].parent == self.pool.clones

    def clone_name(self, chain: Chain) -> str:
        """What its maker called a clone."""
        return unquote(chain.images[0].stem)

    @contextlib.asynccontextmanager
    async def alone(self, operation: str, subject: str, tag: str = "") -> AsyncIterator[None]:
        """Be the only one that changes the pool, what others left half done put in order.

        Raises
        ------
        BusyError
            Another process held it for too long, or is making the group of this tag.
        """
        with translated(operation, subject), self._told_of(subject):
            async with contextlib.AsyncExitStack() as stack:
                try:
                    await stack.enter_async_context(self.pool.locked(0.0))
                except BlockingIOError:
                    making = self.pool.record(tag)
                    if making is not None and making.stage is Stage.MAKING:
                        raise being_made(operation, tag) from None
                    await stack.enter_async_context(self.pool.locked(self._lock_limit_s))
                await self._settle(operation)
                yield

    @contextlib.contextmanager
    def _told_of(self, subject: str) -> Iterator[None]:
        """What the monitor tells of the array is told of what the call is about."""
        try:
            yield
        except (DidNotHappenError, UnknownOutcomeError) as error:
            if error.subject != self.array_id:
                raise
            raise type(error)(error.operation, subject, error.reason, error.advice) from error

    async def _settle(self, operation: str) -> None:
        """Decide about groups whose maker ended in the middle.

        Their images are closed before anything is unlinked: a cut that was sent and is still on its
        way fails then, and one that was made keeps them open. A merge that goes on by itself is
        waited for: until it ends the daemon refuses snapshots. If it failed, it is tried again.
        """
        for job in await self.monitor.call(operation, "query-jobs"):
            if job["id"].startswith((CREATE_JOB, MERGE_JOB)):
                with contextlib.suppress(RefusedError):
                    await self.monitor.end_of_job(operation, job["id"])
        for record in [one for one in self.pool.records() if one.stage is Stage.MAKING]:
            await self.give_up(operation, record)
            if self.complete(await self.graph(operation), record):
                await self.keep(record.at(Stage.MADE))

    async def give_up(self, operation: str, record: GroupRecord) -> None:
        """Close and remove the overlays of a group, unless its cut has been made."""
        overlays = [self.pool.overlay(unit, record) for unit in record.units]
        for path in overlays:
            if not await self.close_image(operation, path):
                return
        for path in overlays:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        self.pool.forget(record)

    async def keep(self, record: GroupRecord) -> None:
        """Write a record down; this takes as long as the disk takes."""
        await asyncio.to_thread(self.pool.write, record)

    async def make_image(
        self, operation: str, path: Path, over: Path, capacity_bytes: int, backing: str | None
    ) -> None:
        """Make an overlay and open it, over the node ``backing`` or (so far) over nothing.

        Raises
        ------
        RefusedError
            The daemon could not.
        """
        _make_anew(path)
        change = self.monitor.change
        await change(operation, "blockdev-add", file_options(path))
        job = CREATE_JOB + node_name(path)
        options = {
            "driver": "qcow2",
            "file": file_node_name(path),
            "size": capacity_bytes,
            "cluster-size": CLUSTER_BYTES,
            "backing-file": str(over),
            "backing-fmt": image_format(over),
        }
        await self.monitor.run_job(
            operation, job, "blockdev-create", {"job-id": job, "options": options}
        )
        await change(operation, "blockdev-add", image_options(path, backing))

    async def close_image(self, operation: str, path: Path) -> bool:
        """Close an image; False when something still uses it."""
        named = await self.monitor.call(operation, "query-named-block-nodes", {"flat": True})
        open_nodes = {one["node-name"] for one in named}
        for node in (node_name(path), file_node_name(path)):
            if node in open_nodes:
                try:
                    await self.monitor.change(operation, "blockdev-del", {"node-name": node})
                except RefusedError:
                    return False
        return True

    async def end_export(self, operation: str, name: str) -> None:
        """Take an export away, and wait until it is gone; nothing to do is success."""
        try:
            await self.monitor.change(operation, "block-export-del", {"id": name, "mode": "hard"})
        except RefusedError:
            if not await self._is_exported(operation, name):
                return
        await self.monitor.until(
            operation, "BLOCK_EXPORT_DELETED", lambda: self._is_gone(operation, name)
        )

    async def _is_exported(self, operation: str, name: str) -> bool:
        exports: list[dict[str, Any]] = await self.monitor.call(operation, "query-block-exports")
        return any(one["id"] == name for one in exports)

    async def _is_gone(self, operation: str, name: str) -> Look:
        return Look(done=not await self._is_exported(operation, name))


def _make_anew(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)


def being_made(operation: str, tag: str) -> BusyError:
    """The group of this tag is on its way."""
    return BusyError(operation, tag, "it is being made just now", retry_after_s=_BUSY_RETRY_S)


@contextlib.contextmanager
def translated(operation: str, subject: str) -> Iterator[None]:
    """Errors of the daemon and the file system as those of a driver that has changed nothing."""
    try:
        yield
    except RefusedError as error:
        kind: type[DriverError]
        kind = PoolFullError if _NO_SPACE in str(error) else DidNotHappenError
        raise kind(operation, subject, str(error)) from error
    except PoolError as error:
        raise NeverWillError(operation, subject, error.what) from error
    except BlockingIOError as error:
        reason = "another process is changing the pool"
        raise BusyError(operation, subject, reason, retry_after_s=_BUSY_RETRY_S) from error
    except OSError as error:
        kinds = {errno.ENOSPC: PoolFullError, errno.ENAMETOOLONG: NeverWillError}
        kind = kinds.get(error.errno or 0, DidNotHappenError)
        raise kind(operation, subject, f"{error.filename}: {error.strerror}") from error


def not_ours(operation: str, unit_id: UnitId, array_id: ArrayId) -> DriverError:
    """The unit is not one of this array."""
    return NeverWillError(operation, unit_id, f"{array_id} has no such unit")
