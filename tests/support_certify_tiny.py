"""A tiny array in memory as a target, and three requirements of it, for tests of the front door."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from support_memory import Faults, MemoryArray

from stillframe.certify.array_bench import ArrayBench
from stillframe.certify.array_target import ArrayTarget, ScratchUnit
from stillframe.certify.hypervisor_target import HypervisorTarget
from stillframe.certify.requirement import Level, Topic
from stillframe.drivers.contracts import ArrayDriver
from stillframe.drivers.errors import DidNotHappenError
from stillframe.drivers.records import DeviceIdentity, DeviceKind, StorageUnit, UnitKind
from stillframe.orchestrator.spec import Section
from stillframe.quantity import Seconds
from stillframe.sim.loop import SimLoop

DEVICES = [DeviceIdentity(DeviceKind.NAA, f"naa.600000000000000{number}") for number in range(3)]
UNITS = [
    StorageUnit(f"tiny/lun-{n}", "tiny", f"lun-{n}", UnitKind.LUN, 1 << 20, (device,))
    for n, device in enumerate(DEVICES)
]
TOPIC: Topic[ArrayBench] = Topic("snapshots", "TINY-SNP")
MEASURES: Topic[ArrayBench] = Topic("durations", "TINY-DUR")
LIMITS = {"snapshot_p95_s": "the 95th percentile of a snapshot's duration"}


@TOPIC.shall(1, Level.CORE, "A driver shall list what was made.", units=2)
async def lists(bench: ArrayBench) -> None:
    """Make one, and look."""
    made = await bench.cut(*bench.units[:2])
    bench.note(tag=made.ref.tag, choice=bench.rng.random())
    bench.expect(made.ref.tag in await bench.listed(), "what was made is not listed")


@TOPIC.shall(2, Level.FAULT, "A restart shall lose nothing.", hooks=("restart",))
async def restarts(bench: ArrayBench) -> None:
    """Nobody here can restart."""
    raise AssertionError("never tried")


@MEASURES.shall(1, Level.PERFORMANCE, "A snapshot shall take no longer than is stated.")
async def measures(bench: ArrayBench) -> None:
    """One snapshot, held against the limit."""
    begin_s = bench.now_s()
    await bench.cut(bench.units[0])
    await asyncio.sleep(0.25)  # the array in memory takes no time at all
    took_s = bench.now_s() - begin_s
    bench.measure("snapshot", [took_s], units=1)
    limit_s = bench.limits.get("snapshot_p95_s", 60.0)
    bench.expect(took_s <= limit_s, "a snapshot took too long", took_s=took_s, limit_s=limit_s)


REQUIREMENTS = (*TOPIC.requirements, *MEASURES.requirements)


class TinySettings(Section):
    """What the tiny array takes."""

    address: str
    delay: Seconds = 0.5
    ca_file: str | None = None


class Tiny(ArrayTarget):
    """A modelled target with nothing optional."""

    name = "tiny array"
    modelled: ClassVar[bool] = True
    settings_model = TinySettings
    last: ClassVar[Tiny | None] = None
    down = False

    def __init__(self, settings: Any, folder: Path, seed: int) -> None:
        super().__init__(settings, folder, seed)
        type(self).last = self
        (folder / "scratch").write_text("tiny")
        self.faults = Faults()
        self.array = MemoryArray("tiny", UNITS, self.faults)

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return SimLoop()

    async def __aexit__(self, *error: object) -> None:
        self.down = True

    async def units(self) -> Sequence[ScratchUnit]:
        return [ScratchUnit((device,), 1 << 20) for device in DEVICES]

    def connect(self) -> AbstractAsyncContextManager[ArrayDriver]:
        return self._connect()

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[ArrayDriver]:
        await asyncio.sleep(self.settings.delay)
        yield self.array

    async def environment(self) -> Mapping[str, str]:
        return {"address": self.settings.address}


class Bare(Tiny):
    """The same without settings to check."""

    name = ""
    settings_model = None

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[ArrayDriver]:
        yield self.array

    async def environment(self) -> Mapping[str, str]:
        return {}


class Forgetful(MemoryArray):
    """It lists nothing."""

    async def list_snapshots(self, tag_prefix: str) -> list[Any]:
        return []


class Broken(Bare):
    """A target whose driver forgets what it made."""

    def __init__(self, settings: Any, folder: Path, seed: int) -> None:
        super().__init__(settings, folder, seed)
        self.array = Forgetful("tiny", UNITS, self.faults)


class Dying(Bare):
    """Its array breaks down for good with the first snapshot."""

    def __init__(self, settings: Any, folder: Path, seed: int) -> None:
        super().__init__(settings, folder, seed)
        self.array.on_cut = self._die
        self.dead = False

    def _die(self, _request: object) -> None:
        self.dead = True
        self.array.list_snapshots = self._fail  # type: ignore[method-assign]

    async def _fail(self, tag_prefix: str) -> list[Any]:
        raise RuntimeError("the array is on fire")

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[ArrayDriver]:
        if self.dead:
            raise ConnectionRefusedError(111, "Connection refused")
        yield self.array


class Flaky(Dying):
    """Its driver's connection breaks with the first snapshot; a new one works."""

    def __init__(self, settings: Any, folder: Path, seed: int) -> None:
        super().__init__(settings, folder, seed)
        self.whole = self.array.list_snapshots

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[ArrayDriver]:
        self.array.list_snapshots = self.whole  # type: ignore[method-assign]
        yield self.array

    def _die(self, _request: object) -> None:
        if not self.dead:
            super()._die(_request)


