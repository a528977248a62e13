"""The pages of the kit: self-contained, escaped, and silent about nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support_certificate import OUTCOMES, SAMPLES, body, good, outcome

from stillframe.certify.certificate import Body
from stillframe.certify.figures import MOST_ROWS, Row, latency, pictures
from stillframe.certify.folder import Certificate
from stillframe.certify.issue import save
from stillframe.certify.matrix import render_matrix
from stillframe.certify.outcome import Sample
from stillframe.certify.page import render, sentence
from stillframe.reports.figures import png


def page(made: Body, signed_by: str | None = "ab" * 32) -> str:
    """The certificate's page without its pictures."""
    return render(made, [], signed_by)


def test_the_page_says_what_was_certified_and_what_came_of_it() -> None:
    text = page(body())
    for part in (
        "acme array", "acme.driver.AcmeArray", "acme-array 2.1", "acme.target.AcmeTarget",
        "Acme 9000 &lt;lab&gt;", "7.3", "2026-01-05T21:00:00+00:00", "copy-on-write",
        "snapshots on device", "at most 200 ms", "not conformant", "ab" * 32,
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("number", range(1, 8))
def test_every_requirement_is_on_the_page_with_verdict_and_reason(number: int) -> None:
    text = page(body())
    one = OUTCOMES[number - 1]
    article = text[text.index(f'id="ARR-DAT-0{number}"') :]
    article = article[: article.index("</article>")]
    assert one.verdict.value in article
    assert one.reason.replace("<", "&lt;").replace(">", "&gt;") in article


def test_evidence_and_calls_of_a_failure_are_shown() -> None:
    text = page(body())
    for part in ("1 on unit 0, 3 on unit 1", "gap s", "0.25", "the last 1 calls", "snapshot_group",
                 "&lt;at the switch&gt;", "31 ms"):  # fmt: skip
        assert part in text


def test_what_was_not_tested_is_listed_by_name_with_the_reason() -> None:
    text = page(body())
    part = text[text.index('id="untested"') : text.index('id="absent"')]
    assert "The target does not offer restart" in part
    assert "ARR-DAT-05" in part
    assert "A restart shall lose nothing." in part
    assert "Nothing: every requirement was tried" in page(good().model_copy(
        update={"requirements": good().requirements[:2]}
    ))  # fmt: skip


def test_an_unsigned_page_says_so_and_a_signed_one_does_not() -> None:
    assert "This certificate is not signed" in page(body(), None)
    assert "not signed" not in page(body())


def test_a_part_of_the_requirements_is_called_a_part() -> None:
    made = good().model_copy(update={"only": ("ARR-DAT-01",)})
    assert "a part of the requirements only" in page(made)
    assert "a part of the requirements only" not in page(good())


def test_the_sentence_claims_no_more_than_was_tried() -> None:
    assert sentence(body()) == (
        "3 of 4 requirements that were tried are met; 1 is broken; "
        "1 could not be tried because something else failed; 1 was not tested."
    )
    assert sentence(body(*OUTCOMES[:2])) == "2 of 2 requirements that were tried are met."


def self_contained(text: str) -> bool:
    """No script, and nothing that a browser would fetch."""
    fetched = re.findall(r"""(?:src|href)=["'](?!#|data:image/png;base64,)[^"']*""", text)
    return not fetched and "<script" not in text and "url(" not in text and "@import" not in text


def test_pages_need_nothing_else(tmp_path: Path) -> None:
    made = body()
    assert self_contained(render(made, pictures(made), None))
    assert self_contained(render_matrix([Certificate(made, None, tmp_path)]))
    assert not self_contained('<img src="https://example.com/x.png">')


def test_what_a_driver_says_cannot_write_into_the_page() -> None:
    made = body(outcome(3, reason="<script>alert(1)</script>"), target="<img src=x>")
    for text in (page(made), render_matrix([Certificate(made, None, Path("x"))])):
        assert "<script" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;" in text


def test_each_kind_of_operation_has_a_picture_with_its_limit() -> None:
    made = body(outcome(7, samples=(*SAMPLES, Sample("delete", {}, (0.1, 0.2)))))
    shown = pictures(made)
    assert [one.title for one in shown] == ["Snapshot", "Delete"]
    assert "The dashed line is what the vendor states." in shown[0].caption
    assert "dashed" not in shown[1].caption
    assert all(one.png.startswith(b"\x89PNG") for one in shown)
    assert shown[0].data in render(made, shown, None)


def test_the_pictures_are_on_the_page_of_a_certificate(tmp_path: Path) -> None:
    save(body(), tmp_path, None)
    text = (tmp_path / "certificate.html").read_text()
    assert text.count('src="data:image/png;base64,iVBOR') == 1


def test_a_picture_is_the_same_bytes_for_the_same_samples() -> None:
    assert [one.png for one in pictures(body())] == [one.png for one in pictures(body())]


def test_a_row_for_each_circumstance_with_median_and_95th_percentile() -> None:
    rows = [Row("units 1", (0.001, 0.002, 0.003)), Row("units 2", (0.5,))]
    figure = latency("fence seen by writers", rows, {"fence_seen_by_writers_p95_s": 0.25})
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [
        "units 1\nmedian 2 ms, p95 3 ms (3)", "units 2\nmedian 500 ms, p95 500 ms (1)",
    ]  # fmt: skip
    assert "stated p95: 250 ms" in [text.get_text() for text in axes.texts]
    low, high = axes.get_xlim()
    assert low < 0.001
    assert high > 0.5


def test_durations_of_nothing_can_be_drawn_and_too_many_rows_are_counted() -> None:
    assert png(latency("list", [Row("all", (0.0, 0.0))], {}))
    many = [Row(f"units {number}", (0.1,)) for number in range(MOST_ROWS + 3)]
    figure = latency("list", many, {})
    assert len(figure.axes[0].get_yticks()) == MOST_ROWS
    assert figure._supxlabel.get_text() == "Left out: 3 more."  # type: ignore[attr-defined]


def test_nothing_measured_gives_no_picture() -> None:
    assert not pictures(body(*OUTCOMES[:2]))
    empty = replace(OUTCOMES[6], samples=(Sample("list", {}, ()),))
    assert not pictures(body(empty))


def test_the_matrix_lays_certificates_side_by_side() -> None:
    hypervisor = good(kind="hypervisor", target="acme cloud")
    text = render_matrix([
        Certificate(body(), "cd" * 32, Path("a")),
        Certificate(good(target="other array"), None, Path("b")),
        Certificate(hypervisor, None, Path("c")),
    ])  # fmt: skip
    assert text.index('id="array"') < text.index('id="hypervisor"')
    array = text[text.index('id="array"') : text.index('id="hypervisor"')]
    for part in ("acme array", "other array", "cdcdcdcdcdcdcdcd…", "nobody", "copy-on-write",
                 "no limit", "1 of 1", "0 of 1", "not in it",
                 "write 2 is missing although 3 is there"):  # fmt: skip
        assert part in array
    assert "acme cloud" not in array
    row = array[array.index("ARR-DAT-03</span>") :]
    row = row[: row.index("</tr>")]
    assert row.count("<td") == 2
    assert "fail" in row
    assert "not in it" in row
