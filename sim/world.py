"""The modelled world: all hypervisors, arrays and guests of an estate on one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Protocol, TypeVar

from ..drivers.contracts import ConsistencyLevel, GroupSnapshotRef, SnapshotMethod
from ..drivers.records import (
    Array,
    ArrayId,
    Datastore,
    DatastoreId,
    Estate,
    Host,
    PowerState,
    UnitId,
    VCenterId,
    Vm,
    VmId,
)
from ..errors import InputError
from ..orchestrator.events import EventLog
from .array import ModelArray
from .array_profiles import ArrayProfile
from .block_guests import BlockGuests
from .block_plane import BlockPlane
from .block_verify import Verdict, verify
from .block_workload import SteadyRules
from .config import (
    DEFAULT_ARRAY,
    HostLostEvent,
    PowerEvent,
    SnapshotRemovedEvent,
    StorageVmotionEvent,
    VmotionEvent,
    WorldConfig,
    WorldEvent,
)
from .draws import Draws
from .env import SimEnv
from .fabric import Fabric, StorageMap
from .faultsites import FaultSites
from .growth import sample_open_deltas
from .guest_rules import GuestRules
from .guests import Guests
from .hostloss import HostLoss
from .hypervisor import ModelHypervisor
from .migrate import StorageVmotion, Vmotion, if_reachable, power, when_free
from .profiles import UnderLoad
from .series import Series
from .vmstate import VmState
from .writers import Writers


class World:
    """Everything that a job works on, modelled.

    Parameters
    ----------
    env:
        Clock and queue of events.
    estate:
        What there is.
    config:
        How it behaves.
    seed:
        Decides every draw; the same seed and calls give the same world to the last digit.
    log:
        Where the model writes what really happened (kinds ``world.*``).

    Attributes
    ----------
    hypervisors, arrays:
        The drivers, by vCenter and by array.
    series:
        Quantities over time.
    faults:
        The fault sites of this run: what has fired, and the switch that stops them.
    plane:
        Where every block is, in block fidelity; None in flow fidelity.

    Raises
    ------
    InputError
        The configuration names an array or datastore that the estate does not have.
    """

    def __init__(
        self, env: SimEnv, estate: Estate, config: WorldConfig, *, seed: int, log: EventLog
    ) -> None:
        inventory = estate.inventory
        draws = Draws(seed)
        self.faults = FaultSites(config.faults, draws, log, env)
        storage = StorageMap(estate)
        shares = [storage.shares(vm) for vm in inventory.vms]
        delta_stores = _delta_stores(config, inventory.vms, inventory.datastores)
        grain_bytes = config.hypervisor.delta_grain
        guests: Guests
        self.plane: BlockPlane | None = None
        if config.fidelity == "block":
            rules = SteadyRules(config.guests)
            guests = blocks = BlockGuests(env, inventory.vms, rules, shares, draws, grain_bytes)
            self.plane = blocks.plane = BlockPlane(
                env,
                inventory.vms,
                guests,
                rules,
                storage,
                _methods(config, estate),
                delta_stores,
                draws,
                config.hypervisor.merge_rate,
                config.block,
            )
        else:
            guests = Guests(inventory.vms, GuestRules(config.guests), shares, draws, grain_bytes)
        self._estate = estate
        self._states = [VmState(vm, guest) for guest, vm in enumerate(inventory.vms)]
        self._fabric = Fabric(
            env,
            config.hypervisor,
            self.faults,
            draws,
            log,
            storage,
            guests,
            delta_stores,
            self.plane,
        )
        load = config.hypervisor.under_load or UnderLoad()
        writers = Writers(env, guests, self._states, load.full_write_rate)
        self._fabric.writers = writers
        self.series = Series()
        _check_arrays(config, estate.arrays)
        self.arrays: dict[ArrayId, ModelArray] = {
            array.id: ModelArray(
                env,
                array,
                [unit for unit in estate.units if unit.array_id == array.id],
                _with_stream_limit(config, config.array_profile(array.id, array.name)),
                draws,
                log,
                guests,
                self.series,
                self.faults,
                self.plane,
                writers,
            )
            for array in estate.arrays
        }
        self._fabric.connect(estate.units, self.arrays)
        by_vcenter: dict[VCenterId, list[VmState]] = {vc.id: [] for vc in inventory.vcenters}
        for state in self._states:
            by_vcenter[state.vm.vcenter_id].append(state)
        self.hypervisors: dict[VCenterId, ModelHypervisor] = {
            vcenter.id: ModelHypervisor(self._fabric, vcenter, inventory, by_vcenter[vcenter.id])
            for vcenter in inventory.vcenters
        }

    @property
    def in_flight(self) -> int:
        """Operations that the systems work on, though nobody may be waiting."""
        return self._fabric.in_flight + sum(array.in_flight for array in self.arrays.values())

    @property
    def guests(self) -> Guests:
        """What writes to the units."""
        return self._fabric.guests

    # -- events -----------------------------------------------------------------------------

    def schedule(self, events: Sequence[WorldEvent]) -> None:
        """Let these happen, each at its time from the start of the world (past ones: now).

        Raises
        ------
        InputError
            An event names a VM, host or datastore that there is not, or a name that several have;
            nothing is scheduled then.
        """
        env = self._fabric.env
        planned = [(event.at, self._prepare(n, event)) for n, event in enumerate(events)]
        for at_s, act in planned:
            env.after(max(0.0, at_s - env.now), act)

    def _prepare(self, number: int, event: WorldEvent) -> Callable[[], None]:
        place = f"events[{number}]"
        fabric, inventory = self._fabric, self._estate.inventory
        host: Host
        if isinstance(event, HostLostEvent):
            host = _find(place + ".host", event.host, inventory.hosts)
            return HostLoss(fabric, self._states, inventory.hosts, host, event.restart_after).begin
        vm = _find(place + ".vm", event.vm, inventory.vms)
        state = self._states[inventory.vms.index(vm)]
        act: Callable[[], None]
        match event:
            case VmotionEvent():
                host = _find(place + ".host", event.host, inventory.hosts)
                act = Vmotion(fabric, state, host.id).start
            case StorageVmotionEvent():
                store = _find(place + ".datastore", event.datastore, inventory.datastores)
                _check_keys(place + ".disks", vm, event.disks)
                act = StorageVmotion(fabric, state, store.id, event.disks, event.copy_size).start
            case PowerEvent():
                act = partial(power, fabric, state, PowerState(event.to), clean=not event.cut)
            case SnapshotRemovedEvent():
                act = partial(self.hypervisors[vm.vcenter_id].remove_newest, state)
        reachable = partial(if_reachable, fabric, state, act, event.kind)
        return partial(when_free, fabric, state, reachable, event.kind)

    # -- ground truth -----------------------------------------------------------------------

    def leftovers(self) -> list[str]:
        """What a finished job should not leave behind, one sentence each; empty when all is well.

        Snapshots of ours and loose deltas, guests that are frozen or stopped, operations in
        flight, and snapshots that were there before us and are not any more.
        """
        return [sentence for state in self._states for sentence in _left(state)]

    def verify(
        self,
        vm_id: VmId,
        cuts: Sequence[GroupSnapshotRef],
        level: ConsistencyLevel,
        disk_levels: Sequence[tuple[int, ConsistencyLevel]] = (),
    ) -> Verdict:
        """Read a VM's image back from array snapshots and judge it; see :mod:`.block_verify`.

        Parameters
        ----------
        vm_id:
            The VM.
        cuts:
            The group snapshots that hold its units together.
        level, disk_levels:
            What is claimed of the whole, and of each disk by key.

        Raises
        ------
        InputError
            The world is in flow fidelity, where nothing can be read back, or has no such VM.
        """
        plane = self._readable()
        guest = self._number(vm_id)
        return verify(plane, guest, cuts, level, disk_levels)

    def lost_writes(self) -> list[str]:
        """Guests that do not read what they wrote, one sentence each; empty when all is well.

        Raises
        ------
        InputError
            The world is in flow fidelity.
        """
        return self._readable().lost_writes()

    def _readable(self) -> BlockPlane:
        if self.plane is None:
            problem = "flow fidelity follows no single write, so there is nothing to read back"
            raise InputError("world", "fidelity", problem, "set it to block")
        return self.plane

    def _number(self, vm_id: VmId) -> int:
        for state in self._states:
            if state.vm.id == vm_id:
                return state.guest
        raise InputError("world", "vm", f"the estate has no VM {vm_id!r}")

    def sample_deltas(self, step_s: float) -> None:
        """Append ``delta.open_bytes`` per datastore to the series, every ``step_s`` seconds.

        Computed from what happened; call it once, when the run is over.
        """
        sample_open_deltas(self._fabric, self._states, self.series, step_s)


def _left(state: VmState) -> Iterable[str]:
    name = f"VM {state.vm.id}"
    for snapshot in state.chain:
        if snapshot.loose:
            yield f"{name} has a delta left of snapshot {snapshot.ref.tag}"
        elif not snapshot.foreign:
            yield f"{name} still has snapshot {snapshot.ref.tag}"
    missing = state.vm.snapshot_count - sum(snapshot.foreign for snapshot in state.chain)
    if missing:
        yield f"{name} has lost {missing} of its {state.vm.snapshot_count} snapshots from before"
    if state.frozen:
        yield f"{name} has a guest that is still frozen"
    if state.stunned:
        yield f"{name} is still stopped"
    if state.operation:
        yield f"{name} is still busy with {state.operation}"


def _methods(config: WorldConfig, estate: Estate) -> dict[UnitId, SnapshotMethod]:
    """How old data is kept under each unit."""
    by_array = {a.id: config.array_profile(a.id, a.name).method for a in estate.arrays}
    return {unit.id: by_array[unit.array_id] for unit in estate.units}


class _Named(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


def _find(place: str, wanted: str, candidates: Sequence[_N], source: str = "world") -> _N:
    """By identifier, else by a name that only one has."""
    for candidate in candidates:
        if candidate.id == wanted:
            return candidate
    named = [candidate for candidate in candidates if candidate.name == wanted]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(candidate.id for candidate in named[:5])
        raise InputError(source, place, f"{len(named)} are called {wanted!r}", f"use an id: {ids}")
    raise InputError(source, place, f"the estate has no {wanted!r}")


def _check_keys(place: str, vm: Vm, keys: tuple[int, ...] | None) -> None:
    known = [disk.key for disk in vm.disks]
    for key in keys or ():
        if key not in known:
            listed = ", ".join(map(str, known))
            raise InputError("world", place, f"{vm.id} has no disk {key}", f"it has {listed}")


def _with_stream_limit(config: WorldConfig, profile: ArrayProfile) -> ArrayProfile:
    """An array's profile in which one stream gets no more than the hypervisor makes of it.

    Otherwise a few streams would take bandwidth that they then cannot use from many.
    """
    fastest = max(config.hypervisor.merge_rate, config.hypervisor.storage_vmotion_rate)
    if profile.flow_bandwidth is not None and profile.flow_bandwidth <= fastest:
        return profile
    return profile.model_copy(update={"flow_bandwidth": fastest})


def _check_arrays(config: WorldConfig, arrays: Sequence[Array]) -> None:
    known = {name for array in arrays for name in (array.id, array.name)} | {DEFAULT_ARRAY}
    for name in config.arrays:
        if name not in known:
            listed = ", ".join(array.id for array in arrays)
            raise InputError("world", f"arrays.{name}", "no such array", f"there are {listed}")


def _delta_stores(
    config: WorldConfig, vms: Sequence[Vm], datastores: Sequence[Datastore]
) -> dict[int, DatastoreId]:
    rules = [
        (rule.match.lower(), _find(f"working_directories[{n}]", rule.datastore, datastores).id)
        for n, rule in enumerate(config.working_directories)
    ]
    stores: dict[int, DatastoreId] = {}
    if rules:
        for guest, vm in enumerate(vms):
            for pattern, store_id in rules:
                if fnmatchcase(vm.name.lower(), pattern):
                    stores[guest] = store_id
                    break
    return stores
