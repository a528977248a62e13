"""The estate generator: deterministic, consistent, local, and with the shares it was asked for."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stillframe.drivers.records import DatastoreKind, DiskMode, Estate, PowerState
from stillframe.errors import InputError
from stillframe.scenarios.generate import GeneratedEstate


def check_references(estate: Estate) -> None:
    """Every identifier is unique, and every reference leads somewhere."""
    inventory = estate.inventory
    vcenters = {item.id for item in inventory.vcenters}
    clusters = {item.id: item for item in inventory.clusters}
    hosts = {item.id: item for item in inventory.hosts}
    datastores = {item.id: item for item in inventory.datastores}
    for records, by_id in (
        (inventory.clusters, clusters),
        (inventory.hosts, hosts),
        (inventory.datastores, datastores),
    ):
        assert len(records) == len(by_id)
    assert len({vm.id for vm in inventory.vms}) == len(inventory.vms)
    assert len({vm.name for vm in inventory.vms}) == len(inventory.vms)
    assert len({unit.id for unit in estate.units}) == len(estate.units)
    arrays = {array.id for array in estate.arrays}
    devices = {device: unit for unit in estate.units for device in unit.devices}
    assert len(devices) == sum(len(unit.devices) for unit in estate.units)
    assert all(unit.array_id in arrays for unit in estate.units)
    assert all(host.cluster_id in clusters for host in inventory.hosts)
    for datastore in inventory.datastores:
        assert datastore.vcenter_id in vcenters
        assert datastore.capacity_bytes is not None
        assert datastore.free_bytes is not None
        assert 0 <= datastore.free_bytes <= datastore.capacity_bytes
        local = datastore.name.startswith("local-")
        assert all((device in devices) is not local for device in datastore.extents)
        assert len(datastore.extents) == 1 or datastore.kind is DatastoreKind.VMFS
    for vm in inventory.vms:
        assert vm.host_id is not None
        assert hosts[vm.host_id].vcenter_id == vm.vcenter_id
        assert vm.home_datastore_id in datastores
        keys = [disk.key for disk in vm.disks]
        assert keys == sorted(set(keys))
        for disk in vm.disks:
            assert disk.datastore_id is not None
            assert datastores[disk.datastore_id].vcenter_id == vm.vcenter_id
            assert disk.raw_device is None or disk.raw_device in devices


def components(estate: Estate) -> list[int]:
    """The sizes, in datastores, of the components that spanning VMs make."""
    graph = nx.Graph()
    graph.add_nodes_from(datastore.id for datastore in estate.inventory.datastores)
    for vm in estate.inventory.vms:
        stores = [disk.datastore_id for disk in vm.disks]
        nx.add_path(graph, stores)
    return sorted(map(len, nx.connected_components(graph)))


@settings(max_examples=60, deadline=None)
@given(
    vms=st.integers(1, 120),
    datastores=st.integers(4, 20),
    arrays=st.integers(1, 2),
    vcenters=st.integers(1, 2),
    neighbourhood=st.integers(1, 2),
    seed=st.integers(0, 2**64),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    local=st.integers(0, 2),
)
def test_every_reference_leads_somewhere(
    vms: int,
    datastores: int,
    arrays: int,
    vcenters: int,
    neighbourhood: int,
    seed: int,
    share: float,
    local: int,
) -> None:
    config = GeneratedEstate(
        vms=vms,
        datastores=datastores,
        arrays=arrays,
        vcenters=vcenters,
        neighbourhood=neighbourhood,
        seed=seed,
        span_share=share,
        raw_share=share,
        independent_share=share,
        multi_extent_share=share,
        nfs_share=share,
        home_elsewhere_share=share,
        local_datastores=local,
    )
    estate = config.build()
    check_references(estate)
    assert estate == config.build()
    assert len(estate.inventory.vms) == vms
    assert len(estate.inventory.datastores) == datastores + local
    assert len(estate.arrays) == arrays


def test_another_seed_is_another_estate() -> None:
    assert GeneratedEstate(seed=1).build() != GeneratedEstate(seed=2).build()


def test_this_estate_stays_as_it_is() -> None:
    """Reports name scenario and seed only, so the generator may not drift unnoticed."""
    estate = GeneratedEstate(vms=3, datastores=2, neighbourhood=1).build()
    assert [
        (vm.name, vm.home_datastore_id, len(vm.disks), vm.power_state.value)
        for vm in estate.inventory.vms
    ] == [
        ("test-mail-001", "vc-1/vmfs-01", 1, "on"),
        ("prod-app-001", "vc-1/vmfs-02", 1, "on"),
        ("prod-app-002", "vc-1/vmfs-02", 1, "on"),
    ]


def test_shares_come_out() -> None:
    config = GeneratedEstate(
        vms=6000,
        datastores=90,
        local_datastores=2,
        raw_share=0.05,
        home_elsewhere_share=0.1,
        multi_extent_share=0.3,
        cross_array_share=0.02,
    )
    estate = config.build()
    vms = estate.inventory.vms
    stores = {datastore.id: datastore for datastore in estate.inventory.datastores}
    unit_of = {device: unit for unit in estate.units for device in unit.devices}
    shared = [s for s in stores.values() if not s.name.startswith("local-")]

    def share(count: int) -> float:
        return count / len(vms)

    def arrays_of(vm_index: int) -> set[str]:
        extents = [
            stores[disk.datastore_id].extents[0]
            for disk in vms[vm_index].disks
            if disk.datastore_id is not None
        ]
        return {unit_of[device].array_id for device in extents if device in unit_of}

    spanning = sum(len({disk.datastore_id for disk in vm.disks}) > 1 for vm in vms)
    templates = sum(vm.is_template for vm in vms)
    off = sum(vm.power_state is PowerState.OFF and not vm.is_template for vm in vms)
    windows = sum("Windows" in vm.guest_os for vm in vms)
    raw = sum(any(disk.raw_is_physical for disk in vm.disks) for vm in vms)
    no_tools = sum(vm.can_quiesce is False for vm in vms)
    foreign = sum(vm.snapshot_count > 0 for vm in vms)
    local = sum((vm.home_datastore_id or "").partition("/")[2].startswith("local-") for vm in vms)
    independent = sum(
        any(disk.mode is DiskMode.INDEPENDENT_PERSISTENT for disk in vm.disks) for vm in vms
    )
    assert share(spanning) == pytest.approx(0.08, abs=0.012)
    assert share(sum(len(arrays_of(i)) > 1 for i in range(len(vms)))) == pytest.approx(
        0.02, abs=0.006
    )
    assert share(templates) == pytest.approx(0.01, abs=0.005)
    assert share(off) == pytest.approx(0.08, abs=0.012)
    assert share(windows) == pytest.approx(0.5, abs=0.06)
    assert share(raw) == pytest.approx(0.05, abs=0.01)
    assert share(no_tools) == pytest.approx(0.05, abs=0.01)
    assert share(foreign) == pytest.approx(0.03, abs=0.01)
    assert share(local) == pytest.approx(0.01, abs=0.005)
    assert 0 < share(independent) < 0.02
    assert len(shared) == 90
    assert sum(s.kind is DatastoreKind.NFS for s in shared) == 22
    two = sum(len(s.extents) == 2 for s in shared)
    assert two / 68 == pytest.approx(0.3, abs=0.15)


def test_cross_array_vms_find_another_array_even_behind_a_neighbour_on_their_own() -> None:
    # Three neighbourhoods on two arrays: the third one's next neighbour is on its own array.
    estate = GeneratedEstate(
        vms=60, datastores=3, neighbourhood=1, cross_array_share=1.0, raw_share=0.0
    ).build()
    unit_of = {device: unit for unit in estate.units for device in unit.devices}
    arrays = {store.id: unit_of[store.extents[0]].array_id for store in estate.inventory.datastores}
    for vm in estate.inventory.vms:
        assert len({arrays[disk.datastore_id or ""] for disk in vm.disks}) == 2


def test_environments_keep_to_neighbourhoods_of_their_own() -> None:
    def mixed(share: float) -> int:
        """Datastores that hold VMs of more than one environment."""
        estate = GeneratedEstate(vms=2000, datastores=30, mixed_share=share).build()
        found: dict[str | None, set[str]] = {}
        for vm in estate.inventory.vms:
            found.setdefault(vm.home_datastore_id, set()).add(vm.folder.partition("/")[0])
        kinds = set().union(*found.values())
        assert kinds == {"Production", "Test", "Development"}
        return sum(len(folders) > 1 for folders in found.values())

    assert mixed(0.0) == 0
    assert mixed(1.0) == 30


def test_spanning_vms_do_not_tie_the_estate_together() -> None:
    sizes = components(GeneratedEstate(vms=6000, datastores=90, span_share=0.5).build())
    assert max(sizes) <= 3


def test_a_wide_neighbourhood_ties_everything_together() -> None:
    wide = GeneratedEstate(vms=600, datastores=12, arrays=1, span_share=0.5, neighbourhood=12)
    assert components(wide.build()) == [12]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"datastores": 3, "arrays": 2}, "arrays"),
        ({"clusters": 9}, "clusters"),
        ({"vcenters": 3, "clusters": 2}, "vcenters"),
        ({"clusters": 3, "hosts": 2}, "hosts"),
        ({"two_disk_share": 0.6, "three_disk_share": 0.6}, "two_disk_share"),
        ({"arrays": 1, "cross_array_share": 0.1}, "cross_array_share"),
        ({"nfs_share": 1.5}, "nfs_share"),
        ({"vm": 5}, "vm"),
    ],
)
def test_counts_that_do_not_fit_are_refused(values: dict[str, float], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        GeneratedEstate.model_validate(values)


def test_a_vcenter_with_one_array_cannot_span_arrays() -> None:
    config = GeneratedEstate(
        vms=10, datastores=2, neighbourhood=1, vcenters=2, clusters=2, cross_array_share=1.0
    )
    with pytest.raises(InputError, match="cross_array_share"):
        config.build()
