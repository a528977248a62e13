"""QEMUs without a guest: real disks, block jobs and monitors, and an agent that is made up.

The machine is stopped before its first instruction, so that one is up in some 50 ms. What a guest
would write is written through its device with QEMU's own ``qemu-io`` command.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from qemu.qmp import QMPClient
from support_lab import short_folder
from support_qemu_agent import FakeAgent

from stillframe.drivers.hostfacts import HostFacts
from stillframe.drivers.qemu import QemuDriver, open_qemu
from stillframe.drivers.qemu_files import chains

SYSTEM = "host"
DISK_BYTES = 4 << 20
_UP_S = 30.0
SETTINGS = {"agent_timeout": 0.5, "thaw_timeout": 5.0, "connect_timeout": 10.0}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    for _ in range(2000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


class Writer:
    """A ``qemu-io`` that stays connected."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def write(self, pattern: int, offset: int, length: int) -> None:
        """Write, and wait for the acknowledgement."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"write -P {pattern} {offset} {length}\n".encode())
        await self._process.stdin.drain()
        said = await self._process.stdout.readline()
        assert b"wrote" in said, said
        await self._process.stdout.readline()

    async def close(self) -> None:
        """Disconnect."""
        await self._process.communicate(b"quit\n")


class FakeVm:
    """One VM: its folder, its QEMU (if it runs) and its agent.

    Parameters
    ----------
    disks:
        Where its disks are to lie; a pair with True takes no part in snapshots.
    """

    def __init__(
        self, home: Path, name: str, disks: list[Path | tuple[Path, bool]], manner: str = ""
    ) -> None:
        self.name = name
        self.folder = home / name
        self.folder.mkdir()
        self.disks: list[Path] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.agent = FakeAgent(self.folder / "agent.sock", manner)
        described = []
        for number, place in enumerate(disks):
            folder, independent = place if isinstance(place, tuple) else (place, False)
            disk = folder / f"{name}-disk{number}.raw"
            with disk.open("wb") as file:
                file.truncate(DISK_BYTES)
            self.disks.append(disk)
            described.append(
                {
                    "node": f"disk{number}",
                    "file": str(disk),
                    "size": DISK_BYTES,
                    "independent": independent,
                }
            )
        data = {"name": name, "qmp": "qmp.sock", "agent": "agent.sock", "disks": described}
        (self.folder / "guest.yaml").write_text(yaml.safe_dump(data))

    def put_overlay(self, name: str, disk: int = 0) -> Path:
        """Put an overlay on a disk, as another tool would, while QEMU does not run."""
        top = chains(self.disks[disk])[-1][-1]
        kind = "raw" if top == self.disks[disk] else "qcow2"
        made = self.disks[disk].with_name(f"{self.disks[disk].stem}.{name}.qcow2")
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", top, "-F", kind, made]
        subprocess.run(words, check=True)
        return made

    def start(self) -> None:
        """Start QEMU on the top of each disk's chain, as its files say."""
        words = ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "16", "-S"]
        words += ["-nodefaults", "-display", "none"]
        for number, disk in enumerate(self.disks):
            below = ""
            for place, path in enumerate(chains(disk)[-1]):
                node = f"disk{number}" + (f"-{place}" if place else "")
                kind = f"driver=qcow2,backing={below}" if place else "driver=raw"
                file = f"driver=file,filename={path},node-name={node}-file"
                words += ["-blockdev", file]
                words += ["-blockdev", f"{kind},file={node}-file,node-name={node}"]
                below = node
            device = f"virtio-blk-pci,id=dev{number},drive={below},share-rw=on"
            words += ["-device", device]
        for monitor in ("qmp", "lab"):
            words += ["-qmp", f"unix:{self.folder / monitor}.sock,server=on,wait=off"]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """End QEMU as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def ask(self, command: str, **arguments: Any) -> Any:
        """A command over the second monitor."""
        client = QMPClient()
        give_up_s = time.monotonic() + _UP_S
        while True:
            try:
                await client.connect(str(self.folder / "lab.sock"))
                break
            except Exception:
                if time.monotonic() > give_up_s:
                    raise
                client = QMPClient()
                await asyncio.sleep(0.01)
        try:
            named = {name.replace("_", "-"): value for name, value in arguments.items()}
            return await client.execute(command, named or None)
        finally:
            await client.disconnect()

    async def write(self, pattern: int, offset: int, length: int, disk: int = 0) -> None:
        """Write and flush as the guest would, and wait for the acknowledgement."""
        device = f"/machine/peripheral/dev{disk}/virtio-backend"
        for words in (f"write -P {pattern} {offset} {length}", "flush"):
            line = f'qemu-io -d {device} "{words}"'
            said = await self.ask("human-monitor-command", command_line=line)
            assert "error" not in said.lower(), said

    async def writer(self, disk: int = 0) -> Writer:
        """A writer that is connected like a device: before a merge begins."""
        at = self.folder / "nbd.sock"
        address = {"type": "unix", "data": {"path": str(at)}}
        await self.ask("nbd-server-start", addr=address)
        node = f"disk{disk}"
        await self.ask(
            "block-export-add", type="nbd", id="nbd", node_name=node, name="d", writable=True
        )
        process = await asyncio.create_subprocess_exec(
            *("qemu-io", "-f", "raw", f"nbd+unix:///d?socket={at}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        writer = Writer(process)
        await writer.write(0, DISK_BYTES - 512, 512)  # until it is connected
        return writer

    def content(self, disk: int = 0) -> bytes:
        """What the disk holds when QEMU does not run: its chain's top, read through qemu-img."""
        top = chains(self.disks[disk])[-1][-1]
        kind = "raw" if top == self.disks[disk] else "qcow2"
        out = self.folder / "content.raw"
        subprocess.run(["qemu-img", "convert", "-f", kind, "-O", "raw", top, out], check=True)
        return out.read_bytes()

    def overlays(self, disk: int = 0) -> list[str]:
        """The names of what lies beside a disk."""
        own = self.disks[disk]
        return sorted(p.name for p in own.parent.glob(f"{own.stem}*") if p != own)


