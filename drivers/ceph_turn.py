"""One process at a time changes the groups of a Ceph pool: a part of the script ``ceph_worker``.

Two things keep others away. A lock of the kernel on the configuration file goes with the process
that has it, and is waited for. And an object in the pool says who is at work: its address in the
cluster, and enough about the process to tell later whether it lives.

An entry of a process that is dead means that it died at work. Then the cluster is told to refuse
what it may still send, and lets go of the images that it watched or locked, which would otherwise
hold everybody up for half a minute.
"""

from __future__ import annotations

import fcntl
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rados  # type: ignore[import-not-found,unused-ignore]

HOLDER = "stillframe.holder"
_FENCED_S = 3600
"""For how long the address of a dead process is refused; the default of Ceph."""
_POLL_S = 0.005
_START_TIME = 19
"""The field of /proc/PID/stat after the program's name, from 0: see proc(5), ``starttime``."""


class RefusedError(Exception):
    """A request that cannot be done; ``kind`` says what the caller has to make of it."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Turn:
    """The right to change groups.

    Parameters
    ----------
    cluster, ioctx:
        The connections of the binding.
    conf:
        The configuration file, which is locked.
    timeout_s:
        How long to wait for others.
    """

    def __init__(self, cluster: Any, ioctx: Any, conf: str, timeout_s: float) -> None:
        self._cluster = cluster
        self._io = ioctx
        self._conf = Path(conf)
        self._timeout_s = timeout_s
        self._thread = threading.Lock()
        self._us = {
            "address": cluster.get_addrs(),
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": Path("/proc/self").resolve().name,
            "start": _start_of("self"),
        }

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Nobody else changes groups meanwhile.

        Raises
        ------
        RefusedError
            ``busy``: somebody else does, and did not finish in time.
        """
        deadline_s = time.monotonic() + self._timeout_s
        if not self._thread.acquire(timeout=self._timeout_s):
            raise RefusedError("busy", "another group operation is under way")
        try:
            with self._conf.open("rb") as file:  # closing it gives up the lock
                while not _locked(file):
                    if time.monotonic() > deadline_s:
                        raise RefusedError("busy", "another process is at work")
                    time.sleep(_POLL_S)
                self._succeed()
                self._io.write_full(HOLDER, json.dumps(self._us).encode())
                try:
                    yield
                finally:
                    self._io.write_full(HOLDER, b"")
        finally:
            self._thread.release()

    def _succeed(self) -> None:
        """Cut off the last holder, if it died at work."""
        try:
            text = self._io.read(HOLDER)
        except rados.ObjectNotFound:
            return
        last = json.loads(text) if text else self._us
        if last["address"] == self._us["address"]:
            return
        if last["host"] != self._us["host"] or _lives(last):
            who = f"process {last['pid']} on {last['host']}"
            advice = f"if it is not, remove the object {HOLDER} of the pool"
            raise RefusedError("busy", f"{who} is at work; {advice}")
        self._cluster.blocklist_add(last["address"], _FENCED_S)
        self._cluster.wait_for_latest_osdmap()


def _locked(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _start_of(pid: str) -> str:
    """When a process started, in ticks since boot; "" when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.rpartition(")")[2].split()[_START_TIME]


def _lives(holder: dict[str, str]) -> bool:
    """Whether a process of this host is the one that left this entry, and not a later one."""
    return holder["boot"] == _boot() and holder["start"] == _start_of(holder["pid"])
