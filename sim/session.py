"""The client's session with a modelled vCenter: it can expire, and queries can stay unanswered."""

from __future__ import annotations

import asyncio
from typing import Any

from ..drivers.errors import DidNotHappenError, UnknownOutcomeError
from ..drivers.records import VCenterId
from .bridge import reject
from .env import SimEnv
from .faults import Site
from .faultsites import FaultSites

_Awaited = tuple[str, str, asyncio.Future[Any]]
"""Operation, subject, and the future of whoever waits for its answer."""


class Session:
    """One client's session with one vCenter; only made when faults can happen.

    Parameters
    ----------
    vcenter_id:
        The other side.
    sites:
        Where faults happen.
    env:
        The world's clock.
    """

    __slots__ = ("_awaited", "_env", "_renewed_s", "_sites", "_vcenter_id")

    def __init__(self, vcenter_id: VCenterId, sites: FaultSites, env: SimEnv) -> None:
        self._vcenter_id = vcenter_id
        self._sites = sites
        self._env = env
        self._renewed_s = 0.0
        self._awaited: list[_Awaited] = []

    def check(self, operation: str, subject: str) -> None:
        """Let a call through to the vCenter.

        Raises
        ------
        DidNotHappenError
            There is no session now: the call did not reach it.
        """
        now_s, sites = self._env.now, self._sites
        if now_s >= self._renewed_s:
            if not sites.strikes(Site.SESSION_EXPIRED, self._vcenter_id):
                return
            self._renewed_s = now_s + sites.faults.session
            self._hang_up()
        if now_s < self._renewed_s:
            raise DidNotHappenError(operation, subject, "the session has expired")

    def await_answer(self, operation: str, subject: str, future: asyncio.Future[Any]) -> None:
        """Note a call that has reached the vCenter and waits for its answer."""
        if Site.SESSION_EXPIRED in self._sites.active:
            self._awaited.append((operation, subject, future))

    def loses_query(self, operation: str, future: asyncio.Future[Any]) -> bool:
        """Whether a query stays without an answer; it then fails, now or after a long silence."""
        sites, site = self._sites, Site.QUERY_LOST
        if not sites.strikes(site, self._vcenter_id, operation):
            return False
        hangs = sites.share(site, self._vcenter_id, operation) < 0.5
        error = UnknownOutcomeError(operation, self._vcenter_id, "no answer came")
        self._env.after(sites.faults.silence if hangs else 0.0, reject, future, error)
        return True

    def _hang_up(self) -> None:
        """Nobody hears of what is under way any more, though it goes on."""
        for operation, subject, future in self._awaited:
            reason = "the session expired before the answer came"
            reject(future, UnknownOutcomeError(operation, subject, reason))
        self._awaited.clear()
