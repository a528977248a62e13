"""A task of the modelled hypervisor: its turn, its VM, and the caller who may have gone away.

A task is a chain of callbacks with one future at its end. The future being cancelled changes
nothing: the task runs on and completes, as tasks of a vCenter do when their client hangs up.

An estate has one create and one remove per VM, so what these classes do is most of what the model
costs; they are written with few calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from ..drivers.errors import DriverError, UnknownOutcomeError
from .breakoff import drop_work_of
from .bridge import reject
from .draws import lognormal
from .fabric import Fabric
from .faults import Site
from .profiles import UnderLoad
from .slots import Slots
from .vmstate import Task, VmState

T = TypeVar("T")


def occupy(fabric: Fabric, state: VmState, operation: str, task: Task) -> None:
    """Claim a free VM for an operation; every other one finds it busy until :func:`vacate`."""
    state.operation = operation
    state.task = task
    fabric.in_flight += 1


def vacate(fabric: Fabric, state: VmState) -> None:
    """Let go of a VM; what had to wait for that happens now, in the order of arrival."""
    state.operation = ""
    state.task = None
    fabric.in_flight -= 1
    while state.deferred and not state.operation:
        state.deferred.pop(0)()


class Operation(Generic[T]):
    """Base of create and merge.

    Parameters
    ----------
    fabric, state:
        The surroundings and the VM, which is free.
    name:
        What callers are told when they find the VM busy, and the method named in errors.
    host, vcenter:
        The places that the task needs, in this order; a host of None has no limit.
    draw:
        Its uniforms: 0 task latency; the others by subclass.
    future:
        Who waits.
    """

    late: ClassVar[Site]
    lost_answer: ClassVar[Site]

    __slots__ = ("draw", "fabric", "future", "host", "name", "state", "vcenter", "vm_id")

    def __init__(
        self,
        fabric: Fabric,
        state: VmState,
        name: str,
        host: Slots | None,
        vcenter: Slots,
        draw: Sequence[float],
        future: asyncio.Future[T],
    ) -> None:
        self.fabric = fabric
        self.state = state
        self.vm_id = state.vm.id
        self.name = name
        self.host = host
        self.vcenter = vcenter
        self.draw = draw
        self.future = future

    def begin(self) -> None:
        """Occupy the VM and wait for a turn."""
        occupy(self.fabric, self.state, self.name, self)
        if self.host is None:
            self._at_host()
        else:
            self.host.enter(self._at_host)

    def _at_host(self) -> None:
        self.vcenter.enter(self._granted)

    def _granted(self) -> None:
        fabric = self.fabric
        profile = fabric.profile
        delay_s = lognormal(self.draw[0], profile.task_latency, profile.task_latency_sigma)
        sites = fabric.sites
        if sites is not None and sites.strikes(self.late, self.vm_id):
            delay_s += sites.faults.slow_task
        fabric.env.after(delay_s, self._work)

    def _slowed(self, load: UnderLoad, phase: str) -> float:
        """How many times its time alone a phase takes with what goes on on the host now."""
        host = self.host
        others = 0 if host is None else host.used - 1
        slower: float = 1.0 + getattr(load.per_operation, phase) * others
        per_writer: float = getattr(load.per_writer, phase)
        if per_writer:
            slower *= 1.0 + per_writer * self.fabric.writers.on_host(self.state.vm.host_id)
        return slower

    def _work(self) -> None:
        """The task's first action on the VM."""
        raise AssertionError(f"{type(self).__name__} does nothing")

    def break_off(self) -> None:
        """The VM's host is lost: the task ends as it stands, and its caller learns nothing."""
        dropped = drop_work_of(self.fabric, self)
        host, vcenter = self.host, self.vcenter
        if host is None or not host.withdraw(self._at_host):
            if not vcenter.withdraw(self._granted):
                vcenter.leave()
            if host is not None:
                host.leave()
        self._broken(dropped)
        vacate(self.fabric, self.state)
        reject(self.future, UnknownOutcomeError(self.name, self.vm_id, "its host was lost"))

    def _broken(self, dropped: list[str]) -> None:
        """Settle what is left of the work, of which these steps were to come next."""
        raise AssertionError(f"{type(self).__name__} cannot break off before {dropped}")

    def _happened(self) -> bool:
        """Whether what was under way counts as done: nobody can tell, so it is drawn."""
        fabric = self.fabric
        return fabric.draws.three("host-lost", self.vm_id, self.state.attempts)[0] < 0.5

    def _stun(self, now_s: float) -> None:
        self.state.stunned = True
        if self.fabric.plane is not None:
            self.fabric.plane.stunned(self.state.guest)
        self.fabric.add(now_s, "world.vm.stunned", "", self.vm_id)

    def _unstun(self, now_s: float) -> None:
        self.state.stunned = False
        if self.fabric.plane is not None:
            self.fabric.plane.unstunned(self.state.guest)
        self.fabric.add(now_s, "world.vm.unstunned", "", self.vm_id)

    def _answer(self, answer: T | DriverError) -> None:
        """The task is over: free its places and the VM, and tell the caller if there is one."""
        fabric, future = self.fabric, self.future
        self.vcenter.leave()
        if self.host is not None:
            self.host.leave()
        vacate(fabric, self.state)
        if future.done():
            return
        sites = fabric.sites
        if sites is not None and sites.strikes(self.lost_answer, self.vm_id):
            reason = "the connection broke before the answer came"
            answer = UnknownOutcomeError(self.name, self.vm_id, reason)
        if isinstance(answer, DriverError):
            future.set_exception(answer)
        else:
            future.set_result(answer)
