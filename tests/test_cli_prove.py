"""``explore`` and ``replay``: what the command line hands on, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_files import tree
from typer.testing import CliRunner

from stillframe import cli_explore
from stillframe.cli import app


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, dict[str, Any]]]:
    """What the commands are called with, in an empty folder."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def command(what: Any, **options: Any) -> int:
        calls.append((what, options))
        return 3

    monkeypatch.setattr(cli_explore, "explore_command", command)
    monkeypatch.setattr(cli_explore, "replay_command", command)
    monkeypatch.chdir(tmp_path)
    return calls


def test_explore_has_defaults(handed: list[tuple[Any, dict[str, Any]]]) -> None:
    assert CliRunner().invoke(app, ["explore", "demo", "x.yaml"]).exit_code == 3
    assert handed == [
        (
            ["demo", "x.yaml"],
            {
                "seeds": 1000,
                "first_seed": 0,
                "jobs": 1,
                "fidelity": "both",
                "out": None,
                "fail_fast": False,
                "as_json": False,
                "every": False,
                "shrink": False,
                "exhaustive_crash": False,
            },
        )
    ]


def test_explore_hands_every_option_on(handed: list[tuple[Any, dict[str, Any]]]) -> None:
    options = "--all --seeds 7 --from 40 --jobs 2 --fidelity flow --out x.json --fail-fast --shrink"
    CliRunner().invoke(app, ["explore", *options.split(), "--exhaustive-crash", "--json"])
    ((scenarios, given),) = handed
    assert scenarios == []
    assert given == {
        "seeds": 7,
        "first_seed": 40,
        "jobs": 2,
        "fidelity": "flow",
        "out": Path("x.json"),
        "fail_fast": True,
        "as_json": True,
        "every": True,
        "shrink": True,
        "exhaustive_crash": True,
    }


def test_replay_hands_every_option_on(handed: list[tuple[Any, dict[str, Any]]]) -> None:
    CliRunner().invoke(app, ["replay", "failure.json"])
    options = ["--seed", "5", "--events", "--expect", "abc", "--json"]
    assert CliRunner().invoke(app, ["replay", "demo@flow", *options]).exit_code == 3
    assert handed == [
        ("failure.json", {"seed": None, "events": False, "expect": None, "as_json": False}),
        ("demo@flow", {"seed": 5, "events": True, "expect": "abc", "as_json": True}),
    ]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("explore",), "name a scenario, or ask for --all"),
        (("explore", "nosuch"), "'nosuch' is not known"),
        (("explore", "demo", "--seeds", "0"), "--seeds"),
        (("explore", "demo", "--from", "-1"), "'-1' is not a whole number from 0 on"),
        (("explore", "demo", "--jobs", "none"), "--jobs"),
        (("explore", "demo", "--fidelity", "high"), "'high' is none of flow, block, both"),
        (("explore", "demo", "--out", "x.txt"), "--out: 'x.txt' does not end in .json"),
        (("replay",), "Missing argument"),
        (("replay", "demo"), "a scenario needs --seed"),
        (("replay", "nosuch", "--seed", "1"), "'nosuch' is not known"),
        (("replay", "nowhere.json"), "nowhere.json: does not exist"),
        (("replay", "nowhere.json", "--seed", "1"), "a file has its seed"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, list(args))
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2
    assert told in line
    assert (result.stdout, tree(tmp_path)) == ("", {})
