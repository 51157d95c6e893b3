"""in-toto statements: what is signed of a certificate, the answer's digest and the certificate as it is.

Source: github.com/in-toto/attestation, spec/v1. The types are part of the signed bytes, and are
compared before anything else is read (CVE-2022-35929 was a verifier that did not).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from purify_plugins.canonical_json import canonical
from purify_plugins.errors import AlteredError, ForgedError, NoCertificateError
from purify_plugins.utils.strict_json import loads

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:purify-plugins:certificate:"
"""Our predicate types: this, and the version that stands in a certificate's `format`."""
SPELLED = {
    "issued": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
    "chain": "[0-9a-f]{32}",
    "previous": "[0-9a-f]{64}",
}
"""How the texts of a link are spelled."""
FIRST = "0" * 64
"""What stands for the digest before a chain's first certificate."""


@dataclass(frozen=True)
class Link:
    """A certificate's place in the chain of the process that issued it.

    `chain` is that process's own number, `sequence` counts its certificates from 0, `previous` is the
    SHA-256 of the statement before (`FIRST` for the first one). `issued` is the issuer's clock, in UTC:
    "2026-11-29T08:30:00Z".
    """

    issued: str
    chain: str
    sequence: int
    previous: str


@dataclass(frozen=True)
class Statement:
    """What was signed: a certificate's text, and its place in the chain. `digest` is of the signed bytes."""

    certificate: str
    link: Link
    digest: str


def statement(text: str, link: Link) -> bytes:
    """The bytes to sign for a certificate's text."""
    body = loads(text)
    subject = {
        "name": "answer",
        "digest": {"sha256": body["answer"]["sha256"]},
        "annotations": asdict(link),
    }
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [subject],
            "predicateType": predicate_type(body),
            "predicate": body,
        }
    ).encode()


def predicate_type(body: Mapping[str, Any]) -> str:
    """The type of a certificate as a predicate, by its format's version."""
    return f"{PREDICATE}{str(body.get('format', '')).rpartition('/')[2]}"


def read_statement(payload_type: str, payload: bytes) -> Statement:
    """The certificate that verified bytes state. Raises NoCertificateError, AlteredError, ForgedError."""
    if payload_type != PAYLOAD_TYPE:
        raise NoCertificateError(f"what is signed is {payload_type[:80]!r}, not an in-toto statement")
    try:
        text = payload.decode()
        body = loads(text)
        edited = canonical(body) != text if isinstance(body, dict) else True
    except ValueError as error:  # infinity, which canonical JSON has not, among them
        raise NoCertificateError(f"what is signed cannot be parsed ({error})") from error
    link, predicate = _parts(body)
    if edited:
        raise AlteredError("what is signed is not in its canonical form")
    return Statement(canonical(predicate), link, sha256(payload).hexdigest())


def _parts(body: Any) -> tuple[Link, dict[str, Any]]:
    keys = {"_type", "subject", "predicateType", "predicate"}
    if not isinstance(body, dict) or body.keys() != keys or body["_type"] != STATEMENT:
        raise NoCertificateError(f"what is signed is no statement of the type {STATEMENT}")
    predicate, subjects = body["predicate"], body["subject"]
    if not isinstance(predicate, dict) or body["predicateType"] != predicate_type(predicate):
        raise NoCertificateError(
            f"what is signed states a {str(body['predicateType'])[:80]!r}, and holds something else"
        )
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(subjects[0], dict):
        raise NoCertificateError("what is signed is not about one answer")
    [subject] = subjects
    link = link_of(subject.get("annotations"))
    stated = {
        "name": "answer",
        "digest": {"sha256": _answer(predicate)},
        "annotations": asdict(link),
    }
    if subject != stated:
        raise ForgedError("the signature is about another answer than the certificate")
    return link, predicate


def _answer(predicate: Mapping[str, Any]) -> Any:
    answer = predicate.get("answer")
    return answer.get("sha256") if isinstance(answer, dict) else None


def link_of(found: Any) -> Link:
    """A place in a chain, from its JSON. Raises NoCertificateError."""
    fine = isinstance(found, dict) and found.keys() == {*SPELLED, "sequence"}
    fine = fine and all(
        isinstance(found[key], str) and re.fullmatch(SPELLED[key], found[key]) for key in SPELLED
    )
    if not fine or type(found["sequence"]) is not int or found["sequence"] < 0:
        raise NoCertificateError("what is signed has no place in a chain")
    return Link(**found)
