"""Tasks whose order and names belong to their loop, and what a stuck run says about them."""

from __future__ import annotations

import asyncio
from typing import Any

NO_NAME = ""
_TASKS_SHOWN = 50


class SimTask(asyncio.Task[Any]):
    """asyncio's own task, hashed and named by its number within the loop.

    ``asyncio.TaskGroup``, ``asyncio.wait`` and ``asyncio.all_tasks`` iterate over sets of tasks.
    Hashed by address, their order, and with it the order of cancellations, differs between runs.
    """

    __slots__ = ("number",)

    number: int

    def __hash__(self) -> int:
        return self.number

    def get_name(self) -> str:
        """The name given at creation, else ``task-`` and the number within the loop."""
        # Most tasks are never asked: the name is made when somebody wants it.
        name = super().get_name()
        return f"task-{self.number}" if name == NO_NAME else name


def describe_pending(loop: asyncio.AbstractEventLoop, remark: str) -> str:
    """How many tasks are pending, the remark, then a line per task in order of creation."""
    pending = sorted(asyncio.all_tasks(loop), key=lambda task: getattr(task, "number", 0))
    lines = [f"\n  {task.get_name()}: {await_chain(task)}" for task in pending[:_TASKS_SHOWN]]
    if len(pending) > _TASKS_SHOWN:
        lines.append(f"\n  and {len(pending) - _TASKS_SHOWN} more")
    return f"{len(pending)} task(s) pending, {remark}" + "".join(lines)


def await_chain(task: asyncio.Task[Any]) -> str:
    """Where a task waits: ``coroutine:line`` from the outermost to the innermost await."""
    frames = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        for prefix, inner in (("cr", "await"), ("gi", "yieldfrom"), ("ag", "await")):
            frame = getattr(waiting, f"{prefix}_frame", None)
            if frame is not None:
                frames.append(f"{waiting.__qualname__}:{frame.f_lineno}")
                waiting = getattr(waiting, f"{prefix}_{inner}")
                break
        else:
            break
    awaited = getattr(task, "_fut_waiter", None)
    if isinstance(awaited, asyncio.Task):
        frames.append(f"task {awaited.get_name()}")
    return " > ".join(frames) or "not started"
