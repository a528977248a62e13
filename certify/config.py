"""The vendor's configuration: how to reach the system, what its vendor states, how much to try.

It holds no password: those come from the environment or the keyring, as each driver says.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from ..errors import InputError
from ..orchestrator.spec import Section
from ..quantity import Seconds
from ..scenarios.live import secret_fields
from ..topology.yamlfile import load_yaml, validate


class VendorConfig(Section):
    """What ``--config`` names.

    Attributes
    ----------
    name:
        What the certificate calls the system; default: the target's own name.
    settings:
        Handed to the target's class, which says what they are. A relative path in a setting whose
        name ends in ``_file`` is relative to the configuration.
    limits:
        Durations that the vendor states, by name (``stillframe certify list`` has the names): what
        takes longer is a failure. What is not stated is measured and not judged.
    effort:
        How often to repeat what can only be shown by repeating it.
    """

    name: Annotated[str, Field(pattern=r"^\S(?:[^\x00-\x1f]{0,78}\S)?$")] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    limits: dict[str, Seconds] = Field(default_factory=dict)
    effort: Literal["quick", "standard", "thorough"] | None = None

    _source: str = PrivateAttr(default="--config")

    @property
    def source(self) -> str:
        """The file it was read from."""
        return self._source

    def limits_s(self, known: Mapping[str, str]) -> dict[str, float]:
        """The limits by the names that benches know: ``snapshot_p95`` becomes ``snapshot_p95_s``.

        Parameters
        ----------
        known:
            The limits that some requirement judges by, by name, with what each means.

        Raises
        ------
        InputError
            No requirement judges by such a limit.
        """
        limits = {}
        for name, limit_s in self.limits.items():
            if f"{name}_s" not in known:
                names = [one.removesuffix("_s") for one in known]
                near = difflib.get_close_matches(name, names, n=1)
                advice = f"did you mean {near[0]!r}?" if near else f"limits are {', '.join(names)}"
                raise InputError(
                    self.source, f"limits.{name}", "no requirement judges by it", advice
                )
            limits[f"{name}_s"] = limit_s
        return limits


def load_vendor(path: Path) -> VendorConfig:
    """The vendor's configuration in a YAML file.

    Raises
    ------
    InputError
        It cannot be read, does not follow the schema, or holds a secret; the error names file,
        field and value, but never the value of a secret.
    """
    data = load_yaml(path)
    for field in secret_fields(data.get("settings"), "settings"):
        raise InputError(
            str(path),
            field,
            "a secret does not belong in a configuration",
            "take it out, change it if others could read it, and give it through the environment "
            "or the keyring",
        )
    config = validate(VendorConfig, data, str(path))
    settings = _with_paths(config.settings, path.parent)
    config = config.model_copy(update={"settings": settings})
    config._source = str(path)
    return config


def _with_paths(value: Any, folder: Path) -> Any:
    """Settings with files that can be opened from anywhere."""
    if isinstance(value, dict):
        return {
            key: str(folder / inner)
            if isinstance(inner, str) and key.endswith("_file")
            else _with_paths(inner, folder)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_with_paths(inner, folder) for inner in value]
    return value