class Silent(Bare):
    """It never answers."""

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[ArrayDriver]:
        await asyncio.sleep(3600)
        yield self.array


class Refusing(Bare):
    """Nobody listens there."""

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[ArrayDriver]:
        raise DidNotHappenError("connect", "tiny", "the login was refused")
        yield


class Unplugged(Bare):
    """Its network is down, and its driver does not wrap what the system says."""

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[ArrayDriver]:
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(ConnectionRefusedError(111, "Connection refused"))
        await asyncio.wait_for(refused, 1.0)  # raised within Python's own library
        yield self.array


class Half:
    """A driver that lacks methods."""

    capabilities = None

    async def resolve(self, devices: Sequence[DeviceIdentity]) -> Mapping[DeviceIdentity, Any]:
        return {}

    async def list_snapshots(self, tag_prefix: str) -> list[Any]:
        return []


class HalfTarget(Bare):
    """A target with such a driver."""

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Any]:
        yield Half()


class Undeclared(Bare):
    """A driver whose capabilities are a dictionary."""

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[Any]:
        array = MemoryArray("tiny", UNITS, self.faults)
        array._capabilities = {"atomic_groups": True}  # type: ignore[assignment]
        yield array


class NotEntered(Bare):
    """``connect`` gives the driver itself."""

    def connect(self) -> Any:
        return self.array


class TwoUnits(Bare):
    """Too few units."""

    async def units(self) -> Sequence[ScratchUnit]:
        return [ScratchUnit((device,), 1 << 20) for device in DEVICES[:2]]


class Interrupted(Bare):
    """Ctrl-C (or another signal) comes while a snapshot is made."""

    number = signal.SIGINT

    def __init__(self, settings: Any, folder: Path, seed: int) -> None:
        super().__init__(settings, folder, seed)
        self.array.on_cut = lambda _request: os.kill(os.getpid(), self.number)


class NoUnits(ArrayTarget):
    """A class with a method missing."""

    def connect(self) -> Any:
        raise AssertionError("never connected")


class WrongInit(Bare):
    """A class that cannot be made."""

    def __init__(self) -> None:
        raise AssertionError("never made")


class OfVms(HypervisorTarget):
    """A target of the other kind."""

    def connect(self) -> Any:
        raise AssertionError("never connected")

    async def vms(self) -> Any:
        raise AssertionError("never asked")


A_NUMBER = 7
