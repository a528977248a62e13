"""The arms on which the contract of array drivers is tested, and what its tests share.

An arm is brought up once per module, on one event loop; each test takes away what it made.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import mmap
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support_lab import needs_lab, short_folder

from stillframe.drivers.contracts import (
    ArrayDriver,
    GroupSnapshot,
    GroupSnapshotRef,
    GroupSnapshotRequest,
    ReadableArrayDriver,
)
from stillframe.drivers.records import DeviceIdentity, StorageUnit
from stillframe.sim.loop import SimLoop
from stillframe.sim.realtime import open_modelled_array

BLOCK_BYTES = 4096
SPAN_BYTES = 64 << 10
"""What the tests write of each unit."""


@dataclass(frozen=True)
class Place:
    """Where a host reaches the first bytes of a unit that tests write.

    Byte ``x < SPAN_BYTES`` of ``file`` is byte ``offset_bytes + x`` of the unit.
    """

    file: Path
    offset_bytes: int = 0


@dataclass
class ArrayArm:
    """One array, up and connected.

    Attributes
    ----------
    units:
        Three of them, in the order of ``places``.
    places:
        None for an array that holds no data.
    reopen:
        A second driver on the same array, entered while the first is open.
    """

    driver: ArrayDriver
    units: list[StorageUnit]
    places: list[Place] | None
    reopen: Callable[[], AbstractAsyncContextManager[ArrayDriver]]
    clones: list[StorageUnit] = field(default_factory=list)

    @property
    def readable(self) -> ReadableArrayDriver:
        """The driver of an array whose snapshots can be read."""
        if self.places is None:
            pytest.skip("a modelled array holds no data")
        assert isinstance(self.driver, ReadableArrayDriver)
        return self.driver

    async def cut(self, tag: str, *numbers: int) -> GroupSnapshot:
        """Snapshot the units of these numbers."""
        unit_ids = tuple(self.units[number].id for number in numbers)
        return await self.driver.snapshot_group(GroupSnapshotRequest(unit_ids, tag, 30.0))

    async def tags(self, prefix: str = "", driver: ArrayDriver | None = None) -> list[str]:
        """The tags that are listed."""
        listed = await (driver or self.driver).list_snapshots(prefix)
        return [one.ref.tag for one in listed]

    async def write(self, number: int, block: int, value: int) -> None:
        """Write a block of a unit as a host does, through to the array."""
        assert self.places is not None
        await asyncio.to_thread(write_block, self.places[number].file, block, value)

    async def live(self, number: int, block: int) -> int:
        """What a block of the unit holds now."""
        assert self.places is not None
        return await asyncio.to_thread(read_block, self.places[number].file, block * BLOCK_BYTES)

    async def held(self, ref: GroupSnapshotRef, number: int, block: int) -> int:
        """What a block holds in a snapshot."""
        assert self.places is not None
        offset = self.places[number].offset_bytes + block * BLOCK_BYTES
        unit_id = self.units[number].id
        return value_of(await self.readable.read_back(ref, unit_id, offset, BLOCK_BYTES))

    async def clone(self, ref: GroupSnapshotRef, number: int, name: str) -> tuple[str, Place]:
        """Clone a unit; the clone's identifier and where the host reaches it."""
        assert self.places is not None
        made = await self.readable.clone(ref, self.units[number].id, name)
        self.clones.append(made)
        (device,) = made.devices
        return made.id, Place(Path(device.value), self.places[number].offset_bytes)

    async def clean(self) -> None:
        """Take away whatever a test left."""
        for clone in self.clones:
            if isinstance(self.driver, ReadableArrayDriver):
                with contextlib.suppress(Exception):
                    await self.driver.discard(clone.id)
        self.clones.clear()
        for one in await self.driver.list_snapshots(""):
            await self.driver.delete_snapshot(one.ref)


def block_of(value: int) -> bytes:
    """A block that holds a number all over, so that a part of another block shows."""
    return value.to_bytes(8, "little") * (BLOCK_BYTES // 8)


def value_of(block: bytes) -> int:
    """The number that a block holds."""
    value = int.from_bytes(block[:8], "little")
    assert block == block_of(value), "the block is mixed of two writes"
    return value


def write_block(file: Path, block: int, value: int) -> None:
    """Write a block past the host's page cache, and wait until it is kept."""
    with direct(file, os.O_RDWR | os.O_DSYNC) as handle, aligned() as buffer:
        buffer[:] = block_of(value)
        os.pwritev(handle, [buffer], block * BLOCK_BYTES)


def read_block(file: Path, offset_bytes: int) -> int:
    """Read a block past the host's page cache."""
    with direct(file, os.O_RDONLY) as handle, aligned() as buffer:
        assert os.preadv(handle, [buffer], offset_bytes) == BLOCK_BYTES
        return value_of(bytes(buffer))


@contextmanager
def direct(file: Path, flags: int) -> Iterator[int]:
    """A file opened past the host's page cache."""
    handle = os.open(file, flags | os.O_DIRECT)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def aligned() -> Iterator[mmap.mmap]:
    """Memory as direct I/O wants it."""
    with mmap.mmap(-1, BLOCK_BYTES) as memory:
        yield memory


Check = Callable[[ArrayArm], Awaitable[None]]
Run = Callable[[Check], None]

_REAL = {
    "qsd": ("support_arm_qsd", "qsd_arm", ("root", "fuse")),
    "xfs": ("support_arm_xfs", "xfs_arm", ("root", "xfs", "loop")),
    "ceph": ("support_arm_ceph", "ceph_arm", ("root", "ceph", "fuse")),
}
"""Module, function, and what the machine has to have."""


@asynccontextmanager
async def modelled_arm(folder: Path) -> AsyncIterator[ArrayArm]:
    """The model, with its snapshots in a file so that a second driver sees them."""
    devices = [DeviceIdentity.parse(f"naa.600000000000000{n}") for n in range(3)]
    settings: dict[str, Any] = {
        "units": [
            {"name": f"unit-{n}", "capacity": "8 MiB", "devices": [str(device)]}
            for n, device in enumerate(devices)
        ],
        "state_file": str(folder / "array.state"),
    }

    def reopen() -> AbstractAsyncContextManager[ArrayDriver]:
        return open_modelled_array("a", settings)

    async with open_modelled_array("a", settings) as array:
        known = await array.resolve(devices)
        yield ArrayArm(array, [known[device] for device in devices], None, reopen)


def _marked(name: str) -> Any:
    return pytest.param(name, marks=needs_lab(*_REAL[name][2]))


@pytest.fixture(scope="module", params=["modelled", *map(_marked, _REAL)])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a check on one arm, and takes away what it made."""
    name = request.param
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    make: Callable[[Path], AbstractAsyncContextManager[ArrayArm]] = modelled_arm
    if name == "modelled":
        factory = SimLoop
    else:
        module, function, _ = _REAL[name]
        make = getattr(importlib.import_module(module), function)
    with short_folder("array") as folder, asyncio.Runner(loop_factory=factory) as runner:
        context = make(folder)
        arm = runner.run(context.__aenter__())

        def run_check(check: Check) -> None:
            async def body() -> None:
                try:
                    await check(arm)
                finally:
                    await arm.clean()

            runner.run(body())

        try:
            yield run_check
        finally:
            runner.run(context.__aexit__(None, None, None))
