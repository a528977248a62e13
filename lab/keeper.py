"""The keeper in a lab guest: reads and writes blocks there, and sees freezes, past the agent.

The agent serves one client, and a frozen guest's agent refuses to run programs: who tests a driver
needs a way of their own into the guest. The keeper (guest/keeper.c) gets two serial ports that are
plugged in while the guest runs, so that guests and saved states are those of every lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable
from itertools import count
from pathlib import Path

from ..errors import StillframeError
from .agent import agent
from .cache import Cache, key_of
from .host import run
from .labfile import LabGuest
from .monitor import monitor

BLOCK_BYTES = 4096
_SOURCE = Path(__file__).resolve().parent / "guest" / "keeper.c"
_REQUEST = struct.Struct("<IBBHII")
_ANSWER = struct.Struct("<Ii")
_INSTALL_S = 60.0
_SETTLED_S = 60.0
_PORTS = ("io", "hook")
_INSTALL = """set -e
tries=0
while ! [ -e /dev/virtio-ports/stillframe.io ] || ! [ -e /dev/virtio-ports/stillframe.hook ]; do
    for port in /sys/class/virtio-ports/*; do
        name=$(cat "$port/name" 2>/dev/null) || continue
        ln -sf "/dev/${{port##*/}}" "/dev/virtio-ports/$name"
    done
    tries=$((tries + 1)); [ $tries -lt 500 ]; usleep 20000
done
head -c {size} /dev/virtio-ports/stillframe.io > /bin/keeper
chmod 755 /bin/keeper
ln -sf keeper /bin/hook
mv /bin/qemu-ga /bin/agent
printf '#!/bin/sh\\nwhile :; do sleep 1000; done\\n' > /bin/qemu-ga
chmod 755 /bin/qemu-ga
setsid keeper /dev/virtio-ports/stillframe.io {folders} </dev/null >/tmp/keeper.log 2>&1 &
"""

Asked = Callable[[str], bool]
"""Hears ``freeze`` or ``thaw`` from the agent's hook; a freeze fails when it answers False."""


async def keeper_program(cache: Cache) -> bytes:
    """The program, from the cache or compiled now.

    Raises
    ------
    StillframeError
        There is no compiler, or it does not compile.
    """
    source = _SOURCE.read_bytes()

    async def make(folder: Path) -> None:
        flags = ("-O2", "-static", "-s", "-pthread")
        await run("gcc", *flags, "-o", folder / "keeper", _SOURCE)

    folder = await cache.entry(f"keeper-{key_of(source)}", make)
    return (folder / "keeper").read_bytes()


