"""A guest's saved state: booted once, kept by the hash of all that it depends on.

A guest is saved with its agent listening and no file system mounted, so that any disks of the same
size can be under it when it is restored.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from ..errors import StillframeError
from .agent import agent
from .cache import Cache, key_of
from .guest_build import GuestFiles
from .host import run
from .machine import (
    QEMU,
    Sockets,
    device_arguments,
    machine_arguments,
    port_arguments,
    start_machine,
)
from .monitor import monitor

_BOOT_S = 120.0
_SAVE_S = 60.0
_LOOK_S = 0.05
STATE = "state"


async def saved_state(cache: Cache, files: GuestFiles, disks: int, disk_bytes: int) -> Path:
    """The file to restore a guest with so many disks of that size from; made now if there is none.

    Raises
    ------
    StillframeError
        QEMU is missing, or the guest does not boot.
    """
    words = [*_template_disks(disks, disk_bytes), *port_arguments(_sockets(Path("/x")))]
    machine = [word for word in machine_arguments(files) if not Path(word).is_absolute()]
    version = await run(QEMU, "--version")
    key = key_of(version, files.key, *machine, *words)

    async def make(folder: Path) -> None:
        await _boot_and_save(folder, files, _template_disks(disks, disk_bytes))

    return await cache.entry(f"state-{key}", make) / STATE


def _sockets(folder: Path) -> Sockets:
    return Sockets(folder / "driver", folder / "lab", folder / "agent", None)


def _template_disks(disks: int, disk_bytes: int) -> list[str]:
    """Disks of nothing but zeros: the guest reads no more of them than their size."""
    words: list[str] = []
    for number in range(disks):
        node = f"disk{number}"
        null = f"driver=null-co,node-name={node},size={disk_bytes},read-zeroes=on"
        words += ["-blockdev", null, *device_arguments(node, node)]
    return words


async def _boot_and_save(folder: Path, files: GuestFiles, disk_arguments: list[str]) -> None:
    # The cache may lie deeper than a socket's name reaches.
    scratch = Path(tempfile.mkdtemp(prefix="stillframe-guest-"))
    sockets = _sockets(scratch)
    try:
        await start_machine("template", scratch, files, disk_arguments, sockets, None)
        try:
            await _save(sockets, folder / STATE)
        finally:
            await _quit(sockets.lab)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


async def _save(sockets: Sockets, to: Path) -> None:
    async with agent(sockets.agent, _BOOT_S) as inside:
        # What the page cache holds would only make the state larger.
        await inside.run("/bin/sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches")
    async with monitor(sockets.lab) as talk:
        await talk.execute("stop")
        await talk.execute("migrate-set-parameters", max_bandwidth=1 << 40)
        await talk.execute("migrate", uri=f"exec:cat > '{to}'")
        async with asyncio.timeout(_SAVE_S):
            while (done := (await talk.execute("query-migrate"))["status"]) != "completed":
                if done in ("failed", "cancelled"):
                    raise StillframeError(f"the guest's state could not be saved: {done}")
                await asyncio.sleep(_LOOK_S)


async def _quit(socket: Path) -> None:
    async with monitor(socket) as talk:
        await talk.quit()
