"""Selection rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from support_memory import small_estate

from stillframe.drivers.records import Cluster, Host, PowerState
from stillframe.orchestrator.select import select
from stillframe.orchestrator.spec import JobSpec, Selection
from stillframe.topology.graph import Topology


def chosen(selection: dict[str, Any]) -> list[str]:
    """The names of the VMs that a selection takes from a small, varied estate."""
    estate = small_estate(6, 3, [(0, 2)])
    clusters = (Cluster("vc/c0", "vc", "Prod-A"), Cluster("vc/c1", "vc", "test"))
    hosts = (Host("vc/h0", "vc", "h0", "vc/c0"), Host("vc/h1", "vc", "h1", "vc/c1"))
    vms = list(estate.inventory.vms)
    vms[1] = replace(vms[1], folder="/Finance/db", tags=("tier:gold",))
    vms[2] = replace(vms[2], power_state=PowerState.OFF, host_id="vc/h1")
    vms[3] = replace(vms[3], is_template=True)
    inventory = replace(estate.inventory, clusters=clusters, hosts=hosts, vms=tuple(vms))
    topology = Topology(replace(estate, inventory=inventory))
    return [vm.name for vm in select(topology, Selection.model_validate(selection))]


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ({}, ["vm0", "vm1", "vm2", "vm4", "vm5"]),  # never the template
        ({"include": {"name": "VM[12]"}}, ["vm1", "vm2"]),
        ({"include": {"folder": "/finance/*"}}, ["vm1"]),
        ({"include": {"tag": "tier:*"}}, ["vm1"]),
        ({"include": {"power": "off"}}, ["vm2"]),
        ({"include": {"cluster": "prod*"}}, ["vm0", "vm1", "vm4", "vm5"]),
        ({"include": {"datastore": "ds2"}}, ["vm0", "vm2", "vm5"]),  # vm0 by its second disk
        ({"include": {"datastore": "ds2", "power": "on"}}, ["vm0", "vm5"]),
        ({"include": {"any": [{"name": "vm1"}, {"name": "vm5"}]}}, ["vm1", "vm5"]),
        ({"include": {"all": [{"datastore": "ds2"}, {"name": "vm0"}]}}, ["vm0"]),
        ({"include": {"not": {"name": "vm?"}}}, []),
        ({"exclude": {"datastore": "ds0"}}, ["vm1", "vm2", "vm4", "vm5"]),
    ],
)
def test_rules(selection: dict[str, Any], names: list[str]) -> None:
    assert chosen(selection) == names


def test_unknown_fields_and_meaningless_options_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Selection.model_validate({"include": {"nmae": "x"}})
    with pytest.raises(ValidationError, match="no meaning with strategy 'all-at-once'"):
        JobSpec.model_validate({"strategy": "all-at-once", "chunk_vms": 3})
