"""``stillframe lab verify`` on input that it cannot use, and what it prints of verdicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support_reports import build_run
from typer.testing import CliRunner

from stillframe import cli_lab_verify
from stillframe.cli import app
from stillframe.drivers.contracts import ConsistencyLevel
from stillframe.errors import InputError
from stillframe.lab.labfile import LabFile, create_lab_file
from stillframe.lab.spec import LabSpec
from stillframe.lab.verify import ImageLevel, ImageVerdict
from stillframe.reports import folder

GOOD = ImageVerdict(
    vm="host/vm-0",
    level_reported=ConsistencyLevel.FILESYSTEM,
    level_found=ImageLevel.FILESYSTEM,
    fsck_clean=True,
    replayed=False,
    bad=0,
    missing=0,
    max_seq=(61,),
    acked_before=61,
    acked_after=61,
)
TORN = replace(
    GOOD,
    vm="host/vm-1",
    level_found=ImageLevel.TORN,
    max_seq=(61, 65),
    problem="disk 1 holds record 65, but disk 0 ends at 61",
)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """The file of a lab that came up, and nothing else of it."""
    made = tmp_path / "lab"
    made.mkdir()
    create_lab_file(made, LabFile(LabSpec(guests=2, wide=0), ready=True))
    return made


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run somewhere else."""
    made = tmp_path_factory.mktemp("run") / "result"
    folder.write_folder(build_run(12), made)
    return made


def refused(result: Path, lab: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        cli_lab_verify.verify_command(result, lab, as_json=False)
    return caught.value


def test_what_is_no_result_or_no_lab_is_told(tmp_path: Path, lab: Path, result: Path) -> None:
    assert "there is no such folder" in str(refused(tmp_path / "nothing", lab))
    assert "no lab" in str(refused(result, tmp_path))


def test_a_run_on_something_else_is_told(lab: Path, result: Path) -> None:
    error = refused(result, lab)
    assert "is none of the lab" in error.problem
    assert "--lab" in error.advice


def test_the_front_door_refuses_in_one_line_with_exit_code_2(lab: Path, result: Path) -> None:
    told = CliRunner().invoke(app, ["lab", "verify", str(result), "--lab", str(lab)])
    assert told.exit_code == 2
    assert len(told.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("verdicts", "code"), [([GOOD], 0), ([GOOD, TORN], 1)], ids=["all-hold", "one-is-torn"]
)
def test_verdicts_decide_the_exit_code(
    verdicts: list[ImageVerdict],
    code: int,
    lab: Path,
    result: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli_lab_verify, "_must_be_of", lambda *_: None)
    monkeypatch.setattr(cli_lab_verify, "_verdicts", lambda *_: verdicts)
    assert cli_lab_verify.verify_command(result, lab, as_json=False) == code
    told = capsys.readouterr()
    assert ("worth less" in told.out) is bool(code)
    assert ("1 image of 2 worth less" in told.err) is bool(code)
    assert ("disk 1 holds record 65" in told.out) is bool(code)
