"""Where a vCenter is and how to log in to it: the settings of one live hypervisor.

A password is never a setting. It comes from an environment variable or from the system's keyring,
is read when the driver connects, and appears in no ``repr``, log or error.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keyring
import keyring.errors
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InputError
from ..quantity import Seconds

PASSWORD_ENV = "STILLFRAME_VSPHERE_PASSWORD"  # noqa: S105  the variable's name
USER_ENV = "STILLFRAME_VSPHERE_USER"
INSECURE = "insecure-no-verification"


class Credentials(NamedTuple):
    """A user and his password; neither is shown when this is printed."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "Credentials(hidden)"


class VsphereSettings(BaseModel):
    """What connects to one vCenter.

    Attributes
    ----------
    host, port:
        Where its API answers, over TLS.
    ca_file:
        The certificates (PEM) that the server's must be signed by; without it those that the
        system trusts.
    verify:
        ``true``, or in so many words ``insecure-no-verification``.
    user, user_env:
        The user name, or the environment variable that holds it.
    keyring:
        The keyring service that holds the password of that user.
    password_env:
        Without ``keyring``, the environment variable that holds the password.
    connect_timeout:
        Seconds to connect and shake hands.
    call_timeout:
        Seconds without a byte of answer after which a call is given up.
    pool_size:
        Connections, and calls in flight at the same time.
    poll_interval:
        Seconds between two looks at the tasks that are under way.
    outage_timeout:
        Seconds for which tasks are waited for while the vCenter does not answer.
    lost_call_grace:
        Seconds after a lost call for which nobody says that the VM is idle: the request may still
        be on its way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(min_length=1)
    port: int = Field(default=443, ge=1, le=65535)
    ca_file: Path | None = None
    verify: Literal[True, "insecure-no-verification"] = True
    user: str | None = Field(default=None, min_length=1)
    user_env: str = USER_ENV
    keyring: str | None = Field(default=None, min_length=1)
    password_env: str = PASSWORD_ENV
    connect_timeout: Seconds = Field(default=10.0, gt=0)
    call_timeout: Seconds = Field(default=60.0, gt=0)
    pool_size: int = Field(default=16, ge=1, le=256)
    poll_interval: Seconds = Field(default=0.25, gt=0)
    outage_timeout: Seconds = Field(default=120.0, ge=0)
    lost_call_grace: Seconds = Field(default=5.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _no_password(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "password" in data:
            raise ValueError(
                "a password does not belong in a file; put it into the environment variable that "
                "password_env names, or into the keyring"
            )
        return data

    @model_validator(mode="after")
    def _one_way_to_verify(self) -> VsphereSettings:
        if self.verify == INSECURE and self.ca_file is not None:
            raise ValueError(f"ca_file has no effect beside verify: {INSECURE}; remove one of them")
        return self


def parse_settings(system_id: str, settings: Mapping[str, Any]) -> VsphereSettings:
    """Check the settings of a vCenter.

    Parameters
    ----------
    settings:
        As in a configuration file, ``driver`` left out; durations with a unit or plain seconds.

    Raises
    ------
    InputError
        A setting is missing, unknown or unusable; the error never quotes a value that could be
        a password.
    """
    try:
        return VsphereSettings.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise InputError(f"vCenter {system_id}", field, problem) from None


def credentials_of(
    system_id: str, settings: VsphereSettings, environ: Mapping[str, str] | None = None
) -> Credentials:
    """The user and password to log in with.

    Parameters
    ----------
    environ:
        The environment; that of the process by default.

    Raises
    ------
    InputError
        No user or no password is to be found.
    """
    where = f"vCenter {system_id}"
    variables = os.environ if environ is None else environ
    user = settings.user or variables.get(settings.user_env)
    if not user:
        raise InputError(
            where, "user", "no user is given", f"set user, or the variable {settings.user_env}"
        )
    if settings.keyring is None:
        password = variables.get(settings.password_env)
        advice = f"set the environment variable {settings.password_env}"
    else:
        password = _from_keyring(where, settings.keyring, user)
        advice = f"store it with: keyring set {settings.keyring} {user}"
    if not password:
        raise InputError(where, "password", f"there is no password for user {user}", advice)
    return Credentials(user, password)


def _from_keyring(where: str, service: str, user: str) -> str | None:
    try:
        return keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        raise InputError(
            where,
            "keyring",
            f"the keyring cannot be read: {error}",
            "unlock it, or use password_env instead",
        ) from error


def tls_context(system_id: str, settings: VsphereSettings) -> ssl.SSLContext:
    """How the server has to prove who it is.

    Always explicit: without a context, pyvmomi does not verify a server on the local host.

    Raises
    ------
    InputError
        The CA file cannot be read or holds no certificate.
    """
    where = f"vCenter {system_id}"
    try:
        context = ssl.create_default_context(
            cafile=None if settings.ca_file is None else str(settings.ca_file)
        )
    except ssl.SSLError as error:
        raise InputError(
            where,
            "ca_file",
            f"{settings.ca_file} holds no certificate that can be used ({error.reason})",
            "give a file in PEM format",
        ) from error
    except OSError as error:
        raise InputError(
            where, "ca_file", f"{settings.ca_file} cannot be read: {error.strerror}"
        ) from error
    if settings.verify == INSECURE:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
