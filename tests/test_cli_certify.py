"""``stillframe certify`` at the front door, on a tiny array in memory."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import support_certify_tiny as tiny
from support_certify_front import (
    BARE,
    MARK,
    PRIVATE,
    TINY,
    VENDOR,
    certify,
    document,
    here,
)
from typer.testing import CliRunner

from stillframe.certify import folder
from stillframe.certify.signing import KEY_VARIABLE
from stillframe.cli import app

__all__ = ["here"]  # a fixture
pytestmark = pytest.mark.usefixtures("here")
LIMIT = tiny.LIMITS["snapshot_p95_s"]


def test_a_certificate_is_made_signed_and_verified() -> None:
    text = certify("array", TINY, "--config", "vendor.yaml", "--key", "signing.pem").stdout
    for part in (
        "tiny at home: CONFORMANT – 2 of 2 requirements that were tried are met; 1 was not tested.",
        "– not tested, the target does not offer restart:\n    TINY-SNP-02\n",
        "Certificate: out/certificates/tiny-at-home/certificate.html",
        f"Signed by {MARK}",
    ):
        assert part in text
    there = Path("out/certificates/tiny-at-home")
    assert sorted(one.name for one in there.iterdir()) == [
        "certificate.html", "certificate.json", "junit.xml",
    ]  # fmt: skip
    said = certify("verify", str(there), "--key", "public.pem").stdout
    assert f"signed and unchanged\nSigned by {MARK}\n  which is the key in public.pem\n" in said
    assert "2 pass, 1 not tested" in said
    assert "whose key that is was not checked" in certify("verify", str(there)).stdout
    verified = document("verify", str(there / "certificate.json"))
    assert (verified["signed_by"], verified["key_checked"]) == (MARK, False)
    assert (verified["verdict"], verified["kit_checked"]) == ("conformant", True)


def test_a_certificate_of_a_changed_kit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    certify("array", BARE, "--key", "signing.pem")
    monkeypatch.setattr(folder, "kit_digest", lambda: "other")
    assert "made by a changed kit" in certify("verify", "out/certificates/bare", code=2).stderr
    monkeypatch.setattr(folder.importlib.metadata, "version", lambda _name: "9.9")  # type: ignore[attr-defined]
    assert "which is not the one here" in certify("verify", "out/certificates/bare").stdout


def test_the_body_says_what_was_run_on_what() -> None:
    said = document("array", TINY, "--config", "vendor.yaml", "--seed", "7", "--effort", "quick")
    assert said["target"] == "tiny at home"
    assert said["target_class"] == "support_certify_tiny.Tiny"
    assert said["driver"] == "support_memory.MemoryArray"
    assert said["environment"] == {"address": "10.0.0.1"}
    assert (said["seed"], said["run"], said["effort"]) == (7, "7", "quick")
    assert said["capabilities"]["atomic_groups"] is True
    assert [one["verdict"] for one in said["requirements"]] == ["pass", "not tested", "pass"]
    assert said["requirements"][0]["evidence"]["tag"].startswith("sf-certify-7-")
    assert said["signed_by"] is None


def test_the_same_seed_gives_the_same_body_and_another_gives_another() -> None:
    def bodies(*args: str) -> dict[str, Any]:
        return document("array", TINY, "--config", "vendor.yaml", *args)

    first, again, other = bodies(), bodies(), bodies("--seed", "2")
    choices = [one["requirements"][0]["evidence"]["choice"] for one in (first, again, other)]
    assert choices[0] == choices[1] != choices[2]
    for one in (first, again):
        assert one.pop("made")["wall_s"] >= 0
    assert first == again


def test_tags_of_live_systems_differ_from_run_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.Tiny, "modelled", False)
    words = {document("array", TINY, "--config", "vendor.yaml")["run"] for _ in range(3)}
    assert len(words) == 3


def test_without_a_key_the_certificate_is_unsigned_and_says_so_loudly() -> None:
    result = certify("array", BARE)
    assert "THE CERTIFICATE IS NOT SIGNED" in result.stderr
    page = Path("out/certificates/bare/certificate.html").read_text()
    assert "This certificate is not signed" in page
    refused = certify("verify", "out/certificates/bare", code=2)
    assert "the certificate is not signed" in refused.stderr
    assert refused.stdout == ""


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, PRIVATE)
    result = certify("array", BARE)
    assert f"Signed by {MARK}" in result.stdout
    assert result.stderr == ""
    files = Path("out").rglob("*.*")
    assert not any(PRIVATE.splitlines()[1] in one.read_text() for one in files if one.is_file())


def test_a_broken_driver_ends_with_1_and_its_certificate_tells_why() -> None:
    result = certify("array", "support_certify_tiny:Broken", "--key", "signing.pem", code=1)
    assert "Broken: NOT CONFORMANT" in result.stdout
    assert "✗ TINY-SNP-01 fail: what was made is not listed" in result.stdout
    certify("verify", "out/certificates/broken", "--key", "public.pem")
    body = json.loads(Path("out/certificates/broken/certificate.json").read_text())["body"]
    failed = body["requirements"][0]
    assert [event["call"] for event in failed["events"]] == ["snapshot_group", "list_snapshots"]


def test_a_system_that_breaks_down_for_good_does_not_cost_the_certificate() -> None:
    said = document("array", "support_certify_tiny:Dying", code=1)
    verdicts = {one["id"]: (one["verdict"], one["reason"]) for one in said["requirements"]}
    assert verdicts["TINY-SNP-01"][0] == "fail"
    assert "the array is on fire" in verdicts["TINY-SNP-01"][1]
    verdict, reason = verdicts["TINY-DUR-01"]
    assert verdict == "blocked"
    assert reason.startswith("the system no longer answers: ")


def test_a_connection_that_broke_is_opened_again_whatever_the_driver_raises() -> None:
    said = document("array", "support_certify_tiny:Flaky", code=1)
    assert [one["verdict"] for one in said["requirements"]] == ["fail", "not tested", "pass"]


def test_limits_and_effort_come_from_the_configuration() -> None:
    Path("vendor.yaml").write_text(f"{VENDOR}limits: {{snapshot_p95: 1 us}}\neffort: quick\n")
    said = document("array", TINY, "--config", "vendor.yaml", code=1)
    assert said["limits"] == {"snapshot_p95_s": 1e-6}
    assert said["effort"] == "quick"
    assert said["requirements"][2]["reason"] == "a snapshot took too long"
    assert document("array", TINY, "--config", "vendor.yaml", "--effort", "thorough", code=1)[
        "effort"
    ] == "thorough"  # fmt: skip


def test_files_in_settings_are_relative_to_the_configuration(here: Path) -> None:
    Path("vendor").mkdir()
    Path("vendor/own.yaml").write_text("settings: {address: a, ca_file: ca.pem}")
    certify("array", TINY, "--config", "vendor/own.yaml")
    assert tiny.Tiny.last is not None
    assert tiny.Tiny.last.settings.ca_file == str(Path("vendor/ca.pem"))


def test_only_some_requirements_make_a_partial_certificate() -> None:
    said = document("array", BARE, "--only", "TINY-DUR", "--only", "TINY-SNP-01")
    assert [one["id"] for one in said["requirements"]] == ["TINY-SNP-01", "TINY-DUR-01"]
    assert said["only"] == ["TINY-DUR-01", "TINY-SNP-01"]
    page = Path("out/certificates/bare/certificate.html").read_text()
    assert "about a part of the requirements only" in page
    text = certify("array", BARE, "--only", "TINY-DUR", "--key", "signing.pem").stdout
    assert "Only 1 requirement asked for (--only): a partial certificate" in text
    text = certify("verify", "out/certificates/bare").stdout
    assert "of the 1 requirement asked for only: a partial certificate" in text


def test_nothing_is_left_of_the_scratch_folder_and_the_target_is_taken_down(here: Path) -> None:
    certify("array", BARE)
    assert tiny.Bare.last is not None
    assert tiny.Bare.last.down
    assert not list((here / "scratch").iterdir())
    assert not tiny.Bare.last.array.snapshots


@pytest.mark.parametrize(
    ("number", "on_ctrl_c"),
    [
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_IGN),  # in the background
    ],
)
def test_a_signal_takes_away_what_was_made_and_writes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, on_ctrl_c: Any
) -> None:
    monkeypatch.setattr(tiny.Interrupted, "number", number)
    before = signal.getsignal(signal.SIGTERM)
    runners = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        result = CliRunner().invoke(app, ["certify", "array", "support_certify_tiny:Interrupted"])
    finally:
        signal.signal(signal.SIGINT, runners)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    made = tiny.Interrupted.last
    assert made is not None
    assert made.down
    assert made.array.touched
    assert not made.array.snapshots
    assert signal.getsignal(signal.SIGTERM) is before
    assert not Path("out").exists()
    assert not list((here / "scratch").iterdir())


def test_an_earlier_certificate_is_replaced_and_files_of_others_stay() -> None:
    certify("array", BARE, "--out", "mine")
    Path("mine/README").write_text("by the reader")
    certify("array", BARE, "--out", "mine", "--key", "signing.pem", "--seed", "3")
    assert Path("mine/README").read_text() == "by the reader"
    certify("verify", "mine")


def test_requirements_are_listed() -> None:
    text = certify("list", "array").stdout
    assert "  TINY-SNP-01  core         A driver shall list what was made. [2 units]\n" in text
    assert "  TINY-SNP-02  fault        A restart shall lose nothing. [restart]\n" in text
    assert "  snapshot_p95: the 95th percentile of a snapshot's duration\n" in text
    both = document("list")
    assert set(both) == {"array", "hypervisor"}
    assert [one["id"] for one in both["array"]["requirements"]] == [
        one.id for one in tiny.REQUIREMENTS
    ]
    assert both["array"]["limits"] == {"snapshot_p95": LIMIT}


def test_certificates_are_laid_side_by_side() -> None:
    certify("array", BARE, "--key", "signing.pem")
    certify("array", "support_certify_tiny:Broken", code=1)
    folders = ["out/certificates/bare", "out/certificates/broken"]
    text = certify("matrix", *folders, "--out", "matrix.html").stdout
    assert text == "Matrix: matrix.html\n"
    page = Path("matrix.html").read_text()
    for part in ("Bare", "Broken", MARK[:16], "nobody", "what was made is not listed"):
        assert part in page
    assert "exists already" in certify("matrix", *folders, "--out", "matrix.html", code=2).stderr
    certify("matrix", *folders, "--out", "matrix.html", "--force")
