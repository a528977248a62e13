"""What the images that a run reported are worth, judged by what is in them.

Each unit of a snapshot is cloned, the clone is mounted as a restore would, and the files that the
metadata of the VM's snapshot named are looked at. See docs/verification.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..drivers.contracts import ArrayDriver, ConsistencyLevel
from ..drivers.records import ArrayId, VmId
from ..reports.rundata import RunData
from .judge import judge_pair
from .pattern import PatternReport
from .spec import Writes
from .verify_claims import Acknowledged, ImageClaim, Slice, claims_of
from .verify_image import DiskImage, look_at
from .verify_mounts import MountedImages


class ImageLevel(StrEnum):
    """What an image turned out to be worth, best first."""

    FILESYSTEM = "filesystem"
    """Clean as it lies there, no journal to replay."""
    CRASH = "crash"
    """Clean and complete after its journal was replayed, as after a power cut."""
    TORN = "torn"
    """Each disk is good, but no point in time shows all of them."""
    DAMAGED = "damaged"
    """Not clean, records are bad or missing, or it is not as of the time that was reported."""


_ORDER = list(ImageLevel)
_WORST_ALLOWED = {
    ConsistencyLevel.APPLICATION: ImageLevel.FILESYSTEM,
    ConsistencyLevel.FILESYSTEM: ImageLevel.FILESYSTEM,
    ConsistencyLevel.CRASH: ImageLevel.CRASH,
    ConsistencyLevel.UNKNOWN: ImageLevel.DAMAGED,
}


@dataclass(frozen=True, slots=True)
class ImageVerdict:
    """What one VM's image is worth.

    Attributes
    ----------
    fsck_clean:
        e2fsck finds nothing on any disk, after the replay where there was one.
    replayed:
        The journal of a disk had to be replayed.
    bad, missing:
        Records of all disks together.
    max_seq:
        The last record on each disk, in the order in which the guest writes to them; empty when
        its guest writes none.
    acked_before:
        The last record that was acknowledged when the image stood still: it must be in. None when
        that is not known.
    acked_after:
        The last one acknowledged when the VM's writes went on: one more may be in, which was done
        and not yet acknowledged.
    problem:
        Why it is not worth more, in one sentence; empty for a clean file system.
    """

    vm: VmId
    level_reported: ConsistencyLevel
    level_found: ImageLevel
    fsck_clean: bool
    replayed: bool
    bad: int
    missing: int
    max_seq: tuple[int, ...]
    acked_before: int | None
    acked_after: int | None
    problem: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is worth at least what was reported."""
        allowed = _WORST_ALLOWED[self.level_reported]
        return _ORDER.index(self.level_found) <= _ORDER.index(allowed)


async def verify_run(
    run: RunData,
    arrays: Mapping[ArrayId, ArrayDriver],
    folder: Path,
    *,
    acks: Mapping[str, Sequence[Acknowledged]],
    writes: Writes | None,
    slices: Mapping[Path, Slice] | None = None,
) -> list[ImageVerdict]:
    """Judge every image of a run; nothing is left mounted or cloned.

    Parameters
    ----------
    run:
        The run's own result.
    arrays:
        The opened drivers of the arrays that it snapshotted.
    folder:
        Where clones may be mounted and copies be kept for a moment.
    acks:
        What each guest's writer acknowledged, by the VM's name.
    writes:
        What the writers were told; None when the guests write nothing.
    slices:
        By mount point, the datastores that do not have a unit to themselves.

    Raises
    ------
    StillframeError
        The run's tables contradict each other, or something could not be undone.
    """
    async with MountedImages(arrays, folder, slices or {}) as images:
        return await judge_images(claims_of(run), images, acks=acks, writes=writes)


async def judge_images(
    claims: Sequence[ImageClaim],
    images: MountedImages,
    *,
    acks: Mapping[str, Sequence[Acknowledged]],
    writes: Writes | None,
) -> list[ImageVerdict]:
    """Judge what is claimed of images; parameters as for :func:`verify_run`."""
    for claim in claims:  # one after the other: arrays and the mount table are shared
        for disk in claim.disks:
            await images.open(disk)
    turns = asyncio.Semaphore(os.cpu_count() or 1)

    async def judged(claim: ImageClaim) -> ImageVerdict:
        found = []
        for disk in claim.disks:
            image = images.find(disk)
            if isinstance(image, str):
                found.append(DiskImage(False, False, None, image))
                continue
            async with turns:
                with images.work_folder() as work:
                    found.append(await look_at(image, work, writes))
        heard = acks.get(claim.name, ()) if writes is not None else None
        return verdict_on(claim, found, heard)

    async with asyncio.TaskGroup() as tasks:
        judging = [tasks.create_task(judged(claim)) for claim in claims]
    return [task.result() for task in judging]


def verdict_on(
    claim: ImageClaim, found: Sequence[DiskImage], acks: Sequence[Acknowledged] | None
) -> ImageVerdict:
    """What an image is worth, from what was found on its disks and what was acknowledged.

    Parameters
    ----------
    found:
        In the order of the claim's disks.
    acks:
        Of the VM's writer; None when it writes nothing.
    """
    before = _last(acks, claim.frozen_s)
    after = _last(acks, claim.thawed_s)
    patterns = [image.pattern for image in found if image.pattern is not None]
    damage = _damage(found) or _out_of_time(patterns, before, after)
    torn = judge_pair(patterns)
    replayed = any(image.replayed for image in found)
    if damage:
        level, problem = ImageLevel.DAMAGED, damage
    elif torn:
        level, problem = ImageLevel.TORN, torn
    elif replayed:
        level, problem = ImageLevel.CRASH, "its journal had to be replayed"
    else:
        level, problem = ImageLevel.FILESYSTEM, ""
    return ImageVerdict(
        vm=claim.vm_id,
        level_reported=claim.level,
        level_found=level,
        fsck_clean=bool(found) and all(image.fsck_clean for image in found),
        replayed=replayed,
        bad=sum(pattern.bad for pattern in patterns),
        missing=sum(pattern.missing for pattern in patterns),
        max_seq=tuple(pattern.max_seq for pattern in patterns),
        acked_before=before,
        acked_after=after,
        problem=problem,
    )


def _damage(found: Sequence[DiskImage]) -> str:
    if not found:
        return "the run names no file of it"
    for number, image in enumerate(found):
        if image.problem or not image.fsck_clean:
            return f"disk {number}: {image.problem or 'its file system is not clean'}"
        if image.pattern is not None and (image.pattern.bad or image.pattern.missing):
            wrong = f"{image.pattern.bad} bad and {image.pattern.missing} missing records"
            return f"disk {number}: {wrong}"
    return ""


def _out_of_time(patterns: Sequence[PatternReport], before: int | None, after: int | None) -> str:
    """What contradicts the time of which the image is said to be; empty when nothing does."""
    for number, pattern in enumerate(patterns):
        if before is not None and pattern.max_seq < before:
            return (
                f"disk {number} ends at record {pattern.max_seq}, "
                f"and {before} was acknowledged before"
            )
        if after is not None and pattern.max_seq > after + 1:
            return f"disk {number} holds record {pattern.max_seq}, written after {after + 1}"
    return ""


def _last(acks: Sequence[Acknowledged] | None, until_s: float | None) -> int | None:
    """The highest number acknowledged by a time; -1 when there was none yet, None if not known."""
    if acks is None or until_s is None:
        return None
    return max((ack.seq for ack in acks if ack.t_s <= until_s), default=-1)
