"""The systems of a live configuration: opened through their drivers, surveyed, planned for."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .drivers.contracts import ArrayDriver, HypervisorDriver
from .drivers.errors import DriverError
from .drivers.records import ArrayId, DeviceIdentity, Inventory, VCenterId
from .drivers.registry import driver_factory
from .errors import InputError, StillframeError
from .orchestrator.discover import discover, merged
from .orchestrator.plan import Plan, make_plan
from .scenarios.live import LiveConfig
from .sim.array import ModelArray
from .topology.devices import DeviceFacts
from .topology.graph import Topology
from .topology.pulled import PulledEstate, estate_from_inventory

Tell = Callable[[str, float | None], None]
"""Takes what is being done, and the share of it that is done (None: not known)."""

_TICK_S = 0.25
"""How often the progress bar hears from a job on which nothing visible happens."""


@runtime_checkable
class DescribesDevices(Protocol):
    """A hypervisor driver that also knows what its hosts' block devices are."""

    async def device_facts(self) -> Mapping[DeviceIdentity, tuple[str, str, bool]]:
        """Vendor, model, and whether it is local to a host, of each block device."""
        ...


@dataclass(frozen=True, slots=True)
class Systems:
    """The opened drivers by the identifiers of the configuration."""

    hypervisors: Mapping[VCenterId, HypervisorDriver]
    arrays: Mapping[ArrayId, ArrayDriver]


def plan_live(config: LiveConfig, tell: Tell) -> tuple[Topology, Plan]:
    """What the job would do on what there is now; touches nothing. Raises like run_live."""

    async def main() -> tuple[Topology, Plan]:
        async with telling(tell) as say, open_systems(config, say) as systems:
            topology = await survey(config, systems, say)
        return topology, make_plan(topology, config.job)

    with asyncio.Runner() as runner:
        return runner.run(main())


def pull_estate(
    vcenters: Mapping[VCenterId, Mapping[str, Any]], driver: str, tell: Tell
) -> PulledEstate:
    """Read the inventories of vCenters, and make units from the devices that they name.

    Parameters
    ----------
    vcenters:
        The driver's settings by the identifier that each vCenter gets in the estate.
    driver:
        The driver's name.

    Raises
    ------
    InputError
        The settings cannot be used.
    DriverError
        A vCenter could not be reached or read.
    """

    async def main() -> PulledEstate:
        inventories: list[Inventory] = []
        facts: dict[DeviceIdentity, DeviceFacts] = {}
        async with telling(tell) as say:
            for vcenter_id, settings in vcenters.items():
                say(f"connecting to {vcenter_id}", None)
                async with driver_factory(driver)(vcenter_id, settings) as opened:
                    if not isinstance(opened, HypervisorDriver):
                        raise StillframeError(f"driver {driver!r} is not for hypervisors")
                    say(f"reading {vcenter_id}", None)
                    inventories.append(await _inventory(opened, f"reading {vcenter_id}", say))
                    if isinstance(opened, DescribesDevices):
                        described = await opened.device_facts()
                        facts.update({key: DeviceFacts(*one) for key, one in described.items()})
        return estate_from_inventory(merged(inventories), facts)

    with asyncio.Runner() as runner:
        return runner.run(main())


async def _inventory(driver: HypervisorDriver, label: str, tell: Tell) -> Inventory:
    """The driver's inventory; with its progress, where the driver can tell it."""

    def progress(done: int, total: int) -> None:
        tell(f"{label}, {done} of {total} VMs", done / max(total, 1))

    read: Callable[..., Awaitable[Inventory]] = driver.inventory
    if "progress" in inspect.signature(read).parameters:
        return await read(progress=progress)
    return await read()


