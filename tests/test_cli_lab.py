"""``stillframe lab`` as the command line shows it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from support_lab import lab_leftovers, needs_lab, short_folder
from typer.testing import CliRunner

from stillframe.cli import app
from stillframe.lab.teardown import take_down

PAGE = Path(__file__).resolve().parents[1] / "docs" / "lab.md"
LIVE = needs_lab("root", "qemu", "fuse", "loop")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a lab can be made."""
    with short_folder("cli") as made:
        yield made / "lab"


def invoke(*words: object, code: int = 0) -> Result:
    """What a command answered."""
    result = CliRunner().invoke(app, ["lab", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def refused(*words: object) -> str:
    """The one line with which a command refuses its input."""
    (line,) = invoke(*words, code=2).stderr.splitlines()
    return str(line)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--guests", "0"], "guests: 0 is not accepted"),
        (["--guests", "many"], "Invalid value for '--guests'"),
        (["--array", "nfs"], "array: 'nfs' is not accepted"),
        (["--wide", "5"], "wide 5 is more than there are guests (4)"),
        (["--guests", "40", "--wide", "0"], "do not fit on datastore 0"),
        (["--load", "fast"], "--load: 'fast' is no load (write 100, 50x64KiB or none)"),
        (["--load", "100x5KiB"], "record_bytes 5120 is no multiple of 4096"),
        (["--load", "100x4096"], "'4096' is not a size"),
        (["--load", "0"], "rate_per_s"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_made(
    folder: Path, options: list[str], said: str
) -> None:
    assert said in refused("up", folder, *options)
    assert not folder.exists()


@pytest.mark.parametrize("command", ["up", "down"])
def test_it_needs_root(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "lab: needs root" in refused(command, folder)
    assert not folder.exists()


def test_what_is_missing_is_named_with_its_packages(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    there = shutil.which

    def which(program: str) -> str | None:
        return None if program in ("mkfs.xfs", "gcc") else there(program) or "/usr/bin/true"

    monkeypatch.setattr(shutil, "which", which)
    line = refused("up", folder, "--array", "xfs")
    assert "there is no gcc, mkfs.xfs" in line
    assert "run scripts/install-lab.sh, or `apt-get install" in line
    assert "gcc libc6-dev xfsprogs" in line


@needs_lab("root", "qemu", "fuse", "loop")
def test_a_folder_that_cannot_be_used_is_left_as_it_is(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").touch()
    assert "not an empty folder" in refused("up", folder)
    assert "there is no lab here" in refused("down", folder)
    assert "there is no lab here" in refused("status", folder)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    assert "longer than" in refused("up", folder.with_name("x" * 80))
    assert "holds a space" in refused("up", folder.with_name("my lab"))


@LIVE
def test_up_status_down(folder: Path) -> None:
    try:
        made = invoke("up", folder, "--guests", 1, "--wide", 0, "--load", "50x8KiB").stdout
        assert "A lab of 1 guest, 2 datastores, 2 units of qsd is up in" in made
        assert f"stillframe run --live {folder}/live.yaml" in made
        assert "a lab is there" in refused("up", folder)
        _check_status(folder)
        assert "nothing of the lab is left" in invoke("down", folder).stdout
        assert lab_leftovers(folder) == []
        assert "there was no lab" in invoke("down", folder).stdout
    finally:
        asyncio.run(take_down(folder))


def _check_status(folder: Path) -> None:
    shown = invoke("status", folder).stdout
    assert re.search(r"vm-0 +running +ds0 +[1-9]", shown)
    assert "The array holds no snapshot of a job." in shown
    document: dict[str, Any] = json.loads(invoke("status", folder, "--json").stdout)
    (guest,) = document["guests"]
    assert guest["acks"] == guest["last_seq"] + 1
    assert [one["unit"] for one in document["datastores"]] == ["unit-0.dev", "unit-1.dev"]
    assert all(one["mounted"] and one["used_bytes"] for one in document["datastores"])
    assert (document["snapshots"], document["trouble"]) == ([], "")


@LIVE
def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    exec(compile(source, "example", "exec"), {"__name__": "__main__"})  # noqa: S102
    assert capsys.readouterr().out.startswith("[PatternReport(")
