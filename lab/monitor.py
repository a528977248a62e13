"""A guest's QEMU as a lab talks to it: over the lab's own monitor, for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from ..drivers.qemu_monitor import (
    Monitor,
    MonitorHeldError,
    MonitorLostError,
    RefusedError,
    VmOffError,
)
from ..errors import StillframeError

_CONNECT_S = 30.0
_COMMAND_S = 60.0


class LabMonitor:
    """A monitor that :func:`monitor` has connected to."""

    def __init__(self, qmp: Monitor, socket: Path) -> None:
        self._qmp = qmp
        self._socket = socket

    async def execute(self, command: str, **arguments: Any) -> Any:
        """The answer to a command; underscores in names of arguments stand for dashes.

        Raises
        ------
        StillframeError
            QEMU refuses it, is gone, or does not answer.
        """
        try:
            async with asyncio.timeout(_COMMAND_S):
                return await self._qmp.execute(command, **arguments)
        except TimeoutError:
            problem = f"did not answer {command} within {_COMMAND_S:g} s"
        except RefusedError as error:
            problem = f"refuses {command}: {error}"
        except (VmOffError, MonitorHeldError, MonitorLostError) as error:
            problem = f"cannot be asked for {command}: {error}"
        raise StillframeError(f"QEMU behind {self._socket} {problem}")

    async def state(self) -> str:
        """QEMU's run state, such as ``running``."""
        return str((await self.execute("query-status"))["status"])

    async def quit(self) -> None:
        """Have QEMU end; it may be gone before it has answered."""
        with suppress(VmOffError, MonitorLostError):
            await self._qmp.execute("quit")


@asynccontextmanager
async def monitor(socket: Path) -> AsyncIterator[LabMonitor]:
    """Connect to a monitor when it is first asked, and leave it: it serves one client at a time."""
    qmp = Monitor(socket, _CONNECT_S)
    try:
        with qmp.used():
            yield LabMonitor(qmp, socket)
    finally:
        await qmp.close()
