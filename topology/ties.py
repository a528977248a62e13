"""What ties a component together: which single move, or which VM left out, would split it.

The component is seen as a graph of VMs, places (datastores and raw devices) and units. An edge
between a VM and a place is a *bridge* when nothing else connects its two sides; moving what the VM
has on that place to where the VM lies anyway then splits the component. A place that one VM uses
alone goes with that move, and with it whatever it held together: the extents of a datastore are
tied by the VMs on it, not by the datastore. There the question is whether the place is an
*articulation point*, as it is for a VM that is left out. All of this comes out of depth-first
searches with low points (Hopcroft and Tarjan, "Efficient algorithms for graph manipulation",
1973), which also count the VMs on either side, in time linear in the size of the component.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..drivers.records import DatastoreId, DeviceIdentity, UnitId, VmId
from .graph import Topology

if TYPE_CHECKING:
    from .queries import Component

_Place = DatastoreId | DeviceIdentity


@dataclass(frozen=True, slots=True)
class Tie:
    """One change that would split a component.

    Attributes
    ----------
    vm_id:
        The VM to change.
    disk_keys, moves_home:
        What of it to move off the place. Nothing of either: the VM as a whole is the tie, and
        only leaving it out of the selection would split the rest.
    place, unit_ids:
        The datastore or raw device to move away from, and the units under it.
    parts:
        How many VMs each piece then has, largest first. A moved VM counts in the piece that it
        stays in; a VM left out counts nowhere.
    sentence:
        The same for people.
    """

    vm_id: VmId
    disk_keys: tuple[int, ...]
    moves_home: bool
    place: DatastoreId | DeviceIdentity | None
    unit_ids: tuple[UnitId, ...]
    parts: tuple[int, ...]
    sentence: str

    @property
    def disk_key(self) -> int | None:
        """The key of the disk, when moving one disk alone splits the component."""
        alone = len(self.disk_keys) == 1 and not self.moves_home
        return self.disk_keys[0] if alone else None

    @property
    def freed(self) -> int:
        """How many VMs the split takes out of the largest piece: the more, the better."""
        return sum(self.parts[1:])


@dataclass(slots=True)
class _Network:
    """A component as adjacency lists; nodes are numbers, the VMs come first."""

    vm_ids: tuple[VmId, ...]
    neighbours: list[list[int]]
    places: dict[int, _Place] = field(default_factory=dict)
    units: dict[int, tuple[UnitId, ...]] = field(default_factory=dict)
    """Per place: the units under it."""
    items: dict[tuple[int, int], list[int | None]] = field(default_factory=dict)
    """Per VM and place: the disk keys there, None for the home."""
    users: Counter[int] = field(default_factory=Counter)
    """Per place: how many VMs of the component have something there."""


@dataclass(slots=True)
class _Search:
    """What the depth-first search found out about each node; ``order`` is the visiting order."""

    parent: list[int]
    entered: list[int]
    low: list[int]
    order: list[int]
    vms_below: list[int]
    """VMs in the subtree, the node itself included."""
    total: list[int]
    """VMs in the whole tree that the node belongs to."""


def ties(
    topology: Topology,
    component: Component,
    *,
    physical_raw: bool = True,
    independent: bool = False,
) -> list[Tie]:
    """The changes that would split a component, the most even split first.

    Moving a VM off its only place is not reported, since it has nowhere else to lie; such a VM
    appears only if leaving it out splits the others.

    Parameters
    ----------
    topology:
        The estate.
    component:
        One of the results of :func:`~stillframe.topology.queries.components`.
    physical_raw, independent:
        The options that the component was made with.
    """
    network = _network(topology, component.vm_ids, physical_raw, independent)
    search = _search(network)
    moves = list(_moves(topology, network, search))
    moved = {tie.vm_id for tie in moves}
    merged = _merged(network)
    left_out = _left_out(topology, merged, search if merged is network else _search(merged))
    found = moves + [tie for tie in left_out if tie.vm_id not in moved]
    rank = {vm_id: position for position, vm_id in enumerate(component.vm_ids)}
    return sorted(
        found,
        key=lambda tie: (
            -tie.freed,
            not tie.disk_keys and not tie.moves_home,
            len(tie.disk_keys) + tie.moves_home,
            rank[tie.vm_id],
        ),
    )


def _network(
    topology: Topology, vm_ids: tuple[VmId, ...], physical_raw: bool, independent: bool
) -> _Network:
    network = _Network(vm_ids, [[] for _ in vm_ids])
    place_nodes: dict[_Place, int] = {}
    unit_nodes: dict[UnitId, int] = {}
    for number, vm_id in enumerate(vm_ids):
        parts = topology.placements(vm_id, physical_raw=physical_raw, independent=independent)
        for part in parts:
            if not part.units:
                continue
            node = place_nodes.get(part.place)
            if node is None:
                node = place_nodes[part.place] = _new_node(network)
                network.places[node] = part.place
                network.units[node] = part.units
                for unit_id in part.units:
                    if unit_id not in unit_nodes:
                        unit_nodes[unit_id] = _new_node(network)
                    _connect(network, node, unit_nodes[unit_id])
            items = network.items.get((number, node))
            if items is None:
                items = network.items[number, node] = []
                network.users[node] += 1
                _connect(network, number, node)
            items.append(part.disk_key)
    return network


def _merged(network: _Network) -> _Network:
    """The network with places of several units that one VM uses alone made part of that VM.

    They vanish with the VM, so they must not hold their units together when it is left out.
    """
    owner = {
        place: vm
        for vm, place in network.items
        if network.users[place] == 1 and len(network.units[place]) > 1
    }
    if not owner:
        return network
    merged = _Network(network.vm_ids, [[] for _ in network.neighbours])
    for node, neighbours in enumerate(network.neighbours):
        for other in neighbours:
            one, two = owner.get(node, node), owner.get(other, other)
            # Each edge is listed at both of its ends.
            if node < other and one != two:
                _connect(merged, one, two)
    return merged


def _new_node(network: _Network) -> int:
    network.neighbours.append([])
    return len(network.neighbours) - 1


def _connect(network: _Network, one: int, other: int) -> None:
    network.neighbours[one].append(other)
    network.neighbours[other].append(one)


def _search(network: _Network) -> _Search:
    size = len(network.neighbours)
    search = _Search([-1] * size, [-1] * size, [0] * size, [], [0] * size, [0] * size)
    for root in range(len(network.vm_ids)):
        if search.entered[root] < 0:
            _visit(network, search, root)
    return search


def _visit(network: _Network, search: _Search, root: int) -> None:
    """One tree, without recursion: a component may be deeper than Python's stack."""
    entered, low, parent = search.entered, search.low, search.parent
    first = len(search.order)
    stack = [(root, iter(network.neighbours[root]))]
    entered[root] = low[root] = first
    search.order.append(root)
    while stack:
        node, rest = stack[-1]
        for other in rest:
            if entered[other] < 0:
                parent[other] = node
                entered[other] = low[other] = len(search.order)
                search.order.append(other)
                stack.append((other, iter(network.neighbours[other])))
                break
            if other != parent[node]:
                low[node] = min(low[node], entered[other])
        else:
            stack.pop()
            if parent[node] >= 0:
                low[parent[node]] = min(low[parent[node]], low[node])
    tree = search.order[first:]
    for node in reversed(tree):
        search.vms_below[node] += node < len(network.vm_ids)
        if parent[node] >= 0:
            search.vms_below[parent[node]] += search.vms_below[node]
    for node in tree:
        search.total[node] = search.vms_below[root]


