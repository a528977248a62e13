"""Result folders: complete or absent, equal when read back, damage named in one line."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support_reports import Inputs, build_inputs, build_run

from stillframe.errors import InputError
from stillframe.orchestrator.events import EventLog
from stillframe.orchestrator.result import JobResult, JobStatus
from stillframe.reports import folder as folder_module
from stillframe.reports.fig_topology import topology
from stillframe.reports.fig_windows import windows
from stillframe.reports.figures import FIGURES, png
from stillframe.reports.folder import read_folder, write_folder
from stillframe.reports.html import render
from stillframe.reports.rundata import SCHEMAS, RunData

HOSTILE = "<script>alert(1)</script>\"&'<img src=https://example.invalid/x>$\\frac{1}{0}$ 日本"


@pytest.fixture(scope="module")
def run() -> RunData:
    return build_run(30)


@pytest.fixture(scope="module")
def pristine(run: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "demo"
    write_folder(run, out)
    return out


@pytest.fixture
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small picture instead of all: drawing is what takes the time."""
    monkeypatch.setattr(folder_module, "draw_all", lambda _: {"windows": Figure((1, 1))})


@pytest.fixture
def result(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "demo"))


def test_a_folder_read_back_equals_the_run(pristine: Path, run: RunData) -> None:
    assert read_folder(pristine).equals(run)


def test_equality_sees_a_single_changed_value(run: RunData) -> None:
    other = build_inputs(30)
    other.result.vms[3].wait_s += 1e-9
    assert not other.run().equals(run)


def test_a_folder_holds_what_the_design_names(pristine: Path) -> None:
    names = {str(path.relative_to(pristine)) for path in pristine.rglob("*") if path.is_file()}
    tables = {f"{name}.parquet" for name in SCHEMAS}
    pictures = {f"figures/{spec.name}.png" for spec in FIGURES}
    assert names == tables | pictures | {"run.json", "report.html", "trace.perfetto.json"}
    assert list(pristine.parent.iterdir()) == [pristine]


@pytest.mark.usefixtures("plain_pictures")
def test_a_result_is_replaced_by_a_newer_one(result: Path) -> None:
    (result / "figures" / "old.png").write_bytes(b"")
    newer = build_run(12)
    write_folder(newer, result)
    assert read_folder(result).equals(newer)
    assert not (result / "figures" / "old.png").exists()
    assert list(result.parent.iterdir()) == [result]


@pytest.mark.usefixtures("plain_pictures")
def test_what_a_reader_put_into_the_folder_stays(result: Path, run: RunData) -> None:
    (result / "notes.txt").write_text("seen by the storage team")
    (result / "mails").mkdir()
    (result / "mails" / "1.eml").write_text("ok")
    write_folder(run, result)
    assert (result / "notes.txt").read_text() == "seen by the storage team"
    assert (result / "mails" / "1.eml").is_file()
    assert sorted(path.name for path in (result / "figures").iterdir()) == ["windows.png"]


