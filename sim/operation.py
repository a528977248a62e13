"""A task of the modelled hypervisor: its turn, its VM, and the caller who may have gone away.

A task is a chain of callbacks with one future at its end. The future being cancelled changes
nothing: the task runs on and completes, as tasks of a vCenter do when their client hangs up.

An estate has one create and one remove per VM, so what these classes do is most of what the model
costs; they are written with few calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

from ..drivers.errors import DriverError, UnknownOutcomeError
from .draws import lognormal
from .fabric import Fabric
from .slots import Slots
from .vmstate import VmState

T = TypeVar("T")


def occupy(fabric: Fabric, state: VmState, operation: str) -> None:
    """Claim a free VM for an operation; every other one finds it busy until :func:`vacate`."""
    state.operation = operation
    fabric.in_flight += 1


def vacate(fabric: Fabric, state: VmState) -> None:
    """Let go of a VM; what had to wait for that happens now, in the order of arrival."""
    state.operation = ""
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
        Its uniforms: 0 task latency, 5 lost answer, 6 slow task; the others by subclass. Where no
        faults can happen, only the first three are needed.
    future:
        Who waits.
    """

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
        occupy(self.fabric, self.state, self.name)
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
        if fabric.faulty and self._strikes(6, fabric.faults.slow_task_probability, "slow-task"):
            delay_s += fabric.faults.slow_task
        fabric.env.after(delay_s, self._work)

    def _work(self) -> None:
        """The task's first action on the VM."""
        raise AssertionError(f"{type(self).__name__} does nothing")

    def _strikes(self, uniform: int, probability: float, fault: str) -> bool:
        """Whether a fault happens here; logged when it does."""
        fabric = self.fabric
        now_s = fabric.env.now
        if self.draw[uniform] >= probability or not fabric.faults.active(now_s):
            return False
        fabric.add(now_s, "world.fault", "", self.vm_id, fault)
        return True

    def _stun(self, now_s: float) -> None:
        self.state.stunned = True
        self.fabric.add(now_s, "world.vm.stunned", "", self.vm_id)

    def _unstun(self, now_s: float) -> None:
        self.state.stunned = False
        self.fabric.add(now_s, "world.vm.unstunned", "", self.vm_id)

    def _answer(self, answer: T | DriverError) -> None:
        """The task is over: free its places and the VM, and tell the caller if there is one."""
        fabric = self.fabric
        if fabric.faulty and self._strikes(5, fabric.faults.lost_answer_probability, "lost-answer"):
            reason = "the session was lost before the answer came"
            answer = UnknownOutcomeError(self.name, self.vm_id, reason)
        self.vcenter.leave()
        if self.host is not None:
            self.host.leave()
        vacate(fabric, self.state)
        future = self.future
        if future.done():
            return
        if isinstance(answer, DriverError):
            future.set_exception(answer)
        else:
            future.set_result(answer)
