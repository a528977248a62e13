"""Where the QEMU guests of a host are described: the settings of driver ``qemu``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..quantity import Seconds

GUEST_FILE = "guest.yaml"
FIRST_DISK_KEY = 2000
"""Disks are numbered from here on, as virtual SCSI disks of other hypervisors are."""


class QemuSettings(BaseModel):
    """What the driver has to know of a host.

    Attributes
    ----------
    guests_folder:
        Each folder in it with a ``guest.yaml`` is one VM.
    connect_timeout:
        Seconds for QEMU's monitor to answer; one that does not is held by another client.
    answer_timeout:
        Seconds for QEMU to answer a command; jobs may run for as long as they take.
    agent_timeout:
        Seconds for a guest agent to answer that it is there.
    thaw_timeout:
        Seconds for which a caller waits for a thaw; after that it is tried on in the background.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    guests_folder: Path
    connect_timeout: Seconds = Field(default=5.0, gt=0)
    answer_timeout: Seconds = Field(default=60.0, gt=0)
    agent_timeout: Seconds = Field(default=5.0, gt=0)
    thaw_timeout: Seconds = Field(default=10.0, gt=0)


class GuestDisk(BaseModel):
    """One disk of a guest: the block node on its base, the base itself, its size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field(min_length=1)
    file: Path
    size: int = Field(ge=0)
    independent: bool = False


class GuestFile(BaseModel):
    """The content of a ``guest.yaml``; sockets are relative to its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    qmp: Path
    agent: Path | None = None
    disks: tuple[GuestDisk, ...] = Field(min_length=1)


class Guest(BaseModel):
    """A VM as its folder describes it; all paths are absolute."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    name: str
    qmp: Path
    agent: Path | None
    disks: tuple[GuestDisk, ...]

    def key_of(self, number: int) -> int:
        """The key of its disk ``number``."""
        return FIRST_DISK_KEY + number

    @property
    def held(self) -> tuple[GuestDisk, ...]:
        """The disks that take part in VM snapshots."""
        return tuple(disk for disk in self.disks if not disk.independent)


def parse_settings(system_id: str, settings: Mapping[str, Any]) -> QemuSettings:
    """Check the settings of a QEMU host.

    Raises
    ------
    InputError
        A setting is missing, unknown or unusable, or the folder is not there.
    """
    where = f"QEMU host {system_id}"
    try:
        chosen = QemuSettings.model_validate(dict(settings))
    except ValidationError as error:
        raise _input_error(where, error) from None
    if not chosen.guests_folder.is_dir():
        raise InputError(
            where,
            "guests_folder",
            f"there is no folder {chosen.guests_folder}",
            f"name the folder whose sub-folders hold a {GUEST_FILE} each",
        )
    return chosen


def read_guests(folder: Path) -> dict[str, Guest]:
    """The guests of a folder by name.

    Raises
    ------
    InputError
        A ``guest.yaml`` cannot be read, or two have one name.
    """
    guests: dict[str, Guest] = {}
    for file in sorted(folder.glob(f"*/{GUEST_FILE}")):
        guest = _read_guest(file)
        if guest.name in guests:
            other = guests[guest.name].folder
            raise InputError(str(file), "name", f"{guest.name!r} is also the name of {other}")
        guests[guest.name] = guest
    return guests


def _read_guest(file: Path) -> Guest:
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        content = GuestFile.model_validate(data)
    except (OSError, yaml.YAMLError) as error:
        raise InputError(str(file), "", f"cannot be read: {error}") from error
    except ValidationError as error:
        raise _input_error(str(file), error) from None
    home = file.parent.resolve()
    agent = None if content.agent is None else home / content.agent
    # A chain is compared by the paths that QEMU names, which may go through links.
    disks = tuple(
        disk.model_copy(update={"file": (home / disk.file).resolve()}) for disk in content.disks
    )
    return Guest(folder=home, name=content.name, qmp=home / content.qmp, agent=agent, disks=disks)


def _input_error(where: str, error: ValidationError) -> InputError:
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return InputError(where, field, first["msg"].removeprefix("Value error, "))
