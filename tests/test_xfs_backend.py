"""The XFS array of a lab comes up whole or not at all, and goes whatever was done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_lab import needs_lab, short_folder
from support_xfs import MIB, NEEDS

from stillframe.errors import StillframeError
from stillframe.lab.backend_xfs import XfsBackend
from stillframe.lab.host import attach_loop, loops, mount, mounts, run

pytestmark = needs_lab(*NEEDS)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("xfs") as made:
        yield made


def left_of(folder: Path) -> list[object]:
    """What is mounted, attached or kept in a folder."""
    found: list[object] = [
        one for one in mounts() if str(folder) in (str(one.at), *map(str, one.at.parents))
    ]
    found += [one for one in loops() if folder in one.backing.parents]
    return found + [path for path in folder.rglob("*") if path.name != "ds"]


def test_another_object_for_the_folder_ends_what_was_left_in_it(folder: Path) -> None:
    async def main() -> None:
        units = await XfsBackend(folder, 2, 32 * MIB).up()
        assert [unit.stat().st_size for unit in units] == [32 * MIB] * 2
        device = await attach_loop(units[0], read_only=False, direct_io=True)
        await run("mkfs.ext4", "-q", device)
        await mount(device, folder / "ds")
        # As a process that died in the middle of a snapshot leaves it.
        await run("fsfreeze", "--freeze", folder / "ds")
        units[1].unlink()
        other = XfsBackend(folder, 2, 32 * MIB)
        await other.down()
        assert not left_of(folder)
        await other.down()
        assert await other.up() == units
        await other.down()
        assert not left_of(folder)

    asyncio.run(main())


def test_it_does_not_come_up_on_what_is_there(folder: Path) -> None:
    async def main() -> None:
        backend = XfsBackend(folder, 1, 32 * MIB)
        (unit,) = await backend.up()
        unit.write_bytes(b"kept")
        with pytest.raises(StillframeError, match=r"pool\.img exists already"):
            await XfsBackend(folder, 1, 32 * MIB).up()
        assert unit.read_bytes() == b"kept"
        await backend.down()

    asyncio.run(main())


def test_when_it_cannot_come_up_nothing_is_left(folder: Path) -> None:
    async def main() -> None:
        with pytest.raises(StillframeError, match="the pool cannot be made: "):
            await XfsBackend(folder, 20, 1 << 48).up()  # no file can be that long
        assert not left_of(folder)

    asyncio.run(main())


def test_it_is_no_process_that_could_be_killed(folder: Path) -> None:
    backend = XfsBackend(folder, 1, 32 * MIB)
    for call in (backend.kill, backend.restart):
        with pytest.raises(StillframeError, match="no process"):
            asyncio.run(call())
