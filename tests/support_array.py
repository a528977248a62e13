"""A modelled array with four units, and what the tests of it share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from stillframe.drivers.contracts import GroupSnapshotRequest
from stillframe.drivers.errors import DriverError
from stillframe.drivers.records import Array, DeviceIdentity, DeviceKind, StorageUnit, UnitKind
from stillframe.orchestrator.events import EventLog
from stillframe.sim.array import ModelArray
from stillframe.sim.array_profiles import ArrayProfile
from stillframe.sim.draws import Draws
from stillframe.sim.env import SimEnv
from stillframe.sim.faults import Faults
from stillframe.sim.faultsites import FaultSites
from stillframe.sim.load import OverwriteModel, QuietUnits
from stillframe.sim.loop import SimLoop
from stillframe.sim.series import Series

MB = 1e6
STEADY = {
    "management_sigma": 0.0,
    "snapshot_sigma": 0.0,
    "fence_sigma": 0.0,
    "delete_sigma": 0.0,
}


class FreshWrites:
    """Every unit is written at one rate, never the same extent twice."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s

    def overwritten_bytes(
        self, unit_id: str, since_s: float, now_s: float, granularity_bytes: int
    ) -> float:
        return self.bytes_per_s * (now_s - since_s)

    def write_rate_bytes_per_s(self, unit_id: str, start_s: float, end_s: float) -> float:
        return self.bytes_per_s


class Lab:
    """One array with four units, and a loop to call it from."""

    def __init__(
        self,
        overwritten: OverwriteModel | None = None,
        *,
        seed: int = 1,
        steady: bool = True,
        faults: dict[str, Any] | None = None,
        **profile: object,
    ) -> None:
        self.env = SimEnv()
        self.log = EventLog()
        self.series = Series()
        self.units = [
            StorageUnit(f"u{n}", "arr", f"lun {n}", UnitKind.LUN, 10**12, (device(n),))
            for n in range(4)
        ]
        draws = Draws(seed)
        self.faults = FaultSites(Faults.model_validate(faults or {}), draws, self.log, self.env)
        self.array = ModelArray(
            self.env,
            Array("arr", "array"),
            self.units,
            ArrayProfile.model_validate((STEADY if steady else {}) | profile),
            draws,
            self.log,
            overwritten or QuietUnits(),
            self.series,
            self.faults,
        )

    def run(self, main: Callable[[ModelArray], Awaitable[Any]]) -> Any:
        async def start() -> Any:
            return await main(self.array)

        with asyncio.Runner(loop_factory=lambda: SimLoop(self.env)) as runner:
            return runner.run(start())

    def times(self, kind: str) -> list[float]:
        return [row[0] for row in self.log.of(kind)]


def device(number: int) -> DeviceIdentity:
    return DeviceIdentity(DeviceKind.NAA, f"6000{number:04x}")


def request(tag: str, *units: str, fence_timeout_s: float = 7.0) -> GroupSnapshotRequest:
    return GroupSnapshotRequest(units or ("u0",), tag, fence_timeout_s)


async def outcome(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except DriverError as error:
        return error
