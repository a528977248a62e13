"""What the checks of array drivers work with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from ..drivers.contracts import (
    ArrayCapabilities,
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    ReadableArrayDriver,
)
from ..drivers.errors import BusyError, DriverError, NotFoundError, UnknownOutcomeError
from ..drivers.records import StorageUnit, UnitId
from .array_target import BLOCK_BYTES, ArrayTarget, ScratchUnit
from .bench import Bench
from .effort import Effort
from .recording import CallLog
from .requirement import Blocked, Violation

FENCE_TIMEOUT_S = 30.0
CLEAN_LIMIT_S = 10.0
CLEAN_STEP_S = 0.1


@dataclass(frozen=True, slots=True)
class BenchUnit:
    """A scratch unit and what the driver made of it: ``id`` is the driver's identifier."""

    number: int
    scratch: ScratchUnit
    unit: StorageUnit

    @property
    def id(self) -> UnitId:
        """The identifier under which calls name it."""
        return self.unit.id


class ArrayBench(Bench[ArrayDriver, ArrayTarget]):
    """One check's view of an array.

    Attributes
    ----------
    units:
        The scratch units, three at least.
    before:
        What ``snapshots_on_device`` said before the suite; None where the target cannot say.
    """

    def __init__(
        self,
        driver: ArrayDriver,
        target: ArrayTarget,
        units: Sequence[BenchUnit],
        effort: Effort,
        limits: Mapping[str, float],
        run: str,
        seed: int,
        log: CallLog,
    ) -> None:
        super().__init__(driver, target, effort, limits, run, seed, log)
        self.units = tuple(units)
        self.before: frozenset[str] | None = None
        self._clones: dict[UnitId, StorageUnit] = {}

    @property
    def capabilities(self) -> ArrayCapabilities:
        """What the driver declares."""
        return self.driver.capabilities

    @property
    def readable(self) -> ReadableArrayDriver:
        """The driver, for calls that depend on ``reads_back`` or ``clones``."""
        return cast("ReadableArrayDriver", self.driver)

    # -- calls of the driver ---------------------------------------------------------------------

    def request(
        self, *units: BenchUnit, tag: str | None = None, fence_timeout_s: float = FENCE_TIMEOUT_S
    ) -> GroupSnapshotRequest:
        """A request for these units; under a new tag unless one is given."""
        ids = tuple(unit.id for unit in units)
        return GroupSnapshotRequest(ids, self.tag() if tag is None else tag, fence_timeout_s)

    async def cut(self, *units: BenchUnit, tag: str | None = None) -> GroupSnapshot:
        """A group snapshot that the requirement is not about. Raises Blocked when it fails."""
        made = await self.setup(
            self.driver.snapshot_group(self.request(*units, tag=tag)), "a group snapshot"
        )
        if {unit.id for unit in units} - set(made.unit_ids):
            raise Blocked("a group snapshot lacks units")
        return made

    async def listed(self, prefix: str | None = None) -> dict[str, GroupSnapshot]:
        """What the driver lists, by tag; of this run unless a prefix is given.

        Raises Blocked when listing fails, and Violation when a tag is listed twice.
        """
        wanted = self.tag_prefix if prefix is None else prefix
        found = await self.setup(self.driver.list_snapshots(wanted), "listing snapshots")
        tags = [one.ref.tag for one in found]
        twice = sorted({tag for tag in tags if tags.count(tag) > 1})
        self.expect(not twice, "a tag names two snapshots", tags=twice)
        return {one.ref.tag: one for one in found}

    async def delete(self, ref: GroupSnapshotRef) -> None:
        """A deletion that the requirement is not about. Raises Blocked when it fails."""
        await self.setup(self.driver.delete_snapshot(ref), "deleting a snapshot")

    async def read_back(
        self, ref: GroupSnapshotRef, unit: BenchUnit, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """What a snapshot holds of a unit, counted as ``write`` and ``read`` count."""
        start = unit.scratch.begins_bytes + offset_bytes
        return await self.readable.read_back(ref, unit.id, start, length_bytes)

    async def held(
        self, ref: GroupSnapshotRef, unit: BenchUnit, offset_bytes: int, length_bytes: int
    ) -> bytes:
        """What a snapshot holds of a unit. Raises Blocked when reading it fails."""
        return await self.setup(
            self.read_back(ref, unit, offset_bytes, length_bytes), "reading back"
        )

    async def clone(self, ref: GroupSnapshotRef, unit: BenchUnit, name: str) -> StorageUnit:
        """A clone that the requirement is not about. Raises Blocked when making it fails."""
        made = await self.setup(self.readable.clone(ref, unit.id, self.tag(name)), "a clone")
        return self.keep_clone(made)

    def keep_clone(self, clone: StorageUnit) -> StorageUnit:
        """Have a clone discarded when the check is over."""
        self._clones[clone.id] = clone
        return clone

    # -- data ------------------------------------------------------------------------------------

    async def write(self, unit: BenchUnit, offset_bytes: int, data: bytes) -> None:
        """Write to a unit as a host does."""
        await self.target.write(unit.scratch, offset_bytes, data)
        self.written_bytes += len(data)

    async def read(self, unit: BenchUnit, offset_bytes: int, length_bytes: int) -> bytes:
        """What a host reads of a unit now."""
        return await self.target.read(unit.scratch, offset_bytes, length_bytes)

    def random_bytes(self, length_bytes: int) -> bytes:
        """Bytes that nothing else holds, from the check's seed."""
        return self.rng.randbytes(length_bytes)

    def compare(self, got: bytes, wanted: bytes, what: str) -> None:
        """The driver breaks the requirement unless the bytes are the same.

        Raises
        ------
        Violation
            They differ; the first difference is told.
        """
        self.compared_bytes += len(wanted)
        if got == wanted:
            return
        if len(got) != len(wanted):
            raise Violation(f"{what}: {len(got)} bytes instead of {len(wanted)}")
        at = next(place for place in range(len(wanted)) if got[place] != wanted[place])
        differ = sum(mine != other for mine, other in zip(got, wanted, strict=True))
        raise Violation(
            f"{what}: {differ} of {len(wanted)} bytes differ, the first at {at}",
            first_difference_bytes=at,
            got=got[at : at + 16].hex(),
            wanted=wanted[at : at + 16].hex(),
        )

    def block(self) -> int:
        """The offset of a random block in the span that checks may write, in bytes."""
        return self.rng.randrange(self.span_bytes // BLOCK_BYTES) * BLOCK_BYTES

    @property
    def span_bytes(self) -> int:
        """What checks may write of each unit, from its beginning."""
        return min([self.effort.span_bytes, *(u.scratch.capacity_bytes for u in self.units)])

    # -- afterwards ------------------------------------------------------------------------------

    async def clean(self) -> list[str]:
        """Take away what a check made; what could not be, one sentence each."""
        left: list[str] = []
        for unit_id in list(self._clones):
            why = await self._taken_away(partial(self.readable.discard, unit_id))
            if why:
                left.append(f"clone {unit_id} is left: {why}")
            else:
                self._clones.pop(unit_id)
        try:
            found = await self.driver.list_snapshots(self.tag_prefix)
        except (DriverError, Violation) as error:
            return [*left, f"snapshots cannot be listed: {error}"]
        for one in found:
            why = await self._taken_away(partial(self.driver.delete_snapshot, one.ref))
            left += [f"snapshot {one.ref.tag} is left: {why}"] if why else []
        return left

    async def _taken_away(self, call: Callable[[], Awaitable[None]]) -> str:
        """Why something could not be deleted; empty when it is gone.

        A check may leave a call on its way that nobody waits for: what is busy is asked again.
        """
        end_s = self.now_s() + CLEAN_LIMIT_S
        while True:
            try:
                await call()
            except NotFoundError:
                return ""
            except (BusyError, UnknownOutcomeError) as error:
                if self.now_s() >= end_s:
                    return str(error)
                await asyncio.sleep(CLEAN_STEP_S)
            except (DriverError, Violation) as error:
                return str(error)
            else:
                return ""
