"""Holding a guest, and letting it go whatever happens.

A guest that is frozen, or whose writes a pending block job holds, is let go by the first of these
that is still there: the call that held it, the dead man's switch, and the next process that opens
the driver and finds the guest's marker without an owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from .deadman import DeadMan, Kind
from .qemu_agent import Agent, AgentLostError, AgentRefusedError, talk_to
from .qemu_files import Marker
from .qemu_settings import Guest, QemuSettings

T = TypeVar("T")
_PAUSE_S = 0.05


class HeldElsewhereError(Exception):
    """Another process holds the guest."""


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end although the caller is cancelled, then let the cancellation on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:  # noqa: BLE001  task.result() below raises it
            break
    if cancelled is not None and not task.cancelled() and task.exception() is None:
        raise cancelled
    return task.result()


class Hold:
    """The marker and the switch of one VM, taken together."""

    def __init__(self, deadman: DeadMan, guest_folder: Path, kind: Kind, socket: Path) -> None:
        self._deadman = deadman
        self._marker = Marker(guest_folder)
        self._kind = kind
        self._socket = socket

    async def begin(self) -> None:
        """Take both, before the guest is held.

        Raises
        ------
        HeldElsewhereError
            Another process holds the guest.
        StillframeError
            The switch does not work: do not hold the guest.
        """
        await self._deadman.start()
        try:
            self._marker.take()
        except BlockingIOError as error:
            raise HeldElsewhereError("another process holds the guest") from error
        try:
            self._deadman.hold(self._kind, self._socket)
        except BaseException:
            self._marker.drop()
            raise

    def end(self) -> None:
        """The guest is held no more."""
        self._deadman.release(self._kind, self._socket)
        self._marker.drop()

    def leave(self) -> None:
        """This process gives up, and leaves the guest to the switch and the marker."""
        self._marker.leave()


class Frozen:
    """One freeze of one guest: ``freeze``, then always ``thaw``.

    Parameters
    ----------
    background:
        Thaws that did not succeed in time go on in here.
    """

    def __init__(
        self,
        guest: Guest,
        deadman: DeadMan,
        settings: QemuSettings,
        background: set[asyncio.Task[int]],
    ) -> None:
        assert guest.agent is not None  # noqa: S101  a guest without one is not frozen
        self._path = guest.agent
        self._hold = Hold(deadman, guest.folder, "agent", guest.agent)
        self._settings = settings
        self._background = background
        self._connection = AsyncExitStack()
        self._agent: Agent | None = None
        self.sent_s: float | None = None
        """When the freeze was sent; None as long as it was not."""

    async def freeze(self) -> int:
        """The number of file systems that are frozen.

        Raises
        ------
        AgentLostError, AgentRefusedError
            Some may be frozen if ``sent_s`` is set.
        HeldElsewhereError, StillframeError
            Nothing was sent.
        """
        opened = talk_to(self._path, self._settings.agent_timeout)
        agent = await self._connection.enter_async_context(opened)
        await self._hold.begin()
        self.sent_s = asyncio.get_running_loop().time()
        count = int(await agent.call("fsfreeze-freeze"))
        self._agent = agent  # in step with its answers
        return count

    async def thaw(self) -> int | None:
        """Thaw; how many file systems were frozen until now.

        None when the guest has not said in time that it is thawed; it is tried on in the
        background. Cancelling waits for that time to pass.
        """
        return await to_the_end(self._thaw())

    async def _thaw(self) -> int | None:
        if self.sent_s is None:
            await self._connection.aclose()
            return 0
        thawing = asyncio.create_task(self._until_thawed())
        self._background.add(thawing)
        thawing.add_done_callback(self._thawed)
        await asyncio.wait([thawing], timeout=self._settings.thaw_timeout)
        return thawing.result() if thawing.done() else None

    def _thawed(self, thawing: asyncio.Task[int]) -> None:
        self._background.discard(thawing)
        if thawing.cancelled() or thawing.exception() is not None:
            self._hold.leave()
        else:
            self._hold.end()

    async def _until_thawed(self) -> int:
        try:
            if self._agent is not None:
                try:
                    return await self._ask(self._agent)
                except (AgentLostError, AgentRefusedError, TimeoutError):
                    self._agent = None
        finally:
            await self._connection.aclose()  # the socket serves one client at a time
        while True:
            try:
                async with talk_to(self._path, self._settings.agent_timeout) as agent:
                    return await self._ask(agent)
            except AgentLostError as error:
                if isinstance(error.__cause__, (FileNotFoundError, ConnectionRefusedError)):
                    return 0  # the guest is gone
            except (AgentRefusedError, TimeoutError):
                pass  # it is still busy, or will not yet: ask again
            await asyncio.sleep(_PAUSE_S)

    async def _ask(self, agent: Agent) -> int:
        async with asyncio.timeout(self._settings.agent_timeout):
            return int(await agent.call("fsfreeze-thaw"))
