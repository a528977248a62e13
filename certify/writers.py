"""Writers that load units with chains of writes, and note when each began and was acknowledged.

Where a unit has a path, a thread writes past the page cache and waits until each write is kept;
otherwise the target's ``write`` is awaited. Both clocks are the event loop's.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from .array_bench import ArrayBench, BenchUnit
from .array_target import BLOCK_BYTES, ArrayTarget
from .requirement import Blocked, NotTested
from .stamps import Plan

ADVANCE_LIMIT_S = 60.0
"""Writers that get no further for so long stand still."""
STOP_LIMIT_S = 60.0
_STEP_S = 0.002
_INSTANT_S = 0.0005
"""Between two writes that took no time at all, so that a modelled clock goes on."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One chain of a load: the length of its writes, and how many slots each unit has."""

    write_bytes: int = BLOCK_BYTES
    slots: int = 8


@dataclass(frozen=True, slots=True)
class Load:
    """What is written while snapshots are made."""

    name: str
    shapes: tuple[Shape, ...]

    @property
    def length_bytes(self) -> int:
        """What it takes of each unit."""
        return sum(shape.slots * shape.write_bytes for shape in self.shapes)


LIGHT = Load("light", (Shape(), Shape()))
HEAVY = Load("heavy", (*(Shape() for _ in range(4)), Shape(64 << 10, 2), Shape(128 << 10, 2)))


