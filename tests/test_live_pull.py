"""``estate pull``: the estate that it writes and what it says about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from support_live_front import World, invoke, pulled, world
from support_memory import GIB

from stillframe.topology.estate import load_estate

__all__ = ["world"]  # a fixture


def test_pull_writes_an_estate_whose_units_are_made_from_devices(world: World) -> None:
    devices = [unit.devices[0] for unit in world.estate.units]
    world.hypervisor.facts = {
        devices[0]: ("ACME", "X1", False),
        devices[1]: ("ACME", "X1", False),
        devices[2]: ("ATA", "SSD", True),
    }
    document = pulled("--out", "estate.yaml")
    estate = load_estate("estate.yaml")
    assert estate.inventory == world.estate.inventory
    assert [(unit.array_id, unit.devices) for unit in estate.units] == [
        ("ACME X1", (device,)) for device in devices[:2]
    ]
    assert document["statistics"]["protectable_vms"] == 4
    told = " ".join(one["sentence"] for one in document["findings"])
    assert "1 datastore (ds2): on disks of a host itself" in told
    assert "1 array (ACME X1): LUNs of the same vendor and model count as one array" in told
    assert "4 of 6 VMs can be protected" in told


def test_pull_without_facts_says_that_the_array_is_unknown(world: World) -> None:
    document = pulled()
    told = [one["sentence"] for one in document["findings"] if one["severity"] == "assumed"]
    assert any("3 devices" in one and "one unknown array" in one for one in told)
    assert document["estate"] is None
    assert not Path("estate.yaml").exists()
    text = invoke("estate", "pull", "--vcenter", "vc").stdout
    assert "6 VMs with 7 disks on 3 datastores; 3 units on 1 array; 6 VMs can" in text
    assert "can be protected by array snapshots" in text


def test_pull_counts_a_datastore_of_unknown_size_as_nothing_and_says_so(world: World) -> None:
    inventory = world.hypervisor.contents
    stores = tuple(replace(one, capacity_bytes=None) for one in inventory.datastores[:1])
    world.hypervisor.contents = replace(inventory, datastores=stores + inventory.datastores[1:])
    told = [one["sentence"] for one in pulled("--out", "estate.yaml")["findings"]]
    assert any("1 unit (naa.60" in one and "capacity not known" in one for one in told)
    assert [unit.capacity_bytes for unit in load_estate("estate.yaml").units] == [
        0, 100 * GIB, 100 * GIB,
    ]  # fmt: skip


def test_pull_hands_host_port_user_and_ca_file_to_the_driver(world: World) -> None:
    invoke("estate", "pull", "--vcenter", "vc:8443", "--user", "reader", "--ca-file", "ca.pem")
    invoke("estate", "pull", "--vcenter", "[::1]")
    invoke("estate", "pull", "--vcenter", "vc", "--keyring", "vms", "--insecure-no-verification")
    assert world.opened == [
        ("vc", {"host": "vc", "port": 8443, "user": "reader", "ca_file": "ca.pem"}),
        ("::1", {"host": "::1"}),
        ("vc", {"host": "vc", "verify": "insecure-no-verification", "keyring": "vms"}),
    ]
    assert world.closed == ["vc", "::1", "vc"]


def test_pull_names_what_matters_for_snapshots(world: World) -> None:
    vms = world.hypervisor.vms
    vms["vc/vm1"] = replace(vms["vc/vm1"], snapshot_count=2)
    vms["vc/vm2"] = replace(vms["vc/vm2"], can_quiesce=False)
    told = " ".join(one["sentence"] for one in pulled()["findings"])
    assert "1 VM (vm1): have snapshots already" in told
    assert "1 VM (vm2): the guest cannot be quiesced" in told
