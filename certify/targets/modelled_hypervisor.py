"""The modelled hypervisor as a target: every role and every hook, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator

from ...drivers.contracts import FileLocation, HypervisorDriver, Window
from ...orchestrator.spec import Section
from ...quantity import Seconds
from ...sim.byte_hypervisor import ByteHypervisor
from ...sim.env import SimEnv
from ...sim.faults import Site
from ...sim.loop import SimLoop
from ...sim.profiles import HypervisorProfile
from ..hypervisor_target import HypervisorTarget, ScratchVm
from .modelled_management import ManagementServer, connected
from .modelled_vms import DELTAS_ELSEWHERE, VMS, id_of, inventory

_LONG_MERGES: Mapping[str, Any] = {"merge_start": "0.5 s", "merge_rate": "8 MB/s"}
"""So that guests write while a delta of a few MiB is merged."""
_LOOK_S = 0.05


class ModelledHypervisorSettings(Section):
    """How the modelled hypervisor behaves.

    Attributes
    ----------
    hypervisor:
        A named profile and numbers that replace its own, as in a world's configuration.
    answer_limit:
        How long its driver waits for an answer.
    restart:
        How long its management server takes to come back.
    guest_write:
        What a guest's write takes when nothing holds it.
    """

    hypervisor: HypervisorProfile = Field(
        default_factory=lambda: HypervisorProfile.model_validate(dict(_LONG_MERGES))
    )
    answer_limit: Seconds = 20.0
    restart: Seconds = 2.0
    guest_write: Seconds = 0.01

    @field_validator("hypervisor", mode="before")
    @classmethod
    def _long_merges(cls, given: Any) -> Any:
        return {**_LONG_MERGES, **given} if isinstance(given, Mapping) else given


class ModelledHypervisor(HypervisorTarget):
    """One modelled vCenter with a VM of every role.

    Parameters
    ----------
    settings:
        :class:`ModelledHypervisorSettings`, or what it is made from.
    folder:
        Not used.
    seed:
        Decides how long everything takes.

    Attributes
    ----------
    model, server:
        The hypervisor and what stands before it, while the target is up.
    skew_s:
        How far the server's clock is ahead of the loop's. Its driver uses the latter alone.
    """

    name = "modelled hypervisor"
    settings_model: ClassVar[type[Any] | None] = ModelledHypervisorSettings
    modelled: ClassVar[bool] = True
    settings: ModelledHypervisorSettings
    model: ByteHypervisor
    server: ManagementServer

    def __init__(self, settings: Any, folder: Path, seed: int) -> None:
        checked = ModelledHypervisorSettings.model_validate({} if settings is None else settings)
        super().__init__(checked, folder, seed)
        self.skew_s = 0.0
        self._env = SimEnv()

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """A simulated loop on a clock of its own."""
        self._env = SimEnv()
        return SimLoop(self._env)

    async def __aenter__(self) -> Self:
        """Make the VMs."""
        settings = self.settings
        self.model = ByteHypervisor(
            self._env,
            inventory(),
            settings.hypervisor,
            {id_of(role): id_of(store) for role, store in DELTAS_ELSEWHERE.items()},
            write_s=settings.guest_write,
            seed=self.seed,
        )
        self.server = ManagementServer(self.model.driver, settings.restart)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what the server still works on."""
        await self.server.close()

    def connect(self) -> AbstractAsyncContextManager[HypervisorDriver]:
        """Log in."""
        return connected(self.server, self.settings.answer_limit)

    async def vms(self) -> Mapping[str, ScratchVm]:
        """One of every role, called by it."""
        return VMS

    async def environment(self) -> Mapping[str, str]:
        """The profile."""
        profile = self.settings.hypervisor
        return {"hypervisor": f"model, profile {profile.profile}", "merge": profile.merge.value}

    # -- hooks: the guest and the datastores ------------------------------------------------------

    async def write(self, vm: ScratchVm, disk: int, block: int, data: bytes) -> None:
        """See :meth:`HypervisorTarget.write`; raises StillframeError when the guest is off."""
        await self.model.write(id_of(vm.name), disk, block, data)

    async def read(self, vm: ScratchVm, disk: int, block: int) -> bytes:
        """See :meth:`HypervisorTarget.read`; raises StillframeError when the guest is off."""
        return await self.model.read(id_of(vm.name), disk, block)

    async def frozen_spans(self, vm: ScratchVm, since_s: float) -> Sequence[Window]:
        """See :meth:`HypervisorTarget.frozen_spans`."""
        return self.model.frozen_spans(id_of(vm.name), since_s)

    async def digest_of(self, vm: ScratchVm, file: FileLocation) -> str:
        """See :meth:`HypervisorTarget.digest_of`."""
        return self.model.digest(id_of(vm.name), file.path)

    async def files_of(self, vm: ScratchVm) -> frozenset[tuple[str, str]]:
        """See :meth:`HypervisorTarget.files_of`."""
        model = self.model
        return frozenset(
            (model.store_name(file.datastore_id), file.path) for file in model.files(id_of(vm.name))
        )

    # -- hooks: the guest and the host fail -------------------------------------------------------

    @asynccontextmanager
    async def hung_agent(self, vm: ScratchVm) -> AsyncIterator[None]:
        """See :meth:`HypervisorTarget.hung_agent`."""
        with self.model.hung_agent(id_of(vm.name)):
            yield

    def failing_freeze(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """See :meth:`HypervisorTarget.failing_freeze`."""
        return self._struck(Site.QUIESCE_FAILS, vm)

    def failing_merge(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """See :meth:`HypervisorTarget.failing_merge`."""
        return self._struck(Site.CONSOLIDATION_NEEDED, vm)

    def failing_create(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """See :meth:`HypervisorTarget.failing_create`."""
        return self._struck(Site.DELTA_DATASTORE_FULL, vm)

    @asynccontextmanager
    async def _struck(self, site: Site, vm: ScratchVm) -> AsyncIterator[None]:
        with self.model.faults.held(site, id_of(vm.name)):
            yield

    # -- hooks: the VM moves and loses its power --------------------------------------------------

    @asynccontextmanager
    async def migrating(self, vm: ScratchVm) -> AsyncIterator[None]:
        """See :meth:`HypervisorTarget.migrating`."""
        there = self.model.files(id_of(vm.name))[0].datastore_id
        end = await self._moving(vm, "store-3" if there != id_of("store-3") else "store-1")
        try:
            yield
        finally:
            end()
            await self._until(lambda: not self._moves(vm))

    async def migrate(self, vm: ScratchVm, datastore: str) -> None:
        """See :meth:`HypervisorTarget.migrate`."""
        end = await self._moving(vm, datastore)
        end()
        await self._until(lambda: not self._moves(vm))

    async def _moving(self, vm: ScratchVm, datastore: str) -> Callable[[], None]:
        end = self.model.begin_move(id_of(vm.name), datastore)
        await self._until(lambda: self._moves(vm))
        return end

    def _moves(self, vm: ScratchVm) -> bool:
        return self.model.busy_with(id_of(vm.name)) == "storage-vmotion"

    async def power_off(self, vm: ScratchVm) -> None:
        """See :meth:`HypervisorTarget.power_off`."""
        self.model.cut_power(id_of(vm.name))

    async def power_on(self, vm: ScratchVm) -> None:
        """See :meth:`HypervisorTarget.power_on`."""
        self.model.power_on(id_of(vm.name))
        await self._until(lambda: self.model.is_on(id_of(vm.name)))

    @staticmethod
    async def _until(met: Callable[[], bool]) -> None:
        while not met():  # noqa: ASYNC110  # the model tells nobody
            await asyncio.sleep(_LOOK_S)

    # -- hooks: the management server -------------------------------------------------------------

    async def restart(self) -> None:
        """See :meth:`.Target.restart`; the hosts finish what they have begun."""
        await self.server.restart()

    async def expire_sessions(self) -> None:
        """See :meth:`.Target.expire_sessions`."""
        self.server.sessions += 1

    @asynccontextmanager
    async def skewed_clock(self, skew_s: float) -> AsyncIterator[None]:
        """See :meth:`.Target.skewed_clock`."""
        self.skew_s = skew_s
        try:
            yield
        finally:
            self.skew_s = 0.0

    @asynccontextmanager
    async def lost_answers(self, operation: str) -> AsyncIterator[None]:
        """See :meth:`.Target.lost_answers`."""
        with self.server.lost(operation):
            yield

    @asynccontextmanager
    async def slow_calls(self, operation: str, delay_s: float) -> AsyncIterator[None]:
        """See :meth:`.Target.slow_calls`; a VM is busy from the start of a slow operation on."""
        site = {
            "create_snapshot": Site.LATE_CREATE,
            "remove_snapshot": Site.LATE_REMOVE,
            "consolidate": Site.LATE_REMOVE,
        }.get(operation)
        if site is None:
            with self.server.slow(operation, delay_s):
                yield
            return
        self.model.faults.delay(delay_s)
        with self.model.faults.held(site, *map(id_of, VMS)):
            yield

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[None]:
        """See :meth:`.Target.unreachable`; what it was sent meanwhile, it does afterwards."""
        with self.server.unreachable():
            yield
