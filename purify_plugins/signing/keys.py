"""Ed25519 keys: public ones to check with, and private ones from files or the environment to sign with."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purify_plugins.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAKE = "make a pair with `purify keys new`"


@dataclass(frozen=True)
class PublicKey:
    """A public key, by its 32 bytes."""

    raw: bytes

    @property
    def id(self) -> str:
        """SHA-256 of its DER, which `openssl pkey -pubin -in FILE -outform DER | sha256sum` prints."""
        return hashlib.sha256(DER + self.raw).hexdigest()

    @property
    def pem(self) -> str:
        """Its PEM file."""
        return f"{BEGIN}\n{base64.b64encode(DER + self.raw).decode()}\n{END}\n"

    @cached_property
    def _key(self) -> Ed25519PublicKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        return Ed25519PublicKey.from_public_bytes(self.raw)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether it is this key's signature of the data."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @classmethod
    def read(cls, text: bytes, what: str) -> PublicKey:
        """The key of a PEM file; `what` it is, for errors. Raises ConfigError for any other text."""
        if b"PRIVATE KEY" in text:
            raise ConfigError(
                f"{what} holds a private key, which signs; give the public one, and keep this one"
            )
        lines = text.decode(errors="replace").split()
        try:
            wrapped = " ".join(lines).removeprefix(BEGIN).removesuffix(END)
            found = base64.b64decode("".join(wrapped.split()), validate=True)
        except ValueError:  # binascii's too
            found = b""
        if len(found) != len(DER) + 32 or not found.startswith(DER):
            raise ConfigError(
                f"{what} is no public Ed25519 key in PEM ({BEGIN!r}); give the file that the issuer publishes"
            )
        return cls(found.removeprefix(DER))


DER = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of every Ed25519 key (RFC 8410)."""
BEGIN, END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"


class SigningKey(ABC):
    """A private key, wherever it is kept."""

    @property
    @abstractmethod
    def public(self) -> PublicKey:
        """Its public half."""

    @abstractmethod
    def sign(self, data: bytes) -> bytes:
        """The signature of the data, 64 bytes. Raises ConfigError where the key cannot be used."""


class HeldKey(SigningKey):
    """A private key in this process's memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @cached_property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    @property
    def pem(self) -> bytes:
        """Its PEM file (PKCS #8, not encrypted)."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @classmethod
    def new(cls) -> HeldKey:
        """A new key, from the operating system's random numbers."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())


def key_in_file(path: Path) -> HeldKey:
    """The private key of a PEM file that its owner alone can read. Raises ConfigError."""
    try:
        text, mode = path.read_bytes(), path.stat().st_mode
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read the key {str(path)!r}: {said}; {MAKE}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"the key {str(path)!r} can be read by others than its owner; run chmod 600 on it")
    return _held(text, f"the key {str(path)!r}")


def key_in_environment(name: str) -> HeldKey:
    """The private key in an environment variable: PEM, or base64 of it on one line. Raises ConfigError."""
    text = os.environ.get(name, "").strip().encode(errors="surrogateescape")
    if not text:
        raise ConfigError(f"the key's environment variable {name!r} is not set; put the PEM of a key in it")
    try:
        text = text if text.startswith(b"-----") else base64.b64decode(text, validate=True)
    except binascii.Error:
        text = b""
    return _held(text, f"the environment variable {name!r}")


def _held(text: bytes, what: str) -> HeldKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key: Any = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):  # no PEM, or an encrypted one
        key = load_pem_private_key(text, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{what} is no unencrypted private Ed25519 key in PEM; {MAKE}")
    return HeldKey(key)
