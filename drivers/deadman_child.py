"""The process behind :class:`~stillframe.drivers.deadman.DeadMan`: lets go what a dead parent held.

Run as a script with nothing but the standard library, so that it starts in milliseconds and needs
no working installation. It reads one JSON array per line from its standard input, ``["hold", kind,
path]`` or ``["release", kind, path]``, and at the end of the input, that is when the parent has
closed the pipe or has died, lets go of all that is still held.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Thread
from typing import Any

FITHAW = 0xC0045878
"""linux/fs.h: ``_IOWR('X', 120, int)``."""
READY = b"ready\n"
JOB_PREFIX = "stillframe-"
"""Block jobs of ours; what follows is the node that is merged."""
PATIENCE_S = 120.0
"""Seconds after which a guest that does not answer is given up."""
_ANSWER_S = 10.0
"""Seconds for one answer of an agent before the connection is made anew."""
_PAUSE_S = 0.05
_GONE = (FileNotFoundError, ConnectionRefusedError)


def thaw_mount(path: str) -> bool:
    """Thaw the file system mounted at ``path``; one that is not frozen, or not there, is fine."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return True
    try:
        fcntl.ioctl(folder, FITHAW, 0)
    except OSError as error:
        return error.errno == errno.EINVAL
    finally:
        os.close(folder)
    return True


def thaw_agent(path: str, patience_s: float = PATIENCE_S) -> bool:
    """Thaw the guest whose agent answers on the socket ``path``.

    An agent that is still busy freezing answers late, so this tries for ``patience_s`` seconds.
    Where nobody listens the guest is gone, and nothing of it is frozen.
    """
    give_up_s = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(OSError, ValueError):
            try:
                if _ask_to_thaw(path, min(_ANSWER_S, patience_s)):
                    return True
            except _GONE:
                return True
        if time.monotonic() >= give_up_s:
            return False
        time.sleep(_PAUSE_S)


def _ask_to_thaw(path: str, answer_s: float) -> bool:
    """Whether the agent says that it has thawed; raises OSError when it says nothing in time."""
    mark = time.monotonic_ns() % (1 << 53)
    sync = {"execute": "guest-sync-delimited", "arguments": {"id": mark}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(answer_s)
        agent.connect(path)
        # The byte makes the agent's parser drop half a command of the dead; what it still answers
        # to the dead is passed over until the mark comes back.
        agent.sendall(b"\xff" + json.dumps(sync).encode() + b"\n")
        with agent.makefile("rb") as answers:
            for line in answers:
                with contextlib.suppress(ValueError):
                    if json.loads(line.rpartition(b"\xff")[2]).get("return") == mark:
                        break
            agent.sendall(b'{"execute": "guest-fsfreeze-thaw"}\n')
            return "return" in json.loads(answers.readline())


def finish_merges(path: str, patience_s: float = PATIENCE_S) -> bool:
    """Let the guest behind the QEMU monitor ``path`` write on, which a merge of ours holds up.

    A pending block job holds the guest's writes. If its overlay has been renamed, the files say
    that the disk is merged, so the job is finished; else it is cancelled, and all is as before.
    """
    give_up_s = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, StopIteration):
            try:
                if _settle_jobs(path, min(_ANSWER_S, patience_s)):
                    return True
            except _GONE:
                return True
        if time.monotonic() >= give_up_s:
            return False
        time.sleep(_PAUSE_S)


def _settle_jobs(path: str, answer_s: float) -> bool:
    """Whether no job of ours is pending; one that is has been told how to end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as monitor:
        monitor.settimeout(answer_s)
        monitor.connect(path)
        with monitor.makefile("rwb") as stream:
            stream.readline()  # the greeting
            _execute(stream, "qmp_capabilities")
            jobs = [
                job
                for job in _execute(stream, "query-jobs")
                if job["id"].startswith(JOB_PREFIX) and job["status"] in ("waiting", "pending")
            ]
            nodes = _execute(stream, "query-named-block-nodes", flat=True) if jobs else []
            files = {node["node-name"]: node["file"] for node in nodes}
            for job in jobs:
                if job["status"] == "pending":
                    merged = not Path(files[job["id"].removeprefix(JOB_PREFIX)]).exists()
                    _execute(stream, "job-finalize" if merged else "job-cancel", id=job["id"])
            return not jobs


def _execute(stream: io.BufferedRWPair, command: str, **arguments: Any) -> Any:
    """One command's answer; events in between are passed over."""
    stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    stream.flush()
    return next(
        json.loads(line)["return"] for line in iter(stream.readline, b"") if b'"event"' not in line
    )


LETTING_GO: dict[str, Callable[[str], bool]] = {
    "agent": thaw_agent,
    "mount": thaw_mount,
    "merge": finish_merges,
}


def let_go(held: Iterable[tuple[str, str]]) -> bool:
    """Let go of everything at the same time; whether all of it worked."""
    done: list[bool] = []

    def one(kind: str, path: str) -> None:
        try:
            done.append(LETTING_GO[kind](path))
        except OSError:
            done.append(False)

    threads = [Thread(target=one, args=what) for what in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return all(done)


def main() -> int:
    """Follow the parent until it is gone; 1 when something could not be let go."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Meant for the parent, which thaws on its way out: this one ends when the parent has.
        signal.signal(number, signal.SIG_IGN)
    os.write(1, READY)
    held: dict[tuple[str, str], None] = {}
    for line in sys.stdin.buffer:
        if not line.endswith(b"\n"):
            break  # the parent died in the middle of it, and so before it froze anything
        verb, kind, path = json.loads(line)
        if verb == "hold":
            held[kind, path] = None
        else:
            held.pop((kind, path), None)
    return 0 if let_go(held) else 1


if __name__ == "__main__":
    sys.exit(main())
