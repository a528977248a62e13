"""The settings of one reflink array, as a live configuration gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..quantity import Bytes, Seconds


class XfsSettings(BaseModel):
    """What the driver ``xfs-reflink`` has to know.

    Attributes
    ----------
    pool_folder:
        The folder whose files are the units. Its file system must make reflink copies.
    hold:
        ``always`` holds the writes of the datastores on the units for every snapshot. ``groups``
        holds nobody where a single unit is snapshotted, which one reflink copy cuts at one point
        anyway: no stall, and the datastore in it is crash-consistent as after a power failure.
    unheld:
        A group with a unit that something can write to without a mounted file system that could
        be held (a bare loop device, a process that has the file open) has no common point in time.
        ``refuse`` makes no snapshot of it. ``allow`` makes it, and the driver then does not claim
        that its groups are atomic.
    least_free:
        Bytes that have to be free in the pool: after a snapshot every first overwrite takes some,
        and when none are left the writes of the units fail.
    flush_timeout:
        Seconds for writing out what is cached, before writes are held.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool_folder: Path
    hold: Literal["always", "groups"] = "always"
    unheld: Literal["refuse", "allow"] = "refuse"
    least_free: Bytes = Field(default=64 << 20, ge=0)
    flush_timeout: Seconds = Field(default=60.0, gt=0)


def parse_settings(system_id: str, settings: Mapping[str, Any]) -> XfsSettings:
    """Check the settings of an array.

    Raises
    ------
    InputError
        A setting is missing, unknown or unusable.
    """
    try:
        return XfsSettings.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise InputError(f"array {system_id}", field, problem) from None