@asynccontextmanager
async def open_systems(
    config: LiveConfig,
    tell: Tell,
    missing: Callable[[str, DriverError], None] | None = None,
    *,
    only_arrays: bool = False,
) -> AsyncIterator[Systems]:
    """Open every system of a configuration, one after the other; close them in reverse order.

    Parameters
    ----------
    missing:
        Hears of each system that cannot be reached, which is then left out; without it, that is
        an error. When none can be reached it is one all the same.
    only_arrays:
        Leave the hypervisors alone.

    Raises
    ------
    InputError
        Settings cannot be used, or a driver stands in the wrong section.
    DriverError
        A system cannot be reached.
    """
    hypervisors: dict[VCenterId, HypervisorDriver] = {}
    arrays: dict[ArrayId, ArrayDriver] = {}
    unreached: list[DriverError] = []
    async with AsyncExitStack() as stack:
        for section, system_id, entry in config.systems():
            if only_arrays and section != "arrays":
                continue
            tell(f"connecting to {system_id}", None)
            place = f"{section}.{system_id}"
            try:
                factory = driver_factory(entry.driver)(system_id, config.settings(entry))
                driver = await stack.enter_async_context(factory)
            except InputError as error:
                raise _blamed(error, config, place) from error
            except DriverError as error:
                if missing is None:
                    raise
                missing(system_id, error)
                unreached.append(error)
                continue
            if section == "hypervisors" and isinstance(driver, HypervisorDriver):
                hypervisors[system_id] = driver
            elif section == "arrays" and isinstance(driver, ArrayDriver):
                arrays[system_id] = driver
            else:
                problem = f"driver {entry.driver!r} is not for {section}"
                raise InputError(config.source, f"{place}.driver", problem)
        if unreached and not hypervisors and not arrays:
            raise unreached[0]
        yield Systems(hypervisors, arrays)


async def survey(config: LiveConfig, systems: Systems, tell: Tell) -> Topology:
    """The topology of what the systems hold now.

    Raises
    ------
    DriverError
        A system did not answer.
    StillframeError
        The answers contradict each other, or name a system that is not in the configuration.
    """
    tell("reading the inventory", None)
    estate = await discover(systems.hypervisors, systems.arrays)
    answered: list[tuple[str, Mapping[str, object]]]
    answered = [(one.id, systems.hypervisors) for one in estate.inventory.vcenters]
    answered += [(unit.array_id, systems.arrays) for unit in estate.units]
    stranger = next((key for key, opened in answered if key not in opened), None)
    if stranger is not None:
        raise StillframeError(
            f"a driver answered for {stranger!r}, which is not in {config.source}",
            "the driver has to use the identifier that it was opened with",
        )
    return Topology(estate)


def _blamed(error: InputError, config: LiveConfig, place: str) -> InputError:
    """A driver speaks of its settings: say where in the configuration they stand."""
    if Path(error.source).exists():
        return error
    field = f"{place}.{error.field}" if error.field else place
    return InputError(config.source, field, error.problem, error.advice)


@asynccontextmanager
async def telling(tell: Tell) -> AsyncIterator[Tell]:
    """A ``tell`` that repeats what was told last, so that a bar that waits for its time appears."""
    last: list[tuple[str, float | None]] = [("", None)]

    def say(label: str, share: float | None) -> None:
        last[0] = (label, share)
        tell(label, share)

    async def repeat() -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            tell(*last[0])

    ticking = asyncio.get_running_loop().create_task(repeat())
    try:
        yield say
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)


def modelled_arrays(systems: Systems) -> list[ArrayId]:
    """The arrays that are models, from which nothing can be restored."""
    return [one for one, array in systems.arrays.items() if isinstance(array, ModelArray)]


def notes_on(config: LiveConfig, systems: Systems) -> list[str]:
    """Which drivers took part, what they cannot see, and which parts are models."""
    said = ["Measured on live systems, through the drivers named here."]
    for vcenter_id, hypervisor in systems.hypervisors.items():
        can = hypervisor.capabilities
        unseen = [
            what
            for what, seen in (
                ("when guests froze and thawed (quiesce is absent or an upper bound)",
                 can.reports_quiesce),
                ("when virtual CPUs stopped (stun is absent)", can.reports_stun),
                ("how large deltas were (their size is absent)", can.reports_delta),
            )
            if not seen
        ]  # fmt: skip
        driver = config.hypervisors[vcenter_id].driver
        text = f"cannot see {', '.join(unseen)}" if unseen else "sees every clock"
        said.append(f"Hypervisor {vcenter_id}, driver {driver}: {text}.")
    for array_id, array in systems.arrays.items():
        driver = config.arrays[array_id].driver
        able = array.capabilities
        text = f"Array {array_id}, driver {driver}: {able.method.value}."
        if able.holds_writes:
            text += " Holds the writes of the datastores on a group's units while it snapshots it."
        if not able.atomic_groups:
            text += " A group of its units has no common point in time."
        if isinstance(array, ModelArray):
            text += (
                " It is a model in real time: it holds no data, nothing can be restored from it."
            )
        said.append(text)
    return said
