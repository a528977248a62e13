"""Scenario files: what they may hold, what the errors say, and the documentation's examples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stillframe.errors import InputError
from stillframe.orchestrator.events import Kind
from stillframe.orchestrator.result import JobStatus
from stillframe.orchestrator.spec import JobSpec, StrategyName
from stillframe.quantity import parse_bytes, parse_rate, parse_seconds
from stillframe.scenarios.generate import GeneratedEstate
from stillframe.scenarios.schema import (
    EstateSource,
    Scenario,
    find_scenario,
    list_scenarios,
    load_scenario,
    scenario_json_schema,
)
from stillframe.sim.config import PowerEvent
from stillframe.simulation import simulate
from stillframe.topology.estate import dump_estate
from stillframe.topology.yamlfile import parse_yaml

DOCS = Path(__file__).parent.parent / "docs" / "scenarios.md"
EXAMPLES = re.findall(r"<!-- complete -->\n```yaml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)


def small(**values: object) -> Scenario:
    return Scenario.model_validate(
        {"name": "small", "title": "Small", "estate": {"generate": {"vms": 4}}, **values}
    )


def test_the_documentation_has_examples() -> None:
    assert len(EXAMPLES) == DOCS.read_text("utf-8").count("```yaml") == 6


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split("\n")[0])
def test_every_example_of_the_documentation_runs(tmp_path: Path, text: str) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(text, encoding="utf-8")
    run = simulate(load_scenario(path))
    assert run.result.status in (JobStatus.PROTECTED, JobStatus.PARTLY, JobStatus.CANCELLED)
    assert run.world.leftovers() == []
    cancelled = run.scenario.cancel_s is not None
    assert (run.result.status is JobStatus.CANCELLED) is cancelled


def test_a_scenario_needs_a_name_a_title_and_an_estate_only() -> None:
    scenario = small()
    assert (scenario.seed, scenario.plan_age, scenario.observe) == (1, 0.0, 0.0)
    assert scenario.job == JobSpec()
    assert len(scenario.build_estate().inventory.vms) == 4


@pytest.mark.parametrize("name", ["", "Demo", "a/b", "..", "-x", "a b", "a\n"])
def test_a_name_is_a_plain_folder_name(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        small(name=name)


def test_events_know_their_kind_and_cancels_are_told_apart() -> None:
    scenario = small(
        events=[
            {"at": 9, "cancel_job": True},
            {"at": 5, "kind": "power", "vm": "x", "to": "off"},
            {"at": 7, "cancel_job": True},
        ]
    )
    assert scenario.cancel_s == 7
    assert [type(event) for event in scenario.world_events] == [PowerEvent]
    assert small().cancel_s is None


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("{at: 5 s, vm: a, host: b}", ("events[0]", "write kind:")),
        ("{at: 5 s, kind: teleport, vm: a}", ("events[0]", "write kind:")),
        ("{at: 5 s, kind: vmotion, vm: a}", ("events[0].vmotion.host", "is missing")),
        ("{at: 5, kind: vmotion, vm: a, host: b}", ("events[0].vmotion.at", "5 has no unit")),
        ("{at: 5 s, kind: vmotion, vm: a, hots: b, host: b}", ("hots", "did you mean 'host'?")),
        ("{at: 5 s, cancel_job: false}", ("events[0].cancel_job.cancel_job", "False")),
        ("later", ("events[0]", "write kind:")),
    ],
)
def test_an_event_that_is_wrong(tmp_path: Path, event: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        f"name: a\ntitle: A\nestate: {{generate: {{}}}}\nevents: [{event}]\n", encoding="utf-8"
    )
    with pytest.raises(InputError) as caught:
        load_scenario(path)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_estate_has_exactly_one_source() -> None:
    with pytest.raises(ValidationError, match="none of them"):
        EstateSource()
    with pytest.raises(ValidationError, match="file and generate"):
        EstateSource(file="x", generate=GeneratedEstate())


def test_paths_are_relative_to_the_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estate = GeneratedEstate(vms=5).build()
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "estate.yaml").write_text(dump_estate(estate), encoding="utf-8")
    (folder / "it.yaml").write_text(
        "name: it\ntitle: It\nestate: {file: estate.yaml}\n"
        "world: {guests: [{match: a, profile: mine.npz}, {match: b, profile: /abs.npz}]}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    scenario = load_scenario("sub/it.yaml")
    assert scenario.build_estate() == estate
    profiles = [rule.profile for rule in scenario.world.guests]
    assert profiles == [str(Path("sub/mine.npz")), "/abs.npz"]


def test_an_estate_that_is_written_out_is_checked_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    vms = "vcenters: [{name: v}], vms: [{name: a, disks: [{datastore: ds-9, size: 1 GiB}]}]"
    path.write_text(f"name: a\ntitle: A\nestate: {{inline: {{{vms}}}}}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"estate\.inline\.vms\[0\].*'ds-9'"):
        load_scenario(path)


def test_another_strategy_keeps_the_rest() -> None:
    scenario = small(job={"strategy": "chunks", "chunk_vms": 3, "recuts": 5})
    other = scenario.with_strategy(StrategyName.ALL_AT_ONCE)
    assert other.job.strategy is StrategyName.ALL_AT_ONCE
    assert other.job.recuts == 5
    # What chunks alone understands is not carried into a strategy that refuses it.
    assert JobSpec.model_validate(other.job.model_dump(by_alias=True)) == other.job
    assert scenario.with_strategy(StrategyName.CHUNKS).job.chunk_vms == 3


def test_shipped_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find_scenario("demo").name == "demo.yaml"
    assert find_scenario("demo.yaml") == Path("demo.yaml")
    assert find_scenario("./demo") == Path("demo")
    (tmp_path / "plain").write_text("name: plain\n", encoding="utf-8")
    assert find_scenario("plain") == Path("plain")
    with pytest.raises(InputError, match="did you mean 'first-claim'"):
        find_scenario("first_claim")
    with pytest.raises(InputError, match="does not exist"):
        load_scenario("demo.yaml")


def test_shipped_scenarios_are_sorted_and_described() -> None:
    names = [one.name for one in list_scenarios()]
    assert names == sorted(names)
    assert "demo" in names


def test_the_json_schema_knows_every_section_and_is_json() -> None:
    schema = scenario_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"name", "title", "estate"}
    definitions = schema["$defs"]
    for name in ("JobSpec", "WorldConfig", "GeneratedEstate", "EstateFile", "VmEntry", "Rule"):
        assert name in definitions
    assert "not" in definitions["Rule"]["properties"]
    inline = json.dumps(definitions["EstateSource"]["properties"]["inline"])
    assert "#/$defs/EstateFile" in inline
    references = set(re.findall(r"#/\$defs/(\w+)", json.dumps(schema)))
    assert references <= set(definitions)


def test_the_json_schema_offers_defaults_that_can_be_written() -> None:
    """An editor inserts the default; a bare number would be refused for want of a unit."""
    quantities = (parse_seconds, parse_bytes, parse_rate)
    seen = []

    def visit(node: object) -> None:
        if isinstance(node, list):
            for item in node:
                visit(item)
        if not isinstance(node, dict):
            return
        kinds = [node.get("type"), *(kind.get("type") for kind in node.get("anyOf", ()))]
        if "default" in node and "string" in kinds and "number" not in kinds:
            assert not isinstance(node["default"], int | float)
        example = next(
            (kind["examples"] for kind in (node, *node.get("anyOf", ())) if "examples" in kind),
            [""],
        )[0]
        for text, parse in zip(("250 ms", "64 KiB", "120 MiB/s"), quantities, strict=True):
            if example == text and isinstance(node.get("default"), str):
                seen.append(parse(node["default"]))
        for value in node.values():
            visit(value)

    schema = scenario_json_schema()
    visit(schema)
    assert len(seen) > 20
    assert schema["$defs"]["Quiesce"]["properties"]["timeout"]["default"] == "900 s"
    array = schema["$defs"]["ArrayProfile"]["properties"]
    assert array["snapshot_extent"]["default"] == "4096 B"
    assert array["flow_bandwidth"]["default"] == "100000000 B/s"
    assert array["pool_bytes"]["default"] is None


TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def complaints(schema: Any, node: Any, data: Any, path: str) -> list[str]:
    """What an editor would underline: the keywords of JSON Schema that pydantic writes."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    branches = node.get("anyOf") or node.get("oneOf")
    if branches:
        found = [complaints(schema, branch, data, path) for branch in branches]
        return [] if [] in found else min(found, key=len)
    if "enum" in node and data not in node["enum"]:
        return [f"{path}: {data!r} is none of {node['enum']}"]
    if "const" in node and data != node["const"]:
        return [f"{path}: {data!r} is not {node['const']!r}"]
    kind = TYPES.get(node.get("type", ""), object)
    if not isinstance(data, kind) or (isinstance(data, bool) and kind in (int, (int, float))):
        return [f"{path}: {data!r} is no {node['type']}"]
    found = []
    if isinstance(data, list):
        for index, item in enumerate(data):
            found += complaints(schema, node.get("items", {}), item, f"{path}[{index}]")
    if isinstance(data, dict):
        found += [
            f"{path}: {key} is missing" for key in node.get("required", ()) if key not in data
        ]
        extra = node.get("additionalProperties", True)
        for key, value in data.items():
            inner = node.get("properties", {}).get(key, extra)
            if inner is False:
                found.append(f"{path}: unknown key {key}")
            elif isinstance(inner, dict):
                found += complaints(schema, inner, value, f"{path}.{key}")
    return found


