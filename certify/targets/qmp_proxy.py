"""Between drivers and the monitors of a QEMU process: delays commands, loses answers, hangs up.

A monitor serves one client at a time; here each connection gets one of several. Nothing is done to
what passes unless a fault is set, and a command that is held back reaches QEMU even if whoever sent
it has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

Which = Callable[[str], bool]
"""Whether a fault is about a command, by its name."""

Seen = Callable[[], None]

_CHUNK_BYTES = 1 << 16
_LINE_BYTES = 64 << 20
_ANSWERS_S = 60.0
"""For how long the answers to what a client has sent are waited for after it has gone."""


class QmpProxy:
    """Listens at one socket for all drivers.

    Parameters
    ----------
    at:
        Where it listens.
    monitors:
        The sockets of QEMU's monitors.
    """

    def __init__(self, at: Path, monitors: Sequence[Path]) -> None:
        self._at = at
        self._free: asyncio.Queue[Path] = asyncio.Queue()
        for one in monitors:
            self._free.put_nowait(one)
        self._lost: list[Which] = []
        self._slow: list[tuple[Which, float]] = []
        self._watched: list[tuple[Which, Seen]] = []
        self._talks: set[_Talk] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen meanwhile."""
        server = await asyncio.start_unix_server(self._accept, self._at)
        try:
            yield
        finally:
            server.close()
            self.hang_up()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def losing(self, which: Which) -> Iterator[None]:
        """Meanwhile QEMU's answers to these commands are lost, with the connection."""
        self._lost.append(which)
        try:
            yield
        finally:
            self._lost.remove(which)

    @contextmanager
    def slowing(self, which: Which, delay_s: float) -> Iterator[None]:
        """Meanwhile these commands reach QEMU so much later."""
        fault = (which, delay_s)
        self._slow.append(fault)
        try:
            yield
        finally:
            self._slow.remove(fault)

    @contextmanager
    def watching(self, which: Which, seen: Seen) -> Iterator[None]:
        """Meanwhile ``seen`` is called when QEMU has carried these out, before the client hears."""
        watch = (which, seen)
        self._watched.append(watch)
        try:
            yield
        finally:
            self._watched.remove(watch)

    def hang_up(self) -> None:
        """End every connection there is."""
        for talk in list(self._talks):
            talk.hang_up()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also of a client that waits for a monitor, or whose task has not begun, when all ends.
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        monitor = await self._free.get()
        try:
            upstream = await asyncio.open_unix_connection(str(monitor), limit=_LINE_BYTES)
            talk = _Talk(reader, writer, *upstream, self._delay_s, self._is_lost, self._see)
            self._talks.add(talk)
            try:
                await talk.run()
            finally:
                self._talks.discard(talk)
        except OSError:  # nobody serves it: the client sees its connection end
            return
        finally:
            self._free.put_nowait(monitor)

    def _delay_s(self, command: str) -> float:
        return max((delay_s for which, delay_s in self._slow if which(command)), default=0.0)

    def _is_lost(self, command: str) -> bool:
        return any(which(command) for which in self._lost)

    def _see(self, command: str) -> None:
        for which, seen in self._watched:
            if which(command):
                seen()


class _Talk:
    """One client and its monitor."""

    def __init__(
        self,
        client_in: asyncio.StreamReader,
        client_out: asyncio.StreamWriter,
        qemu_in: asyncio.StreamReader,
        qemu_out: asyncio.StreamWriter,
        delay_s: Callable[[str], float],
        is_lost: Which,
        see: Callable[[str], None],
    ) -> None:
        self._client_in = client_in
        self._client_out = client_out
        self._qemu_in = qemu_in
        self._qemu_out = qemu_out
        self._delay_s = delay_s
        self._is_lost = is_lost
        self._see = see
        self._asked: dict[str, str] = {}
        self._answered = asyncio.Event()

    async def run(self) -> None:
        """Until the client has gone and all that it sent is answered, or QEMU has gone."""
        down = asyncio.create_task(self._down())
        up = asyncio.create_task(self._up())
        try:
            await asyncio.wait({down, up}, return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ANSWERS_S):
                        await self._all_answered(up)
        finally:
            self._qemu_out.close()  # first: what follows may be cancelled
            for task in (down, up):
                task.cancel()
            await asyncio.gather(down, up, return_exceptions=True)

    def hang_up(self) -> None:
        """End the client's connection."""
        self._client_out.close()
        self._client_in.feed_eof()

    async def _all_answered(self, up: asyncio.Task[None]) -> None:
        while self._asked and not up.done():
            self._answered.clear()
            waiting = asyncio.create_task(self._answered.wait())
            await asyncio.wait({waiting, up}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    async def _down(self) -> None:
        """From the client to QEMU, one command after the other."""
        decoder, text = json.JSONDecoder(), ""
        while chunk := await self._received():
            text += chunk
            while text := text.lstrip():
                try:
                    message, end = decoder.raw_decode(text)
                except json.JSONDecodeError:
                    break  # the rest of it is still to come
                text = text[end:]
                await self._pass_on(message)

    async def _received(self) -> str:
        try:
            return (await self._client_in.read(_CHUNK_BYTES)).decode()
        except OSError:
            return ""

    async def _pass_on(self, message: dict[str, Any]) -> None:
        command = str(message.get("execute", ""))
        if "id" in message:
            self._asked[str(message["id"])] = command
        delay_s = self._delay_s(command)
        if delay_s:
            await asyncio.sleep(delay_s)
        self._qemu_out.write(json.dumps(message).encode() + b"\n")
        await self._qemu_out.drain()

    async def _up(self) -> None:
        """From QEMU to the client, one line after the other."""
        while line := await self._qemu_in.readline():
            message = json.loads(line)
            command = self._asked.pop(str(message.get("id", "")), None)
            if command is not None and "return" in message:
                self._see(command)
            if command is not None and self._is_lost(command):
                self.hang_up()
            elif not self._client_out.is_closing():
                self._client_out.write(line)
            self._answered.set()
        self.hang_up()