class FakeHost:
    """Some VMs in one folder, on datastores that the host takes to be mounted SCSI disks."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.vms: dict[str, FakeVm] = {}
        self.stores = {name: folder / name for name in ("ds1", "ds2")}
        self.guests = self.stores["ds1"] / "guests"
        for place in self.stores.values():
            place.mkdir()
        self.guests.mkdir()
        self.facts = fake_facts(folder, self.stores)

    def add(
        self,
        name: str,
        *disks: str | tuple[str, bool],
        manner: str = "",
        on: bool = True,
        overlay: str = "",
    ) -> FakeVm:
        """A VM with disks on these datastores, and if asked with an overlay of somebody else."""
        places: list[Path | tuple[Path, bool]] = [
            (self.stores[disk[0]], disk[1]) if isinstance(disk, tuple) else self.stores[disk]
            for disk in disks
        ]
        vm = FakeVm(self.guests, name, places, manner)
        self.vms[name] = vm
        if overlay:
            vm.put_overlay(overlay)
        if on:
            self._stack.enter_context(vm.agent)
            vm.start()
        self._stack.callback(vm.kill)
        return vm

    async def up(self) -> None:
        """Wait until every QEMU that was started answers."""
        running = [vm for vm in self.vms.values() if vm.process is not None]
        await asyncio.gather(*(vm.ask("query-status") for vm in running))

    def run(self, check: Callable[[QemuDriver], Awaitable[Any]], **settings: Any) -> Any:
        """Run a check with a driver of this host."""

        async def main() -> Any:
            await self.up()
            told = {"guests_folder": str(self.guests), **SETTINGS, **settings}
            async with open_qemu(SYSTEM, told, self.facts) as driver:
                return await check(driver)

        return asyncio.run(main())


@contextmanager
def fake_host() -> Iterator[FakeHost]:
    """A host without VMs; everything ends with it."""
    with short_folder("q") as folder, ExitStack() as stack:
        yield FakeHost(folder, stack)


def fake_facts(folder: Path, stores: dict[str, Path]) -> HostFacts:
    """A mount table and a sysfs in which these folders are file systems on SCSI disks."""
    sys_root, lines = folder / "sys", ["1 1 254:0 / / rw - ext4 /dev/none rw"]
    for number, (name, place) in enumerate(stores.items()):
        device = sys_root / "dev" / "block" / f"8:{number}"
        (device / "device").mkdir(parents=True)
        (device / "device" / "wwid").write_text(f"naa.6000c29{name[-1]:0>25}\n")
        lines.append(f"2 1 8:{number} / {place} rw - ext4 /dev/sd{'ab'[number]} rw")
    table = folder / "mountinfo"
    table.write_text("\n".join(lines) + "\n")
    return HostFacts(table, sys_root)
