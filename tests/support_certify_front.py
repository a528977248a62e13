"""The front door of the kit for tests: an empty current folder, the tiny array, keys in files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import support_certify_tiny as tiny
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from typer.testing import CliRunner, Result

from stillframe.certify import certificate, figures, folder, issue
from stillframe.certify.signing import KEY_VARIABLE, Signer, fingerprint
from stillframe.cli import app

TINY = "support_certify_tiny:Tiny"
BARE = "support_certify_tiny:Bare"
VENDOR = "name: tiny at home\nsettings: {address: 10.0.0.1}\n"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = Signer(KEY)
MARK = fingerprint(KEY.public_key())
PRIVATE = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, the tiny array's requirements, scratch space under the test's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))  # a target's module may lie in this folder
    monkeypatch.setattr(issue, "REQUIREMENTS", {"array": tiny.REQUIREMENTS, "hypervisor": ()})
    monkeypatch.setattr(issue, "LIMITS", {"array": tiny.LIMITS, "hypervisor": {}})
    # Whoever changes the kit while the tests run shall not break them.
    monkeypatch.setattr(certificate, "kit_digest", lambda: "00ff")
    monkeypatch.setattr(folder, "kit_digest", lambda: "00ff")
    monkeypatch.setattr(figures, "pictures", lambda _body: [])  # drawing takes its time
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(issue, "_SCRATCH", scratch)
    Path("vendor.yaml").write_text(VENDOR)
    Path("signing.pem").write_text(PRIVATE)
    Path("public.pem").write_bytes(PUBLIC)
    return tmp_path


def certify(*args: str, code: int = 0) -> Result:
    """``stillframe certify ARGS``, which has to end with this code."""
    result = CliRunner().invoke(app, ["certify", *args])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def document(*args: str, code: int = 0) -> dict[str, Any]:
    """What it answers as JSON."""
    answer: dict[str, Any] = json.loads(certify(*args, "--json", code=code).stdout)
    return answer
