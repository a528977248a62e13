"""Chains as files tell them, and what the driver writes down about snapshots."""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

import pytest

from stillframe.drivers.qemu_files import (
    Marker,
    Record,
    Records,
    backing_of,
    chain_of,
    overlay_of,
    retire,
    sizes,
    tag_of,
)


def overlay(path: Path, backing: str, mtime_s: float = 1000.0) -> Path:
    """A file with the header of a qcow2 image."""
    name = backing.encode()
    path.write_bytes(struct.pack(">4sIQI", b"QFI\xfb", 3, 104, len(name)).ljust(104, b"\0") + name)
    os.utime(path, (mtime_s, mtime_s))
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk without overlays."""
    made = tmp_path / "disk0.raw"
    made.write_bytes(b"")
    return made


def chain(disk: Path) -> list[str]:
    """The chain's names."""
    return [path.name for path in asyncio.run(chain_of(disk))]


def test_a_disk_alone_is_its_chain(disk: Path) -> None:
    assert chain(disk) == ["disk0.raw"]


def test_overlays_are_followed_from_the_disk_to_the_top(disk: Path) -> None:
    overlay(disk.with_name("disk0.b.qcow2"), str(disk.with_name("disk0.a.qcow2")))
    overlay(disk.with_name("disk0.a.qcow2"), "disk0.raw")
    overlay(disk.with_name("other.qcow2"), "other.raw")
    assert chain(disk) == ["disk0.raw", "disk0.a.qcow2", "disk0.b.qcow2"]


def test_what_is_merged_or_half_written_or_goes_in_circles_is_no_top(disk: Path) -> None:
    overlay(disk.with_name("disk0.a.qcow2.merged"), str(disk))
    disk.with_name("disk0.b.qcow2").write_bytes(b"QFI\xfb\0\0")
    overlay(disk.with_name("disk0.c.qcow2"), "")
    whole = overlay(disk.with_name("disk0.d.qcow2"), str(disk)).read_bytes()
    disk.with_name("disk0.d.qcow2").write_bytes(whole[:-3])
    overlay(disk.with_name("disk0.e.qcow2"), "disk0.f.qcow2")
    overlay(disk.with_name("disk0.f.qcow2"), "disk0.e.qcow2")
    assert chain(disk) == ["disk0.raw"]


def test_of_two_tops_the_one_written_to_last_counts(disk: Path) -> None:
    overlay(disk.with_name("disk0.old.qcow2"), str(disk), 2000.0)
    overlay(disk.with_name("disk0.new.qcow2"), str(disk), 3000.0)
    assert chain(disk) == ["disk0.raw", "disk0.new.qcow2"]


def test_a_disk_under_a_link_is_found(disk: Path, tmp_path: Path) -> None:
    overlay(disk.with_name("disk0.a.qcow2"), str(disk))
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    assert chain(link / "disk0.raw") == ["disk0.raw", "disk0.a.qcow2"]


def test_an_overlay_carries_its_tag(disk: Path) -> None:
    assert tag_of(disk, overlay_of(disk, "stillframe-1-2.x")) == "stillframe-1-2.x"
    assert tag_of(disk, disk.with_name("upgrade.qcow2")) == "upgrade.qcow2"
    assert tag_of(disk, disk.with_name("disk0.qcow2")) == "disk0.qcow2"
    assert backing_of(disk) is None
    assert backing_of(disk.with_name("none")) is None


def test_retiring_may_be_repeated(disk: Path) -> None:
    made = overlay(disk.with_name("disk0.a.qcow2"), str(disk))
    aside = retire(made)
    assert retire(made) == aside
    assert aside.exists()
    assert not made.exists()
    assert sizes([made]) == 0
    assert sizes([aside]) > 0


def test_records_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert records.all() == []
    first = Record(tag="a", overlays=(tmp_path / "disk0.a.qcow2",))
    records.put(first)
    records.put(first.model_copy(update={"removing": True}))
    (tmp_path / "snapshots" / "b.json").write_text("{half")
    (tmp_path / "snapshots" / "c.new").write_text("{}")
    assert [one.removing for one in records.all()] == [True]
    assert records.get("b") is None
    records.drop("a")
    records.drop("a")
    assert records.get("a") is None


def test_a_marker_is_left_only_when_its_owner_is_gone(tmp_path: Path) -> None:
    marker, other = Marker(tmp_path), Marker(tmp_path)
    assert not marker.is_left()
    marker.take()
    assert not other.is_left()
    with pytest.raises(BlockingIOError):
        other.take()
    marker.leave()
    assert other.is_left()
    other.take().drop()
    assert not other.is_left()
    assert list(tmp_path.iterdir()) == []
