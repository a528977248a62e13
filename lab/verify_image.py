"""One disk image of a guest: is its file system clean, does it need its journal, what is in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from ..errors import StillframeError
from .host import run
from .judge import judge_pattern
from .pattern import PATTERN_FILE, PatternReport
from .spec import Writes
from .verify_mounts import mounted

_CLEAN = "clean"
_NEEDS_RECOVERY = "needs_recovery"
_E2FSCK_LOOKED = range(16)
"""Exit codes of e2fsck(8) that speak of the file system; from 16 on they speak of the program."""


@dataclass(frozen=True, slots=True)
class DiskImage:
    """What was found on the image of one disk.

    Attributes
    ----------
    replayed:
        Its journal had to be replayed, on a copy, before anything else was looked at.
    fsck_clean:
        e2fsck finds nothing to say about it, after the replay if there was one.
    pattern:
        The records in it; None when its guest writes none.
    problem:
        What is wrong with it in one sentence; empty when nothing is.
    """

    replayed: bool
    fsck_clean: bool
    pattern: PatternReport | None
    problem: str = ""


async def look_at(image: Path, work: Path, writes: Writes | None) -> DiskImage:
    """Look at an image without changing it.

    An image that is clean is read as it lies there. One with a journal to replay is copied, the
    copy is mounted and unmounted as a guest that starts from it would, and the copy is judged:
    e2fsck -n alone skips the journal, and finds images clean that lack half of their files.

    Parameters
    ----------
    image:
        A raw ext4 file system in a file.
    work:
        An empty folder for copies; what is put there is removed.
    writes:
        What the guest's writer was told to write; None when it writes nothing.

    Raises
    ------
    StillframeError
        A tool is missing, or could not do its work for a reason that is not the image's.
    """
    try:
        header = await run("dumpe2fs", "-h", image)
    except StillframeError as error:
        return DiskImage(False, False, _nothing(writes), f"it holds no file system: {error}")
    if _NEEDS_RECOVERY in _field(header, "Filesystem features").split():
        return await _replayed(image, work, writes)
    state = _field(header, "Filesystem state")
    told = await _fsck(image)
    if state != _CLEAN:
        told = told or f"its state is {state!r}"
    return DiskImage(False, not told, await _pattern_in(image, work, writes), told)


async def _replayed(image: Path, work: Path, writes: Writes | None) -> DiskImage:
    copy = work / "copy.raw"
    try:
        await run("cp", "--sparse=always", image, copy)
        try:
            async with mounted(copy, work / "copy"):
                pass
        except StillframeError as error:
            problem = f"its journal cannot be replayed: {error}"
            return DiskImage(True, False, _nothing(writes), problem)
        told = await _fsck(copy)
        return DiskImage(True, not told, await _pattern_in(copy, work, writes), told)
    finally:
        copy.unlink(missing_ok=True)


async def _fsck(image: Path) -> str:
    """What e2fsck has to say against an image, as one line; nothing is changed."""
    said = await run("e2fsck", "-f", "-n", image, ok=_E2FSCK_LOOKED)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # One line for each pass and the totals at the end are all that it says of a clean one.
    against = [line for line in lines if not line.startswith("Pass ")][:-1]
    return " ".join(against[:3])


async def _pattern_in(image: Path, work: Path, writes: Writes | None) -> PatternReport | None:
    """Judge the pattern file of an image that needs no journal, without mounting it."""
    if writes is None:
        return None
    dump = work / "pattern"
    try:
        # It ends well also when there is no such file: then there is no dump either.
        await run("debugfs", "-R", f"dump /{PATTERN_FILE} {dump}", image)
        if not dump.exists():
            return _nothing(writes)
        data = await asyncio.to_thread(dump.read_bytes)
    finally:
        dump.unlink(missing_ok=True)
    return await asyncio.to_thread(judge_pattern, data, writes.record_bytes, writes.file_bytes)


def _nothing(writes: Writes | None) -> PatternReport | None:
    return None if writes is None else PatternReport(0, 0, 0, -1)


def _field(header: str, name: str) -> str:
    for line in header.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return ""
