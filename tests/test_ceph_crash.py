"""A process that dies in the middle of a change to a Ceph pool leaves nothing that is listed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from support_ceph import (
    NEEDS,
    CephArray,
    ceph_array,
    delete_all,
    pid_of,
    request,
    tags,
    unit_ids,
    write,
)
from support_lab import needs_lab

from stillframe.drivers.errors import BusyError, NotFoundError

pytestmark = needs_lab(*NEEDS)
IMAGES = ["unit-0", "unit-1"]
STEPS = (
    ("group_create", 1),
    ("add_image", 1),
    ("add_image", 2),
    ("create_snap", 1),
    ("rename_snap", 1),
    ("remove_image", 1),
    ("remove_image", 2),
)
"""The calls that a snapshot of two images makes, in order."""


@pytest.fixture(scope="module")
def array() -> Iterator[CephArray]:
    """One array; every test leaves it without snapshots."""
    with ceph_array() as up:
        yield up


@pytest.mark.parametrize(("call", "at"), STEPS)
def test_a_snapshot_that_died_is_either_complete_or_swept(
    array: CephArray, call: str, at: int
) -> None:
    tag = f"{call}-{at}"
    array.dying(call, at, "snapshot", tag=tag, images=IMAGES, fence_s=7.0)

    async def main() -> None:
        async with array.open() as driver:
            whole = [tag] if call == "remove_image" else []
            assert await tags(driver) == whole
            # Nothing of it is in the way: the same units, with one more, under another tag.
            other = await driver.snapshot_group(request("other", 0, 1, 2))
            assert set(other.unit_ids) == set(unit_ids(0, 1, 2))
            again = await driver.snapshot_group(request(tag, 0, 1))
            assert set(again.unit_ids) == set(unit_ids(0, 1))
            assert set(await tags(driver)) == {"other", tag}
            assert array.groups() == {"stillframe.other": [], f"stillframe.{tag}": []}
            await delete_all(driver)
            assert array.groups() == {}

    asyncio.run(main())


@pytest.mark.parametrize("call", ["create_snap", "remove_image"])
def test_one_that_died_while_the_driver_was_open_is_swept_when_it_is_in_the_way(
    array: CephArray, call: str
) -> None:
    async def main() -> None:
        async with array.open() as driver:
            await asyncio.to_thread(
                array.dying, call, 1, "snapshot", tag="late", images=IMAGES, fence_s=7.0
            )
            made = await driver.snapshot_group(request("late", 0, 1))
            assert set(made.unit_ids) == set(unit_ids(0, 1))
            await driver.snapshot_group(request("next", 1, 2))
            assert array.groups() == {"stillframe.late": [], "stillframe.next": []}
            await delete_all(driver)

    asyncio.run(main())


@pytest.mark.parametrize("call", ["rename_snap", "remove_snap", "group_remove"])
def test_a_deletion_that_died_is_never_listed_half_and_is_finished(
    array: CephArray, call: str
) -> None:
    async def main() -> None:
        async with array.open() as driver:
            ref = (await driver.snapshot_group(request("gone", 0, 1))).ref
            what = {"tag": "gone", "token": ref.snapshot_id.split("/")[-1]}
            await asyncio.to_thread(array.dying, call, 1, "delete", **what)
            # Removing the images' snapshots is one call, but many steps of it.
            assert await tags(driver) == (["gone"] if call == "rename_snap" else [])
            if call == "remove_snap":
                with pytest.raises(NotFoundError):
                    await driver.read_back(ref, unit_ids(0)[0], 0, 512)
                await driver.delete_snapshot(ref)  # finishes what was begun
                with pytest.raises(NotFoundError):
                    await driver.delete_snapshot(ref)
        async with array.open() as driver:
            await delete_all(driver)
            assert array.groups() == {}
            assert array.rbd("snap", "list", "--all", "rbd/unit-0") == []

    asyncio.run(main())


@pytest.mark.parametrize("call", ["metadata_set", "rename"])
def test_a_copy_that_died_is_no_image_and_can_be_made_again(array: CephArray, call: str) -> None:
    async def main() -> None:
        async with array.open() as driver:
            ref = (await driver.snapshot_group(request("source", 0))).ref
            token = ref.snapshot_id.split("/")[-1]
            what = {"tag": "source", "token": token, "image": "unit-0", "name": "half"}
            await asyncio.to_thread(array.dying, call, 1, "copy", **what)
            assert "half" not in array.rbd("list", "rbd")
        async with array.open() as driver:
            copy = await driver.clone(ref, unit_ids(0)[0], "half")
            await driver.discard(copy.id)
            await delete_all(driver)
            assert "half" not in array.rbd("list", "rbd")

    asyncio.run(main())


def test_one_that_died_while_writes_were_held_lets_them_go_on(array: CephArray) -> None:
    """The gateway has the locks of the images and stands still, so librbd waits with the group half
    made; then the process that waits is killed. It is a watcher of the images, and everybody would
    have to wait for its answers for half a minute."""
    gateway = pid_of(array.backend.gateway)
    for file in array.files:
        write(file, b"locked" * 100)
    what = {"tag": "middle", "images": IMAGES, "fence_s": 7.0}
    with array.worker("create_snap", 1, gateway, "snapshot", **what) as process:
        try:
            while not half_made(array):
                assert process.poll() is None
        finally:
            process.kill()
            os.kill(gateway, signal.SIGCONT)

    async def main() -> None:
        async with array.open() as driver:
            assert await tags(driver) == []
            made = await driver.snapshot_group(request("middle", 0, 1))
            assert made.fence is not None
            assert array.groups() == {"stillframe.middle": []}
            await delete_all(driver)

    asyncio.run(main())
    for file in array.files:
        write(file, b"goes on" * 100)


def is_no_answer(line: str) -> bool:
    """Whether a line of the worker is not the one that answers our request."""
    return '"id": 1' not in line


def half_made(array: CephArray) -> list[str]:
    """The groups with a snapshot that librbd has not completed."""
    return [
        group
        for group in array.rbd("group", "list", "rbd")
        for one in array.rbd("group", "snap", "list", f"rbd/{group}")
        if one["state"] != "ok"
    ]


def test_nobody_sweeps_while_another_process_is_at_work(array: CephArray) -> None:
    array.dying("create_snap", 1, "snapshot", tag="alive", images=IMAGES, fence_s=7.0)

    async def main() -> None:
        with Path(array.conf).open("rb") as held:  # noqa: ASYNC230
            fcntl.flock(held, fcntl.LOCK_EX)
            async with array.open(timeout=0.5) as driver:
                with pytest.raises(BusyError, match="another process"):
                    await driver.snapshot_group(request("next", 1, 2))
                assert array.groups() == {"stillframe.alive": IMAGES}
        async with array.open():
            assert array.groups() == {}

    asyncio.run(main())


def test_what_a_dead_parent_asked_for_never_becomes_complete(array: CephArray) -> None:
    gateway = pid_of(array.backend.gateway)
    write(array.files[0], b"locked" * 100)
    what = {"tag": "orphan", "images": ["unit-0"], "fence_s": 30.0}
    shell = ("sh", "-c", '"$@"; exit', "sh")
    with array.worker("create_snap", 1, gateway, "snapshot", parent=shell, **what) as parent:
        try:
            while not half_made(array):
                assert parent.poll() is None
            parent.kill()
            parent.wait()
        finally:
            os.kill(gateway, signal.SIGCONT)
        assert parent.stdout is not None
        answers = [json.loads(line) for line in takewhile(is_no_answer, parent.stdout)]
        assert answers == [{"id": 0, "ok": None}]
        assert array.groups() == {}
        assert parent.stdin is not None
        parent.stdin.close()


def test_a_failure_after_the_snapshot_is_complete_is_no_failure_of_it(array: CephArray) -> None:
    what = {"tag": "busy", "images": IMAGES, "fence_s": 7.0}
    with array.worker("remove_image", 1, -1, "snapshot", **what) as process:
        out, _ = process.communicate(timeout=60)
    assert set(json.loads(out.splitlines()[1])["ok"]["images"]) == set(IMAGES)

    async def main() -> None:
        async with array.open() as driver:
            assert await tags(driver) == ["busy"]
            assert array.groups() == {"stillframe.busy": []}
            await delete_all(driver)

    asyncio.run(main())


def test_a_copy_of_what_another_process_deletes_meanwhile_is_no_copy(array: CephArray) -> None:
    write(array.files[0], b"data" * 1024)

    async def main() -> None:
        async with array.open() as driver:
            ref = (await driver.snapshot_group(request("gone", 0))).ref
            token = ref.snapshot_id.split("/")[-1]
            what = {"tag": "gone", "token": token, "image": "unit-0", "name": "zeros"}
            with array.worker("copy", 1, -2, "copy", **what) as process:
                try:
                    await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)
                    await driver.delete_snapshot(ref)
                finally:
                    process.send_signal(signal.SIGCONT)
                out, _ = await asyncio.to_thread(process.communicate, timeout=60)
            assert "ok" not in json.loads(out.splitlines()[1])
            assert "zeros" not in array.rbd("list", "rbd")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "lives"),
    [({}, True), ({"start": "1"}, False), ({"boot": "x"}, False), ({"host": "other"}, True)],
    ids=["at work", "dead", "before a reboot", "on another host"],
)
def test_only_a_process_that_is_certainly_dead_is_cut_off(
    array: CephArray, change: dict[str, str], lives: bool
) -> None:
    start = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    us = {
        "address": "127.0.0.1:0/1",
        "host": socket.gethostname(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        "pid": str(os.getpid()),
        "start": start,
    }
    array.hold({**us, **change})

    async def main() -> None:
        async with array.open() as driver:
            if lives:
                with pytest.raises(BusyError, match="is at work"):
                    await driver.snapshot_group(request("next", 0))
                array.hold({**us, "start": "1"})
            await driver.snapshot_group(request("next", 0))
            await delete_all(driver)

    asyncio.run(main())
