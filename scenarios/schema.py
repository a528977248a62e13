"""A scenario file: an estate, the world it lives in, a job, and what happens meanwhile."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    Tag,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue

from ..drivers.records import Estate
from ..errors import InputError, StillframeError
from ..orchestrator.spec import JobSpec, Section, StrategyName
from ..quantity import Seconds
from ..sim.config import (
    HostLostEvent,
    PowerEvent,
    SnapshotRemovedEvent,
    StorageVmotionEvent,
    VmotionEvent,
    WorldConfig,
    WorldEvent,
)
from ..topology.estate import estate_from_data, load_estate
from ..topology.estate_schema import EstateFile
from ..topology.yamlfile import load_yaml, validate
from .generate import GeneratedEstate
from .profile_file import with_profile_file

LIBRARY = Path(__file__).with_name("library")
NAME = r"^[a-z0-9][a-z0-9._-]*$"


class _AsEstateFile:
    """Says in the JSON Schema that a mapping has the format of an estate file."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: Any, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(EstateFile.__pydantic_core_schema__)


class EstateSource(Section):
    """Where the estate comes from: exactly one of these keys.

    Attributes
    ----------
    file:
        An estate file, relative to the scenario.
    rvtools:
        An RVTools export (.xlsx, or a folder of .csv), relative to the scenario.
    inline:
        The estate itself, in the format of an estate file.
    generate:
        Counts and shares from which an estate is made.
    """

    file: str | None = None
    rvtools: str | None = None
    inline: Annotated[dict[str, Any], _AsEstateFile] | None = None
    generate: GeneratedEstate | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> EstateSource:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise ValueError(f"give exactly one of file, rvtools, inline and generate, not {found}")
        return self


class CancelJob(Section):
    """The job is cancelled: it must still release every VM."""

    at: Seconds
    cancel_job: Literal[True]


def _event_kind(value: Any) -> str | None:
    """Which kind an event is, so that errors speak of that kind only."""
    if isinstance(value, dict):
        return "cancel_job" if "cancel_job" in value else value.get("kind")
    return "cancel_job" if isinstance(value, CancelJob) else getattr(value, "kind", None)


Event = Annotated[
    Annotated[VmotionEvent, Tag("vmotion")]
    | Annotated[StorageVmotionEvent, Tag("storage-vmotion")]
    | Annotated[PowerEvent, Tag("power")]
    | Annotated[SnapshotRemovedEvent, Tag("snapshot-removed")]
    | Annotated[HostLostEvent, Tag("host-lost")]
    | Annotated[CancelJob, Tag("cancel_job")],
    Discriminator(
        _event_kind,
        custom_error_type="event_kind",
        custom_error_message="write kind: vmotion, storage-vmotion, power, snapshot-removed or "
        "host-lost, or cancel_job: true",
    ),
]


class Scenario(Section):
    """A whole experiment, so that a file and a seed say everything about a run.

    Attributes
    ----------
    name:
        Lower-case letters, digits, dots, dashes; results go to ``out/NAME``.
    title, description:
        What it shows, and what to look at.
    seed:
        Drives every draw of the modelled world.
    estate, world, job:
        What there is, how it behaves, and what is to be done.
    events:
        What happens at which time, counted from the moment the plan is made.
    plan_age:
        The time between plan and job start: the job acts on an inventory that is this old.
    observe:
        How long the world goes on after the job, to see what array snapshots grow to.
    """

    name: Annotated[str, Field(pattern=NAME)]
    title: Annotated[str, Field(min_length=1)]
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 1
    estate: EstateSource
    world: WorldConfig = WorldConfig()
    events: tuple[Event, ...] = ()
    job: JobSpec = JobSpec()
    plan_age: Seconds = 0.0
    observe: Seconds = 0.0

    _path: Path | None = PrivateAttr(default=None)

    @property
    def source(self) -> str:
        """The file it was read from, or its name."""
        return self.name if self._path is None else str(self._path)

    @property
    def folder(self) -> Path:
        """What paths in the scenario are relative to."""
        return Path() if self._path is None else self._path.parent

    @property
    def world_events(self) -> tuple[WorldEvent, ...]:
        """The events that happen to the modelled world."""
        return tuple(event for event in self.events if not isinstance(event, CancelJob))

    @property
    def cancel_s(self) -> float | None:
        """When the job is cancelled, in seconds from t=0; None when it is not."""
        times = [event.at for event in self.events if isinstance(event, CancelJob)]
        return min(times, default=None)

    @model_validator(mode="after")
    def _cancel_after_start(self) -> Scenario:
        cancel_s = self.cancel_s
        if cancel_s is not None and cancel_s < self.plan_age:
            raise ValueError(
                f"cancel_job at {cancel_s:g} s is before the job starts (plan_age "
                f"{self.plan_age:g} s)"
            )
        return self

    def build_estate(self) -> Estate:
        """The estate that the scenario speaks of.

        Raises
        ------
        InputError
            The estate's file cannot be used, or the estate contradicts itself.
        """
        source = self.estate
        if source.generate is not None:
            with _blame(self.source, "estate.generate"):
                return source.generate.build()
        if source.inline is not None:
            with _blame(self.source, "estate.inline"):
                return estate_from_data(source.inline, self.source)
        if source.file is not None:
            return load_estate(self.folder / source.file)
        # Imported here: reading spreadsheets is slow to load and rarely needed.
        from ..topology.rvtools import import_rvtools

        assert source.rvtools is not None, "the validator lets one source through"  # noqa: S101
        return import_rvtools(self.folder / source.rvtools).estate

    def with_strategy(self, strategy: StrategyName) -> Scenario:
        """The same scenario with another grouping strategy."""
        update: dict[str, Any] = {"strategy": strategy}
        if strategy is not StrategyName.CHUNKS:
            update["chunk_vms"] = JobSpec.model_fields["chunk_vms"].default
        return self.model_copy(update={"job": self.job.model_copy(update=update)})