@dataclass(slots=True)
class Chain:
    """One chain under way.

    Attributes
    ----------
    issued_s, acknowledged_s:
        When each write began and was acknowledged; write 1 is the first of the list.
    trouble:
        Why it ended by itself; None while it has not.
    counted:
        Writes that the bench has counted.
    """

    plan: Plan
    issued_s: list[float] = field(default_factory=list)
    acknowledged_s: list[float] = field(default_factory=list)
    trouble: BaseException | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    counted: int = 0

    def issued(self, number: int) -> float:
        """When a write began; infinity while it has not."""
        return self.issued_s[number - 1] if number <= len(self.issued_s) else float("inf")

    def acknowledged(self, number: int) -> float:
        """When a write was acknowledged; infinity while it has not been."""
        known = self.acknowledged_s
        return known[number - 1] if number <= len(known) else float("inf")

    @property
    def latencies_s(self) -> list[float]:
        """How long each write took."""
        pairs = zip(self.issued_s, self.acknowledged_s, strict=False)
        return [end_s - start_s for start_s, end_s in pairs]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the chains were at one moment: numbers of writes begun and acknowledged."""

    at_s: float
    issued: tuple[int, ...]
    acknowledged: tuple[int, ...]


class Writers:
    """A load on some units; an asynchronous context manager.

    Parameters
    ----------
    units:
        All units that are written; plans name them by their place here.

    Attributes
    ----------
    chains:
        One for each shape of the load; every second one goes the other way round.
    """

    def __init__(self, bench: ArrayBench, units: Sequence[BenchUnit], load: Load) -> None:
        self.units = tuple(units)
        self.load = load
        self._bench = bench
        self._ended = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._rng = bench.rng
        begins_bytes, self.chains = 0, []
        if load.length_bytes > bench.span_bytes:
            raise NotTested(f"the units are shorter than {load.length_bytes} bytes")
        order = list(range(len(units)))
        self._rng.shuffle(order)
        for shape in load.shapes:
            key = self._rng.getrandbits(64)
            plan = Plan(key, tuple(order), begins_bytes, shape.write_bytes, shape.slots)
            self.chains.append(Chain(plan))
            order = order[::-1]
            begins_bytes += plan.length_bytes

    async def __aenter__(self) -> Self:
        """Stamp every slot, and begin to write."""
        for unit in self.units:
            for chain in self.chains:
                stamps = chain.plan.stamp(0) * chain.plan.slots
                await self._bench.write(unit, chain.plan.begins_bytes, stamps)
        for number, chain in enumerate(self.chains):
            if self._threads:
                self._start_thread(chain, f"stillframe writer {number}")
            else:
                self._tasks.append(asyncio.create_task(self._write(chain)))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self.stop()
        except Blocked:
            if kind is None:
                raise

    async def stop(self) -> None:
        """Let every write that is under way come back; no more are begun.

        Raises
        ------
        Blocked
            One does not.
        """
        self._ended.set()
        self._going.set()
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                for chain in self.chains:
                    await chain.done.wait()
        except TimeoutError:
            raise Blocked(f"a write did not come back within {STOP_LIMIT_S:g} s") from None
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks.clear()
            for chain in self.chains:
                written = len(chain.acknowledged_s) - chain.counted
                self._bench.written_bytes += written * chain.plan.write_bytes
                chain.counted += written

    @property
    def trouble(self) -> str:
        """Why a chain ended by itself, in one sentence; empty while none has."""
        for chain in self.chains:
            if chain.trouble is not None:
                return f"a write failed: {chain.trouble!r}"
        return ""

    def mark(self) -> Mark:
        """How far the chains are: acknowledged is not less, and begun not more, than told."""
        acknowledged = tuple(len(chain.acknowledged_s) for chain in self.chains)
        at_s = self._bench.now_s()
        return Mark(at_s, tuple(len(chain.issued_s) for chain in self.chains), acknowledged)

    async def advanced(self, turns: int) -> bool:
        """Wait until every chain has been round all units so often; whether they got there."""
        goals = [len(c.acknowledged_s) + turns * len(self.units) for c in self.chains]

        async def there() -> bool:
            pairs = zip(self.chains, goals, strict=True)
            return bool(self.trouble) or all(len(c.acknowledged_s) >= g for c, g in pairs)

        return await self._bench.until(there, ADVANCE_LIMIT_S, _STEP_S) and not self.trouble

    async def advance(self, turns: int = 2) -> None:
        """Wait until every chain has been round all units so often.

        Raises
        ------
        Blocked
            Writes fail or stand still, which is what another requirement is about.
        """
        if not await self.advanced(turns):
            raise Blocked(self.trouble or f"writes stand still for {ADVANCE_LIMIT_S:g} s")

    @asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Meanwhile no write is begun: what is done then does not compete with them."""
        self._going.clear()
        try:
            yield
        finally:
            self._going.set()

    # -- writing ---------------------------------------------------------------------------------

    @property
    def _threads(self) -> bool:
        own_way = type(self._bench.target).write is not ArrayTarget.write
        return not own_way and all(unit.scratch.path is not None for unit in self.units)

    async def _write(self, chain: Chain) -> None:
        plan, target = chain.plan, self._bench.target
        clock = asyncio.get_running_loop().time
        try:
            while not self._ended.is_set():
                number = len(chain.issued_s) + 1
                unit, slot = plan.place(number)
                stamp, start_s = plan.stamp(number), clock()
                chain.issued_s.append(start_s)
                await target.write(self.units[unit].scratch, plan.offset_bytes(slot), stamp)
                chain.acknowledged_s.append(clock())
                if clock() <= start_s:
                    await asyncio.sleep(_INSTANT_S)
                while not self._going.is_set():  # noqa: ASYNC110  # threads wait for it too
                    await asyncio.sleep(_STEP_S)
        except Exception as error:  # noqa: BLE001  # whatever a host's write raises is told
            chain.trouble = error
        finally:
            chain.done.set()

    def _start_thread(self, chain: Chain, name: str) -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            try:
                self._write_in_thread(chain, loop.time)
            except OSError as error:
                chain.trouble = error
            finally:
                with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                    loop.call_soon_threadsafe(chain.done.set)

        # A daemon: a write that the array never lets go must not keep the program from ending.
        threading.Thread(target=work, name=name, daemon=True).start()

    def _write_in_thread(self, chain: Chain, clock: Callable[[], float]) -> None:
        plan = chain.plan
        paths = [unit.scratch.path for unit in self.units if unit.scratch.path is not None]
        with ExitStack() as stack:
            handles = []
            for path in paths:
                handle = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
                stack.callback(os.close, handle)
                handles.append(handle)
            buffer = stack.enter_context(mmap.mmap(-1, plan.write_bytes))
            while not self._ended.is_set():
                number = len(chain.issued_s) + 1
                unit, slot = plan.place(number)
                buffer[:] = plan.stamp(number)
                chain.issued_s.append(clock())
                if os.pwritev(handles[unit], [buffer], plan.offset_bytes(slot)) != len(buffer):
                    raise OSError(f"write {number} to {paths[unit]} was cut short")
                chain.acknowledged_s.append(clock())
                self._going.wait()
