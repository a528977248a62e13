"""Locations that are wrong in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...drivers.contracts import (
    FileLocation,
    FileRole,
    VmLocation,
    VmSnapshot,
    VmSnapshotRequest,
    VmSnapshotState,
)
from ...drivers.records import DeviceIdentity
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import PLAIN, WIDE, HypervisorTarget
from .hypervisor_answers import Make, listed, located, of_role, told


def _files(change: Callable[[FileLocation, VmLocation], FileLocation]) -> Make:
    """Each file changed on its own."""
    return located(
        lambda location: location._replace(
            files=tuple(change(file, location) for file in location.files)
        )
    )


def _disk_files(location: VmLocation) -> list[FileLocation]:
    return [file for file in location.files if file.role is not FileRole.CONFIG]


def _roles(location: VmLocation) -> list[FileRole]:
    return [file.role for file in _disk_files(location)]


def _base_of(file: FileLocation, location: VmLocation) -> FileLocation:
    """The lowest file of the same disk."""
    return next(one for one in location.files if one.disk_key == file.disk_key)


def _nobodys_without_delta(file: FileLocation, location: VmLocation) -> FileLocation:
    return file._replace(disk_key=None) if _roles(location) == [FileRole.BASE] else file


def _base_goes_on(file: FileLocation, location: VmLocation) -> FileLocation:
    disks = _disk_files(location)
    pair = _roles(location) == [FileRole.BASE, FileRole.DELTA]
    beside = pair and len({one.datastore_id for one in disks}) == 1
    return file._replace(role=FileRole.LIVE) if beside and file == disks[0] else file


def _path_of_base(file: FileLocation, location: VmLocation) -> FileLocation:
    single = _roles(location) == [FileRole.BASE, FileRole.DELTA]
    if single and file.role is FileRole.DELTA:
        return file._replace(path=_base_of(file, location).path)
    return file


def _all_at_home(file: FileLocation, location: VmLocation) -> FileLocation:
    keys = {one.disk_key for one in _disk_files(location)}
    several = len(keys) > 1 and FileRole.LIVE not in _roles(location)
    return file._replace(datastore_id=location.files[0].datastore_id) if several else file


def _beside_its_base(file: FileLocation, location: VmLocation) -> FileLocation:
    if file.role is FileRole.DELTA:
        return file._replace(datastore_id=_base_of(file, location).datastore_id)
    return file


def _overlays_are_deltas(file: FileLocation, location: VmLocation) -> FileLocation:
    overlay = file.role is FileRole.BASE and file != _base_of(file, location)
    return file._replace(role=FileRole.DELTA) if overlay else file


def _ends_only(location: VmLocation) -> VmLocation:
    files = [
        file
        for file in location.files
        if file.role is not FileRole.BASE or file == _base_of(file, location)
    ]
    return location._replace(files=tuple(files))


def _held_still(file: FileLocation, _: VmLocation) -> FileLocation:
    return file._replace(role=FileRole.BASE) if file.role is FileRole.LIVE else file


def _one_digit_off(location: VmLocation) -> VmLocation:
    raw = [
        one._replace(device=DeviceIdentity(one.device.kind, one.device.value[:-1] + "e"))
        for one in location.raw_devices
    ]
    return location._replace(raw_devices=tuple(raw))


def _raw_is_held(location: VmLocation) -> VmLocation:
    raw = [one._replace(held=True) for one in location.raw_devices]
    return location._replace(raw_devices=tuple(raw))


def _without(location: VmLocation, role: FileRole) -> VmLocation:
    files: Iterable[FileLocation] = (one for one in location.files if one.role is not role)
    return location._replace(files=tuple(files))


def _homeless(state: VmSnapshotState) -> VmSnapshotState:
    if not of_role(state.vm_id, WIDE):
        return state
    return state._replace(location=_without(state.location, FileRole.CONFIG))


class _StaleOnce(BrokenDriver):
    """Lists a VM once more as it was when its snapshot was removed."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._old: dict[str, VmLocation] = {}

    async def remove_snapshot(self, ref: Any) -> Any:
        states = await self.inner.list_snapshots([ref.vm_id])
        result = await self.inner.remove_snapshot(ref)
        self._old |= {state.vm_id: state.location for state in states}
        return result

    async def list_snapshots(self, vm_ids: Any = None) -> list[VmSnapshotState]:
        states = await self.inner.list_snapshots(vm_ids)
        return [self._stale(state) for state in states]

    def _stale(self, state: VmSnapshotState) -> VmSnapshotState:
        old = self._old.pop(state.vm_id, state.location)
        return state._replace(location=old._replace(moves=state.location.moves))


