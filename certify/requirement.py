"""What a driver owes: numbered requirements, each one sentence and one check.

A check is a plain asynchronous function of a bench; it returns when the requirement is met. It
raises :class:`Violation` when the driver breaks it, :class:`NotTested` when this target cannot show
it, and :class:`Blocked` when a step failed that the requirement is not about.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from ..errors import StillframeError

B = TypeVar("B")
Check = Callable[[B], Awaitable[None]]


class Level(StrEnum):
    """What a requirement is part of; a vendor may claim some levels and not others."""

    CORE = "core"
    GROUP = "group"
    DATA = "data"
    FAULT = "fault"
    PERFORMANCE = "performance"


class Violation(StillframeError):  # noqa: N818  # what it is called in every report
    """The driver breaks the requirement; ``evidence`` is what was seen, ready for JSON."""

    def __init__(self, what: str, **evidence: Any) -> None:
        super().__init__(what)
        self.evidence = evidence


class NotTested(StillframeError):  # noqa: N818
    """This target cannot show whether the requirement is met; the sentence says why."""


class Blocked(StillframeError):  # noqa: N818
    """A step that the requirement is not about failed, so that nothing can be said."""


@dataclass(frozen=True, slots=True)
class Requirement(Generic[B]):
    """One thing that a driver owes.

    Attributes
    ----------
    id:
        ``ARR-MAP-01``: never given to anything else.
    sentence:
        What the driver shall do, in one sentence.
    topic, level:
        Where it belongs.
    check:
        Shows it.
    capability:
        The attribute of the driver's capabilities that it depends on; a driver that declares it
        absent is not held to it.
    hooks:
        What the target must be able to do, by the names of its methods.
    units:
        How many scratch units it takes (arrays).
    roles:
        Which scratch VMs it takes, by role (hypervisors).
    """

    id: str
    sentence: str
    topic: str
    level: Level
    check: Check[B]
    capability: str | None = None
    hooks: tuple[str, ...] = ()
    units: int = 1
    roles: tuple[str, ...] = ()


@dataclass(slots=True)
class Topic(Generic[B]):
    """Requirements of one topic, in order; ``prefix`` begins their identifiers."""

    name: str
    prefix: str
    requirements: list[Requirement[B]] = field(default_factory=list)

    def shall(
        self,
        number: int,
        level: Level,
        sentence: str,
        *,
        capability: str | None = None,
        hooks: Iterable[str] = (),
        units: int = 1,
        roles: Iterable[str] = (),
    ) -> Callable[[Check[B]], Check[B]]:
        """Decorates the check of a requirement.

        Raises
        ------
        ValueError
            The topic has this number already.
        """

        def keep(check: Check[B]) -> Check[B]:
            made: Requirement[B] = Requirement(
                f"{self.prefix}-{number:02}",
                sentence,
                self.name,
                level,
                check,
                capability,
                tuple(hooks),
                units,
                tuple(roles),
            )
            if any(one.id == made.id for one in self.requirements):
                raise ValueError(f"{made.id} is the identifier of two requirements")
            self.requirements.append(made)
            return check

        return keep
