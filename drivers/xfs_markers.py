"""Notes on what a process of ours has frozen, for the one that comes after its death.

Each fence keeps a file in the pool, locked for as long as its process lives. A file whose lock can
be taken belongs to a dead process: what it names is thawed.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import StillframeError
from . import xfs_ioctl
from .xfs_locks import Lock, try_lock
from .xfs_users import DeviceNumber, device_number, mount_table

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Which run of this machine's kernel this is: freezes and its clock end with it."""
    return _BOOT.read_text(encoding="ascii").strip()


class Marker:
    """One fence's note; made by :func:`write_marker`."""

    def __init__(self, path: Path, lock: Lock) -> None:
        self._path = path
        self._lock = lock

    def remove(self) -> None:
        """Everything is thawed. A note that stays in a pool that fails harms nobody."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._lock.release()

    def leave(self) -> None:
        """Something cannot be thawed: whoever comes next is to try."""
        self._lock.release()


def write_marker(folder: Path, devices: Sequence[DeviceNumber]) -> Marker:
    """Note that the file systems on these devices are about to be frozen.

    It need not survive a crash of the machine: a freeze does not either.
    """
    while True:
        path = folder / secrets.token_hex(8)
        lock = try_lock(path, create=True)
        if lock is not None:
            break
    noted = json.dumps({"boot": boot_id(), "devices": list(devices)})
    try:
        os.write(lock.descriptor, noted.encode())
    except OSError:
        lock.release()
        raise
    return Marker(path, lock)


def thaw_what_the_dead_froze(folder: Path) -> list[Path]:
    """Thaw what dead processes noted in ``folder``; the mount points that were frozen indeed.

    Raises
    ------
    StillframeError
        One cannot be thawed.
    """
    thawed = []
    for path in sorted(folder.iterdir()):
        try:
            lock = try_lock(path)
        except FileNotFoundError:  # its process has just finished
            continue
        if lock is not None:
            try:
                thawed += _thaw_noted(path)
                path.unlink(missing_ok=True)
            finally:
                lock.release()
    return thawed


def _thaw_noted(path: Path) -> list[Path]:
    text = path.read_text(encoding="utf-8")
    if not text.endswith("}"):
        return []  # it died while it wrote, before it froze anything
    noted = json.loads(text)
    if noted["boot"] != boot_id():
        return []
    thawed = []
    for device in noted["devices"]:
        found = open_mounted(device)
        if found is not None:
            at, folder = found
            try:
                if xfs_ioctl.thaw(folder):
                    thawed.append(at)
            except OSError as error:
                raise StillframeError(
                    f"{at} was left frozen and cannot be thawed: {error.strerror}",
                    f"as root: fsfreeze --unfreeze {at}",
                ) from error
            finally:
                os.close(folder)
    return thawed


def open_mounted(device: DeviceNumber) -> tuple[Path, int] | None:
    """A mount point of the file system on this device, opened; None where there is none.

    What another mount covers is passed over: the path would lead to that one.
    """
    for mount in reversed(mount_table()):
        if mount.device == device:
            try:
                folder = os.open(mount.point, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            if device_number(os.fstat(folder).st_dev) == device:
                return Path(mount.point), folder
            os.close(folder)
    return None
