"""The command line as a process that kills itself at an exact point of its journal.

``python support_kill_child.py METHOD COUNT ARGUMENTS…``: when the journal's METHOD has returned for
the COUNT-th time, the process gets SIGKILL from itself, before anything else can happen.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from stillframe.cli import main
from stillframe.orchestrator.sqlite_journal import SqliteJournal


def die_after(method: str, count: int) -> None:
    """Have the process die when ``method`` has returned for the ``count``-th time."""
    original = getattr(SqliteJournal, method)
    left = [count]

    def counted(self: SqliteJournal, *args: Any) -> Any:
        answer = original(self, *args)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(SqliteJournal, method, counted)


if __name__ == "__main__":
    _, wanted, number, *sys.argv[1:] = sys.argv
    if wanted != "-":
        die_after(wanted, int(number))
    main()
