"""The tenants' grouping strategy: planned, run, and run again under faults and crashes."""

from pathlib import Path

import pytest
from stillframe import PlannedGroup

from tenant_snapshots.checks import tenants_are_whole
from tenant_snapshots.grouping import per_tenant

ESTATE = Path(__file__).parents[1] / "estate.yaml"
# A VM that moves while it is cut is left out, rather than cut again at another moment.
SPEC = {"recuts": 0}


def test_each_tenant_is_one_group(stillframe_job):
    run = stillframe_job(ESTATE, strategy=per_tenant, spec=SPEC)
    assert {group.group_id: len(group.vm_ids) for group in run.plan.groups} == {
        "blue": 3,
        "green": 2,
    }
    assert run.result.protected == 5
    assert len(run.result.calls) == 4  # both tenants lie on both arrays


def test_nothing_changed_in_the_order_of_things(stillframe_job, stillframe_golden):
    run = stillframe_job(ESTATE, strategy=per_tenant, spec=SPEC)
    stillframe_golden(run, "two-tenants")


@pytest.mark.stillframe_seeds(20)
def test_tenants_stay_whole_whatever_fails(stillframe_lab):
    lab = stillframe_lab(ESTATE, strategy=per_tenant, spec=SPEC, checks=[tenants_are_whole])
    lab.run()


def test_tenants_stay_whole_on_estates_of_many_shapes(stillframe_lab):
    lab = stillframe_lab("one-disk-ties", strategy=per_tenant, spec=SPEC)
    found = lab.explore(20)
    assert found.crashes


def per_home(topology, vms, spec):
    """What one writes first: a group for each datastore, which tears tenants apart."""
    by_home = {}
    for vm in vms:
        by_home.setdefault(vm.home_datastore_id, []).append(vm.id)
    return [
        PlannedGroup(
            home, tuple(ids), tuple({unit: 0 for id_ in ids for unit in topology.units_of_vm(id_)})
        )
        for home, ids in by_home.items()
    ]


def test_the_check_finds_a_strategy_that_splits_tenants(stillframe_lab):
    lab = stillframe_lab(ESTATE, strategy=per_home, spec=SPEC, checks=[tenants_are_whole])
    with pytest.raises(AssertionError, match="cut tenant blue 2 times on array-b") as caught:
        lab.explore(50)
    assert "--stillframe-seed" in str(caught.value)
