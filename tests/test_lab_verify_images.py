"""Images on a clone of a unit: what each is worth, and that nothing stays of the look at them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from support_lab import needs_lab, short_folder
from support_pattern import record
from support_verify import (
    ARRAY,
    SLOTS,
    STORE,
    WRITES,
    Ack,
    FileArray,
    claim,
    guest_image,
    left_below,
    mounted_image,
    store_with,
    tool,
)

from stillframe.drivers.contracts import ConsistencyLevel
from stillframe.errors import StillframeError
from stillframe.lab.pattern import PATTERN_FILE
from stillframe.lab.verify import ImageLevel, ImageVerdict, judge_images
from stillframe.lab.verify_claims import ImageClaim, Slice, mount_point
from stillframe.lab.verify_mounts import MountedImages

pytestmark = needs_lab("root", "loop")
CRASH, FILESYSTEM = ConsistencyLevel.CRASH, ConsistencyLevel.FILESYSTEM
RECORDS = SLOTS + 3
ACKS = {"vm-0": [Ack(0.5, RECORDS - 2), Ack(0.9, RECORDS - 1), Ack(2.5, RECORDS + 7)]}
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    """A unit's snapshot: a datastore with images of guests in every state."""
    with short_folder("v") as folder:
        images = {
            "vm-0/frozen.raw": guest_image(folder / "frozen", RECORDS, state="frozen"),
            "vm-0/running.raw": guest_image(folder / "running", RECORDS, state="running"),
            "vm-0/one-behind.raw": guest_image(folder / "behind", RECORDS - 1),
            "vm-0/far-behind.raw": guest_image(folder / "lost", RECORDS - 3),
            "vm-0/ahead.raw": guest_image(folder / "ahead", RECORDS + 1),
            "vm-0/late.raw": guest_image(folder / "late", RECORDS + 2),
            "vm-0/empty.raw": guest_image(folder / "empty", 0),
        }
        store_with(folder / "lun0.t", images)
        yield folder


def judged(
    world: Path,
    claims: Sequence[ImageClaim],
    damage: Damage | None = None,
    slices: Mapping[Path, Slice] | None = None,
) -> list[ImageVerdict]:
    """The verdicts; ``damage`` gets the first image before it is judged, on the clone."""
    array = FileArray(world)

    async def main() -> list[ImageVerdict]:
        async with MountedImages({ARRAY: array}, world, slices or {}) as images:
            if damage is not None:
                disk = claims[0].disks[0]
                await images.open(disk)
                found = images.find(disk)
                assert isinstance(found, Path)
                await asyncio.to_thread(damage, found)
            return await judge_images(claims, images, acks=ACKS, writes=WRITES)

    verdicts = asyncio.run(main())
    assert array.made
    assert not array.clones
    assert left_below(world) == []
    assert not list(world.glob("verify-*"))
    return verdicts


def level(world: Path, *paths: str, damage: Damage | None = None) -> tuple[ImageLevel, str]:
    (verdict,) = judged(world, [claim(*paths)], damage)
    assert verdict.holds is (verdict.level_found is ImageLevel.FILESYSTEM)
    return verdict.level_found, verdict.problem


def test_a_frozen_guest_is_clean_without_its_journal(world: Path) -> None:
    (verdict,) = judged(world, [claim("vm-0/frozen.raw")])
    assert verdict == ImageVerdict(
        vm="host/vm-0",
        level_reported=FILESYSTEM,
        level_found=ImageLevel.FILESYSTEM,
        fsck_clean=True,
        replayed=False,
        bad=0,
        missing=0,
        max_seq=(RECORDS - 1,),
        acked_before=RECORDS - 1,
        acked_after=RECORDS - 1,
    )


def test_a_running_guest_is_only_crash_consistent(world: Path) -> None:
    for reported, holds in ((FILESYSTEM, False), (CRASH, True)):
        (verdict,) = judged(world, [claim("vm-0/running.raw", level=reported)])
        assert (verdict.level_found, verdict.replayed) == (ImageLevel.CRASH, True)
        assert (verdict.fsck_clean, verdict.bad, verdict.missing) == (True, 0, 0)
        assert verdict.max_seq == (RECORDS - 1,)
        assert verdict.holds is holds


def test_an_acknowledged_record_that_is_not_in_is_damage(world: Path) -> None:
    found, problem = level(world, "vm-0/one-behind.raw")
    assert found is ImageLevel.DAMAGED
    assert f"{RECORDS - 1} was acknowledged before" in problem


def test_a_record_that_was_not_acknowledged_yet_may_be_in(world: Path) -> None:
    assert level(world, "vm-0/ahead.raw")[0] is ImageLevel.FILESYSTEM


def test_a_record_from_after_the_snapshot_is_damage(world: Path) -> None:
    found, problem = level(world, "vm-0/late.raw")
    assert found is ImageLevel.DAMAGED
    assert "written after" in problem


def test_an_image_without_any_record_is_damage(world: Path) -> None:
    assert level(world, "vm-0/empty.raw")[0] is ImageLevel.DAMAGED


def test_disks_of_two_points_in_time_are_torn(world: Path) -> None:
    found, problem = level(world, "vm-0/frozen.raw", "vm-0/ahead.raw")
    assert found is ImageLevel.TORN
    assert "disk 1" in problem


