"""From write profiles to single writes: the same bytes, in blocks of a bearable number."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_block import BlockBench
from support_world import disk, vm

from stillframe.errors import InputError
from stillframe.orchestrator.spec import Timeouts
from stillframe.sim.assumptions import assumptions
from stillframe.sim.block_script import WriteScript
from stillframe.sim.block_workload import BlockSettings, SteadyRules, steady_equivalent, workload_of
from stillframe.sim.config import WorldConfig
from stillframe.sim.draws import Draws
from stillframe.sim.guest_rules import GuestRule
from stillframe.sim.profilefile import load_profile
from stillframe.sim.writeprofile import ParametricProfile, ScaledProfile
from stillframe.topology.yamlfile import parse_yaml

GRAIN = 4096
VM = vm("a", disk(2000, "ds1"), disk(2001, "ds2"))


@given(
    duration_s=st.floats(1.0, 400.0),
    locality=st.floats(0.5, 0.95),
    write_size=st.sampled_from([512, 4096, 20_000]),
    most=st.sampled_from([5.0, 40.0, 1e6]),
)
def test_distinct_blocks_grow_as_the_profile_says_up_to_the_working_set(
    duration_s: float, locality: float, write_size: int, most: float
) -> None:
    profile = ParametricProfile(write_size * 40.0, 30_000_000.0, locality, write_size)
    load = workload_of(VM, profile, 1.0, GRAIN, BlockSettings(most_writes_per_s=most))
    assert load.writes_per_s <= most
    assert load.block_bytes % GRAIN == 0
    script = WriteScript(load, Draws(5), "vm")
    script.reach(duration_s)
    made = [
        block
        for stream in (script.durable, script.cached)
        for time_s, block in zip(stream.times_s, stream.blocks, strict=True)
        if time_s <= duration_s
    ]
    counted = len(set(made)) * load.block_bytes
    mean = profile.delta_bytes(0.0, duration_s, GRAIN)
    # Pieces of the working set are rounded to whole blocks, four of them.
    assert counted == pytest.approx(
        mean, abs=5 * math.sqrt(mean * load.block_bytes) + 4 * load.block_bytes
    )


def test_a_working_set_is_written_in_full_in_the_end_and_not_beyond() -> None:
    profile = ParametricProfile(40 * 4096.0, 800 * 4096.0, 0.75)
    load = workload_of(VM, profile, 1.0, GRAIN, BlockSettings(most_writes_per_s=40))
    assert load.hot_blocks == (100, 100)
    assert load.cold_blocks == (300, 300)
    script = WriteScript(load, Draws(5), "vm")
    script.reach(1000.0)
    assert len({*script.durable.blocks, *script.cached.blocks}) == 800


def test_a_trace_is_replaced_by_a_steady_writer_of_its_rate_and_size() -> None:
    trace = load_profile()
    steady = steady_equivalent(trace)
    assert steady.rate_bytes_per_s == trace.rate_bytes_per_s
    assert steady.delta_bytes(0.0, trace.period_s) == pytest.approx(
        trace.distinct_bytes(), rel=0.01
    )
    for row in trace.summary((10.0, 60.0, 300.0), (GRAIN,)):
        assert steady.delta_bytes(0.0, row.duration_s) == pytest.approx(row.mean_bytes, rel=0.4)
    assert "steady writer in place of" in steady.source
    assert SteadyRules((GuestRule(),)).of("any")[1] == steady


def test_a_profile_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="no writes of a ScaledProfile"):
        steady_equivalent(ScaledProfile(load_profile(), 2.0))


@pytest.mark.parametrize("field", ["durable_share", "most_writes_per_s"])
def test_settings_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        BlockSettings.model_validate({field: -1})


def test_the_assumptions_say_which_fidelity_it_is() -> None:
    bench = BlockBench(VM)
    said: Any = assumptions(bench.config, bench.estate, Timeouts())
    assert any(sentence.startswith("Block fidelity") for sentence in said)
    assert not any(sentence.startswith("Flow fidelity") for sentence in said)


def test_the_documented_section_is_one() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "fidelity.md").read_text("utf-8")
    (section,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    config = WorldConfig.model_validate(parse_yaml(section, "fidelity.md")["world"])
    assert config.fidelity == "block"
    assert config.block == BlockSettings()
