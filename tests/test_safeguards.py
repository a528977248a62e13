"""The edits of the ablation table apply to the source as it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.ablate import ROOT, Edit, Removal, apply
from benchmarks.safeguards import REMOVALS


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.safeguard)
def test_a_removal_changes_the_source_and_leaves_it_python(
    removal: Removal, tmp_path: Path
) -> None:
    for file in {edit.file for edit in removal.edits}:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    for edit in removal.edits:
        apply(edit, tmp_path)
        text = (tmp_path / edit.file).read_text(encoding="utf-8")
        assert text != (ROOT / edit.file).read_text(encoding="utf-8")
        ast.parse(text)


def test_safeguards_are_told_apart() -> None:
    assert len({removal.safeguard for removal in REMOVALS}) == len(REMOVALS) >= 15


@pytest.mark.parametrize("text", ["a b", "b"])
def test_an_edit_that_is_not_unique_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text("a\na\n", encoding="utf-8")
    with pytest.raises(ValueError, match="not once"):
        apply(Edit("file", "a" if text == "a b" else text, "c"), tmp_path)
