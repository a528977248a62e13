"""Live labs under test: jobs on them in processes of their own, and what their images are worth."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pytest
import yaml
from support_lab import needs_lab, short_folder

from stillframe.drivers.contracts import (
    ArrayDriver,
    ConsistencyLevel,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
)
from stillframe.drivers.records import DeviceIdentity, DeviceKind, UnitId
from stillframe.lab.lab import Lab, bring_up, take_down
from stillframe.lab.spec import LabSpec
from stillframe.lab.verify import ImageVerdict, judge_images, verify_run
from stillframe.lab.verify_claims import DiskClaim, ImageClaim, Slice
from stillframe.lab.verify_mounts import MountedImages
from stillframe.live_systems import Systems, open_systems
from stillframe.reports.folder import read_folder
from stillframe.reports.rundata import RunData
from stillframe.scenarios.live import load_live

ARRAY = "array"
_LOOK_S = 0.005
_PATIENCE_S = 60.0


NEEDS = {
    "qsd": ("root", "qemu", "fuse", "loop"),
    "xfs": ("root", "qemu", "loop", "xfs"),
    "ceph": ("root", "qemu", "fuse", "loop", "ceph"),
}
"""What a lab on each array needs of the machine."""
ON_EACH_ARRAY = [pytest.param(name, marks=needs_lab(*what)) for name, what in NEEDS.items()]


@contextmanager
def standing_lab(spec: LabSpec) -> Iterator[Lab]:
    """A lab for as long as the context lasts, for tests that each have a loop of their own."""
    with short_folder("lab") as parent:
        folder = parent / "l"
        lab = asyncio.run(bring_up(spec, folder))
        try:
            yield lab
        finally:
            asyncio.run(take_down(folder))


class Ran(NamedTuple):
    """A job that ran in a process of its own."""

    code: int
    data: RunData
    folder: Path


def configured(lab: Lab, name: str, **job: Any) -> Path:
    """A copy of the lab's configuration under a name of its own, with parts of its job changed."""
    document = yaml.safe_load(lab.config_file.read_text(encoding="utf-8"))
    document["name"] = name
    document["job"] |= job
    path = lab.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def run_job(config: Path, out: Path) -> Ran:
    """``stillframe run --live CONFIG --out OUT`` in a process of its own."""
    words = [sys.executable, "-m", "stillframe", "run", "--live", config, "--out", out]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert (out / "run.json").exists(), done.stdout + done.stderr
    return Ran(done.returncode, read_folder(out), out)


def verify_folder(lab: Lab, out: Path) -> tuple[int, dict[str, Any]]:
    """``stillframe lab verify OUT --lab LAB --json`` in a process of its own."""
    words = [sys.executable, "-m", "stillframe", "lab", "verify", out]
    words += ["--lab", lab.folder, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def acks_of(lab: Lab) -> dict[str, Sequence[Any]]:
    """What every guest has acknowledged."""
    return {name: lab.acks(name) for name in lab.guests}


async def verify(lab: Lab, data: RunData) -> list[ImageVerdict]:
    """The verdicts on every image of a run."""
    async with systems(lab) as opened:
        return await verify_run(
            data,
            opened.arrays,
            lab.folder,
            acks=acks_of(lab),
            writes=lab.spec.writer,
            slices=slices_of(lab),
        )


def systems(lab: Lab) -> Any:
    """The array of a lab, opened through its driver; an asynchronous context manager."""
    config = load_live(lab.config_file)
    return open_systems(config, lambda _what, _share: None, only_arrays=True)


def slices_of(lab: Lab) -> dict[Path, Slice]:
    """Where each datastore lies on its unit."""
    return {
        at: Slice(place.offset_bytes, place.size_bytes)
        for at, place in zip(lab.datastores, lab.spec.places(), strict=True)
    }


async def unit_ids(lab: Lab, array: ArrayDriver) -> list[UnitId]:
    """What the array calls the units of a lab, in order."""
    devices = [DeviceIdentity(DeviceKind.FILE, str(unit.resolve())) for unit in lab.units]
    found = await array.resolve(devices)
    return [found[device].id for device in devices]


async def cut(array: ArrayDriver, tag: str, *units: UnitId) -> GroupSnapshot:
    """One group call."""
    return await array.snapshot_group(GroupSnapshotRequest(units, tag, 10.0))


def claim_of(
    lab: Lab,
    name: str,
    refs: Mapping[UnitId, GroupSnapshotRef],
    *,
    units: Sequence[UnitId],
    level: ConsistencyLevel = ConsistencyLevel.CRASH,
    frozen_s: float | None = None,
    thawed_s: float | None = None,
) -> ImageClaim:
    """What somebody says of a guest whose units they cut by hand."""
    unit_of = dict(zip(lab.datastores, (units[one.unit] for one in lab.spec.places()), strict=True))
    disks = []
    for number, disk in enumerate(lab.guests[name].disks):
        unit = unit_of[disk.datastore]
        path = PurePosixPath(disk.file.relative_to(disk.datastore))
        disks.append(DiskClaim(2000 + number, path, f"host/{disk.datastore}", unit, refs[unit]))
    return ImageClaim(f"host/{name}", level, tuple(disks), frozen_s, thawed_s)


async def judge(lab: Lab, opened: Systems, claims: Sequence[ImageClaim]) -> list[ImageVerdict]:
    """Verdicts on claims."""
    async with MountedImages(opened.arrays, lab.folder, slices_of(lab)) as images:
        return await judge_images(claims, images, acks=acks_of(lab), writes=lab.spec.writer)


async def goes_on(lab: Lab, name: str, count: int, patience_s: float = _PATIENCE_S) -> bool:
    """Wait until a guest has acknowledged so many more records; False when it takes too long."""
    wanted = len(lab.acks(name)) + count
    give_up_s = time.monotonic() + patience_s
    while len(lab.acks(name)) < wanted:
        if time.monotonic() > give_up_s:
            return False
        await asyncio.sleep(_LOOK_S)
    return True


async def more_acks(lab: Lab, name: str, count: int) -> None:
    """Wait until a guest has acknowledged so many more records."""
    assert await goes_on(lab, name, count), f"{name} does not write"


def left_on(lab: Lab) -> list[str]:
    """What a job must not leave: files beside the disks, markers of frozen guests, clones."""
    disks = {disk.file for guest in lab.guests.values() for disk in guest.disks}
    homes = {disk.file.parent for guest in lab.guests.values() for disk in guest.disks}
    left = [str(file) for home in homes for file in home.iterdir() if file not in disks]
    left += [str(one.frozen_marker) for one in lab.guests.values() if one.frozen_marker.exists()]
    return sorted(left + [str(folder) for folder in lab.folder.glob("verify-*")])
