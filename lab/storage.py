"""The datastores of a lab: ext4 file systems on loop devices on the units of its array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .backend import Backend
from .host import all_of, attach_loop, detach_loop, loops, mount, mounts, run, unmount
from .labfile import LabGuest, Layout
from .spec import DatastorePlace, LabArray, LabSpec

_MKFS = (
    *("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0"),
    *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
)
"""New units and disks read as zeros: nothing need be written to make them so."""
MOUNT_OPTIONS = ("noatime", "noinit_itable")
"""Without the thread that would write those zeros later, in the middle of a measurement."""


def backend_of(spec: LabSpec, folder: Path) -> Backend:
    """The array of a lab in a folder, whether it is up or not."""
    if spec.array is LabArray.QSD:
        from .backend_qsd import QsdBackend

        return QsdBackend(folder, spec.units, spec.unit_bytes)
    if spec.array is LabArray.XFS:
        from .backend_xfs import XfsBackend

        return XfsBackend(folder, spec.units, spec.unit_bytes)
    from .backend_ceph import CephBackend

    return CephBackend(folder, spec.units, spec.unit_bytes)


async def make_datastores(
    layout: Layout, spec: LabSpec, units: Sequence[Path], *, direct_io: bool
) -> None:
    """Make and mount all datastores, side by side."""
    await all_of(
        _make(layout, place, units[place.unit], direct_io=direct_io) for place in spec.places()
    )


async def _make(layout: Layout, place: DatastorePlace, unit: Path, *, direct_io: bool) -> None:
    device = await _attach(place, unit, direct_io=direct_io)
    await run(*_MKFS, device)
    await mount(device, layout.datastore(place.number), *MOUNT_OPTIONS)


async def mount_datastores(
    layout: Layout, spec: LabSpec, units: Sequence[Path], *, direct_io: bool
) -> None:
    """Mount datastores that were made before; their journals are replayed where that is needed."""
    for place in spec.places():
        device = await _attach(place, units[place.unit], direct_io=direct_io)
        await mount(device, layout.datastore(place.number), *MOUNT_OPTIONS)


async def _attach(place: DatastorePlace, unit: Path, *, direct_io: bool) -> Path:
    return await attach_loop(
        unit,
        read_only=False,
        direct_io=direct_io,
        offset=place.offset_bytes,
        size=place.size_bytes,
    )


async def unmount_datastores(layout: Layout, spec: LabSpec, units: Sequence[Path]) -> None:
    """Unmount the datastores and take their loop devices off the units, dead or alive."""
    places = {layout.datastore(place.number) for place in spec.places()}
    mounted = [one for one in reversed(mounts()) if one.at in places]
    # The path of a dead unit may be gone, and its loop device is known by its mount only.
    devices = {Path(one.source) for one in mounted}
    devices |= {loop.device for loop in loops() if loop.backing in units}
    for one in mounted:
        await unmount(one.at)
    for device in devices:
        await detach_loop(device)


async def make_disks(guests: Sequence[LabGuest]) -> None:
    """Make all guests' disks, each with an empty file system."""
    await all_of(_make_disk(disk.file, disk.size_bytes) for guest in guests for disk in guest.disks)


async def _make_disk(file: Path, size_bytes: int) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("xb") as made:
        made.truncate(size_bytes)
    await run(*_MKFS, file)