@dataclass(frozen=True, slots=True)
class ShippedScenario:
    """A scenario of the library, by its name, with what it shows."""

    name: str
    title: str
    description: str
    path: Path


def list_scenarios() -> list[ShippedScenario]:
    """The shipped scenarios in the order of their names."""
    found = []
    for path in sorted(LIBRARY.glob("*.yaml")):
        data = load_yaml(path)
        title, description = str(data.get("title", "")), str(data.get("description", ""))
        found.append(ShippedScenario(path.stem, title, description, path))
    return found


def find_scenario(name_or_path: str | Path) -> Path:
    """The file of a shipped scenario, or the path itself if it looks like one.

    Raises
    ------
    InputError
        It is neither: no scenario ships under this name.
    """
    text = str(name_or_path)
    path = Path(text)
    shipped = LIBRARY / f"{text}.yaml"
    if path.suffix in (".yaml", ".yml") or "/" in text or os.sep in text or not text:
        return path
    if shipped.is_file():
        return shipped
    if path.exists():
        return path
    names = [file.stem for file in sorted(LIBRARY.glob("*.yaml"))]
    near = difflib.get_close_matches(text, names, n=1)
    advice = (
        f"did you mean {near[0]!r}?"
        if near
        else f"shipped are {', '.join(names)}; a path ends in .yaml"
    )
    raise InputError("scenario", "", f"{text!r} is not known", advice)


def load_scenario(name_or_path: str | Path) -> Scenario:
    """A shipped scenario by its name, or the one in a file.

    What ends in .yaml or names a folder is a path; a shipped name wins over a file without ending.

    Raises
    ------
    InputError
        There is no such scenario, or its file cannot be used; the error names file, field and
        value.
    """
    path = find_scenario(name_or_path)
    return scenario_from_data(load_yaml(path), path)


def scenario_from_data(data: dict[str, Any], path: Path) -> Scenario:
    """A scenario from data that was read already; ``path`` names it and anchors its paths.

    Raises
    ------
    InputError
        As :func:`load_scenario`.
    """
    whole = with_profile_file(data, path)
    scenario = scenario_with_path(validate(Scenario, whole, str(path)), path)
    if scenario.estate.inline is not None:
        scenario.build_estate()
    return scenario


def scenario_with_path(scenario: Scenario, path: Path) -> Scenario:
    """The scenario as if it stood in this file: errors name it, paths are relative to it."""
    anchored = _anchored(scenario, path.parent)
    anchored._path = path
    return anchored


def _anchored(scenario: Scenario, folder: Path) -> Scenario:
    """Write profiles named by a path lie relative to the scenario, as its other files do."""
    rules = tuple(
        rule.model_copy(update={"profile": str(folder / rule.profile)})
        if isinstance(rule.profile, str) and rule.profile.endswith(".npz")
        else rule
        for rule in scenario.world.guests
    )
    world = scenario.world.model_copy(update={"guests": rules})
    return scenario.model_copy(update={"world": world})


def scenario_json_schema() -> dict[str, Any]:
    """The JSON Schema of scenario files, for editors that complete and check as one types."""
    schema: dict[str, Any] = _with_units(Scenario.model_json_schema())
    # A profile's numbers come from the profile that it names: a file gives those that differ.
    schema["$defs"]["HypervisorProfile"].pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


_UNIT_OF = {"s": "250 ms", "B": "64 KiB", "B/s": "120 MiB/s"}
"""The unit in which the program holds a quantity, and the example by which a schema shows it."""


def _with_units(node: Any) -> Any:
    """The schema with default quantities as a user would have to write them.

    Editors offer defaults for insertion, and a bare number would be refused.
    """
    if isinstance(node, list):
        return [_with_units(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {key: _with_units(value) for key, value in node.items()}
    default = result.get("default")
    if isinstance(default, int | float) and not isinstance(default, bool):
        for kind in (result, *result.get("anyOf", ())):
            for unit, example in _UNIT_OF.items():
                if kind.get("examples") == [example]:
                    result["default"] = f"{default:.12g} {unit}"
    return result


@contextmanager
def _blame(source: str, section: str) -> Iterator[None]:
    """Errors of a part of the scenario name the scenario and the part's place in it."""
    try:
        yield
    except InputError as error:
        field = f"{section}.{error.field}" if error.field else section
        raise InputError(source, field, error.problem, error.advice) from None
    except StillframeError as error:
        raise InputError(source, section, error.what, error.advice) from None
