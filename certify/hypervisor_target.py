"""What a vendor says of a hypervisor: the one class to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from ..drivers.contracts import FileLocation, HypervisorDriver, Window
from ..drivers.records import DeviceIdentity
from .target import Target, is_base

PLAIN = "plain"
"""Role of the VM that every target has: running, quiesceable, one disk that snapshots hold."""
SECOND = "second"
"""Role of another such VM, so that two operations can run at once."""
WIDE = "wide"
"""Role of a running VM with two disks on two datastores; its home is on the first."""
OFF = "off"
"""Role of a VM that is powered off."""
TOOLLESS = "toolless"
"""Role of a running VM whose guest cannot be quiesced."""
INDEPENDENT = "independent"
"""Role of a running VM whose second disk takes no part in snapshots."""
RAW = "raw"
"""Role of a running VM whose second disk is a raw device mapping in physical mode."""
KEPT = "kept"
"""Role of a running VM that carries one snapshot of somebody else."""
APART = "apart"
"""Role of a running VM whose deltas are made on another datastore than its one disk lies on."""

ROLES = (PLAIN, SECOND, WIDE, OFF, TOOLLESS, INDEPENDENT, RAW, KEPT, APART)


@dataclass(frozen=True, slots=True)
class ScratchVm:
    """A VM that the kit may snapshot, and whose guest it may write in.

    Attributes
    ----------
    name:
        Its name in the inventory, unique there.
    datastores:
        Per disk, in the order of the inventory, the name of the datastore it lies on; None where
        there is none to name (a raw device).
    extents:
        The devices under those datastores by name, where known beforehand.
    raw_device:
        The device behind the disk of role ``raw``.
    foreign_snapshot:
        The name of the snapshot of role ``kept``.
    delta_datastore:
        The name of the datastore on which the deltas of role ``apart`` are made.
    capacities_bytes:
        The size of each disk, in the order of ``datastores``, where known beforehand.
    """

    name: str
    datastores: tuple[str | None, ...]
    extents: Mapping[str, tuple[DeviceIdentity, ...]] | None = None
    raw_device: DeviceIdentity | None = None
    foreign_snapshot: str | None = None
    delta_datastore: str | None = None
    capacities_bytes: tuple[int, ...] | None = None


@is_base
class HypervisorTarget(Target[HypervisorDriver]):
    """One hypervisor with VMs that may be snapshotted, and its driver.

    To override: ``connect`` and ``vms``; and as many hooks as the hypervisor allows.
    """

    async def vms(self) -> Mapping[str, ScratchVm]:
        """The scratch VMs by role (:data:`ROLES`); ``plain`` at least."""
        raise NotImplementedError

    # -- hooks: the guest ------------------------------------------------------------------------

    async def write(self, vm: ScratchVm, disk: int, block: int, data: bytes) -> None:
        """Hook: the guest writes a block (4 KiB) to a disk (0, 1, …), through to the disk.

        Returns when the write is acknowledged; while the guest is frozen or stunned, it waits.
        Blocks below 1,024 (4 MiB) may be asked for; where on the disk they lie is the target's
        affair, as long as each keeps its place.
        """
        raise NotImplementedError

    async def read(self, vm: ScratchVm, disk: int, block: int) -> bytes:
        """Hook: what the guest reads there, past its own cache."""
        raise NotImplementedError

    async def frozen_spans(self, vm: ScratchVm, since_s: float) -> Sequence[Window]:
        """Hook: when the guest's file systems stood frozen, by its own account, since then.

        A span that has not ended yet ends at infinity.
        """
        raise NotImplementedError

    # -- hooks: the datastores -------------------------------------------------------------------

    async def digest_of(self, vm: ScratchVm, file: FileLocation) -> str:
        """Hook: a digest of what a file of the VM holds on its datastore, read past the guest."""
        raise NotImplementedError

    async def files_of(self, vm: ScratchVm) -> frozenset[tuple[str, str]]:
        """Hook: datastore (name) and path of every disk file of the VM, not asked of the driver.

        Paths in the form that the driver gives them in a location.
        """
        raise NotImplementedError

    # -- hooks: what may go wrong ----------------------------------------------------------------

    def hung_agent(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile the guest's agent takes requests and answers none, nor acts on them."""
        raise NotImplementedError

    def failing_freeze(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile the guest refuses to freeze."""
        raise NotImplementedError

    def failing_merge(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile a removal takes the snapshot away and fails to merge its delta."""
        raise NotImplementedError

    def failing_create(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """Hook: meanwhile creating a snapshot fails after the guest was frozen."""
        raise NotImplementedError

    def migrating(self, vm: ScratchVm) -> AbstractAsyncContextManager[None]:
        """Hook: inside, a migration of the VM's disks is under way; at the end it is complete.

        The VM ends on another datastore than it began on.
        """
        raise NotImplementedError

    async def migrate(self, vm: ScratchVm, datastore: str) -> None:
        """Hook: move all disks and the home of the VM to the datastore of this name, and wait."""
        raise NotImplementedError

    async def power_off(self, vm: ScratchVm) -> None:
        """Hook: cut the VM's power; it stays off until :meth:`power_on`."""
        raise NotImplementedError

    async def power_on(self, vm: ScratchVm) -> None:
        """Hook: start the VM again, and return when its guest runs."""
        raise NotImplementedError
