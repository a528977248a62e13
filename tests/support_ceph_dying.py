"""The process that talks to a Ceph cluster, killed before one of its calls: a script.

::

    support_ceph_dying.py WORKER CALL NUMBER PID CONF POOL TIMEOUT_S

With a PID it is that process which is stopped then, and this one goes on; with -1 the call fails
as if its object were busy, with -2 this process is stopped.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

import rbd  # type: ignore[import-not-found,unused-ignore]


class Countdown:
    """Kills this process, or stops another, before one of its calls.

    Parameters
    ----------
    call:
        The name of the binding's method.
    at:
        Which call of it, from 1.
    other:
        The process to stop; 0 kills this one, -1 has the call fail, -2 stops this one.
    """

    def __init__(self, call: str, at: int, other: int) -> None:
        self.call = call
        self.at = at
        self.other = other

    def tick(self, name: str) -> None:
        """A method is about to be called."""
        if name != self.call:
            return
        self.at -= 1
        if self.at != 0:
            return
        if self.other == -1:
            raise rbd.ImageBusy("made to fail", errno=errno.EBUSY)
        if self.other == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(self.other if self.other > 0 else os.getpid(), signal.SIGSTOP)


class Counted:
    """An object of the binding whose calls are counted."""

    def __init__(self, real: Any, countdown: Countdown) -> None:
        self._real = real
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        self._countdown.tick(name)
        return getattr(self._real, name)


class CountedModule:
    """The binding, with objects whose calls are counted."""

    def __init__(self, real: Any, countdown: Countdown) -> None:
        self._real = real
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in ("RBD", "Group", "Image"):
            return found
        return lambda *args, **options: Counted(found(*args, **options), self._countdown)


def main(worker: str, call: str, number: str, other: str, *arguments: str) -> None:
    """See the module."""
    sys.path.insert(0, str(Path(worker).parent))
    spec = importlib.util.spec_from_file_location("ceph_worker", worker)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.rbd = CountedModule(module.rbd, Countdown(call, int(number), int(other)))
    conf, pool, timeout_s = arguments
    module.main(conf, pool, float(timeout_s))


if __name__ == "__main__":
    main(*sys.argv[1:])
