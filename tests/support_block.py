"""A world in block fidelity that writes often enough for every mistake to show."""

from __future__ import annotations

from typing import Any

from support_world import Bench, config, estate

from stillframe.drivers.contracts import (
    ConsistencyLevel,
    GroupSnapshot,
    GroupSnapshotRequest,
    VmSnapshot,
)
from stillframe.drivers.records import Vm
from stillframe.sim.block_plane import BlockPlane
from stillframe.sim.block_verify import Verdict

BUSY = {"rate": 400_000, "working_set": 4_000_000, "locality": 0.8, "write_size": 4096}
"""About a hundred writes per second to a thousand blocks."""

FILESYSTEM = ConsistencyLevel.FILESYSTEM
CRASH = ConsistencyLevel.CRASH


class BlockBench(Bench):
    """A world of these VMs; ``more`` goes into its configuration."""

    def __init__(
        self,
        *vms: Vm,
        seed: int = 1,
        guest: dict[str, Any] | None = None,
        hypervisor: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        rule = {"profile": BUSY, "dirty_age": 3, **(guest or {})}
        settings = {"fidelity": "block", "block": {"most_writes_per_s": 1000}, **more}
        self.estate = estate(*vms)
        self.config = config(hypervisor, rule, **settings)
        super().__init__(self.estate, self.config, seed)
        plane = self.world.plane
        assert plane is not None
        self.plane: BlockPlane = plane

    async def cut(self, array: str, *units: str, tag: str = "cut") -> GroupSnapshot:
        """One group snapshot."""
        request = GroupSnapshotRequest(tuple(units), tag, fence_timeout_s=60.0)
        return await self.world.arrays[array].snapshot_group(request)

    def verdict(
        self, what: VmSnapshot | str, level: ConsistencyLevel, *cuts: GroupSnapshot, **more: Any
    ) -> Verdict:
        """What these cuts hold of a VM."""
        vm_id = what if isinstance(what, str) else what.ref.vm_id
        return self.world.verify(vm_id, [cut.ref for cut in cuts], level, **more)
