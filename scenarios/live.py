"""A live configuration: which systems take part in a job, through which drivers, and the job.

It holds no password: those come from the environment or the keyring, as each driver says.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from ..drivers.registry import driver_names
from ..errors import InputError
from ..orchestrator.retention import Retention
from ..orchestrator.spec import JobSpec, Section, StrategyName
from ..sim.config import WorldConfig
from ..topology.yamlfile import load_yaml, validate
from .profile_file import with_profile_file
from .schema import NAME, EstateSource, Scenario, scenario_with_path

SystemId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

_SECTIONS = ("hypervisors", "arrays")
_SECRET = re.compile(
    r"(?:^|[_-])(?:password|passwd|passphrase|pwd|pass|secret|token|api[_-]?key|credentials?)s?$",
    re.IGNORECASE,
)
"""Keys that hold a secret. ``password_env`` and ``password_file`` only say where one is."""


class SystemEntry(BaseModel):
    """One system: the driver's name, and beside it the driver's own settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    driver: Annotated[str, Field(min_length=1)]


class LiveConfig(Section):
    """What a live job works on and what it is to do.

    Attributes
    ----------
    name:
        Lower-case letters, digits, dots, dashes; results go to ``out/NAME-JOB``.
    title, description:
        What the job is for, in the report.
    hypervisors, arrays:
        The systems by the identifiers under which plans, tags and reports know them. A relative
        path in a setting called ``estate`` or ``…_file`` is relative to the configuration.
    job:
        What to protect, and under which policies and limits; as in a scenario.
    journal_file:
        Where live jobs note what they are about to do, and keep their catalogue; relative to the
        configuration. Default: ``NAME.journal`` beside it.
    retention:
        What pruning keeps of the catalogue.
    world:
        How the modelled twin of a rehearsal behaves; as in a scenario. A live run ignores it.
    """

    name: Annotated[str, Field(pattern=NAME)]
    title: str = ""
    description: str = ""
    hypervisors: Annotated[dict[SystemId, SystemEntry], Field(min_length=1)]
    arrays: dict[SystemId, SystemEntry] = Field(default_factory=dict)
    job: JobSpec = JobSpec()
    journal_file: Annotated[str, Field(min_length=1)] | None = None
    retention: Retention = Retention()
    world: WorldConfig = WorldConfig()

    _path: Path = PrivateAttr(default=Path("live.yaml"))

    @property
    def source(self) -> str:
        """The file it was read from."""
        return str(self._path)

    @property
    def label(self) -> str:
        """The title, or the name where there is none."""
        return self.title or self.name

    @property
    def journal(self) -> Path:
        """The file with the journal of its live jobs."""
        return self._path.parent / (self.journal_file or f"{self.name}.journal")

    def systems(self) -> Iterator[tuple[str, str, SystemEntry]]:
        """Section, identifier and entry of every system, hypervisors first."""
        for section in _SECTIONS:
            for system_id, entry in getattr(self, section).items():
                yield section, system_id, entry

    def settings(self, entry: SystemEntry) -> dict[str, Any]:
        """The driver's settings, with paths that can be opened from anywhere."""
        folder = self._path.parent
        return {
            key: str(folder / value) if isinstance(value, str) and _is_path(key) else value
            for key, value in (entry.model_extra or {}).items()
        }

    def with_strategy(self, strategy: StrategyName) -> LiveConfig:
        """The same configuration with another grouping strategy."""
        update: dict[str, Any] = {"strategy": strategy}
        if strategy is not StrategyName.CHUNKS:
            update["chunk_vms"] = JobSpec.model_fields["chunk_vms"].default
        return self.model_copy(update={"job": self.job.model_copy(update=update)})

    def twin(self, estate: EstateSource, seed: int) -> Scenario:
        """The same job as a scenario: on an estate file, in the modelled world."""
        scenario = Scenario(
            name=self.name,
            title=f"Rehearsal: {self.label}",
            description=self.description,
            seed=seed,
            estate=estate,
            world=self.world,
            job=self.job,
        )
        return scenario_with_path(scenario, self._path)


def load_live(path: Path | str) -> LiveConfig:
    """The live configuration in a YAML file.

    Raises
    ------
    InputError
        It cannot be read, does not follow the schema, names a driver that is not installed, or
        holds a secret; the error names file, field and value, but never the value of a secret.
    """
    path = Path(path)
    data = load_yaml(path)
    _refuse_secrets(data, str(path))
    config = validate(LiveConfig, with_profile_file(data, path), str(path))
    config._path = path
    known = driver_names()
    for section, system_id, entry in config.systems():
        if entry.driver not in known:
            near = difflib.get_close_matches(entry.driver, known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"installed are {', '.join(known)}"
            field = f"{section}.{system_id}.driver"
            raise InputError(str(path), field, f"there is no driver {entry.driver!r}", advice)
    return config


def _is_path(key: str) -> bool:
    return key == "estate" or key.endswith("_file")


def _refuse_secrets(data: Mapping[str, Any], source: str) -> None:
    """Before anything else looks at the values, and could quote one in an error."""
    for section in _SECTIONS:
        systems = data.get(section)
        for system_id, settings in systems.items() if isinstance(systems, dict) else ():
            for field in secret_fields(settings, f"{section}.{system_id}"):
                raise InputError(
                    source,
                    field,
                    "a secret does not belong in a configuration",
                    "take it out, change it if others could read it, and give it through the "
                    "environment or the keyring (docs/live.md)",
                )


def secret_fields(value: Any, place: str) -> Iterator[str]:
    """Where in a configuration a secret stands, by its key; ``place`` is where the value is."""
    if isinstance(value, dict):
        for key, inner in value.items():
            field = f"{place}.{key}"
            if _SECRET.search(key):
                yield field
            else:
                yield from secret_fields(inner, field)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from secret_fields(inner, f"{place}[{number}]")
