"""Evidence figures: judged by code from their aim, and written without naming the machine."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "benchmarks" / "evidence.py"


@pytest.fixture(scope="module")
def evidence() -> ModuleType:
    """The helper, which is not part of the installed package."""
    spec = importlib.util.spec_from_file_location("evidence_under_test", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("value", "unit", "aim", "met"),
    [
        (10.0, "%", "<= 10 %", True),
        (10.001, "%", "<= 10 %", False),
        (10.0, "%", "< 10 %", False),
        (0.0, "", "== 0", True),
        (1e-9, "", "== 0", False),
        (3.0, "MB", ">= 2.5 MB", True),
        (2.5, "MB", "> 2.5 MB", False),
        (-3.0, "", "<= -2", True),
        (12_000.0, "VMs", ">= 10_000 VMs", True),
        (math.nan, "%", "<= 10 %", False),
        (None, "%", "<= 10 %", False),
        (5.0, "%", None, None),
    ],
)
def test_aims_are_judged(
    evidence: ModuleType, value: float | None, unit: str, aim: str | None, met: bool | None
) -> None:
    assert evidence.Figure("f", value, unit, aim).met is met


@pytest.mark.parametrize("aim", ["about 10", "<= ten", "10 %", "<= 10 s", "<= 10"])
def test_aims_that_cannot_be_judged_are_refused(evidence: ModuleType, aim: str) -> None:
    with pytest.raises(ValueError, match="aim"):
        evidence.Figure("f", 1.0, "%", aim)


def test_verdicts_cannot_be_given_by_hand(evidence: ModuleType) -> None:
    with pytest.raises(TypeError):
        evidence.Figure("f", 99.0, "%", "<= 10 %", met=True)


def test_files_and_table(
    evidence: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [
        evidence.Figure("good", 1.0, "s", "<= 2 s"),
        evidence.Figure("bad", math.inf, "s", "<= 2 s"),
        evidence.Figure("plain", 3.0),
    ]
    path = evidence.write_evidence("topic", figures, {"seed": 7}, folder=tmp_path / "new")
    assert json.loads(path.read_text()) == [
        {"name": "good", "value": 1.0, "unit": "s", "aim": "<= 2 s", "met": True},
        {"name": "bad", "value": None, "unit": "s", "aim": "<= 2 s", "met": False},
        {"name": "plain", "value": 3.0, "unit": "", "aim": None, "met": None},
    ]
    about = json.loads((tmp_path / "new" / "topic.machine.json").read_text())
    assert set(about) == {"cpus", "python", "implementation", "platform", "date", "seed"}
    assert about["seed"] == 7
    assert about["python"] == platform.python_version()
    assert about["cpus"] >= 1
    printed = capsys.readouterr().out
    assert "good" in printed
    assert "<= 2 s" in printed
