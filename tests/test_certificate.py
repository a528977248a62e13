"""What a certificate says, as data, as XML, and what does not fit in it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from support_certificate import OUTCOMES, TORN, body, good, outcome

from stillframe.certify import certificate
from stillframe.certify.certificate import Body, canonical, kit_digest, plain
from stillframe.certify.junit import junit
from stillframe.certify.outcome import Outcome, Verdict
from stillframe.certify.requirement import Level


def test_verdicts_are_counted_in_all_and_by_level() -> None:
    made = body()
    assert made.summary == {
        Verdict.PASS: 3, Verdict.FAIL: 1, Verdict.ABSENT: 1, Verdict.NOT_TESTED: 1,
        Verdict.BLOCKED: 1,
    }  # fmt: skip
    assert list(made.levels) == [
        Level.CORE,
        Level.GROUP,
        Level.DATA,
        Level.FAULT,
        Level.PERFORMANCE,
    ]
    assert made.levels[Level.FAULT][Verdict.NOT_TESTED] == 1
    assert made.levels[Level.DATA][Verdict.PASS] == made.levels[Level.DATA][Verdict.ABSENT] == 1
    assert not made.odds()


@pytest.mark.parametrize(
    ("outcomes", "conformant"),
    [
        (OUTCOMES[:1], True),
        (OUTCOMES[:2] + OUTCOMES[3:5], True),
        (OUTCOMES[:3], False),
        (OUTCOMES[:1] + OUTCOMES[5:6], False),
        (OUTCOMES[3:5], False),
    ],
    ids=["pass", "absent and not tested", "fail", "blocked", "nothing was tried"],
)
def test_conformant_is_what_failed_nothing_and_passed_something(
    outcomes: tuple[Outcome, ...], conformant: bool
) -> None:
    assert body(*outcomes).conformant is conformant


def test_a_requirement_is_in_it_with_all_that_was_seen() -> None:
    row = body().requirements[2].model_dump(mode="json")
    assert row["sentence"] == "A group call shall cut all units at one point in time."
    assert row["evidence"] == TORN
    assert row["events"][0]["call"] == "snapshot_group"
    assert (row["level"], row["verdict"]) == ("group", "fail")


def changed(made: Body, **changes: Any) -> Body:
    """The same with a part exchanged, as somebody with an editor would."""
    return made.model_copy(update=changes)


def test_what_does_not_fit_together_is_noticed() -> None:
    made = body()
    more = {**made.summary, Verdict.PASS: 4}
    assert "numbers of verdicts are not" in changed(made, summary=more).odds()
    assert "by level" in changed(made, levels={}).odds()
    assert "do not make it conformant" in changed(made, verdict="conformant").odds()
    twice = body(OUTCOMES[0], OUTCOMES[0])
    assert twice.odds() == "ARR-DAT-01 is in it twice"


class Word(StrEnum):
    """Something that is text and more."""

    ONE = "one"


def test_whatever_a_check_noted_becomes_json() -> None:
    noted = {
        "numbers": (1, 2.5, math.nan, math.inf),
        "set": frozenset({"b", "a", 3}),
        "bytes": b"\x00\xff",
        "path": Path("a/b"),
        7: Word.ONE,
        "half a letter": "\udc80",
        "nested": [{"deep": {1, 0}}],
        "truth": True,
        "nothing": None,
    }
    value = plain(noted)
    assert value == {
        "numbers": [1, 2.5, "nan", "inf"],
        "set": ["a", "b", 3],
        "bytes": "00ff",
        "path": "a/b",
        "7": "one",
        "half a letter": "\\udc80",
        "nested": [{"deep": [0, 1]}],
        "truth": True,
        "nothing": None,
    }
    assert json.loads(canonical(value)) == value
    assert type(value["7"]) is str


def test_sets_are_in_the_same_order_in_every_process() -> None:
    code = "from stillframe.certify.certificate import plain; print(plain(set('abcdefgh')))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {f"{list('abcdefgh')}\n"}


def test_the_kits_digest_is_that_of_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "certify"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(certificate.__file__).parent, copy, ignore=leave)
    monkeypatch.setattr(certificate, "__file__", str(copy / "certificate.py"))
    whole = kit_digest()
    (copy / "checks" / "__pycache__").mkdir()
    (copy / "notes.txt").write_text("not a source")
    assert kit_digest() == whole
    check = copy / "checks" / "__init__.py"
    check.write_text(check.read_text() + "# nothing\n")
    edited = kit_digest()
    check.rename(copy / "checks" / "renamed.py")
    assert len({whole, edited, kit_digest()}) == 3


def test_junit_has_a_case_for_each_requirement_with_what_came_of_it() -> None:
    root = ET.fromstring(junit(body()))  # noqa: S314  # our own
    assert root.attrib["tests"] == "7"
    assert [suite.attrib["name"] for suite in root] == ["lifecycle", "data"]
    cases = root.findall("./testsuite/testcase")
    results = [[child.tag for child in case] for case in cases]
    assert results == [[], [], ["failure"], ["skipped"], ["skipped"], ["error"], []]
    failure = cases[2][0]
    assert failure.attrib["message"] == "fail: write 2 is missing although 3 is there"
    assert '"missing": 2' in str(failure.text)
    assert "UnknownOutcomeError: the answer was lost <at the switch>" in str(failure.text)
    for suite in root:
        counted = [case.find(tag) for case in suite for tag in ("failure", "error", "skipped")]
        numbers = [int(suite.attrib[name]) for name in ("failures", "errors", "skipped")]
        assert sum(numbers) == sum(one is not None for one in counted)


def test_junit_can_be_read_whatever_a_driver_says() -> None:
    made = body(outcome(3, reason="\x00\x1b[31mred\ud800 & <b>"))
    message = ET.fromstring(junit(made))[0].findall(".//failure")[0].attrib["message"]  # noqa: S314
    assert message == "fail: \ufffd\ufffd[31mred\\ud800 & <b>"


def test_a_good_one_is_good() -> None:
    assert good().conformant
