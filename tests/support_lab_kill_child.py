"""The command line as a process in which somebody is killed at an exact point of its work.

``python support_lab_kill_child.py PLACE WHEN COUNT VICTIM ARGUMENTS…``: at the COUNT-th call of the
function PLACE, when it is about to begin (WHEN is ``before``) or has just returned (``after``),
VICTIM gets SIGKILL: ``self`` is this process, anything else is a file with another's number. PLACE
is ``package.module:Class.method``; with ``#WORD`` behind it only those calls count that have WORD
among their arguments, such as the commands of a monitor. It happens once.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillframe.cli import main


def kill(victim: str) -> None:
    """SIGKILL, at once; for another process also wait until it has gone."""
    if victim == "self":
        os.kill(os.getpid(), signal.SIGKILL)
    process = os.pidfd_open(int(Path(victim).read_text(encoding="ascii")))
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [])  # readable once it has ended
    finally:
        os.close(process)


def kill_at(place: str, when: str, count: int, victim: str) -> None:
    """Replace the function by one that also counts, and kills."""
    function, _, word = place.partition("#")
    module, _, name = function.partition(":")
    holder: Any = importlib.import_module(module)
    *parents, last = name.split(".")
    for parent in parents:
        holder = getattr(holder, parent)
    original: Callable[..., Any] = getattr(holder, last)
    calls = itertools.count(1)

    def begun(args: tuple[Any, ...]) -> int:
        number = next(calls) if not word or word in args else 0
        if (when, number) == ("before", count):
            kill(victim)
        return number

    def ended(number: int) -> None:
        if (when, number) == ("after", count):
            kill(victim)

    @functools.wraps(original)
    async def counted_async(*args: Any, **options: Any) -> Any:
        number = begun(args)
        answer = await original(*args, **options)
        ended(number)
        return answer

    @functools.wraps(original)
    def counted(*args: Any, **options: Any) -> Any:
        number = begun(args)
        answer = original(*args, **options)
        ended(number)
        return answer

    is_async = inspect.iscoroutinefunction(original)
    setattr(holder, last, counted_async if is_async else counted)


if __name__ == "__main__":
    _, where, moment, number, whom, *sys.argv[1:] = sys.argv
    kill_at(where, moment, int(number), whom)
    main()
