"""What a run says of its images: where they lie, at which level, and as of when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from ..drivers.contracts import ConsistencyLevel, FileRole, GroupSnapshotRef
from ..drivers.records import DatastoreId, UnitId, VmId
from ..errors import StillframeError
from ..reports.rundata import RunData


class Acknowledged(Protocol):
    """One acknowledgement of a guest's writer, as it was received."""

    @property
    def t_s(self) -> float:
        """When, on the clock that the run's event loop reads too (CLOCK_MONOTONIC)."""
        ...

    @property
    def seq(self) -> int:
        """The number of the record."""
        ...


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a unit that a datastore lies on; a size of 0 reaches to the unit's end."""

    offset_bytes: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DiskClaim:
    """The image of one disk.

    Attributes
    ----------
    path:
        Within its datastore.
    unit_id, ref:
        The unit under the datastore, and the snapshot that it is in.
    problem:
        Why it cannot be judged; empty when it can.
    """

    key: int
    path: PurePosixPath
    datastore_id: DatastoreId
    unit_id: UnitId
    ref: GroupSnapshotRef
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ImageClaim:
    """What a run says of one VM.

    Attributes
    ----------
    level:
        What the image is worth.
    disks:
        In the order of their keys, which is that in which a guest writes to them.
    frozen_s:
        From then on at the latest the image stood still: what was acknowledged by then is in it.
        Seconds on the loop's clock; None when nobody knows.
    thawed_s:
        Before then the image did not move on: what was begun after is not in it.
    """

    vm_id: VmId
    level: ConsistencyLevel
    disks: tuple[DiskClaim, ...]
    frozen_s: float | None = None
    thawed_s: float | None = None

    @property
    def name(self) -> str:
        """The VM's name within its hypervisor."""
        return self.vm_id.partition("/")[2]


def claims_of(run: RunData) -> list[ImageClaim]:
    """What a run says of every VM that it protected, in the order of its catalogue.

    Raises
    ------
    StillframeError
        The run's tables contradict each other.
    """
    cuts = _Cuts(run)
    files: dict[VmId, list[dict[str, Any]]] = {}
    for row in run.images.to_dicts():
        files.setdefault(row["vm_id"], []).append(row)
    outcomes = {row["vm_id"]: row for row in run.vms.to_dicts()}
    return [
        _claim(entry, outcomes[entry["vm_id"]], files.get(entry["vm_id"], []), cuts)
        for entry in run.catalogue.to_dicts()
    ]


class _Cuts:
    """Which unit is under a datastore, and which calls cut it."""

    def __init__(self, run: RunData) -> None:
        self._calls = {row["tag"]: row for row in run.calls.to_dicts()}
        self._under: dict[DatastoreId, set[UnitId]] = {}
        for row in run.placements.to_dicts():
            if row["datastore_id"] is not None and row["unit_id"] is not None:
                self._under.setdefault(row["datastore_id"], set()).add(row["unit_id"])

    def unit_under(self, datastore_id: DatastoreId) -> UnitId:
        units = sorted(self._under.get(datastore_id, ()))
        if len(units) != 1:
            raise StillframeError(
                f"datastore {datastore_id} lies on {len(units)} units, not on one",
                "only file systems that lie on one unit can be mounted from its clone",
            )
        return units[0]

    def ref_of(self, entry: Mapping[str, Any], unit_id: UnitId) -> GroupSnapshotRef:
        refs = zip(entry["arrays"], entry["snapshots"], entry["tags"], strict=True)
        for array_id, snapshot_id, tag in refs:
            if unit_id in self._calls[tag]["units"]:
                return GroupSnapshotRef(array_id, snapshot_id, tag)
        raise StillframeError(f"{entry['vm_id']}: no snapshot of its entry holds unit {unit_id}")

    def span(self, refs: Sequence[GroupSnapshotRef]) -> tuple[float | None, float | None]:
        """From the request of the first of these calls to the answer of the last."""
        calls = [self._calls[ref.tag] for ref in refs]
        return _least([one["requested_s"] for one in calls]), _most(
            [one["completed_s"] for one in calls]
        )


def _claim(
    entry: Mapping[str, Any], vm: Mapping[str, Any], files: Sequence[dict[str, Any]], cuts: _Cuts
) -> ImageClaim:
    disks = []
    for key in sorted({row["disk_key"] for row in files}):
        chain = [row for row in files if row["disk_key"] == key]
        store = chain[-1]["datastore_id"]
        unit_id = cuts.unit_under(store)
        # A base under somebody else's snapshot is a chain of files, the last of them on top.
        problem = "" if len(chain) == 1 else f"its image is a chain of {len(chain)} files"
        path = _within(chain[-1]["path"], store)
        disks.append(DiskClaim(key, path, store, unit_id, cuts.ref_of(entry, unit_id), problem))
    live = [row for row in files if row["role"] == FileRole.LIVE]
    if not live:
        frozen_s, thawed_s = held_span(vm)
    else:
        frozen_s, thawed_s = cuts.span([disk.ref for disk in disks])
        if len(live) < len(files):  # two points in time: only the outermost bounds hold
            held = held_span(vm)
            frozen_s, thawed_s = _least([frozen_s, held[0]]), _most([thawed_s, held[1]])
    level = ConsistencyLevel(entry["level"])
    return ImageClaim(entry["vm_id"], level, tuple(disks), frozen_s, thawed_s)


def held_span(vm: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """When the image of disks that a VM snapshot holds stood still, as close as the run tells.

    The switch to the overlay falls into the stun of the create; where nobody saw that, into the
    quiesce window; where nobody saw that either, between request and answer.

    Parameters
    ----------
    vm:
        The VM's row in the table ``vms``.
    """
    stun, quiesce = vm["stun_create_start_s"], vm["quiesce_start_s"]
    frozen_s = next((one for one in (stun, quiesce, vm["requested_s"]) if one is not None), None)
    ends = [
        None if start is None or length is None else start + length
        for start, length in ((stun, vm["stun_create_s"]), (quiesce, vm["quiesce_s"]))
    ]
    return frozen_s, _most(ends) if any(ends) else vm["opened_s"]


def _within(path: str, datastore_id: DatastoreId) -> PurePosixPath:
    """A file's path below the mount point that its datastore's identifier ends in."""
    try:
        return PurePosixPath(path).relative_to(mount_point(datastore_id))
    except ValueError:
        raise StillframeError(f"file {path} does not lie on datastore {datastore_id}") from None


def mount_point(datastore_id: DatastoreId) -> Path:
    """Where a datastore is mounted: its identifier is ``SYSTEM/MOUNTPOINT``."""
    return Path("/" + datastore_id.partition("/")[2].lstrip("/"))


def _least(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return min(known) if known and len(known) == len(values) else None


def _most(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return max(known) if known else None
