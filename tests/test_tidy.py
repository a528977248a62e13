"""The house rules of CONTRIBUTING.md that a program can see."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "stillframe",
    "drivers",
    "topology",
    "orchestrator",
    "sim",
    "scenarios",
    "reports",
    "explorer",
    "lab",
    "certify",
)
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
NO_CLOCK = [path for path in MODULES if path.parent.name in ("orchestrator", "topology", "sim")]


def name_of(path: Path) -> str:
    """A test's name for a file."""
    return str(path.relative_to(ROOT))


def tracked() -> list[Path]:
    """Every text file of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(level, module) of every import; a plain import has level 0."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def test_there_is_something_to_check() -> None:
    assert len(MODULES) > 60
    assert all((ROOT / package / "__init__.py").is_file() for package in PACKAGES)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_has_a_docstring_and_at_most_400_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert not text.strip() or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_between_our_packages_are_relative(path: Path) -> None:
    ours = {"stillframe", *PACKAGES}
    assert not [name for level, name in imports(path) if not level and name.split(".")[0] in ours]


@pytest.mark.parametrize("path", NO_CLOCK, ids=name_of)
def test_no_wall_clock_threads_or_global_randomness(path: Path) -> None:
    banned = {"time", "datetime", "secrets", "uuid", "concurrent", "multiprocessing"}
    if path.name not in ("refused.py", "loop.py"):  # these compare thread identities to refuse them
        banned.add("threading")
    names = {name.split(".")[0] for level, name in imports(path) if not level}
    assert not names & banned
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\brandom\.(?!Random\b)[a-z]\w*\(", text)
    assert not re.search(r"(?<![\w.])hash\(", text) or path.name == "tasks.py"


def test_no_file_names_a_machine_or_leaves_work_undone() -> None:
    wrong = re.compile(r"(?:^|[^\w.])/(?:work|farm|home|root)/\w|\b(?:TODO|FIXME|XXX)\b")
    found = []
    for path in tracked():
        if path.suffix in (".py", ".md", ".yaml", ".toml", ".sh", ".j2", ".cfg", "") and (
            path != Path(__file__)
        ):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [
                f"{name_of(path)}:{i}" for i, line in enumerate(lines, 1) if wrong.search(line)
            ]
    assert not found


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in tracked():
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            broken += [
                f"{name_of(path)}: {target}"
                for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
                if not (path.parent / target).exists()
            ]
    assert not broken
