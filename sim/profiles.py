"""How long a hypervisor takes for what it does: named profiles, every number with its source.

``HypervisorProfile.model_validate({"profile": "esxi-8", "stun_create": "300 ms"})`` is the profile
``esxi-8`` with one number replaced. Confidence is H (documented or measured there), M (one report,
or old) or L (unsourced or far from it); a number without a source says "inference" and why.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from ..orchestrator.spec import Count, Section
from ..quantity import Bytes, BytesPerSecond, Seconds
from .profile_data import PROFILES, SOURCES

Sigma = Annotated[float, Field(ge=0, le=3)]
Slope = Annotated[float, Field(ge=0, le=1000)]
Rate = Annotated[BytesPerSecond, Field(gt=0)]


class MergeAlgorithm(StrEnum):
    """How a delta is merged into its base while the VM runs."""

    MIRROR = "mirror"
    """One pass with guest writes going to both sides (ESXi from 6.0 Update 1)."""
    ITERATIVE = "iterative"
    """Pass after pass over what was written during the last one (before 6.0 Update 1)."""
    BY_HOST_VERSION = "by-host-version"
    """Whichever of the two the version of the VM's host has."""


class WithoutTools(StrEnum):
    """What a request to quiesce does to a running VM whose tools are not there."""

    REFUSE = "refuse"
    """The call fails as a refused freeze, so that the quiesce policy decides."""
    IGNORE = "ignore"
    """The request is dropped without a word and the level is crash: the vSphere API as such."""


class Phases(Section):
    """A share for each phase of a create and of a merge."""

    freeze: Slope = 0.0
    stun_create: Slope = 0.0
    thaw: Slope = 0.0
    merge: Slope = 0.0
    stun_remove: Slope = 0.0


class UnderLoad(Section):
    """How much longer a phase takes on a busy host: ``(1 + a k) (1 + b w)`` times its time alone.

    ``a`` stands in ``per_operation``, and ``k`` is the number of further creates and merges that
    are under way on the VM's host as the phase begins. ``b`` stands in ``per_writer``, and ``w`` is
    what the running guests of that host write, in guests that write all the time; a guest with rate
    r counts as ``1 - exp(-r / full_write_rate)`` (see :class:`.writers.Writers`).
    """

    per_operation: Phases = Phases()
    per_writer: Phases = Phases()
    full_write_rate: Rate = 10e6


