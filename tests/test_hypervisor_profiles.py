"""Profiles of hypervisors: every number has its source, and the host decides how it merges."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from support_hypervisor import SILENT
from support_world import Bench, config, disk, estate, request, vm

from stillframe.sim.profile_data import PROFILES, SOURCES
from stillframe.sim.profiles import (
    HypervisorProfile,
    MergeAlgorithm,
    algorithm_for,
    hypervisor_profile,
    profile_sources_table,
)


def test_every_number_of_every_profile_names_its_source() -> None:
    fields = set(HypervisorProfile.model_fields) - {"profile", "sources"}
    for name in PROFILES:
        profile = hypervisor_profile(name)
        assert set(SOURCES[name]) == fields == set(PROFILES[name])
        assert all(profile.sources[field] for field in fields)
    rows = profile_sources_table()
    assert len(rows) == len(PROFILES) * len(fields)
    assert ("esxi-8", "vss_hold", "10 s", SOURCES["esxi-8"]["vss_hold"]) in rows


def test_an_override_replaces_one_number_and_its_source() -> None:
    context = {"units_required": True}
    profile = HypervisorProfile.model_validate(
        {"profile": "esxi-5.5", "stun_create": "2 s"}, context=context
    )
    assert profile.stun_create == 2.0
    assert profile.sources["stun_create"] == "set in the configuration"
    assert profile.merge is MergeAlgorithm.ITERATIVE
    assert profile.sources["merge"] == SOURCES["esxi-5.5"]["merge"]
    again = HypervisorProfile.model_validate(profile.model_dump())
    assert again == profile


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"profile": "esx-9"}, "no hypervisor profile 'esx-9'; there are esxi-8"),
        ({"stun": "1 s"}, "stun"),
        ({"merge_rate": "0 MB/s"}, "greater than 0"),
        ({"stun_create": 3}, "no unit"),
    ],
)
def test_a_bad_profile_is_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        HypervisorProfile.model_validate(bad, context={"units_required": True})


@pytest.mark.parametrize(
    ("version", "algorithm"),
    [
        ("VMware ESXi 5.5.0 build-1331820", MergeAlgorithm.ITERATIVE),
        ("VMware ESXi 6.0.0 build-2494585", MergeAlgorithm.ITERATIVE),
        ("VMware ESXi 6.0.0 build-3029758", MergeAlgorithm.MIRROR),
        ("6.0.0", MergeAlgorithm.MIRROR),
        ("6.7.0", MergeAlgorithm.MIRROR),
        ("VMware ESXi 8.0.2 build-22380479", MergeAlgorithm.MIRROR),
        ("", MergeAlgorithm.MIRROR),
    ],
)
def test_the_version_of_the_host_decides_the_algorithm(
    version: str, algorithm: MergeAlgorithm
) -> None:
    assert algorithm_for(hypervisor_profile("vsphere-mixed"), version) is algorithm
    assert algorithm_for(hypervisor_profile("esxi-5.5"), version) is MergeAlgorithm.ITERATIVE


def test_a_mixed_estate_merges_as_each_host_does() -> None:
    vms = [vm("old", disk(1, "ds1")), vm("new", disk(1, "ds1"), host_id="h2")]
    how = config({"merge": "by-host-version", "merge_stun_below": 0}, guest=SILENT)
    b = Bench(estate(*vms, versions=("5.5.0", "8.0.2")), how)

    async def main() -> list[int]:
        passes = []
        for name in ("old", "new"):
            answer = await b.vc.create_snapshot(request(name))
            passes.append((await b.vc.remove_snapshot(answer.ref)).passes)
        return passes

    assert b.go(main) == [10, 1]
