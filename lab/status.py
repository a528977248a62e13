"""What a lab's parts are doing, as far as that shows from outside: nobody is asked or disturbed."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .host import mounts
from .lab import Lab
from .labfile import LabGuest


@dataclass(frozen=True, slots=True)
class GuestStatus:
    """A guest.

    Attributes
    ----------
    state:
        ``running``, ``off``, or ``frozen``: by a job, or by one that died before it could thaw it.
    datastores:
        Where its disks lie, by the names of the folders.
    acks:
        How many records it has acknowledged.
    last_seq, last_ack_age_s:
        The last one's number, and how long ago it came; None when there is none.
    """

    name: str
    state: str
    datastores: list[str]
    acks: int
    last_seq: int | None
    last_ack_age_s: float | None


@dataclass(frozen=True, slots=True)
class DatastoreStatus:
    """A datastore, the unit it lies on, and how much of it is used (None when not mounted)."""

    name: str
    at: str
    unit: str
    mounted: bool
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class LabStatus:
    """All guests and datastores of a lab, and the files that stand for its units."""

    guests: list[GuestStatus]
    datastores: list[DatastoreStatus]
    units: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def status_of(lab: Lab) -> LabStatus:
    """What can be seen of a lab now."""
    mounted = {one.at for one in mounts()}
    places = [
        _datastore(at, lab.units[place.unit], mounted=at in mounted)
        for at, place in zip(lab.datastores, lab.spec.places(), strict=True)
    ]
    return LabStatus(
        guests=[_guest(lab, guest) for guest in lab.guests.values()],
        datastores=places,
        units=[str(unit) for unit in lab.units],
    )


def _guest(lab: Lab, guest: LabGuest) -> GuestStatus:
    acks = lab.acks(guest.name)
    state = "off"
    if lab.is_running(guest.name):
        state = "frozen" if guest.frozen_marker.exists() else "running"
    return GuestStatus(
        name=guest.name,
        state=state,
        datastores=[disk.datastore.name for disk in guest.disks],
        acks=len(acks),
        last_seq=acks[-1].seq if acks else None,
        last_ack_age_s=max(0.0, time.monotonic() - acks[-1].t_s) if acks else None,
    )


def _datastore(at: Path, unit: Path, *, mounted: bool) -> DatastoreStatus:
    used = None
    if mounted:
        facts = os.statvfs(at)
        used = (facts.f_blocks - facts.f_bfree) * facts.f_frsize
    return DatastoreStatus(at.name, str(at), unit.name, mounted, used)
