"""A guest's QEMU: what it is started with, and how it comes to run.

Guests are emulated (TCG). KVM is never asked for, nor is /dev/kvm looked at: a nested host can open
it, make a virtual machine and run firmware, and then hang a stock kernel early in its boot. That
only booting one shows, and a lab has seconds. Instead a guest is restored from a saved state in
less time than a boot would take with KVM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StillframeError
from .guest_build import GuestFiles
from .host import run
from .monitor import monitor

QEMU = "qemu-system-x86_64"
AGENT_PORT = "org.qemu.guest_agent.0"
ACK_PORT = "stillframe.acks"
_KERNEL_WORDS = "console=ttyS0 quiet panic=-1 mitigations=off"
_MACHINE = (
    *("-machine", "q35,accel=tcg", "-smp", "1", "-m", "96", "-no-user-config", "-nodefaults"),
    *("-display", "none", "-no-reboot"),
)
"""64 MiB do not boot; 96 MiB do, and make a saved state of 80 MB."""
_RUN_S = 60.0
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where a guest's QEMU is talked to.

    Attributes
    ----------
    driver, lab:
        Two monitors, because each serves one client at a time.
    agent:
        The channel to the guest's agent.
    acks:
        Where the recorder listens; None for a guest whose acknowledgements nobody wants.
    """

    driver: Path
    lab: Path
    agent: Path
    acks: Path | None


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A disk as QEMU opens it: the files of its chain, base first, the one it writes to last.

    Block nodes: the base is ``NODE`` on the file node ``NODE-file``, and the overlays above it are
    ``NODE-1``, ``NODE-2``, ... on ``NODE-1-file``, .... The device is ``NODE-device``.
    """

    node: str
    chain: tuple[Path, ...]

    def arguments(self) -> list[str]:
        """The options that make the chain and the device on top of it."""
        words: list[str] = []
        below = ""
        for number, path in enumerate(self.chain):
            node = f"{self.node}-{number}" if number else self.node
            # Commas separate options, and are doubled where they are meant.
            filename = str(path).replace(",", ",,")
            words += ["-blockdev", f"driver=file,node-name={node}-file,filename={filename},{_IO}"]
            kind = f"driver=qcow2,backing={below}" if number else "driver=raw"
            words += ["-blockdev", f"{kind},node-name={node},file={node}-file"]
            below = node
        return [*words, *device_arguments(self.node, below)]


_IO = "cache.direct=on,aio=threads"


def device_arguments(name: str, top: str) -> list[str]:
    """The options of a disk's device on top of a block node."""
    return ["-device", f"virtio-blk-pci,id={name}-device,drive={top}"]


def machine_arguments(files: GuestFiles) -> list[str]:
    """The options that make the machine; with the devices they decide what a saved state fits."""
    boot = ("-kernel", str(files.kernel), "-initrd", str(files.initrd), "-append", _KERNEL_WORDS)
    return [*_MACHINE, *boot]


def port_arguments(sockets: Sockets) -> list[str]:
    """The options of the monitors and of the serial ports."""
    acks = "null" if sockets.acks is None else f"socket,path={sockets.acks},server=off"
    agent = f"socket,path={sockets.agent},server=on,wait=off"
    return [
        *("-qmp", f"unix:{sockets.driver},server=on,wait=off"),
        *("-qmp", f"unix:{sockets.lab},server=on,wait=off"),
        *("-device", "virtio-serial-pci,id=ports"),
        *(
            "-chardev",
            f"{agent},id=agent",
            "-device",
            f"virtserialport,chardev=agent,name={AGENT_PORT}",
        ),
        *("-chardev", f"{acks},id=acks", "-device", f"virtserialport,chardev=acks,name={ACK_PORT}"),
    ]


async def start_machine(
    name: str,
    folder: Path,
    files: GuestFiles,
    disk_arguments: Sequence[str],
    sockets: Sockets,
    saved: Path | None,
) -> None:
    """Start a guest's QEMU in the background, and have the guest run.

    Parameters
    ----------
    folder:
        Where its process number (``pid``) and its console (``console.log``) go.
    saved:
        The state to restore; None to boot.

    Raises
    ------
    StillframeError
        QEMU does not start, or the state does not fit it; QEMU's own words are in the error.
    """
    console = str(folder / "console.log").replace(",", ",,")
    await run(
        QEMU,
        *("-name", name, "-daemonize", "-pidfile", folder / "pid"),
        *machine_arguments(files),
        *("-serial", f"file:{console}"),
        *disk_arguments,
        *port_arguments(sockets),
        *(["-incoming", f"exec:cat '{saved}'"] if saved else []),
    )
    await _have_it_run(name, sockets.lab)


async def _have_it_run(name: str, socket: Path) -> None:
    async with monitor(socket) as talk:
        try:
            async with asyncio.timeout(_RUN_S):
                while True:
                    state = await talk.state()
                    if state not in ("inmigrate", "prelaunch"):
                        break
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise StillframeError(f"{name} was not restored within {_RUN_S:g} s") from None
        if state != "running":
            await talk.execute("cont")
