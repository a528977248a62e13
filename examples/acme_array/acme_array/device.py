"""The array itself: a process that serves volumes over TCP. ``python -m acme_array.device``.

Beside what an array does it has an operator's door (``operate``) through which a test makes it
slow, full, silent or forgetful, as a vendor's own laboratory can.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .store import Refused, Store
from .wire import receive, send

VOLUMES_PER_GROUP = 3
SNAPSHOTS_PER_VOLUME = 16

Answer = tuple[dict[str, Any], bytes]


class Device:
    """One array. Whatever it does to its store it does in one step of the event loop."""

    def __init__(self, store: Store, password: str) -> None:
        self._store = store
        self._password = password
        self._sessions: set[str] = set()
        self._making: dict[str, frozenset[str]] = {}
        self._delays_s: dict[str, float] = {}
        self._mute: set[str] = set()
        self._failing: set[str] = set()
        self._full = False
        self._clock_skew_s = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls of one connection, one after the other."""
        try:
            while True:
                message, data = await receive(reader)
                try:
                    answer, sent = await self._do(message, data)
                except Refused as refused:
                    answer, sent = {"error": refused.code, "reason": str(refused)}, b""
                if message["call"] in self._mute:
                    break
                await send(writer, answer, sent)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has gone; what it asked for is done all the same
        finally:
            writer.close()

    async def _do(self, message: dict[str, Any], data: bytes) -> Answer:
        call = message["call"]
        if call == "login":
            return self._login(message["password"]), b""
        if call == "operate":
            return self._operate(message), b""
        if call not in ("read", "write") and message.get("session") not in self._sessions:
            raise Refused("session", "the session is unknown or has ended")
        if call == "snapshot":
            return await self._snapshot(message), b""
        await asyncio.sleep(self._delays_s.get(call, 0.0))
        steps: dict[str, Callable[[], Answer]] = {
            "volumes": lambda: ({"volumes": self._store.volumes()}, b""),
            "snapshots": lambda: ({"snapshots": self._store.snapshots()}, b""),
            "delete": lambda: self._done(self._store.drop(message["snapshot"])),
            "clone": lambda: self._done(
                self._store.clone(message["snapshot"], message["volume"], message["name"])
            ),
            "discard": lambda: self._done(self._store.discard(message["name"])),
            "read": lambda: ({}, self._read(message)),
            "write": lambda: self._done(
                self._store.write(message["volume"], message["offset"], data)
            ),
        }
        return steps[call]()

    @staticmethod
    def _done(_: None) -> Answer:
        return {}, b""

    def _login(self, password: str) -> dict[str, Any]:
        if not secrets.compare_digest(password.encode(), self._password.encode()):
            raise Refused("denied", "the password is wrong")
        session = secrets.token_hex(8)
        self._sessions.add(session)
        return {"session": session}

    def _read(self, message: dict[str, Any]) -> bytes:
        volume, offset, length = message["volume"], message["offset"], message["length"]
        return self._store.read(volume, offset, length, message.get("snapshot"))

    async def _snapshot(self, message: dict[str, Any]) -> dict[str, Any]:
        name, volumes = message["name"], frozenset(message["volumes"])
        there = {one: held for _, one, held in self._store.snapshots()}
        if name in there and frozenset(there[name]) == volumes:
            return self._told(name)
        self._check(name, volumes, there)
        self._making[name] = volumes
        try:
            await asyncio.sleep(self._delays_s.get("snapshot", 0.0))
            self._store.cut(name, sorted(volumes))
        finally:
            del self._making[name]
        return self._told(name)

    def _check(self, name: str, volumes: frozenset[str], there: dict[str, list[str]]) -> None:
        if name in there:
            raise Refused("exists", f"snapshot {name} holds other volumes")
        if any(name == one or volumes & others for one, others in self._making.items()):
            raise Refused("busy", "another snapshot of these volumes is being made")
        if not 0 < len(volumes) <= VOLUMES_PER_GROUP:
            raise Refused("limit", f"a group has 1 to {VOLUMES_PER_GROUP} volumes")
        for volume in sorted(volumes):
            if volume in self._failing:
                raise Refused("broken", f"volume {volume} cannot be snapshotted")
            if sum(volume in held for held in there.values()) >= SNAPSHOTS_PER_VOLUME:
                raise Refused("limit", f"volume {volume} has {SNAPSHOTS_PER_VOLUME} snapshots")
        if self._full:
            raise Refused("no-space", "no snapshot space is free")

    def _told(self, name: str) -> dict[str, Any]:
        for number, one, held in self._store.snapshots():
            if one == name:
                clock_s = time.time() + self._clock_skew_s
                return {"number": number, "volumes": held, "clock_s": clock_s}
        raise Refused("not-found", f"there is no snapshot {name}")

    def _operate(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["what"]:
            case "delay":
                self._delays_s[message["of"]] = message["by_s"]
            case "mute":
                (self._mute.add if message["on"] else self._mute.discard)(message["of"])
            case "failing":
                (self._failing.add if message["on"] else self._failing.discard)(message["of"])
            case "full":
                self._full = message["on"]
            case "skew":
                self._clock_skew_s = message["by_s"]
            case "forget-sessions":
                self._sessions.clear()
            case "cut":
                self._store.cut(message["name"], message["volumes"])
            case "drop":
                for number, name, _ in self._store.snapshots():
                    if name == message["name"]:
                        self._store.drop(number)
            case "list":
                return {"snapshots": self._store.snapshots(), "volumes": self._store.volumes()}
            case "place":
                volume, offset = message["volume"], message["offset"]
                return {"place": self._store.place(volume, offset, message["snapshot"])}
        return {}


async def run(store: Store, password: str, port: int, said: Callable[[int], None]) -> None:
    """Serve until cancelled; ``said`` hears the port."""
    device = Device(store, password)
    async with await asyncio.start_server(device.serve, "127.0.0.1", port) as server:
        said(server.sockets[0].getsockname()[1])
        await server.serve_forever()


def main() -> None:
    """Serve the volumes of a file."""
    parser = argparse.ArgumentParser(description="A small storage array.")
    parser.add_argument("file", type=Path, help="where it keeps everything")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--volumes", type=int, default=4)
    parser.add_argument("--volume-bytes", type=int, default=16 << 20)
    chosen = parser.parse_args()
    password = os.environ.get("ACME_PASSWORD")
    if not password:
        sys.exit("set ACME_PASSWORD")
    store = Store(chosen.file)
    for number in range(chosen.volumes):
        store.make_volume(f"lun-{number}", chosen.volume_bytes)
    try:
        asyncio.run(
            run(store, password, chosen.port, lambda port: print(f"port {port}", flush=True))
        )
    except KeyboardInterrupt:
        pass
    finally:
        store.close()


if __name__ == "__main__":
    main()
