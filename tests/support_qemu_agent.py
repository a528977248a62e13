"""A guest agent without a guest: answers on a Unix socket as qemu-ga does through QEMU.

Like a character device of QEMU it serves one client at a time, and like qemu-ga it works on one
command after the other, and passes over what it cannot read.
"""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FILE_SYSTEMS = 1


class FakeAgent:
    """Serves ``path`` from a thread until the ``with`` block ends.

    Attributes
    ----------
    manner:
        ``""``: freezes and thaws. ``"refuse"``: refuses to freeze. ``"part"``: refuses with one
        file system frozen. ``"hang"``: freezes and does not come back before ``wake`` is called.
        ``"early"``: thaws by itself at once. ``"silent"``: nobody answers, as without an agent.
        ``"stuck"``: does not thaw.
    heard:
        The commands in order, those that were never answered included.
    """

    def __init__(self, path: Path, manner: str = "") -> None:
        self.path = path
        self.manner = manner
        self.heard: list[str] = []
        self.frozen = False
        self.changed = threading.Condition()
        self._awake = threading.Event()
        self._closing = False
        self._half = b""
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(self.path))
        self._server.listen(8)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._awake.set()
        client = self._client
        if client is not None:
            end_socket(client)
        end_socket(self._server)
        self._thread.join(10)
        self._server.close()
        self.path.unlink(missing_ok=True)

    def wake(self) -> None:
        """A freeze that hangs comes back."""
        self._awake.set()

    def wait_until(self, what: str, times: int = 1, limit_s: float = 20.0) -> None:
        """Wait until a command was heard so many times."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.heard.count(what) >= times, limit_s), (
                f"{what} was not heard: {self.heard}"
            )

    def wait_until_thawed(self, limit_s: float = 20.0) -> None:
        """Wait until the guest is not frozen."""
        with self.changed:
            assert self.changed.wait_for(lambda: not self.frozen, limit_s), "still frozen"

    def _serve(self) -> None:
        while not self._closing:
            try:
                self._client, _ = self._server.accept()
            except OSError:
                return
            with self._client as client:
                self._talk(client)
            self._client = None

    def _talk(self, client: socket.socket) -> None:
        try:
            with client.makefile("rb") as lines:
                for part in lines:
                    line, self._half = self._half + part, b""
                    if not line.endswith(b"\n"):  # a serial line does not tell who sent what
                        self._half = line
                        return
                    answer = self._answer(line)
                    if answer is not None:
                        client.sendall(answer)
        except OSError:
            return  # the client went away

    def _answer(self, line: bytes) -> bytes | None:
        if self.manner == "silent":
            return None
        try:
            asked = json.loads(line.rpartition(b"\xff")[2])
        except ValueError:
            return b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n'
        command = asked["execute"].removeprefix("guest-").removeprefix("fsfreeze-")
        with self.changed:
            self.heard.append(command)
            self.changed.notify_all()
        answer = json.dumps(self._do(command, asked.get("arguments", {}))).encode() + b"\n"
        return b"\xff" + answer if command == "sync-delimited" else answer

    def _do(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if command == "sync-delimited":
            return {"return": arguments["id"]}
        if command == "status":
            return {"return": "frozen" if self.frozen else "thawed"}
        if command == "freeze":
            return self._freeze()
        if command == "thaw":
            if self.manner == "stuck":
                return {"error": {"class": "GenericError", "desc": "failed to thaw"}}
            count = FILE_SYSTEMS if self.frozen else 0
            self._set(frozen=False)
            return {"return": count}
        return {"error": {"class": "CommandNotFound", "desc": f"no command {command}"}}

    def _freeze(self) -> dict[str, Any]:
        if self.manner == "refuse":
            return {"error": {"class": "GenericError", "desc": "failed to freeze /: busy"}}
        self._set(frozen=self.manner != "early")
        if self.manner == "part":
            return {"error": {"class": "GenericError", "desc": "failed to freeze /b: busy"}}
        if self.manner == "hang":
            self._awake.wait()
        return {"return": FILE_SYSTEMS}

    def _set(self, *, frozen: bool) -> None:
        with self.changed:
            self.frozen = frozen
            self.changed.notify_all()


def end_socket(one: socket.socket) -> None:
    """End whatever waits on this socket in another thread."""
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it had ended by itself
