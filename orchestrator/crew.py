"""An operation on each VM of a group, in tasks that begin when their places are free.

A group of many VMs waits for few places. A VM in line costs an entry in a queue; a task that waits
would cost a task, its coroutines, a future and two turns of the event loop. A task that ends goes
on with the VM for which it has made room, so there are about as many tasks as places.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable

from ..drivers.records import VmId
from .context import Context, VmWork
from .limits import Scope, Scopes, Waiter

Operation = Callable[[Context, VmWork], Coroutine[object, object, None]]
"""Works on a VM that holds its places already; ``work.places`` says which it holds at the end."""

Arrival = Callable[[Context, VmWork], None]
"""Is told of a VM that lines up."""


class _Turn(Waiter):
    """A VM in line."""

    __slots__ = ("crew", "work")

    def __init__(self, crew: _Crew, work: VmWork, scopes: Scopes) -> None:
        super().__init__(scopes)
        self.crew = crew
        self.work = work

    def gone(self) -> bool:
        return self.crew.abandoned

    def admit(self, waited_s: float) -> None:
        self.work.outcome.wait_s += waited_s
        self.crew.start(self.work, self.scopes)


class _Crew:
    """The tasks of one :func:`in_turn`."""

    def __init__(self, context: Context, operation: Operation, arrive: Arrival | None) -> None:
        self._context = context
        self._operation = operation
        self._arrive = arrive
        self._loop = asyncio.get_running_loop()
        self._left = 0
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._at: dict[VmId, tuple[asyncio.Task[None], VmWork]] = {}
        """Which task is, or soon will be, at work on which VM."""
        self._idle: asyncio.Task[None] | None = None
        """A task that has ended its work and is just making room: it goes on with the next VM."""
        self._next: VmWork | None = None
        self.abandoned = False

    async def run(self, works: Iterable[tuple[VmWork, Scopes]]) -> None:
        line: list[tuple[VmWork, Scopes]] = []
        planned: dict[Scope, int] = {}
        for work, scopes in works:
            self._left += 1
            if not _fit(scopes, planned):
                line.append((work, scopes))
                continue
            if line:
                self._loop.call_soon(self._line_up, line)
                line = []
            self._begin(work, self._take_and_work(work, scopes))
        if not self._left:
            return
        self._loop.call_soon(self._line_up, line)
        try:
            await self._over
        except BaseException:
            await self._abandon()
            raise

    def _line_up(self, works: Iterable[tuple[VmWork, Scopes]]) -> None:
        """Put VMs in line, after those ahead of them have taken their places.

        Were it done earlier, a call that is refused at once and repeated would be behind them.
        """
        if self.abandoned:
            return
        limiter = self._context.limiter
        for work, scopes in works:
            self._arrived(work)
            if limiter.take(scopes):
                self.start(work, scopes)
            else:
                limiter.line_up(_Turn(self, work, scopes))

    def _arrived(self, work: VmWork) -> None:
        if self._arrive is not None:
            self._arrive(self._context, work)

    def start(self, work: VmWork, scopes: Scopes) -> None:
        """Begin with a VM for which places are taken."""
        work.places = scopes
        task, self._idle = self._idle, None
        if task is None:
            self._begin(work, self._work_from(work))
        else:
            self._next = work
            self._at[work.vm.id] = (task, work)

    def _begin(self, work: VmWork, coroutine: Coroutine[object, object, None]) -> None:
        self._at[work.vm.id] = (self._loop.create_task(coroutine), work)

    async def _take_and_work(self, work: VmWork, scopes: Scopes) -> None:
        limiter = self._context.limiter
        if not limiter.take(scopes):  # another group was faster
            self._arrived(work)
            try:
                work.outcome.wait_s += await limiter.acquire(scopes)
            except asyncio.CancelledError:
                self._end(work)
                raise
        work.places = scopes
        await self._work_from(work)

    async def _work_from(self, first: VmWork) -> None:
        work: VmWork | None = first
        while work is not None:
            try:
                await self._operation(self._context, work)
            except asyncio.CancelledError:
                self._end(work)
                raise
            except BaseException as error:  # noqa: BLE001  run() raises it
                if not self._over.done():
                    self._over.set_exception(error)
            work = self._end(work)

    def _end(self, work: VmWork) -> VmWork | None:
        """The VM is done with: make room, and say which VM its task has to go on with."""
        self._left -= 1
        if not self._left and not self._over.done():
            self._over.set_result(None)
        self._idle, _ = self._at.pop(work.vm.id)
        self._next = None
        scopes, work.places = work.places, ()
        self._context.limiter.release(scopes)
        self._idle = None
        return self._next

    async def _abandon(self) -> None:
        """Begin nothing more, and cancel what runs; returns when it has ended."""
        self.abandoned = True
        tasks = [task for task, _ in self._at.values()]
        for task in tasks:
            task.cancel()
        while any(not task.done() for task in tasks):
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError:  # once is enough
                continue
        # A task that is cancelled before its first step takes none; nor does it give back places.
        for _, work in self._at.values():
            self._context.limiter.release(work.places)
            work.places = ()


def _fit(scopes: Scopes, planned: dict[Scope, int]) -> bool:
    """Whether there is room beside those that are planned already; then it is planned too."""
    for scope in scopes:
        if planned.get(scope, 0) >= scope.free:
            return False
    for scope in scopes:
        planned[scope] = planned.get(scope, 0) + 1
    return True


async def in_turn(
    context: Context,
    operation: Operation,
    works: Iterable[tuple[VmWork, Scopes]],
    arrive: Arrival | None = None,
) -> None:
    """Run ``operation`` once for each VM, when there is a place in each of the scopes beside it.

    Parameters
    ----------
    operation:
        Is called with its places taken; what it still holds when it ends is given back for it.
        The first exception that it raises ends the others and is raised here.
    works:
        The VMs, each once, in the order in which they line up.
    arrive:
        Is called for each VM that finds no places and has to line up.

    Raises
    ------
    asyncio.CancelledError
        The caller was cancelled; so were the operations that had begun, and they have ended.
    """
    await _Crew(context, operation, arrive).run(works)
