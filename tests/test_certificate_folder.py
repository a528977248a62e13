"""A certificate on disk: whatever is changed in it afterwards is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support_certificate import OUTCOMES, body, good
from support_certify_front import KEY, MARK, SIGNER

from stillframe.certify import folder
from stillframe.certify.certificate import Body
from stillframe.certify.folder import check_out, read_certificate, write_certificate
from stillframe.certify.signing import Signer, fingerprint, packed, signer_from
from stillframe.errors import InputError

FILES = {"certificate.html": b"<p>page</p>", "junit.xml": b"<x/>"}
OTHER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))


def written(out: Path, key: Signer | None = SIGNER, made: Body | None = None) -> Path:
    """A small certificate in a folder."""
    return write_certificate(out, body(*OUTCOMES[:1]) if made is None else made, FILES, key)


def problem(path: Path, *args: Any) -> str:
    """The one line with which it is refused."""
    with pytest.raises(InputError) as caught:
        read_certificate(path, *args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    made = good()
    file = written(tmp_path / "deep" / "c", made=made)
    for path in (file, file.parent):
        found = read_certificate(path, KEY.public_key())
        assert found.body == made
        assert found.fingerprint == MARK
    assert {one.name for one in file.parent.iterdir()} == {"certificate.json", *FILES}


def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    file = written(tmp_path)
    whole = file.read_bytes()
    for place in range(0, len(whole), 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
        problem(file)
    for text in (whole[:-1], whole + b" ", b"\xef\xbb\xbf" + whole, whole.replace(b"\n", b"\r\n")):
        file.write_bytes(text)
        problem(file)
    file.write_bytes(whole)
    read_certificate(file)


@pytest.mark.parametrize("name", FILES)
def test_the_files_beside_it_belong_to_it(tmp_path: Path, name: str) -> None:
    written(tmp_path)
    (tmp_path / name).write_bytes(FILES[name] + b" ")
    assert f"{name}: was changed after it was written" in problem(tmp_path)
    (tmp_path / name).unlink()
    assert f"{name}: belongs to the certificate and cannot be read" in problem(tmp_path)


def edited(file: Path, edit: Callable[[dict[str, Any]], None]) -> str:
    """The refusal of a certificate that was edited and written just as the kit writes it."""
    envelope = json.loads(file.read_bytes())
    edit(envelope)
    file.write_bytes(folder._written(envelope))
    return problem(file)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "verdict": lambda one: one["body"].update(verdict="conformant"),
    "body": lambda one: one["body"].update(driver_package="acme-array 2.2"),
    "a digest": lambda one: one["files"].update({"junit.xml": "0" * 64}),
    "a file less": lambda one: one["files"].pop("junit.xml"),
    "fingerprint": lambda one: one["signature"].update(fingerprint=fingerprint(OTHER.public)),
    "key": lambda one: one["signature"].update(public_key=packed(OTHER.public)),
    "no key": lambda one: one["signature"].update(public_key="AAAA"),
    "value": lambda one: one["signature"].update(value="AAAA"),
    "a number": lambda one: one["signature"].update(value=7),
    "algorithm": lambda one: one["signature"].update(algorithm="none"),
    "more": lambda one: one["signature"].update(note="trust me"),
    "a word": lambda one: one.update(signature="signed"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_certificate_is_refused(tmp_path: Path, edit: str) -> None:
    file = written(tmp_path, made=body(*OUTCOMES[:3]))
    said = edited(file, lambda one: (EDITS[edit](one), None)[1])
    assert "certificate.json: signature: does not fit: the certificate was changed" in said


def test_what_json_would_hide_is_noticed(tmp_path: Path) -> None:
    file = written(tmp_path)
    whole = file.read_text()
    file.write_text(whole.replace('"body": {', '"body": {}, "body": {', 1))
    assert "was changed after it was written" in problem(file)
    file.write_text(whole.replace('{\n "format"', '{\n "note": 1,\n "format"', 1))
    assert "was changed after it was written" in problem(file)
    file.write_text(whole.replace('"seed": 1,', '"seed": NaN,', 1))
    assert "was changed after it was written" in problem(file)


@pytest.mark.parametrize("part", ["value", "public_key"])
def test_bits_that_base64_does_not_read_are_noticed_too(tmp_path: Path, part: str) -> None:
    def edit(envelope: dict[str, Any]) -> None:
        text = envelope["signature"][part]
        end = text.index("=") - 1
        # The last letter before the padding has bits to spare.
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        other = letters[letters.index(text[end]) ^ 1]
        envelope["signature"][part] = text[:end] + other + text[end + 1 :]

    assert "the certificate was changed" in edited(written(tmp_path), edit)


def test_a_signature_taken_away_makes_it_unsigned(tmp_path: Path) -> None:
    file = written(tmp_path)
    envelope = json.loads(file.read_bytes())
    file.write_bytes(folder._written({**envelope, "signature": None}))
    assert read_certificate(file).fingerprint is None
    assert "is signed by nobody" in problem(file, KEY.public_key())


def test_a_certificate_signed_by_somebody_else_is_not_the_vendors(tmp_path: Path) -> None:
    written(tmp_path, OTHER)
    assert read_certificate(tmp_path).fingerprint == fingerprint(OTHER.public)
    said = problem(tmp_path, KEY.public_key())
    assert f"is signed by key {fingerprint(OTHER.public)}, not by {MARK}" in said


def test_even_a_signed_one_has_to_fit_together(tmp_path: Path) -> None:
    made = body().model_copy(update={"verdict": "conformant"})
    written(tmp_path, made=made)
    assert "the verdicts do not make it conformant" in problem(tmp_path)


def test_even_a_signed_one_has_to_have_its_parts_and_name_files_beside_it(tmp_path: Path) -> None:
    file = written(tmp_path)
    envelope = json.loads(file.read_bytes())

    def again(**changes: Any) -> str:
        made = {**envelope, **changes}
        made["signature"] = folder._signed(made, SIGNER)
        file.write_bytes(folder._written(made))
        return problem(file)

    body_without = {key: value for key, value in envelope["body"].items() if key != "kit"}
    assert "kit: is missing" in again(body=body_without)
    outside = {**envelope["files"], "../secret": hashlib.sha256(b"").hexdigest()}
    assert "'../secret' is not a file's name" in again(files=outside)
    assert "does not name the files" in again(files={})
    assert "does not name the files" in again(files=[])
    assert "2 is not a version" in again(version=2)


def test_a_certificate_is_written_last_and_a_failure_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path)
    real = folder._replace
    names: list[str] = []

    def full(path: Path, content: bytes) -> None:
        names.append(path.name)
        if path.name == "certificate.json":
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(folder, "_replace", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        written(tmp_path, made=good())
    assert names == [*sorted(FILES), "certificate.json"]
    assert read_certificate(tmp_path).body == body(*OUTCOMES[:1])


def test_a_file_is_replaced_at_once_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    folder._replace(file, b"one")
    assert (file.stat().st_mode & 0o777) == 0o644

    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        folder._replace(file, b"two")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("x", b"one")]


def test_where_a_certificate_may_go(tmp_path: Path) -> None:
    check_out(tmp_path / "new" / "deep")
    check_out(tmp_path)
    written(tmp_path / "mine")
    check_out(tmp_path / "mine")
    (tmp_path / "mine" / "certificate.json").write_text("[")
    with pytest.raises(InputError, match="something else than a certificate"):
        check_out(tmp_path / "mine")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        check_out(tmp_path / "link")


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may anywhere
    with pytest.raises(InputError, match="cannot be written to"):
        check_out(tmp_path / "new")


def test_a_fingerprint_is_what_openssl_and_sha256sum_give() -> None:
    # RFC 8410: the DER form of an Ed25519 public key is this prefix and its 32 bytes.
    raw = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    prefix = bytes.fromhex("302a300506032b6570032100")
    assert hashlib.sha256(prefix + raw).hexdigest() == MARK


def test_no_key_is_no_signer_and_a_file_goes_before_the_environment(tmp_path: Path) -> None:
    assert signer_from(None, {}) is None
    assert signer_from(None, {"STILLFRAME_SIGNING_KEY": " \n"}) is None
    with pytest.raises(InputError, match=r"k\.pem: cannot be read"):
        signer_from(tmp_path / "k.pem", {"STILLFRAME_SIGNING_KEY": "ignored"})
