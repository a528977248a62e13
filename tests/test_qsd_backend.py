"""The daemon of a lab's qemu-storage-daemon array: up, killed, restarted, down."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_blocks import BLOCK_BYTES, read_block, write_block
from support_lab import needs_lab, short_folder
from support_qsd import NEEDS, UNIT_BYTES, QsdArray, qsd_array

from stillframe.drivers.errors import NotFoundError
from stillframe.drivers.qsd_pool import Pool, PoolError, Stage
from stillframe.drivers.qsd_start import chain_of
from stillframe.errors import StillframeError
from stillframe.lab.backend_qsd import QsdBackend
from stillframe.lab.host import attach_loop, loops, mount, mounts, run, within

pytestmark = needs_lab(*NEEDS)
KEEP_SIZE, PUNCH_HOLE = 1, 2
"""linux/falloc.h."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder("qsd") as made:
        yield made


def mounted(folder: Path) -> list[Path]:
    """What is mounted in a folder."""
    return [one.at for one in mounts() if within(one.at, folder)]


def daemons(folder: Path) -> list[str]:
    """The daemons that serve a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
        if "qemu-storage-daemon" in text and str(folder) in text:
            found.append(text)
    return found


def punch(file: Path, offset_bytes: int, length_bytes: int) -> None:
    """Ask for zeros in the way of a loop device that zeroes a part of itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(file, os.O_RDWR)
    try:
        done = libc.fallocate(
            handle,
            KEEP_SIZE | PUNCH_HOLE,
            ctypes.c_long(offset_bytes),
            ctypes.c_long(length_bytes),
        )
        assert done == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(handle)


def test_units_can_be_written_and_nothing_is_left_afterwards(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder, units=3) as array:
            assert [file.stat().st_size for file in array.files] == [UNIT_BYTES] * 3
            await array.write(5)
            assert await array.live() == [5, 5, 5]
            assert len(daemons(folder)) == 1
            await array.backend.down()
            assert not array.folder.exists()
            await array.backend.down()  # nothing to do

    asyncio.run(main())
    assert daemons(folder) == []
    assert mounted(folder) == []


def test_a_killed_daemon_comes_back_with_all_that_was_kept(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder) as array:
            await array.write(6)
            first = array.files
            await array.backend.kill()
            assert daemons(folder) == []
            assert mounted(folder) == []
            with pytest.raises(StillframeError, match="no qemu-storage-daemon runs"):
                await array.backend.kill()
            assert await array.backend.restart() == first
            assert await array.live() == [6, 6]
            with pytest.raises(StillframeError, match="still runs"):
                await array.backend.restart()

    asyncio.run(main())


def test_snapshots_and_clones_come_back_under_their_names(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder) as array:
            async with array.driver() as driver:
                await array.write(1)
                first = await array.cut(driver, "first")
                await array.write(2)
                await array.cut(driver, "second", 0)
                clone = await driver.clone(first.ref, "a/unit-0", "copy")
                copy = Path(clone.devices[0].value)
                await asyncio.to_thread(write_block, copy, 1, 9)
                await array.write(3)
                before = await driver.list_snapshots("")
            await array.kill_and_restart()
            async with array.driver() as driver:
                after = await driver.list_snapshots("")
                assert [one.ref for one in after] == [one.ref for one in before]
                assert await array.held(driver, first.ref) == [1, 1]
                held = [await asyncio.to_thread(read_block, copy, n * BLOCK_BYTES) for n in (0, 1)]
                assert held == [1, 9]
                assert await array.live() == [3, 3]
                await driver.discard(clone.id)

    asyncio.run(main())


def test_a_second_object_ends_what_the_first_began(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder) as array:
            other = QsdBackend(array.folder, 2, UNIT_BYTES)
            await other.kill()
            await other.restart()
            await array.write(4)
            await other.down()
            assert not array.folder.exists()

    asyncio.run(main())
    assert mounted(folder) == []


