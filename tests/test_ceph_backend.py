"""The Ceph array of a lab: what survives the death of its parts, and what is left of it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_ceph import (
    NEEDS,
    UNIT_BYTES,
    CephArray,
    ceph_array,
    pid_of,
    request,
    tags,
    unit_ids,
    write,
)
from support_lab import needs_lab, short_folder

from stillframe.errors import StillframeError
from stillframe.lab.backend_ceph import CephBackend, Part
from stillframe.lab.ceph_conf import Store
from stillframe.lab.host import attach_loop, loops, mount, mounts, run, within
from stillframe.lab.processes import processes

pytestmark = needs_lab(*NEEDS)
BLOCK = 4096


@pytest.fixture(scope="module")
def array() -> Iterator[CephArray]:
    """One array; every test leaves it whole and without snapshots."""
    with ceph_array(units=2) as up:
        yield up


def what_is_left(folder: Path) -> list[object]:
    """Processes, mounts and loop devices of a folder."""
    return [
        *(one for one in processes() if one.names(folder)),
        *(one for one in mounts() if within(one.at, folder)),
        *(one for one in loops() if within(one.backing, folder)),
    ]


@pytest.mark.parametrize("parts", [tuple(Part), (Part.GATEWAY,)], ids=["all", "gateway"])
def test_what_was_flushed_and_every_snapshot_survive_a_kill(
    array: CephArray, parts: tuple[Part, ...]
) -> None:
    async def main() -> None:
        for number, file in enumerate(array.files):
            write(file, bytes([65 + number]) * BLOCK, 8 * BLOCK)
        async with array.open() as driver:
            ref = (await driver.snapshot_group(request("kept", 0, 1))).ref
            write(array.files[0], b"later" * 1000, 8 * BLOCK)
            await array.backend.kill_only(*parts)
            with pytest.raises(OSError, match="not connected"):
                write(array.files[0], b"nobody")
            assert await array.backend.restart() == array.files
            # The dead gateway would keep its locks for half a minute.
            for unit in ("unit-0", "unit-1"):
                assert len(array.rbd("status", f"rbd/{unit}")["watchers"]) == 1
        async with array.open() as driver:
            assert await tags(driver) == ["kept"]
            assert await driver.read_back(ref, unit_ids(1)[0], 8 * BLOCK, BLOCK) == b"B" * BLOCK
            assert await driver.read_back(ref, unit_ids(0)[0], 8 * BLOCK, BLOCK) == b"A" * BLOCK
            with array.files[0].open("rb") as file:
                file.seek(8 * BLOCK)
                assert file.read(5000) == b"later" * 1000
            write(array.files[0], b"new" * 100)
            await driver.delete_snapshot(ref)

    asyncio.run(main())


def test_writes_wait_for_an_osd_that_was_killed_and_go_on_when_it_is_back(
    array: CephArray,
) -> None:
    written = threading.Event()

    def writer() -> None:
        write(array.files[0], b"waited" * 100, 4 * BLOCK)
        written.set()

    async def main() -> None:
        gateway = pid_of(array.backend.gateway)
        await array.backend.kill_only(Part.OSD)
        thread = threading.Thread(target=writer)
        thread.start()
        assert await array.backend.restart() == array.files
        await asyncio.to_thread(thread.join, 60)
        assert written.is_set()
        assert pid_of(array.backend.gateway) == gateway
        with array.files[0].open("rb") as file:
            file.seek(4 * BLOCK)
            assert file.read(6) == b"waited"

    asyncio.run(main())


def test_a_second_array_beside_it_is_its_own_and_leaves_nothing(array: CephArray) -> None:
    async def main(folder: Path) -> None:
        other = CephBackend(folder / "b", 1, UNIT_BYTES, Store.MEMSTORE)
        (file,) = await other.up()
        write(file, b"other" * 100)
        write(array.files[0], b"array" * 100)
        with file.open("rb") as opened:
            assert opened.read(5) == b"other"
        assert other.settings()["conf_file"] != array.conf
        with pytest.raises(StillframeError, match="loses all data"):
            await other.kill()
        with pytest.raises(StillframeError, match="take it down first"):
            await other.up()
        loop = await attach_loop(file, read_only=False, direct_io=other.direct_io)
        await run("mkfs.ext4", "-q", loop)
        await mount(loop, folder / "mounted")
        (folder / "mounted" / "file").write_text("text", encoding="utf-8")
        # Another object, as in another process: all that is needed lies in the folder.
        await CephBackend(folder / "b", 1, UNIT_BYTES).down()
        assert what_is_left(folder) == []
        assert not (folder / "b").exists()
        await other.down()
        with array.files[0].open("rb") as opened:
            assert opened.read(5) == b"array"

    with short_folder("ceph") as folder:
        asyncio.run(main(folder))


@pytest.mark.parametrize("parts", [(Part.OSD,), tuple(Part)], ids=["osd", "all"])
def test_taking_it_down_after_a_kill_does_not_wait_for_the_dead(parts: tuple[Part, ...]) -> None:
    async def main(folder: Path) -> None:
        other = CephBackend(folder / "b", 1, UNIT_BYTES)
        (file,) = await other.up()
        loop = await attach_loop(file, read_only=False, direct_io=False)
        await run("mkfs.ext4", "-q", loop)
        await mount(loop, folder / "mounted")
        (folder / "mounted" / "file").write_text("unwritten", encoding="utf-8")
        await other.kill_only(*parts)
        if Part.GATEWAY in parts:
            with pytest.raises(StillframeError, match=f"{loop} is still on"):
                await other.restart()
        async with asyncio.timeout(60):
            await other.down()
        assert what_is_left(folder) == []
        assert loop not in [one.device for one in loops()]

    with short_folder("ceph") as folder:
        asyncio.run(main(folder))


def test_a_step_that_fails_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(folder: Path) -> None:
        programs = folder / "bin"
        programs.mkdir()
        broken = programs / "qemu-storage-daemon"
        broken.write_text("#!/bin/sh\necho no such driver >&2\nexit 1\n", encoding="utf-8")
        broken.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        backend = CephBackend(folder / "b", 1, UNIT_BYTES)
        with pytest.raises(StillframeError, match="no such driver"):
            await backend.up()
        assert what_is_left(folder / "b") == []
        assert not (folder / "b").exists()

    with short_folder("ceph") as folder:
        asyncio.run(main(folder))


def test_a_folder_that_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StillframeError, match="too long"):
        asyncio.run(CephBackend(tmp_path / ("x" * 100), 1, UNIT_BYTES).up())
