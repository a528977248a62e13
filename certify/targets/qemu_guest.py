"""One guest of the QEMU target: how the driver sees it, and how the target takes hold of it."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from pathlib import Path

import yaml

from ...drivers.contracts import Window
from ...drivers.qemu_settings import GUEST_FILE
from ...errors import StillframeError
from ...lab.keeper import Keeper, start_keeper
from ...lab.lab import Lab
from ...lab.monitor import monitor
from .qmp_proxy import QmpProxy

_START_S = 60.0
_LOOK_S = 0.1


class CertifiedGuest:
    """A guest of a lab under the name of its role.

    Parameters
    ----------
    role:
        The VM's name in the driver's inventory.
    folder:
        The target's; sockets go to ``s``, and ``g`` is the driver's folder of guests.
    program:
        The keeper's.
    has_agent:
        Whether it can be quiesced.

    Attributes
    ----------
    refuses:
        Whether its agent's freeze hook fails.
    """

    def __init__(
        self, lab: Lab, name: str, role: str, folder: Path, program: bytes, *, has_agent: bool
    ) -> None:
        self.guest = lab.guests[name]
        self.role = role
        self.refuses = False
        self._lab = lab
        self._folder = folder
        self._program = program
        self._has_agent = has_agent
        self._keeper: Keeper | None = None
        self._coming_back: asyncio.Future[None] | None = None
        self._spans: list[Window] = []
        self.proxy = QmpProxy(folder / "s" / f"{name}.qmp", [self.guest.sockets.driver])
        self._serving = AsyncExitStack()

    @property
    def is_on(self) -> bool:
        """Whether it was started and not killed since."""
        return self._keeper is not None

    @property
    def keeper(self) -> Keeper:
        """The program in it; raises StillframeError while it is off."""
        if self._keeper is None:
            raise StillframeError(f"the VM {self.role} is off")
        return self._keeper

    def describe(self) -> None:
        """Write down for the driver what it is: in its home, which lies with its first disk."""
        disks = [
            {
                "node": disk.node,
                "file": str(disk.file),
                "size": disk.size_bytes,
                "independent": disk.independent,
            }
            for disk in self.guest.disks
        ]
        data = {"name": self.role, "qmp": str(self._folder / "s" / f"{self.guest.name}.qmp")}
        if self._has_agent:
            data["agent"] = str(self.guest.sockets.agent)
        first = self.guest.disks[0]
        home = first.datastore / f"{self.guest.name}.home"
        home.mkdir()
        text = yaml.safe_dump({**data, "disks": disks}, sort_keys=False)
        (home / GUEST_FILE).write_text(text, encoding="utf-8")
        (self._folder / "g" / self.guest.name).symlink_to(home)

    async def put_foreign_overlay(self, name: str) -> None:
        """Take a snapshot of its first disk as another tool would, under a name like ours."""
        disk = self.guest.disks[0]
        async with monitor(self.guest.sockets.lab) as talk:
            await talk.execute(
                "blockdev-snapshot-sync",
                node_name=disk.node,
                snapshot_file=str(disk.file.with_name(f"{disk.file.stem}.{name}.qcow2")),
                snapshot_node_name=name,
                format="qcow2",
            )

    async def take_hold(self) -> None:
        """Of a guest that runs: have the keeper in it, and the driver reach its monitor."""
        sockets = self._folder / "s"
        self._keeper = await start_keeper(self.guest, sockets, self._program, self._asked)
        if not self._has_agent:
            await self._keeper.end_agent()
        # Only while QEMU runs: who can connect nowhere takes the VM to be off.
        await self._serving.enter_async_context(self.proxy.serving())

    async def write(self, disk: int, block: int, data: bytes) -> None:
        """Write a block; a guest that crashes in it, and is started again, writes it once more.

        Raises
        ------
        StillframeError
            The VM is off, or refuses.
        """
        while True:
            try:
                await self.keeper.write(disk, block, data)
            except StillframeError:
                if self._coming_back is None:
                    raise
                await asyncio.shield(self._coming_back)
            else:
                return

    async def crash(self) -> None:
        """Kill it, to be started again at once; see :meth:`write`."""
        self._coming_back = asyncio.get_running_loop().create_future()
        await self.kill()

    async def come_back(self) -> None:
        """Start it after :meth:`crash`; raises as :meth:`start`."""
        coming = self._coming_back
        try:
            await self.start()
        finally:
            self._coming_back = None
            if coming is not None:
                coming.set_result(None)

    async def kill(self) -> None:
        """As a power cut; fine when it is off."""
        if self._keeper is None:
            return
        await self._lab.kill_guest(self.guest.name)
        await self.close()

    async def start(self) -> None:
        """Start it on the newest files of its disks.

        While the driver merges the files of a VM that is off, QEMU finds them locked, or gone when
        it opens what was the newest a moment ago. Who starts a guest then looks again.

        Raises
        ------
        StillframeError
            It runs, or does not start.
        """
        end_s = asyncio.get_running_loop().time() + _START_S
        while True:
            try:
                await self._lab.start_guest(self.guest.name)
                break
            except StillframeError:
                late = asyncio.get_running_loop().time() >= end_s
                if late or self._lab.is_running(self.guest.name):
                    raise
                await asyncio.sleep(_LOOK_S)
        try:
            await self.take_hold()
        except BaseException:
            await self._lab.kill_guest(self.guest.name)
            raise

    async def close(self) -> None:
        """Let go of it; nothing of it stands frozen any more, as far as anybody can tell."""
        keeper, self._keeper = self._keeper, None
        await self._serving.aclose()
        if keeper is not None:
            await keeper.close()
        self._end_span()

    def spans(self) -> list[Window]:
        """When its file systems stood frozen."""
        return list(self._spans)

    def _asked(self, what: str) -> bool:
        if what == "freeze" and self.refuses:
            return False
        if what == "freeze":
            now_s = asyncio.get_running_loop().time()
            self._spans.append(Window(now_s, math.inf))
        elif what == "thaw":
            self._end_span()
        return True

    def _end_span(self) -> None:
        if self._spans and self._spans[-1].end_s == math.inf:
            now_s = asyncio.get_running_loop().time()
            self._spans[-1] = self._spans[-1]._replace(end_s=now_s)
