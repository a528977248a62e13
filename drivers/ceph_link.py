"""A line to the process that talks to a Ceph cluster (``ceph_worker``), started when needed.

Starting ``rbd`` for each step costs 50 to 100 ms a time, and a group snapshot takes a dozen steps;
a process that stays answers within a millisecond of the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

from ..errors import StillframeError
from .errors import (
    BusyError,
    DidNotHappenError,
    DriverError,
    HappenedError,
    NeverWillError,
    NotFoundError,
    PoolFullError,
    UnknownOutcomeError,
)

WORKER = Path(__file__).with_name("ceph_worker.py")
"""The script that the process runs."""
_SPARE_S = 2.0
"""How much longer than the worker itself we wait: its own error says more than ours."""
_ENDED = "the process that asks the cluster ended"
_LINE_BYTES = 64 << 20
_KINDS: dict[str, type[DriverError]] = {
    "busy": BusyError,
    "full": PoolFullError,
    "gone": NotFoundError,
    "happened": HappenedError,
    "never": NeverWillError,
    "undone": DidNotHappenError,
}


class CephLink:
    """One worker process and the requests that wait for it.

    Parameters
    ----------
    python:
        An interpreter that has the modules ``rados`` and ``rbd``.
    conf_file:
        The cluster's configuration.
    pool:
        The pool to work on.
    timeout_s:
        How long one step of the cluster may take.
    """

    def __init__(self, python: str, conf_file: Path, pool: str, timeout_s: float) -> None:
        self._argv = [python, str(WORKER), str(conf_file), pool, f"{timeout_s:g}"]
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._deaf = False
        self._retired: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the worker, unless it runs and hears the cluster.

        Raises
        ------
        StillframeError
            It cannot be started, or the cluster does not answer.
        """
        async with self._starting:
            # Its end shows in the pipe before the process is reaped.
            if self._reader is not None and not self._reader.done() and not self._deaf:
                return
            self._retire()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    limit=_LINE_BYTES,
                    start_new_session=True,
                )
            except OSError as error:
                raise StillframeError(f"{self._argv[0]} cannot be started: {error}") from error
            await self._greeted(self._process)
            self._reader = asyncio.create_task(self._read(self._process, self._waiting))

    async def _greeted(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        try:
            async with asyncio.timeout(self._timeout_s + _SPARE_S):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        except BaseException:
            await self._end(process)
            raise
        answer = json.loads(line) if line else {}
        if "ok" in answer:
            return
        said = await self._end(process)
        conf, pool = self._argv[2], self._argv[3]
        if answer:
            reason, advice = str(answer["error"]), "is the cluster up?"
        elif "ModuleNotFoundError" in said:
            reason = said.splitlines()[-1]
            advice = "install python3-rbd of the distribution, and name its interpreter in python"
        else:
            reason, advice = said.splitlines()[-1] if said else "no answer in time", ""
        raise StillframeError(f"pool {pool!r} of {conf} cannot be opened: {reason}", advice)

    async def ask(
        self,
        operation: str,
        subject: str,
        do: str,
        *,
        changes: bool,
        limit_s: float = 0.0,
        **what: Any,
    ) -> Any:
        """Have the worker do something.

        Parameters
        ----------
        operation, subject:
            What an error is told of.
        do, what:
            The worker's method and its arguments.
        changes:
            Whether it changes something: then a lost answer leaves the outcome unknown.
        limit_s:
            How long it may take beyond one step of the cluster.

        Raises
        ------
        DriverError
            As the worker says; UnknownOutcomeError, or DidNotHappenError for what changes nothing,
            when no answer comes.
        """
        lost = UnknownOutcomeError if changes else DidNotHappenError
        limit_s += self._timeout_s + _SPARE_S
        try:
            answer = await self._asked(operation, subject, limit_s, {"do": do, **what})
        except ConnectionError:
            if changes:
                raise lost(operation, subject, _ENDED) from None
            try:  # a question may be asked again, of a new process
                answer = await self._asked(operation, subject, limit_s, {"do": do, **what})
            except ConnectionError:
                raise lost(operation, subject, _ENDED) from None
        except TimeoutError:
            raise lost(operation, subject, "the cluster does not answer") from None
        if "ok" in answer:
            return answer["ok"]
        kind, reason = answer["kind"], answer["error"]
        if kind == "silent":
            # A session whose monitor and OSDs were killed and came back may never hear of it
            # (librados 16.2), while a new one is served at once.
            self._deaf = True
            raise lost(operation, subject, f"the cluster does not answer: {reason}")
        raise _KINDS.get(kind, lost)(operation, subject, reason)

    async def _asked(
        self, operation: str, subject: str, limit_s: float, request: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            await self.start()
        except StillframeError as error:
            raise DidNotHappenError(operation, subject, error.what, error.advice) from error
        number, waiting = next(self._numbers), self._waiting
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        waiting[number] = answered
        try:
            self._send({"id": number, **request})
            async with asyncio.timeout(limit_s):
                return await answered
        finally:
            del waiting[number]

    def _send(self, request: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise ConnectionResetError
        self._process.stdin.write((json.dumps(request) + "\n").encode())

    async def _read(
        self, process: asyncio.subprocess.Process, asked: dict[int, asyncio.Future[dict[str, Any]]]
    ) -> None:
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        try:
            while line := await process.stdout.readline():
                answer = json.loads(line)
                waiting = asked.get(answer["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        finally:
            for waiting in asked.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionResetError())

    def _retire(self) -> None:
        """Ask nothing more of this worker; it ends by itself, after what it has begun."""
        process, self._process = self._process, None
        reader, self._reader = self._reader, None
        self._waiting, self._deaf = {}, False
        if process is not None:
            ending = asyncio.create_task(self._ended(process, reader))
            self._retired.add(ending)
            ending.add_done_callback(self._retired.discard)

    async def _ended(
        self, process: asyncio.subprocess.Process, reader: asyncio.Task[None] | None
    ) -> None:
        await self._end(process)
        if reader is not None:
            await asyncio.wait([reader])

    async def close(self) -> None:
        """End the worker; what it has begun it finishes, unless the cluster keeps it too long."""
        self._retire()
        if self._retired:
            await asyncio.wait(self._retired)

    async def _end(self, process: asyncio.subprocess.Process) -> str:
        """Close its stdin and wait for the end; what it wrote to stderr."""
        assert process.stdin is not None  # noqa: S101  # pipes were asked for
        assert process.stderr is not None  # noqa: S101
        process.stdin.close()
        said = asyncio.ensure_future(process.stderr.read())
        try:
            async with asyncio.timeout(self._timeout_s + _SPARE_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        return (await said).decode(errors="replace").strip()
