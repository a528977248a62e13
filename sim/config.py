"""The configuration of a modelled world, and the events scheduled in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from ..drivers.records import DatastoreId, PowerState
from ..orchestrator.spec import Section
from ..quantity import Bytes, Seconds
from .array_profiles import ArrayProfile
from .block_workload import BlockSettings
from .faults import Faults
from .guest_rules import GuestRule
from .profiles import HypervisorProfile, hypervisor_profile

DEFAULT_ARRAY = "default"


class WorkingDirectory(Section):
    """VMs whose deltas do not lie beside their disks (in vSphere, ``workingDir``).

    ``match`` is a shell glob on the VM's name, ``datastore`` an identifier or a name.
    """

    match: str
    datastore: str


class WorldConfig(Section):
    """Everything about a modelled world that is not the estate itself.

    Attributes
    ----------
    profile_file:
        A profile that was fitted to live runs (docs/calibrating.md), relative to the configuration:
        it gives ``hypervisor`` and the default of ``arrays``, from which the numbers given here
        differ.
    hypervisor:
        A named profile, single numbers of it replaced: ``{profile: esxi-8, stun_create: 1 s}``.
    arrays:
        Profiles by array identifier or name; ``default`` for all others.
    guests:
        Rules for what guests write; the first match wins.
    working_directories:
        Where deltas go if not beside the disks; the first match wins.
    faults:
        What goes wrong, where and how often; see :class:`.faults.Site`.
    fidelity:
        ``flow`` follows rates and sizes, for any number of VMs; ``block`` follows every write, so
        that snapshots can be read back and judged.
    block:
        Numbers of block fidelity.
    """

    profile_file: str | None = None
    hypervisor: HypervisorProfile = Field(default_factory=lambda: hypervisor_profile("esxi-8"))
    arrays: dict[str, ArrayProfile] = Field(default_factory=dict)
    guests: tuple[GuestRule, ...] = ()
    working_directories: tuple[WorkingDirectory, ...] = ()
    faults: Faults = Faults()
    fidelity: Literal["flow", "block"] = "flow"
    block: BlockSettings = BlockSettings()

    @field_validator("profile_file")
    @classmethod
    def _is_read_with_its_file(cls, name: str | None) -> str | None:
        if name is not None:
            raise ValueError(
                "a profile file is only read for a configuration that is a file itself"
            )
        return name

    @field_validator("arrays")
    @classmethod
    def _has_default(cls, arrays: dict[str, ArrayProfile]) -> dict[str, ArrayProfile]:
        return arrays if DEFAULT_ARRAY in arrays else {DEFAULT_ARRAY: ArrayProfile(), **arrays}

    def array_profile(self, array_id: str, name: str) -> ArrayProfile:
        """The profile of an array: by identifier, else by name, else the default."""
        arrays = self.arrays
        given = arrays.get(array_id) or arrays.get(name) or arrays.get(DEFAULT_ARRAY)
        return given or ArrayProfile()


class _OnVm(Section):
    at: Seconds
    """When, from the start of the world."""
    vm: str
    """The VM's identifier, or its name if only one has it."""


class VmotionEvent(_OnVm):
    """A VM moves to another host (identifier or name)."""

    kind: Literal["vmotion"] = "vmotion"
    host: str


class StorageVmotionEvent(_OnVm):
    """A VM's disks move to another datastore (identifier or name).

    ``disks`` are the keys of those that move, all and the VM's home if absent; ``copy_size`` is
    what has to be copied, by default the profile's allocated share of the disks.
    """

    kind: Literal["storage-vmotion"] = "storage-vmotion"
    datastore: DatastoreId
    disks: tuple[int, ...] | None = None
    copy_size: Bytes | None = None


class PowerEvent(_OnVm):
    """A VM is powered on or off. ``cut`` powers off without shutting the guest down."""

    kind: Literal["power"] = "power"
    to: Literal[PowerState.ON, PowerState.OFF, PowerState.SUSPENDED]
    cut: bool = False


class SnapshotRemovedEvent(_OnVm):
    """Somebody at the console removes the VM's newest snapshot, if it was taken since the start."""

    kind: Literal["snapshot-removed"] = "snapshot-removed"


class HostLostEvent(Section):
    """A host (identifier or name) is lost: its VMs lose power and are started elsewhere.

    ``restart_after`` is the time until the others of its cluster have them running again, if they
    ran before; a host that has no others is back itself by then.
    """

    at: Seconds
    """When, from the start of the world."""
    kind: Literal["host-lost"] = "host-lost"
    host: str
    restart_after: Seconds = 180.0


WorldEvent = Annotated[
    VmotionEvent | StorageVmotionEvent | PowerEvent | SnapshotRemovedEvent | HostLostEvent,
    Field(discriminator="kind"),
]
