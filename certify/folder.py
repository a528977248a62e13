"""A certificate's folder: written with a signature, read back only if nobody has changed it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import InputError
from ..topology.yamlfile import validate
from .certificate import Body, canonical, kit_digest
from .signing import ALGORITHM, Signer, fingerprint, is_signed, packed, signature_of, unpacked

FORMAT = "stillframe-certificate"
VERSION = 1
CERTIFICATE = "certificate.json"
PAGE = "certificate.html"
JUNIT = "junit.xml"
_ENVELOPE = {"format", "version", "body", "files", "signature"}
_SIGNATURE = {"algorithm", "public_key", "fingerprint", "value"}
_ADVICE = "do not rely on it; ask whoever issued it for the original"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was read back whole.

    Attributes
    ----------
    body:
        What it says.
    fingerprint:
        Of the key that signed it; None when nobody did.
    path:
        The file.
    """

    body: Body
    fingerprint: str | None
    path: Path


def check_out(out: Path) -> None:
    """Refuse, before any work is done, a place where a certificate must not or cannot go.

    Raises
    ------
    InputError
        ``out`` is a file, a folder that holds something else than a certificate, or cannot be
        written to.
    """
    advice = "name a new folder or one that holds an earlier certificate"
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(str(out), "", "is not a folder", advice)
    if out.is_dir() and any(out.iterdir()) and not _is_certificate(out / CERTIFICATE):
        raise InputError(str(out), "", "holds something else than a certificate", advice)
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(str(out), "", f"cannot be made: {there} cannot be written to")


def _is_certificate(path: Path) -> bool:
    try:
        head = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(head, dict) and head.get("format") == FORMAT


def write_certificate(
    out: Path, body: Body, files: Mapping[str, bytes], key: Signer | None
) -> Path:
    """Write a certificate and the files beside it, and sign all of it if there is a key.

    Parameters
    ----------
    out:
        The folder; an earlier certificate in it is replaced, files of others stay.
    files:
        What else belongs to it, by name.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    envelope: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "body": body.plain(),
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
    }
    envelope["signature"] = None if key is None else _signed(envelope, key)
    try:
        out.mkdir(parents=True, exist_ok=True)
        # The certificate last: it is what makes the other files belong together.
        for name, content in (*sorted(files.items()), (CERTIFICATE, _written(envelope))):
            _replace(out / name, content)
    except OSError as error:
        problem = f"the certificate cannot be written: {error.strerror}"
        raise InputError(str(out), "", problem) from error
    return out / CERTIFICATE


def _signed(envelope: Mapping[str, Any], key: Signer) -> dict[str, str]:
    return {
        "algorithm": ALGORITHM,
        "public_key": packed(key.public),
        "fingerprint": fingerprint(key.public),
        "value": signature_of(key, _message(envelope)),
    }


def _message(envelope: Mapping[str, Any]) -> bytes:
    return canonical({name: envelope[name] for name in _ENVELOPE - {"signature"}})


def _written(envelope: Mapping[str, Any]) -> bytes:
    text = json.dumps(envelope, ensure_ascii=False, allow_nan=False, indent=1)
    return f"{text}\n".encode()


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_certificate(path: Path, key: Ed25519PublicKey | None = None) -> Certificate:
    """A certificate, if it is just as it was written.

    An unsigned one is read too: whoever cares asks for its fingerprint.

    Parameters
    ----------
    path:
        ``certificate.json``, or its folder.
    key:
        By which it has to be signed; None for any.

    Raises
    ------
    InputError
        It is no certificate, of a newer version, was changed, does not fit together, or is not
        signed by ``key``.
    """
    file = path / CERTIFICATE if path.is_dir() else path
    envelope = _envelope(file)
    signed_by = _check_signature(envelope, file)
    _check_files(envelope["files"], file)
    body = validate(Body, envelope["body"], str(file), units_required=False)
    odds = body.odds()
    if odds:
        raise InputError(str(file), "", odds, _ADVICE)
    mark = None if signed_by is None else fingerprint(signed_by)
    if key is not None and mark != fingerprint(key):
        by = "nobody" if mark is None else f"key {mark}"
        raise InputError(str(file), "", f"is signed by {by}, not by {fingerprint(key)}", _ADVICE)
    return Certificate(body, mark, file)


def _envelope(file: Path) -> dict[str, Any]:
    source = str(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise InputError(source, "", problem, "name a certificate's folder") from None
    try:
        envelope = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(source, "", "is no certificate, or was damaged: it is not JSON") from None
    if not isinstance(envelope, dict) or envelope.get("format") != FORMAT:
        raise InputError(source, "format", "this is no certificate of Stillframe")
    if envelope.get("version") != VERSION:
        problem = f"{envelope.get('version')!r} is not a version that this Stillframe reads"
        raise InputError(source, "version", problem, "use the Stillframe that wrote it")
    # Byte for byte: keys that come twice or more, and all that a reader could not see in it.
    if set(envelope) != _ENVELOPE or _again(envelope) != content:
        raise InputError(source, "", "was changed after it was written", _ADVICE)
    return envelope


def _again(envelope: Mapping[str, Any]) -> bytes:
    try:
        return _written(envelope)
    except ValueError:  # numbers that are none, letters that are half
        return b""


def _check_signature(envelope: Mapping[str, Any], file: Path) -> Ed25519PublicKey | None:
    signature = envelope["signature"]
    if signature is None:
        return None
    changed = InputError(
        str(file), "signature", "does not fit: the certificate was changed", _ADVICE
    )
    if not isinstance(signature, dict) or set(signature) != _SIGNATURE:
        raise changed
    if not all(isinstance(part, str) for part in signature.values()):
        raise changed
    try:
        key = unpacked(signature["public_key"])
    except ValueError:
        raise changed from None
    if signature["algorithm"] != ALGORITHM or signature["fingerprint"] != fingerprint(key):
        raise changed
    if not is_signed(key, signature["value"], _message(envelope)):
        raise changed
    return key


def _check_files(files: Any, file: Path) -> None:
    if not isinstance(files, dict) or not {PAGE, JUNIT} <= set(files):
        raise InputError(str(file), "files", "does not name the files beside it", _ADVICE)
    for name, digest in files.items():
        beside = file.parent / name
        if Path(name).name != name:
            raise InputError(str(file), "files", f"{name!r} is not a file's name", _ADVICE)
        try:
            content = beside.read_bytes()
        except OSError as error:
            problem = f"belongs to the certificate and cannot be read: {error.strerror}"
            raise InputError(str(beside), "", problem) from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(str(beside), "", "was changed after it was written", _ADVICE)


def check_kit(certificate: Certificate) -> bool:
    """Whether the kit that judged can be compared with ours, which has to be the same then.

    Kits of other versions judge by other checks; whoever wants to compare has to install theirs.

    Raises
    ------
    InputError
        It has our version and other sources: somebody has changed the checks, there or here.
    """
    kit, ours = certificate.body.kit, importlib.metadata.version("stillframe")
    if kit.version != ours:
        return False
    if kit.digest != kit_digest():
        problem = f"was made by a changed kit: its sources are not those of stillframe {ours} here"
        raise InputError(str(certificate.path), "kit", problem, _ADVICE)
    return True
