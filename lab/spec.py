"""What a lab consists of, and where in it everything lies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field, model_validator

from ..orchestrator.spec import Count, Section
from ..quantity import Bytes

BLOCK_BYTES = 4096
_MOST_RECORD_BYTES = 1 << 20
_ROUND_BYTES = 1 << 20
_SPARE = 0.9
"""The share of a datastore that guest disks may be promised; the rest is metadata and overlays."""


class LabArray(StrEnum):
    """The arrays that a lab can be made on."""

    QSD = "qsd"
    XFS = "xfs"
    CEPH = "ceph"


class Writes(Section):
    """What the writer in a guest does.

    Attributes
    ----------
    record_bytes:
        The size of a record; a multiple of 4 KiB.
    rate_per_s:
        How many records per second are due, however long each takes. A guest with two disks
        writes each record to both.
    file_bytes:
        The size of the ring of records on each disk; a multiple of ``record_bytes``.
    """

    record_bytes: Annotated[Bytes, Field(ge=BLOCK_BYTES, le=_MOST_RECORD_BYTES)] = BLOCK_BYTES
    rate_per_s: Annotated[float, Field(gt=0, le=10_000)] = 100.0
    file_bytes: Bytes = 16 << 20

    @model_validator(mode="after")
    def _aligned(self) -> Writes:
        if self.record_bytes % BLOCK_BYTES:
            raise ValueError(f"record_bytes {self.record_bytes} is no multiple of {BLOCK_BYTES}")
        if self.file_bytes < self.record_bytes or self.file_bytes % self.record_bytes:
            raise ValueError(
                f"file_bytes {self.file_bytes} is no multiple of record_bytes {self.record_bytes}"
            )
        return self


class LabSpec(Section):
    """A lab: guests with disks on datastores on the units of one array.

    Attributes
    ----------
    name:
        The name of its live configuration: lower-case letters, digits, dots, dashes.
    array:
        Which array the units are on.
    guests:
        How many guests: ``vm-0``, ``vm-1``, ...
    datastores:
        How many file systems for their disks. Guest ``i`` lies on datastore ``i % datastores``.
    units:
        How many units. Datastore ``i`` lies on unit ``i % units``: more datastores than units share
        units, and units beyond the number of datastores carry nothing.
    wide:
        So many guests, the last ones, have a second disk, on the datastore after their first's.
    disk_bytes:
        The size of each guest disk.
    unit_bytes:
        The size of each unit. All is sparse: only what is written takes space.
    independent:
        Globs over ``GUEST/DISK`` (``vm-3/disk1``): disks that take no part in VM snapshots.
    writer:
        What each guest writes; None for guests that write nothing until told to.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=40)] = "lab"
    array: LabArray = LabArray.QSD
    guests: Annotated[Count, Field(le=64)] = 4
    datastores: Annotated[Count, Field(le=32)] = 2
    units: Annotated[Count, Field(le=32)] = 2
    wide: Annotated[int, Field(ge=0)] = 1
    disk_bytes: Annotated[Bytes, Field(ge=32 << 20, le=8 << 30)] = 128 << 20
    unit_bytes: Annotated[Bytes, Field(ge=128 << 20, le=64 << 30)] = 1 << 30
    independent: tuple[str, ...] = ()
    writer: Writes | None = Writes()

    @model_validator(mode="after")
    def _fits(self) -> LabSpec:
        if self.wide > self.guests:
            raise ValueError(f"wide {self.wide} is more than there are guests ({self.guests})")
        for size in ("disk_bytes", "unit_bytes"):
            if getattr(self, size) % _ROUND_BYTES:
                raise ValueError(f"{size} {getattr(self, size)} is no multiple of 1 MiB")
        if self.writer is not None and self.writer.file_bytes > self.disk_bytes // 2:
            raise ValueError(
                f"writer.file_bytes {self.writer.file_bytes} is more than half of a disk "
                f"({self.disk_bytes} bytes)"
            )
        for place in self.places():
            held = sum(disk.datastore == place.number for disk in self.disks())
            if held * self.disk_bytes > place.size_bytes * _SPARE:
                raise ValueError(
                    f"{held} disks of {self.disk_bytes} bytes do not fit on datastore "
                    f"{place.number} of {place.size_bytes} bytes; use more units, or larger ones"
                )
        for glob in self.independent:
            if not any(fnmatchcase(disk.label, glob) for disk in self.disks()):
                raise ValueError(f"independent {glob!r} matches no disk")
        return self

    def places(self) -> list[DatastorePlace]:
        """Where each datastore lies: on a whole unit, or on a slice of one."""
        found = []
        for number in range(self.datastores):
            unit = number % self.units
            sharing = len(range(unit, self.datastores, self.units))
            size = self.unit_bytes // sharing // _ROUND_BYTES * _ROUND_BYTES
            offset = number // self.units * size
            found.append(DatastorePlace(number, unit, offset, size))
        return found

    def disks(self) -> list[DiskPlace]:
        """Every guest disk, guest by guest."""
        found = []
        for number in range(self.guests):
            for disk in range(2 if number >= self.guests - self.wide else 1):
                label = f"vm-{number}/disk{disk}"
                datastore = (number + disk) % self.datastores
                independent = any(fnmatchcase(label, glob) for glob in self.independent)
                found.append(DiskPlace(f"vm-{number}", disk, datastore, independent))
        return found


@dataclass(frozen=True, slots=True)
class DatastorePlace:
    """A datastore and the part of a unit it lies on: ``size_bytes`` from ``offset_bytes`` on."""

    number: int
    unit: int
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DiskPlace:
    """A guest disk and its datastore."""

    guest: str
    number: int
    datastore: int
    independent: bool

    @property
    def label(self) -> str:
        """How ``independent`` globs name it."""
        return f"{self.guest}/disk{self.number}"
