"""The settings of a vCenter, where credentials come from, and that none is ever shown."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend

from stillframe.drivers.vsphere_settings import (
    INSECURE,
    PASSWORD_ENV,
    Credentials,
    credentials_of,
    parse_settings,
    tls_context,
)
from stillframe.errors import InputError

SECRET = "open sesame"  # noqa: S105  of nobody


def test_little_has_to_be_said() -> None:
    settings = parse_settings("vc", {"host": "vc.example", "poll_interval": "500 ms"})
    assert (settings.host, settings.port, settings.verify) == ("vc.example", 443, True)
    assert settings.poll_interval == 0.5


@pytest.mark.parametrize(
    ("settings", "field", "says"),
    [
        ({}, "host", "required"),
        ({"host": ""}, "host", "at least 1"),
        ({"host": "h", "port": 0}, "port", "greater"),
        ({"host": "h", "prot": 443}, "prot", "not permitted"),
        ({"host": "h", "verify": False}, "verify", INSECURE),
        ({"host": "h", "pool_size": 0}, "pool_size", "greater"),
        ({"host": "h", "poll_interval": "0 s"}, "poll_interval", "greater"),
        ({"host": "h", "call_timeout": "soon"}, "call_timeout", "'soon' is not a duration"),
        ({"host": "h", "ca_file": "ca.pem", "verify": INSECURE}, "", "ca_file has no effect"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_settings("vc-a", settings)
    assert caught.value.source == "vCenter vc-a"
    assert caught.value.field == field
    assert says in caught.value.problem


def test_a_password_in_a_file_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="does not belong in a file") as caught:
        parse_settings("vc", {"host": "h", "password": SECRET})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None  # pydantic's own error quotes what it was given


def test_credentials_come_from_the_environment() -> None:
    settings = parse_settings("vc", {"host": "h", "user": "backup@vsphere.local"})
    assert credentials_of("vc", settings, {PASSWORD_ENV: SECRET}) == (
        "backup@vsphere.local",
        SECRET,
    )
    other = parse_settings("vc", {"host": "h", "user_env": "WHO", "password_env": "WHAT"})
    assert credentials_of("vc", other, {"WHO": "me", "WHAT": SECRET}) == ("me", SECRET)


def test_a_user_in_the_settings_goes_before_the_environment() -> None:
    settings = parse_settings("vc", {"host": "h", "user": "one", "user_env": "WHO"})
    assert credentials_of("vc", settings, {"WHO": "other", PASSWORD_ENV: SECRET}).user == "one"


@pytest.mark.parametrize(
    ("environ", "field"),
    [({}, "user"), ({"STILLFRAME_VSPHERE_USER": "me"}, "password")],
)
def test_missing_credentials_are_named(environ: dict[str, str], field: str) -> None:
    with pytest.raises(InputError) as caught:
        credentials_of("vc", parse_settings("vc", {"host": "h"}), environ)
    assert caught.value.field == field
    assert caught.value.advice


class OneSecret(KeyringBackend):
    """A keyring with one entry, or one that is locked."""

    priority = 1  # type: ignore[assignment]

    def __init__(self, *, locked: bool = False) -> None:
        super().__init__()
        self.locked = locked

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise keyring.errors.KeyringLocked("locked")
        return SECRET if (service, username) == ("stillframe", "me") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise keyring.errors.PasswordSetError("read only")


@pytest.fixture
def ring() -> Any:
    """Sets the keyring for one test."""
    before = keyring.get_keyring()
    yield keyring.set_keyring
    keyring.set_keyring(before)


def test_credentials_come_from_the_keyring(ring: Any) -> None:
    ring(OneSecret())
    settings = parse_settings("vc", {"host": "h", "user": "me", "keyring": "stillframe"})
    # The environment's is another one's: the keyring was asked for.
    assert credentials_of("vc", settings, {PASSWORD_ENV: "other"}) == ("me", SECRET)
    stranger = parse_settings("vc", {"host": "h", "user": "you", "keyring": "stillframe"})
    with pytest.raises(InputError, match="no password for user you"):
        credentials_of("vc", stranger, {PASSWORD_ENV: "other"})


def test_a_locked_keyring_is_said(ring: Any) -> None:
    ring(OneSecret(locked=True))
    settings = parse_settings("vc", {"host": "h", "user": "me", "keyring": "stillframe"})
    with pytest.raises(InputError, match="cannot be read"):
        credentials_of("vc", settings, {})


def test_credentials_do_not_show_themselves() -> None:
    credentials = Credentials("me", SECRET)
    shown = f"{credentials} {credentials!r} {[credentials]}"
    assert SECRET not in shown


def test_a_server_is_verified_unless_somebody_says_otherwise_in_words() -> None:
    checked = tls_context("vc", parse_settings("vc", {"host": "localhost"}))
    assert checked.verify_mode is ssl.CERT_REQUIRED
    assert checked.check_hostname
    trusting = tls_context("vc", parse_settings("vc", {"host": "h", "verify": INSECURE}))
    assert trusting.verify_mode is ssl.CERT_NONE


def test_a_ca_file_that_is_missing_or_none_is_named(tmp_path: Path) -> None:
    missing = parse_settings("vc", {"host": "h", "ca_file": str(tmp_path / "none.pem")})
    with pytest.raises(InputError, match="cannot be read: No such file"):
        tls_context("vc", missing)
    (tmp_path / "text.pem").write_text("hello", encoding="utf-8")
    wrong = parse_settings("vc", {"host": "h", "ca_file": str(tmp_path / "text.pem")})
    with pytest.raises(InputError, match="holds no certificate"):
        tls_context("vc", wrong)
