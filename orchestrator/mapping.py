"""From a VM's location, as snapshot metadata gives it, to the storage units that hold it."""

from __future__ import annotations

from typing import NamedTuple

from ..drivers.contracts import ConsistencyLevel, FileRole, RawDevice, VmLocation
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


def needs_of(topology: Topology, location: VmLocation, spec: JobSpec) -> Needs:
    """Which units a VM at this location needs.

    Base disks and the VM's home count; deltas do not (what they hold came after the freeze). A
    datastore counts with all its extents.
    """
    stores: dict[DatastoreId, None] = {}
    held: dict[int, None] = {}
    live: dict[int, None] = {}
    live_stores: dict[DatastoreId, None] = {}
    excluded: dict[int, None] = {}
    for file in location.files:
        role = file.role
        if role is FileRole.DELTA:
            continue
        if role is FileRole.LIVE:
            if not spec.independent_disks:
                if file.disk_key is not None:
                    excluded[file.disk_key] = None
                continue
            live_stores[file.datastore_id] = None
            if file.disk_key is not None:
                live[file.disk_key] = None
        elif role is FileRole.BASE and file.disk_key is not None:
            held[file.disk_key] = None
        stores[file.datastore_id] = None
    finder = _Units(topology)
    for store_id in stores:
        finder.add_datastore(store_id, is_live=store_id in live_stores)
    for raw in location.raw_devices:
        if not raw.held and not spec.physical_raw_disks:
            excluded[raw.disk_key] = None
            continue
        (held if raw.held else live)[raw.disk_key] = None
        finder.add_device(raw, is_live=not raw.held)
    return finder.needs(tuple(stores), held, live, excluded)


class _Units:
    """Collects units in order of first need, and the first reason why one cannot be had."""

    __slots__ = ("live", "problem", "topology", "units", "unknown")

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.units: dict[UnitId, None] = {}
        self.live: dict[UnitId, None] = {}
        self.unknown: list[DatastoreId] = []
        self.problem = ""

    def add_datastore(self, store_id: DatastoreId, *, is_live: bool) -> None:
        if not self.topology.has_datastore(store_id):
            self.unknown.append(store_id)
            self.problem = self.problem or f"datastore {store_id} is not in the inventory"
            return
        missing = self.topology.missing_devices(store_id)
        if missing:
            self.problem = self.problem or (
                f"no array of this estate has device {missing[0]} of datastore {store_id}"
            )
        units = self.topology.units_of_datastore(store_id)
        if not units and not missing:
            self.problem = self.problem or f"datastore {store_id} lies on no array unit"
        self.units.update(dict.fromkeys(units))
        if is_live:
            self.live.update(dict.fromkeys(units))

    def add_device(self, raw: RawDevice, *, is_live: bool) -> None:
        unit = self.topology.unit_of_device(raw.device)
        if unit is None:
            self.problem = self.problem or (
                f"no array of this estate has raw device {raw.device} of disk {raw.disk_key}"
            )
            return
        self.units[unit] = None
        if is_live:
            self.live[unit] = None

    def needs(
        self,
        stores: tuple[DatastoreId, ...],
        held: dict[int, None],
        live: dict[int, None],
        excluded: dict[int, None],
    ) -> Needs:
        if not self.units and not self.problem:
            self.problem = "the snapshot metadata names no file that must be kept"
        for key in (*live, *excluded):  # a mapping's pointer file is not the disk
            held.pop(key, None)
        return Needs(
            unit_ids=tuple(self.units),
            datastore_ids=stores,
            held=tuple(held),
            live=tuple(live),
            live_units=tuple(self.live),
            excluded=tuple(excluded),
            unknown_datastores=tuple(self.unknown),
            problem=self.problem,
        )


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
