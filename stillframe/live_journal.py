"""The journal of live jobs: opening it, who holds a job in it, which jobs wait to be recovered."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .errors import InputError
from .orchestrator.journal import RUNNING, JobRecord, Store
from .orchestrator.sqlite_store import SqliteStore

LEASE_S = 60.0
"""How long a job stays with its holder after the last renewal; the price of a wrong suspicion.

Long beside a pause of a busy machine, short beside a night.
"""


def open_journal(path: Path, *, create: bool = False) -> SqliteStore:
    """The journal in a file.

    Parameters
    ----------
    create:
        Make it if there is none.

    Raises
    ------
    InputError
        There is no such file (and ``create`` is not set), it is damaged, of a newer version, or
        something else; it is left as it is.
    """
    if not create:
        _must_exist(path)
    return SqliteStore(path, clock=time.time, create=create)


def read_journal(path: Path) -> SqliteStore:
    """What a journal holds now, to look at; beside a job at work if need be. Raises likewise."""
    _must_exist(path)
    return SqliteStore.open_readonly(path, time.time)


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise InputError(
            str(path),
            "",
            "there is no such journal",
            "a live run makes it: none has run here, or its journal lies elsewhere (journal_file)",
        )


def may_be_made(path: Path) -> None:
    """Refuse a place for a journal before anything is touched.

    Raises
    ------
    InputError
        The folder does not exist or cannot be written to.
    """
    if path.exists():
        return
    problem = ""
    if not path.parent.is_dir():
        problem = f"cannot be made: folder {path.parent} does not exist"
    elif not os.access(path.parent, os.W_OK):
        problem = f"cannot be made: folder {path.parent} cannot be written to"
    if problem:
        raise InputError(str(path), "", problem, "name another place in journal_file")


_PROC = Path("/proc")
_HOLDER = re.compile(r"process (\d+) on (\S+) \((\d*)\.([0-9a-f]*)\.(\d*)\.([0-9a-f]+)\)")


class Holder(NamedTuple):
    """A process that holds jobs, so that another process can tell whether it still lives.

    ``started`` is when it started, in the kernel's ticks since the machine did; ``boot`` and
    ``space`` tell apart starts of the machine and namespaces of process ids. What the platform
    does not tell is empty.
    """

    pid: int
    host: str
    started: str
    boot: str
    space: str
    hand: str
    """A random part: two jobs of one process are in two hands."""

    def __str__(self) -> str:
        marks = ".".join((self.started, self.boot, self.space, self.hand))
        return f"process {self.pid} on {self.host} ({marks})"

    @classmethod
    def here(cls) -> Holder:
        """This process, in a new hand."""
        pid = os.getpid()
        return cls(pid, _host(), _started(pid) or "", _boot(), _space(), secrets.token_hex(3))

    @classmethod
    def parse(cls, text: str) -> Holder | None:
        """The holder that a journal names; None when it was written by something else."""
        match = _HOLDER.fullmatch(text)
        return None if match is None else cls(int(match[1]), *match.groups()[1:])


def _host() -> str:
    return "-".join(socket.gethostname().split()) or "localhost"


def _first_line(name: str) -> str:
    try:
        return (_PROC / name).read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # not on this platform
        return ""


def _boot() -> str:
    return _first_line("sys/kernel/random/boot_id").partition("-")[0]


def _space() -> str:
    try:
        return str((_PROC / "self/ns/pid").stat().st_ino)
    except OSError:  # not on this platform
        return ""


def _started(pid: int) -> str | None:
    """When a process started; None when there is none, empty when the platform does not tell.

    Field 22 of proc_pid_stat(5), counted after the command, which may hold spaces itself; field 3
    is the state, in which a process that has ended is Z until its parent has looked at it.
    """
    stat = _first_line(f"{pid}/stat")
    if stat:
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    if not (_PROC / "self/stat").exists() and _answers(pid):
        return ""
    return None


def _answers(pid: int) -> bool:
    if os.name != "posix":  # elsewhere, signal 0 is not a question
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def is_dead(holder: str) -> bool:
    """Whether this holder was a process of this machine that has certainly ended.

    Of a process on another machine, or in another namespace, only its lease tells.
    """
    known = Holder.parse(holder)
    if known is None or known.host != _host():
        return False
    if known.boot != _boot():
        return bool(known.boot and _boot())
    return known.space == _space() and _started(known.pid) != known.started


def who(holder: str) -> str:
    """A holder without what only programs need to know."""
    known = Holder.parse(holder)
    return holder if known is None else f"process {known.pid} on {known.host}"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Jobs that did not end in good order: free to be recovered, or still in somebody's hands."""

    free: list[JobRecord] = field(default_factory=list)
    held: list[JobRecord] = field(default_factory=list)


def unfinished(store: Store, name: str) -> Unfinished:
    """The unfinished jobs of a configuration, oldest first."""
    found = Unfinished()
    for job in store.jobs():
        if job.name == name and job.unfinished:
            (found.held if is_held(job) else found.free).append(job)
    return found


def is_held(job: JobRecord) -> bool:
    """Whether the job is in the hands of somebody who is alive as far as one can tell."""
    return bool(job.holder) and job.lease_until_s > time.time() and not is_dead(job.holder)


def is_running(job: JobRecord) -> bool:
    """Whether the job has begun and nobody has finished it."""
    return job.status == RUNNING