@pytest.mark.parametrize("at", ["draw_all", "render", "trace", "png"])
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.usefixtures("plain_pictures")
def test_a_failure_in_the_middle_leaves_what_was_there(
    at: str, existing: bool, run: RunData, result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = result if existing else result.parent / "new"
    before = sorted((path, path.stat().st_mtime_ns) for path in result.parent.rglob("*"))

    def broken(*_: object) -> bytes:
        raise RuntimeError("no more ink")

    monkeypatch.setattr(folder_module, at, broken)
    with pytest.raises(RuntimeError, match="no more ink"):
        write_folder(run, out)
    assert sorted((p, p.stat().st_mtime_ns) for p in result.parent.rglob("*")) == before


@pytest.mark.usefixtures("plain_pictures")
def test_a_failing_last_rename_brings_the_old_result_back(
    run: RunData, result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(InputError, match="No space left"):
        write_folder(build_run(12), result)
    monkeypatch.undo()
    assert read_folder(result).equals(run)
    assert list(result.parent.iterdir()) == [result]


@pytest.mark.usefixtures("plain_pictures")
def test_a_folder_of_something_else_is_never_touched(run: RunData, tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter-1.txt").write_text("It was")
    with pytest.raises(InputError, match="something else than a result"):
        write_folder(run, precious)
    (precious / "run.json").write_text('{"format": "another"}')
    with pytest.raises(InputError, match="something else than a result"):
        write_folder(run, precious)
    with pytest.raises(InputError, match="not a folder"):
        write_folder(run, precious / "chapter-1.txt")
    assert (precious / "chapter-1.txt").read_text() == "It was"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("plain_pictures")
def test_missing_parents_are_made_and_an_empty_folder_is_used(run: RunData, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    out.mkdir(parents=True)
    write_folder(run, out)
    write_folder(run, tmp_path / "c" / "d")
    assert read_folder(tmp_path / "c" / "d").equals(read_folder(out))


def damage(result: Path, how: str) -> str:
    """Damage the folder and say which file the error has to name."""
    vms, head = result / "vms.parquet", result / "run.json"
    meta = json.loads(head.read_text())
    if how == "truncated table":
        vms.write_bytes(vms.read_bytes()[:-200])
    elif how == "garbage table":
        vms.write_bytes(b"not a table at all")
    elif how == "empty table":
        vms.write_bytes(b"")
    elif how == "missing table":
        vms.unlink()
    elif how == "swapped table":
        shutil.copy(result / "calls.parquet", vms)
    elif how == "truncated head":
        head.write_text(head.read_text()[:200])
    elif how == "missing head":
        head.unlink()
    elif how == "newer version":
        head.write_text(json.dumps(meta | {"version": folder_module.VERSION + 1}))
    elif how == "another format":
        head.write_text("[]")
    elif how == "incomplete meta":
        del meta["meta"]["job"]
        head.write_text(json.dumps(meta))
    return "vms.parquet" if how.endswith("table") else "run.json"


@pytest.mark.parametrize(
    "how",
    ["truncated table", "garbage table", "empty table", "missing table", "swapped table",
     "truncated head", "missing head", "newer version", "another format", "incomplete meta"],
)  # fmt: skip
def test_damage_is_one_line_that_names_the_file(how: str, result: Path) -> None:
    name = damage(result, how)
    with pytest.raises(InputError) as caught:
        read_folder(result)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_from_before_images_were_kept_is_read(result: Path, run: RunData) -> None:
    head = result / "run.json"
    head.write_text(json.dumps(json.loads(head.read_text()) | {"version": 1}))
    (result / "images.parquet").unlink()
    found = read_folder(result)
    assert found.images.is_empty()
    assert found.images.schema == run.images.schema
    assert found.vms.equals(run.vms)


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_folder(tmp_path / "absent")


class Page(HTMLParser):
    """Collects what a browser would fetch or run, the text, and unclosed elements."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [
            v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")
        ]
        assert not [k for k, _ in attrs if k.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(page: str) -> Page:
    parser = Page()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_needs_nothing_from_outside(pristine: Path) -> None:
    text = (pristine / "report.html").read_text(encoding="utf-8")
    page = parse(text)
    assert all(v.startswith(("#", "data:image/png;base64,")) for v in page.fetched)
    assert sum(v.startswith("data:") for v in page.fetched) == len(FIGURES)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", text)


def test_links_inside_the_page_have_targets(pristine: Path) -> None:
    text = (pristine / "report.html").read_text(encoding="utf-8")
    for anchor in [v[1:] for v in parse(text).fetched if v.startswith("#")]:
        assert f'id="{anchor}"' in text


def hostile_inputs() -> Inputs:
    inputs = build_inputs(20)
    inputs.meta |= dict.fromkeys(("title", "description", "command"), HOSTILE)
    inputs.meta["assumptions"] = [HOSTILE]
    result = inputs.result
    result.orphans = [HOSTILE]
    result.groups[0].error = result.calls[0].error = result.waits[0].name = HOSTILE
    for vm in result.vms:
        vm.name = HOSTILE
        vm.reason = HOSTILE
    inputs.placements = [(r[0], HOSTILE, *r[2:]) for r in inputs.placements]
    return inputs


def test_names_from_outside_are_text_on_the_page_and_in_the_pictures() -> None:
    run = hostile_inputs().run()
    images = {"windows": png(windows(run)), "topology": png(topology(run))}
    page = parse(render(run, images))
    assert "script" not in page.tags
    assert page.tags.count("img") == len(images)
    assert page.text.count(HOSTILE) >= 20


def test_the_page_explains_every_clock_and_says_how_to_repeat_the_run(pristine: Path) -> None:
    text = parse((pristine / "report.html").read_text(encoding="utf-8")).text
    meta = read_folder(pristine).meta
    for expected in ("frozen → thawed", "removal begins → delta merged", "nearest rank",
                     meta["trace_hash"], meta["command"], meta["versions"]["simpy"],
                     meta["assumptions"][0], "60 s", "Veeam KB1377"):  # fmt: skip
        assert expected in text


def test_long_tables_are_cut_and_say_so() -> None:
    inputs = build_inputs(300)
    for vm in inputs.result.vms:
        vm.degraded = True
    page = parse(render(inputs.run(), {}))
    assert "and 250 more" in page.text
    assert page.tags.count("tr") < 400


def test_a_run_of_nothing_still_makes_a_whole_result(tmp_path: Path) -> None:
    nothing = JobResult("job", "per-component", JobStatus.NOTHING_SELECTED, 0.0, 0.0, [], [], [],
                        [], (), 0, 0, 8, 2**40, 0, 0, [], [], EventLog())  # fmt: skip
    run = Inputs(nothing).run()
    write_folder(run, tmp_path / "out")
    assert read_folder(tmp_path / "out").equals(run)
    assert "matched no VM" in (tmp_path / "out" / "report.html").read_text()
