"""The Ceph driver on a cluster: what is in its snapshots, and what it refuses."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support_ceph import (
    ARRAY,
    NEEDS,
    UNIT_BYTES,
    CephArray,
    ceph_array,
    delete_all,
    request,
    tags,
    unit_ids,
    write,
)
from support_lab import needs_lab

from stillframe.drivers.contracts import GroupSnapshotRequest, SnapshotMethod
from stillframe.drivers.errors import (
    BusyError,
    DidNotHappenError,
    NeverWillError,
    NotFoundError,
)
from stillframe.drivers.records import DeviceIdentity, DeviceKind
from stillframe.lab.host import attach_loop, detach_loop

pytestmark = needs_lab(*NEEDS)
BLOCK = 4096
PUNCH_KEEP_SIZE = 3
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE of linux/falloc.h."""


@pytest.fixture(scope="module")
def array() -> Iterator[CephArray]:
    """One array; every test leaves it without snapshots and copies."""
    with ceph_array() as up:
        yield up


def block(number: int) -> mmap.mmap:
    """A page-aligned block that holds a number, for direct I/O."""
    page = mmap.mmap(-1, BLOCK)
    page.write(number.to_bytes(8, "little") + os.urandom(BLOCK - 8))
    return page


def read(file: Path, length: int = BLOCK) -> bytes:
    """The first bytes of a file or device."""
    with file.open("rb") as opened:
        return opened.read(length)


def device(path: Path | str) -> DeviceIdentity:
    """The identity of a file."""
    return DeviceIdentity(DeviceKind.FILE, str(path))


def test_the_files_of_the_gateway_are_its_units_and_others_are_not(
    array: CephArray, tmp_path: Path
) -> None:
    pretender = tmp_path / "unit-0"  # has the name of an export, but nobody has mounted it there
    pretender.touch()
    naa = DeviceIdentity(DeviceKind.NAA, "600508b1001c4d2f")

    async def main() -> None:
        async with array.open() as driver:
            found = await driver.resolve([*map(device, array.files), device(pretender), naa])
            assert list(found) == [device(file) for file in array.files]
            assert tuple(one.id for one in found.values()) == unit_ids(0, 1, 2)
            assert await driver.resolve([naa]) == {}
            assert driver.capabilities.method is SnapshotMethod.COPY_ON_WRITE
            assert driver.capabilities.atomic_groups

    asyncio.run(main())


def test_reading_outside_the_unit_is_refused(array: CephArray) -> None:
    async def main() -> None:
        async with array.open() as driver:
            made = await driver.snapshot_group(request("read", 0))
            (unit,) = made.unit_ids
            size = UNIT_BYTES
            assert await driver.read_back(made.ref, unit, size - BLOCK, BLOCK) == bytes(BLOCK)
            for offset, length in ((size - BLOCK, BLOCK + 1), (size, 1), (-1, 1)):
                with pytest.raises(NeverWillError, match="not within"):
                    await driver.read_back(made.ref, unit, offset, length)
            await delete_all(driver)

    asyncio.run(main())


def test_groups_that_share_units_keep_their_own_moments(array: CephArray) -> None:
    async def main() -> None:
        async with array.open() as driver:
            refs = {}
            for tag, units in {"a": (0, 1), "b": (1, 2), "c": (0, 1, 2)}.items():
                for unit in units:
                    write(array.files[unit], tag.encode() * BLOCK)
                made = await driver.snapshot_group(request(tag, *units))
                assert set(made.unit_ids) == set(unit_ids(*units))
                refs[tag] = made.ref
            write(array.files[1], b"z" * BLOCK)
            await driver.delete_snapshot(refs["b"])
            listed = {one.ref.tag: set(one.unit_ids) for one in await driver.list_snapshots("")}
            assert listed == {"a": set(unit_ids(0, 1)), "c": set(unit_ids(0, 1, 2))}
            for tag in ("a", "c"):
                assert (
                    await driver.read_back(refs[tag], f"{ARRAY}/unit-1", 0, 2) == 2 * tag.encode()
                )
            with pytest.raises(NotFoundError):
                await driver.read_back(refs["a"], f"{ARRAY}/unit-2", 0, 2)
            await delete_all(driver)

    asyncio.run(main())


