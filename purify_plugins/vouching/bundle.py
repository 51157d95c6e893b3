"""A signature of model files as OpenSSF `model_signing` writes it, and the key that it is checked with."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from purify_plugins.errors import ConfigError, ModelError
from purify_plugins.utils.extras import require_extra
from purify_plugins.utils.strict_json import loads

PREDICATE = "https://model_signing/signature/v1.0"
ALONE = "."
"""The name of the only file, where a file was signed and no directory."""
CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True)
class SignatureKey:
    """A public key, or an authority's certificate, and the file's content."""

    id: str
    """SHA-256 of its DER: of a certificate, its fingerprint."""
    content: bytes
    hint: str | None
    """By what a signature of a key names it; None: it is a certificate."""

    @classmethod
    def read(cls, content: bytes, file: str) -> Self:
        """Read a PEM file. Raises ConfigError for what no model's signature can be checked with."""
        require_extra("model-signing", "a model's signature")
        if b"PRIVATE KEY" in content:
            raise ConfigError(
                f"signature_key: {file!r} holds a private key, which signs; name the public one"
            )
        if b"BEGIN CERTIFICATE" in content:
            return cls(_fingerprint(content, file), content, None)
        return cls._public(content, file)

    @classmethod
    def _public(cls, content: bytes, file: str) -> Self:
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_public_key,
        )

        try:
            key = load_pem_public_key(content)
        except Exception as error:  # ValueError, UnsupportedAlgorithm and others, for one cause
            raise ConfigError(
                f"signature_key: {file!r} is no public key in PEM; name the file that the signer publishes"
            ) from error
        if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
            raise ConfigError(
                f"signature_key: {file!r} is a key of another kind; model_signing signs with elliptic-curve "
                "keys (P-256, P-384, P-521)"
            )
        spellings = Encoding.DER, Encoding.PEM
        der, pem = (key.public_bytes(each, PublicFormat.SubjectPublicKeyInfo) for each in spellings)
        return cls(hashlib.sha256(der).hexdigest(), pem, hashlib.sha256(pem).hexdigest())


def _fingerprint(content: bytes, file: str) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_certificates

    try:
        [certificate] = load_pem_x509_certificates(content)
    except Exception as error:  # ValueError for several, and for what is none
        raise ConfigError(f"signature_key: {file!r} does not hold one certificate in PEM") from error
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A signature as its file has it; nothing in it holds before `signed.require_signed`.

    `files` are the SHA-256 of the files that it says it is of, by path.
    """

    file: str
    content: bytes
    sha256: str
    files: Mapping[str, str]
    hint: str | None
    """The key that it says made it; None: a certificate."""
    links: bool
    """Whether symbolic links were followed when it was made."""

    @property
    def of_a_file(self) -> bool:
        """Whether a file was signed, and no directory."""
        return list(self.files) == [ALONE]

    @classmethod
    def read(cls, content: bytes, file: str) -> Self:
        """Read a signature's file. Raises ConfigError for one of another kind or form."""
        try:
            found = loads(content.decode())
            material, envelope = found["verificationMaterial"], found["dsseEnvelope"]
            stated = loads(base64.b64decode(envelope["payload"], validate=True).decode())
            [_] = envelope["signatures"]
            kind = stated["predicateType"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"signature: {file!r} is no signature of a model; make one with `model_signing sign key`"
            ) from error
        hint = _hint(material, file)
        if kind != PREDICATE:
            raise ConfigError(f"signature: {file!r} is in the form {str(kind)[:80]!r}; {AGAIN}")
        files, links = _files(stated, file)
        return cls(file, content, hashlib.sha256(content).hexdigest(), files, hint, links)

    def require_key(self, key: SignatureKey) -> None:
        """Raise ModelError for a signature by another key than the one that is expected."""
        if self.hint == key.hint:
            return
        if self.hint is None or key.hint is None:
            made, given, name = BY_AUTHORITY if self.hint is None else BY_KEY
            raise ConfigError(
                f"signature: {self.file!r} was made with a {made}, signature_key is a {given}; name {name}"
            )
        raise ModelError(f"{self.file!r} was not signed by the key that is expected ({key.id}); {ASK}")


BY_AUTHORITY = "certificate", "public key", "the certificate of the authority that issued it"
BY_KEY = "key", "certificate", "the signer's public key"
AGAIN = "sign again with model_signing 1.1 or later, whose defaults fit"
ASK = "ask the signer for the right one, or get the model and its signature again"


def _hint(material: Mapping[str, Any], file: str) -> str | None:
    if "x509CertificateChain" in material:
        return None
    if "publicKey" not in material:
        raise ConfigError(
            f"signature: {file!r} is a sigstore signature (keyless), which is checked against a log on the "
            "network; none is asked here, so check it once and sign the files with a key of your own"
        )
    hint = material["publicKey"].get("hint") if isinstance(material["publicKey"], dict) else None
    if not isinstance(hint, str) or not hint:
        raise ConfigError(f"signature: {file!r} does not name its key; {AGAIN}")
    return hint


def _files(stated: Mapping[str, Any], file: str) -> tuple[Mapping[str, str], bool]:
    """The files that a statement is of, by path, and whether links among them were followed."""
    try:
        how, resources = stated["predicate"]["serialization"], stated["predicate"]["resources"]
        plain, links = how["method"] == "files", how.get("allow_symlinks") is True
        plain = plain and {each["algorithm"] for each in resources} == {"sha256"}
        files = {str(each["name"]): str(each["digest"]) for each in resources}
    except (KeyError, TypeError) as error:
        raise ConfigError(f"signature: {file!r} does not list the files that it is of; {AGAIN}") from error
    if not plain or len(files) != len(resources):
        raise ConfigError(f"signature: {file!r} is not of whole files by SHA-256; {AGAIN}")
    return files, links
