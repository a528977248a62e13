"""What a job is asked to do: the ``job`` section of a scenario or of a live configuration."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..drivers.records import PowerState
from ..quantity import Seconds

Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of a configuration file: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(Section):
    """A selection rule. Its own fields must all hold; patterns are shell globs, case-insensitive.

    ``any``/``all``/``not`` combine further rules; a rule without a field selects every VM.
    """

    name: str | None = None
    folder: str | None = None
    cluster: str | None = None
    datastore: str | None = None
    tag: str | None = None
    power: PowerState | None = None
    any: tuple[Rule, ...] = ()
    all: tuple[Rule, ...] = ()
    negate: Rule | None = Field(default=None, alias="not")


class Selection(Section):
    """The VMs to protect: those that ``include`` matches and ``exclude`` does not.

    Templates are never selected: no hypervisor snapshots them.
    """

    include: Rule = Rule()
    exclude: Rule | None = None


class QuiescePolicy(StrEnum):
    """What to do about freezing a guest.

    ``REQUIRE``: a VM whose guest does not freeze is not protected. ``DEGRADE``: it is taken
    crash-consistent instead. ``SKIP``: the guest is never asked to freeze.
    """

    REQUIRE = "require"
    DEGRADE = "degrade"
    SKIP = "skip"


class QuiesceOverride(Section):
    """A policy for the VMs that a rule matches; the first override that matches wins."""

    match: Rule
    policy: QuiescePolicy


class Quiesce(Section):
    """Quiesce policy per VM, and how long a guest may take to freeze.

    The default limit of 900 s is the time after which VMware Tools gives up (flynn/flynn#3952).
    """

    policy: QuiescePolicy = QuiescePolicy.DEGRADE
    timeout: Seconds = 900.0
    overrides: tuple[QuiesceOverride, ...] = ()


class Limits(Section):
    """How many operations may run at once; None means no limit.

    A create or remove needs a place in each of its scopes at the same time. Defaults: 30 creates
    and 30 removes per datastore (SnapCenter for VMware), 8 per host, and 5 groups at once.
    """

    create_per_vcenter: Count | None = 64
    create_per_host: Count | None = 8
    create_per_datastore: Count | None = 30
    remove_per_vcenter: Count | None = 64
    remove_per_host: Count | None = 8
    remove_per_datastore: Count | None = 30
    groups: Count | None = 5
    calls_per_array: Count | None = None
    """Group calls at once per array; the array's own capability bounds it further."""


class Timeouts(Section):
    """After how long the orchestrator stops waiting for an answer.

    The operation may still complete later; its tag is then looked for. ``create`` counts on top of
    the quiesce timeout. Defaults: ``array`` 600 s (SnapCenter's connection timeout), ``fence`` 7 s
    (ONTAP consistency groups). ``settle`` bounds the search, after the last group, for creates
    whose answer was lost; by then a hung freeze has ended too (VMware Tools: 900 s).
    """

    create: Seconds = 300.0
    remove: Seconds = 4 * 3600.0
    array: Seconds = 600.0
    fence: Seconds = 7.0
    query: Seconds = 60.0
    settle: Seconds = 900.0


class Retry(Section):
    """How often a call that certainly did not happen is repeated, and after which pauses.

    The pause before repetition k is ``first_pause * factor**(k-1)``, made longer by a random share
    of up to ``jitter`` so that calls refused together do not come back together.
    """

    attempts: Count = 4
    first_pause: Seconds = 2.0
    factor: Annotated[float, Field(ge=1)] = 2.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.25


class OnVmFailure(StrEnum):
    """What a VM that cannot be snapshotted does to its group."""

    CONTINUE = "continue"
    FAIL_GROUP = "fail-group"


class StrategyName(StrEnum):
    """The grouping strategies that ship; a Python caller may pass its own function."""

    ALL_AT_ONCE = "all-at-once"
    PER_COMPONENT = "per-component"
    CHUNKS = "chunks"
    PER_DATASTORE = "per-datastore"


class JobSpec(Section):
    """One job: which VMs, in which groups, under which policies and limits.

    ``chunk_vms`` is read by the ``chunks`` strategy only. ``physical_raw_disks`` and
    ``independent_disks`` say whether units that hold only such disks are snapshotted; no VM
    snapshot holds these disks still, so their level is crash-consistent at best.
    """

    select: Selection = Selection()
    strategy: StrategyName = StrategyName.PER_COMPONENT
    chunk_vms: Count = 10
    quiesce: Quiesce = Quiesce()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    on_vm_failure: OnVmFailure = OnVmFailure.CONTINUE
    physical_raw_disks: bool = True
    independent_disks: bool = False
    recuts: Annotated[int, Field(ge=0)] = 2
    """How often VMs that moved while the array was cutting are cut again where they are now."""

    @model_validator(mode="after")
    def _chunk_only_with_chunks(self) -> JobSpec:
        default = type(self).model_fields["chunk_vms"].default
        if self.chunk_vms != default and self.strategy is not StrategyName.CHUNKS:
            raise ValueError(f"chunk_vms has no meaning with strategy {self.strategy.value!r}")
        return self
