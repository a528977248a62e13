"""The agent in a lab guest, as far as a lab needs it: run programs, hear how they ended.

The agent serves one client at a time, and during a job that is the hypervisor driver. A lab
connects, asks, and leaves.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ..drivers.qemu_agent import Agent, AgentLostError, AgentRefusedError, talk_to
from ..errors import StillframeError

_CONNECT_S = 60.0
_COMMAND_S = 30.0
_LOOK_S = 0.02


class LabAgent:
    """An agent that :func:`agent` has connected to."""

    def __init__(self, connected: Agent, socket: Path) -> None:
        self._connected = connected
        self._socket = socket

    async def start(self, *argv: str) -> int:
        """Start a program in the guest; its process number.

        Raises
        ------
        StillframeError
            The agent refuses, is gone, or does not answer.
        """
        exec_options = {"env": ["PATH=/bin:/sbin"], "capture-output": True}
        started = await self._call("exec", path=argv[0], arg=list(argv[1:]), **exec_options)
        return int(started["pid"])

    async def ended(self, pid: int) -> tuple[int, str] | None:
        """The exit code of a program that was started, and what it wrote; None while it runs.

        Raises as :meth:`start`.
        """
        status = await self._call("exec-status", pid=pid)
        if not status["exited"]:
            return None
        written = "".join(
            base64.b64decode(status.get(key, "")).decode(errors="replace")
            for key in ("out-data", "err-data")
        )
        return int(status.get("exitcode", 128 + status.get("signal", 0))), written

    async def run(self, *argv: str, limit_s: float = _COMMAND_S) -> tuple[int, str]:
        """Run a program in the guest to its end; its exit code and what it wrote.

        Raises
        ------
        StillframeError
            It did not end within ``limit_s`` seconds, or the agent does not do its part.
        """
        pid = await self.start(*argv)
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    done = await self.ended(pid)
                    if done is not None:
                        return done
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise StillframeError(
                f"`{' '.join(argv)}` did not end in the guest within {limit_s:g} s"
            ) from None

    async def _call(self, command: str, **arguments: Any) -> Any:
        try:
            async with asyncio.timeout(_COMMAND_S):
                return await self._connected.call(command, **arguments)
        except TimeoutError:
            problem = f"did not answer guest-{command} within {_COMMAND_S:g} s; is it frozen?"
        except AgentRefusedError as error:
            problem = f"refuses guest-{command}: {error}"
        except AgentLostError as error:
            problem = f"is gone: {error}"
        raise StillframeError(f"the guest behind {self._socket} {problem}")


@asynccontextmanager
async def agent(socket: Path, limit_s: float = _CONNECT_S) -> AsyncIterator[LabAgent]:
    """Connect to a guest's agent, and leave it when done.

    Raises
    ------
    StillframeError
        Nobody listens there, or no agent answers within ``limit_s`` seconds: another client holds
        it, or the guest hangs.
    """
    try:
        async with talk_to(socket, limit_s) as connected:
            yield LabAgent(connected, socket)
    except AgentLostError as error:
        raise StillframeError(f"the guest behind {socket} cannot be reached: {error}") from None
