"""A modelled hypervisor that stands alone, whose guests hold bytes, and that fails on request.

There is no array under it: its datastores are devices that nobody snapshots. Everything that a test
may want to do beside the driver's contract is a method here: write and read in a guest, look at the
files, move a VM, cut its power, and hold a fault for one VM as long as the test likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from ..drivers.contracts import FileLocation, FileRole, Window
from ..drivers.records import DatastoreId, Estate, Inventory, PowerState, VmId
from ..errors import StillframeError
from ..orchestrator.events import EventLog
from .byteguests import ByteGuests, GuestBytes
from .draws import Draws
from .env import SimEnv
from .fabric import Fabric, StorageMap
from .faults import Faults, Site
from .faultsites import FAULT, FaultSites
from .hostloss import cut_off
from .hypervisor import ModelHypervisor
from .migrate import StorageVmotion, power, when_free
from .profiles import HypervisorProfile
from .vmstate import VmState

_COPIED_BYTES = 1
"""Of a move: it ends when it is let, and not when so much is copied."""


class HeldFaults(FaultSites):
    """Faults that strike a subject from one moment to another, and at nobody's odds.

    Attributes
    ----------
    delay_s:
        For how long a late create or removal waits.
    """

    __slots__ = ("_clock", "_held", "_noted")

    def __init__(self, draws: Draws, log: EventLog, env: SimEnv) -> None:
        super().__init__(Faults(), draws, log, env)
        self._clock = env
        self._noted = log
        self._held: dict[tuple[Site, str], int] = {}

    def if_any(self) -> FaultSites:
        """Itself: a fault may begin at any time."""
        return self

    def strikes(self, site: Site, subject: str, *key: str | int) -> bool:
        """Whether the fault is held for this subject now."""
        del key
        struck = (site, subject) in self._held
        if struck:
            self._noted.add(self._clock.now, FAULT, "", subject, site.value)
        return struck

    @contextmanager
    def held(self, site: Site, *subjects: str) -> Iterator[None]:
        """Meanwhile the fault strikes these subjects at every visit."""
        for subject in subjects:
            self._held[site, subject] = self._held.get((site, subject), 0) + 1
        try:
            yield
        finally:
            for subject in subjects:
                self._held[site, subject] -= 1
                if not self._held[site, subject]:
                    del self._held[site, subject]

    def is_held(self, site: Site) -> bool:
        """Whether the fault is held for anybody."""
        return any(held is site for held, _ in self._held)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Meanwhile nothing goes wrong."""
        held, self._held = self._held, {}
        try:
            yield
        finally:
            self._held = held

    def delay(self, delay_s: float) -> None:
        """From now on a late create or removal waits for so long."""
        self.faults = Faults(slow_task=delay_s)


class HeldMove(StorageVmotion):
    """A move of all disks that is under way until it is let end."""

    def __init__(self, fabric: Fabric, state: VmState, datastore_id: DatastoreId) -> None:
        super().__init__(fabric, state, datastore_id, None, _COPIED_BYTES)
        self._may_end = self._copied = False

    def end(self) -> None:
        """Let it switch over, now or as soon as everything is copied."""
        self._may_end = True
        if self._copied:
            super()._switch()

    def _switch(self) -> None:
        self._copied = True
        if self._may_end:
            super()._switch()