def test_the_daemon_outlives_the_process_that_started_it(folder: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from stillframe.lab.backend_qsd import QsdBackend\n"
        f"asyncio.run(QsdBackend(Path(sys.argv[1]), 2, {UNIT_BYTES}).up())\n"
    )
    array = QsdArray(folder / "array", 2)
    try:
        subprocess.run([sys.executable, "-c", program, str(array.folder)], check=True, timeout=60)
        array.files = [array.pool.device(f"unit-{number}") for number in range(2)]
        asyncio.run(array.write(8))
        assert asyncio.run(array.live()) == [8, 8]
    finally:
        asyncio.run(array.backend.down())
    assert daemons(folder) == []


def test_a_daemon_that_does_not_end_is_ended(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder) as array:
            array.signal(signal.SIGSTOP)
            array.backend.patience_s = 0.1
            await array.backend.down()

    asyncio.run(main())
    assert daemons(folder) == []
    assert mounted(folder) == []


def test_what_lies_on_units_and_clones_is_taken_off(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder) as array:
            async with array.driver() as driver:
                made = await array.cut(driver, "cut")
                clone = await driver.clone(made.ref, "a/unit-1", "copy")
            devices = [
                await attach_loop(file, read_only=False, direct_io=False)
                for file in (array.files[0], Path(clone.devices[0].value))
            ]
            await run("mkfs.ext4", "-q", devices[0])
            await mount(devices[0], folder / "datastore")
            await array.backend.down()
            assert not [one for one in loops() if within(one.backing, folder)]

    asyncio.run(main())
    assert mounted(folder) == []


def test_a_folder_that_cannot_be_used_is_refused_and_nothing_is_left(folder: Path) -> None:
    async def main() -> None:
        deep = folder / ("x" * 120)
        with pytest.raises(StillframeError, match="too long for the sockets"):
            await QsdBackend(deep, 1, UNIT_BYTES).up()
        assert not deep.exists()
        async with qsd_array(folder) as array:
            await array.write(1)
            with pytest.raises(StillframeError, match="already holds an array"):
                await QsdBackend(array.folder, 2, UNIT_BYTES).up()
            assert await array.live() == [1, 1]
        (folder / "array" / "qmp.sock").mkdir(parents=True)  # the daemon cannot listen there
        with pytest.raises(StillframeError, match=r"qemu-storage-daemon.*failed"):
            await QsdBackend(folder / "array", 1, UNIT_BYTES).up()
        assert not (folder / "array").exists()

    asyncio.run(main())
    assert daemons(folder) == []


def test_what_a_host_asks_to_be_zeroed_reads_as_zeros(folder: Path) -> None:
    """QEMU 7.2 answers success and zeroes nothing, unless discards reach the file."""

    async def zeroed(file: Path) -> None:
        for block in range(16):
            await asyncio.to_thread(write_block, file, block, 7)
        punch(file, BLOCK_BYTES, 2 * BLOCK_BYTES)
        found = [await asyncio.to_thread(read_block, file, n * BLOCK_BYTES) for n in range(16)]
        assert found == [7, 0, 0] + 13 * [7]

    async def main() -> None:
        async with qsd_array(folder, units=1) as array, array.driver() as driver:
            (file,) = array.files
            await zeroed(file)
            for block in range(16):
                await asyncio.to_thread(write_block, file, block, 5)
            made = await array.cut(driver, "under")
            punch(file, 3 * BLOCK_BYTES, BLOCK_BYTES)  # what the overlay does not hold itself
            assert await array.live(3) == [0]
            await zeroed(file)
            clone = await driver.clone(made.ref, "a/unit-0", "copy")
            await zeroed(Path(clone.devices[0].value))
            await driver.discard(clone.id)
            assert await array.held(driver, made.ref, 3) == [5]
            await array.kill_and_restart()
            await zeroed(file)
            await array.cut(driver, "over")
            await driver.delete_snapshot(made.ref)  # zeros are merged like data
            assert [await array.live(n) for n in (0, 1, 2, 3)] == [[7], [0], [0], [7]]

    asyncio.run(main())


