"""The bytes of a modelled array, against a model of copies, and the host's port."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from stillframe.drivers.contracts import SnapshotMethod
from stillframe.drivers.records import StorageUnit, UnitKind
from stillframe.sim.array_profiles import ArrayProfile
from stillframe.sim.byte_images import IMAGES, CopyOnWriteImage, RedirectOnWriteImage
from stillframe.sim.byteplane import BytePlane
from stillframe.sim.draws import Draws
from stillframe.sim.loop import SimLoop

EXTENT = 16
SIZE = 20 * EXTENT
METHODS = sorted(IMAGES)
UNIT = StorageUnit("a/1", "a", "1", UnitKind.LUN, SIZE, ())
OTHER = StorageUnit("a/2", "a", "2", UnitKind.LUN, SIZE, ())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(8))
def test_an_image_and_its_snapshots_hold_what_copies_would_hold(
    method: SnapshotMethod, seed: int
) -> None:
    rng = random.Random(seed)
    image = IMAGES[method](EXTENT, count(1).__next__)
    live, copies = bytearray(SIZE), {}
    for number in range(1, 200):
        action = rng.random()
        if action < 0.6:
            offset = rng.randrange(SIZE)
            data = rng.randbytes(rng.randrange(1, min(70, SIZE - offset) + 1))
            image.write(offset, data)
            live[offset : offset + len(data)] = data
        elif action < 0.85:
            image.cut(number)
            copies[number] = bytes(live)
        elif copies:
            gone = rng.choice(sorted(copies))
            image.drop(gone)
            del copies[gone]
        assert image.read(0, SIZE) == live
        for one, copy in copies.items():
            assert image.read(0, SIZE, one) == copy


@pytest.mark.parametrize("method", METHODS)
def test_a_clone_and_its_parent_do_not_reach_each_other(method: SnapshotMethod) -> None:
    image = IMAGES[method](EXTENT, count(1).__next__)
    image.write(0, b"old" * 20)
    image.cut(1)
    clone = image.clone(1)
    image.write(0, b"new" * 20)
    clone.write(4, b"mine")
    assert clone.read(0, 12) == b"oldominedold"
    assert image.read(0, 6) == b"newnew"
    assert image.read(0, 12, 1) == b"oldoldoldold"


def test_redirect_on_write_puts_new_data_elsewhere_and_copy_on_write_the_old() -> None:
    moves = {}
    for kind in (RedirectOnWriteImage, CopyOnWriteImage):
        image = kind(EXTENT, count(1).__next__)
        assert image.place(0, None) == "hole"
        image.write(0, b"a" * EXTENT)
        before = image.place(0, None)
        image.cut(1)
        assert image.place(0, 1) == before
        image.write(0, b"b" * EXTENT)
        moves[kind] = (image.place(0, None) == before, image.place(0, 1) == before)
    assert moves == {RedirectOnWriteImage: (False, True), CopyOnWriteImage: (True, False)}


def on_a_plane(check: Callable[[BytePlane], Awaitable[None]]) -> None:
    """Run a check on a plane of two units, in virtual time."""

    async def body() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        profile = ArrayProfile(snapshot_extent=EXTENT)
        await check(BytePlane(loop.env, [UNIT, OTHER], profile, Draws(1), 0.001))

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(body())


def now_s() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


def test_a_write_waits_while_its_unit_is_fenced_and_is_not_in_the_cut() -> None:
    async def check(plane: BytePlane) -> None:
        plane.fence_begins(["a/1"])
        held = asyncio.create_task(plane.write("a/1", 0, b"late"))
        await plane.write("a/2", 0, b"free")
        await asyncio.sleep(1.0)
        assert not held.done()
        assert await plane.read("a/1", 0, 4) == bytes(4)  # reads are not held
        plane.cut("a", 1, "snapshot-1", ["a/1", "a/2"])
        plane.fence_ends(["a/1"])
        await held
        assert await plane.read("a/1", 0, 4) == b"late"
        assert plane.held(1, "a/1", 0, 4) == bytes(4)
        assert plane.held(1, "a/2", 0, 4) == b"free"

    on_a_plane(check)


def test_nothing_is_served_while_it_stands_still_and_a_released_fence_is_over() -> None:
    async def check(plane: BytePlane) -> None:
        plane.stop()
        calls = [plane.write("a/1", 0, b"x"), plane.read("a/1", 0, 1)]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(1.0)
        assert not any(task.done() for task in tasks)
        plane.fence_begins(["a/1"])
        plane.release()
        plane.go()
        await asyncio.gather(*tasks)
        plane.fence_ends(["a/1"])  # of a fence that was released already
        plane.fence_begins(["a/1"])
        held = asyncio.create_task(plane.write("a/1", 0, b"y"))
        await asyncio.sleep(1.0)
        assert not held.done()
        plane.fence_ends(["a/1"])
        await held

    on_a_plane(check)


def test_a_write_takes_its_time_and_one_out_of_range_fails() -> None:
    async def check(plane: BytePlane) -> None:
        start_s = now_s()
        await plane.write("a/1", 0, b"x")
        assert now_s() > start_s
        for unit_id, offset in (("a/1", SIZE - 3), ("a/1", -1), ("a/9", 0)):
            with pytest.raises(OSError, match=r"unit|within"):
                await plane.write(unit_id, offset, b"four")
            with pytest.raises(OSError, match=r"unit|within"):
                await plane.read(unit_id, offset, 4)

    on_a_plane(check)


def test_extents_are_counted_once_between_the_cuts_that_there_still_are() -> None:
    async def check(plane: BytePlane) -> None:
        seen = plane.overwritten
        await plane.write("a/1", 0, bytes(EXTENT))  # before any cut: nothing to keep
        cuts = []
        for number in (1, 2, 3):
            await asyncio.sleep(1.0)
            plane.cut("a", number, f"snapshot-{number}", ["a/1"])
            cuts.append(now_s())
            for extent in range(number, number + 2):
                await plane.write("a/1", extent * EXTENT, b"x")
                await plane.write("a/1", extent * EXTENT, b"y")
        end_s = now_s()

        def extents(start_s: float, until_s: float) -> float:
            return seen.overwritten_bytes("a/1", start_s, until_s, EXTENT) / EXTENT

        assert [extents(cuts[0], cuts[1]), extents(cuts[1], cuts[2])] == [2, 2]
        assert extents(cuts[0], end_s) == 4
        plane.snapshot_deleted("a", 2)
        assert extents(cuts[0], cuts[2]) == 3
        plane.snapshot_deleted("a", 1)
        assert extents(cuts[2], end_s) == 2
        plane.snapshot_deleted("a", 3)
        assert extents(0.0, end_s) == 0

    on_a_plane(check)


def test_what_is_on_the_device_is_named_by_member_and_clone() -> None:
    async def check(plane: BytePlane) -> None:
        plane.cut("a", 1, "snapshot-1", ["a/1", "a/2"])
        plane.clone(1, "a/1", "a/clone")
        assert plane.members() == {"snapshot-1/a/1", "snapshot-1/a/2", "a/clone"}
        assert plane.clones_need(1) is False  # redirect-on-write: it has a map of its own
        plane.snapshot_deleted("a", 1)
        plane.discard("a/clone")
        assert plane.members() == frozenset()

    on_a_plane(check)
