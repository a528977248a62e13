"""A canary: a driver that is broken in one way, and the requirement that has to notice.

The reference target is modelled, so that all canaries run in virtual time. A canary changes the
driver (every connection is wrapped), or the target where the defect is in the system behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Canary(Generic[T]):
    """One broken driver.

    Attributes
    ----------
    id:
        A few words with dashes: ``torn-group``.
    breaks:
        The requirement that has to fail.
    sentence:
        What is wrong with it.
    make:
        Makes the broken target from the class of the reference target; see :func:`with_driver`.
    also:
        Other requirements that cannot help failing or being blocked, since the defect breaks them
        too; every one has its reason in ``because``.
    options:
        Of the suite: settings of the target, limits that the vendor states.
    """

    id: str
    breaks: str
    sentence: str
    make: Callable[[type[T]], type[T]]
    also: tuple[str, ...] = ()
    because: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    limits: tuple[tuple[str, float], ...] = ()


def with_driver(
    wrap: Callable[[Any, Any], Any],
) -> Callable[[type[Any]], type[Any]]:
    """A target whose every connection gives ``wrap(driver, target)`` instead of the driver."""

    def make(reference: type[Any]) -> type[Any]:
        class Broken(reference):  # type: ignore[misc]
            def connect(self) -> AbstractAsyncContextManager[Any]:
                return _Wrapped(super().connect(), wrap, self)

        return Broken

    return make


class _Wrapped:
    def __init__(
        self,
        inner: AbstractAsyncContextManager[Any],
        wrap: Callable[[Any, Any], Any],
        target: Any,
    ) -> None:
        self._inner = inner
        self._wrap = wrap
        self._target = target

    async def __aenter__(self) -> Any:
        return self._wrap(await self._inner.__aenter__(), self._target)

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._inner.__aexit__(*error)


class BrokenDriver:
    """A driver that does what ``inner`` does, for canaries to override a method of."""

    def __init__(self, inner: Any, target: Any = None) -> None:
        self.inner = inner
        self.target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
