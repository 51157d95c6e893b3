"""Open what was received: signatures of the bytes first, then what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from purify_plugins.certificates.verification import read
from purify_plugins.errors import AlteredError, SignatureError, UnreadableError
from purify_plugins.signing.envelope import Envelope, Signature, read_envelope
from purify_plugins.signing.keys import PublicKey
from purify_plugins.signing.statement import Statement, read_statement
from purify_plugins.types import Certificate
from purify_plugins.utils.strict_json import loads

MOST = 64 * 1024 * 1024
"""The most bytes of a certificate that are parsed; one of 100,000 tokens has 10 MB."""


@dataclass(frozen=True)
class Opened:
    """A certificate as it was received.

    `statement` is what was signed, None of an unsigned one. `signers` are the given keys that signed it,
    `others` the ids that its other signatures name, of which nothing is known.
    """

    certificate: Certificate
    statement: Statement | None = None
    signers: tuple[PublicKey, ...] = ()
    others: tuple[str, ...] = ()


def opened(data: bytes, keys: Sequence[PublicKey] = ()) -> Opened:
    """What was received, its signatures checked before it is parsed; every key given must have signed it.

    Without a key a signed certificate's signatures are not checked. Raises SignatureError, AlteredError,
    NoCertificateError, UnreadableError.
    """
    if len(data) > MOST:
        raise UnreadableError(f"it has {len(data):,} bytes, and no certificate has more than {MOST:,}")
    if not _enveloped(data):
        certificate = read(data)
        if keys:
            raise SignatureError(
                "the certificate is not signed, and you gave a key; whoever sends it can have written it"
            )
        return Opened(certificate)
    envelope = read_envelope(data)
    signers, others = signatures(envelope, keys)
    stated = read_statement(envelope.payload_type, envelope.payload)
    if envelope.text.encode() != data:
        raise AlteredError("the signed certificate's file is not as it was written; it has been reformatted")
    certificate = read(stated.certificate)
    return Opened(Certificate(certificate.text, envelope.text), stated, signers, others)


def _enveloped(data: bytes) -> bool:
    """Whether a file is a signed certificate; what is no JSON is left to `read`, which says why."""
    try:
        found = loads(data.decode())
    except ValueError:
        return False
    return isinstance(found, dict) and "payloadType" in found


def signatures(
    envelope: Envelope, keys: Sequence[PublicKey]
) -> tuple[tuple[PublicKey, ...], tuple[str, ...]]:
    """The keys, all of which signed it, and the ids that its other signatures name.

    Raises SignatureError, and AlteredError for signatures that are not as a signer of ours writes them.
    """
    signers = require_signed(envelope, keys)
    return signers, tuple(_others(envelope, signers))


def require_signed(envelope: Envelope, keys: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
    """The keys, all of which signed it. Raises SignatureError."""
    signers = envelope.signers(keys)
    for key in keys:
        if key not in signers:
            named = any(each.keyid == key.id for each in envelope.signatures)
            why = "a signature that names it is not of these bytes" if named else "no signature is of it"
            raise SignatureError(f"the key {key.id[:16]}… has not signed this: {why}")
    return signers


def _others(envelope: Envelope, signers: Sequence[PublicKey]) -> Iterator[str]:
    """The ids of signatures by other keys. Raises AlteredError for those that no signer of ours writes."""
    seen: set[str] = set()
    for each in envelope.signatures:
        maker = next((key.id for key in signers if key.verifies(each.sig, envelope.signed)), None)
        _require_named(each, maker, [key.id for key in signers])
        if each.keyid in seen:
            raise AlteredError("two of its signatures name one key")
        seen.add(each.keyid)
        if maker is None:
            yield each.keyid


def _require_named(each: Signature, maker: str | None, known: Sequence[str]) -> None:
    """A signature's id must be its key's; it decides nothing else."""
    if maker is not None and each.keyid != maker:
        raise AlteredError("a signature names another key than the one that made it")
    if maker is None and each.keyid in known:
        raise AlteredError("a signature that names a key of yours is not of these bytes")
    if len(each.sig) != 64 or not re.fullmatch("[0-9a-f]{64}", each.keyid):
        raise AlteredError("a signature is not as an Ed25519 key writes it")