@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "in the gateway's cache"])
def test_a_write_that_was_answered_is_in_the_snapshot(array: CephArray, flushed: bool) -> None:
    # Direct I/O: the host's page cache takes no part, so the write has been answered by the
    # gateway. Without a flush it may be in the gateway's cache only.
    page = block(7 if flushed else 8)
    descriptor = os.open(array.files[0], os.O_RDWR | os.O_DIRECT)
    try:
        os.pwrite(descriptor, page, BLOCK)
        if flushed:
            os.fdatasync(descriptor)

        async def main() -> None:
            async with array.open() as driver:
                ref = (await driver.snapshot_group(request("answered", 0, 1))).ref
                assert await driver.read_back(ref, unit_ids(0)[0], BLOCK, BLOCK) == page[:]
                await driver.delete_snapshot(ref)

        asyncio.run(main())
    finally:
        os.close(descriptor)


def test_no_group_shows_the_second_write_of_a_pair_without_the_first(array: CephArray) -> None:
    """A writer puts each number on unit 0, then on unit 1: a cut shows the same, or one more on 0.

    So with acknowledged numbers a and b around the call, a - 1 <= first, first <= b + 1.
    """
    stop, answered = threading.Event(), [0]
    pair = [os.open(file, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC) for file in array.files[:2]]

    def writer() -> None:
        while not stop.is_set():
            page = block(answered[0] + 1)
            for descriptor in pair:
                os.pwrite(descriptor, page, 0)
            answered[0] += 1

    async def main() -> None:
        async with array.open() as driver:
            for number in range(8):
                before = answered[0]
                made = await driver.snapshot_group(request(f"pair-{number}", 0, 1))
                after = answered[0]
                first, second = [
                    int.from_bytes(await driver.read_back(made.ref, unit_id, 0, 8), "little")
                    for unit_id in unit_ids(0, 1)
                ]
                assert first - second in (0, 1)
                assert before <= second
                assert first <= after + 1
                assert made.fence is not None
                assert not made.fence.exact
            await delete_all(driver)

    thread = threading.Thread(target=writer)
    thread.start()
    try:
        asyncio.run(main())
    finally:
        stop.set()
        thread.join()
        for descriptor in pair:
            os.close(descriptor)
    assert answered[0] > 8


def test_a_hole_that_is_punched_reads_as_zeros_and_nothing_beside_it(array: CephArray) -> None:
    async def main() -> None:
        write(array.files[2], b"\xaa" * (16 * BLOCK))
        loop = await attach_loop(array.files[2], read_only=False, direct_io=False)
        try:
            await asyncio.to_thread(punch, loop)
            data = read(loop, 16 * BLOCK)
        finally:
            await detach_loop(loop)
        expected = b"\xaa" * BLOCK + bytes(2 * BLOCK) + b"\xaa" * (13 * BLOCK)
        assert data == expected
        async with array.open() as driver:
            ref = (await driver.snapshot_group(request("hole", 2))).ref
            assert await driver.read_back(ref, unit_ids(2)[0], 0, 16 * BLOCK) == expected
            await driver.delete_snapshot(ref)

    asyncio.run(main())


