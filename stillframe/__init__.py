"""Stillframe: array-assisted VM snapshots, orchestrated for real and measured in a model.

The names below are the public interface for Python callers; they are imported when first used, so
that ``import stillframe`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import InputError, StillframeError

if TYPE_CHECKING:
    from .orchestrator.job import Job
    from .orchestrator.plan import Plan, make_plan
    from .orchestrator.result import JobResult
    from .orchestrator.spec import JobSpec
    from .orchestrator.strategies import PlannedGroup
    from .scenarios.schema import Scenario, load_scenario
    from .simulation import Simulation, simulate
    from .topology.estate import load_estate
    from .topology.graph import Topology

__version__ = "0.1.0"

_HOMES = {
    "Job": "orchestrator.job",
    "JobResult": "orchestrator.result",
    "JobSpec": "orchestrator.spec",
    "Plan": "orchestrator.plan",
    "PlannedGroup": "orchestrator.strategies",
    "Scenario": "scenarios.schema",
    "Simulation": "simulation",
    "Topology": "topology.graph",
    "load_estate": "topology.estate",
    "load_scenario": "scenarios.schema",
    "make_plan": "orchestrator.plan",
    "simulate": "simulation",
}

__all__ = [
    "InputError",
    "Job",
    "JobResult",
    "JobSpec",
    "Plan",
    "PlannedGroup",
    "Scenario",
    "Simulation",
    "StillframeError",
    "Topology",
    "load_estate",
    "load_scenario",
    "make_plan",
    "simulate",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
