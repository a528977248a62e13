"""What the machine must have for a lab, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from .spec import LabArray

_SCRIPT = "scripts/install-lab.sh"
_PACKAGES: Mapping[str, str] = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mkfs.ext4": "e2fsprogs",
    "losetup": "mount",
    "gcc": "gcc libc6-dev",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "qemu-storage-daemon": "qemu-utils",
    "mkfs.xfs": "xfsprogs",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "monmaptool": "ceph-common",
}
"""The Debian package that brings each program."""
_OF_ALL = ("qemu-system-x86_64", "qemu-img", "mkfs.ext4", "losetup", "gcc", "dpkg-deb", "apt-get")
_OF_ARRAY: Mapping[LabArray, tuple[str, ...]] = {
    LabArray.QSD: ("qemu-storage-daemon",),
    LabArray.XFS: ("mkfs.xfs",),
    LabArray.CEPH: ("qemu-storage-daemon", "ceph-mon", "ceph-osd", "monmaptool"),
}
_OF_FUSE = (LabArray.QSD, LabArray.CEPH)


def check_host(array: LabArray) -> None:
    """Refuse a machine, or a user, that cannot have a lab on this array.

    Raises
    ------
    InputError
        The user is not root, or something is missing; the error says how to get it.
    """
    if os.geteuid() != 0:
        raise InputError("lab", "", "needs root: it mounts file systems on loop devices")
    absent = [tool for tool in (*_OF_ALL, *_OF_ARRAY[array]) if shutil.which(tool) is None]
    if absent:
        packages = " ".join(dict.fromkeys(_PACKAGES[tool] for tool in absent))
        advice = f"run {_SCRIPT}, or `apt-get install --no-install-recommends {packages}`"
        raise InputError("lab", "", f"there is no {', '.join(absent)}", advice)
    if importlib.util.find_spec("qemu.qmp") is None:
        raise InputError("lab", "", "needs qemu.qmp", "install stillframe[qemu]")
    for device in ("/dev/loop-control", *(["/dev/fuse"] if array in _OF_FUSE else [])):
        if not Path(device).exists():
            raise InputError("lab", "", f"there is no {device}", "the kernel or container lacks it")
