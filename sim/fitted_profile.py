"""A profile that was fitted to live runs, as a file that a world can name.

The file holds a hypervisor profile and one for arrays, in the words of a world's configuration and
with their units, each number with its source, and which runs it comes from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from ..errors import InputError
from ..orchestrator.spec import Count, Section
from ..quantity import Bytes, BytesPerSecond, Seconds, dump_bytes, dump_seconds
from ..topology.yamlfile import load_yaml, validate
from .array_profiles import ARRAY_PROFILES, ArrayProfile
from .config import DEFAULT_ARRAY, WorldConfig
from .profiles import HypervisorProfile, hypervisor_profile

FORMAT = "stillframe-fitted-profile"

_DUMPS = (
    (get_args(Seconds)[1], dump_seconds),
    (get_args(Bytes)[1], dump_bytes),
    (get_args(BytesPerSecond)[1], lambda rate: f"{rate!r} B/s"),
)


class FittedNumber(Section):
    """One fitted number, for a reader.

    ``observations`` is how many measured times it was fitted to, ``spread`` the lognormal sigma
    that was left between them and the fit; None where it has none of its own.
    """

    number: str
    value: str
    observations: Count
    spread: float | None = None


class FittedProfile(Section):
    """What live runs say about the speed of a hypervisor and an array.

    Attributes
    ----------
    array, driver:
        Names of the array's and of the hypervisor's driver.
    dates:
        When the first and the last of the runs began.
    runs:
        The identifiers of their jobs.
    hypervisor, storage:
        The profiles.
    numbers:
        What was fitted.
    notes:
        What could not be, and why, in sentences.
    """

    format: Literal["stillframe-fitted-profile"] = "stillframe-fitted-profile"
    version: Literal[1] = 1
    array: str
    driver: str
    dates: tuple[str, str]
    runs: Annotated[tuple[str, ...], Field(min_length=1)]
    hypervisor: HypervisorProfile
    storage: ArrayProfile
    numbers: tuple[FittedNumber, ...] = ()
    notes: tuple[str, ...] = ()

    def world(self, world: WorldConfig) -> WorldConfig:
        """The same world with the fitted hypervisor, and the fitted array as its default."""
        arrays = {**world.arrays, DEFAULT_ARRAY: self.storage}
        return world.model_copy(update={"hypervisor": self.hypervisor, "arrays": arrays})

    def world_section(self) -> dict[str, Any]:
        """The profiles as the section ``world`` of a configuration would give them."""
        return {
            "hypervisor": _changed(self.hypervisor, hypervisor_profile(self.hypervisor.profile)),
            "arrays": {DEFAULT_ARRAY: _changed(self.storage, ARRAY_PROFILES[self.storage.profile])},
        }

    def document(self) -> dict[str, Any]:
        """The profile as plain data, as its file holds it."""
        section = self.world_section()
        return {
            **self.model_dump(mode="json", exclude={"hypervisor", "storage"}),
            "hypervisor": section["hypervisor"],
            "storage": section["arrays"][DEFAULT_ARRAY],
        }


def _changed(profile: BaseModel, base: BaseModel) -> dict[str, Any]:
    """The profile's name, and what differs from the profile of that name, with units."""
    found: dict[str, Any] = {"profile": getattr(profile, "profile")}  # noqa: B009
    for name, field in type(profile).model_fields.items():
        value = getattr(profile, name)
        if name in ("profile", "sources") or value == getattr(base, name):
            continue
        found[name] = _text(value, field)
    was = getattr(base, "sources")  # noqa: B009
    sources = {
        name: source
        for name, source in getattr(profile, "sources").items()  # noqa: B009
        if was.get(name) != source
    }
    return {**found, "sources": sources}


def _text(value: Any, field: FieldInfo) -> Any:
    if isinstance(value, BaseModel):
        inner = type(value).model_fields.items()
        return {name: _text(getattr(value, name), part) for name, part in inner}
    for kind, dump in _DUMPS:
        if kind in field.metadata:
            return dump(value)
    return value


def save_fitted(profile: FittedProfile, path: Path) -> None:
    """Write a profile as YAML; the same profile always gives the same bytes.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    text = yaml.safe_dump(profile.document(), sort_keys=False, allow_unicode=True, width=100)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(str(path), "", f"cannot be written: {error.strerror or error}") from error


def load_fitted(path: Path) -> FittedProfile:
    """Read a profile back.

    Raises
    ------
    InputError
        The file cannot be read, is no fitted profile, or does not follow its schema; the error
        names file, field and value.
    """
    data = load_yaml(path)
    if data.get("format") != FORMAT:
        advice = "`stillframe calibrate lab RUN... --out FILE` makes one"
        raise InputError(str(path), "format", "this is not a fitted profile", advice)
    return validate(FittedProfile, data, str(path))
