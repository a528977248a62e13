"""Signatures under certificates: Ed25519 (RFC 8032), keys in PEM files as OpenSSL makes them.

A private key is read, used and forgotten: it is never written, shown or put into an error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ..errors import InputError

KEY_VARIABLE = "STILLFRAME_SIGNING_KEY"
ALGORITHM = "Ed25519"
_HOW = "make one with `openssl genpkey -algorithm ed25519 -out signing.pem`"
_HOW_PUBLIC = "`openssl pkey -in signing.pem -pubout -out public.pem` gives the public half"


class Signer:
    """A private key, and what may be known of it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key()

    def sign(self, message: bytes) -> bytes:
        """64 bytes that only the holder of the key can make for this message."""
        return self._key.sign(message)


def signer_from(path: Path | None, environment: Mapping[str, str] | None = None) -> Signer | None:
    """The key to sign with: that in a file, else that in the environment, else none.

    Raises
    ------
    InputError
        The file cannot be read, or it or the variable holds no Ed25519 private key.
    """
    if path is not None:
        return _signer(_read(path), str(path))
    text = (os.environ if environment is None else environment).get(KEY_VARIABLE, "")
    return _signer(text.encode(), f"${KEY_VARIABLE}") if text.strip() else None


def public_key_from(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file.

    Raises
    ------
    InputError
        The file cannot be read or holds no Ed25519 public key.
    """
    text = _read(path)
    if b"PRIVATE KEY" in text:
        raise InputError(
            str(path), "", "holds a private key", f"give the public one; {_HOW_PUBLIC}"
        )
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(str(path), "", "holds no public key in PEM", _HOW_PUBLIC) from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(str(path), "", f"is no {ALGORITHM} key", _HOW)
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 over the DER form of the public key, in hexadecimal.

    ``openssl pkey -pubin -in public.pem -outform DER | sha256sum`` gives the same.
    """
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def packed(key: Ed25519PublicKey) -> str:
    """The 32 bytes of a public key in base64, as a certificate holds them."""
    return base64.b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def unpacked(text: str) -> Ed25519PublicKey:
    """The inverse of :func:`packed`. Raises ValueError when the text is no such key."""
    return Ed25519PublicKey.from_public_bytes(_bytes(text))


def signature_of(signer: Signer, message: bytes) -> str:
    """A signature in base64."""
    return base64.b64encode(signer.sign(message)).decode()


def is_signed(key: Ed25519PublicKey, signature: str, message: bytes) -> bool:
    """Whether the holder of this key has signed this message."""
    try:
        key.verify(_bytes(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _bytes(text: str) -> bytes:
    """Base64 in the one form that an encoder gives: no stray bits, no other characters."""
    try:
        value = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("this is not base64") from error
    if base64.b64encode(value).decode() != text:
        raise ValueError("this is not base64 as an encoder writes it")
    return value


def _signer(text: bytes, source: str) -> Signer:
    try:
        key = load_pem_private_key(text, password=None)
    except TypeError:
        problem = "the key is protected by a passphrase"
        advice = "decrypt it into a file that only you can read: `openssl pkey -in … -out …`"
        raise InputError(source, "", problem, advice) from None
    except (ValueError, UnsupportedAlgorithm):
        # Without what the parser says: it may quote what it was given.
        raise InputError(source, "", "holds no private key in PEM", _HOW) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(source, "", f"is no {ALGORITHM} key", _HOW)
    return Signer(key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(str(path), "", f"cannot be read: {error.strerror}") from None