def _moves(topology: Topology, network: _Network, search: _Search) -> Iterator[Tie]:
    pieces = _pieces_without(network, search)
    for (vm, place), items in network.items.items():
        if len(network.neighbours[vm]) < 2:
            continue
        alone = network.users[place] == 1
        sizes = pieces[place] if alone else _sides(search, vm, place)
        parts = tuple(sorted((size for size in sizes if size), reverse=True))
        if len(parts) < 2:
            continue
        keys = tuple(key for key in items if key is not None)
        moves_home = None in items
        name = topology.vm(network.vm_ids[vm]).name
        where = network.places[place]
        sentence = (
            f"moving {_items(keys, moves_home)} of VM {name} off {_place(topology, where)} "
            f"splits this group into {_sizes(parts)} VMs"
        )
        yield Tie(
            network.vm_ids[vm], keys, moves_home, where, network.units[place], parts, sentence
        )


def _sides(search: _Search, vm: int, place: int) -> list[int]:
    """The VMs on either side of an edge if it is a bridge; nothing if it is none."""
    child, above = (place, vm) if search.parent[place] == vm else (vm, place)
    if search.parent[child] != above or search.low[child] < search.entered[child]:
        return []
    below = search.vms_below[child]
    return [below, search.total[vm] - below]


def _pieces_without(network: _Network, search: _Search) -> list[list[int]]:
    """Per node: the VMs of each piece that is left when the node is taken away."""
    pieces: list[list[int]] = [[] for _ in network.neighbours]
    for node in search.order:
        above = search.parent[node]
        if above >= 0 and search.low[node] >= search.entered[above]:
            pieces[above].append(search.vms_below[node])
    for node in search.order:
        itself = node < len(network.vm_ids)
        pieces[node].append(search.total[node] - itself - sum(pieces[node]))
    return pieces


def _left_out(topology: Topology, network: _Network, search: _Search) -> Iterator[Tie]:
    pieces = _pieces_without(network, search)
    for vm in range(len(network.vm_ids)):
        parts = tuple(sorted((size for size in pieces[vm] if size), reverse=True))
        if len(parts) < 2:
            continue
        vm_id = network.vm_ids[vm]
        sentence = (
            f"no single move splits this group here, but leaving VM {topology.vm(vm_id).name} "
            f"out of the selection leaves {_sizes(parts)} VMs"
        )
        yield Tie(vm_id, (), False, None, (), parts, sentence)


def _items(keys: tuple[int, ...], moves_home: bool) -> str:
    names = ["the home"] if moves_home else []
    if keys:
        names.append(f"disk{'s' if len(keys) > 1 else ''} {', '.join(map(str, keys))}")
    return " and ".join(names)


def _place(topology: Topology, place: _Place) -> str:
    if isinstance(place, DeviceIdentity):
        return f"device {place}"
    return f"datastore {topology.datastore(place).name}"


def _sizes(parts: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, parts[:-1]))} and {parts[-1]}"
