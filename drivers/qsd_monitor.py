"""One monitor of a qemu-storage-daemon: commands, their answers, and what a lost one means."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError
from qemu.qmp.protocol import StateError

from .errors import DidNotHappenError, UnknownOutcomeError

_LOOK_S = 0.25
"""How often one looks while no event tells of a change."""
_GOODBYE_S = 1.0
_LINE_S = 0.02
_NO_PLACE_IN_LINE = (errno.EAGAIN, errno.EINVAL, errno.ENOTCONN)
"""How connecting fails while too many wait for a monitor: one may. The kernel says EAGAIN, and
asyncio takes that for success and stumbles later."""
_quiet = logging.getLogger("stillframe.drivers.qsd.protocol")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False  # the client's log tells of every failed connection; our errors do too


class RefusedError(Exception):
    """The daemon understood a command and refused it; nothing has changed."""


class Look(NamedTuple):
    """Whether what one waits for is done, and how far it is."""

    done: bool
    progress: object = None


class Monitor:
    """A connection that is made when it is needed, and again after it was lost.

    Parameters
    ----------
    subject:
        What errors are about: the array's identifier.
    socket:
        The monitor's socket.
    connect_timeout_s, call_timeout_s:
        Limits for the greeting and for each answer.
    """

    def __init__(
        self, subject: str, socket: Path, connect_timeout_s: float, call_timeout_s: float
    ) -> None:
        self._subject = subject
        self._socket = socket
        self._connect_timeout_s = connect_timeout_s
        self._call_timeout_s = call_timeout_s
        self._client: QMPClient | None = None
        self._connecting = asyncio.Lock()

    async def connect(self, operation: str) -> None:
        """Have a connection.

        Raises
        ------
        DidNotHappenError
            Nobody listens, or no greeting came: another client holds the monitor, or it hangs.
        """
        await self._connected(operation)

    async def call(
        self, operation: str, command: str, arguments: Mapping[str, Any] | None = None
    ) -> Any:
        """Send a command whose loss changes nothing; a question is asked again if it got lost.

        Raises
        ------
        RefusedError
            The daemon refused it.
        DidNotHappenError
            It could not be sent, or no answer came.
        """
        try:
            return await self.change(operation, command, arguments)
        except UnknownOutcomeError as error:
            # A connection that had ended unseen since the last call: a daemon that was started
            # anew, or has hung up. One that hangs is not asked twice.
            if command.startswith("query-") and isinstance(error.__cause__, ExecInterruptedError):
                with contextlib.suppress(UnknownOutcomeError):
                    return await self.change(operation, command, arguments)
            raise DidNotHappenError(operation, self._subject, error.reason) from error

    async def change(
        self, operation: str, command: str, arguments: Mapping[str, Any] | None = None
    ) -> Any:
        """Send a command that changes something.

        Raises
        ------
        RefusedError
            The daemon refused it.
        DidNotHappenError
            It could not be sent.
        UnknownOutcomeError
            It was sent and no answer came.
        """
        client = await self._connected(operation)
        try:
            async with asyncio.timeout(self._call_timeout_s):
                return await client.execute(command, dict(arguments or {}))
        except ExecuteError as error:
            raise RefusedError(str(error)) from error
        except StateError as error:  # lost since we looked, and not sent
            await self._drop()
            raise DidNotHappenError(operation, self._subject, f"{command} not sent") from error
        except ExecInterruptedError as error:
            await self._drop()
            reason = f"the daemon ended before it answered {command}"
            raise UnknownOutcomeError(operation, self._subject, reason) from error
        except TimeoutError:
            await self._drop()
            reason = f"no answer to {command} within {self._call_timeout_s:g} s"
            raise UnknownOutcomeError(operation, self._subject, reason) from None

    async def run_job(
        self, operation: str, job_id: str, command: str, arguments: Mapping[str, Any]
    ) -> None:
        """Start a job of the daemon, which goes on without us, and wait for its end.

        Raises
        ------
        RefusedError
            It was refused, or failed.
        DidNotHappenError, UnknownOutcomeError
            As for :meth:`change`; lost on the way, it may still be running.
        """
        await self.change(operation, command, arguments)
        await self.end_of_job(operation, job_id)

    async def end_of_job(self, operation: str, job_id: str) -> None:
        """Wait for a job that does not dismiss itself, and dismiss it.

        Raises
        ------
        RefusedError
            The job failed.
        UnknownOutcomeError
            The daemon was lost in the middle.
        """
        ended: dict[str, Any] = {}

        async def look() -> Look:
            jobs = await self.call(operation, "query-jobs")
            job = next((job for job in jobs if job["id"] == job_id), None)
            if job is None or job["status"] == "concluded":
                ended.update(job or {})
                return Look(done=True)
            return Look(done=False, progress=(job["status"], job["current-progress"]))

        try:
            await self.until(operation, "JOB_STATUS_CHANGE", look)
            if ended:
                await self.call(operation, "job-dismiss", {"id": job_id})
        except DidNotHappenError as error:
            raise UnknownOutcomeError(operation, self._subject, error.reason) from error
        if "error" in ended:
            raise RefusedError(str(ended["error"]))

    async def until(self, operation: str, event: str, look: Callable[[], Awaitable[Look]]) -> None:
        """Look again whenever the daemon tells of such an event, until it is done.

        Raises
        ------
        DidNotHappenError
            It did not come nearer for the time of a call.
        """
        clock = asyncio.get_running_loop().time
        client = await self._connected(operation)
        with client.listener((event,)) as told:
            last, moved_s = Look(done=False), clock()
            while not (now := await look()).done:
                if now != last:
                    last, moved_s = now, clock()
                elif clock() - moved_s > self._call_timeout_s:
                    reason = f"nothing has moved for {self._call_timeout_s:g} s"
                    raise DidNotHappenError(operation, self._subject, reason)
                # An event of a connection that breaks here is never told; looking finds that out.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await told.get()

    async def close(self) -> None:
        """Disconnect; the monitor is free for the next client."""
        await self._drop()

    async def _connected(self, operation: str) -> QMPClient:
        async with self._connecting:
            client = self._client
            if client is not None and client.runstate.name == "RUNNING":
                return client
            await self._drop()
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    client = await self._greeted()
            except TimeoutError:
                reason = (
                    f"{self._socket} did not greet within {self._connect_timeout_s:g} s: "
                    "another client holds it, or the daemon hangs"
                )
                raise DidNotHappenError(
                    operation, self._subject, reason, "give every client a monitor of its own"
                ) from None
            except ConnectError as error:
                reason = f"nobody answers at {self._socket}: {_plain(error.exc)}"
                raise DidNotHappenError(
                    operation, self._subject, reason, "start the daemon"
                ) from error
            self._client = client
            return client

    async def _greeted(self) -> QMPClient:
        """A client that has been greeted; others may stand in line before it."""
        while True:
            client = QMPClient(self._subject)
            client.logger = _quiet
            try:
                await client.connect(str(self._socket))
                return client
            except ConnectError as error:
                if getattr(error.exc, "errno", 0) not in _NO_PLACE_IN_LINE:
                    raise
                await asyncio.sleep(_LINE_S)
            except BaseException:
                await _disconnect(client)
                raise

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _disconnect(client)


async def _disconnect(client: QMPClient) -> None:
    # How a connection ended that we do not want any more is nobody's business.
    with contextlib.suppress(TimeoutError, QMPError, EOFError, OSError):
        async with asyncio.timeout(_GOODBYE_S):
            await client.disconnect()


def _plain(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
