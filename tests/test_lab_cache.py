"""What takes long to make is made once, whole or not at all; the initramfs from the same files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from stillframe.errors import StillframeError
from stillframe.lab.cache import Cache, default_cache, key_of
from stillframe.lab.initramfs import initramfs


def test_two_that_want_the_same_make_it_once(tmp_path: Path) -> None:
    made: list[Path] = []

    async def make(folder: Path) -> None:
        made.append(folder)
        await asyncio.sleep(0)
        (folder / "it").write_text("whole")

    async def both() -> list[Path]:
        return await asyncio.gather(*(Cache(tmp_path).entry("one", make) for _ in range(2)))

    first, second = asyncio.run(both())
    assert first == second == tmp_path / "one"
    assert (first / "it").read_text() == "whole"
    assert len(made) == 1


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    async def make(folder: Path) -> None:
        (folder / "half").touch()
        raise StillframeError("no network")

    with pytest.raises(StillframeError, match="no network"):
        asyncio.run(Cache(tmp_path).entry("one", make))
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_old_entries_and_halves_go_when_a_new_one_is_made(tmp_path: Path) -> None:
    async def make(folder: Path) -> None:
        (folder / "it").touch()

    cache = Cache(tmp_path)
    for name in ("unused", "used"):
        asyncio.run(cache.entry(name, make))
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "making-half").mkdir()
    asyncio.run(cache.entry("used", make))
    asyncio.run(cache.entry("new", make))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "new", "used"]


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def make(folder: Path) -> None:
        raise AssertionError

    with pytest.raises(StillframeError, match="cannot be written"):
        asyncio.run(Cache(tmp_path / "file" / "below").entry("one", make))


def test_the_cache_is_where_caches_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert Cache().folder == Path("/somewhere/stillframe/lab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache"


def test_a_key_tells_where_a_part_ends() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")


def test_the_same_files_make_the_same_initramfs() -> None:
    assert initramfs({"a/b": b"1", "init": b"2"}) == initramfs({"init": b"2", "a/b": b"1"})
