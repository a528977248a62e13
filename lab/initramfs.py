"""An initial RAM file system from a table of its files: the same files give the same bytes."""

from __future__ import annotations

import gzip
import stat
from collections.abc import Mapping
from pathlib import PurePosixPath

_END = "TRAILER!!!"


def initramfs(files: Mapping[str, bytes]) -> bytes:
    """A compressed cpio archive in the kernel's format (``newc``).

    Parameters
    ----------
    files:
        Contents by path without a leading slash. Every file is executable, and the folders above
        it are made.
    """
    folders = sorted({str(up) for path in files for up in PurePosixPath(path).parents} - {"."})
    out = bytearray()
    for number, folder in enumerate(folders, 1):
        _add(out, number, folder, stat.S_IFDIR | 0o755, b"")
    for number, path in enumerate(sorted(files), len(folders) + 1):
        _add(out, number, path, stat.S_IFREG | 0o755, files[path])
    _add(out, 0, _END, 0, b"")
    return gzip.compress(bytes(out), compresslevel=6, mtime=0)


def _add(out: bytearray, number: int, name: str, mode: int, data: bytes) -> None:
    """One entry: a header of 13 hexadecimal fields, the name, the data, each padded to 4 bytes."""
    label = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(label), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + label
    out += b"\0" * (-len(out) % 4)
    out += data
    out += b"\0" * (-len(out) % 4)
