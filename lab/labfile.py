"""The files of a lab: where each lies, and those that say what the lab is.

``lab.json`` is written before anything is made and tells a later process all that it cannot see for
itself; ``live.yaml`` is a live configuration of the lab; ``guests/NAME/guest.yaml`` is what the
QEMU driver reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from .fit_load import guest_entry
from .machine import Sockets
from .spec import LabSpec, Writes

_FORM = 1
_MOST_SOCKET_BYTES = 100
"""The kernel takes 107 bytes for the name of a socket."""
_LONGEST_SOCKET = "guests/vm-63/agent.sock"


@dataclass(frozen=True, slots=True)
class LabDisk:
    """A guest's disk on its datastore.

    Attributes
    ----------
    node:
        The name of its block node in QEMU.
    file:
        The raw file; overlays of VM snapshots lie beside it.
    datastore:
        Where the file system that holds it is mounted.
    """

    node: str
    file: Path
    size_bytes: int
    independent: bool
    datastore: Path


@dataclass(frozen=True, slots=True)
class LabGuest:
    """A guest: its folder and its disks."""

    name: str
    folder: Path
    disks: tuple[LabDisk, ...]
    sockets: Sockets

    @property
    def pid_file(self) -> Path:
        """The number of its QEMU's process, while there is one."""
        return self.folder / "pid"

    @property
    def frozen_marker(self) -> Path:
        """There while somebody keeps the guest frozen, and locked by them."""
        return self.folder / "frozen"

    @property
    def mount_points(self) -> list[str]:
        """Where its disks are mounted in the guest."""
        return [f"/data{number}" for number in range(len(self.disks))]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of a lab lies in its folder."""

    folder: Path

    @property
    def lab_file(self) -> Path:
        """What the lab is."""
        return self.folder / "lab.json"

    @property
    def config_file(self) -> Path:
        """Its live configuration."""
        return self.folder / "live.yaml"

    @property
    def guests(self) -> Path:
        """One folder for each guest."""
        return self.folder / "guests"

    @property
    def array(self) -> Path:
        """All of the array."""
        return self.folder / "array"

    @property
    def acks(self) -> Path:
        """What the guests acknowledge."""
        return self.folder / "acks"

    def datastore(self, number: int) -> Path:
        """Where a datastore is mounted."""
        return self.folder / f"ds{number}"

    def guest(self, spec: LabSpec, name: str) -> LabGuest:
        """A guest of a spec, as it lies here."""
        disks = tuple(
            LabDisk(
                node=f"disk{disk.number}",
                file=self.datastore(disk.datastore) / name / f"disk{disk.number}.raw",
                size_bytes=spec.disk_bytes,
                independent=disk.independent,
                datastore=self.datastore(disk.datastore),
            )
            for disk in spec.disks()
            if disk.guest == name
        )
        at = self.guests / name
        sockets = Sockets(
            at / "qmp.sock", at / "lab.sock", at / "agent.sock", self.acks / f"{name}.sock"
        )
        return LabGuest(name, at, disks, sockets)


@dataclass(frozen=True, slots=True)
class LabFile:
    """What ``lab.json`` holds.

    Attributes
    ----------
    cache:
        Where the guest's files and saved states are; None for the default.
    units:
        The files that stand for the array's units, in order; empty until it is up.
    ready:
        Whether the lab came up whole.
    took_s:
        Seconds per step of bringing it up.
    """

    spec: LabSpec
    cache: Path | None = None
    units: tuple[Path, ...] = ()
    ready: bool = False
    took_s: Mapping[str, float] = field(default_factory=dict)


def check_place(folder: Path) -> Path:
    """The absolute path of a folder where a lab can be made.

    Raises
    ------
    InputError
        Something lies there, or its path is too long for the sockets in it.
    """
    folder = folder.resolve()
    longest = len(os.fsencode(folder / _LONGEST_SOCKET))
    if longest > _MOST_SOCKET_BYTES:
        most = _MOST_SOCKET_BYTES - len(_LONGEST_SOCKET) - 1
        raise InputError(
            str(folder), "", f"the path is longer than {most} bytes", "sockets lie in it"
        )
    if set(str(folder)) & set(" ',\\\n\t"):
        raise InputError(str(folder), "", "the path holds a space, comma, quote or backslash")
    if (folder / "lab.json").exists():
        raise InputError(str(folder), "", "a lab is there", f"run `stillframe lab down {folder}`")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(str(folder), "", "is there and not an empty folder")
    return folder


def create_lab_file(folder: Path, made: LabFile) -> None:
    """Claim a folder for a lab; of two that try, one succeeds.

    Raises
    ------
    InputError
        Another lab was first.
    """
    try:
        with Layout(folder).lab_file.open("x", encoding="utf-8") as file:
            file.write(_as_json(made))
    except FileExistsError:
        raise InputError(str(folder), "", "a lab is being made there") from None


def save_lab_file(folder: Path, made: LabFile) -> None:
    """Replace ``lab.json``; who reads it sees the old one or the new one."""
    target = Layout(folder).lab_file
    scratch = target.with_suffix(".new")
    scratch.write_text(_as_json(made), encoding="utf-8")
    scratch.replace(target)


def load_lab_file(folder: Path) -> LabFile:
    """What ``lab.json`` in a folder says.

    Raises
    ------
    InputError
        There is none, or it is not one of ours.
    """
    path = Layout(folder).lab_file
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(str(folder), "", "there is no lab here", error.strerror or "") from None
    try:
        data = json.loads(text)
        if data["stillframe_lab"] != _FORM:
            raise ValueError("of another version")
        return LabFile(
            spec=LabSpec.model_validate(data["spec"]),
            cache=None if data["cache"] is None else Path(data["cache"]),
            units=tuple(Path(unit) for unit in data["units"]),
            ready=bool(data["ready"]),
            took_s=dict(data["took_s"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), "", f"is not the file of a lab: {error}") from None


def _as_json(made: LabFile) -> str:
    data = {
        "stillframe_lab": _FORM,
        "spec": made.spec.model_dump(mode="json"),
        "cache": None if made.cache is None else str(made.cache),
        "units": [str(unit) for unit in made.units],
        "ready": made.ready,
        "took_s": {step: round(took_s, 3) for step, took_s in made.took_s.items()},
    }
    return json.dumps(data, indent=2) + "\n"


def write_guest_file(guest: LabGuest) -> None:
    """What the QEMU driver reads about a guest."""
    disks = [
        {
            "node": disk.node,
            "file": str(disk.file),
            "size": disk.size_bytes,
            "independent": disk.independent,
        }
        for disk in guest.disks
    ]
    data = {"name": guest.name, "qmp": "qmp.sock", "agent": "agent.sock", "disks": disks}
    _write_yaml(guest.folder / "guest.yaml", data)


def write_config(layout: Layout, spec: LabSpec, driver: str, settings: Mapping[str, Any]) -> None:
    """The live configuration of a lab.

    The limits are those of a lab: what hangs here should be heard of within a minute.
    """
    data: dict[str, Any] = {
        "name": spec.name,
        "title": f"Live lab on {spec.array.value}",
        "hypervisors": {"host": {"driver": "qemu", "guests_folder": str(layout.guests)}},
        "arrays": {"array": {"driver": driver, **settings}},
        "job": {
            "quiesce": {"policy": "degrade", "timeout": "30 s"},
            "timeouts": {"create": "60 s", "array": "60 s", "settle": "15 s"},
            "retry": {"first_pause": "200 ms"},
        },
    }
    if spec.writer is not None:
        data["world"] = {"guests": [guest_rule(spec.writer)]}
    _write_yaml(layout.config_file, data)


def guest_rule(writes: Writes) -> dict[str, Any]:
    """What a modelled twin has to know of a writer: an entry of ``world.guests``."""
    return guest_entry(writes.record_bytes, writes.rate_per_s, writes.file_bytes)


def _write_yaml(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
