"""docs/faults.md lists every site, in the words of the code, and its scenarios run."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from support_faulty_job import run

from stillframe.orchestrator.result import JobStatus
from stillframe.scenarios.schema import scenario_from_data
from stillframe.sim import faults
from stillframe.sim.faults import Faults, Site
from stillframe.simulation import simulate
from stillframe.topology.yamlfile import parse_yaml

PAGE = Path(__file__).resolve().parents[1] / "docs" / "faults.md"
TEXT = PAGE.read_text(encoding="utf-8")
SITES = TEXT[TEXT.index("## The sites of the hypervisor") : TEXT.index("## Events")]
ROWS = dict(re.findall(r"^\| `([a-z-]+)` \| (.+?) \| .+ \|$", SITES, re.M))
EXAMPLES = re.findall(r"^<!-- complete -->\n```yaml\n(.*?)^```", TEXT, re.M | re.S)


def sentences() -> dict[str, str]:
    """What each member of Site says of itself in its docstring."""
    (body,) = ast.parse(inspect.getsource(Site)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for before, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(before, ast.Assign) and isinstance(after, ast.Expr):
            found[ast.literal_eval(before.value)] = ast.literal_eval(after.value)
    return found


def test_every_site_is_described_and_the_page_says_the_same() -> None:
    assert list(sentences()) == [site.value for site in Site]
    assert sentences() == ROWS


def test_every_duration_and_its_default_is_on_the_page() -> None:
    table = TEXT[TEXT.index("| key |") : TEXT.index("The durations are")]
    for name in Faults.model_fields:
        assert f"`{name}`" in table
    minutes = {"slow_task": "12 min", "late_group": "12 min", "silence": "10 min"}
    for name, shown in {**minutes, "session": "10 s", "in_use": "30 s"}.items():
        row = next(line for line in table.splitlines() if line.startswith(f"| `{name}`"))
        assert row.endswith(f"| {shown} |")
        read = Faults.model_validate({name: shown})
        assert read == Faults(), f"{name} is not {shown} by default"
    assert Path(inspect.getfile(faults)).name == "faults.py"


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_run(text: str) -> None:
    scenario = scenario_from_data(parse_yaml(text, "docs/faults.md"), Path("example.yaml"))
    assert scenario.world.faults.beyond_claims(scenario.job.timeouts) == []
    done = simulate(scenario)
    assert done.world.leftovers() == []
    assert 1 <= sum(done.world.faults.fired.values()) <= 8


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("site", ["hypervisor-busy", "removal-refused", "array-busy"])
def test_refusals_within_the_budget_cost_no_vm_its_protection(site: str) -> None:
    for seed in range(4):
        done = run({"sites": {site: 1}, "budget": 3}, seed)
        assert done.world.faults.fired == {Site(site): 3}
        assert done.result.status is JobStatus.PROTECTED