class ByteHypervisor:
    """One vCenter and its guests.

    Parameters
    ----------
    env:
        The clock.
    inventory:
        What there is: one vCenter, its hosts, datastores and VMs.
    profile:
        How it behaves.
    delta_stores:
        The datastore of the deltas of VMs whose deltas do not lie beside their disks, by VM.
    write_s:
        For how long a guest's write or read takes.
    seed:
        Decides every draw.

    Attributes
    ----------
    driver:
        The hypervisor behind the driver's contract.
    data:
        The guests' disks.
    faults:
        What goes wrong.
    log:
        What really happened (kinds ``world.*``).
    """

    def __init__(
        self,
        env: SimEnv,
        inventory: Inventory,
        profile: HypervisorProfile,
        delta_stores: Mapping[VmId, DatastoreId],
        *,
        write_s: float,
        seed: int,
    ) -> None:
        vms = inventory.vms
        draws = Draws(seed)
        storage = StorageMap(Estate(inventory, (), ()))
        by_guest = {n: delta_stores[vm.id] for n, vm in enumerate(vms) if vm.id in delta_stores}
        self.log = EventLog()
        self.faults = HeldFaults(draws, self.log, env)
        self.data = GuestBytes(env, vms, by_guest, write_s)
        shares = [storage.shares(vm) for vm in vms]
        guests = ByteGuests(self.data, vms, shares, draws, profile.delta_grain)
        self._fabric = Fabric(
            env, profile, self.faults, draws, self.log, storage, guests, by_guest, self.data
        )
        self._states = {vm.id: VmState(vm, guest) for guest, vm in enumerate(vms)}
        (vcenter,) = inventory.vcenters
        self.driver = ModelHypervisor(self._fabric, vcenter, inventory, self._states.values())

    # -- the guest ------------------------------------------------------------------------------

    async def write(self, vm_id: VmId, disk: int, block: int, data: bytes) -> None:
        """See :meth:`.GuestBytes.write`."""
        await self.data.write(self._states[vm_id].guest, disk, block, data)

    async def read(self, vm_id: VmId, disk: int, block: int) -> bytes:
        """See :meth:`.GuestBytes.read`."""
        return await self.data.read(self._states[vm_id].guest, disk, block)

    def frozen_spans(self, vm_id: VmId, since_s: float) -> Sequence[Window]:
        """See :meth:`.GuestBytes.frozen_spans`."""
        return self.data.frozen_spans(self._states[vm_id].guest, since_s)

    # -- the files ------------------------------------------------------------------------------

    def files(self, vm_id: VmId) -> list[FileLocation]:
        """Every disk file of a VM, chain by chain from the base up, as it lies now."""
        state, fabric = self._states[vm_id], self._fabric
        where = state.location(fabric.storage.datastores, fabric.delta_store.get(state.guest))
        data = (FileRole.BASE, FileRole.DELTA, FileRole.LIVE)
        return [file for file in where.files if file.role in data]

    def digest(self, vm_id: VmId, path: str) -> str:
        """A digest of what a disk file holds.

        Raises
        ------
        StillframeError
            The VM has no such file.
        """
        state, seen = self._states[vm_id], dict[int | None, int]()
        places = {disk.key: place for place, disk in enumerate(state.vm.disks)}
        for file in self.files(vm_id):
            depth = seen[file.disk_key] = seen.get(file.disk_key, -1) + 1
            if file.path == path and file.disk_key is not None:
                return self.data.digest(state.guest, places[file.disk_key], depth)
        raise StillframeError(f"VM {vm_id} has no file {path}")

    def store_name(self, datastore_id: DatastoreId) -> str:
        """The name of a datastore."""
        return self._fabric.storage.datastores[datastore_id].name

    # -- what happens to it ---------------------------------------------------------------------

    @contextmanager
    def hung_agent(self, vm_id: VmId) -> Iterator[None]:
        """Meanwhile the guest's agent answers to no freeze, nor acts on it."""
        guest = self._states[vm_id].guest
        self.data.hang(guest, hung=True)
        try:
            with self.faults.held(Site.QUIESCE_HANGS, vm_id):
                yield
        finally:
            self.data.hang(guest, hung=False)

    def guest_of(self, vm_id: VmId) -> int:
        """The number of a VM's guest."""
        return self._states[vm_id].guest

    def busy_with(self, vm_id: VmId) -> str:
        """What the hypervisor does to a VM now; empty when it is free."""
        return self._states[vm_id].operation

    def is_on(self, vm_id: VmId) -> bool:
        """Whether a VM runs."""
        return self._states[vm_id].running

    def begin_move(self, vm_id: VmId, datastore: str) -> Callable[[], None]:
        """Begin to move all disks and the home of a VM, as soon as it is free.

        Returns
        -------
        callable
            Lets the move end.

        Raises
        ------
        StillframeError
            There is no datastore of this name.
        """
        stores = self._fabric.storage.datastores.values()
        ids = [store.id for store in stores if store.name == datastore]
        if not ids:
            raise StillframeError(f"there is no datastore {datastore!r}")
        state = self._states[vm_id]
        move = HeldMove(self._fabric, state, ids[0])
        when_free(self._fabric, state, move.start, "storage-vmotion")
        return move.end

    def cut_power(self, vm_id: VmId) -> None:
        """The VM loses its power at once, and whatever works on it breaks off."""
        state = self._states[vm_id]
        if state.task is not None:
            state.task.break_off()
        if state.running:
            cut_off(self._fabric, state)

    def power_on(self, vm_id: VmId) -> None:
        """Start the VM when it is free."""
        state = self._states[vm_id]
        start = partial(power, self._fabric, state, PowerState.ON, clean=True)
        when_free(self._fabric, state, start, "power")
