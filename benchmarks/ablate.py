"""A copy of the package with one safeguard taken out, and what exploring finds in it.

A removal is an edit of the real source: a piece of text that is there exactly once, and what takes
its place. Nothing of the harness is changed, and the copy runs in processes of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SUBPACKAGES = ("drivers", "topology", "orchestrator", "sim", "scenarios", "reports", "explorer")


class Edit(NamedTuple):
    """``old`` stands exactly once in ``file`` (of a subpackage); ``new`` takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Removal:
    """A safeguard, what it is for, and how it is taken out."""

    safeguard: str
    purpose: str
    edits: tuple[Edit, ...]


def apply(edit: Edit, tree: Path) -> None:
    """Make the edit in a tree.

    Raises
    ------
    ValueError
        The old text is not there, or more than once: the source has changed.
    """
    path = tree / edit.file
    text = path.read_text(encoding="utf-8")
    found = text.count(edit.old)
    if found != 1:
        raise ValueError(f"{edit.file} holds this {found} times, not once: {edit.old!r}")
    path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


def copy_tree(target: Path) -> None:
    """Copy the package into ``target/stillframe``, laid out as an installed one."""
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "stillframe", target / "stillframe", ignore=leave)
    for name in SUBPACKAGES:
        shutil.copytree(ROOT / name, target / "stillframe" / name, ignore=leave)


def explore_without(removal: Removal | None, arguments: Sequence[str]) -> dict[str, Any]:
    """What ``stillframe explore ARGUMENTS --json`` answers with a safeguard removed.

    None removes nothing: the same copy, whole.

    Raises
    ------
    RuntimeError
        The exploration itself broke.
    """
    with tempfile.TemporaryDirectory(prefix="stillframe-without-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        for edit in removal.edits if removal is not None else ():
            apply(edit, tree / "stillframe")
        done = subprocess.run(
            [sys.executable, "-m", "stillframe", "explore", *arguments, "--json"],
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"},
            cwd=tree,
            check=False,
            capture_output=True,
            text=True,
        )
    if done.returncode not in (0, 3) or not done.stdout:
        name = "the whole" if removal is None else f"without {removal.safeguard}"
        raise RuntimeError(f"exploring {name} ended with {done.returncode}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
