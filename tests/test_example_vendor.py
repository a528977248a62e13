"""The example vendor's package, run as its vendor would run it; and what the kit finds in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "acme_array"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example, as somebody else would have it."""
    copy = tmp_path / "acme_array"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".*_cache")
    shutil.copytree(EXAMPLE, copy, ignore=ignored)
    return copy


def run_pytest(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, with no plugin but pytest's."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", *arguments],
        cwd=project,
        # The array is a process of its own, and has to find the package, which is not installed.
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(project),
            "COLUMNS": "200",
        },
        check=False,
        capture_output=True,
        text=True,
    )


def change(file: Path, right: str, wrong: str) -> None:
    """Make a mistake in the example."""
    text = file.read_text(encoding="utf-8")
    assert text.count(right) == 1
    file.write_text(text.replace(right, wrong), encoding="utf-8")


def test_the_example_conforms(project: Path) -> None:
    found = run_pytest(project)
    assert found.returncode == 0, found.stdout
    passed = re.search(r"^(\d+) passed", found.stdout, re.M)
    assert passed is not None
    assert int(passed[1]) > 70
    reasons = re.findall(r"^SKIPPED.*?: (not tested|absent as declared): (.*)$", found.stdout, re.M)
    assert all("the target does not offer" not in why for _, why in reasons)


def test_volumes_that_are_cut_one_after_the_other_are_found(project: Path) -> None:
    change(
        project / "acme_array" / "device.py",
        "            self._store.cut(name, sorted(volumes))\n",
        "            self._store.cut(name, [])\n"
        "            number = self._told(name)['number']\n"
        "            for volume in sorted(volumes):\n"
        "                self._store._keep(number, volume)\n"
        "                await asyncio.sleep(0.02)\n",
    )
    found = run_pytest(project, "-k", "ARR-GRP-01 or ARR-GRP-02 or ARR-DAT-01")
    assert found.returncode == 1
    # Each volume by itself is whole, and the group is not.
    assert re.findall(r"^(ARR-\w+-\d+) fail:", found.stdout, re.M) == ["ARR-GRP-02"]
    assert "2 passed" in found.stdout


def test_an_answer_that_was_lost_and_is_called_a_failure_is_found(project: Path) -> None:
    change(
        project / "acme_array" / "link.py",
        "raise UnknownOutcomeError(operation, subject, reason) from error",
        "raise DidNotHappenError(operation, subject, reason) from error",
    )
    found = run_pytest(project, "-k", "ARR-FLT")
    assert found.returncode == 1
    assert re.search(r"^ARR-FLT-\d+ fail: .*UnknownOutcomeError", found.stdout, re.M)
