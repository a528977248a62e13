"""The example project and the examples of its page, run as their reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stillframe.pytest_golden
import stillframe.pytest_job
import stillframe.pytest_lab
import stillframe.pytest_plugin

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "own-strategy"
PAGE = ROOT / "docs" / "testing-your-own.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example, as somebody else would have it."""
    copy = tmp_path / "own-strategy"
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache", "*.egg-info")
    shutil.copytree(EXAMPLE, copy, ignore=ignored)
    return copy


def run_pytest(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, with our plugin and no other."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "stillframe.pytest_plugin", *arguments],
        cwd=project,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"},
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_example_passes(project: Path) -> None:
    before = sorted(path for path in project.rglob("*") if path.suffix == ".jsonl")
    found = run_pytest(project, "-q")
    assert found.returncode == 0, found.stdout
    assert re.search(r"^\d\d+ passed in", found.stdout, re.M)
    assert sorted(path for path in project.rglob("*") if path.suffix == ".jsonl") == before != []


def test_a_mistake_in_the_strategy_is_found_and_can_be_seen_again(project: Path) -> None:
    """A tenant's VMs that start with another letter land in a group of their own."""
    module = project / "tenant_snapshots" / "grouping.py"
    right = "members.setdefault(tenant_of(vm), [])"
    text = module.read_text(encoding="utf-8")
    assert text.count(right) == 1
    module.write_text(
        text.replace(right, "members.setdefault(tenant_of(vm) + vm.name[-1], [])"),
        encoding="utf-8",
    )
    found = run_pytest(project, "-q", "-k", "whole_whatever_fails or order_of_things")
    assert found.returncode == 1
    assert "tenants_are_whole: job " in found.stdout
    assert re.search(r"two-tenants\.jsonl: the runs differ: kept \d+ events, now \d+", found.stdout)
    (again, *_) = re.findall(r"^E +again: pytest (.*)$", found.stdout, re.M)
    repeated = run_pytest(project, *shlex.split(again), "-q")
    assert repeated.returncode == 1
    assert "1 failed" in repeated.stdout


def test_the_examples_of_the_page_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n")
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python (\w+\.py)\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) == 5
    for name, source in blocks:
        (pytester.path / name).write_text(source, encoding="utf-8")

    def run(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*arguments, plugins=[stillframe.pytest_plugin])

    run("--stillframe-update-golden", "test_golden.py").assert_outcomes(passed=1)
    assert (pytester.path / "golden" / "claim-at-once.jsonl").is_file()
    run().assert_outcomes(passed=1 + 20 + 10 + 1 + 1 + 1)
