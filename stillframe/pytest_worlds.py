"""What the pytest fixtures take for an estate, a scenario and a job's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .drivers.records import Estate
from .errors import InputError
from .explorer.selfcontained import estate_source
from .orchestrator.spec import JobSpec, Section
from .scenarios.generate import GeneratedEstate
from .scenarios.schema import Scenario, find_scenario, load_scenario
from .sim.config import WorldConfig
from .topology.estate import estate_from_data
from .topology.yamlfile import load_yaml, validate

Where = Scenario | Estate | str | Path
"""A scenario, an estate, the name of a shipped scenario, or a file of either kind."""


def make_estate(source: str | Path | None = None, /, **counts: Any) -> Estate:
    """An estate, from counts and shares or from somewhere.

    Parameters
    ----------
    source:
        The name of a shipped scenario, a scenario's file, an estate's file, or an RVTools export.
    counts:
        Instead of a source: what ``estate: {generate: …}`` takes in a scenario, such as ``vms``,
        ``datastores``, ``arrays``, ``span_share`` and ``seed``.

    Raises
    ------
    InputError
        The source cannot be used, or a count is not known or out of range.
    """
    if source is None:
        if _one_neighbourhood(counts):
            counts = {"arrays": 1, **counts}
        return validate(GeneratedEstate, counts, "estate", units_required=False).build()
    if counts:
        raise InputError(
            "estate", next(iter(counts)), "a count beside a source", "give one of the two"
        )
    path = find_scenario(source)
    if _is_export(path):
        from .topology.rvtools import import_rvtools

        return import_rvtools(path).estate
    data = load_yaml(path)
    if "estate" not in data:
        return estate_from_data(data, str(path))
    return load_scenario(path).build_estate()


def _one_neighbourhood(counts: Mapping[str, Any]) -> bool:
    """So few datastores that one array holds them all, whatever the default for larger estates."""
    fields = GeneratedEstate.model_fields
    datastores = counts.get("datastores", fields["datastores"].default)
    together = counts.get("neighbourhood", fields["neighbourhood"].default)
    return isinstance(datastores, int) and isinstance(together, int) and datastores <= together


def make_scenario(
    where: Where,
    *,
    spec: JobSpec | Mapping[str, Any] | None = None,
    world: WorldConfig | Mapping[str, Any] | None = None,
    name: str = "estate",
) -> Scenario:
    """A scenario to run, with another job or world where one is given.

    Parameters
    ----------
    where:
        See :data:`Where`. An estate gets a plain world and a job that protects all of it.
    spec, world:
        What takes the place of the scenario's ``job`` and ``world`` section; a mapping takes the
        place of the entries that it names (as in a file; plain numbers are seconds and bytes).
    name:
        What a bare estate's scenario is called; it is part of what seeds draw from.

    Raises
    ------
    InputError
        There is no such scenario, or a setting is not known or has no such value.
    """
    scenario = _found(where, name)
    update: dict[str, Any] = {}
    if spec is not None:
        update["job"] = _settings(scenario.job, spec, "spec")
    if world is not None:
        update["world"] = _settings(scenario.world, world, "world")
    return scenario.model_copy(update=update) if update else scenario


def _found(where: Where, name: str) -> Scenario:
    if isinstance(where, Scenario):
        return where
    if isinstance(where, Estate):
        return _around(where, name)
    path = find_scenario(where)
    if _is_export(path) or "estate" not in load_yaml(path):
        return _around(make_estate(path), path.stem)
    return load_scenario(path)


def _is_export(path: Path) -> bool:
    """Whether this is an export of RVTools: a workbook, or a folder of tables."""
    return path.is_dir() or path.suffix.lower() == ".xlsx"


def _around(estate: Estate, name: str) -> Scenario:
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "estate"
    return Scenario(name=plain, title=name, estate=estate_source(estate))


def _settings(before: Section, given: Section | Mapping[str, Any], source: str) -> Section:
    if isinstance(given, Section):
        return given
    model = type(before)
    values = {name: getattr(before, name) for name in model.model_fields}
    return validate(model, {**values, **given}, source, units_required=False)
