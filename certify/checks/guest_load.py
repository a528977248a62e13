"""A guest that writes all the time, and knows what its disks owe it."""

from __future__ import annotations

import asyncio
import random
from itertools import cycle
from types import TracebackType
from typing import Self

from ...errors import StillframeError
from ..array_target import BLOCK_BYTES
from ..hypervisor_bench import HypervisorBench
from ..requirement import Blocked

BLOCKS = 48
"""Blocks of each disk that a load writes to at random: what is read there was written last."""
ROLLING = range(256, 1024)
"""Blocks of each disk that it writes to one after the other, so that what was written a while ago
is not covered up by what was written since."""
_LAST_WRITE_S = 30.0
"""How long the write that is under way at the end may take."""


class GuestLoad:
    """Writes random bytes, each write after the one before is acknowledged: one in three to the
    next of many blocks, the others to random ones of a few.

    Parameters
    ----------
    role:
        Whose guest.
    disks:
        The disks that it writes to.
    first_block:
        The first of the blocks that it writes to at random.

    Attributes
    ----------
    acknowledged:
        Per disk and block, the last bytes whose write was acknowledged.
    under_way:
        Disk, block and bytes of a write that was never acknowledged.
    count:
        Writes that were acknowledged.
    longest_s:
        What the slowest of them took.
    problem:
        What ended it before it was asked to end; empty if nothing.
    """

    def __init__(
        self,
        bench: HypervisorBench,
        role: str,
        disks: tuple[int, ...] = (0,),
        first_block: int = 0,
    ) -> None:
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        self.under_way: tuple[int, int, bytes] | None = None
        self.count = 0
        self.longest_s = 0.0
        self.problem = ""
        self._bench = bench
        self._role = role
        self._disks = disks
        self._first = first_block
        self._rng = random.Random(f"{bench.seed}/{role}/{first_block}")
        self._ends = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin; the blocks for random writes are written once before anything else happens."""
        for disk in self._disks:
            for block in range(self._first, self._first + BLOCKS):
                await self._write(disk, block)
                if self.problem:
                    raise Blocked(f"the guest of {self._role} cannot write: {self.problem}")
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End."""
        await self.end()

    async def end(self) -> None:
        """No write is begun any more; the one under way may be acknowledged yet."""
        self._ends = True
        task, self._task = self._task, None
        if task is None:
            return
        await asyncio.wait([task], timeout=_LAST_WRITE_S)
        if not task.done():
            task.cancel()
            self.problem = f"a write was not acknowledged within {_LAST_WRITE_S:g} s"
        await asyncio.gather(task, return_exceptions=True)

    async def more(self, writes: int = 10) -> None:
        """Wait for so many more writes. Raises Blocked when they do not come."""
        wanted = self.count + writes

        async def come() -> bool:
            return self.count >= wanted or bool(self.problem)

        if not await self._bench.until(come, _LAST_WRITE_S, 0.005) or self.problem:
            raise Blocked(f"the guest of {self._role} does not write any more: {self.problem}")

    async def check(self, what: str) -> None:
        """The driver breaks the requirement unless the guest reads all that it wrote.

        Raises
        ------
        Violation
            A write that was acknowledged is gone; ``what`` is the sentence of the certificate.
        """
        under_way = self.under_way
        for (disk, block), wanted in self.acknowledged.items():
            got = await self._bench.read(self._role, block, disk)
            if under_way is not None and got == under_way[2] and (disk, block) == under_way[:2]:
                continue
            self._bench.compare(got, wanted, f"{what} (disk {disk}, block {block})")

    async def _run(self) -> None:
        rolling = cycle(ROLLING)
        while not self._ends and not self.problem:
            disk = self._rng.choice(self._disks)
            block = self._first + self._rng.randrange(BLOCKS)
            if self.count % 3 == 0:
                block = next(rolling)
            await self._write(disk, block)

    async def _write(self, disk: int, block: int) -> None:
        data = self._rng.randbytes(BLOCK_BYTES)
        start_s = self._bench.now_s()
        self.under_way = disk, block, data
        try:
            await self._bench.write(self._role, block, data, disk)
        except (StillframeError, OSError) as error:
            self.problem = f"{type(error).__name__}: {error}"
            return
        self.under_way = None
        self.acknowledged[disk, block] = data
        self.count += 1
        self.longest_s = max(self.longest_s, self._bench.now_s() - start_s)
