"""The fault sites of one run: which are active, when they fire, and how often they have."""

from __future__ import annotations

import math

from ..orchestrator.events import EventLog
from .draws import Draws
from .env import SimEnv
from .faults import Faults, Site

FAULT = "world.fault"
"""Event in the log: the subject is what the fault happens to, the detail names the site."""


class FaultSites:
    """Decides at each visit of a site whether it fires.

    The draw of a visit is keyed by site, subject, key and how often the same was visited before, so
    that a visit more in one place changes no draw in another. Limits couple sites all the same: a
    fire that the budget allowed here is one that it does not allow there.

    Parameters
    ----------
    faults:
        How often each site fires.
    draws:
        Where activation and visits are drawn from.
    log:
        Where every fire is noted.
    env:
        The world's clock.

    Attributes
    ----------
    faults:
        As given; the model reads the durations.
    active:
        The sites that are active in this run, with the probability of a visit.
    fired:
        How often each site has fired; a site that never has is missing.
    """

    __slots__ = (
        "_draws",
        "_env",
        "_left",
        "_log",
        "_most",
        "_since_s",
        "_until_s",
        "_visits",
        "active",
        "faults",
        "fired",
    )

    def __init__(self, faults: Faults, draws: Draws, log: EventLog, env: SimEnv) -> None:
        self.faults = faults
        self.active: dict[Site, float] = {}
        self.fired: dict[Site, int] = {}
        self._draws = draws
        self._log = log
        self._env = env
        self._left = math.inf if faults.budget is None else faults.budget
        self._most: dict[Site, int] = {}
        self._since_s = faults.since
        self._until_s = math.inf if faults.until is None else faults.until
        self._visits: dict[tuple[str | int, ...], int] = {}
        # In one order, however they were given.
        for site in Site if faults.sites else ():
            one = faults.sites.get(site)
            if one is None or not one.fire or not self._left:
                continue
            if one.activate < 1.0 and draws.three("fault-site", site)[0] >= one.activate:
                continue
            self.active[site] = one.fire
            if one.most is not None:
                self._most[site] = one.most

    def if_any(self) -> FaultSites | None:
        """Itself, or None when no site is active, so that the model asks nothing at all."""
        return self if self.active else None

    def strikes(self, site: Site, subject: str, *key: str | int) -> bool:
        """Whether the fault happens here and now; noted in the log when it does.

        Parameters
        ----------
        subject:
            What it would happen to: a VM, a vCenter, an array.
        key:
            What else tells this visit from others of the site.
        """
        probability = self.active.get(site)
        if probability is None:
            return False
        now_s = self._env.now
        if not self._since_s <= now_s < self._until_s:
            return False
        if probability < 1.0 and self._drawn(site, subject, key) >= probability:
            return False
        self._fire(site)
        self._log.add(now_s, FAULT, "", subject, site.value)
        return True

    def share(self, site: Site, subject: str, *key: str | int) -> float:
        """A further draw for a fault that happens, between 0 and 1: how, or how much of it."""
        return self._drawn(site, subject, ("how", *key))

    def stop(self) -> None:
        """No fault happens from now on; what has already gone wrong takes its course."""
        self.active.clear()

    def _drawn(self, site: Site, subject: str, key: tuple[str | int, ...]) -> float:
        visit: tuple[str | int, ...] = (site.value, subject, *key)
        number = self._visits[visit] = self._visits.get(visit, 0) + 1
        return self._draws.three("fault", number, *visit)[0]

    def _fire(self, site: Site) -> None:
        fired = self.fired[site] = self.fired.get(site, 0) + 1
        self._left -= 1
        if not self._left:
            self.active.clear()
        elif fired == self._most.get(site):
            del self.active[site]
