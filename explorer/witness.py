"""Somebody who looks at the world at the very instant at which something happens to it."""

from __future__ import annotations

from ..drivers.records import VmId
from ..sim.array_calls import ArrayEvent
from ..sim.vmstate import VmState
from ..sim.world import World
from .evidence import PREFIX, Cut, Lying, Move
from .watch import WatchedLog


class Witness:
    """Notes where VMs lay when arrays cut, and when they arrived elsewhere.

    Attributes
    ----------
    cuts, moves:
        In order of time.
    foreign:
        The snapshots that each VM had at the start.
    loose:
        Those of them of which only the delta was there.
    """

    def __init__(self, world: World, log: WatchedLog) -> None:
        self._world = world
        self._states: list[VmState] = [
            state for one in world.hypervisors.values() for state in one.states.values()
        ]
        self._by_id = {state.vm.id: state for state in self._states}
        self.cuts: list[Cut] = []
        self._elsewhere = world._fabric.delta_store
        self.moves = [Move(0.0, self._may_lie(state)) for state in self._states]
        self.foreign: dict[VmId, tuple[str, ...]] = {
            state.vm.id: tuple(one.ref.snapshot_id for one in state.chain) for state in self._states
        }
        self.loose = frozenset(
            one.ref.snapshot_id for state in self._states for one in state.chain if one.loose
        )
        log.watch(ArrayEvent.CUT, self._cut)
        log.watch("world.vm.relocated", self._moved)

    def _cut(self, at_s: float, array_id: str, detail: str) -> None:
        self.cuts.append(
            Cut(at_s, array_id, tuple(detail.split(" ")), tuple(map(self._lying, self._states)))
        )

    def _moved(self, at_s: float, vm_id: str, _detail: str) -> None:
        self.moves.append(Move(at_s, self._may_lie(self._by_id[vm_id])))

    def _may_lie(self, state: VmState) -> Lying:
        """With the place of deltas that it may come to stand on before it moves again."""
        return Lying(state.vm, self._elsewhere.get(state.guest))

    def _lying(self, state: VmState) -> Lying:
        below = len(state.chain) > 1 or any(one.foreign for one in state.chain)
        return Lying(state.vm, self._elsewhere.get(state.guest) if below else None)

    def restorable(self) -> frozenset[str]:
        """Tags of the group snapshots that arrays hold, complete and not being deleted."""
        return frozenset(
            held.snapshot.ref.tag
            for array in self._world.arrays.values()
            for held in array._held.values()
            if held.complete and held.valid and not held.deleting
        )

    def leftovers(self, job_id: str) -> list[tuple[str, str]]:
        """What the hypervisors and arrays hold of a job now: a sentence and a tag for each."""
        found: list[tuple[str, str]] = []
        for state in self._states:
            found += [
                (f"{state.vm.id} has {'a delta of ' * one.loose}{one.ref.tag}", one.ref.tag)
                for one in state.chain
                if not one.foreign and _is_of(one.ref.tag, job_id)
            ]
        for array in self._world.arrays.values():
            found += [
                (f"{array.id} holds {held.snapshot.ref.tag}", held.snapshot.ref.tag)
                for held in array._held.values()
                if _is_of(held.snapshot.ref.tag, job_id)
            ]
        return found


def _is_of(tag: str, job_id: str) -> bool:
    number = tag.removeprefix(f"{PREFIX}{job_id}-")
    return number != tag and number.isdecimal()
