"""What every target has: how to reach the system, and what the kit may do to it.

A vendor writes one class: a subclass of :class:`.array_target.ArrayTarget` or
:class:`.hypervisor_target.HypervisorTarget`. A method whose docstring begins with *Hook* is
optional: what a target does not override is not tested, and listed in the certificate by name.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

D = TypeVar("D")


class Target(Generic[D]):
    """A system that may be used up for a test, and its driver.

    Parameters
    ----------
    settings:
        The section ``settings`` of the vendor's configuration, as it stands there.
    folder:
        An empty folder for whatever the target needs; deleted afterwards.
    seed:
        For targets that are modelled; others ignore it.

    Attributes
    ----------
    name:
        What a certificate calls it; the configuration may say otherwise.
    settings_model:
        A pydantic model that the settings have to follow; None when the class checks them itself
        (raising InputError). A checked model is what ``settings`` then is.
    modelled:
        The system exists only while the suite runs and is the same for the same seed, so that the
        certificate is too; tags need not differ from run to run.
    """

    name: str = ""
    modelled: ClassVar[bool] = False
    settings_model: ClassVar[type[Any] | None] = None

    def __init__(self, settings: Any, folder: Path, seed: int) -> None:
        self.settings = settings
        self.folder = folder
        self.seed = seed

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that everything runs on; a modelled target gives a simulated one."""
        return asyncio.new_event_loop()

    async def __aenter__(self) -> Self:
        """Bring the system up, or find it."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take down what :meth:`__aenter__` brought up."""

    def connect(self) -> AbstractAsyncContextManager[D]:
        """A new connection: the driver, as a job would open it. Several may be open at once."""
        raise NotImplementedError

    async def environment(self) -> Mapping[str, str]:
        """What stands behind the driver, for the certificate: products, versions, firmware."""
        return {}

    def offers(self, hook: str) -> bool:
        """Whether it can do this beside the driver: by default, whether the class overrides it.

        Override it when that depends on the settings.
        """
        mine = getattr(type(self), hook)
        return all(mine is not getattr(base, hook, None) for base in _BASES)

    # -- hooks: faults -----------------------------------------------------------------------

    async def restart(self) -> None:
        """Hook: end the system's serving side as a crash would; return when it serves again."""
        raise NotImplementedError

    async def expire_sessions(self) -> None:
        """Hook: every session that the system holds open is void from now on."""
        raise NotImplementedError

    def skewed_clock(self, skew_s: float) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile the system's clock is so far ahead (or behind, if negative)."""
        raise NotImplementedError

    def lost_answers(self, operation: str) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile the system does what this method of the driver asks, and nobody hears.

        The answer is lost for good: the connection breaks, or the driver's own time limit ends the
        wait.
        """
        raise NotImplementedError

    def slow_calls(self, operation: str, delay_s: float) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile the system takes so much longer before it does what is asked."""
        raise NotImplementedError

    def unreachable(self) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile the system neither answers nor does anything."""
        raise NotImplementedError


_BASES: list[type[Any]] = [Target]
"""The classes whose hooks do nothing; the modules of the kinds of targets add theirs."""


def is_base(kind: type[Any]) -> type[Any]:
    """Decorates a class that only declares hooks."""
    _BASES.append(kind)
    return kind


def hooks_of(base: type[Target[Any]]) -> list[str]:
    """The names of a target's optional methods: those whose docstring begins with *Hook*."""
    return [
        name
        for name, method in inspect.getmembers(base, inspect.isfunction)
        if (method.__doc__ or "").startswith("Hook:")
    ]
