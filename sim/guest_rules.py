"""Which guest writes how: the ``guests`` section of a world's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from ..orchestrator.spec import Section
from ..quantity import Bytes, BytesPerSecond, Seconds
from .profilefile import DEFAULT_PROFILE, load_profile
from .ringprofile import RingProfile
from .writeprofile import ParametricProfile, WriteProfile


class ParametricGuest(Section):
    """A steady writer.

    ``order: random`` is :class:`.writeprofile.ParametricProfile`; ``order: sequential`` is
    :class:`.ringprofile.RingProfile`, for which ``locality`` has no meaning.
    """

    rate: BytesPerSecond
    working_set: Annotated[Bytes, Field(gt=0)]
    locality: Annotated[float, Field(ge=0.5, lt=1)] = 0.5
    write_size: Annotated[Bytes, Field(gt=0)] = 4096
    period: Annotated[Seconds, Field(gt=0)] = 3600.0
    order: Literal["random", "sequential"] = "random"


class GuestRule(Section):
    """How the VMs whose name matches write.

    Attributes
    ----------
    match:
        A shell glob on the VM's name, upper and lower case alike.
    profile:
        The name of a shipped write profile, a path ending in ``.npz``, or parameters.
    scale_median, scale_sigma:
        Each VM's writes are the profile's times a lognormal factor. The defaults are inference:
        most VMs write less than the traced one, some a multiple of it.
    dirty_age, dirty_limit:
        What a guest has to flush when it freezes: the distinct bytes it wrote in this time, up to
        the limit. 30 s is Linux's vm.dirty_expire_centisecs; the limit is inference.
    """

    match: str = "*"
    profile: str | ParametricGuest = DEFAULT_PROFILE
    scale_median: Annotated[float, Field(ge=0)] = 0.5
    scale_sigma: Annotated[float, Field(ge=0, le=3)] = 0.8
    dirty_age: Seconds = 30.0
    dirty_limit: Bytes = 1024**3


class GuestRules:
    """Rules in order, with their profiles loaded; the first that matches wins.

    Raises
    ------
    InputError
        A profile cannot be loaded.
    """

    __slots__ = ("_rules",)

    def __init__(self, rules: Sequence[GuestRule]) -> None:
        self._rules: list[tuple[str, GuestRule, WriteProfile]] = []
        for rule in (*rules, GuestRule()):
            self._rules.append((rule.match.lower(), rule, _profile(rule)))
            if rule.match == "*":
                break

    def of(self, vm_name: str) -> tuple[GuestRule, WriteProfile]:
        """Rule and profile of a VM; VMs that no rule matches get the defaults."""
        name = vm_name.lower()
        for pattern, rule, profile in self._rules:
            if pattern == "*" or fnmatchcase(name, pattern):
                return rule, profile
        raise AssertionError("the last rule matches everything")


def _profile(rule: GuestRule) -> WriteProfile:
    if isinstance(rule.profile, str):
        return load_profile(rule.profile)
    parameters = rule.profile
    if parameters.order == "sequential":
        return RingProfile(
            rate_bytes_per_s=parameters.rate,
            ring_bytes=float(parameters.working_set),
            write_bytes=parameters.write_size,
            period_s=parameters.period,
            source="set in the configuration",
        )
    return ParametricProfile(
        rate_bytes_per_s=parameters.rate,
        working_set_bytes=float(parameters.working_set),
        locality=parameters.locality,
        write_bytes=parameters.write_size,
        period_s=parameters.period,
        source="set in the configuration",
    )
