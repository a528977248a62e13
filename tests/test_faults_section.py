"""The ``faults`` section: what may be written, what is refused, and what a job does not survive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support_faulty_job import run, scenario

from stillframe.errors import InputError
from stillframe.orchestrator.spec import Timeouts
from stillframe.scenarios.schema import load_scenario
from stillframe.sim.faults import ActiveSite, Faults, Site


@pytest.mark.parametrize("bare", [0.05, "5 %", "5%", {"fire": 0.05}, {"fire": "5 %"}])
def test_a_bare_probability_is_one_per_visit(bare: Any) -> None:
    faults = Faults.model_validate({"sites": {"quiesce-hangs": bare}})
    assert faults.sites == {Site.QUIESCE_HANGS: ActiveSite(fire=0.05)}
    assert faults.sites[Site.QUIESCE_HANGS].activate == 1.0
    assert faults.sites[Site.QUIESCE_HANGS].most is None


@pytest.mark.parametrize(
    ("section", "word"),
    [
        ({"sites": {"quiesce-hang": 0.1}}, "quiesce-hangs"),
        ({"sites": {"quiesce-hangs": 1.5}}, "less than or equal to 1"),
        ({"sites": {"quiesce-hangs": "150 %"}}, "less than or equal to 1"),
        ({"sites": {"quiesce-hangs": "often"}}, "valid number"),
        ({"sites": {"quiesce-hangs": True}}, "quiesce-hangs"),
        ({"sites": {"quiesce-hangs": {"activate": 0.1}}}, "fire"),
        ({"sites": {"quiesce-hangs": {"fire": 0.1, "most": 0}}}, "most"),
        ({"budget": -1}, "budget"),
        ({"quiesce_hang_probability": 0.1}, "quiesce_hang_probability"),
    ],
)
def test_what_makes_no_sense_is_refused(section: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        Faults.model_validate(section)


def test_an_unknown_site_in_a_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text(
        "name: typo\ntitle: a typo\nestate: {generate: {}}\n"
        "world: {faults: {sites: {quiesce-hang: 0.1}}}\n",
        encoding="utf-8",
    )
    with pytest.raises(InputError) as caught:
        load_scenario(path)
    line = str(caught.value)
    assert "quiesce-hang" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("site", "field"),
    [("late-create", "slow_task"), ("late-remove", "slow_task"), ("late-group", "late_group")],
)
def test_what_takes_effect_when_nobody_looks_any_more_is_beyond_the_claims(
    site: str, field: str
) -> None:
    timeouts = Timeouts(settle=100.0)
    inside = Faults.model_validate({"sites": {site: 0.1}, field: 99.0})
    beyond = Faults.model_validate({"sites": {site: 0.1}, field: 100.0})
    assert inside.beyond_claims(timeouts) == []
    (sentence,) = beyond.beyond_claims(timeouts)
    assert site in sentence
    assert field in sentence
    assert "timeouts.settle" in sentence
    # Only of sites that can fire.
    assert Faults.model_validate({field: 100.0}).beyond_claims(timeouts) == []


def test_the_defaults_are_within_the_claims_of_the_default_timeouts() -> None:
    every = Faults(sites={site: ActiveSite(fire=1) for site in Site})
    assert every.beyond_claims(Timeouts()) == []


def test_a_report_says_which_faults_were_in_the_world_and_what_goes_beyond_the_claims() -> None:
    late = run({"sites": {"late-create": {"fire": 1, "most": 1}}, "slow_task": "1 h"})
    said = late.run_data().meta["assumptions"]
    assert any("late-create" in sentence and "docs/faults.md" in sentence for sentence in said)
    assert any("beyond" in sentence for sentence in said)
    # And so it is: what comes later than the job looks is still there.
    assert any("busy" in sentence for sentence in late.world.leftovers())
    quiet = run({}).run_data().meta["assumptions"]
    assert not any("Faults" in sentence for sentence in quiet)


def test_late_enough_to_be_late_and_early_enough_to_be_found() -> None:
    """The numbers of the small job: its callers have gone, and the search is not over."""
    one = scenario({"sites": dict.fromkeys(Site, 1)})
    timeouts = one.job.timeouts
    faults = one.world.faults
    assert faults.slow_task > timeouts.create + one.job.quiesce.timeout
    assert faults.slow_task > timeouts.remove
    assert faults.late_group > timeouts.array
    assert faults.beyond_claims(timeouts) == []
