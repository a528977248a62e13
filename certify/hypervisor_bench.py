"""What the checks of hypervisor drivers work with."""

from __future__ import annotations

from collections.abc import Mapping

from ..drivers.contracts import (
    HypervisorCapabilities,
    HypervisorDriver,
    VmSnapshot,
    VmSnapshotRef,
    VmSnapshotRequest,
    VmSnapshotState,
)
from ..drivers.errors import DriverError, HappenedError, NotFoundError
from ..drivers.records import Inventory, PowerState, Vm, VmId
from .array_target import BLOCK_BYTES
from .bench import Bench
from .effort import Effort
from .hypervisor_target import HypervisorTarget, ScratchVm
from .recording import CallLog
from .requirement import Blocked, Violation

QUIESCE_TIMEOUT_S = 60.0


class HypervisorBench(Bench[HypervisorDriver, HypervisorTarget]):
    """One check's view of a hypervisor.

    Attributes
    ----------
    vms:
        The scratch VMs by role; a check gets those that it asked for.
    ids:
        Their identifiers in the driver's inventory, by role.
    files_before:
        How many disk files each had before the suite, by role, where the target can tell.
    power_before:
        Their power states before the suite, by role.
    """

    def __init__(
        self,
        driver: HypervisorDriver,
        target: HypervisorTarget,
        vms: Mapping[str, ScratchVm],
        ids: Mapping[str, VmId],
        effort: Effort,
        limits: Mapping[str, float],
        run: str,
        seed: int,
        log: CallLog,
    ) -> None:
        super().__init__(driver, target, effort, limits, run, seed, log)
        self.vms = dict(vms)
        self.ids = dict(ids)
        self.files_before: dict[str, int] = {}
        self.power_before: dict[str, PowerState] = {}

    @property
    def capabilities(self) -> HypervisorCapabilities:
        """What the driver declares."""
        return self.driver.capabilities

    # -- calls of the driver ---------------------------------------------------------------------

    def request(
        self,
        role: str,
        *,
        tag: str | None = None,
        quiesce: bool = True,
        timeout_s: float = QUIESCE_TIMEOUT_S,
    ) -> VmSnapshotRequest:
        """A request as the orchestrator makes it; under a new tag unless one is given."""
        chosen = self.tag() if tag is None else tag
        return VmSnapshotRequest(self.ids[role], chosen, quiesce, timeout_s)

    async def create(
        self, role: str, *, tag: str | None = None, quiesce: bool = True
    ) -> VmSnapshot:
        """A snapshot that the requirement is not about. Raises Blocked when it fails."""
        request = self.request(role, tag=tag, quiesce=quiesce)
        return await self.setup(self.driver.create_snapshot(request), f"a snapshot of {role}")

    async def remove(self, ref: VmSnapshotRef) -> None:
        """A removal that the requirement is not about. Raises Blocked when it fails."""
        await self.setup(self.driver.remove_snapshot(ref), "removing a snapshot")

    async def state(self, role: str) -> VmSnapshotState:
        """What the driver lists for a VM. Raises Blocked when it lists anything but this one VM."""
        found = await self.setup(
            self.driver.list_snapshots([self.ids[role]]), f"listing the snapshots of {role}"
        )
        if [one.vm_id for one in found] != [self.ids[role]]:
            raise Blocked(f"the listing of {role} is not about it alone")
        return found[0]

    async def tags(self, role: str) -> list[str]:
        """The names of a VM's snapshots."""
        return [one.tag for one in (await self.state(role)).snapshots]

    async def inventory(self) -> Inventory:
        """All there is. Raises Blocked when it cannot be read."""
        return await self.setup(self.driver.inventory(), "reading the inventory")

    async def vm(self, role: str) -> Vm:
        """A scratch VM as the inventory has it now. Raises Blocked when it is not there."""
        for one in (await self.inventory()).vms:
            if one.id == self.ids[role]:
                return one
        raise Blocked(f"the inventory no longer has the VM of role {role}")

    async def store_names(self) -> dict[str, str]:
        """Names of datastores by identifier."""
        return {store.id: store.name for store in (await self.inventory()).datastores}

    # -- data ------------------------------------------------------------------------------------

    async def write(self, role: str, block: int, data: bytes | None = None, disk: int = 0) -> bytes:
        """Have the guest write a block (random bytes unless given); what it wrote."""
        chosen = self.rng.randbytes(BLOCK_BYTES) if data is None else data
        await self.target.write(self.vms[role], disk, block, chosen)
        self.written_bytes += len(chosen)
        return chosen

    async def read(self, role: str, block: int, disk: int = 0) -> bytes:
        """What the guest reads there now."""
        return await self.target.read(self.vms[role], disk, block)

    def compare(self, got: bytes, wanted: bytes, what: str) -> None:
        """The driver breaks the requirement unless the bytes are the same. Raises Violation."""
        self.compared_bytes += len(wanted)
        if got != wanted:
            raise Violation(what, got=got[:16].hex(), wanted=wanted[:16].hex())

    # -- afterwards ------------------------------------------------------------------------------

    async def clean(self) -> list[str]:
        """Take away what a check made; what could not be, one sentence each."""
        left: list[str] = []
        try:
            states = await self.driver.list_snapshots(list(self.ids.values()))
        except (DriverError, Violation) as error:
            return [f"snapshots cannot be listed: {error}"]
        for state in states:
            loose = state.needs_consolidation
            for ref in reversed(state.snapshots):
                if not ref.tag.startswith(self.tag_prefix):
                    continue
                try:
                    await self.driver.remove_snapshot(ref)
                except NotFoundError:
                    pass
                except HappenedError:
                    loose = True
                except (DriverError, Violation) as error:
                    left.append(f"snapshot {ref.tag} of {ref.vm_id} is left: {error}")
            if loose and self.capabilities.consolidates:
                try:
                    await self.driver.consolidate(state.vm_id)
                except (DriverError, Violation) as error:
                    left.append(f"deltas of {state.vm_id} are left: {error}")
        return left
