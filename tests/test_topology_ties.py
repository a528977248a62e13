"""What ties a component together: against removal by brute force, and by example."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support_topology import (
    disk,
    estates,
    lun,
    machine,
    naa,
    slow_components,
    small_estate,
    spread,
    vmfs,
)

from stillframe.drivers.records import Estate, Vm
from stillframe.topology.graph import Topology
from stillframe.topology.queries import components
from stillframe.topology.ties import ties

UNITS = [lun(number) for number in range(1, 7)]
STORES = [vmfs(name, number) for number, name in enumerate("abcde", 1)]


def found_ties(*vms: Vm, stores=STORES, units=UNITS):
    topology = Topology(small_estate(stores, vms, units))
    (component,) = components(topology, topology.vm_ids)
    return ties(topology, component)


def test_one_disk_that_ties_two_groups_is_named() -> None:
    vms = [spread(f"a{n}", "a") for n in range(3)] + [spread(f"b{n}", "b") for n in range(4)]
    best, other = found_ties(*vms, spread("tie", "a", "b"))
    assert (best.vm_id, best.disk_key, best.place, best.parts) == ("vc/tie", 2001, "vc/b", (4, 4))
    assert best.unit_ids == ("array-1/lun-2",)
    assert best.sentence == (
        "moving disk 2001 of VM tie off datastore b splits this group into 4 and 4 VMs"
    )
    assert (other.disk_keys, other.moves_home, other.place) == ((2000,), True, "vc/a")
    assert other.parts == (5, 3)


def test_the_most_even_split_comes_first_and_then_the_smaller_move() -> None:
    vms = [spread(f"{store}{n}", store) for store in "abc" for n in range(2)]
    found = found_ties(*vms, spread("y", "b", "c"), spread("x", "a", "b"))
    assert [(tie.vm_id, tie.place, tie.parts) for tie in found] == [
        ("vc/x", "vc/b", (5, 3)),
        ("vc/y", "vc/b", (5, 3)),
        ("vc/y", "vc/c", (6, 2)),
        ("vc/x", "vc/a", (6, 2)),
    ]


def test_two_vms_across_the_same_two_datastores_leave_no_single_tie() -> None:
    vms = [spread(f"{store}{n}", store) for store in "ab" for n in range(2)]
    assert found_ties(*vms, spread("x", "a", "b"), spread("y", "a", "b")) == []


def test_vms_of_one_datastore_are_not_ties() -> None:
    assert found_ties(spread("a1", "a"), spread("a2", "a")) == []


def test_a_private_second_datastore_is_no_tie_but_a_private_first_one_is() -> None:
    # Moving the private disk onto the shared datastore separates nobody; moving the disk on the
    # shared datastore to the private one takes the VM out of the group.
    (tie,) = found_ties(spread("a1", "a"), spread("a2", "a"), spread("x", "b", "a"))
    assert (tie.vm_id, tie.disk_key, tie.place, tie.parts) == ("vc/x", 2001, "vc/a", (2, 1))


def test_several_disks_and_the_home_move_together() -> None:
    vms = [spread(f"{store}{n}", store) for store in "ab" for n in range(2)]
    tying = machine("x", "a", disk(1, "b"), disk(2, "b"), disk(3, "a"))
    one, two = found_ties(*vms, tying)
    assert {one.parts, two.parts} == {(3, 2)}
    moved = {(tie.place, tie.disk_keys, tie.moves_home) for tie in (one, two)}
    assert moved == {("vc/b", (1, 2), False), ("vc/a", (3,), True)}
    assert all(tie.disk_key is None for tie in (one, two))
    assert "moving the home and disk 3 of VM x" in " ".join((one.sentence, two.sentence))
    assert "moving disks 1, 2 of VM x" in " ".join((one.sentence, two.sentence))


def test_a_multi_extent_datastore_is_left_in_one_move() -> None:
    stores = [vmfs("a", 1), vmfs("wide", 2, 3)]
    vms = [spread(f"a{n}", "a") for n in range(2)] + [spread(f"w{n}", "wide") for n in range(2)]
    tie, other = found_ties(*vms, spread("x", "a", "wide"), stores=stores)
    assert (tie.disk_key, tie.parts, other.parts) == (2001, (3, 2), (3, 2))
    assert tie.unit_ids == ("array-1/lun-2", "array-1/lun-3")


def test_a_wide_datastore_of_one_vm_holds_nothing_together_without_it() -> None:
    # Nobody else uses "wide", so its two extents are tied by x alone.
    stores = [vmfs("a", 1), vmfs("b", 2), vmfs("wide", 1, 2), vmfs("own", 3)]
    sides = [spread(f"{store}{n}", store) for store in "ab" for n in range(2)]
    (tie,) = found_ties(*sides, spread("x", "wide"), stores=stores)
    assert (tie.vm_id, tie.place, tie.parts) == ("vc/x", None, (2, 2))
    (tie,) = found_ties(*sides, spread("x", "own", "wide"), stores=stores)
    assert (tie.vm_id, tie.disk_key, tie.place) == ("vc/x", 2001, "vc/wide")
    assert tie.parts == (2, 2, 1)
    assert "into 2, 2 and 1 VMs" in tie.sentence


def test_a_raw_device_can_be_the_tie() -> None:
    raw = machine("x", "a", disk(2000, "a"), disk(2001, "a", raw_device=naa(2)))
    tie, _ = found_ties(spread("a1", "a"), raw, spread("b1", "b"), spread("b2", "b"))
    assert (tie.disk_keys, tie.place, tie.parts) == ((2001,), naa(2), (2, 2))
    assert f"off device {naa(2)}" in tie.sentence


def test_a_vm_that_ties_by_two_ways_each_can_only_be_left_out() -> None:
    # x hangs on two datastores of either side, so no single move helps, but leaving it out does.
    vms = [spread("l1", "a", "b"), spread("l2", "b", "a"), spread("r1", "c", "d"),
           spread("r2", "d", "c"), spread("x", "a", "b", "c", "d")]  # fmt: skip
    (tie,) = found_ties(*vms)
    assert (tie.vm_id, tie.disk_keys, tie.moves_home, tie.place) == ("vc/x", (), False, None)
    assert tie.parts == (2, 2)
    assert "leaving VM x out of the selection leaves 2 and 2 VMs" in tie.sentence


def test_a_long_chain_does_not_exhaust_the_stack() -> None:
    count = 3000
    stores = [vmfs(f"s{n}", n) for n in range(count)]
    units = [lun(n) for n in range(count)]
    vms = [spread(f"v{n}", f"s{n}", f"s{n + 1}") for n in range(count - 1)]
    found = found_ties(*vms, stores=stores, units=units)
    # Each VM but the last can leave its second datastore: the last one is alone on its own.
    assert len(found) == 2 * (count - 2)
    assert found[0].freed == (count - 1) // 2


def moved(vm: Vm, place, keys: tuple[int, ...], home: bool) -> Vm:
    """The VM without what a tie tells to move: as if it lay where the VM lies anyway."""
    kept = []
    for item in vm.disks:
        if item.key in keys:
            if item.datastore_id == place:
                item = replace(item, datastore_id=None)
            if item.raw_device == place:
                item = replace(item, raw_device=None)
        kept.append(item)
    return replace(vm, disks=tuple(kept), home_datastore_id=None if home else vm.home_datastore_id)


def places(topology: Topology, vm_id: str) -> dict:
    found: dict = {}
    for part in topology.placements(vm_id):
        if part.units:
            found.setdefault(part.place, []).append(part.disk_key)
    return found


@st.composite
def tangles(draw: st.DrawFn) -> Estate:
    """Estates in which VMs hang together: few units, wide datastores, raw devices, many shared."""
    number = st.integers(1, 6)
    stores = [
        vmfs(name, *draw(st.lists(number, min_size=1, max_size=2, unique=True)))
        for name in "abcdef"
    ]
    vms = []
    for index in range(draw(st.integers(2, 7))):
        vm = spread(f"v{index}", *draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3)))
        if draw(st.integers(0, 3)) == 0:
            raw = disk(3000, draw(st.sampled_from("abcdef")), raw_device=naa(draw(number)))
            vm = replace(vm, disks=(*vm.disks, raw))
        vms.append(vm)
    return small_estate(stores, vms, UNITS)


@settings(max_examples=250)
@given(tangles() | estates())
def test_ties_agree_with_brute_force_removal(estate: Estate) -> None:
    topology = Topology(estate)
    for component in components(topology, topology.vm_ids):
        members = [topology.vm(vm_id) for vm_id in component.vm_ids]
        expected = {}
        for vm in members:
            mine = places(topology, vm.id)
            for place, items in mine.items():
                if len(mine) < 2:
                    continue
                keys = tuple(key for key in items if key is not None)
                changed = moved(vm, place, keys, None in items)
                rest = [changed if other is vm else other for other in members]
                pieces = slow_components(estate, rest)
                if len(pieces) > 1:
                    sizes = sorted((len(ids) for ids, _ in pieces), reverse=True)
                    expected[vm.id, place] = tuple(sizes)
        found = ties(topology, component)
        moves = [tie for tie in found if tie.place is not None]
        assert {(tie.vm_id, tie.place): tie.parts for tie in moves} == expected
        alone = {}
        for vm in members:
            rest = [other for other in members if other is not vm]
            sizes = sorted((len(ids) for ids, _ in slow_components(estate, rest)), reverse=True)
            if len(sizes) > 1 and vm.id not in {tie.vm_id for tie in moves}:
                alone[vm.id] = tuple(sizes)
        assert {tie.vm_id: tie.parts for tie in found if tie.place is None} == alone
        assert [tie.freed for tie in found] == sorted((t.freed for t in found), reverse=True)