def test_the_first_disk_may_be_one_record_ahead(world: Path) -> None:
    assert level(world, "vm-0/ahead.raw", "vm-0/frozen.raw")[0] is ImageLevel.FILESYSTEM


def change(image: Path, action: Callable[[Path], None]) -> None:
    with mounted_image(image, image.with_suffix(".at")) as at:
        action(at / PATTERN_FILE)


def flip(image: Path) -> None:
    def action(pattern: Path) -> None:
        data = bytearray(pattern.read_bytes())
        data[5 * 4096 + 77] ^= 1
        pattern.write_bytes(data)

    change(image, action)


def make_stale(image: Path) -> None:
    def action(pattern: Path) -> None:
        data = bytearray(pattern.read_bytes())
        data[4096:8192] = record(1, 4096)
        pattern.write_bytes(data)

    change(image, action)


def lose(image: Path) -> None:
    change(image, Path.unlink)


def overwrite_metadata(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(40 << 10)
        file.write(b"\xa5" * (300 << 10))


def unlink_the_root(image: Path) -> None:
    tool("debugfs", "-w", "-R", "clri <2>", image)


def wipe(image: Path) -> None:
    image.write_bytes(bytes(image.stat().st_size))


@pytest.mark.parametrize("damage", [flip, make_stale, lose, overwrite_metadata, wipe, Path.unlink])
@pytest.mark.parametrize("state", ["frozen", "running"])
def test_damage_on_the_clone_is_seen(world: Path, damage: Damage, state: str) -> None:
    (verdict,) = judged(world, [claim(f"vm-0/{state}.raw", level=CRASH)], damage)
    assert verdict.level_found is ImageLevel.DAMAGED, verdict
    assert verdict.problem
    assert not verdict.holds


def miscount_links(image: Path) -> None:
    tool("debugfs", "-w", "-R", "sif lost+found links_count 9", image)


def forget_to_be_clean(image: Path) -> None:
    tool("debugfs", "-w", "-R", "ssv state 0", image)


@pytest.mark.parametrize("damage", [unlink_the_root, miscount_links, forget_to_be_clean])
def test_damage_beside_the_records_is_seen(world: Path, damage: Damage) -> None:
    """On an image without a journal to replay: that would put some of it right again."""
    (verdict,) = judged(world, [claim("vm-0/frozen.raw", level=CRASH)], damage)
    assert (verdict.level_found, verdict.fsck_clean) == (ImageLevel.DAMAGED, False)
    assert verdict.problem


def test_a_datastore_on_a_part_of_a_unit_is_found_there(world: Path) -> None:
    store = world / "lun0.t"
    size = store.stat().st_size
    tool("dd", f"if={store}", f"of={world / 'lun0.shared'}", "bs=1M", "conv=sparse",
         f"seek={size >> 20}")  # fmt: skip
    asked = [claim("vm-0/frozen.raw", tag="shared")]
    (verdict,) = judged(world, asked, slices={mount_point(STORE): Slice(size, size)})
    assert verdict.level_found is ImageLevel.FILESYSTEM, verdict
    (elsewhere,) = judged(world, asked)
    assert "cannot be read" in elsewhere.problem


def test_every_image_is_judged_by_itself(world: Path) -> None:
    claims = [claim("vm-0/frozen.raw"), claim("vm-0/empty.raw"), claim("vm-0/no-such.raw")]
    levels = [one.level_found for one in judged(world, claims)]
    assert levels == [ImageLevel.FILESYSTEM, ImageLevel.DAMAGED, ImageLevel.DAMAGED]


def test_a_snapshot_that_is_gone_damages_its_images_only(world: Path) -> None:
    claims = [claim("vm-0/frozen.raw"), claim("vm-0/frozen.raw", tag="gone")]
    good, gone = judged(world, claims)
    assert good.holds
    assert gone.level_found is ImageLevel.DAMAGED
    assert "no such snapshot" in gone.problem


def test_an_array_without_clones_is_told(world: Path) -> None:
    class Blind(FileArray):
        @property
        def capabilities(self):
            return type(super().capabilities)(clones=False)

    async def main() -> list[ImageVerdict]:
        async with MountedImages({ARRAY: Blind(world)}, world, {}) as images:
            return await judge_images([claim("vm-0/frozen.raw")], images, acks=ACKS, writes=WRITES)

    (verdict,) = asyncio.run(main())
    assert "makes no clones" in verdict.problem


def test_nothing_stays_when_the_judge_fails(world: Path) -> None:
    array = FileArray(world)

    async def main() -> None:
        async with MountedImages({ARRAY: array}, world, {}) as images:
            await images.open(claim("vm-0/frozen.raw").disks[0])
            assert left_below(world)
            raise StillframeError("enough")

    with pytest.raises(StillframeError, match="enough"):
        asyncio.run(main())
    assert (left_below(world), array.clones, list(world.glob("verify-*"))) == ([], {}, [])


def test_nothing_stays_when_it_is_cancelled(world: Path) -> None:
    array = FileArray(world)

    async def main() -> None:
        async with MountedImages({ARRAY: array}, world, {}) as images:
            opening = asyncio.create_task(images.open(claim("vm-0/frozen.raw").disks[0]))
            await array.cloned.wait()  # from here on it attaches and mounts
            opening.cancel()
            await opening

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert (left_below(world), array.clones, list(world.glob("verify-*"))) == ([], {}, [])
