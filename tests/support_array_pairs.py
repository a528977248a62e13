"""A writer whose writes depend on each other: a number to one unit, then the same to another."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from support_blocks import aligned, block_of, direct, write_block

LIMIT_S = 60.0


class PairWriter:
    """Counts in two files, each write acknowledged before the next begins, in a thread.

    At any instant the first file holds the number of the second or one more.

    Parameters
    ----------
    durable:
        Whether a write is acknowledged when it is durable, not when the array has taken it. The
        latter is faster, so that a pair fits into a shorter time between two cuts.
    """

    def __init__(self, first: Path, second: Path, *, durable: bool = True) -> None:
        self.done = 0
        """The last number that both files were known to hold."""
        self._files = (first, second)
        self._durable = durable
        self._ended = threading.Event()
        self._moved = asyncio.Event()

    async def __aenter__(self) -> Self:
        for file in self._files:
            await asyncio.to_thread(write_block, file, 0, 0)
        self._thread = asyncio.create_task(
            asyncio.to_thread(self._write, asyncio.get_running_loop())
        )
        self._thread.add_done_callback(lambda _: self._moved.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended.set()
        await self._thread

    async def pairs(self, count: int) -> None:
        """Wait for so many more pairs."""
        goal = self.done + count
        async with asyncio.timeout(LIMIT_S):
            while self.done < goal and not self._thread.done():
                self._moved.clear()
                await self._moved.wait()

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        with ExitStack() as stack:
            flags = os.O_RDWR | os.O_DSYNC * self._durable
            handles = [stack.enter_context(direct(file, flags)) for file in self._files]
            buffer = stack.enter_context(aligned())
            while not self._ended.is_set():
                buffer[:] = block_of(self.done + 1)
                for handle in handles:
                    os.pwritev(handle, [buffer], 0)
                self.done += 1
                loop.call_soon_threadsafe(self._moved.set)
