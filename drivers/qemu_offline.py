"""Snapshots of a VM that does not run: its files, through ``qemu-img``.

``qemu-img`` takes the locks that QEMU takes, so a VM that is started meanwhile makes it fail and
is not harmed. Every step may be repeated: as long as an overlay is named by its chain, merging it
again writes the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ..errors import StillframeError
from .hostfacts import run_tool
from .qemu_blocks import Chain, Link
from .qemu_files import chain_of, is_open, overlay_of, restore, retire, sync_file
from .qemu_settings import Guest


async def read_files(guest: Guest) -> list[Chain]:
    """The chain of each disk as its files say; block nodes have no name."""
    found = [await chain_of(disk.file) for disk in guest.disks]
    return [tuple(Link(path, "") for path in chain) for chain in found]


async def create_overlays(guest: Guest, tag: str) -> None:
    """Put an overlay on each disk that takes part in snapshots.

    Raises
    ------
    StillframeError
        ``qemu-img`` failed, for example because the VM runs; an overlay may be there.
    """
    for disk in guest.held:
        top = (await chain_of(disk.file))[-1]
        overlay = overlay_of(disk.file, tag)
        words = ("create", "-q", "-f", "qcow2", "-b", top, "-F", _format(top, disk.file), overlay)
        await run_tool("qemu-img", *words)
        await asyncio.to_thread(sync_file, overlay.parent)


async def merge_overlays(chains: Sequence[Chain], overlays: Sequence[Path]) -> None:
    """Merge overlays that are in a chain.

    Raises
    ------
    StillframeError
        ``qemu-img`` failed; every overlay that is not merged is still in its chain.
    """
    wanted = set(overlays)
    for chain in chains:
        base = chain[0].path
        paths = [link.path for link in chain]
        above = dict(pairwise(paths))
        for below, overlay in pairwise(paths):
            if overlay in wanted:
                await _merge(base, below, overlay, above.get(overlay))


async def _merge(base: Path, below: Path, overlay: Path, above: Path | None) -> None:
    # -d: an overlay that is deleted in a moment need not be emptied.
    await run_tool("qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", below, overlay)
    await asyncio.to_thread(sync_file, below)
    if above is not None:
        # Only the name in the header changes: below and overlay hold the same by now.
        words = ("rebase", "-q", "-u", "-f", "qcow2", "-F", _format(below, base), "-b", below)
        await run_tool("qemu-img", *words, above)
        await asyncio.to_thread(sync_file, above)
    await asyncio.to_thread(_retire_unused, overlay)


def _retire_unused(overlay: Path) -> None:
    """Take a merged overlay out of its chain, unless a QEMU was started on it since.

    What such a guest writes is in the overlay alone. Whoever has not opened it before it is renamed
    does not find it any more, so it is renamed first and looked at then.
    """
    aside = retire(overlay)
    if is_open(aside):
        restore(overlay)
        raise StillframeError(f"{overlay} is busy: it was opened when it had been merged")


def _format(path: Path, base: Path) -> str:
    return "raw" if path == base else "qcow2"


async def is_locked(path: Path) -> bool:
    """Whether some QEMU has the file open for writing."""
    try:
        await run_tool("qemu-img", "info", path)
    except StillframeError as error:
        if "lock" in str(error):
            return True
        raise
    return False
