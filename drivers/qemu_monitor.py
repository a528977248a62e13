"""One QEMU's monitor (QMP): connects anew when QEMU comes back, and waits for jobs.

A monitor's socket serves one client at a time. So the connection is given back as soon as nobody
here uses it, and who finds it taken waits for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qemu.qmp import (
    ConnectError,
    EventListener,
    ExecInterruptedError,
    ExecuteError,
    QMPClient,
    QMPError,
    Runstate,
    StateError,
)

_LOST_LOOK_S = 0.25
"""Between two looks at a job while no event comes: an event is lost only with its connection."""
_ANSWER_S = 60.0
_logger = logging.getLogger("stillframe.qmp")
# The library logs as an error what is raised here anyway, and every end of a connection.
_logger.addFilter(lambda _: _logger.isEnabledFor(logging.DEBUG))


class VmOffError(Exception):
    """Nobody listens on the socket: QEMU does not run."""


class MonitorHeldError(Exception):
    """QEMU runs and does not answer: another client holds its monitor, or it hangs."""


class MonitorLostError(Exception):
    """The connection broke during a command: whether it was carried out is unknown."""


class RefusedError(Exception):
    """QEMU says no, and nothing has happened."""


class Monitor:
    """The monitor of one VM.

    Parameters
    ----------
    path:
        Its Unix socket.
    connect_timeout_s:
        Seconds until QEMU must have greeted.
    answer_timeout_s:
        Seconds until it must have answered a command; then the connection is given up.
    """

    def __init__(
        self, path: Path, connect_timeout_s: float, answer_timeout_s: float = _ANSWER_S
    ) -> None:
        self._path = path
        self._connect_timeout_s = connect_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._users = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._client: QMPClient | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._changed = asyncio.Event()

    async def execute(self, command: str, **arguments: Any) -> Any:
        """QEMU's answer; argument names are written with underscores.

        Raises
        ------
        VmOffError, MonitorHeldError
            There is no connection, and nothing was sent.
        RefusedError
            QEMU refused.
        MonitorLostError
            The connection broke, or no answer came in time.
        """
        with self.used():
            return await self._execute(command, arguments)

    async def is_on(self) -> bool:
        """Whether QEMU runs; raises MonitorHeldError when nobody can tell what it does."""
        with self.used():
            try:
                await self._connected()
            except VmOffError:
                return False
        return True

    async def job(self, job_id: str) -> dict[str, Any] | None:
        """What QEMU says of a job; None when it does not know it. Raises as :meth:`execute`."""
        jobs: list[dict[str, Any]] = await self.execute("query-jobs")
        return next((job for job in jobs if job["id"] == job_id), None)

    async def wait_for_job(self, job_id: str, *statuses: str) -> dict[str, Any] | None:
        """Wait until a job has one of these statuses; None when QEMU does not know it (any more).

        Raises as :meth:`execute`.
        """
        while True:
            self._changed.clear()
            job = await self.job(job_id)
            if job is None or job["status"] in statuses:
                return job
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOST_LOOK_S):
                    await self._changed.wait()

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Keep the connection meanwhile; when the last user is done, it is given back."""
        self.take()
        try:
            yield
        finally:
            self.give_back()

    def take(self) -> None:
        """Begin to use it; see :meth:`used`."""
        self._users += 1

    def give_back(self) -> None:
        """Use it no more."""
        self._users -= 1
        if not self._users and self._client is not None:
            closing = asyncio.create_task(self._close_unused())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Disconnect; repeating is fine."""
        await self._disconnect()
        if self._closing:
            await asyncio.wait(set(self._closing))

    async def _close_unused(self) -> None:
        if not self._users:  # somebody may have begun to use it again meanwhile
            await self._disconnect()

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        if client is not None:
            await _end(client)

    async def _execute(self, command: str, arguments: dict[str, Any]) -> Any:
        client = await self._connected()
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                return await client.execute(command, named or None)
        except TimeoutError as error:
            # An answer that comes late finds nobody: whoever asks next connects anew.
            await self._give_up(client)
            limit_s = self._answer_timeout_s
            raise MonitorLostError(f"QEMU did not answer {command} in {limit_s:g} s") from error
        except ExecuteError as error:
            raise RefusedError(str(error)) from error
        except StateError as error:  # it had broken before; the next attempt connects anew
            raise MonitorLostError(f"QEMU went away before {command}") from error
        except (ExecInterruptedError, QMPError, OSError, EOFError) as error:
            raise MonitorLostError(f"QEMU went away during {command}") from error

    async def _give_up(self, client: QMPClient) -> None:
        if self._client is client:
            await self._disconnect()

    async def _connected(self) -> QMPClient:
        async with self._connecting:
            if self._client is not None and self._client.runstate == Runstate.RUNNING:
                return self._client
            await self._disconnect()
            # A client that has failed to connect is of no further use.
            client = QMPClient()
            client.logger = _logger
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    await client.connect(str(self._path))
            except ConnectError as error:
                await _end(client)
                if isinstance(error.exc, (FileNotFoundError, ConnectionRefusedError)):
                    raise VmOffError(str(self._path)) from error
                raise MonitorHeldError(f"its monitor does not answer: {error.exc}") from error
            except TimeoutError as error:
                await _end(client)
                reason = f"its monitor did not greet in {self._connect_timeout_s:g} s"
                raise MonitorHeldError(f"{reason}: another client holds it") from error
            except BaseException:
                await _end(client)
                raise
            self._client = client
            self._watcher = asyncio.create_task(self._watch(client))
            return client

    async def _watch(self, client: QMPClient) -> None:
        """Pass on that a job has changed, until the connection ends."""
        with client.listener("JOB_STATUS_CHANGE") as listener:
            news = asyncio.create_task(_pass_on(listener, self._changed.set))
            try:
                while client.runstate == Runstate.RUNNING:
                    await client.runstate_changed()
            finally:
                news.cancel()
                self._changed.set()


async def _pass_on(listener: EventListener, tell: Callable[[], None]) -> None:
    async for _ in listener:
        tell()


async def _end(client: QMPClient) -> None:
    """Disconnect; how the connection came to its end was told to whoever used it."""
    with contextlib.suppress(QMPError, OSError, EOFError):
        await client.disconnect()
