"""The settings of one Ceph pool, as a live configuration gives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..quantity import Seconds

PYTHON = "/usr/bin/python3"


class CephSettings(BaseModel):
    """What the driver ``ceph-rbd`` has to know.

    Attributes
    ----------
    conf_file:
        The cluster's configuration, with the monitors and the key of ``client.admin`` if it needs
        one. Drivers of one pool exclude each other by a lock on this file, so use one on one host.
    pool:
        The pool whose images are the units.
    gateway_socket:
        The QMP socket of the qemu-storage-daemon that exports the images on this host.
    python:
        An interpreter that has the modules ``rados`` and ``rbd`` of the distribution.
    timeout:
        Seconds without an answer after which the cluster or the gateway counts as silent.
    copy_timeout:
        Seconds that a full copy of a unit may take.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    conf_file: Path
    pool: str = Field(default="rbd", min_length=1)
    gateway_socket: Path
    python: str = Field(default=PYTHON, min_length=1)
    timeout: Seconds = Field(default=10.0, gt=0)
    copy_timeout: Seconds = Field(default=600.0, gt=0)


def parse_settings(system_id: str, settings: Mapping[str, Any]) -> CephSettings:
    """Check the settings of an array.

    Raises
    ------
    InputError
        A setting is missing, unknown or unusable.
    """
    try:
        checked = CephSettings.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise InputError(f"array {system_id}", field, problem) from None
    if not checked.conf_file.is_file():
        raise InputError(f"array {system_id}", "conf_file", f"there is no {checked.conf_file}")
    return checked
