"""Any installed hypervisor driver as a target, by configuration alone.

No hook needs code: some of them may be given as commands, and what is not given is not tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, cast

from pydantic import Field, field_validator, model_validator

from ...drivers.contracts import HypervisorDriver
from ...drivers.records import DeviceIdentity
from ...drivers.registry import driver_factory
from ...errors import StillframeError
from ...lab.host import run
from ...orchestrator.spec import Section
from ...quantity import Bytes, Seconds
from ..hypervisor_target import PLAIN, ROLES, HypervisorTarget, ScratchVm

_COMMANDS: Mapping[str, frozenset[str]] = {
    "restart": frozenset(),
    "expire_sessions": frozenset(),
    "power_off": frozenset({"{vm}"}),
    "power_on": frozenset({"{vm}"}),
    "migrate": frozenset({"{vm}", "{datastore}"}),
}
"""Hooks that can be commands, and the words in them that stand for something."""


class LiveVm(Section):
    """A VM that the kit may snapshot.

    Attributes
    ----------
    name:
        Its name in the inventory.
    datastores:
        Per disk, the name of its datastore; null for a raw device.
    capacities:
        The size of each disk.
    extents:
        The devices under those datastores, by the datastore's name: ``naa.6000…``.
    raw_device:
        The device behind the disk of role ``raw``.
    foreign_snapshot:
        The name of the snapshot of role ``kept``.
    delta_datastore:
        The name of the datastore on which the deltas of role ``apart`` are made.
    """

    name: Annotated[str, Field(min_length=1)]
    datastores: Annotated[tuple[str | None, ...], Field(min_length=1)]
    capacities: tuple[Bytes, ...] | None = None
    extents: dict[str, tuple[str, ...]] | None = None
    raw_device: str | None = None
    foreign_snapshot: str | None = None
    delta_datastore: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> LiveVm:
        if self.capacities is not None and len(self.capacities) != len(self.datastores):
            raise ValueError("capacities and datastores are not equally many")
        for devices in (self.extents or {}).values():
            for text in devices:
                _identity(text)
        if self.raw_device is not None:
            _identity(self.raw_device)
        return self

    def scratch(self) -> ScratchVm:
        """What the kit makes of it."""
        extents = None
        if self.extents is not None:
            extents = {
                name: tuple(_identity(text) for text in devices)
                for name, devices in self.extents.items()
            }
        return ScratchVm(
            self.name,
            self.datastores,
            extents,
            None if self.raw_device is None else _identity(self.raw_device),
            self.foreign_snapshot,
            self.delta_datastore,
            None if self.capacities is None else tuple(int(size) for size in self.capacities),
        )


class LiveHypervisorSettings(Section):
    """How to reach a hypervisor.

    Attributes
    ----------
    driver:
        The name of an installed driver.
    system_id:
        The hypervisor's identifier, which the driver puts before those of its VMs.
    settings:
        Of the driver, as a live configuration has them.
    vms:
        The scratch VMs by role; ``plain`` at least.
    commands:
        For hooks: words of a command each, which returns when it is done. ``{vm}`` stands for the
        VM's name, and ``{datastore}`` for that of a datastore.
    command_timeout:
        For how long a command may run.
    """

    driver: Annotated[str, Field(min_length=1)]
    system_id: Annotated[str, Field(min_length=1)] = "hypervisor"
    settings: dict[str, Any] = Field(default_factory=dict)
    vms: dict[str, LiveVm]
    commands: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(default_factory=dict)
    command_timeout: Annotated[Seconds, Field(gt=0)] = 300.0

    @field_validator("vms")
    @classmethod
    def _known_roles(cls, vms: dict[str, LiveVm]) -> dict[str, LiveVm]:
        for role in vms:
            if role not in ROLES:
                raise ValueError(f"{role!r} is no role; roles are {', '.join(ROLES)}")
        if PLAIN not in vms:
            raise ValueError(f"there is no VM of role {PLAIN}, which all need")
        return vms

    @field_validator("commands")
    @classmethod
    def _known_hooks(cls, commands: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, words in commands.items():
            if name not in _COMMANDS:
                known = ", ".join(sorted(_COMMANDS))
                raise ValueError(f"{name!r} cannot be a command; these can: {known}")
            missing = sorted(_COMMANDS[name] - _held(words))
            if missing:
                raise ValueError(f"the command of {name!r} lacks {' and '.join(missing)}")
        return commands


class LiveHypervisor(HypervisorTarget):
    """A hypervisor that is there already."""

    settings_model = LiveHypervisorSettings
    settings: LiveHypervisorSettings

    def connect(self) -> AbstractAsyncContextManager[HypervisorDriver]:
        """The driver, as a job would open it.

        Raises
        ------
        InputError
            The driver's settings cannot be used.
        StillframeError
            There is no such driver.
        """
        factory = driver_factory(self.settings.driver)
        made = factory(self.settings.system_id, self.settings.settings)
        return cast("AbstractAsyncContextManager[HypervisorDriver]", made)

    async def vms(self) -> Mapping[str, ScratchVm]:
        """The scratch VMs of the settings."""
        return {role: vm.scratch() for role, vm in self.settings.vms.items()}

    def offers(self, hook: str) -> bool:
        """A hook that can be a command is offered when there is one."""
        if hook in _COMMANDS:
            return hook in self.settings.commands
        return super().offers(hook)

    # -- hooks -----------------------------------------------------------------------------------

    async def restart(self) -> None:
        """By command."""
        await self._run("restart", {})

    async def expire_sessions(self) -> None:
        """By command."""
        await self._run("expire_sessions", {})

    async def power_off(self, vm: ScratchVm) -> None:
        """By command."""
        await self._run("power_off", {"{vm}": vm.name})

    async def power_on(self, vm: ScratchVm) -> None:
        """By command."""
        await self._run("power_on", {"{vm}": vm.name})

    async def migrate(self, vm: ScratchVm, datastore: str) -> None:
        """By command."""
        await self._run("migrate", {"{vm}": vm.name, "{datastore}": datastore})

    async def _run(self, hook: str, meant: Mapping[str, str]) -> None:
        words = self.settings.commands[hook]
        for name, value in meant.items():
            words = [word.replace(name, value) for word in words]
        await run(*words, limit_s=self.settings.command_timeout)


def _held(words: list[str]) -> set[str]:
    """The placeholders in the words of a command."""
    known = frozenset[str]().union(*_COMMANDS.values())
    return {name for name in known if any(name in word for word in words)}


def _identity(text: str) -> DeviceIdentity:
    try:
        return DeviceIdentity.parse(text)
    except StillframeError as error:
        raise ValueError(str(error)) from None