@pytest.mark.parametrize(
    "text",
    [one.path.read_text("utf-8") for one in list_scenarios()] + EXAMPLES,
    ids=lambda text: text.split("\n")[0],
)
def test_editors_accept_what_ships_and_what_the_documentation_shows(text: str) -> None:
    schema = scenario_json_schema()
    data = parse_yaml(text, "text")
    assert complaints(schema, schema, data, "") == []
    assert complaints(schema, schema, {**data, "sead": 3}, "") == [": unknown key sead"]


def test_plan_age_delays_the_job_not_the_plan() -> None:
    run = simulate(small(plan_age=100.0))
    started = run.result.events.of(Kind.JOB_STARTED)[0]
    assert 100 <= started[0] < 110
    assert run.plan.selected


def test_observe_lets_the_world_go_on() -> None:
    short, long = simulate(small()), simulate(small(observe=3600.0))
    assert long.result.events.trace_hash() == short.result.events.trace_hash()
    last = max(t for t, *_ in long.world.series.rows)
    assert last > max(t for t, *_ in short.world.series.rows) + 1000


def test_the_seed_changes_the_run_and_not_the_estate() -> None:
    first, second = simulate(small()), simulate(small(), seed=2)
    assert first.topology.estate == second.topology.estate
    assert first.result.events.trace_hash() != second.result.events.trace_hash()
    assert simulate(small()).result.events.trace_hash() == first.result.events.trace_hash()
