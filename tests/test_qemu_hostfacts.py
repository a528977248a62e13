"""Mounts, devices under them, and tools that are run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stillframe.drivers.hostfacts import HostFacts, Mount, mount_of, run_tool
from stillframe.drivers.records import DeviceIdentity
from stillframe.errors import StillframeError

TABLE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/none rw
30 22 7:3 / /srv/ds0 rw,noatime shared:1 - ext4 /dev/loop3 rw
31 22 253:7 / /srv/ds\\0401 rw - xfs /dev/mapper/data rw
32 22 0:51 / /srv/nfs rw - nfs4 Filer.example:/vol/vm_1/ rw
33 22 0:52 / /srv rw - tmpfs tmpfs rw
34 22 259:2 / /srv/ds0/deep rw - ext4 /dev/nvme0n1p2 rw
35 22 8:1 / /srv/part rw - ext4 /dev/sda1 rw
36 22 252:16 / /srv/virtio rw - ext4 /dev/vdb rw
a line that says nothing
"""


@pytest.fixture
def facts(tmp_path: Path) -> HostFacts:
    """A host with every kind of device."""
    table, sys_root = tmp_path / "mountinfo", tmp_path / "sys"
    table.write_text(TABLE)
    block = sys_root / "dev" / "block"
    block.mkdir(parents=True)
    devices = sys_root / "devices"

    def device(number: str, where: str, **files: str) -> Path:
        folder = devices / where
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            file = folder / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_text(content + "\n")
        (block / number).symlink_to(folder)
        return folder

    device("7:3", "loop3", loop__backing_file=f"{tmp_path}/unit-0 (deleted)")
    first = device("8:0", "sda", device__wwid="naa.6000C29AAbb")
    second = device("8:16", "sdb", device__wwid="t10.ATA     QEMU HARDDISK")
    device("8:1", "sda/sda1", partition="1")
    mapped = device("253:7", "dm-7")
    (mapped / "slaves").mkdir()
    (mapped / "slaves" / "sda").symlink_to(first)
    (mapped / "slaves" / "sdb").symlink_to(second)
    device("259:0", "nvme0n1", wwid="eui.0025385B71B0F9C2")
    device("259:2", "nvme0n1/nvme0n1p2", partition="2")
    device("252:16", "vdb", serial="data-7")
    return HostFacts(table, sys_root)


def under(facts: HostFacts, path: str) -> list[str]:
    """The devices under a file."""
    mount = mount_of(path, facts.mounts())
    return [str(device) for device in facts.devices_under(mount)]


def test_what_lies_under_a_file_is_found(facts: HostFacts, tmp_path: Path) -> None:
    assert under(facts, "/srv/ds0/vm/disk.raw") == [f"file.{tmp_path}/unit-0"]
    assert under(facts, "/srv/ds 1/disk.raw") == ["naa.6000c29aabb", "t10.ATA_____QEMU_HARDDISK"]
    assert under(facts, "/srv/nfs/x") == ["filer.example:/vol/vm_1"]
    assert under(facts, "/srv/ds0/deep/x") == ["eui.0025385b71b0f9c2"]
    assert under(facts, "/srv/part/x") == ["naa.6000c29aabb"]
    assert under(facts, "/srv/virtio/x") == ["serial.data-7"]
    assert under(facts, "/srv/elsewhere") == ["mpx.tmpfs-0:52"]
    assert under(facts, "/srv/ds00/x") == ["mpx.tmpfs-0:52"]
    assert under(facts, "/x") == ["mpx.ext4-254:0"]


def test_of_mounts_on_one_point_the_last_counts(facts: HostFacts) -> None:
    over = Mount("/srv/ds0", "0:99", "tmpfs", "none")
    assert mount_of("/srv/ds0/x", [*facts.mounts(), over]) is over
    with pytest.raises(StillframeError, match="no mounted"):
        mount_of("/x", [over])


def test_this_host_has_a_mount_for_everything() -> None:
    facts = HostFacts()
    assert facts.devices_under(mount_of("/", facts.mounts()))
    assert DeviceIdentity.parse(str(facts.devices_under(mount_of("/", facts.mounts()))[0]))


def test_a_tool_is_run_to_its_end() -> None:
    assert asyncio.run(run_tool("echo", "done")) == "done"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["sh", "-c", "echo first; echo it broke >&2; exit 3"], "sh -c failed: first; it broke"),
        (["false"], "false failed: code 1"),
        (["/nonexistent/tool"], "cannot be run"),
        (["sleep", "600"], "did not end in 0.1 s"),
    ],
)
def test_a_tool_that_fails_is_quoted(words: list[str], problem: str) -> None:
    with pytest.raises(StillframeError, match=problem):
        asyncio.run(run_tool(*words, timeout_s=0.1 if words[0] == "sleep" else 60.0))


def test_who_is_cancelled_takes_the_tool_with_him(tmp_path: Path) -> None:
    said = tmp_path / "pid"

    async def main() -> None:
        running = asyncio.create_task(run_tool("sh", "-c", f"echo $$ > {said}; exec sleep 600"))
        for _ in range(2000):
            if said.exists() and said.read_text().strip():
                break
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert not Path(f"/proc/{said.read_text().strip()}").exists()