class HypervisorProfile(Section):
    """The numbers of one kind of hypervisor. Times that vary are lognormal: median and sigma.

    ``sources`` names, for every field, where its number comes from.
    """

    profile: str = "esxi-8"
    sources: dict[str, str] = Field(default_factory=dict)

    query_latency: Seconds
    """Inventory and listing calls."""
    task_latency: Seconds
    """Median time from a task's turn to its first action on the VM."""
    task_latency_sigma: Sigma
    vcenter_tasks: Count | None
    """Snapshot tasks that one vCenter works on at once; more wait, first come first served."""
    host_tasks: Count | None
    """Snapshot tasks that one host works on at once; more wait."""
    create_start: Seconds
    """For which a create prepares before it freezes the guest; varies as the task's latency."""
    busy_retry: Seconds
    """After what time a caller that found the VM busy should come back."""

    linux_freeze: Seconds
    """Median of the freeze call in a Linux guest, without the flush of dirty data."""
    windows_freeze: Seconds
    """Median from the request until Windows' writers are frozen, without the flush."""
    freeze_sigma: Sigma
    flush_rate: Rate
    """At which a freezing guest writes its dirty data out."""
    thaw_call: Seconds
    """Median of the thaw call."""
    thaw_sigma: Sigma
    tools_timeout: Seconds
    """After which the guest tools thaw the guest, whatever the caller allowed."""
    vss_hold: Seconds
    """How long a Windows guest holds its writes before it lets go of them by itself."""
    vss_freeze: Seconds
    """How long its writers stay frozen before they thaw by themselves."""
    without_tools: WithoutTools

    metadata_lock: Seconds
    """For which creating one delta file holds the metadata of a VMFS datastore; one at a time."""
    delta_create: Seconds
    """For which it takes on datastores without such a lock (NFS and others); in parallel."""
    stun_create: Seconds
    """Median for a VM with one disk."""
    stun_create_sigma: Sigma
    stun_create_per_disk: Seconds
    """For every disk after the first."""
    snapshot_depth: Count
    """Most snapshots in one chain."""
    delta_grain: Annotated[Bytes, Field(gt=0)]
    """A delta grows by this, however little was written."""
    delta_base: Bytes
    """What the delta of one disk holds before anything is written: its own metadata."""

    merge: MergeAlgorithm
    merge_start: Seconds
    """For which a merge prepares before it moves its first byte, whatever the delta holds."""
    merge_rate: Rate
    """Most that one merge moves; less when the array is busy."""
    merge_sigma: Sigma
    """Of the time that a merge takes to prepare and to move its bytes."""
    merge_passes: Count
    """Iterative merge: passes with the VM running before the rest is forced."""
    merge_stun_below: Seconds
    """Iterative merge: the rest is merged with the VM stopped when that takes at most this."""
    stun_remove: Seconds
    """Median stop of the VM to switch from delta to base, for a VM with one disk."""
    stun_remove_sigma: Sigma
    stun_remove_per_disk: Seconds

    vmotion: Seconds
    """Copy of memory before the switch to the other host."""
    vmotion_switchover: Seconds
    """For which the VM stands still at the switch, of host or of storage."""
    storage_vmotion_rate: Rate
    storage_vmotion_share: Annotated[float, Field(gt=0, le=1)]
    """Share of a disk's capacity that is allocated and has to be copied."""

    under_load: UnderLoad | None
    """What operations on the same host cost each other; None for nothing."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_named(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        name = data.get("profile", "esxi-8")
        if not isinstance(name, str) or name not in PROFILES:
            raise ValueError(f"no hypervisor profile {name!r}; there are {', '.join(PROFILES)}")
        sources = dict.fromkeys(
            (key for key in data if key in PROFILES[name]), "set in the configuration"
        )
        given = data.get("sources")
        if isinstance(given, dict):
            sources = given
        return {
            **PROFILES[name],
            **data,
            "profile": name,
            "sources": {**SOURCES[name], **sources},
        }


def hypervisor_profile(name: str) -> HypervisorProfile:
    """The profile of this name.

    Raises
    ------
    pydantic.ValidationError
        There is no such profile; the message lists those that there are.
    """
    return HypervisorProfile.model_validate({"profile": name})


_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\D*build\D*(\d+))?", re.IGNORECASE)
_FIRST_MIRROR_BUILD = 3029758
"""ESXi 6.0 Update 1, which still calls itself 6.0.0 (build number remembered, not re-checked)."""


def algorithm_for(profile: HypervisorProfile, host_version: str) -> MergeAlgorithm:
    """The merge algorithm of a host; a version that cannot be read counts as a new one."""
    if profile.merge is not MergeAlgorithm.BY_HOST_VERSION:
        return profile.merge
    match = _VERSION.search(host_version)
    if match is None:
        return MergeAlgorithm.MIRROR
    major, minor, patch = int(match[1]), int(match[2]), int(match[3] or 0)
    if (major, minor, patch) == (6, 0, 0) and match[4]:
        is_old = int(match[4]) < _FIRST_MIRROR_BUILD
    else:
        is_old = (major, minor, patch) < (6, 0, 0)
    return MergeAlgorithm.ITERATIVE if is_old else MergeAlgorithm.MIRROR


def profile_sources_table() -> list[tuple[str, str, str, str]]:
    """Rows of profile, field, value as written, source: the documentation's table."""
    return [
        (name, field, "none" if value is None else str(value), SOURCES[name][field])
        for name, values in PROFILES.items()
        for field, value in values.items()
    ]
