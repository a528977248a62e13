"""Every kind of bad input: one clear line on stderr, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openpyxl
import pytest
from support_files import tree
from typer.testing import CliRunner

from stillframe import simulation
from stillframe.cli import app
from stillframe.sim.trace import RECORD

SCENARIO = """\
name: small
title: Two VMs on one datastore
estate:
  inline:
    vcenters: [{name: vc-1}]
    hosts: [{name: esx-1}]
    arrays:
      - name: array-a
        units: [{name: lun-1, capacity: 1 TiB, devices: [naa.6001]}]
    datastores: [{name: ds-1, extents: [naa.6001]}]
    vms:
      - {name: web-1, host: esx-1, disks: [{datastore: ds-1, size: 60 GiB}]}
      - {name: web-2, host: esx-1, disks: [{datastore: ds-1, size: 60 GiB}]}
job:
  select: {include: {name: "web-*"}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(here: Path, *args: str, words: tuple[str, ...]) -> str:
    """Run a command that must be refused; returns its one line."""
    before = tree(here)
    result = CliRunner().invoke(app, list(args))
    lines = result.stderr.splitlines()
    assert (result.exit_code, len(lines)) == (2, 1), result.stderr
    assert result.stdout == ""
    assert lines[0].startswith("stillframe: ")
    for word in words:
        assert word in lines[0]
    assert tree(here) == before
    return lines[0]


CHANGES = {
    "unknown key": (("title:", "titel: x\ntitle:"), ("bad.yaml", "titel", "did you mean 'title'?")),
    "unknown key deep down": (
        ("job:", "job:\n  limits: {create_per_hosts: 3}"),
        ("job.limits.create_per_hosts", "did you mean 'create_per_host'?"),
    ),
    "unknown key in the estate": (
        ("size: 60 GiB}]}", "sise: 60 GiB}]}"),
        ("estate.inline.vms[0].disks[0]", "size"),
    ),
    "no unit": (("job:", "plan_age: 30\njob:"), ("plan_age", "30 has no unit")),
    "wrong unit of time": (
        ("job:", "plan_age: 30 GiB\njob:"),
        ("plan_age", "'30 GiB' is not a duration"),
    ),
    "wrong unit of size": (
        ("size: 60 GiB", "size: 60 GiBs"),
        ("estate.inline.vms[0].disks[0].size", "60 GiBs"),
    ),
    "missing datastore": (
        ("datastore: ds-1, size", "datastore: ds-2, size"),
        ("estate.inline.vms[0].disks[0].datastore", "no datastore 'ds-2'", "'ds-1'"),
    ),
    "duplicate id": (("web-2", "web-1"), ("estate.inline.vms[1].name", "'vc-1/web-1'")),
    "two sources of an estate": (
        ("estate:", "estate:\n  generate: {}"),
        ("estate", "exactly one of", "inline and generate"),
    ),
    "no source of an estate": (
        (SCENARIO[SCENARIO.index("  inline") : SCENARIO.index("job")], "  {}\n"),
        ("estate", "exactly one of"),
    ),
    "estate file that is missing": (
        (
            SCENARIO[SCENARIO.index("  inline") : SCENARIO.index("job")],
            "  file: other.yaml\n",
        ),
        ("other.yaml", "does not exist"),
    ),
    "estate that does not fit": (
        (
            SCENARIO[SCENARIO.index("  inline") : SCENARIO.index("job")],
            "  generate: {datastores: 1, arrays: 2}\n",
        ),
        ("estate.generate", "arrays: 2 is more than"),
    ),
    "empty selection": (('"web-*"', "nobody"), ("bad.yaml", "the selection matches no VM")),
    "unknown strategy": (
        ("job:", "job:\n  strategy: per-disk"),
        ("job.strategy", "per-disk", "per-datastore"),
    ),
    "name that is no folder name": (("name: small", "name: ../up"), ("name", "../up")),
    "cancel before the start": (
        ("job:", 'plan_age: 1 min\nevents: [{at: "30 s", cancel_job: true}]\njob:'),
        ("cancel_job at 30 s", "plan_age 60 s"),
    ),
    "YAML syntax": (("job:", "job: ["), ("bad.yaml", "line", "not valid YAML")),
    "YAML key twice": (("title:", "title: x\ntitle:"), ("title", "line 3", "occurs twice")),
    "a list": ((SCENARIO, "[1, 2]"), ("holds a list",)),
    "nothing": ((SCENARIO, ""), ("is empty",)),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("case", CHANGES)
def test_a_scenario_that_cannot_be_used(here: Path, command: str, case: str) -> None:
    (old, new), words = CHANGES[case]
    assert old in SCENARIO
    (here / "bad.yaml").write_text(SCENARIO.replace(old, new, 1), encoding="utf-8")
    refused(here, command, "bad.yaml", words=words)


def test_a_scenario_with_two_errors_counts_the_other(here: Path) -> None:
    text = SCENARIO.replace("title:", "titel: x\nobserv: y\ntitle:")
    (here / "bad.yaml").write_text(text, encoding="utf-8")
    refused(here, "run", "bad.yaml", words=("titel", "1 more error"))


def test_a_file_that_is_not_utf8(here: Path) -> None:
    (here / "bad.yaml").write_bytes(SCENARIO.encode() + b"# caf\xe9\n")
    refused(here, "run", "bad.yaml", words=("line 16", "0xe9", "UTF-8"))


def test_a_file_that_is_missing(here: Path) -> None:
    refused(here, "run", "missing.yaml", words=("missing.yaml", "does not exist"))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_folder_instead_of_a_file(here: Path, command: str) -> None:
    (here / "folder.yaml").mkdir()
    refused(here, command, "folder.yaml", words=("folder.yaml", "is a folder"))


@pytest.mark.parametrize(
    ("name", "word"), [("dmeo", "did you mean 'demo'?"), ("zzz", "shipped are")]
)
def test_a_scenario_that_is_not_shipped(here: Path, name: str, word: str) -> None:
    refused(here, "run", name, words=(repr(name), word))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run",), ("Missing argument 'SCENARIO'", "stillframe run --help")),
        (("rnu", "demo"), ("No such command 'rnu'",)),
        (("run", "demo", "--sead", "3"), ("No such option", "--sead")),
        (("run", "demo", "--seed", "-1"), ("--seed", "-1")),
        (("run", "demo", "--seed", "one"), ("--seed", "one")),
        (("plan", "demo", "--strategy", "per-disk"), ("--strategy", "per-disk", "chunks")),
        (("calibrate",), ("Missing command", "stillframe calibrate --help")),
        (("estate", "show"), ("Missing argument",)),
        (("scenario", "schema", "extra"), ("extra",)),
    ],
)
def test_a_command_line_that_is_wrong(
    here: Path, args: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(here, *args, words=words)


def make_trace(path: Path, records: int) -> None:
    rows = np.zeros(records, dtype=RECORD)
    rows["length_bytes"] = 4096
    rows["command"] = 0x2A
    rows["version"] = 1 << 8
    rows["lbn"] = np.arange(records) * 8
    rows["time_us"] = np.arange(records) * 100_000
    rows.tofile(path)


def test_a_truncated_trace(here: Path) -> None:
    make_trace(here / "whole.vscsi", 40)
    data = (here / "whole.vscsi").read_bytes()
    (here / "cut.vscsi").write_bytes(data[:-5])
    refused(
        here,
        "calibrate",
        "trace",
        "cut.vscsi",
        "--out",
        "cut.npz",
        words=("cut.vscsi", "record 40", "cut off"),
    )


@pytest.mark.parametrize(
    ("out", "word"),
    [
        ("there.npz", "exists already"),
        ("profile.txt", "does not end in .npz"),
        ("no/such.npz", "does not exist"),
        ("folder.npz", "is a folder"),
    ],
)
def test_an_output_file_that_cannot_be_written(here: Path, out: str, word: str) -> None:
    make_trace(here / "whole.vscsi", 40)
    (here / "there.npz").write_bytes(b"precious")
    (here / "folder.npz").mkdir()
    refused(here, "calibrate", "trace", "whole.vscsi", "--out", out, words=("--out", word))


def damaged_workbook(path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "vInfo"
    book.active.append(["VM", "Powerstate"])
    book.save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("command", [("import",), ("show",)])
def test_a_damaged_workbook(here: Path, command: tuple[str, ...]) -> None:
    damaged_workbook(here / "export.xlsx")
    refused(here, "estate", *command, "export.xlsx", words=("export.xlsx",))


def test_a_damaged_workbook_in_a_scenario(here: Path) -> None:
    damaged_workbook(here / "export.xlsx")
    inline = SCENARIO[SCENARIO.index("  inline") : SCENARIO.index("job")]
    (here / "bad.yaml").write_text(
        SCENARIO.replace(inline, "  rvtools: export.xlsx\n"), encoding="utf-8"
    )
    refused(here, "run", "bad.yaml", words=("export.xlsx",))


@pytest.mark.parametrize("command", ["import", "show"])
def test_an_export_that_is_missing(here: Path, command: str) -> None:
    refused(here, "estate", command, "none.xlsx", words=("none.xlsx",))


def test_a_result_folder_of_somebody_else(here: Path) -> None:
    (here / "small.yaml").write_text(SCENARIO, encoding="utf-8")
    (here / "photos").mkdir()
    (here / "photos" / "cat.png").write_bytes(b"cat")
    words = ("photos", "something else than a result")
    refused(here, "run", "small.yaml", "--out", "photos", words=words)


def test_a_result_folder_that_is_a_file(here: Path) -> None:
    (here / "small.yaml").write_text(SCENARIO, encoding="utf-8")
    refused(here, "run", "small.yaml", "--out", "small.yaml", words=("small.yaml", "not a folder"))


def test_a_result_folder_under_a_file(here: Path) -> None:
    (here / "small.yaml").write_text(SCENARIO, encoding="utf-8")
    refused(here, "run", "small.yaml", "--out", "small.yaml/out", words=("cannot be made",))


def test_a_default_result_folder_that_is_not_ours(here: Path) -> None:
    (here / "small.yaml").write_text(SCENARIO, encoding="utf-8")
    (here / "out" / "small").mkdir(parents=True)
    (here / "out" / "small" / "notes.txt").write_text("mine", encoding="utf-8")
    refused(here, "run", "small.yaml", words=("out/small", "something else than a result"))


@pytest.mark.parametrize("make", ["nothing", "empty", "broken"])
def test_a_report_of_no_result(here: Path, make: str) -> None:
    if make != "nothing":
        (here / "folder").mkdir()
    if make == "broken":
        (here / "folder" / "run.json").write_text("{", encoding="utf-8")
    refused(here, "report", "folder", words=("folder",))


def test_an_output_that_is_refused_costs_no_simulation(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulated(*_: object, **__: object) -> None:
        raise AssertionError("the result folder is looked at first")

    monkeypatch.setattr(simulation, "simulate", simulated)
    (here / "photos").mkdir()
    (here / "photos" / "cat.png").write_bytes(b"cat")
    (here / "file").write_bytes(b"")
    refused(here, "run", "demo", "--out", "photos", words=("photos",))
    refused(here, "run", "demo", "--out", "file/out", words=("file", "cannot be made"))
