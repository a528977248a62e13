"""Files that are not, or no longer, an RVTools export."""

from __future__ import annotations

import contextlib
import random
import zipfile
from pathlib import Path

import pytest
from support_rvtools import complete, vm, write_csv, write_xlsx

from stillframe.errors import InputError
from stillframe.topology.rvtools import import_rvtools
from stillframe.topology.rvtools_columns import tab_of


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as error:
        import_rvtools(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    return error.value


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.xlsx"
    text.write_text("VM,Powerstate\n")
    empty = tmp_path / "empty.xlsx"
    empty.write_bytes(b"")
    old = tmp_path / "old.xls"
    old.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    archive = tmp_path / "archive.xlsx"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("hello.txt", "x")
    folder = tmp_path / "folder"
    folder.mkdir()
    single = tmp_path / "RVTools_tabvInfo.csv"
    single.write_text("VM\nweb\n")
    other = write_xlsx(tmp_path / "other.xlsx", {"Budget": [{"Item": 1}]})
    for path, problem in (
        (tmp_path / "none.xlsx", "does not exist"),
        (text, "is not an .xlsx workbook"),
        (empty, "is not an .xlsx workbook"),
        (old, "is an old .xls or a workbook with a password"),
        (archive, "is damaged"),
        (folder, "is not an RVTools export: no RVTools tab in it (a file such as"),
        (single, "name the folder that holds all tabs"),
        (other, "is not an RVTools export: no RVTools tab in it (a sheet such as vInfo)"),
    ):
        error = refusal(path)
        assert problem in str(error)
        assert error.source == str(path)


def test_an_export_without_vms_in_it_is_refused(tmp_path: Path) -> None:
    sheets = complete()
    del sheets["vInfo"]
    error = refusal(write_csv(tmp_path / "a", sheets))
    assert error.field == "vInfo"
    assert "tab missing: no VM is known" in error.problem
    error = refusal(write_csv(tmp_path / "b", {"vInfo": [{"Powerstate": "poweredOn"}]}))
    assert "column VM missing" in error.problem


def test_two_files_for_one_tab_are_refused(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "x", complete())
    write_csv(folder, complete(), pattern="{}.csv")
    assert "are both tab vDatastore" in refusal(folder).problem
    book = write_xlsx(tmp_path / "x.xlsx", {"vInfo": [vm("a", 1)], "tabvInfo": [vm("a", 1)]})
    assert "two sheets for tab vInfo" in refusal(book).problem


def test_a_csv_file_that_is_not_text_or_not_csv_is_named(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "x", complete())
    file = folder / "RVTools_tabvDisk.csv"
    good = file.read_bytes()
    file.write_bytes(good + b"caf\xe9\n")
    error = refusal(folder)
    assert (error.source, error.field) == (str(file), "line 3")
    assert "byte 0xe9 is not UTF-8" in error.problem
    file.write_bytes(good + b'"never closed')
    assert "is not CSV" in refusal(folder).problem


def test_an_empty_tab_is_like_one_without_rows(tmp_path: Path) -> None:
    folder = write_csv(tmp_path / "x", complete())
    (folder / "RVTools_tabvSnapshot.csv").write_text("")
    assert import_rvtools(folder).statistics["rows vSnapshot"] == 0
    (folder / "RVTools_tabvInfo.csv").write_text("VM,Powerstate\n,\n")
    result = import_rvtools(folder)
    assert result.estate.inventory.vms == ()
    assert any("0 of 0 VMs" in finding.sentence for finding in result.findings)


def test_a_damaged_workbook_is_refused_and_never_crashes(tmp_path: Path) -> None:
    good = write_xlsx(tmp_path / "good.xlsx", complete()).read_bytes()
    chance = random.Random(7)
    bad = tmp_path / "bad.xlsx"
    refused = 0
    for trial in range(60):
        damaged = bytearray(good)
        if trial % 2:
            del damaged[chance.randrange(8, len(damaged)) :]
        else:
            for _ in range(8):
                damaged[chance.randrange(8, len(damaged))] = chance.randrange(256)
        bad.write_bytes(damaged)
        # Damage where nothing is read may pass; anything but InputError fails the test.
        with contextlib.suppress(InputError):
            import_rvtools(bad)
            refused -= 1
        refused += 1
    assert refused > 30


def rewritten(source: Path, target: Path, part: str, change) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name == part else data)
    return target


def test_a_wrong_size_written_into_a_sheet_loses_no_rows(tmp_path: Path) -> None:
    rows = [vm(f"vm{number}", number) for number in range(5)]
    book = write_xlsx(tmp_path / "good.xlsx", complete(vInfo=rows))
    lying = rewritten(
        book,
        tmp_path / "lying.xlsx",
        "xl/worksheets/sheet1.xml",
        lambda data: data.replace(b'<dimension ref="A1:P6"', b'<dimension ref="A1:B2"'),
    )
    with zipfile.ZipFile(lying) as file:
        assert b'ref="A1:B2"' in file.read("xl/worksheets/sheet1.xml")
    assert import_rvtools(lying).estate == import_rvtools(book).estate


def test_broken_xml_in_one_sheet_is_named(tmp_path: Path) -> None:
    book = write_xlsx(tmp_path / "good.xlsx", complete())
    broken = rewritten(
        book, tmp_path / "broken.xlsx", "xl/worksheets/sheet2.xml", lambda data: data[:-200]
    )
    error = refusal(broken)
    assert error.field == "vDisk"
    assert "is damaged" in error.problem


def test_tabs_are_recognised_by_their_names() -> None:
    for name in (
        "vInfo",
        "tabvInfo",
        "RVTools_tabvInfo",
        "RVTools_tabvInfo.csv",
        "vinfo.CSV",
        "rvtoolstabvinfo",
        "site-a RVTools_tabvInfo.csv",
    ):
        assert tab_of(name) == "vInfo"
    for name in ("vInfo2", "Sheet1", "vCPU", "info", ""):
        assert tab_of(name) is None
