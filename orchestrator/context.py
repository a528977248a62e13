"""What every part of a running job shares."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..drivers.contracts import ArrayDriver, HypervisorDriver, VmSnapshot
from ..drivers.records import Array, ArrayId, VCenterId, Vm
from ..errors import StillframeError
from ..topology.graph import Topology
from .discover import discover
from .events import EventLog
from .lease import Tenure
from .limits import Limiter, Scope, Scopes
from .mapping import Mapper, Needs
from .result import ArrayCall, VmOutcome
from .select import compile_rule
from .spec import JobSpec, QuiescePolicy, Retry


@dataclass(slots=True)
class VmWork:
    """One VM in the hands of a group."""

    vm: Vm
    driver: HypervisorDriver
    outcome: VmOutcome
    policy: QuiescePolicy
    create_scopes: Scopes
    remove_scopes: Scopes
    places: Scopes = ()
    """The limits in which the VM holds a place now."""
    tag: str = ""
    """Of the create that is made or comes next; given when the VM lines up for it."""
    snapshot: VmSnapshot | None = None
    needs: Needs | None = None
    cuts: tuple[ArrayCall, ...] = ()
    """The completed array calls that hold all units that ``needs`` names."""
    verified: bool = False
    """After the cut the VM snapshot still existed, and the VM still lay on these units."""
    loose_before: bool = True
    """A delta without a snapshot lay on the VM before its release, or nobody looked: what lies
    there afterwards is not what a clean release left."""

    @property
    def usable(self) -> bool:
        """The VM has a snapshot to rely on, and nothing has spoken against the VM since."""
        return self.snapshot is not None and not self.outcome.reason


def _no_clock() -> float:
    raise StillframeError("a job's clock was read before the job ran")


@dataclass(slots=True)
class Context:
    """The drivers, the policies and the book-keeping of one job.

    ``random`` decides the jitter of retries and nothing else; ``topology`` is replaced when
    snapshot metadata names something that it does not know.
    """

    job_id: str
    spec: JobSpec
    hypervisors: Mapping[VCenterId, HypervisorDriver]
    arrays: Mapping[ArrayId, ArrayDriver]
    topology: Topology
    random: random.Random
    log: EventLog
    journal: Tenure
    mapper: Mapper = field(init=False)
    limiter: Limiter = field(default_factory=Limiter)
    retries: int = 0
    fallbacks: int = 0
    tags: int = 0
    array_descriptions: Sequence[Array] = ()
    now_s: Callable[[], float] = _no_clock
    """The time on the running loop's clock, in seconds; set when the job starts to run."""

    def __post_init__(self) -> None:
        self.mapper = Mapper(self.topology, self.spec)

    def emit(self, kind: str, group: str, subject: str, detail: str = "") -> None:
        """Log an event now."""
        self.log.add(self.now_s(), kind, group, subject, detail)

    @property
    def tag_prefix(self) -> str:
        """Every tag of this job begins with this, and no other job's tag does."""
        return f"stillframe-{self.job_id}-"

    def new_tag(self) -> str:
        """A tag that this job has not used before."""
        self.tags += 1
        return f"{self.tag_prefix}{self.tags}"

    def owns(self, tag: str) -> bool:
        """Whether this is a tag of this job: its prefix, then a number, and no more.

        Without the number, the tags of job ``a-1`` would count as tags of a job ``a``.
        """
        number = tag.removeprefix(self.tag_prefix)
        return number != tag and number.isascii() and number.isdecimal()

    async def pause(self, attempt: int, at_least_s: float | None = None) -> None:
        """Wait before repeating a call for the ``attempt``-th time (from 1)."""
        self.retries += 1
        await asyncio.sleep(max(pause_s(self.spec.retry, attempt, self.random), at_least_s or 0.0))

    async def refresh_topology(self) -> None:
        """Read the estate again: something lies where the inventory knew nothing."""
        async with asyncio.timeout(self.spec.timeouts.query):
            estate = await discover(self.hypervisors, self.arrays, self.array_descriptions)
        self.topology = Topology(estate)
        self.mapper = Mapper(self.topology, self.spec)


def pause_s(retry: Retry, attempt: int, source: random.Random) -> float:
    """The pause before repetition ``attempt`` (from 1), in seconds; see :class:`Retry`."""
    return retry.first_pause * retry.factor ** (attempt - 1) * (1 + retry.jitter * source.random())


class WorkFactory:
    """Makes :class:`VmWork` for the VMs of a job: its driver, policy and limits."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._overrides = [
            (compile_rule(override.match, context.topology), override.policy)
            for override in context.spec.quiesce.overrides
        ]
        self._scopes: dict[tuple[str | None, ...], tuple[Scopes, Scopes]] = {}

    def work(self, vm: Vm, outcome: VmOutcome) -> VmWork:
        """The work on one VM."""
        stores = dict.fromkeys(
            disk.datastore_id for disk in vm.disks if disk.datastore_id and disk.in_vm_snapshot
        )
        place = (vm.vcenter_id, vm.host_id, *stores)
        scopes = self._scopes.get(place)
        if scopes is None:  # VMs of one host and datastore share their limits
            scopes = self._scopes[place] = self._scopes_at(vm, [*stores])
        return VmWork(
            vm, self._context.hypervisors[vm.vcenter_id], outcome, self._policy(vm), *scopes
        )

    def _policy(self, vm: Vm) -> QuiescePolicy:
        for matches, policy in self._overrides:
            if matches(vm):
                return policy
        return self._context.spec.quiesce.policy

    def _scopes_at(self, vm: Vm, stores: Sequence[str]) -> tuple[Scopes, Scopes]:
        limits = self._context.spec.limits
        create = self._limits_at(
            vm,
            stores,
            "create",
            (limits.create_per_vcenter, limits.create_per_host, limits.create_per_datastore),
        )
        remove = self._limits_at(
            vm,
            stores,
            "remove",
            (limits.remove_per_vcenter, limits.remove_per_host, limits.remove_per_datastore),
        )
        return create, remove

    def _limits_at(
        self,
        vm: Vm,
        stores: Sequence[str],
        operation: str,
        capacities: tuple[int | None, int | None, int | None],
    ) -> Scopes:
        per_vcenter, per_host, per_store = capacities
        scope = self._context.limiter.scope
        found: list[Scope | None] = [scope(f"{operation}_per_vcenter", vm.vcenter_id, per_vcenter)]
        if vm.host_id is not None:
            found.append(scope(f"{operation}_per_host", vm.host_id, per_host))
        found.extend(
            scope(f"{operation}_per_datastore", store_id, per_store) for store_id in stores
        )
        return tuple(one for one in found if one is not None)
