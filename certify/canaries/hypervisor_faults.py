"""Drivers that know too much of what they did not hear, and connections that do not come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...drivers.contracts import Window
from ...drivers.errors import (
    DidNotHappenError,
    DriverError,
    NeverWillError,
    NotFoundError,
    UnknownOutcomeError,
)
from ..canary import BrokenDriver, Canary, with_driver
from ..hypervisor_target import HypervisorTarget
from .hypervisor_answers import Make
from .hypervisor_defects import (
    CONNECTION_BROKE,
    NO_ANSWER,
    SERVER_WENT,
    claiming,
    of_plain,
    saying,
)


class _Renaming(BrokenDriver):
    """Lists a snapshot whose answer was lost under another name."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._lost: list[str] = []

    async def create_snapshot(self, request: Any) -> Any:
        try:
            return await self.inner.create_snapshot(request)
        except UnknownOutcomeError as error:
            if CONNECTION_BROKE in error.reason:
                self._lost.append(request.tag)
            raise

    async def list_snapshots(self, vm_ids: Any = None) -> Any:
        states = await self.inner.list_snapshots(vm_ids)
        return [
            state._replace(
                snapshots=tuple(
                    ref._replace(tag=f"{ref.tag}-1") if ref.tag in self._lost else ref
                    for ref in state.snapshots
                )
            )
            for state in states
        ]


def _dying(of: Callable[[Any], int]) -> Make:
    """Connections that fail for ever when what ``of`` counts of the target has changed."""

    class Dying(BrokenDriver):
        def __init__(self, driver: Any, target: Any) -> None:
            super().__init__(driver, target)
            self._count = of(target)

        def _check(self, operation: str) -> None:
            if of(self.target) != self._count:
                raise DidNotHappenError(operation, "session", "not authenticated")

        async def inventory(self) -> Any:
            self._check("inventory")
            return await self.inner.inventory()

        async def list_snapshots(self, vm_ids: Any = None) -> Any:
            self._check("list_snapshots")
            return await self.inner.list_snapshots(vm_ids)

        async def create_snapshot(self, request: Any) -> Any:
            self._check("create_snapshot")
            return await self.inner.create_snapshot(request)

        async def remove_snapshot(self, ref: Any) -> Any:
            self._check("remove_snapshot")
            return await self.inner.remove_snapshot(ref)

        async def consolidate(self, vm_id: str) -> None:
            self._check("consolidate")
            await self.inner.consolidate(vm_id)

    return _counting(Dying)


def _counting(wrap: Callable[[Any, Any], Any]) -> Make:
    """A target that counts its restarts and the times that its sessions were voided."""

    def make(reference: type[Any]) -> type[Any]:
        class Counting(with_driver(wrap)(reference)):  # type: ignore[misc]
            restarts = expiries = 0

            async def restart(self) -> None:
                self.restarts += 1
                await super().restart()

            async def expire_sessions(self) -> None:
                self.expiries += 1
                await super().expire_sessions()

        return Counting

    return make


class _LosesHeart(BrokenDriver):
    """Takes a create for failed whose session expired."""

    async def create_snapshot(self, request: Any) -> Any:
        before = self.target.expiries
        made = await self.inner.create_snapshot(request)
        if self.target.expiries != before:
            reason = "the session has expired"
            raise DidNotHappenError("create_snapshot", request.vm_id, reason)
        return made


async def _empty(driver: Any, target: Any, error: DriverError, *arguments: Any) -> list[Any]:
    del driver, target, error, arguments
    return []


class _ServerTimes(BrokenDriver):
    """Tells times on the server's clock."""

    async def create_snapshot(self, request: Any) -> Any:
        made, skew_s = await self.inner.create_snapshot(request), self.target.skew_s

        def shifted(window: Window | None) -> Window | None:
            if window is None:
                return None
            return window._replace(start_s=window.start_s + skew_s, end_s=window.end_s + skew_s)

        return made._replace(
            created_s=made.created_s + skew_s,
            quiesce=shifted(made.quiesce),
            stun=shifted(made.stun),
        )


class _RefusesTwice(BrokenDriver):
    """Refuses a removal that it has been asked for before."""

    def __init__(self, driver: Any, target: Any) -> None:
        super().__init__(driver, target)
        self._lost: list[Any] = []

    async def remove_snapshot(self, ref: Any) -> Any:
        try:
            return await self.inner.remove_snapshot(ref)
        except UnknownOutcomeError as error:
            if CONNECTION_BROKE in error.reason:
                self._lost.append(ref)
            raise
        except NotFoundError as error:
            if ref not in self._lost:
                raise
            raise NeverWillError("remove_snapshot", ref.vm_id, error.reason) from error


CANARIES: tuple[Canary[HypervisorTarget], ...] = (
    Canary(
        "denies-a-create",
        "HYP-FLT-01",
        "claims that a create did not happen when its answer is lost",
        claiming(
            "create_snapshot", of_plain(UnknownOutcomeError, CONNECTION_BROKE), DidNotHappenError
        ),
    ),
    Canary(
        "renames-what-was-lost",
        "HYP-FLT-02",
        "lists a snapshot whose answer was lost under another name",
        with_driver(_Renaming),
    ),
    Canary(
        "denies-a-removal",
        "HYP-FLT-03",
        "claims that a removal did not happen when its answer is lost",
        claiming(
            "remove_snapshot", of_plain(UnknownOutcomeError, CONNECTION_BROKE), DidNotHappenError
        ),
    ),
    Canary(
        "denies-a-create-after-a-restart",
        "HYP-FLT-04",
        "claims that a create did not happen when the system is restarted in the middle of it",
        claiming("create_snapshot", of_plain(UnknownOutcomeError, SERVER_WENT), DidNotHappenError),
    ),
    Canary(
        "denies-a-removal-after-a-restart",
        "HYP-FLT-05",
        "claims that a removal did not happen when the system is restarted in the middle of it",
        claiming("remove_snapshot", of_plain(UnknownOutcomeError, SERVER_WENT), DidNotHappenError),
    ),
    Canary(
        "dies-with-the-server",
        "HYP-FLT-06",
        "does not connect again after a restart",
        _dying(lambda target: int(target.restarts)),
    ),
    Canary(
        "does-not-log-in-again",
        "HYP-FLT-07",
        "does not log in again when its session has expired",
        _dying(lambda target: int(target.expiries)),
    ),
    Canary(
        "denies-a-create-after-an-expiry",
        "HYP-FLT-08",
        "claims that a create did not happen when the session expires in the middle of it",
        _counting(_LosesHeart),
    ),
    Canary(
        "denies-what-it-sent",
        "HYP-FLT-09",
        "claims that a create did not happen when the system does not answer to it",
        claiming("create_snapshot", of_plain(UnknownOutcomeError, NO_ANSWER), DidNotHappenError),
    ),
    Canary(
        "lists-nothing-for-want-of-an-answer",
        "HYP-FLT-10",
        "lists nothing when the system does not answer",
        saying("list_snapshots", lambda error: NO_ANSWER in error.reason, _empty),
    ),
    Canary(
        "tells-the-servers-time",
        "HYP-FLT-11",
        "reports times on the system's clock",
        with_driver(_ServerTimes),
    ),
    Canary(
        "refuses-a-repeated-removal",
        "HYP-FLT-12",
        "refuses a removal that is repeated after its answer was lost",
        with_driver(_RefusesTwice),
    ),
)
