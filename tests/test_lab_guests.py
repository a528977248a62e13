"""Guests of a live lab: what they acknowledge is there after every kind of end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support_lab import needs_lab, short_folder

from stillframe.drivers.qemu_files import chain_of
from stillframe.errors import StillframeError
from stillframe.lab.guests import Ack, read_acks
from stillframe.lab.host import loops, mounts, run
from stillframe.lab.lab import Lab, bring_up, take_down
from stillframe.lab.pattern import MAGIC, PATTERN_FILE
from stillframe.lab.spec import LabSpec, Writes
from stillframe.scenarios.live import load_live

pytestmark = needs_lab("root", "qemu", "fuse", "loop")
SPEC = LabSpec(
    array="qsd",
    guests=1,
    wide=1,
    datastores=3,
    units=2,
    independent=("vm-0/disk1",),
    writer=Writes(file_bytes=1 << 20),
)
VM = "vm-0"
_DEADLINE_S = 60.0
_LOOK_S = 0.01


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One guest on two of three datastores, two of which share a unit; it writes to both disks."""
    with short_folder("guests") as folder:
        made = asyncio.run(bring_up(SPEC, folder / "lab"))
        try:
            yield made
        finally:
            asyncio.run(take_down(made.folder))


async def grown(lab: Lab, by: int = 5) -> list[Ack]:
    """Its acknowledgements, once there are some more of them."""
    wanted = len(lab.acks(VM)) + by
    async with asyncio.timeout(_DEADLINE_S):
        while True:
            acks = lab.acks(VM)
            if len(acks) >= wanted:
                return acks
            await asyncio.sleep(_LOOK_S)


async def writing(lab: Lab) -> None:
    """Have it run and write, whatever the test before left."""
    if not lab.is_running(VM):
        await lab.start_guest(VM)
    code, _ = await lab.run_in_guest(VM, "pidof writer")
    if code:
        await lab.start_writer(VM)


