"""From a VM's location, as snapshot metadata gives it, to the storage units that hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..drivers.contracts import ConsistencyLevel, FileLocation, FileRole, RawDevice, VmLocation
from ..drivers.records import DatastoreId, UnitId
from ..topology.graph import Topology
from .spec import JobSpec


class Needs(NamedTuple):
    """What must be in the cut for a VM to be protected.

    Attributes
    ----------
    unit_ids:
        Every unit that holds a part of the VM that the job protects.
    held:
        Keys of disks that the VM snapshot holds still.
    live:
        Keys of disks in the cut that go on changing (physical RDMs; independent disks if asked).
    live_units:
        The units of ``live`` disks: only one atomic cut makes their image crash-consistent.
    excluded:
        Keys of disks that are left out.
    unknown_datastores:
        Datastores that the topology does not know (yet).
    problem:
        Why the VM cannot be protected; empty when it can.
    """

    unit_ids: tuple[UnitId, ...]
    datastore_ids: tuple[DatastoreId, ...]
    held: tuple[int, ...]
    live: tuple[int, ...]
    live_units: tuple[UnitId, ...]
    excluded: tuple[int, ...]
    unknown_datastores: tuple[DatastoreId, ...] = ()
    problem: str = ""


Raws = tuple[RawDevice, ...]


class _Place(NamedTuple):
    """What lies under a set of datastores; every VM there shares these tuples."""

    datastore_ids: tuple[DatastoreId, ...]
    units: tuple[UnitId, ...]
    unknown: tuple[DatastoreId, ...]
    problem: str


class Mapper:
    """Maps locations to units over one topology, for one job.

    Few sets of datastores hold many VMs, so what lies under a set is worked out once.
    """

    def __init__(self, topology: Topology, spec: JobSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._places: dict[tuple[DatastoreId, ...], _Place] = {}

    def needs_of(self, location: VmLocation) -> Needs:
        """Which units a VM at this location needs.

        Base disks and the VM's home count; deltas do not (what they hold came after the freeze).
        A datastore counts with all its extents.
        """
        stores: list[DatastoreId] = []
        held: list[int] = []
        live: list[int] = []
        live_stores: list[DatastoreId] = []
        excluded: list[int] = []
        for _, store_id, role, key in location.files:
            if role is FileRole.DELTA:
                continue
            if role is FileRole.LIVE:
                if not self._spec.independent_disks:
                    _note(excluded, key)
                    continue
                _note(live, key)
                live_stores.append(store_id)
            elif role is FileRole.BASE and key is not None and key not in held:
                held.append(key)
            if store_id not in stores:
                stores.append(store_id)
        place = self._place(tuple(stores))
        needs = Needs(
            unit_ids=place.units,
            datastore_ids=place.datastore_ids,
            held=tuple(held),
            live=tuple(live),
            live_units=self._place(tuple(live_stores)).units if live_stores else (),
            excluded=tuple(excluded),
            unknown_datastores=place.unknown,
            problem=place.problem,
        )
        if location.raw_devices:
            needs = self._with_raw_devices(needs, location.raw_devices)
        if not needs.unit_ids and not needs.problem:
            needs = needs._replace(problem="the snapshot metadata names no file that must be kept")
        if needs.excluded and not needs.held and not needs.live and not needs.problem:
            needs = needs._replace(problem="all of its disks are left out of snapshots")
        return needs

    def _place(self, stores: tuple[DatastoreId, ...]) -> _Place:
        place = self._places.get(stores)
        if place is None:
            place = self._places[stores] = self._look_up(stores)
        return place

    def _look_up(self, stores: tuple[DatastoreId, ...]) -> _Place:
        topology = self._topology
        units: dict[UnitId, None] = {}
        unknown = [store_id for store_id in stores if not topology.has_datastore(store_id)]
        problems = [f"datastore {store_id} is not in the inventory" for store_id in unknown]
        for store_id in stores:
            if store_id in unknown:
                continue
            missing = topology.missing_devices(store_id)
            under = topology.units_of_datastore(store_id)
            if missing:
                problems.append(
                    f"no array of this estate has device {missing[0]} of datastore {store_id}"
                )
            elif not under:
                problems.append(f"datastore {store_id} lies on no array unit")
            units.update(dict.fromkeys(under))
        return _Place(stores, tuple(units), tuple(unknown), problems[0] if problems else "")

    def _with_raw_devices(self, needs: Needs, raw_devices: Sequence[RawDevice]) -> Needs:
        """Add raw devices; the pointer file of a mapping, listed before, is not the disk."""
        units = dict.fromkeys(needs.unit_ids)
        live_units = dict.fromkeys(needs.live_units)
        mapped = {raw.disk_key for raw in raw_devices}
        held = [key for key in needs.held if key not in mapped]
        live, excluded = list(needs.live), list(needs.excluded)
        problem = needs.problem
        for raw in raw_devices:
            if not raw.held and not self._spec.physical_raw_disks:
                excluded.append(raw.disk_key)
                continue
            (held if raw.held else live).append(raw.disk_key)
            unit = self._topology.unit_of_device(raw.device)
            if unit is None:
                problem = problem or (
                    f"no array of this estate has raw device {raw.device} of disk {raw.disk_key}"
                )
                continue
            units[unit] = None
            if not raw.held:
                live_units[unit] = None
        return needs._replace(
            unit_ids=tuple(units),
            held=tuple(held),
            live=tuple(live),
            live_units=tuple(live_units),
            excluded=tuple(excluded),
            problem=problem,
        )


def _note(keys: list[int], key: int | None) -> None:
    if key is not None and key not in keys:
        keys.append(key)


_OF_DISKS = (FileRole.BASE, FileRole.LIVE)


def image_files(location: VmLocation, needs: Needs) -> tuple[FileLocation, ...]:
    """The files of the disks that are in the cut, deltas left out; raw devices have none."""
    others = {*needs.excluded, *(raw.disk_key for raw in location.raw_devices)}
    return tuple(
        [file for file in location.files if file.role in _OF_DISKS and file.disk_key not in others]
    )


def places_of(location: VmLocation) -> tuple[frozenset[tuple[int | None, DatastoreId]], Raws]:
    """On which datastore each disk and the home lie, and the raw devices; deltas do not count.

    Two locations may need the same units and differ in this: a disk that moved from one unit of
    the VM to another between their cuts is in neither image. Paths do not count: a snapshot that
    somebody else takes meanwhile adds files, and moves nothing.
    """
    files = frozenset(
        (file.disk_key, file.datastore_id)
        for file in location.files
        if file.role is not FileRole.DELTA
    )
    return files, location.raw_devices


def levels_of(
    needs: Needs, reached: ConsistencyLevel, *, live_cut_at_once: bool
) -> tuple[ConsistencyLevel, tuple[tuple[int, ConsistencyLevel], ...]]:
    """The level of the VM as a whole, and that of each disk.

    Disks that the VM snapshot held are as of the freeze, at the level it reached, however many
    array calls cut their units. A live disk is as of the array's cut: on its own it is
    crash-consistent if one atomic cut took all live units. A VM that has both kinds shows two
    points in time, so as a whole it is worth nothing that we could vouch for.
    """
    live_level = ConsistencyLevel.CRASH if live_cut_at_once else ConsistencyLevel.UNKNOWN
    per_disk = tuple((key, reached) for key in needs.held) + tuple(
        (key, live_level) for key in needs.live
    )
    if not needs.live:
        return reached, per_disk
    return (ConsistencyLevel.UNKNOWN if needs.held else live_level), per_disk
