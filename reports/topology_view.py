"""What of an estate goes into the topology picture: nodes in four columns, and their edges.

A large estate is thinned by counting, not by leaving out at random: VMs that lie on the same
datastores become one node with counts; when these are too many, the datastores and the units of a
component are counted too; and when there are still too many, the components with the most storage
units are kept and the rest is summed up in words.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import polars as pl

from .rundata import RunData

NAMED_VMS = 40
"""Up to so many VMs each is a node of its own."""
ROWS = 40
"""Most nodes in one column."""
ROLES = ("selected", "collateral", "other")


@dataclass(slots=True)
class VmNode:
    """One VM, or all VMs of a component that lie on the same datastores and raw devices."""

    key: tuple[str, ...]
    component: int | None
    datastores: tuple[str, ...]
    raw_units: tuple[str, ...]
    names: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))

    @property
    def size(self) -> int:
        """VMs in this node."""
        return sum(self.counts.values())


@dataclass(slots=True)
class View:
    """The picture's content: nodes by column, edges as pairs of keys, and what was left out."""

    vms: list[VmNode]
    datastores: dict[str, str]
    """Datastore to its kind."""
    units: list[str]
    arrays: list[str]
    unit_array: dict[str, str]
    component: dict[str, int | None]
    """Component of each datastore and unit; None where nothing is targeted."""
    vm_edges: list[tuple[int, str]]
    """Index of the VM node, and a datastore or (raw device) a unit."""
    unit_edges: list[tuple[str, str]]
    single: bool
    """Every VM is a node of its own."""
    collapsed: bool = False
    """A node stands for all datastores, or all units on one array, of a component."""
    hidden_vms: int = 0
    hidden_nodes: int = 0


def build_view(run: RunData) -> View:
    """The nodes and edges to draw for this run."""
    placed = run.placements
    component = _components(placed)
    single = placed["vm_id"].n_unique() <= NAMED_VMS
    nodes = _ordered(_vm_nodes(placed, component, single), component)
    collapsed = len(nodes) > ROWS
    if collapsed:
        placed = _collapsed(placed, component)
        component = _components(placed)
        nodes = _ordered(_vm_nodes(placed, component, False), component)
    stores = _neighbours(placed)
    unit_array: dict[str, str] = dict(
        placed.select("unit_id", "array_id").drop_nulls().unique().rows()
    )
    shown = _by_array(_fitting(nodes, stores), stores, unit_array)
    kinds = dict(
        placed.select("datastore_id", "datastore_kind").drop_nulls("datastore_id").unique().rows()
    )
    datastores = list(dict.fromkeys(store for node in shown for store in node.datastores))
    units = list(
        dict.fromkeys(
            unit
            for node in shown
            for unit in (*(u for d in node.datastores for u in stores[d]), *node.raw_units)
        )
    )
    return View(
        vms=shown,
        datastores={store: kinds.get(store) or "" for store in datastores},
        units=units,
        arrays=sorted({unit_array[unit] for unit in units}),
        unit_array=unit_array,
        component=component,
        vm_edges=[
            (index, target)
            for index, node in enumerate(shown)
            for target in (*node.datastores, *node.raw_units)
        ],
        unit_edges=[(store, unit) for store in datastores for unit in stores[store]],
        single=single and not collapsed,
        collapsed=collapsed,
        hidden_vms=sum(node.size for node in nodes) - sum(node.size for node in shown),
        hidden_nodes=len(nodes) - len(shown),
    )


def _collapsed(placed: pl.DataFrame, component: dict[str, int | None]) -> pl.DataFrame:
    """The placements with one datastore, and one unit on each array, for every component.

    What is not targeted is one such component per array.
    """
    of_unit = pl.DataFrame(
        {"unit_id": list(component), "of": list(component.values())},
        schema={"unit_id": pl.String, "of": pl.Int64},
    )
    known = placed.join(of_unit, on="unit_id", how="left").with_columns(
        bundle=pl.when(pl.col("of").is_null())
        .then(pl.col("array_id").fill_null("no known unit"))
        .otherwise(pl.format("C{}", pl.col("of").fill_null(0)))
    )
    # Raw devices are counted among the kinds of their component, beside its datastores.
    stores = known.group_by("bundle").agg(
        stores=pl.col("datastore_id").drop_nulls().n_unique(),
        kinds=pl.col("datastore_kind").drop_nulls().unique().sort().str.join("+"),
    )
    units = known.group_by("bundle", "array_id").agg(units=pl.col("unit_id").n_unique())
    plural = pl.when(pl.col("units") == 1).then(pl.lit("unit")).otherwise(pl.lit("units"))
    counted = pl.format("{} {}", pl.col("units"), plural)
    joined = known.join(stores, on="bundle", how="left").join(
        units, on=["bundle", "array_id"], how="left"
    )
    return joined.with_columns(
        component=pl.col("of"),
        datastore_kind=pl.col("kinds"),
        datastore_id=pl.when(pl.col("stores") > 0).then(
            pl.format("{}: {} ×", pl.col("bundle"), pl.col("stores"))
        ),
        unit_id=pl.when(pl.col("unit_id").is_null())
        .then(None)
        .when(pl.col("of").is_null())
        .then(pl.format("{}: {}", pl.col("bundle"), counted))
        .otherwise(pl.format("{}: {} on {}", pl.col("bundle"), counted, pl.col("array_id"))),
    ).select(placed.columns)


