"""What the kit refuses: one clear line on stderr, an exit code, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from support_certify_front import BARE, KEY, TINY, certify, here
from support_files import tree
from typer.testing import CliRunner

from stillframe.cli import app

__all__ = ["here"]  # a fixture


def refused(here: Path, *args: str, words: tuple[str, ...], code: int = 2) -> str:
    """Run what must be refused; its one line."""
    before = tree(here)
    result = CliRunner().invoke(app, ["certify", *args])
    lines = result.stderr.splitlines()
    assert (result.exit_code, len(lines)) == (code, 1), result.stderr
    assert result.stdout == ""
    for word in ("stillframe: ", *words):
        assert word in lines[0]
    assert tree(here) == before
    return lines[0]


CONFIGS = {
    "no such file": (None, ("own.yaml", "does not exist")),
    "not yaml": ("settings: [", ("own.yaml", "is not valid YAML")),
    "a field is missing": ("settings: {}", ("own.yaml: settings.address: is missing",)),
    "no settings": ("name: x", ("own.yaml: settings.address: is missing",)),
    "a field too many": (
        "settings: {address: a, adress: b}",
        ("own.yaml: settings.adress", "unknown key", "did you mean 'address'?"),
    ),
    "a wrong value": (
        "settings: {address: a, delay: 30}",
        ("own.yaml: settings.delay", "30 has no unit"),
    ),
    "a section too many": (
        "setings: {address: a}",
        ("own.yaml: setings", "did you mean 'settings'?"),
    ),
    "an unknown limit": (
        "settings: {address: a}\nlimits: {snapshot_p59: 2 s}",
        ("own.yaml: limits.snapshot_p59", "did you mean 'snapshot_p95'?"),
    ),
    "a limit without a unit": (
        "settings: {address: a}\nlimits: {snapshot_p95: 2}",
        ("own.yaml: limits.snapshot_p95", "2 has no unit"),
    ),
    "an unknown effort": (
        "settings: {address: a}\neffort: heroic",
        ("own.yaml: effort", "'heroic'", "'standard'"),
    ),
    "a name of two lines": ('name: "a\\nb"\nsettings: {address: a}', ("own.yaml: name",)),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_cannot_be_used(here: Path, case: str) -> None:
    text, words = CONFIGS[case]
    if text is not None:
        Path("own.yaml").write_text(text)
    refused(here, "array", TINY, "--config", "own.yaml", words=words)


@pytest.mark.parametrize("place", ["{password: hunter2}", "{login: [{api_key: hunter2}]}"])
def test_a_secret_in_a_configuration_is_refused_and_not_repeated(here: Path, place: str) -> None:
    Path("own.yaml").write_text(f"settings: {place}")
    words = ("own.yaml: settings.", "a secret does not belong in a configuration")
    assert "hunter2" not in refused(here, "array", TINY, "--config", "own.yaml", words=words)


TARGETS = {
    "modelled-rwo": ("there is no target 'modelled-rwo'", "did you mean 'modelled-row'?"),
    "zzz": ("there is no target 'zzz'", "installed are", "modelled-row"),
    "no_such_module:Thing": ("there is no module 'no_such_module'", "current folder"),
    "support_certify_tiny:Thing": ("module support_certify_tiny has no class 'Thing'",),
    "not a module:Thing": ("'not a module:Thing' is not of the form module:Class",),
    "support_certify_tiny:A_NUMBER": ("names 7, not a class",),
    "support_certify_tiny:Half": ("Half is no subclass of ArrayTarget", "docs/certify.md"),
    "support_certify_tiny:OfVms": ("hypervisor drivers", "certify hypervisor"),
    "support_certify_tiny:NoUnits": ("NoUnits lacks units",),
    "support_certify_tiny:WrongInit": ("WrongInit cannot be made: TypeError",),
    "support_certify_tiny:HalfTarget": (
        "support_certify_tiny.Half lacks snapshot_group, delete_snapshot",
    ),
    "support_certify_tiny:Undeclared": ("capabilities is {'atomic_groups': True}",),
    "support_certify_tiny:NotEntered": ("connect", "MemoryArray, not an asynchronous context"),
    "support_certify_tiny:TwoUnits": ("TwoUnits: units: gives 2 units", "3 at least"),
}


@pytest.mark.parametrize("word", TARGETS)
def test_a_target_that_cannot_be_used(here: Path, word: str) -> None:
    refused(here, "array", word, words=TARGETS[word])


def test_a_module_that_cannot_be_imported(here: Path) -> None:
    Path("bad_sf_target.py").write_text("import no_such_dependency\n")
    words = ("bad_sf_target needs 'no_such_dependency', which is not installed",)
    refused(here, "array", "bad_sf_target:Thing", words=words)
    Path("worse_sf_target.py").write_text("x = 1\ny = 1 / 0\n")
    words = ("worse_sf_target cannot be imported: ZeroDivisionError", "worse_sf_target.py, line 2")
    refused_text = CliRunner().invoke(app, ["certify", "array", "worse_sf_target:Thing"]).stderr
    assert all(word in refused_text for word in words)


UNREACHABLE = {
    "Silent": ("did not connect within 60 s", "is the system up"),
    "Refusing": ("connect on tiny failed: the login was refused",),
    "Unplugged": (
        "Unplugged failed: ConnectionRefusedError: [Errno 111] Connection refused",
        "(support_certify_tiny.py, line ",
    ),
}


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_system_that_cannot_be_reached_is_a_failure(here: Path, name: str) -> None:
    refused(here, "array", f"support_certify_tiny:{name}", words=UNREACHABLE[name], code=3)


def test_options_that_cannot_be_used(here: Path) -> None:
    Path("folder").mkdir()
    Path("folder/precious").write_text("mine")
    for args, words in (
        (("--only", "TINY-SNP-9"), ("no requirement 'TINY-SNP-9'", "did you mean TINY-SNP-0")),
        (("--effort", "heroic"), ("'heroic' is none of quick, standard, thorough",)),
        (("--seed", "-1"), ("'-1' is not a whole number",)),
        (("--out", "folder"), ("folder: holds something else than a certificate",)),
        (("--out", "vendor.yaml"), ("vendor.yaml: is not a folder",)),
        (("--key", "no.pem"), ("no.pem: cannot be read: No such file",)),
        (("--key", "vendor.yaml"), ("vendor.yaml: holds no private key in PEM", "openssl")),
        (("--key", "public.pem"), ("public.pem: holds no private key in PEM",)),
    ):
        refused(here, "array", BARE, *args, words=words)


def test_keys_that_cannot_sign(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = BestAvailableEncryption(b"secret")
    Path("sealed.pem").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed))
    words = ("sealed.pem: the key is protected by a passphrase",)
    refused(here, "array", BARE, "--key", "sealed.pem", words=words)
    other = generate_private_key(65537, 2048)
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    Path("rsa.pem").write_bytes(pem)
    refused(here, "array", BARE, "--key", "rsa.pem", words=("rsa.pem: is no Ed25519 key",))
    monkeypatch.setenv("STILLFRAME_SIGNING_KEY", "hunter2")
    line = refused(here, "array", BARE, words=("$STILLFRAME_SIGNING_KEY", "no private key"))
    assert "hunter2" not in line


def test_verify_refuses_what_is_not_a_certificate(here: Path) -> None:
    Path("empty").mkdir()
    Path("other.json").write_text('{"format": "stillframe-result"}')
    Path("torn.json").write_text('{"format": "stillframe-cert')
    for path, words in (
        ("no", ("no: cannot be read",)),
        ("empty", ("empty/certificate.json: cannot be read", "name a certificate's folder")),
        ("other.json", ("other.json: format: this is no certificate",)),
        ("torn.json", ("torn.json: is no certificate, or was damaged",)),
    ):
        refused(here, "verify", path, words=words)


def test_verify_wants_the_public_key_of_the_signer(here: Path) -> None:
    certify("array", BARE, "--out", "mine", "--key", "signing.pem")
    words = ("signing.pem: holds a private key", "give the public one")
    refused(here, "verify", "mine", "--key", "signing.pem", words=words)
    words = ("vendor.yaml: holds no public key",)
    refused(here, "verify", "mine", "--key", "vendor.yaml", words=words)


def test_a_tampered_certificate_is_refused(here: Path) -> None:
    certify("array", "support_certify_tiny:Broken", "--out", "mine", "--key", "signing.pem", code=1)
    file = Path("mine/certificate.json")
    file.write_text(file.read_text().replace('"verdict": "fail"', '"verdict": "pass"'))
    refused(here, "verify", "mine", words=("mine/certificate.json", "the certificate was changed"))
    refused(here, "matrix", "mine", "--out", "m.html", words=("the certificate was changed",))


def test_the_kinds_of_drivers_are_two(here: Path) -> None:
    refused(here, "list", "tape", words=("'tape' is no kind of driver", "array, hypervisor"))
