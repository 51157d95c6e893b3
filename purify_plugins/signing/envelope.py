"""DSSE envelopes: bytes, their type, and signatures of both. What they hold is parsed after it was verified.

Source: github.com/secure-systems-lab/dsse, protocol.md and envelope.md, version 1.0.0.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from purify_plugins.canonical_json import canonical
from purify_plugins.errors import NoCertificateError
from purify_plugins.signing.keys import PublicKey
from purify_plugins.utils.strict_json import loads

ADVICE = "give the signed certificate as it was sent, or ask its issuer for it"
URL_SAFE = bytes.maketrans(b"-_", b"+/")


class Signature(NamedTuple):
    """A signature and the id of its key, a hint that nothing is decided by; "": there is none."""

    keyid: str
    sig: bytes


@dataclass(frozen=True)
class Envelope:
    """Bytes that were signed, as they were received, with their type and the signatures."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @property
    def signed(self) -> bytes:
        """The bytes that each signature is of."""
        return pae(self.payload_type, self.payload)

    @property
    def text(self) -> str:
        """Its canonical JSON."""
        signatures = [
            {**({"keyid": keyid} if keyid else {}), "sig": _encoded(sig)} for keyid, sig in self.signatures
        ]
        payload = {"payload": _encoded(self.payload), "payloadType": self.payload_type}
        return canonical({**payload, "signatures": signatures})

    def signers(self, keys: Iterable[PublicKey]) -> tuple[PublicKey, ...]:
        """Those of the keys that signed it, each once. A signature by another key is passed over."""
        signed, unique = self.signed, {key.id: key for key in keys}
        return tuple(
            key for key in unique.values() if any(key.verifies(each.sig, signed) for each in self.signatures)
        )


def pae(payload_type: str, body: bytes) -> bytes:
    """The pre-authentication encoding, which binds the type to the bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def read_envelope(text: bytes) -> Envelope:
    """The envelope of a JSON text; nothing of it is verified. Raises NoCertificateError."""
    try:
        return envelope_of(loads(text.decode()))
    except ValueError as error:
        raise NoCertificateError(f"this is no signed certificate ({error}); {ADVICE}") from error


def envelope_of(found: Any) -> Envelope:
    """The envelope of a parsed JSON value. Raises ValueError."""
    if not isinstance(found, dict) or found.keys() != {"payload", "payloadType", "signatures"}:
        raise ValueError("an envelope has payload, payloadType and signatures, and nothing else")
    payload, kind, signatures = found["payload"], found["payloadType"], found["signatures"]
    if not (isinstance(payload, str) and isinstance(kind, str) and isinstance(signatures, list)):
        raise ValueError("payload and payloadType are texts, and signatures a list")
    if not signatures:
        raise ValueError("it has no signature")
    return Envelope(_decoded(payload), kind, tuple(map(_signature, signatures)))


def _signature(found: Any) -> Signature:
    if not isinstance(found, Mapping) or not {"sig"} <= found.keys() <= {"sig", "keyid"}:
        raise ValueError("a signature has `sig` and may have `keyid`")
    if not all(isinstance(each, str) for each in found.values()):
        raise ValueError("`sig` and `keyid` are texts")
    return Signature(found.get("keyid", ""), _decoded(found["sig"]))


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    """Base64 in either alphabet. Raises ValueError."""
    try:
        return base64.b64decode(text.encode().translate(URL_SAFE), validate=True)
    except binascii.Error as error:
        raise ValueError(f"it is not base64: {error}") from error
