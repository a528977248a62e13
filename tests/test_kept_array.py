"""A modelled array with a state file: what it holds outlives the process, as on a real one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from stillframe.drivers.contracts import ArrayDriver, GroupSnapshot, GroupSnapshotRequest
from stillframe.drivers.errors import DidNotHappenError, NeverWillError, NotFoundError
from stillframe.errors import InputError
from stillframe.sim.loop import SimLoop
from stillframe.sim.realtime import open_modelled_array

T = TypeVar("T")
SETTINGS: dict[str, Any] = {
    "units": [
        {"name": f"lun-{n}", "capacity": "1 GiB", "devices": [f"naa.600000000000000{n}"]}
        for n in range(2)
    ],
    "profile": {"profile": "row-flash", "snapshot_base": "10 s", "snapshot_sigma": 0},
}


def request(tag: str, *numbers: int) -> GroupSnapshotRequest:
    """A request for these units."""
    return GroupSnapshotRequest(tuple(f"a1/lun-{number}" for number in numbers), tag, 7.0)


def in_process(
    path: Path,
    body: Callable[[ArrayDriver], Awaitable[T]],
    array_id: str = "a1",
    **settings: Any,
) -> T:
    """Run a body on an array over this file, in virtual time, as a process of its own would."""

    async def main() -> T:
        given = SETTINGS | {"state_file": str(path)} | settings
        async with open_modelled_array(array_id, given) as array:
            assert isinstance(array, ArrayDriver)
            return await body(array)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(main())


async def tags(array: ArrayDriver) -> list[str]:
    """The tags that the array lists."""
    return [one.ref.tag for one in await array.list_snapshots("")]


def test_the_next_process_finds_and_deletes_what_the_first_made(tmp_path: Path) -> None:
    file = tmp_path / "array.state"

    async def make(array: ArrayDriver) -> list[GroupSnapshot]:
        await array.snapshot_group(request("gone", 0))
        made = [await array.snapshot_group(request(tag, 0, 1)) for tag in ("one", "two")]
        await array.delete_snapshot((await array.list_snapshots("gone"))[0].ref)
        return made

    one, two = in_process(file, make)

    async def look(array: ArrayDriver) -> list[str]:
        listed = await array.list_snapshots("")
        assert [found.ref for found in listed] == [one.ref, two.ref]
        assert [found.unit_ids for found in listed] == [one.unit_ids, two.unit_ids]
        assert [found.cut_s for found in listed] == [None, None], "a clock of another process"
        assert (await array.snapshot_group(request("two", 0, 1))).ref == two.ref, "not made twice"
        with pytest.raises(NeverWillError, match="a snapshot of other units has this tag"):
            await array.snapshot_group(request("two", 0))
        await array.delete_snapshot(one.ref)
        with pytest.raises(NotFoundError):
            await array.delete_snapshot(one.ref)
        return await tags(array)

    assert in_process(file, look) == ["two"]
    assert in_process(file, tags) == ["two"]


def test_limits_count_what_earlier_processes_left(tmp_path: Path) -> None:
    file = tmp_path / "array.state"
    profile = SETTINGS["profile"] | {"snapshots_per_unit": 1}

    async def make(array: ArrayDriver) -> None:
        await array.snapshot_group(request("one", 0))

    async def again(array: ArrayDriver) -> None:
        await array.snapshot_group(request("two", 0))

    in_process(file, make, profile=profile)
    with pytest.raises(NeverWillError, match="carries 1 snapshots"):
        in_process(file, again, profile=profile)
    assert in_process(file, tags) == ["one"]


def test_what_was_accepted_when_the_process_died_completes_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "array.state"

    async def die(array: ArrayDriver) -> list[str]:
        task = asyncio.get_running_loop().create_task(array.snapshot_group(request("late", 0)))
        await asyncio.sleep(5)
        listed = await tags(array)
        task.cancel()
        return listed

    assert in_process(file, die) == []
    assert in_process(file, tags) == ["late"]
    assert in_process(file, tags) == ["late"]


def test_what_the_array_refused_never_appears(tmp_path: Path) -> None:
    file = tmp_path / "array.state"

    async def refused(array: ArrayDriver) -> None:
        with pytest.raises(NeverWillError):
            await array.snapshot_group(request("unknown", 7))
        slow = GroupSnapshotRequest(("a1/lun-0",), "slow", 1e-9)
        with pytest.raises(DidNotHappenError, match="writes to the group were held"):
            await array.snapshot_group(slow)
        task = asyncio.get_running_loop().create_task(array.snapshot_group(slow))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.sleep(20)

    async def wait(array: ArrayDriver) -> list[str]:
        await asyncio.sleep(60)
        return await tags(array)

    in_process(file, refused)
    assert in_process(file, wait) == []


def test_two_processes_at_once_see_each_others_snapshots(tmp_path: Path) -> None:
    settings = SETTINGS | {"state_file": str(tmp_path / "array.state")}

    async def both() -> None:
        async with (
            open_modelled_array("a1", settings) as first,
            open_modelled_array("a1", settings) as second,
        ):
            assert isinstance(first, ArrayDriver)
            assert isinstance(second, ArrayDriver)
            made = await first.snapshot_group(request("one", 0))
            assert await tags(second) == ["one"]
            await second.delete_snapshot(made.ref)
            assert await tags(first) == []
            await first.snapshot_group(request("one", 1))
            assert await tags(second) == ["one"]

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(both())


def test_two_arrays_share_a_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "array.state"

    async def make(array: ArrayDriver) -> None:
        await array.snapshot_group(request("one", 0))

    in_process(file, make)
    assert in_process(file, tags, array_id="a2") == []
    assert in_process(file, tags) == ["one"]


@pytest.mark.parametrize("what", ["text", "database", "folder", "nowhere"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    file = tmp_path / "array.state"
    if what == "text":
        file.write_bytes(b"dear diary\n" * 100)
    elif what == "database":
        database = sqlite3.connect(file)
        database.execute("CREATE TABLE snapshots (mine)")
        database.close()
    elif what == "folder":
        file.mkdir()
    else:
        file = tmp_path / "no" / "array.state"
    before = file.read_bytes() if file.is_file() else b""
    with pytest.raises(InputError, match=r"array\.state: "):
        in_process(file, tags)
    assert (file.read_bytes() if file.is_file() else b"") == before
