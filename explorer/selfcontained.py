"""Scenarios that stand for themselves: the estate in them, and nothing to look up beside them."""

from __future__ import annotations

from typing import Any

from ..drivers.records import Estate
from ..scenarios.schema import EstateSource, Scenario
from ..topology.estate import dump_estate
from ..topology.yamlfile import parse_yaml


def estate_source(estate: Estate) -> EstateSource:
    """An estate as the ``estate`` section of a scenario, every entry written out."""
    # The writer's text and not its records: what a reader makes of it is known to be equal.
    return EstateSource(inline=parse_yaml(dump_estate(estate), "estate"))


def with_estate(scenario: Scenario, estate: Estate) -> Scenario:
    """The scenario with this estate in it, whatever its own came from."""
    return scenario.model_copy(update={"estate": estate_source(estate)})


def self_contained(scenario: Scenario) -> Scenario:
    """The scenario without references to an estate's file.

    What is generated stays generated: the numbers from which it is made are all there. Write
    profiles that are files of their own keep their (absolute) paths.

    Raises
    ------
    InputError
        The file that the estate comes from cannot be used.
    """
    source = scenario.estate
    if source.file is None and source.rvtools is None:
        return scenario
    return with_estate(scenario, scenario.build_estate())


def scenario_data(scenario: Scenario) -> dict[str, Any]:
    """The scenario as plain data for JSON; numbers are seconds and bytes, without units."""
    return self_contained(scenario).model_dump(mode="json", by_alias=True)
