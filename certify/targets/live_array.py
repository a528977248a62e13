"""Any installed array driver as a target, by configuration alone.

No hook needs code: three of them may be given as commands, and what is not given is not tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, field_validator

from ...drivers.contracts import ArrayDriver
from ...drivers.records import DeviceIdentity
from ...drivers.registry import driver_factory
from ...errors import InputError, StillframeError
from ...lab.host import run
from ...orchestrator.spec import Section
from ...quantity import Bytes, Seconds
from ..array_target import BLOCK_BYTES, ArrayTarget, ScratchUnit

_Devices = list[str]
_COMMANDS = frozenset({"restart", "expire_sessions", "snapshots_on_device"})


class LiveUnit(Section):
    """One scratch unit: **everything on it is overwritten**.

    Attributes
    ----------
    devices:
        Every identity under which hosts know it: ``naa.6000…``, ``serial.…``, ``server:/export``.
    path:
        The block device or file by which this machine reaches it.
    capacity:
        Its size as hosts see it.
    id:
        The identifier that the driver should give it, if known: ``array/lun-7``.
    begins:
        Which byte of the unit the first of ``path`` is, where that is a part of it.
    """

    devices: Annotated[_Devices, Field(min_length=1)]
    path: Path
    capacity: Annotated[Bytes, Field(ge=BLOCK_BYTES)]
    id: str | None = None
    begins: Bytes = 0

    @field_validator("devices")
    @classmethod
    def _known_forms(cls, devices: list[str]) -> list[str]:
        return _checked(devices)

    def scratch(self) -> ScratchUnit:
        """What the kit makes of it."""
        devices = tuple(DeviceIdentity.parse(text) for text in self.devices)
        return ScratchUnit(devices, int(self.capacity), self.path, self.id, int(self.begins))


class LiveArraySettings(Section):
    """How to reach an array.

    Attributes
    ----------
    driver:
        The name of an installed driver.
    system_id:
        The array's identifier, which the driver puts before those of its units.
    settings:
        Of the driver, as a live configuration has them.
    units:
        The scratch units.
    foreign:
        Identities that the array must not answer for, such as those of another array.
    commands:
        For hooks: words of a command each. ``restart`` returns when the array serves again,
        ``snapshots_on_device`` writes a name on each line.
    command_timeout:
        For how long a command may run.
    """

    driver: Annotated[str, Field(min_length=1)]
    system_id: Annotated[str, Field(min_length=1)] = "array"
    settings: dict[str, Any] = Field(default_factory=dict)
    units: Annotated[list[LiveUnit], Field(min_length=3)]
    foreign: _Devices = Field(default_factory=list)
    commands: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(default_factory=dict)
    command_timeout: Annotated[Seconds, Field(gt=0)] = 300.0

    @field_validator("foreign")
    @classmethod
    def _known_forms(cls, devices: list[str]) -> list[str]:
        return _checked(devices)

    @field_validator("commands")
    @classmethod
    def _known_hooks(cls, commands: dict[str, list[str]]) -> dict[str, list[str]]:
        for name in commands:
            if name not in _COMMANDS:
                known = ", ".join(sorted(_COMMANDS))
                raise ValueError(f"{name!r} cannot be a command; these can: {known}")
        return commands


class LiveArray(ArrayTarget):
    """An array that is there already."""

    settings_model = LiveArraySettings
    settings: LiveArraySettings

    def connect(self) -> AbstractAsyncContextManager[ArrayDriver]:
        """The driver, as a job would open it.

        Raises
        ------
        InputError
            The driver's settings cannot be used.
        StillframeError
            There is no such driver, or it is one for hypervisors.
        """
        factory = driver_factory(self.settings.driver)
        made = factory(self.settings.system_id, self.settings.settings)
        return cast("AbstractAsyncContextManager[ArrayDriver]", made)

    async def units(self) -> Sequence[ScratchUnit]:
        """The scratch units of the settings.

        Raises
        ------
        InputError
            This machine does not reach one of them.
        """
        for number, unit in enumerate(self.settings.units):
            if not unit.path.exists():
                raise InputError(
                    "settings", f"units.{number}.path", f"there is no {unit.path} on this machine"
                )
        return [unit.scratch() for unit in self.settings.units]

    def foreign_devices(self) -> Sequence[DeviceIdentity]:
        """The identities of the settings."""
        return [DeviceIdentity.parse(text) for text in self.settings.foreign]

    def offers(self, hook: str) -> bool:
        """A hook that can be a command is offered when there is one."""
        if hook in _COMMANDS:
            return hook in self.settings.commands
        return super().offers(hook)

    # -- hooks -----------------------------------------------------------------------------------

    async def snapshots_on_device(self) -> frozenset[str]:
        """The lines that the command writes."""
        told = await self._run("snapshots_on_device")
        return frozenset(line.strip() for line in told.splitlines() if line.strip())

    async def restart(self) -> None:
        """By command."""
        await self._run("restart")

    async def expire_sessions(self) -> None:
        """By command."""
        await self._run("expire_sessions")

    async def _run(self, hook: str) -> str:
        return await run(*self.settings.commands[hook], limit_s=self.settings.command_timeout)


def _checked(devices: list[str]) -> list[str]:
    for text in devices:
        try:
            DeviceIdentity.parse(text)
        except StillframeError as error:
            raise ValueError(str(error)) from None
    return devices
