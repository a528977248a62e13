"""Drivers that list too little, too much, or something else."""

from __future__ import annotations

import re
from dataclasses import replace

from ...drivers.contracts import GroupSnapshot, Window
from ..array_target import ArrayTarget
from ..canary import BrokenDriver, Canary
from .array_wrapping import canary, now_s


class _UnitsOnce(BrokenDriver):
    """In one listing a unit is named once: the next snapshot that has it lacks it."""

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        told: set[str] = set()
        found = []
        for one in await self.inner.list_snapshots(tag_prefix):
            left = tuple(unit for unit in one.unit_ids if unit not in told)
            told.update(one.unit_ids)
            found.append(replace(one, unit_ids=left or one.unit_ids))
        return found


class _CutWhenListed(BrokenDriver):
    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        at_s = now_s()
        fence = Window(at_s, at_s)
        listed: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return [replace(one, cut_s=at_s, fence=fence) for one in listed]


class _Searching(BrokenDriver):
    """Looks for tags in another way than by their beginning."""

    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        every: list[GroupSnapshot] = await self.inner.list_snapshots("")
        return [one for one in every if self.fits(one.ref.tag, tag_prefix)]

    def fits(self, tag: str, asked: str) -> bool:
        raise NotImplementedError


class _Anywhere(_Searching):
    def fits(self, tag: str, asked: str) -> bool:
        return asked in tag


class _NoneForNothing(_Searching):
    def fits(self, tag: str, asked: str) -> bool:
        return bool(asked) and tag.startswith(asked)


class _Patterns(_Searching):
    def fits(self, tag: str, asked: str) -> bool:
        return re.match(asked, tag) is not None


class _AnyCase(_Searching):
    def fits(self, tag: str, asked: str) -> bool:
        return tag.lower().startswith(asked.lower())


class _FirstPage(BrokenDriver):
    async def list_snapshots(self, tag_prefix: str) -> list[GroupSnapshot]:
        listed: list[GroupSnapshot] = await self.inner.list_snapshots(tag_prefix)
        return listed[:20]


CANARIES: tuple[Canary[ArrayTarget], ...] = (
    canary(
        "units-once",
        "ARR-LST-01",
        "A listing names each unit in one of its snapshots only.",
        _UnitsOnce,
        also=("ARR-LIF-15",),
        because="a walk over calls has several snapshots of one unit",
    ),
    canary("cut-when-listed", "ARR-LST-02", "It lists snapshots as cut just now.", _CutWhenListed),
    canary("tags-anywhere", "ARR-LST-03", "It looks for a text anywhere in a tag.", _Anywhere),
    canary("none-for-nothing", "ARR-LST-04", "An empty beginning fits no tag.", _NoneForNothing),
    canary("tags-as-patterns", "ARR-LST-05", "It takes a tag for a pattern.", _Patterns),
    canary("tags-in-any-case", "ARR-LST-06", "It takes Job and job for one.", _AnyCase),
    canary("first-page", "ARR-LST-07", "It lists the first page.", _FirstPage),
)
