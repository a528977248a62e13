"""A host is lost: its VMs lose power, what it worked on breaks off, and HA starts them elsewhere.

Nothing of the host's answers any more. A caller who waits is told that nobody knows; a snapshot
that was half made exists or does not, a merge that was under way has taken its snapshot out of the
list or has not, either by a draw. Deltas and snapshots stay as they were: they lie on the
datastores. Until a VM is started elsewhere, the vCenter lists it and refuses to touch it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..drivers.records import Host, HostId, PowerState
from .fabric import Fabric
from .migrate import power
from .vmstate import VmState


class HostLoss:
    """One host that is lost at some time.

    Parameters
    ----------
    fabric:
        The surroundings.
    states:
        All VMs of the world.
    hosts:
        All hosts of the world.
    host:
        The one that is lost.
    restart_after_s:
        Time until its VMs are started on other hosts of its cluster, those that ran; on the host
        itself, which is back then, where the cluster has no other.
    """

    def __init__(
        self,
        fabric: Fabric,
        states: Sequence[VmState],
        hosts: Sequence[Host],
        host: Host,
        restart_after_s: float,
    ) -> None:
        self._fabric = fabric
        self._states = states
        self._hosts = hosts
        self._host = host
        self._restart_after_s = restart_after_s

    def begin(self) -> None:
        """The host is lost now; a host that is lost already stays so."""
        fabric, host_id = self._fabric, self._host.id
        if host_id in fabric.lost_hosts:
            return
        fabric.lost_hosts[host_id] = None
        fabric.add(fabric.env.now, "world.host.lost", "", host_id, "")
        gone = [state for state in self._states if state.vm.host_id == host_id]
        ran = [state.running for state in gone]
        for state in gone:
            state.unreachable = True
        for state in gone:
            if state.task is not None:
                state.task.break_off()
            if state.running:
                cut_off(fabric, state)
        fabric.env.after(self._restart_after_s, self._restart, gone, ran)

    def _restart(self, states: Sequence[VmState], ran: Sequence[bool]) -> None:
        fabric = self._fabric
        others = self._others()
        if others == [self._host.id]:
            del fabric.lost_hosts[self._host.id]
        for number, (state, running) in enumerate(zip(states, ran, strict=True)):
            state.unreachable = False
            state.vm = replace(state.vm, host_id=others[number % len(others)])
            fabric.add(
                fabric.env.now, "world.vm.restarted", "", state.vm.id, state.vm.host_id or ""
            )
            if running:
                power(fabric, state, PowerState.ON, clean=True)

    def _others(self) -> list[HostId]:
        """Where HA starts the VMs, in turn; a host outside a cluster has only itself."""
        host, lost = self._host, self._fabric.lost_hosts
        if host.cluster_id is None:
            return [host.id]
        cluster = [other.id for other in self._hosts if other.cluster_id == host.cluster_id]
        return [other for other in cluster if other not in lost] or [host.id]


def cut_off(fabric: Fabric, state: VmState) -> None:
    """A running VM loses its power; whatever held its guest has nothing to hold any more."""
    now_s = fabric.env.now
    if state.frozen:
        state.frozen = False
        if fabric.plane is not None:
            fabric.plane.thawed(state.guest)
        fabric.add(now_s, "world.vm.thawed", "", state.vm.id)
    if state.stunned:
        state.stunned = False
        if fabric.plane is not None:
            fabric.plane.unstunned(state.guest)
        fabric.add(now_s, "world.vm.unstunned", "", state.vm.id)
    power(fabric, state, PowerState.OFF, clean=False)