def test_large_writes_arrive_where_they_belong(folder: Path) -> None:
    """Direct loop devices mix them up; the export itself does not."""

    async def main() -> None:
        async with qsd_array(folder, units=1) as array:
            assert array.backend.direct_io is False
            data = b"".join(n.to_bytes(8, "little") * 512 for n in range(UNIT_BYTES // BLOCK_BYTES))
            (file,) = array.files
            handle = os.open(file, os.O_RDWR)
            try:
                assert os.pwrite(handle, data, 0) == len(data)
                os.fsync(handle)
            finally:
                os.close(handle)
            assert array.pool.base("unit-0").read_bytes() == data

    asyncio.run(main())


def test_a_merge_that_was_not_all_kept_is_undone(folder: Path) -> None:
    """The daemon said that an overlay was merged, and died with a part of it in its memory."""

    async def main() -> None:
        async with qsd_array(folder, units=1) as array:
            async with array.driver() as driver:
                await array.write(1)
                below = await array.cut(driver, "below")
                await array.write(2)
                lost = await array.cut(driver, "lost")
                await array.write(3, block=1)
                upper = await array.cut(driver, "upper")
            await array.backend.kill()
            records = {one.tag: one for one in array.pool.records()}
            images = {tag: array.pool.overlay("unit-0", one) for tag, one in records.items()}
            array.pool.write(records["lost"].at(Stage.DELETED))
            over, under = images["upper"], images["below"]
            await run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", under, over)
            array.files = await array.backend.restart()
            async with array.driver() as driver:
                assert (await array.live(), await array.live(1)) == ([2], [3])
                assert await array.held(driver, upper.ref, 1) == [3]
                with pytest.raises(NotFoundError):
                    await driver.delete_snapshot(lost.ref)
                await driver.delete_snapshot(below.ref)
                assert array.overlays() == [over.name]
                assert (await array.live(), await array.live(1)) == ([2], [3])
            await array.kill_and_restart()
            assert (await array.live(), await array.live(1)) == ([2], [3])

    asyncio.run(main())


def test_a_pool_by_hand_as_the_manual_makes_it(folder: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "arrays.md").read_text(encoding="utf-8")
    section = page.partition("## qemu-storage-daemon\n")[2].partition("\n## ")[0]
    (script,) = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    array = QsdArray(folder / "pool", 1)
    script = script.replace("/srv/pool", str(array.folder))

    async def main() -> None:
        array.files = [array.pool.device("unit-0")]
        async with array.driver() as driver:
            made = []
            for value in (1, 2):
                await array.write(value)
                made.append(await array.cut(driver, f"s{value}"))
            await array.write(3)
            clone = await driver.clone(made[0].ref, "a/unit-0", "copy")
            copy = Path(clone.devices[0].value)
            assert await asyncio.to_thread(read_block, copy, 0) == 1
            await driver.discard(clone.id)
            await driver.delete_snapshot(made[0].ref)
            assert await array.held(driver, made[1].ref) == [2]
        await array.kill_and_restart()
        assert await array.live() == [3]

    try:
        subprocess.run(["sh", "-ec", script], check=True, timeout=60)
        asyncio.run(main())
    finally:
        asyncio.run(array.backend.down())


def test_a_chain_that_does_not_reach_its_unit_is_refused(folder: Path) -> None:
    async def main() -> None:
        async with qsd_array(folder, units=1) as array:
            async with array.driver() as driver:
                for tag in ("one", "two"):
                    await array.cut(driver, tag)
            await array.backend.kill()
            first = Pool(array.folder).folder / "unit-0.one.1.qcow2"
            assert first in chain_of(array.pool, "unit-0")
            first.unlink()
            with pytest.raises(PoolError, match=r"breaks at .*unit-0\.one\.1\.qcow2"):
                await array.backend.restart()
            assert daemons(folder) == []

    asyncio.run(main())