class Keeper:
    """The keeper in one running guest; made by :func:`start_keeper`, of no use when QEMU ends."""

    def __init__(self, name: str, asked: Asked) -> None:
        self._name = name
        self._asked = asked
        self._numbers = count(1)
        self._waiting: dict[int, tuple[asyncio.Future[bytes], int]] = {}
        self._streams: list[asyncio.StreamWriter] = []
        self._readers: list[asyncio.Task[None]] = []

    async def write(self, disk: int, block: int, data: bytes) -> None:
        """Write a block through to the disk; waits while the guest is frozen or its I/O is held.

        Raises
        ------
        StillframeError
            The guest refuses, or is gone.
        """
        if len(data) != BLOCK_BYTES:
            raise StillframeError(f"{len(data)} bytes are no block of {BLOCK_BYTES}")
        await self._ask(b"W", disk, block, data)

    async def read(self, disk: int, block: int) -> bytes:
        """What the disk holds in a block, past the guest's page cache. Raises as :meth:`write`."""
        return await self._ask(b"R", disk, block, answer_bytes=BLOCK_BYTES)

    async def hang_agent(self) -> None:
        """Stop the agent's process: it takes requests and does nothing."""
        await self._ask(b"S")

    async def wake_agent(self) -> None:
        """Let it go on, with what it was sent meanwhile."""
        await self._ask(b"C")

    async def end_agent(self) -> None:
        """End it for good."""
        await self._ask(b"Z")

    async def close(self) -> None:
        """Disconnect; whoever waits is told that the guest is gone."""
        for task in self._readers:
            task.cancel()
        if self._readers:
            await asyncio.wait(self._readers)
        for stream in self._streams:
            stream.close()
            with contextlib.suppress(OSError):
                await stream.wait_closed()
        self._give_up()

    async def connect(self, io: Path, hook: Path, program: bytes) -> None:
        """Take hold of both ports, send the program, and hear that it runs."""
        reader, writer = await asyncio.open_unix_connection(io)
        self._streams.append(writer)
        hook_reader, hook_writer = await asyncio.open_unix_connection(hook)
        self._streams.append(hook_writer)
        writer.write(program)
        await writer.drain()
        if await reader.readline() != b"hello\n":
            raise StillframeError(f"{self._name} does not run the keeper")
        self._readers = [
            asyncio.create_task(self._hear(reader)),
            asyncio.create_task(self._hear_hook(hook_reader, hook_writer)),
        ]

    async def change_agent(self) -> None:
        """End the agent that the guest was started with, and start one with the freeze hook."""
        await self._ask(b"A")

    async def _ask(
        self, what: bytes, disk: int = 0, block: int = 0, data: bytes = b"", answer_bytes: int = 0
    ) -> bytes:
        if not self._readers or self._readers[0].done():
            raise StillframeError(f"the guest {self._name} is gone")
        number = next(self._numbers)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (answer, answer_bytes)
        self._streams[0].write(_REQUEST.pack(number, what[0], disk, 0, block, 0) + data)
        # A caller who stops waiting leaves its number behind: the answer still comes.
        return await answer

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, status = _ANSWER.unpack(await reader.readexactly(_ANSWER.size))
                answer, size = self._waiting.pop(number)
                data = await reader.readexactly(size) if size else b""
                if answer.done():
                    continue
                if status:
                    problem = f"the guest {self._name} refuses: error {status}"
                    answer.set_exception(StillframeError(problem))
                else:
                    answer.set_result(data)
        except (OSError, EOFError):
            self._give_up()

    async def _hear_hook(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while line := (await reader.readline()).decode(errors="replace").strip():
                writer.write(b"y" if self._asked(line) else b"n")
                await writer.drain()

    def _give_up(self) -> None:
        waiting, self._waiting = list(self._waiting.values()), {}
        for answer, _ in waiting:
            if not answer.done():
                answer.set_exception(StillframeError(f"the guest {self._name} is gone"))
                answer.exception()  # whoever waits hears of it; without one, nobody has to


async def start_keeper(guest: LabGuest, folder: Path, program: bytes, asked: Asked) -> Keeper:
    """Plug the ports into a running guest, and have the keeper and an agent with its hook run.

    Parameters
    ----------
    folder:
        Where the sockets go; a short path.
    asked:
        See :data:`Asked`; called on the running loop.

    Raises
    ------
    StillframeError
        QEMU, the guest's agent or the keeper does not do its part.
    """
    sockets = {port: folder / f"{guest.name}.{port}" for port in _PORTS}
    async with monitor(guest.sockets.lab) as talk:
        for port, path in sockets.items():
            path.unlink(missing_ok=True)
            address = {"type": "unix", "data": {"path": str(path)}}
            backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
            await talk.execute("chardev-add", id=port, backend=backend)
            await talk.execute(
                "device_add",
                driver="virtserialport",
                id=f"{port}-port",
                chardev=port,
                name=f"stillframe.{port}",
                bus="ports.0",
            )
    keeper = Keeper(guest.name, asked)
    script = _INSTALL.format(size=len(program), folders=" ".join(guest.mount_points))
    try:
        async with asyncio.timeout(_INSTALL_S):
            connecting = asyncio.create_task(
                keeper.connect(sockets["io"], sockets["hook"], program)
            )
            try:
                async with agent(guest.sockets.agent) as inside:
                    code, said = await inside.run("/bin/sh", "-c", script, limit_s=_INSTALL_S)
                if code:
                    words = " ".join(said.split())
                    raise StillframeError(f"{guest.name} cannot start the keeper: {words}")
                await connecting
                # Not earlier: how the script ended is only known to the agent that started it.
                await keeper.change_agent()
            finally:
                connecting.cancel()
                await asyncio.wait([connecting])
        async with agent(guest.sockets.agent, _SETTLED_S):
            pass
    except TimeoutError:
        await keeper.close()
        raise StillframeError(
            f"{guest.name} did not start the keeper in {_INSTALL_S:g} s"
        ) from None
    except BaseException:
        await keeper.close()
        raise
    return keeper