class _Remembers(BrokenDriver):
    """Keeps where a VM lies for as long as its snapshots are the same; the plain one's."""

    def __init__(self, driver: Any, *, open_: bool) -> None:
        super().__init__(driver)
        self._open = open_
        self._seen: dict[tuple[Any, ...], VmLocation] = {}

    async def list_snapshots(self, vm_ids: Any = None) -> list[VmSnapshotState]:
        states = await self.inner.list_snapshots(vm_ids)
        return [self._kept(state) for state in states]

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        made: VmSnapshot = await self.inner.create_snapshot(request)
        if self._open:
            self._seen.setdefault((request.vm_id, request.tag), made.location)
        return made

    def _kept(self, state: VmSnapshotState) -> VmSnapshotState:
        if bool(state.snapshots) is not self._open or not of_role(state.vm_id, PLAIN):
            return state
        key = (state.vm_id, *(ref.tag for ref in state.snapshots))
        first = self._seen.setdefault(key, state.location)
        return state._replace(location=first._replace(moves=state.location.moves))


class _CountsSnapshots(BrokenDriver):
    """Counts a snapshot as a move."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._made = 0

    async def create_snapshot(self, request: VmSnapshotRequest) -> VmSnapshot:
        made: VmSnapshot = await self.inner.create_snapshot(request)
        self._made += 1
        return made._replace(location=self._counted(made.location))

    async def list_snapshots(self, vm_ids: Any = None) -> list[VmSnapshotState]:
        states = await self.inner.list_snapshots(vm_ids)
        return [state._replace(location=self._counted(state.location)) for state in states]

    def _counted(self, location: VmLocation) -> VmLocation:
        return location._replace(moves=(location.moves or 0) + self._made)


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "no-keys-without-snapshot",
        "HYP-LOC-01",
        "The file of a VM without snapshots is not said to be that of a disk.",
        _files(_nobodys_without_delta),
        also=("HYP-DAT-08",),
        because="it looks for the file of the disk",
    ),
    Canary(
        "base-goes-on",
        "HYP-LOC-02",
        "The base below a delta is listed as taking the guest's writes.",
        _files(_base_goes_on),
        also=("HYP-DAT-01", "HYP-DAT-02", "HYP-DAT-11", "HYP-DAT-12", "HYP-DAT-16"),
        because="they look for the file that stands still",
    ),
    Canary(
        "delta-under-path-of-base",
        "HYP-LOC-03",
        "A delta is listed under the path of its base.",
        _files(_path_of_base),
        also=("HYP-LOC-07", "HYP-DAT-04"),
        because="the delta's own path is not known then",
    ),
    Canary(
        "all-files-at-home",
        "HYP-LOC-04",
        "Every file is said to lie on the datastore of the first disk.",
        _files(_all_at_home),
    ),
    Canary(
        "delta-beside-its-base",
        "HYP-LOC-05",
        "A delta is said to lie on the datastore of its base, wherever it lies.",
        _files(_beside_its_base),
    ),
    Canary(
        "every-overlay-is-delta",
        "HYP-LOC-06",
        "Deltas that stand still below a newer one are listed as taking the guest's writes.",
        _files(_overlays_are_deltas),
    ),
    Canary(
        "ends-of-the-chain-only",
        "HYP-LOC-07",
        "Of a chain, only the lowest and the newest file are listed.",
        located(_ends_only),
    ),
    Canary(
        "independent-stands-still",
        "HYP-LOC-08",
        "An independent disk is listed as one that a snapshot holds.",
        _files(_held_still),
    ),
    Canary(
        "raw-device-one-digit-off",
        "HYP-LOC-09",
        "The device behind a raw device mapping has another last digit.",
        located(_one_digit_off),
    ),
    Canary(
        "raw-device-held",
        "HYP-LOC-10",
        "A raw device in physical mode is said to be held by the snapshot.",
        located(_raw_is_held),
    ),
    Canary(
        "home-left-out",
        "HYP-LOC-11",
        "The files of a VM's home are not listed.",
        listed(_homeless),
    ),
    Canary(
        "answers-without-home",
        "HYP-LOC-12",
        "A create answers with a location that lacks the files of the home.",
        told(
            "create_snapshot",
            lambda made: made._replace(location=_without(made.location, FileRole.CONFIG)),
        ),
    ),
    Canary(
        "lists-the-merged-delta",
        "HYP-LOC-13",
        "A delta is still listed when it is merged.",
        with_driver(_StaleOnce),
    ),
    Canary(
        "remembers-the-first-place",
        "HYP-LOC-14",
        "A VM without snapshots is listed where it lay first.",
        with_driver(lambda driver, _: _Remembers(driver, open_=False)),
    ),
    Canary(
        "remembers-the-place-of-the-create",
        "HYP-LOC-15",
        "A VM with a snapshot open is listed where it lay when that was made.",
        with_driver(lambda driver, _: _Remembers(driver, open_=True)),
    ),
    Canary(
        "moves-never-counted",
        "HYP-LOC-16",
        "The count of moves is always zero.",
        located(lambda location: location._replace(moves=0)),
    ),
    Canary(
        "snapshots-counted-as-moves",
        "HYP-LOC-17",
        "Every snapshot counts as a move.",
        with_driver(_CountsSnapshots),
    ),
)
