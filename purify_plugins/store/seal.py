"""Seals: a signature of the hash of a record, and so of all before it."""

from __future__ import annotations

from purify_plugins.canonical_json import canonical

SEAL_TYPE = "application/vnd.purify-plugins.seal+json"


def seal(number: int, digest: str, when: str) -> bytes:
    """What is signed: that the record of this number has this hash."""
    return canonical({"number": number, "hash": digest, "when": when}).encode()
