"""A dead man's switch: what this process froze is thawed although the process is killed.

A frozen guest or file system stays frozen when the one that froze it dies, and so does everybody
who writes to it. So before a driver freezes something it tells a small child process what to let
go of; the child hears of the parent's death as the end of a pipe, which the kernel sees to.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ..errors import StillframeError
from . import deadman_child

Kind = Literal["agent", "mount", "merge"]
"""``agent``: the socket of a guest agent, whose guest is thawed. ``mount``: a mount point.
``merge``: the monitor of a QEMU in which a block job holds the guest's writes."""
_CHILD = Path(deadman_child.__file__)


class DeadMan:
    """The switch of one driver; ``start`` it before the first ``hold``.

    What is held when :meth:`close` is called, or when the process ends in any way, is let go.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._held: dict[tuple[Kind, str], None] = {}
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The child's process; None before ``start``."""
        return None if self._child is None else self._child.pid

    async def start(self) -> None:
        """Have a child that listens; nothing to do when it does.

        One that has died is replaced, and told what is held.

        Raises
        ------
        StillframeError
            It cannot be started: do not freeze anything.
        """
        async with self._starting:
            if self._child is not None:
                if self._child.poll() is None:
                    return
                _close_pipes(self._child)
            # In a thread rather than through asyncio, whose transports kill their process when a
            # loop is closed: that is one of the moments this process is for.
            self._child = await _in_thread(_start_child)
            for kind, path in self._held:
                self._tell("hold", kind, path)

    def hold(self, kind: Kind, path: Path | str) -> None:
        """From now on, let go of this when the process dies; call it before freezing.

        Raises
        ------
        StillframeError
            The child is not there: do not freeze.
        """
        key = (kind, os.path.abspath(path))  # noqa: PTH100  no disk access: it may be frozen
        self._tell("hold", *key)
        self._held[key] = None

    def release(self, kind: Kind, path: Path | str) -> None:
        """It is thawed: do not touch it any more. What is not held is fine."""
        key = (kind, os.path.abspath(path))  # noqa: PTH100
        if key not in self._held:
            return
        del self._held[key]
        if self._child is not None and self._child.poll() is None:
            self._tell("release", *key)

    async def close(self) -> None:
        """End the child, which lets go of what is still held; repeating is fine.

        Raises
        ------
        StillframeError
            Something that was held could not be let go.
        """
        child, self._child = self._child, None
        if child is None:
            return
        held = ", ".join(path for _, path in self._held)
        self._held.clear()
        _close_pipes(child)
        code = await asyncio.to_thread(child.wait)
        if code and held:
            raise StillframeError(f"may still be frozen: {held}", "thaw it by hand")

    def _tell(self, verb: str, kind: Kind, path: str) -> None:
        child = self._child
        if child is None or child.stdin is None:
            raise StillframeError("the dead man's switch was not started")
        try:
            # One write of less than PIPE_BUF bytes: in the pipe as a whole or not at all, and
            # read from there even when this process dies right after it.
            os.write(child.stdin.fileno(), json.dumps([verb, kind, path]).encode() + b"\n")
        except (OSError, ValueError) as error:
            raise StillframeError(f"the dead man's switch has ended: {error}") from error


async def _in_thread(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """What ``start`` answers, also to who is cancelled meanwhile: a child must not get lost."""
    work = asyncio.ensure_future(asyncio.to_thread(start))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    child = work.result()
    if cancelled is not None:
        _close_pipes(child)
        child.wait()  # it ends with its input
        raise cancelled
    return child


def _start_child() -> subprocess.Popen[bytes]:
    try:
        child = subprocess.Popen(  # noqa: S603  our own file
            [sys.executable, "-I", "-S", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise StillframeError(f"the dead man's switch cannot be started: {error}") from error
    assert child.stdout is not None  # noqa: S101  asked for above
    if child.stdout.readline() != deadman_child.READY:
        _close_pipes(child)
        raise StillframeError(f"the dead man's switch ended at once (code {child.wait()})")
    return child


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
