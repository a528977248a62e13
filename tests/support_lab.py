"""What a test of the live lab needs of the machine, and labs that tests share.

A machine without it skips these tests with the reason; with ``CI=true`` they fail instead.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_TOOLS = {
    "qemu": ("qemu-system-x86_64", "qemu-img", "gcc", "apt-get", "dpkg-deb", "mkfs.ext4", "e2fsck"),
    "fuse": ("qemu-storage-daemon",),
    "loop": ("losetup", "mount", "mkfs.ext4"),
    "xfs": ("mkfs.xfs",),
    "ceph": ("monmaptool", "ceph-mon", "ceph-osd", "qemu-storage-daemon"),
}
_DEVICES = {"fuse": "/dev/fuse", "loop": "/dev/loop-control"}
_INSTALL = "scripts/install-lab.sh installs the packages"


def needs_lab(*what: str) -> pytest.MarkDecorator:
    """A mark for tests that need these: ``root``, ``qemu``, ``fuse``, ``loop``, ``xfs``, ``ceph``.

    Where one is missing the test is skipped, or fails where ``CI=true``: there they may not be
    missing. Module-scoped fixtures are not reached in either case.
    """
    missing = [reason for one in what if (reason := _missing(one))]
    if not missing:
        return pytest.mark.skipif(False, reason="all there")
    if os.environ.get("CI") == "true":
        _lacking.extend(missing)
        return pytest.mark.usefixtures("lab_is_lacking")
    return pytest.mark.skip(reason="; ".join(missing))


_lacking: list[str] = []


@pytest.fixture(scope="session")
def lab_is_lacking() -> None:
    """Fail whatever asks for it; of session scope, so that it comes before a module's lab."""
    pytest.fail(f"with CI=true the lab must be there: {'; '.join(dict.fromkeys(_lacking))}")


@functools.cache
def _missing(what: str) -> str:
    """Why ``what`` cannot be used here; empty when it can."""
    if what == "root":
        return "" if os.geteuid() == 0 else "needs root"
    absent = [tool for tool in _TOOLS[what] if shutil.which(tool) is None]
    if absent:
        return f"{what}: no {', '.join(absent)} ({_INSTALL})"
    if what == "qemu" and importlib.util.find_spec("qemu.qmp") is None:
        return "qemu: the extra stillframe[qemu] is not installed"
    if what == "ceph":
        tried = ["/usr/bin/python3", "-c", "import rados, rbd"]
        if subprocess.run(tried, capture_output=True, check=False).returncode:
            return f"ceph: /usr/bin/python3 has no rados and rbd ({_INSTALL})"
    device = _DEVICES.get(what)
    if device is not None and not os.access(device, os.R_OK | os.W_OK):
        return f"{what}: {device} cannot be opened"
    if what == "loop":
        tried = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
        return "" if tried.returncode == 0 else f"loop: {tried.stderr.strip()}"
    return ""


def lab_leftovers(folder: Path) -> list[str]:
    """What there is of a lab in a folder: looked up here, not by the code under test."""
    at = str(folder)
    found = [f"folder {at}"] if folder.exists() else []
    table = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    found += [f"mount {line}" for line in table if at in line]
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            backing = entry.read_text(encoding="utf-8").strip()
            found += [f"loop on {backing}"] if at in backing else []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if at in words and entry.parent.name != str(os.getpid()):
                found.append(f"process {words}")
    return found


@contextmanager
def short_folder(name: str = "t") -> Iterator[Path]:
    """A new folder whose path leaves room for socket names; pytest's own are too deep."""
    made = Path(tempfile.mkdtemp(prefix=f"sf-{name}-", dir="/var/tmp"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
