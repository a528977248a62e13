"""A grouping strategy of the caller's own is held to what every plan relies on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support_world import disk, estate, vm

from stillframe.drivers.records import Vm
from stillframe.errors import StillframeError
from stillframe.orchestrator.plan import make_plan
from stillframe.orchestrator.spec import JobSpec
from stillframe.orchestrator.strategies import STRATEGIES, PlannedGroup
from stillframe.topology.graph import Topology

SPANNING = vm("spans", disk(2000, "ds1"), disk(2001, "ds3"))
TOPOLOGY = Topology(estate(SPANNING, vm("b", disk(2000, "ds1"))))


def test_a_vm_whose_units_are_in_two_groups_is_torn_and_refused() -> None:
    def per_unit(topology: Topology, vms: Sequence[Vm], spec: JobSpec) -> list[PlannedGroup]:
        """The mistake one makes: a group for each unit, each VM where its home is."""
        return [
            PlannedGroup("one", ("vc/spans", "vc/b"), ("lun-1",)),
            PlannedGroup("other", (), ("lun-3",)),
        ]

    with pytest.raises(StillframeError) as caught:
        make_plan(TOPOLOGY, JobSpec(), per_unit)
    assert str(caught.value).startswith(
        "the grouping strategy tears VM vc/spans apart: it lies on unit lun-3, which its group one "
        "does not name"
    )


def test_a_vm_in_two_groups_is_refused() -> None:
    def doubles(topology: Topology, vms: Sequence[Vm], spec: JobSpec) -> list[PlannedGroup]:
        both = tuple(one.id for one in vms)
        return [PlannedGroup(name, both, ("lun-1", "lun-3")) for name in ("one", "other")]

    with pytest.raises(StillframeError, match="in two groups"):
        make_plan(TOPOLOGY, JobSpec(), doubles)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("physical", [False, True])
def test_what_ships_tears_nothing_apart(independent: bool, physical: bool) -> None:
    for name in STRATEGIES:
        spec = JobSpec(strategy=name, independent_disks=independent, physical_raw_disks=physical)
        assert make_plan(TOPOLOGY, spec).groups
