"""How a qemu-storage-daemon array is started on what its folder holds, also after a crash.

The chain of a unit is read from the headers of its images: the newest overlay stands on top. Three
things can lie about after a crash, and each is told from the rest by itself:

* **A group whose cut was never made.** Its overlays were being prepared; nothing can have been
  written to them, so all are empty, and no caller was ever told that the group exists. They go.
  When one of them holds data the cut *was* made, for all of them at once, and they stay.
* **An overlay that was merged but not unlinked.** What was merged into the image under it may still
  have been in the dead daemon's memory in part. So it is put back into its place in the chain; its
  group is marked as deleted, and it is merged again later.
* **A clone that was being made.** Nobody was given it; one that has no header yet goes.
"""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from .qsd_pool import (
    GroupRecord,
    Pool,
    PoolError,
    Stage,
    file_options,
    image_options,
    node_name,
)

_MAGIC = 0x514649FB
_HEADER = struct.Struct(">IIQIIQIIQ")
"""docs/interop/qcow2.txt of QEMU: magic, version, backing offset and size, cluster bits, virtual
size, crypt method, entries and offset of the L1 table; big-endian."""


class Header(NamedTuple):
    """What a qcow2 header says: the image under it, and whether anything was ever written."""

    backing: Path | None
    empty: bool


def read_header(path: Path) -> Header | None:
    """The header of an overlay; None when it has none (yet).

    An image is empty when no entry of its first-level table points anywhere: QEMU writes such an
    entry, through to the file, before the first cluster that it covers.
    """
    with path.open("rb") as file:
        start = file.read(_HEADER.size)
        if len(start) < _HEADER.size:
            return None
        magic, _, where, length, _, _, _, entries, table = _HEADER.unpack(start)
        if magic != _MAGIC:
            return None
        file.seek(table)
        empty = not any(file.read(8 * entries))
        if not where:
            return Header(None, empty)
        file.seek(where)
        return Header(path.parent / file.read(length).decode(), empty)


def sweep(pool: Pool) -> None:
    """With the lock held and no daemon running: remove what was only being made.

    Raises
    ------
    PoolError
        A record cannot be read.
    """
    for record in pool.records():
        if record.stage is Stage.MAKING:
            _settle(pool, record)
    for path in pool.clones.glob("*.qcow2"):
        if read_header(path) is None:
            path.unlink()
            path.with_suffix(".dev").unlink(missing_ok=True)


def _settle(pool: Pool, record: GroupRecord) -> None:
    overlays = [pool.overlay(unit, record) for unit in record.units]
    headers = [read_header(path) if path.exists() else None for path in overlays]
    if any(header is not None and not header.empty for header in headers):
        pool.write(record.at(Stage.MADE))
        return
    for path in overlays:
        path.unlink(missing_ok=True)
    pool.forget(record)


def chain_of(pool: Pool, unit: str) -> list[Path]:
    """The images of a unit, the first one first and the one that takes its writes last.

    Raises
    ------
    PoolError
        The chain does not reach the unit's first image.
    """
    made = [path for record in pool.records() if (path := _overlay(pool, record, unit)).exists()]
    age = {path: number for number, path in enumerate(made)}
    base = pool.base(unit)
    if not made:
        return [base]
    chain = _chain(made[-1], base)
    for stale in reversed(made):
        if stale not in chain:
            header = read_header(stale)
            under = header.backing if header is not None else None
            at = chain.index(under) + 1 if under in chain else 0
            if not 0 < at < len(chain) or age[chain[at]] < age[stale]:
                raise PoolError(f"{stale} has no place in the chain of {unit}")
            chain.insert(at, stale)
    return chain


def broken_links(pool: Pool) -> list[tuple[Path, Path]]:
    """Overlays whose header names another image than the one they have to lie on, and that one.

    Each has to be told before the daemon starts (``qemu-img rebase -u``). Raises PoolError as
    :func:`chain_of` does.
    """
    broken = []
    for unit in pool.units():
        for under, over in pairwise(chain_of(pool, unit)):
            header = read_header(over)
            if header is None or header.backing != under:
                broken.append((over, under))
    return broken


def _overlay(pool: Pool, record: GroupRecord, unit: str) -> Path:
    return pool.overlay(unit, record) if unit in record.units else pool.folder / "none"


def _chain(top: Path, base: Path) -> list[Path]:
    """From the header of one image to the next, down to the base; the base first."""
    chain = [top]
    while chain[-1] != base:
        here = chain[-1]
        header = read_header(here) if here.exists() else None
        if header is None or header.backing is None or header.backing in chain:
            raise PoolError(f"the chain of {top} breaks at {here} before it reaches {base}")
        chain.append(header.backing)
    return chain[::-1]


def daemon_arguments(pool: Pool, more_monitors: int = 0) -> list[str]:
    """The arguments after ``qemu-storage-daemon`` that bring everything up again.

    To be called when no links are broken (any more). Exports
    have the names of their units. Raises PoolError as :func:`chain_of` does.

    Parameters
    ----------
    more_monitors:
        Monitors beside the driver's and the lab's, each of which serves one client at a time.
    """
    words = []
    more = [(f"driver-{number}", pool.monitor(number)) for number in range(1, more_monitors + 1)]
    for name, socket in (("driver", pool.qmp_socket), ("lab", pool.lab_socket), *more):
        words += ["--chardev", f"socket,path={socket},server=on,wait=off,id={name}"]
        words += ["--monitor", f"chardev={name}"]
    words += ["--nbd-server", f"addr.type=unix,addr.path={pool.nbd_socket}"]
    opened: set[Path] = set()
    for unit in pool.units():
        words += _open_chain(chain_of(pool, unit), opened)
        words += fuse_export(unit, chain_of(pool, unit)[-1], pool.device(unit))
    for path in sorted(pool.clones.glob("*.qcow2")):
        header = read_header(path)
        if header is None or header.backing is None:
            raise PoolError(f"clone {path} does not say what it is a clone of")
        words += _open_chain([*_under(pool, header.backing), path], opened)
        words += fuse_export(clone_export(unquote(path.stem)), path, path.with_suffix(".dev"))
    return words


def clone_export(name: str) -> str:
    """The name of a clone's export."""
    return "clone-" + node_name(Path(name))


def _under(pool: Pool, image: Path) -> list[Path]:
    """The chain of an image that belongs to some unit's chain."""
    for unit in pool.units():
        chain = chain_of(pool, unit)
        if image in chain:
            return chain[: chain.index(image) + 1]
    raise PoolError(f"a clone lies on {image}, which belongs to no unit")


def _open_chain(chain: list[Path], opened: set[Path]) -> list[str]:
    words: list[str] = []
    under: str | None = None
    for path in chain:
        if path not in opened:
            stands_still = path != chain[-1]
            for options in (
                file_options(path),
                image_options(path, under, read_only=stands_still),
            ):
                words += ["--blockdev", json.dumps(options)]
            opened.add(path)
        under = node_name(path)
    return words


def fuse_export(name: str, image: Path, at: Path) -> list[str]:
    """The argument that exports an image for reading and writing."""
    return ["--export", json.dumps(fuse_options(name, image, at))]


def fuse_options(name: str, image: Path, at: Path) -> dict[str, object]:
    """How an image is exported for reading and writing."""
    return {
        "type": "fuse",
        "id": name,
        "node-name": node_name(image),
        "mountpoint": str(at),
        "writable": True,
    }
