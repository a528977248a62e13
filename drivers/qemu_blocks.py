"""Which files and block nodes a running QEMU has under each disk."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .qemu_monitor import Monitor
from .qemu_settings import Guest

_FORMATS = frozenset(("raw", "qcow2"))


class Link(NamedTuple):
    """One file of a chain, and the block node that gives its content."""

    path: Path
    node: str


Chain = tuple[Link, ...]
"""Base first, top last."""


class DiskMissingError(Exception):
    """QEMU runs without a disk that the guest's description names."""


async def read_chains(monitor: Monitor, guest: Guest) -> list[Chain]:
    """The chain of each disk, in the order of the description.

    Raises
    ------
    DiskMissingError
        QEMU has no device on one of them.
    """
    devices: list[dict[str, Any]] = await monitor.execute("query-block")
    nodes: list[dict[str, Any]] = await monitor.execute("query-named-block-nodes", flat=True)
    # In a thread: links are followed on file systems that may be held for a while.
    return await asyncio.to_thread(_chains, guest, devices, nodes)


def _chains(
    guest: Guest, devices: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]
) -> list[Chain]:
    by_path: dict[Path, str] = {}
    for node in nodes:
        if node["drv"] in _FORMATS:
            by_path[_path(node["image"]["filename"])] = node["node-name"]
    by_base: dict[Path, list[Path]] = {}
    for device in devices:
        if "inserted" in device:
            chain = list(_files(device["inserted"]["image"]))[::-1]
            by_base[chain[0]] = chain
    found = []
    for disk in guest.disks:
        paths = by_base.get(disk.file)
        if paths is None:
            raise DiskMissingError(f"QEMU has no device on {disk.file}")
        found.append(tuple(Link(path, by_path.get(path, "")) for path in paths))
    return found


def _files(image: Mapping[str, Any]) -> Iterator[Path]:
    """The files of a chain, top first."""
    below: Mapping[str, Any] | None = image
    while below is not None:
        yield _path(below["filename"])
        below = below.get("backing-image")


def _path(filename: str) -> Path:
    """QEMU names an image by its options where its path alone would not open it the same way."""
    if filename.startswith("json:"):
        options: Any = json.loads(filename.removeprefix("json:"))
        while isinstance(options.get("file"), dict):
            options = options["file"]
        filename = options.get("filename") or options.get("file.filename") or filename
    return Path(os.path.realpath(filename))