def _components(placed: pl.DataFrame) -> dict[str, int | None]:
    """Component of every unit, and of every datastore through its units."""
    by_unit = placed.drop_nulls("unit_id").group_by("unit_id").agg(pl.col("component").min())
    found: dict[str, int | None] = dict(by_unit.rows())
    stores = placed.drop_nulls("datastore_id").join(
        by_unit.select("unit_id", of="component"), on="unit_id"
    )
    found.update(stores.group_by("datastore_id").agg(pl.col("of").min()).rows())
    return found


def _neighbours(placed: pl.DataFrame) -> dict[str, list[str]]:
    """The units under each datastore, in order."""
    under: dict[str, list[str]] = defaultdict(list)
    pairs = placed.select("datastore_id", "unit_id").drop_nulls().unique()
    for store, unit in pairs.sort("datastore_id", "unit_id").rows():
        under[store].append(unit)
    return under


def _vm_nodes(placed: pl.DataFrame, component: dict[str, int | None], single: bool) -> list[VmNode]:
    raw = pl.col("datastore_id").is_null()
    vms = (
        placed.group_by("vm_id")
        .agg(
            pl.col("vm_name").first(),
            pl.col("role").first(),
            stores=pl.col("datastore_id").drop_nulls().unique().sort(),
            raw=pl.col("unit_id").filter(raw).drop_nulls().unique().sort(),
        )
        .sort("vm_id")
    )
    nodes: dict[tuple[str, ...], VmNode] = {}
    for vm_id, name, role, stores, raw_units in vms.rows():
        places = [component.get(place) for place in (*stores, *raw_units)]
        own = min((number for number in places if number is not None), default=None)
        key = (vm_id,) if single else (*stores, "", *raw_units)
        node = nodes.get(key)
        if node is None:
            node = nodes[key] = VmNode(key, own, tuple(stores), tuple(raw_units))
        node.names.append(name)
        node.counts[role if role in ROLES else "other"] += 1
    return list(nodes.values())


def _ordered(nodes: list[VmNode], component: dict[str, int | None]) -> list[VmNode]:
    """Targeted components first, those with the most units (then VMs) on top."""
    units: dict[int, int] = defaultdict(int)
    sizes: dict[int, int] = defaultdict(int)
    for number in component.values():
        if number is not None:
            units[number] += 1
    for node in nodes:
        if node.component is not None:
            sizes[node.component] += node.size

    def rank(node: VmNode) -> tuple[bool, int, int, int, tuple[str, ...], int, tuple[str, ...]]:
        number = -1 if node.component is None else node.component
        first = node.datastores[:1] or node.raw_units[:1]
        return (
            node.component is None,
            -units[number],
            -sizes[number],
            number,
            first,
            len(node.datastores),
            node.key,
        )

    return sorted(nodes, key=rank)


def _fitting(nodes: list[VmNode], stores: dict[str, list[str]]) -> list[VmNode]:
    """As many nodes, in order, as leave every column with no more than ROWS."""
    targeted = any(node.component is not None for node in nodes)
    untargeted = any(node.component is None for node in nodes)
    # Some rows stay for what is not targeted: a picture of only the targets would not show that
    # the rest is left alone.
    most = ROWS - 4 if targeted and untargeted else ROWS
    shown: list[VmNode] = []
    seen_stores: set[str] = set()
    seen_units: set[str] = set()
    for node in nodes:
        limit = ROWS if node.component is None else most
        more_stores = seen_stores | set(node.datastores)
        below = {unit for store in node.datastores for unit in stores[store]}
        more_units = seen_units | below | set(node.raw_units)
        if max(len(shown) + 1, len(more_stores), len(more_units)) <= limit:
            shown.append(node)
            seen_stores, seen_units = more_stores, more_units
    return shown


def _by_array(
    shown: list[VmNode], stores: dict[str, list[str]], unit_array: dict[str, str]
) -> list[VmNode]:
    """The components of one array together, so that few lines cross; else in the given order."""
    first: dict[int | None, str] = {}
    for node in shown:
        units = [*node.raw_units, *(unit for store in node.datastores for unit in stores[store])]
        arrays = [unit_array[unit] for unit in units]
        first[node.component] = min([*arrays, first.get(node.component, "\uffff")])
    return sorted(
        shown,
        key=lambda node: (
            node.component is None,
            "" if node.component is None else first[node.component],
        ),
    )