def punch(device: Path) -> None:
    """Have two blocks from the second on read as zeros."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(device, os.O_RDWR)
    try:
        offset, length = ctypes.c_long(BLOCK), ctypes.c_long(2 * BLOCK)
        if libc.fallocate(descriptor, PUNCH_KEEP_SIZE, offset, length):
            raise OSError(ctypes.get_errno(), "fallocate")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def test_a_copy_is_independent_of_unit_and_snapshot(array: CephArray) -> None:
    async def main() -> None:
        async with array.open() as driver:
            write(array.files[0], b"s" * BLOCK)
            ref = (await driver.snapshot_group(request("source", 0))).ref
            write(array.files[0], b"u" * BLOCK)
            copy = await driver.clone(ref, unit_ids(0)[0], "copy-" + "a" * 40)
            (where,) = copy.devices
            assert await driver.resolve([where]) == {where: copy}
            file = Path(where.value)
            assert read(file) == b"s" * BLOCK
            write(file, b"c" * BLOCK)
            assert await driver.read_back(ref, unit_ids(0)[0], 0, 1) == b"s"
            assert read(array.files[0]) == b"u" * BLOCK
            with pytest.raises(NeverWillError, match="already"):
                await driver.clone(ref, unit_ids(0)[0], "copy-" + "a" * 40)
            await driver.delete_snapshot(ref)
            loop = await attach_loop(file, read_only=True, direct_io=False)
            with pytest.raises(BusyError, match=str(loop)):
                await driver.discard(copy.id)
            assert read(loop) == b"c" * BLOCK
            await detach_loop(loop)
            await driver.discard(copy.id)
            with pytest.raises(FileNotFoundError):
                read(file)
            for gone in (copy.id, unit_ids(0)[0]):
                with pytest.raises(NotFoundError):
                    await driver.discard(gone)
            assert read(array.files[0]) == b"u" * BLOCK  # and it is still exported
        assert array.rbd("list", "rbd") == ["unit-0", "unit-1", "unit-2"]

    asyncio.run(main())


@pytest.mark.parametrize("name", ["", "a/b", "a@b", "a b", "1a", "ä"])
def test_a_name_that_no_image_can_have_is_refused(array: CephArray, name: str) -> None:
    async def main() -> None:
        async with array.open() as driver:
            ref = (await driver.snapshot_group(request("named", 0))).ref
            with pytest.raises(NeverWillError, match="no name"):
                await driver.clone(ref, unit_ids(0)[0], name)
            await driver.delete_snapshot(ref)

    asyncio.run(main())


def test_writes_held_beyond_the_limit_leave_no_snapshot(array: CephArray) -> None:
    async def main() -> None:
        async with array.open() as driver:
            with pytest.raises(DidNotHappenError, match="writes were held"):
                await driver.snapshot_group(request("long", 0, 1, fence_s=1e-6))
            assert await tags(driver) == []
            assert array.groups() == {}

    asyncio.run(main())


def test_an_image_in_a_group_of_somebody_else_is_refused_and_stays_there(array: CephArray) -> None:
    array.do("group", "create", "rbd/theirs")
    array.do("group", "image", "add", "rbd/theirs", "rbd/unit-1")

    async def main() -> None:
        async with array.open() as driver:
            with pytest.raises(NeverWillError, match="theirs"):
                await driver.snapshot_group(request("ours", 0, 1))
            assert await tags(driver) == []
            assert array.groups() == {"theirs": ["unit-1"]}

    asyncio.run(main())
    array.do("group", "remove", "rbd/theirs")


def test_an_image_without_an_exclusive_lock_is_refused(array: CephArray) -> None:
    array.do("create", "rbd/bare", "--size", "8M", "--image-feature", "layering")
    bare = GroupSnapshotRequest((*unit_ids(0), f"{ARRAY}/bare"), "bare", 7.0)

    async def main() -> None:
        async with array.open() as driver:
            with pytest.raises(NeverWillError, match="exclusive lock"):
                await driver.snapshot_group(bare)
            assert array.groups() == {}

    asyncio.run(main())
    array.do("remove", "rbd/bare", "--no-progress")


def test_units_of_another_array_and_images_that_do_not_exist_are_refused(array: CephArray) -> None:
    async def main() -> None:
        async with array.open() as driver:
            with pytest.raises(NeverWillError, match="no unit of array"):
                await driver.snapshot_group(GroupSnapshotRequest(("other/unit-0",), "x", 7.0))
            with pytest.raises(NotFoundError, match="no image"):
                await driver.snapshot_group(request("x", 0, 9))
            assert array.groups() == {}

    asyncio.run(main())


def test_half_made_copies_are_swept_but_not_from_under_their_maker(array: CephArray) -> None:
    async def main() -> None:
        for name in ("stillframe-copying.1.dead", "stillframe-copying.2.alive"):
            array.do("create", f"rbd/{name}", "--size", "8M")
        watcher = await asyncio.create_subprocess_exec(
            *("rbd", "-c", array.conf, "watch", "rbd/stillframe-copying.2.alive"),
            stdout=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.PIPE,
        )
        assert watcher.stdout is not None
        await watcher.stdout.readline()  # it says when it watches
        async with array.open():
            halves = [one for one in array.rbd("list", "rbd") if "copying" in one]
        await watcher.communicate(b"\n")  # a watcher that ends otherwise is missed after 30 s
        assert halves == ["stillframe-copying.2.alive"]
        async with array.open():
            pass
        assert array.rbd("list", "rbd") == ["unit-0", "unit-1", "unit-2"]

    asyncio.run(main())
