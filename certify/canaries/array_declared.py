"""Canaries for declarations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...drivers.contracts import ArrayCapabilities, GroupSnapshot, Window
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary, with_driver
from .array_breaking import Declaring


class _Words(Declaring):
    def declared(self, true: ArrayCapabilities) -> ArrayCapabilities:
        said: Any = "no"
        return replace(true, holds_writes=said)


class _PerConnection(Declaring):
    def __init__(self, inner: Any, target: Any = None) -> None:
        super().__init__(inner, target)
        self.number = target.__dict__.setdefault("canary_connections", 0)
        target.canary_connections += 1

    def declared(self, true: ArrayCapabilities) -> ArrayCapabilities:
        return replace(true, snapshots_per_unit=8 + self.number)


class _ReadsInSecret(Declaring):
    def declared(self, true: ArrayCapabilities) -> ArrayCapabilities:
        return replace(true, reads_back=False)


class _ClonesInSecret(Declaring):
    def declared(self, true: ArrayCapabilities) -> ArrayCapabilities:
        return replace(true, clones=False)


class _NoFenceIsZero(BrokenDriver):
    def without(self, made: GroupSnapshot) -> GroupSnapshot:
        if made.cut_s is None:
            return made
        return replace(made, fence=Window(made.cut_s, made.cut_s))

    async def snapshot_group(self, request: Any) -> Any:
        return self.without(await self.inner.snapshot_group(request))

    async def list_snapshots(self, tag_prefix: str) -> Any:
        return [self.without(one) for one in await self.inner.list_snapshots(tag_prefix)]


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    Canary(
        "declares-in-words",
        "ARR-DCL-01",
        "Declares with a word what is true or false.",
        with_driver(_Words),
    ),
    Canary(
        "declares-per-connection",
        "ARR-DCL-02",
        "Declares another limit on every connection.",
        with_driver(_PerConnection),
    ),
    Canary(
        "reads-in-secret",
        "ARR-DCL-03",
        "Declares that it does not read back, and does.",
        with_driver(_ReadsInSecret),
    ),
    Canary(
        "clones-in-secret",
        "ARR-DCL-04",
        "Declares that it makes no clones, and does.",
        with_driver(_ClonesInSecret),
    ),
    Canary(
        "no-fence-is-zero",
        "ARR-DCL-05",
        "Tells a fence of no length.",
        with_driver(_NoFenceIsZero),
    ),
)
