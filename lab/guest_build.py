"""The lab's guest: a distribution's kernel, and an initramfs with busybox, agent and writer.

There is no distribution image and no root disk: Debian's packages are unpacked, not installed, and
what a guest needs of them becomes an initramfs of a few megabytes.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import StillframeError
from .cache import Cache, key_of
from .host import run
from .initramfs import initramfs

_SOURCES = Path(__file__).resolve().parent / "guest"
_RECIPE = (
    _SOURCES / "init",
    _SOURCES / "writer.c",
    Path(__file__),
    Path(__file__).with_name("initramfs.py"),
)
_KERNEL = "linux-image-cloud-amd64"
_PACKAGES = ("qemu-guest-agent", "busybox-static")
_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4")
"""What the initramfs loads, with all that these depend on; some are built into the kernel."""
_DOWNLOAD_S = 300.0


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """What a guest boots.

    Attributes
    ----------
    kernel, initrd:
        The files.
    key:
        Names their contents.
    """

    kernel: Path
    initrd: Path
    key: str


async def guest_files(cache: Cache) -> GuestFiles:
    """The guest's kernel and initramfs, from the cache or built now (about 10 s).

    Raises
    ------
    StillframeError
        A package cannot be had, a tool is missing, or the writer does not compile.
    """
    recipe = [path.read_bytes() for path in _RECIPE]
    folder = await cache.entry(f"guest-{key_of(*recipe)}", _build)
    key = (folder / "key").read_text(encoding="ascii")
    return GuestFiles(folder / "vmlinuz", folder / "initrd.gz", key)


async def _build(folder: Path) -> None:
    unpacked = await _unpack_packages(folder / "packages")
    kernel = next(iter(unpacked.glob("boot/vmlinuz-*")), None)
    if kernel is None:
        raise StillframeError(f"the package {_KERNEL} holds no boot/vmlinuz")
    files = _module_files(unpacked)
    files["bin/busybox"] = (unpacked / "bin" / "busybox").read_bytes()
    files |= await _program_files("bin/qemu-ga", unpacked / "usr" / "sbin" / "qemu-ga")
    files["bin/writer"] = await _compile_writer(folder)
    files["init"] = (_SOURCES / "init").read_bytes()
    image, archive = kernel.read_bytes(), initramfs(files)
    (folder / "vmlinuz").write_bytes(image)
    (folder / "initrd.gz").write_bytes(archive)
    (folder / "key").write_text(key_of(image, archive), encoding="ascii")
    shutil.rmtree(folder / "packages")


async def _unpack_packages(folder: Path) -> Path:
    """The packages' files, all below one folder."""
    downloads, root = folder / "deb", folder / "root"
    downloads.mkdir(parents=True)
    root.mkdir()
    try:
        await _download(downloads)
    except StillframeError:
        if os.geteuid() != 0:
            raise
        # Package lists may be missing or old: refresh them once, only if needed.
        await run("apt-get", "update", "-qq", limit_s=_DOWNLOAD_S)
        await _download(downloads)
    for archive in sorted(downloads.glob("*.deb")):
        await run("dpkg-deb", "-x", archive, root)
    return root


async def _download(into: Path) -> None:
    depends = await run("apt-cache", "depends", _KERNEL)
    match = re.search(r"Depends: (linux-image-\S+)", depends)
    if match is None:
        raise StillframeError(f"apt knows no package {_KERNEL}", "run `apt-get update`")
    # `apt-get download` writes into the working folder and has no option for another.
    script = 'cd "$1" && shift && exec apt-get download -qq "$@"'
    await run("sh", "-c", script, "sh", into, match[1], *_PACKAGES, limit_s=_DOWNLOAD_S)


def _module_files(unpacked: Path) -> dict[str, bytes]:
    """The kernel modules, and their names in the order in which they can be loaded."""
    known = {
        path.stem.replace("-", "_"): path for path in sorted(unpacked.glob("lib/modules/**/*.ko"))
    }
    order: list[str] = []

    def want(name: str) -> None:
        if name in known and name not in order:
            for other in _dependencies(known[name].read_bytes()):
                want(other)
            order.append(name)

    for name in _MODULES:
        want(name)
    files = {f"modules/{name}.ko": known[name].read_bytes() for name in order}
    return files | {"modules/order": "".join(f"{name}\n" for name in order).encode()}


def _dependencies(module: bytes) -> list[str]:
    """The modules that one says it needs, in its section ``.modinfo``."""
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    names = match[1].decode() if match else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


async def _program_files(name: str, program: Path) -> dict[str, bytes]:
    """A program, and the libraries that the host would load with it."""
    listed = await run("ldd", program)
    absent = re.findall(r"(\S+) => not found", listed)
    if absent:
        raise StillframeError(
            f"the guest agent needs libraries that this host lacks: {', '.join(absent)}",
            "install the package qemu-guest-agent's dependencies",
        )
    libraries = re.findall(r"(?<!\S)/(\S+)", listed)
    return _contents({library: Path("/", library) for library in libraries} | {name: program})


def _contents(files: dict[str, Path]) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files.items()}


async def _compile_writer(folder: Path) -> bytes:
    """The writer as one static program; the initramfs has no C library of its own."""
    out = folder / "packages" / "writer"
    await run("gcc", "-O2", "-static", "-o", out, _SOURCES / "writer.c")
    return out.read_bytes()
