"""The settings of one qemu-storage-daemon array, as a live configuration gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..quantity import Bytes, Seconds


class QsdSettings(BaseModel):
    """What the driver ``qsd`` has to know.

    Attributes
    ----------
    qmp_socket:
        A monitor of the daemon that nobody else uses: it serves one client at a time.
    pool_folder:
        The folder with the images (see :mod:`stillframe.drivers.qsd_pool`).
    connect_timeout:
        Seconds until the monitor has greeted.
    call_timeout:
        Seconds without an answer after which a command is given up, and for which one waits for
        another process that is changing the pool.
    least_free:
        Bytes that have to be free in the pool: after a snapshot every first overwrite takes some,
        and when none are left the writes of the units fail.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    qmp_socket: Path
    pool_folder: Path
    connect_timeout: Seconds = Field(default=5.0, gt=0)
    call_timeout: Seconds = Field(default=30.0, gt=0)
    least_free: Bytes = Field(default=64 << 20, ge=0)


def parse_settings(system_id: str, settings: Mapping[str, Any]) -> QsdSettings:
    """Check the settings of an array.

    Raises
    ------
    InputError
        A setting is missing, unknown or unusable.
    """
    where = f"array {system_id}"
    try:
        checked = QsdSettings.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(where, field, first["msg"].removeprefix("Value error, ")) from None
    if not (checked.pool_folder / "groups").is_dir():
        raise InputError(
            where,
            "pool_folder",
            f"{checked.pool_folder} is not the pool of a qemu-storage-daemon array",
            "it holds the folders groups and clones; docs/arrays.md says how to make one",
        )
    return checked
