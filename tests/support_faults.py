"""Faults for tests: sites that fire for certain, and rows that say that they did."""

from __future__ import annotations

from typing import Any

from stillframe.orchestrator.events import EventLog
from stillframe.sim.draws import Draws
from stillframe.sim.env import SimEnv
from stillframe.sim.faults import Faults
from stillframe.sim.faultsites import FaultSites


def sure(*sites: str, most: int | None = None, **more: Any) -> dict[str, Any]:
    """A ``faults`` section in which these sites fire at every visit, up to ``most`` times."""
    return {"sites": {site: {"fire": 1, "most": most} for site in sites}, **more}


def sites_of(
    faults: dict[str, Any] | None = None, seed: int = 1, env: SimEnv | None = None
) -> FaultSites:
    """The fault sites of a run with this section."""
    section = Faults.model_validate(faults or {})
    return FaultSites(section, Draws(seed), EventLog(), env or SimEnv())
