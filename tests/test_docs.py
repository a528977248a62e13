"""Documents say what is so: their examples run, generated pages are current."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = [
    pytest.param(match[1], id=f"{page.name}-{number}")
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    for number, match in enumerate(
        re.finditer(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S), 1
    )
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("source", EXAMPLES)
def test_example_runs_and_prints(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(source, "example", "exec"), {"__name__": "example"})  # noqa: S102
    assert capsys.readouterr().out


def test_the_page_of_numbers_is_current() -> None:
    script = ROOT / "scripts" / "write_model_numbers.py"
    spec = importlib.util.spec_from_file_location("write_model_numbers", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page()