def in_lab(lab: Lab, test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine on a lab whose guest writes."""

    async def main() -> None:
        await writing(lab)
        await test()

    asyncio.run(main())


def test_its_datastores_lie_on_its_units_in_slices(lab: Lab) -> None:
    backing = {str(loop.device): loop.backing for loop in loops()}
    under = {one.at: backing[one.source] for one in mounts() if one.at in lab.datastores}
    assert [under[at] for at in lab.datastores] == [lab.units[0], lab.units[1], lab.units[0]]


def test_its_configuration_can_be_loaded(lab: Lab) -> None:
    config = load_live(lab.config_file)
    assert {entry.driver for _, _, entry in config.systems()} == {"qemu", "qsd"}
    (rule,) = config.world.guests
    assert rule.match == "*"


def test_what_the_driver_reads_of_a_guest(lab: Lab) -> None:
    guest = lab.guests[VM]
    told: dict[str, Any] = yaml.safe_load((guest.folder / "guest.yaml").read_text())
    assert told["name"] == VM
    assert [Path(disk["file"]) for disk in told["disks"]] == [disk.file for disk in guest.disks]
    assert [disk["independent"] for disk in told["disks"]] == [False, True]
    assert all(Path(disk["file"]).stat().st_size == disk["size"] for disk in told["disks"])


def test_acknowledgements_come_in_order_with_their_times(lab: Lab) -> None:
    async def test() -> None:
        begun_s = asyncio.get_running_loop().time()
        before = lab.acks(VM)
        acks = await grown(lab)
        assert acks[: len(before)] == before
        new = acks[len(before) :]
        assert [ack.seq for ack in new] == list(range(new[0].seq, new[-1].seq + 1))
        times = [ack.t_s for ack in acks]
        assert times == sorted(times)
        assert begun_s <= times[-1] <= asyncio.get_running_loop().time()
        assert all(ack.latency_s > 0 for ack in acks)

    in_lab(lab, test)


def test_after_a_kill_all_that_was_acknowledged_is_there(lab: Lab) -> None:
    async def test() -> None:
        await grown(lab)
        await lab.kill_guest(VM)
        assert not lab.is_running(VM)
        last = lab.acks(VM)[-1].seq
        await lab.start_guest(VM)
        for found in await lab.check_in_guest(VM):
            assert (found.bad, found.missing) == (0, 0)
            assert found.max_seq >= last
        await lab.start_writer(VM)
        assert lab.acks(VM)[-1].seq >= last

    in_lab(lab, test)


def test_after_the_death_of_the_array_too(lab: Lab) -> None:
    async def test() -> None:
        await grown(lab)
        before = {one.source for one in mounts() if one.at in lab.datastores}
        await lab.kill_array()
        last = lab.acks(VM)[-1].seq
        await lab.restart_array()
        assert not lab.is_running(VM)
        # What lies in a file system that was taken away has no folders in its path any more.
        dead = {str(loop.device) for loop in loops() if len(loop.backing.parts) <= 2}
        assert not dead & before, "a loop device is left on a dead unit"
        await lab.start_guest(VM)
        for found in await lab.check_in_guest(VM):
            assert (found.bad, found.missing) == (0, 0)
            assert found.max_seq >= last
        await lab.start_writer(VM)

    in_lab(lab, test)


def test_stopped_in_good_order_its_disks_are_clean(lab: Lab) -> None:
    async def test() -> None:
        await lab.stop_guest(VM)
        assert not lab.is_running(VM)
        for disk in lab.guests[VM].disks:
            assert "needs_recovery" not in await run("dumpe2fs", "-h", disk.file)
            await run("e2fsck", "-fn", disk.file)
        await lab.stop_guest(VM)

    in_lab(lab, test)


def test_it_can_boot_instead_of_being_restored(lab: Lab) -> None:
    async def test() -> None:
        await lab.stop_guest(VM)
        last = lab.acks(VM)[-1].seq
        await lab.start_guest(VM, cold=True)
        assert [found.max_seq for found in await lab.check_in_guest(VM)] == [last, last]

    in_lab(lab, test)


def test_a_damaged_record_is_found_in_the_guest(lab: Lab) -> None:
    async def test() -> None:
        await grown(lab)
        await lab.stop_writer(VM)
        file = f"/data1/{PATTERN_FILE}"
        await lab.run_in_guest(VM, f"cp {file} /tmp/whole")
        damage = f"printf X | dd of={file} bs=1 seek=100 conv=notrunc"
        code, said = await lab.run_in_guest(VM, damage)
        assert code == 0, said
        whole, damaged = await lab.check_in_guest(VM)
        assert (whole.bad, whole.missing) == (0, 0)
        assert damaged.bad == 1
        await lab.run_in_guest(VM, f"cp /tmp/whole {file}")

    in_lab(lab, test)


def test_the_check_reads_the_disk_and_not_the_guest_s_memory(lab: Lab) -> None:
    async def test() -> None:
        await grown(lab)
        await lab.stop_writer(VM)
        (whole, _) = await lab.check_in_guest(VM)
        disk = lab.guests[VM].disks[0].file
        at = disk.read_bytes().index(_header(whole.max_seq - 1))
        _flip(disk, at + 100)
        (damaged, _) = await lab.check_in_guest(VM)
        _flip(disk, at + 100)
        assert (whole.bad, damaged.bad) == (0, 1)

    in_lab(lab, test)


def _header(seq: int) -> bytes:
    return MAGIC.to_bytes(8, "little") + seq.to_bytes(8, "little")


def _flip(file: Path, at: int) -> None:
    """Invert a byte, on the disk."""
    with file.open("r+b", buffering=0) as raw:
        raw.seek(at)
        (byte,) = raw.read(1)
        raw.seek(at)
        raw.write(bytes([byte ^ 0xFF]))
        os.fsync(raw.fileno())


def test_it_starts_on_the_newest_overlay(lab: Lab) -> None:
    async def test() -> None:
        await lab.stop_guest(VM)
        disk = lab.guests[VM].disks[0]
        before = disk.file.read_bytes()
        overlay = disk.file.with_name("disk0.mine.qcow2")
        backing = ("-F", "raw", "-b", disk.file)
        await run("qemu-img", "create", "-q", "-f", "qcow2", *backing, overlay)
        assert (await chain_of(disk.file))[-1] == overlay
        await lab.start_guest(VM)
        await lab.start_writer(VM)
        last = (await grown(lab))[-1].seq
        await lab.stop_guest(VM)
        assert disk.file.read_bytes() == before
        await run("qemu-img", "commit", "-q", overlay)
        overlay.unlink()
        await lab.start_guest(VM)
        found, _ = await lab.check_in_guest(VM)
        assert (found.bad, found.missing) == (0, 0)
        assert found.max_seq >= last

    in_lab(lab, test)


def test_the_writer_takes_other_loads(lab: Lab) -> None:
    async def test() -> None:
        await lab.stop_writer(VM)
        await lab.stop_writer(VM)
        await lab.start_writer(VM, Writes(rate_per_s=500, file_bytes=1 << 20))
        await grown(lab, by=50)
        await lab.stop_writer(VM)

    in_lab(lab, test)


def test_what_makes_no_sense_is_refused(lab: Lab) -> None:
    async def test() -> None:
        with pytest.raises(StillframeError, match="writer of vm-0 runs already"):
            await lab.start_writer(VM)
        with pytest.raises(StillframeError, match="the writer of vm-0 runs"):
            await lab.check_in_guest(VM)
        with pytest.raises(StillframeError, match="vm-0 runs already"):
            await lab.start_guest(VM)
        with pytest.raises(StillframeError, match="no guest 'vm-7'"):
            await lab.kill_guest("vm-7")
        assert await lab.run_in_guest(VM, "echo out; echo err >&2; exit 3") == (3, "out\nerr\n")

    in_lab(lab, test)


def test_a_writer_that_ends_says_why(lab: Lab) -> None:
    async def test() -> None:
        await lab.stop_writer(VM)
        await lab.run_in_guest(VM, f"mv /data0/{PATTERN_FILE} /tmp/; mkdir /data0/{PATTERN_FILE}")
        with pytest.raises(StillframeError, match=r"writer of vm-0 ended: .*pattern\.bin"):
            await lab.start_writer(VM)
        await lab.run_in_guest(VM, f"rmdir /data0/{PATTERN_FILE}; mv /tmp/{PATTERN_FILE} /data0/")

    in_lab(lab, test)


def test_half_a_line_is_no_acknowledgement(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read_acks(log) == []
    log.write_text("1.500000 0 2.5\n2.500000 1 3.5\n3.500000 2")
    assert read_acks(log) == [Ack(1.5, 0, 0.0025), Ack(2.5, 1, 0.0035)]
